"""What happened: the durable record of runs, their events and everything needed to go on after a crash.

`open_journal(url)` is the only way to a concrete journal; everybody else works with the `Journal` port and the records.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    stored_data,
)

if TYPE_CHECKING:
    from .calls import (
        Approval,
        ApprovalFilter,
        ApprovalState,
        Copies,
        Decided,
        History,
        NewSignal,
        NewStep,
        NewWait,
        Opened,
        Park,
        ParkedTimer,
        SignalAnswer,
        Step,
        StepStatus,
        Wait,
        WaitKind,
        WaitState,
    )
    from .conversations import (
        Attached,
        Entry,
        FileRecord,
        FileVersion,
        NewEntry,
        SessionInfo,
        StreamInfo,
    )

__all__ = [
    "FINAL",
    "Accepted",
    "Approval",
    "ApprovalFilter",
    "ApprovalState",
    "Attached",
    "CancelAnswer",
    "Checked",
    "Copies",
    "Decided",
    "Entry",
    "Event",
    "EventType",
    "Fence",
    "FileRecord",
    "FileVersion",
    "History",
    "Journal",
    "NewEntry",
    "NewEvent",
    "NewRun",
    "NewSignal",
    "NewStep",
    "NewWait",
    "Opened",
    "Outcome",
    "Page",
    "Park",
    "ParkedTimer",
    "Run",
    "RunFilter",
    "RunStatus",
    "SessionInfo",
    "SignalAnswer",
    "Step",
    "StepStatus",
    "StreamInfo",
    "Wait",
    "WaitKind",
    "WaitState",
    "Watch",
    "follow",
    "open_journal",
    "stored_data",
]


def __getattr__(name: str) -> object:
    # The records of durable calls and of conversations are many, and most commands and plain runs need none of them.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import calls, conversations

    value = globals()[name] = getattr(calls if hasattr(calls, name) else conversations, name)
    return value
