"""The recorder of one run's attempt: turns what the workflow says into events of the run's stream.

`FlueContext` calls it from the event loop or from the thread of a sync workflow; it queues events with the journal and
holds the caller up when the disk is behind. Once the attempt is over it refuses everything. When a run is replayed,
what it said before is not written again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterable, Generator
from typing import Any

from ..clock import Clock
from ..codec import Raw
from ..errors import RunStopped, TooManyEvents
from ..journal import Event, EventType, Fence, Journal, NewEvent, stored_data
from ..settings import Limits
from . import scopes
from .context import Written
from .threads import run_in_own_thread

_WRITTEN = Written()
#: What workflows write, and the engine does not.
_ENGINE_TYPES = frozenset(EventType)
_OF_WORKFLOWS = frozenset({EventType.LOG, EventType.PROGRESS})


class JournalRecorder:
    """Implements `context.Recorder` on a journal."""

    def __init__(self, journal: Journal, fence: Fence, *, last_index: int, clock: Clock, limits: Limits) -> None:
        self._journal = journal
        self._fence = fence
        self._clock = clock
        self._limits = limits
        self._left = limits.events_per_run - last_index
        self._stopped_because: str | None = None
        self._said: Counter[int] | None = None
        self.log_bytes = limits.log_bytes
        self.event_bytes = limits.event_bytes

    async def remember(self, events: AsyncIterable[Event]) -> None:
        """Take what earlier attempts of the run have said."""
        said = Counter[int]()
        async for event in events:
            if event.type in _OF_WORKFLOWS or event.type not in _ENGINE_TYPES:
                said[_mark(event.type, event.data, event.step)] += 1
        self._said = said or None

    def event(self, type: str, data: Raw, *, more: Raw | None = None) -> Written:  # noqa: A002  (the field's name)
        scope = scopes.current()
        step = None if scope is None else scope.attempt_path
        if self._said is not None and self._was_said(type, data, more, step):
            return _WRITTEN
        return self.fact(type, data, more=more, step=step)

    def fact(self, type_: str, data: Raw, *, more: Raw | None = None, step: str | None = None) -> Written:
        """Append an event, whether or not it has been written before."""
        self.count()
        run_id = self._fence.run_id
        unwritten = self.keep_pace()
        event = NewEvent(type=type_, at_us=self._clock.now_us(), data=data, more=more, step=step)
        self._journal.append(self._fence, event)
        return _WRITTEN if unwritten < self._limits.unwritten_events // 2 else _Behind(self._journal, run_id)

    def keep_pace(self) -> int:
        """Block while too much of the run waits for the disk; returns how much waits."""
        run_id = self._fence.run_id
        unwritten = self._journal.unwritten(run_id)
        if unwritten >= self._limits.unwritten_events:
            # The writer does not need this thread to get on, so waiting here cannot wait for itself.
            self._journal.drain(run_id)
        return unwritten

    def count(self) -> None:
        """Note that an event is about to be written.

        Raises:
            RunStopped: the run no longer goes on here; TooManyEvents.
        """
        if self._stopped_because is not None:
            raise RunStopped(self._fence.run_id, self._stopped_because)
        if self._left <= 0:
            raise TooManyEvents(self._fence.run_id, self._limits.events_per_run)
        self._left -= 1

    def _was_said(self, type_: str, data: Raw, more: Raw | None, step: str | None) -> bool:
        said = self._said
        stored, _ = stored_data(data, more, self._limits.event_bytes)
        mark = _mark(type_, stored, step)
        if said is None or not said[mark]:
            return False
        said[mark] -= 1
        if not said[mark]:
            del said[mark]
            self._said = said or None
        return True

    def stop(self, why: str) -> None:
        """Refuse everything from now on."""
        self._stopped_because = why


def _mark(type_: str, data: Raw, step: str | None) -> int:
    return hash((type_, bytes(memoryview(data)), step))


class _Behind(Written):
    """Awaited, it lets the rest of the event loop work while the disk catches up."""

    __slots__ = ("_journal", "_run_id")

    def __init__(self, journal: Journal, run_id: str) -> None:
        self._journal = journal
        self._run_id = run_id

    def __await__(self) -> Generator[Any, None, None]:
        # In a thread of its own: many runs behind a slow disk would fill the default pool, which others need.
        yield from run_in_own_thread(self._journal.drain, self._run_id).__await__()
