"""Durable waits: for a time, for a signal, for a person's decision, and (for `children.py`) for another run.

Called by `FlueContext`. A wait is a row in the journal: whoever ends it does so there, in whichever process, and the
attempt that has it in memory is woken. If none has, the run is queued, replayed up to here, and goes on. Timers run on
the monotonic clock; after a restart what is left is taken from the wall clock, never more than the whole time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from .. import codec
from ..clock import rfc3339, to_datetime, to_us
from ..codec import Raw
from ..errors import TooLarge, WaitTimedOut
from ..ids import new_ulid
from ..journal import EventType, NewEvent, NewWait, Opened, Wait, WaitKind, WaitState
from ..settings import Limits
from ..typed import Misfit, Shape, misfits
from . import values
from .calls import Call, Calls

#: Shorter pauses between attempts are not worth a record: after a restart the next attempt comes at once.
_RECORDED_PAUSE_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What somebody decided on an approval."""

    approved: bool
    #: Who it was, as far as the server or the command line knows.
    by: str
    #: When, aware, in UTC.
    at: datetime
    reason: str | None = None
    #: What was approved: the request, or what was put in its place (None if rejected without data).
    data: Any = None

    def __bool__(self) -> bool:
        raise TypeError("A Decision is neither true nor false; ask for its `.approved`.")


async def sleep(calls: Calls, call: Call, seconds: float | None, until: datetime | None) -> None:
    """Wait for a time."""
    record = calls.recorded(call, None)
    due_us = due_in(calls, seconds) if until is None else to_us(until)
    await wait(calls, call, record, WaitKind.TIMER, call.name, due_us=due_us)


async def wait_for(
    calls: Calls, call: Call, timeout_s: float | None, shape: Shape | None, schema: Mapping[str, Any] | None
) -> Any:
    """The data of the next signal of a name. One that was sent before, and does not fit, is passed over.

    Raises:
        WaitTimedOut
    """
    request = None if schema is None else Raw(codec.encode({"schema": schema}))
    due_us = due_in(calls, timeout_s)
    passed_over = 0
    while True:
        key = call.key if not passed_over else f"{call.key}/again-{passed_over}"
        this = Call(key, call.name, call.kind, call.position, call.scope)
        record = calls.recorded(this, None)
        ended = await wait(calls, this, record, WaitKind.SIGNAL, call.name, request=request, due_us=due_us)
        if ended.answer is None:
            raise WaitTimedOut(calls.fence.run_id, call.key, f"signal {call.name!r}")
        try:
            return _typed_signal(codec.load(ended.answer), shape, schema)
        except Misfit as misfit:
            # Signals are checked when they are sent while a run waits for them; nobody could check this one.
            passed_over += 1
            due_us = None if ended.due_at is None else to_us(ended.due_at)
            if record is None:
                problems = list(misfit.problems)
                calls.tell(EventType.SIGNAL_REFUSED, {"step": call.key, "name": call.name, "problems": problems})


def checked_request(name: str, request: Any, limits: Limits) -> Raw:
    """What an approval asks for, as JSON. People have to read it, so it may be no larger than an event.

    Raises:
        NotSerializable, TooLarge
    """
    what = f"The request of approval {name!r}"
    raw = codec.encode_value(request, what, max_depth=limits.json_depth)
    size = len(memoryview(raw))
    if size > limits.event_bytes:
        raise TooLarge(what, size, limits.event_bytes, "limits.event_bytes")
    return raw


