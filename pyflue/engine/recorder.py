"""The recorder of one run's attempt: turns what the workflow says into events of the run's stream.

`FlueContext` calls it from the event loop or from the thread of a sync workflow; it queues events with the journal and
holds the caller up when the disk is behind. Once the attempt is over it refuses everything.
"""

from __future__ import annotations

from collections.abc import Generator
from datetime import datetime
from typing import Any

from ..clock import Clock, to_datetime
from ..codec import Raw
from ..errors import RunStopped, TooManyEvents
from ..journal import Fence, Journal, NewEvent
from ..settings import Limits
from .context import Written
from .threads import run_in_own_thread

_WRITTEN = Written()


class JournalRecorder:
    """Implements `context.Recorder` on a journal."""

    def __init__(self, journal: Journal, fence: Fence, *, last_index: int, clock: Clock, limits: Limits) -> None:
        self._journal = journal
        self._fence = fence
        self._clock = clock
        self._limits = limits
        self._left = limits.events_per_run - last_index
        self._stopped_because: str | None = None
        self.log_bytes = limits.log_bytes
        self.event_bytes = limits.event_bytes

    def event(self, type: str, data: Raw, *, more: Raw | None = None) -> Written:  # noqa: A002  (the field's name)
        if self._stopped_because is not None:
            raise RunStopped(self._fence.run_id, self._stopped_because)
        if self._left <= 0:
            raise TooManyEvents(self._fence.run_id, self._limits.events_per_run)
        self._left -= 1
        run_id = self._fence.run_id
        unwritten = self._journal.unwritten(run_id)
        if unwritten >= self._limits.unwritten_events:
            # The writer does not need this thread to get on, so waiting here cannot wait for itself.
            self._journal.drain(run_id)
        self._journal.append(self._fence, NewEvent(type=type, at_us=self._clock.now_us(), data=data, more=more))
        return _WRITTEN if unwritten < self._limits.unwritten_events // 2 else _Behind(self._journal, run_id)

    def now(self) -> datetime:
        return to_datetime(self._clock.now_us())

    def stop(self, why: str) -> None:
        """Refuse everything from now on."""
        self._stopped_because = why


class _Behind(Written):
    """Awaited, it lets the rest of the event loop work while the disk catches up."""

    __slots__ = ("_journal", "_run_id")

    def __init__(self, journal: Journal, run_id: str) -> None:
        self._journal = journal
        self._run_id = run_id

    def __await__(self) -> Generator[Any, None, None]:
        # In a thread of its own: many runs behind a slow disk would fill the default pool, which others need.
        yield from run_in_own_thread(self._journal.drain, self._run_id).__await__()
