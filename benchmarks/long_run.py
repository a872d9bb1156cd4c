"""One run of very many events: how fast they are stored, what memory they take, and opening the record in its middle.

Run in a process of its own, so that its peak memory is that of the run; a second, smaller one tells how much of it
depends on the number of events.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import sys
import time

from pyflue import codec
from pyflue.engine import Engine, Submission, Workflow
from pyflue.main import open_project

from .in_process import check_completed
from .servers import fresh_project

#: What a reader shows first when it opens the record.
_FIRST_PAGE = 1000


async def measure(*, count: int) -> dict[str, float]:
    """The figures `long_run.…` of a run that logs `count` lines, then is read from its middle."""
    with fresh_project() as folder:
        project = open_project(folder)
        try:
            async with project.engine(adopts=False) as engine:
                run_id, seconds = await _store(engine, project.catalog.find("many_events"), count)
                peak_mib = _peak_mib()
                first_page_s, rest_s = await _read(engine, run_id, after=count // 2)
        finally:
            await project.journal.close()
    return {
        "long_run.events": count,
        "long_run.events_per_second": round(count / seconds, 1),
        "long_run.peak_mib": round(peak_mib, 1),
        "long_run.middle_page_ms": round(first_page_s * 1000, 1),
        "long_run.middle_to_end_ms": round(rest_s * 1000, 1),
    }


async def _store(engine: Engine, workflow: Workflow, count: int) -> tuple[str, float]:
    """The id of a finished run of so many events, and the seconds until its end was on disk."""
    payload = codec.encode_value({"count": count}, "The payload")
    started = time.perf_counter()
    handle = await engine.submit(
        Submission(workflow=workflow, payload=payload, parsed=workflow.parse(codec.load(payload)))
    )
    check_completed(await handle.outcome())
    return handle.run_id, time.perf_counter() - started


async def _read(engine: Engine, run_id: str, *, after: int) -> tuple[float, float]:
    """Seconds until the first page behind an event was there, and until the end was."""
    started = time.perf_counter()
    first_page_s = 0.0
    expected = after
    async for event in engine.events(run_id, after=after):
        expected += 1
        if event.index != expected:
            sys.exit(f"After event {expected - 1} came event {event.index}.")
        if expected == after + _FIRST_PAGE:
            first_page_s = time.perf_counter() - started
    return first_page_s, time.perf_counter() - started


def _peak_mib() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024**2 if sys.platform == "darwin" else 1024)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.long_run")
    parser.add_argument("--count", type=int, default=100_000)
    print(codec.encode(asyncio.run(measure(count=parser.parse_args().count))).decode())


if __name__ == "__main__":
    main()