async def approve(
    calls: Calls,
    call: Call,
    request: Raw,
    timeout_s: float | None,
    shape: Shape | None,
    schema: Mapping[str, Any] | None,
) -> Decision:
    """What is decided on a request. An answer that fits the schema but not the type is asked for again.

    Raises:
        WaitTimedOut
    """
    asked: dict[str, Any] = {"request": request}
    if schema is not None:
        asked["schema"] = schema
    asked_raw = Raw(codec.encode(asked))
    due_us = due_in(calls, timeout_s)
    refused = 0
    while True:
        key = call.key if not refused else f"{call.key}/again-{refused}"
        this = Call(key, call.name, call.kind, call.position, call.scope)
        was_recorded, ended = await _ask(calls, this, asked_raw, due_us)
        if ended.answer is None:
            raise WaitTimedOut(calls.fence.run_id, call.key, f"the decision on {call.name!r}")
        try:
            return _decision(codec.load(ended.answer), shape)
        except Misfit as misfit:
            # Types may ask for more than a schema can say, and whoever took the answer had only the schema.
            refused += 1
            due_us = None if ended.due_at is None else to_us(ended.due_at)
            if not was_recorded:
                problems = list(misfit.problems)
                about = {"step": call.key, "name": call.name, "approval_id": ended.wait_id, "problems": problems}
                calls.tell(EventType.APPROVAL_REFUSED, about)


async def _ask(calls: Calls, call: Call, asked: Raw, due_us: int | None) -> tuple[bool, Wait]:
    """Whether a decision on exactly this request was recorded, and how the wait for it ended."""
    digest = values.digest(codec.canonical(asked))
    record = calls.recorded(call, None)
    if record is not None and record.input_digest != digest:
        # A decision counts for what was asked, and for nothing else: this is another question.
        calls.tell(EventType.REPLAY_DRIFT, {"step": call.key, "name": call.name, "what": "request"})
        calls.journal.close_wait(calls.fence, call.key)
        record = None
    ended = await wait(calls, call, record, WaitKind.APPROVAL, call.name, request=asked, digest=digest, due_us=due_us)
    return record is not None and record.is_over, ended


def _decision(decided: Mapping[str, Any], shape: Shape | None) -> Decision:
    """A recorded decision as the workflow gets it.

    Raises:
        Misfit
    """
    data = decided["data"]
    if shape is not None and decided["approved"]:
        data = shape.load(data)
    return Decision(
        approved=decided["approved"],
        by=decided["by"],
        at=datetime.fromisoformat(decided["at"]),
        reason=decided["reason"],
        data=data,
    )


async def pause(calls: Calls, call: Call, failed_attempts: int, delay_s: float | None) -> None:
    """The pause after a failed attempt at a step; `delay_s` None continues one that was recorded, if there was one."""
    key = f"{call.key}/pause-{failed_attempts}"
    nested = Call(key, call.name, "sleep", call.position, call.scope)
    record = calls.recorded(nested, None)
    if record is None and delay_s is None:
        return
    if record is None and (delay_s or 0) < _RECORDED_PAUSE_S:
        await asyncio.sleep(delay_s or 0)
        return
    due_us = calls.clock.now_us() + int((delay_s or 0) * 1_000_000)
    await wait(calls, nested, record, WaitKind.TIMER, call.name, due_us=due_us)


async def wait(
    calls: Calls,
    call: Call,
    record: object,
    kind: WaitKind,
    name: str,
    *,
    request: Raw | None = None,
    digest: str | None = None,
    due_us: int | None = None,
) -> Wait:
    """The wait, once it has ended: answered or expired."""
    known = record if isinstance(record, Wait) else None
    if known is not None and known.state is WaitState.CANCELLED:
        await calls.parking.until_idle()
        known = None
    if known is not None and known.state is not WaitState.OPEN:
        return known
    new = NewWait(
        key=call.key,
        kind=kind,
        name=name,
        position=call.position,
        wait_id=new_ulid(),
        request=request,
        digest=digest,
        due_us=due_us,
        created_us=calls.clock.now_us(),
        started_index=calls.index,
    )
    about = about_wait(call, new) if known is None else known.to_dict()
    with calls.parking.waiting(call.key, about), closing(calls, call):
        if known is None:
            opened = await open_wait(calls, call, new, about)
        else:
            # It may have ended since the run's history was read.
            opened = await calls.written(calls.journal.wait(calls.fence.run_id, call.key))
            calls.parking.reconsider()
        ended = await until_ended(calls, call, opened)
    await calls.parking.go_on()
    return ended


