"""Taking up a run with very many recorded steps: how long until its code is where it was.

One engine takes the runs to where they wait for a signal, and stops; for the next one only the journal has them. Each
gets its signal and is timed until its end is on disk; runs of no steps tell what of that is not the replay. Run in a
process of its own.
"""

from __future__ import annotations

import argparse
import statistics
import time

from pyflue import codec
from pyflue.engine import Engine, Submission
from pyflue.journal import RunStatus
from pyflue.main import Project, open_project

from .in_process import check_completed
from .servers import fresh_project


async def measure(*, steps: int, times: int) -> dict[str, float]:
    """The figures `replay.<steps>_steps_ms` and `replay.no_steps_ms`, medians."""
    with fresh_project() as folder:
        project = open_project(folder)
        try:
            async with project.engine(adopts=True) as engine:
                waiting = [(count, await _wait_at_end(project, engine, count)) for count in (steps, 0) * times]
            async with project.engine(adopts=True) as engine:
                taken = [(count, await _go_on(engine, run_id)) for count, run_id in waiting]
        finally:
            await project.journal.close()
    return {
        f"replay.{count or 'no'}_steps_ms": round(statistics.median(ms for one, ms in taken if one == count), 2)
        for count in (steps, 0)
    }


async def _wait_at_end(project: Project, engine: Engine, count: int) -> str:
    """Start a run, and return its id once it has taken its steps and waits."""
    workflow = project.catalog.find("many_steps")
    payload = codec.encode_value({"count": count}, "The payload")
    submission = Submission(workflow=workflow, payload=payload, parsed=workflow.parse(codec.load(payload)))
    handle = await engine.submit(submission)
    with project.journal.watch(handle.run_id) as bell:
        while (run := await project.journal.run(handle.run_id)) is None or run.status is not RunStatus.WAITING:
            await bell.wait()
    return handle.run_id


async def _go_on(engine: Engine, run_id: str) -> float:
    """Milliseconds from the signal to the end."""
    started = time.perf_counter()
    await engine.signal(run_id, "go", None)
    check_completed(await engine.wait(run_id))
    return (time.perf_counter() - started) * 1000


def main() -> None:
    import uvloop

    parser = argparse.ArgumentParser(prog="python -m benchmarks.replay")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--times", type=int, default=7)
    options = parser.parse_args()
    print(codec.encode(uvloop.run(measure(steps=options.steps, times=options.times))).decode())


if __name__ == "__main__":
    main()
