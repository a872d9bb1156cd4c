"""Answering what runs wait for: signals from outside, and decisions on approvals.

Called by the engine for servers and by the command line with a journal alone: an answer needs no engine, it is written
to the journal, and whoever owns the run goes on with it. What fits is checked here, against the schema that the
workflow recorded when it began to wait; what is open, and who was first, is decided in the journal's transaction.
"""

from __future__ import annotations

import re
from typing import Any

from .. import codec
from ..clock import Clock, rfc3339, to_datetime
from ..codec import Raw
from ..errors import (
    ApprovalClosed,
    ApprovalNotFound,
    DecisionInvalid,
    RunFinished,
    RunNotFound,
    SignalConflict,
    SignalInvalid,
    TooLarge,
)
from ..ids import new_ulid
from ..journal import Approval, Journal, NewSignal, SignalAnswer, WaitKind, WaitState
from ..settings import Limits
from ..typed import misfits
from .port import NOT_GIVEN

_SIGNAL_NAME = re.compile(r"[^\x00-\x1f\x7f/\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffd]{1,128}")
_SIGNAL_ID = re.compile(r"[!-~]{1,255}")
_NOT_EDITABLE = {"path": "$", "message": "it was asked without a schema, so decide it as it stands, without data"}
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_REASON_BYTES = 8 * 1024
_BY_BYTES = 256


async def send_signal(
    journal: Journal, run_id: str, name: str, data: Any, *, signal_id: str | None = None, limits: Limits
) -> SignalAnswer:
    """Send a signal with any JSON value; returns `delivered`, `kept` or, for a known `signal_id`, `repeated`.

    Raises:
        RunNotFound; RunFinished: nothing was recorded; SignalConflict: the id came before with another signal;
        SignalInvalid: the name cannot be one, or the data does not fit what the run waits for.
    """
    if not _SIGNAL_NAME.fullmatch(name):
        raise SignalInvalid(name, "a name has 1 to 128 characters, no '/' and no control characters.")
    if signal_id is not None and not _SIGNAL_ID.fullmatch(signal_id):
        raise SignalInvalid(name, "its id has 1 to 255 printable ASCII characters without spaces.")
    raw = _written(data, f"The data of signal {name!r}", limits, limits.payload_bytes, "limits.payload_bytes")
    await _check_signal(journal, run_id, name, raw)
    signal = NewSignal(signal_id=signal_id or new_ulid(), name=name, data=raw)
    answer = await journal.signal(run_id, signal)
    if answer is None:
        raise RunNotFound(run_id)
    if answer is SignalAnswer.RUN_FINISHED:
        run = await journal.run(run_id, values=False)
        raise RunFinished(run_id, "finished" if run is None else run.status.value)
    if answer is SignalAnswer.CONFLICT:
        raise SignalConflict(signal.signal_id, run_id)
    return answer


async def decide(
    journal: Journal,
    approval_id: str,
    *,
    approved: bool,
    by: str,
    reason: str | None = None,
    data: Any = NOT_GIVEN,
    limits: Limits,
    clock: Clock,
) -> Approval:
    """Approve or reject; returns the approval as it is then. The same decision once more changes nothing.

    `data` is what was approved instead of what was asked, for approvals with a schema; without it an approved request
    is approved as it stands.

    Raises:
        ApprovalNotFound; ApprovalClosed: it is decided otherwise, expired, or its run has ended;
        DecisionInvalid: the data does not fit.
    """
    approval = await journal.approval(approval_id)
    if approval is None:
        raise ApprovalNotFound(approval_id)
    asked = approval.asked
    schema = asked.get("schema")
    is_open = approval.wait.state is WaitState.OPEN  # else the journal says what it is
    if data is NOT_GIVEN:
        data = asked.get("request") if approved else None
    elif schema is None and is_open:
        raise DecisionInvalid(approval_id, [_NOT_EDITABLE])
    if approved and is_open and schema is not None and (problems := misfits(data, schema)):
        raise DecisionInvalid(approval_id, problems)
    decision = {
        "approved": approved,
        "by": _cut(_CONTROL.sub(" ", by), _BY_BYTES),
        "at": rfc3339(to_datetime(clock.now_us())),
        "reason": None if reason is None else _cut(reason, _REASON_BYTES),
        "data": _written(data, "The decision's data", limits, limits.event_bytes, "limits.event_bytes"),
    }
    decided = await journal.decide(approval_id, Raw(codec.encode(decision)))
    if decided is None:
        raise ApprovalNotFound(approval_id)
    if not decided.is_recorded and not decided.is_repeat:
        # As JSON once, so that the caller is told values.
        raise ApprovalClosed(codec.load(codec.encode(decided.approval.to_dict())))
    return decided.approval


async def _check_signal(journal: Journal, run_id: str, name: str, data: Raw) -> None:
    """Refuse data that an open wait for the signal could not take; a signal that comes early is checked when taken."""
    waits = await journal.open_waits(run_id)
    wait = next((wait for wait in waits if wait.kind is WaitKind.SIGNAL and wait.name == name), None)
    schema = None if wait is None or wait.request is None else codec.load(wait.request).get("schema")
    if schema is not None and (problems := misfits(codec.load(data), schema)):
        listed = "; ".join(f"{p['path']}: {p['message']}" for p in problems[:5])
        raise SignalInvalid(name, f"its data does not fit what the run waits for: {listed}.", details=problems)


def _written(data: Any, what: str, limits: Limits, limit_bytes: int, setting: str) -> Raw:
    raw = codec.encode_value(data, what, max_depth=limits.json_depth)
    size = len(memoryview(raw))
    if size > limit_bytes:
        raise TooLarge(what, size, limit_bytes, setting)
    return raw


def _cut(text: str, limit_bytes: int) -> str:
    encoded = text.encode(errors="backslashreplace")
    return encoded[:limit_bytes].decode(errors="ignore")
