"""Finding the run that ends its process, without blaming its neighbours.

A run that was lost in two crashes without recording progress is a suspect, and so are the runs that only happened to
be beside it. Suspects are not driven in this process any more: they are tried together in a process of their own. If
that process dies, its unfinished runs are tried again in halves, until a run dies alone: that one has failed, with
`crash_loop`. A death of this process (or of the machine) blames nobody.

Called by the engine; starting the process is the business of whoever implements `Quarantine` (`main.py`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from ..journal import Fence, Journal, Run

CRASHES_OF_A_SUSPECT = 2


class Quarantine(Protocol):
    """Somewhere apart to try runs."""

    async def try_runs(self, run_ids: Sequence[str]) -> str | None:
        """Drive queued runs in a process of their own until they end; None if the process ended in good order.

        Otherwise says how it died, such as "exit code 9" or "signal 11".
        """
        ...


async def examine(
    journal: Journal,
    quarantine: Quarantine,
    run_ids: Sequence[str],
    fail: Callable[[str, int, str], Awaitable[None]],
) -> None:
    """Try suspects until each has ended, or has ended its process alone and been failed with `fail`."""
    how = await quarantine.try_runs(run_ids)
    if how is None:
        return
    left = await _requeue_left(journal, run_ids)
    if len(left) == 1 and len(run_ids) == 1:
        await fail(left[0].run_id, left[0].crashes + 1, f"alone in a process of its own ({how})")
        return
    middle = (len(left) + 1) // 2
    for half in (left[:middle], left[middle:]):
        if half:
            await examine(journal, quarantine, [run.run_id for run in half], fail)


async def _requeue_left(journal: Journal, run_ids: Sequence[str]) -> list[Run]:
    left: list[Run] = []
    for run_id in run_ids:
        run = await journal.run(run_id, values=False)
        if run is None or run.is_final:
            continue
        if run.owner is not None:
            await journal.requeue(Fence(run_id=run_id, owner=run.owner, attempt=run.attempt), crashed=True)
        left.append(run)
    return left
