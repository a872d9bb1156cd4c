"""Runs per second through the engine alone: many callers, each submits a run, waits for its end and submits the next.

The journal is the SQLite file, with an fsync per commit. Run in a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from typing import Any

from pyflue import codec
from pyflue.engine import Engine, Submission, Workflow
from pyflue.journal import Outcome, Run, RunStatus
from pyflue.main import open_project

from .servers import fresh_project

#: What the workflows of `project` are given here.
_PAYLOADS: dict[str, Any] = {"echo": {"text": "PyFlue workflows are finite operations."}, "three_steps": 1}


async def measure(*, workflow: str, callers: int, seconds: float) -> dict[str, float]:
    """The figure `in_process.<workflow>.per_second`."""
    per_second = await rate(workflow, _PAYLOADS[workflow], callers=callers, seconds=seconds)
    return {f"in_process.{workflow}.per_second": round(per_second, 1)}


async def rate(workflow: str, payload: Any, *, callers: int, seconds: float) -> float:
    """How many runs of a workflow of `project` end per second."""
    with fresh_project() as folder:
        project = open_project(folder)
        try:
            async with project.engine(adopts=False) as engine:
                found = project.catalog.find(workflow)
                return await _rate(engine, found, codec.encode_value(payload, "The payload"), callers, seconds)
        finally:
            await project.journal.close()


def check_completed(ended: Outcome | Run) -> None:
    """End the benchmark, saying why, if a run did not complete."""
    if ended.status is not RunStatus.COMPLETED:
        error = "" if ended.error is None else codec.load(ended.error)["message"]
        sys.exit(f"A run ended as {ended.status}: {error}")


async def _rate(engine: Engine, workflow: Workflow, payload: codec.Raw, callers: int, seconds: float) -> float:
    finished = 0
    started = time.monotonic()

    async def caller() -> None:
        nonlocal finished
        while time.monotonic() - started < seconds:
            parsed = workflow.parse(codec.load(payload))
            handle = await engine.submit(Submission(workflow=workflow, payload=payload, parsed=parsed), eager=True)
            check_completed(await handle.outcome())
            finished += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(caller())
    return finished / (time.monotonic() - started)


def main() -> None:
    import uvloop

    parser = argparse.ArgumentParser(prog="python -m benchmarks.in_process")
    parser.add_argument("--workflow", default="echo", choices=list(_PAYLOADS))
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    figures = uvloop.run(measure(workflow=options.workflow, callers=options.callers, seconds=options.seconds))
    print(codec.encode(figures).decode())


if __name__ == "__main__":
    main()
