"""Finding the run that ends its process, without blaming its neighbours.

A run that was lost in two crashes without recording progress is a suspect, and so are the runs that only happened to
be beside it. Suspects are not driven in this process any more: they are tried together in a process of their own. If
that process dies, its unfinished runs are tried again in halves, until a run dies alone: that one has failed, with
`crash_loop`. A death of this process (or of the machine) blames nobody.

Called by the engine; starting the process is the business of whoever implements `Quarantine` (`main.py`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from ..journal import Fence, Journal, Run, RunStatus

CRASHES_OF_A_SUSPECT = 2


class Quarantine(Protocol):
    """Somewhere apart to try runs."""

    async def try_runs(self, run_ids: Sequence[str]) -> str:
        """Drive queued runs in a process of their own; says how that ended, such as "exit code 9" or "signal 11".

        Whether it ended well is not to be seen from that, but from the runs it left behind.
        """
        ...


async def examine(
    journal: Journal,
    quarantine: Quarantine,
    run_ids: Sequence[str],
    fail: Callable[[str, int, str], Awaitable[None]],
) -> None:
    """Try suspects until each has ended, or has ended its process alone and been failed with `fail`."""
    before = {run_id: run for run_id in run_ids if (run := await journal.run(run_id, values=False)) is not None}
    how = await quarantine.try_runs(run_ids)
    left = await _requeue_lost(journal, before)
    if len(left) == 1 and len(run_ids) == 1:
        await fail(left[0].run_id, left[0].crashes, f"alone in a process of its own ({how})")
        return
    middle = (len(left) + 1) // 2
    for half in (left[:middle], left[middle:]):
        if half:
            await examine(journal, quarantine, [run.run_id for run in half], fail)


async def _requeue_lost(journal: Journal, before: Mapping[str, Run]) -> list[Run]:
    """Queue what the process took with it: runs it had begun to drive, and whose engine is dead now."""
    for run in await journal.lost():
        known = before.get(run.run_id)
        if known is not None and run.owner is not None and run.attempt > known.attempt:
            fence = Fence(run_id=run.run_id, owner=run.owner, attempt=run.attempt)
            await journal.requeue(fence, crashed=True)
    # Whoever looks after lost runs may have been quicker with some of them: what counts is that they are queued again.
    found = [(known, await journal.run(run_id, values=False)) for run_id, known in before.items()]
    return [
        run
        for known, run in found
        if run is not None and run.status is RunStatus.QUEUED and run.crashes > known.crashes
    ]
