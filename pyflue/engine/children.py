"""Child runs: a run that starts another one, with or without waiting for its result.

Called by `FlueContext.call` and `start`. The child is accepted in the transaction that records the parent's call, so
it is started exactly once; its end answers the parent's wait in the transaction that ends it. While it waits the
parent holds no slot.
"""

from __future__ import annotations

from typing import Any

from .. import codec
from ..codec import Raw
from ..errors import RunCancelled, RunFailed, TooLarge, WaitTimedOut
from ..ids import new_ulid
from ..journal import EventType, NewRun, NewStep, NewWait, Opened, Step, StepStatus, Wait, WaitKind, WaitState
from . import values
from .calls import Call, Calls
from .waits import about_wait, closing, due_in, note_opened, opening_events, until_ended


async def call_child(calls: Calls, call: Call, payload: Any, *, timeout_s: float | None, tags: tuple[str, ...]) -> Any:
    """The result of a child run.

    Raises:
        RunFailed, RunCancelled: how the child ended; WaitTimedOut: it took too long, and is cancelled;
        WorkflowNotFound, WorkflowInvalid, PayloadInvalid, ChildrenTooDeep: it was not started.
    """
    raw = _written(calls, call, payload)
    record = calls.recorded(call, values.digest(raw))
    known = record if isinstance(record, Wait) else None
    if known is not None and known.state is WaitState.CANCELLED:
        await calls.parking.until_idle()
        known = None
    ended = known
    if known is None or known.state is WaitState.OPEN:
        ended = await _wait_for_child(calls, call, known, raw, timeout_s, tags)
    if ended is None or ended.answer is None:
        raise WaitTimedOut(calls.fence.run_id, call.key, f"workflow {call.name!r}")
    answer: dict[str, Any] = codec.load(ended.answer)
    match answer["status"]:
        case "completed":
            return answer["result"]
        case "cancelled":
            raise RunCancelled(ended.name)
        case _:
            raise RunFailed(ended.name, answer["error"] or {})


async def start_child(calls: Calls, call: Call, payload: Any, *, tags: tuple[str, ...]) -> str:
    """Start a child run and return its id; it goes on by itself.

    Raises:
        WorkflowNotFound, WorkflowInvalid, PayloadInvalid, ChildrenTooDeep: it was not started.
    """
    raw = _written(calls, call, payload)
    digest = values.digest(raw)
    record = calls.recorded(call, digest)
    if isinstance(record, Step) and record.value is not None:
        return str(codec.load(record.value))
    child, accept = await _place(calls, call, raw, tags)
    started_us = calls.clock.now_us()
    about = {"step": call.key, "name": call.name, "kind": call.kind, "child_run_id": child.run_id}
    step = NewStep(
        key=call.key,
        kind=call.kind,
        name=call.name,
        position=call.position,
        status=StepStatus.COMPLETED,
        input_digest=digest,
        value=Raw(codec.encode(child.run_id)),
        started_us=started_us,
        started_index=calls.index,
    )
    with calls.parking.calling(), accept:
        events = [
            calls.event(EventType.STEP_START, about),
            calls.event(EventType.STEP_END, {**about, "status": StepStatus.COMPLETED.value, "attempts": 1}),
        ]
        index = await calls.written(calls.journal.start_child(calls.fence, child, step, events))
        accept.is_accepted = True
    calls.advance(index if isinstance(index, int) else index.index)
    return child.run_id


async def _wait_for_child(
    calls: Calls, call: Call, known: Wait | None, payload: Raw, timeout_s: float | None, tags: tuple[str, ...]
) -> Wait:
    if known is None:
        child, accept = await _place(calls, call, payload, tags)
        new = NewWait(
            key=call.key,
            kind=WaitKind.CHILD,
            name=child.run_id,
            position=call.position,
            wait_id=new_ulid(),
            digest=values.digest(payload),
            due_us=due_in(calls, timeout_s),
            created_us=calls.clock.now_us(),
            started_index=calls.index,
        )
        about = about_wait(call, new)
        child_run_id = child.run_id
    else:
        child = accept = new = None
        about = known.to_dict()
        child_run_id = known.name
    with calls.parking.waiting(call.key, about, for_child=True):
        try:
            with closing(calls, call):
                if new is not None and child is not None and accept is not None:
                    opened = await _open(calls, call, child, accept, new, about)
                else:
                    opened = await calls.written(calls.journal.wait(calls.fence.run_id, call.key))
                    calls.parking.reconsider()
                ended = await until_ended(calls, call, opened)
        except BaseException:
            if calls.host.stopped_because is None:
                calls.host.cancel_soon(child_run_id)  # nobody will take its result
            raise
    await calls.parking.go_on()
    if ended.state is WaitState.EXPIRED:
        calls.host.cancel_soon(child_run_id)
    return ended


async def _open(
    calls: Calls, call: Call, child: NewRun, accept: _Acceptance, new: NewWait, about: dict[str, Any]
) -> Wait:
    with accept:
        events = opening_events(calls, call, new, about)
        park = calls.parking.plan_at_once()
        mark = calls.parking.mark()
        opened = await calls.written(calls.journal.start_child(calls.fence, child, new, events, park=park))
        accept.is_accepted = True
    assert isinstance(opened, Opened)  # noqa: S101  (that is what opening a wait answers)
    return note_opened(calls, opened, mark)


class _Acceptance:
    """Tells the engine what became of a child that was placed: accepted, or not."""

    def __init__(self, calls: Calls, child: NewRun, workflow: Any, parsed: Any) -> None:
        self._calls = calls
        self._child = child
        self._workflow = workflow
        self._parsed = parsed
        self.is_accepted = False

    def __enter__(self) -> None:
        return None

    def __exit__(self, *error: object) -> None:
        self._calls.host.child_accepted(self._child, self._workflow, self._parsed, is_there=self.is_accepted)


async def _place(calls: Calls, call: Call, payload: Raw, tags: tuple[str, ...]) -> tuple[NewRun, _Acceptance]:
    workflow = await calls.host.find(call.name)
    parsed = workflow.parse(codec.load(payload))
    child = calls.host.place_child(workflow, payload, tags)
    return child, _Acceptance(calls, child, workflow, parsed)


def _written(calls: Calls, call: Call, payload: Any) -> Raw:
    what = f"The payload for workflow {call.name!r}"
    raw = codec.encode_value(payload, what, max_depth=calls.limits.json_depth)
    size = len(memoryview(raw))
    if size > calls.limits.payload_bytes:
        raise TooLarge(what, size, calls.limits.payload_bytes, "limits.payload_bytes")
    return raw
