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

__all__ = [
    "FINAL",
    "Accepted",
    "Approval",
    "ApprovalFilter",
    "ApprovalState",
    "CancelAnswer",
    "Checked",
    "Copies",
    "Decided",
    "Event",
    "EventType",
    "Fence",
    "History",
    "Journal",
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
    "SignalAnswer",
    "Step",
    "StepStatus",
    "Wait",
    "WaitKind",
    "WaitState",
    "Watch",
    "follow",
    "open_journal",
    "stored_data",
]


def __getattr__(name: str) -> object:
    # The records of durable calls are many, and most commands and plain runs need none of them.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import calls

    value = globals()[name] = getattr(calls, name)
    return value
