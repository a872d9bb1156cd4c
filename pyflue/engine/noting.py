"""Steps that are only looked at: recorded for reports and `pyflue runs steps`, and made again when a run is replayed.

Used by dialects whose units of work are partly not worth a durable step (they only combine values that are recorded
already), but should be seen. Nothing waits for such a record: what is lost is computed again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..codec import Raw
from ..journal import EventType, NewStep, StepStatus
from . import raised

if TYPE_CHECKING:
    import asyncio

    from .calls import Calls


def note_step(
    calls: Calls, name: str, value: Raw | Callable[[], Raw] | None, error: Raw | None = None
) -> asyncio.Future[int | None] | None:
    """Record a step that came to a value or an error, in the current scope; once, however often it is replayed.

    A function makes the value only if it is to be recorded. `error` has the form of a run's error: `type`, `message`
    and what else belongs to it. What is returned is done when the record is on disk; None if it was there before.

    Raises:
        CallMisplaced, RunStopped, ReplayMismatch: as a step.
    """
    call = calls.begin(name, "step")
    if calls.recorded(call, None) is not None:
        return None
    calls.recorder.keep_pace()
    status = StepStatus.COMPLETED if error is None else StepStatus.FAILED
    step = NewStep(
        key=call.key,
        kind=call.kind,
        name=call.name,
        position=call.position,
        status=status,
        value=value() if callable(value) else value,
        error=error,
        started_us=calls.clock.now_us(),
        started_index=calls.index,
    )
    about: dict[str, Any] = {"step": call.key, "name": call.name, "kind": "step"}
    end = {**about, "status": status.value, "attempts": 1, "duration_ms": 0.0}
    if error is not None:
        end["error"] = raised.shown(error)
    return calls.record_soon(step, calls.event(EventType.STEP_END, end))
