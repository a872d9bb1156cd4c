"""What happened: the durable record of runs, their events and everything needed to go on after a crash.

`open_journal(url)` is the only way to a concrete journal; everybody else works with the `Journal` port and the records.
"""

from __future__ import annotations

from .opening import open_journal
from .port import Journal, Watch, follow
from .records import (
    FINAL,
    Accepted,
    CancelAnswer,
    Checked,
    Event,
    EventType,
    Fence,
    NewEvent,
    NewRun,
    Outcome,
    Page,
    Run,
    RunFilter,
    RunStatus,
)

__all__ = [
    "FINAL",
    "Accepted",
    "CancelAnswer",
    "Checked",
    "Event",
    "EventType",
    "Fence",
    "Journal",
    "NewEvent",
    "NewRun",
    "Outcome",
    "Page",
    "Run",
    "RunFilter",
    "RunStatus",
    "Watch",
    "follow",
    "open_journal",
]