@contextmanager
def closing(calls: Calls, call: Call) -> Generator[None]:
    """Close a wait that the author's code gives up (by a timeout of its own, or because a branch beside it failed)."""
    try:
        yield
    except BaseException:
        if calls.host.stopped_because is None:
            calls.journal.close_wait(calls.fence, call.key)
        raise


async def open_wait(calls: Calls, call: Call, new: NewWait, about: Mapping[str, Any]) -> Wait:
    """Record that the run waits, and park it if nothing else in it can go on."""
    events = opening_events(calls, call, new, about)
    park = calls.parking.plan_at_once()
    mark = calls.parking.mark()
    opened = await calls.written(calls.journal.open_wait(calls.fence, new, events, park=park))
    return note_opened(calls, opened, mark)


def note_opened(calls: Calls, opened: Opened, mark: int) -> Wait:
    """Take notice of a wait that was opened."""
    calls.advance(opened.index)
    if opened.is_parked:
        calls.parking.park_unless_woken(mark)
    else:
        calls.parking.reconsider()
    return opened.wait


async def until_ended(calls: Calls, call: Call, opened: Wait) -> Wait:
    """Wait until the journal says that a wait has ended. To be called inside `parking.waiting`."""
    ended = opened
    while ended.state is WaitState.OPEN:
        ended = await _next_state(calls, call, ended)
    calls.advance(ended.answered_index)
    return ended


async def _next_state(calls: Calls, call: Call, opened: Wait) -> Wait:
    is_recorded = await calls.parking.ending(call.key, _left_s(calls, opened))
    if is_recorded:
        return await calls.written(calls.journal.wait(calls.fence.run_id, call.key))
    return await calls.written(calls.journal.expire(calls.fence.run_id, call.key, fence=calls.fence))


def _left_s(calls: Calls, opened: Wait) -> float | None:
    if opened.due_at is None:
        return None
    whole = opened.due_at - opened.created_at
    left = opened.due_at - to_datetime(calls.clock.now_us())
    # Not more than the whole, if the clock was set back; not less than nothing, if it was set forward.
    return max(min(left, whole), timedelta(0)).total_seconds()


def due_in(calls: Calls, timeout_s: float | None) -> int | None:
    return None if timeout_s is None else calls.clock.now_us() + int(timeout_s * 1_000_000)


def about_wait(call: Call, new: NewWait) -> dict[str, Any]:
    about: dict[str, Any] = {
        "step": call.key,
        "kind": new.kind.value,
        "name": new.name,
        "due_at": None if new.due_us is None else rfc3339(to_datetime(new.due_us)),
    }
    if new.kind is WaitKind.APPROVAL:
        about["approval_id"] = new.wait_id
    return about


def opening_events(calls: Calls, call: Call, new: NewWait, about: Mapping[str, Any]) -> list[NewEvent]:
    start: dict[str, Any] = {"step": call.key, "name": call.name, "kind": call.kind}
    if new.due_us is not None:
        start["due_at"] = about["due_at"]
    if new.kind is WaitKind.CHILD:
        start["child_run_id"] = new.name
    events = [calls.event(EventType.STEP_START, start)]
    if new.kind is WaitKind.APPROVAL and new.request is not None:
        asked = codec.load(new.request)
        requested = {**about, "request": asked["request"], "schema": asked.get("schema"), "digest": new.digest}
        del requested["kind"]
        events.append(calls.event(EventType.APPROVAL_REQUESTED, requested))
    return events


def _typed_signal(value: Any, shape: Shape | None, schema: Mapping[str, Any] | None) -> Any:
    """The data of a signal as the workflow gets it.

    Raises:
        Misfit
    """
    if shape is not None:
        return shape.load(value)
    if schema is not None and (problems := misfits(value, schema)):
        raise Misfit(problems)
    return value
