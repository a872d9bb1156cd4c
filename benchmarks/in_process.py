"""Runs per second through the engine alone: many callers, each submits a run, waits for its end and submits the next.

Every run is two durable records (accepted, finished) in the SQLite journal. Run in a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import time

from pyflue import codec
from pyflue.engine import Engine, Submission, Workflow
from pyflue.main import open_project

from .servers import fresh_project

_PAYLOAD = {"text": "PyFlue workflows are finite operations."}


async def measure(*, callers: int, seconds: float) -> dict[str, float]:
    """The figure `in_process.per_second`."""
    with fresh_project() as folder:
        project = open_project(folder)
        try:
            async with project.engine(adopts=False) as engine:
                per_second = await _rate(engine, project.catalog.find("echo"), callers, seconds)
        finally:
            await project.journal.close()
    return {"in_process.per_second": round(per_second, 1)}


async def _rate(engine: Engine, workflow: Workflow, callers: int, seconds: float) -> float:
    payload = codec.encode_value(_PAYLOAD, "The payload")
    finished = 0
    started = time.monotonic()

    async def caller() -> None:
        nonlocal finished
        while time.monotonic() - started < seconds:
            parsed = workflow.parse(codec.load(payload))
            handle = await engine.submit(Submission(workflow=workflow, payload=payload, parsed=parsed), eager=True)
            await handle.outcome()
            finished += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(caller())
    return finished / (time.monotonic() - started)


def main() -> None:
    import uvloop

    parser = argparse.ArgumentParser(prog="python -m benchmarks.in_process")
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    print(codec.encode(uvloop.run(measure(callers=options.callers, seconds=options.seconds))).decode())


if __name__ == "__main__":
    main()
