"""One reader of a run's events: page after page, then what is new, until the run's last event.

Used by the SSE and WebSocket routes. A reader that does not take what it is given costs one page, whatever the run
writes meanwhile: nothing is queued for it, the next page is read when it comes back for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from .. import codec
from ..codec import Raw
from ..errors import InvalidQuery, RunNotFound
from ..journal import Event, EventType, Journal, Run

_PAGE_EVENTS = 64
#: With the connection's write buffer, a reader stays below 64 kB.
_PAGE_BYTES = 8 * 1024

#: Events that may hold what an exception says.
_WITH_ERRORS = frozenset({EventType.STEP_RETRY, EventType.STEP_END, EventType.RUN_END})

T = TypeVar("T")


async def find_run(journal: Journal, run_id: str, *, values: bool = True) -> Run:
    """The run with an id.

    Raises:
        RunNotFound
    """
    run = await journal.run(run_id, values=values)
    if run is None:
        raise RunNotFound(run_id)
    return run


class EventReader:
    """Reads a run's events above an index. Use as a context manager, around one reader's life."""

    __slots__ = ("_after", "_bell", "_has_begun", "_is_over", "_journal", "_quiet_s", "_run_id")

    def __init__(self, journal: Journal, run_id: str, *, after: int = 0, quiet_s: float) -> None:
        self._journal = journal
        self._run_id = run_id
        self._after = after
        self._quiet_s = quiet_s
        self._bell = journal.watch(run_id)
        self._has_begun = False
        self._is_over = False

    def __enter__(self) -> EventReader:
        self._bell.__enter__()
        return self

    def __exit__(self, *args: object) -> None:
        self._bell.__exit__(*args)

    async def read(self) -> Sequence[Event] | None:
        """The next events, some at a time: none of them after `quiet_s` of silence, None after the last one.

        Raises:
            RunNotFound: there is no such run (any more).
            InvalidQuery: the index to read above is one the run has not reached, so nobody can have seen it.
        """
        if not self._has_begun:
            await self._begin()
        if self._is_over:
            return None
        while True:
            events = await self._journal.events(
                self._run_id, after=self._after, limit=_PAGE_EVENTS, limit_bytes=_PAGE_BYTES
            )
            if events:
                self._after = events[-1].index
                self._is_over = events[-1].is_last
                return events
            try:
                async with asyncio.timeout(self._quiet_s):
                    await self._bell.wait()
            except TimeoutError:
                await find_run(self._journal, self._run_id, values=False)  # it may have been deleted
                return ()

    async def _begin(self) -> None:
        run = await find_run(self._journal, self._run_id, values=False)
        if self._after > run.last_index:
            expected = f"an index up to {run.last_index}, the last of run {self._run_id}"
            raise InvalidQuery("after", str(self._after), expected)
        self._has_begun = True
        self._is_over = run.is_final and self._after == run.last_index


def for_caller(event: Event, *, dev: bool) -> Event:
    """The event as the caller of a workflow may see it.

    What an exception of the author's says is for those who may read runs; others learn of it in `dev` only.
    """
    if dev or event.type not in _WITH_ERRORS or b'"exception":' not in bytes(event.data):
        return event
    data = codec.load(event.data)
    if "exception" not in (data.get("error") or {}):
        return event
    return replace(event, data=Raw(codec.encode({**data, "error": {"type": data["error"]["type"]}})))


async def first_of(work: Coroutine[Any, Any, T], *others: Coroutine[Any, Any, Any]) -> T | None:
    """Run `work` until it or one of `others` ends; then all of them are over.

    Returns what `work` returned, or None if another was first. What any of them raised is raised.
    """
    tasks = [asyncio.ensure_future(item) for item in (work, *others)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        # Bounded: each of them only reads, sends or waits, and none of that outlives its cancellation.
        await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error
    return None if tasks[0].cancelled() else tasks[0].result()
