"""Operations: one prompt, skill, task, shell command or compaction of a session, done once per run.

An operation is a durable call made of other durable calls (its turns and tool calls, below its own key). What it
answered is recorded, and given back when the run is replayed. One that was under way is done again up to where it was:
its recorded turns and tool calls give back what they gave. One that failed leaves no record of its own: the call that
failed has one, or it fails again for the same reason. One that was aborted does: it would not be aborted again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from .. import codec
from ..clock import to_ms, whole_us
from ..codec import Raw
from ..engine import raised
from ..engine.calls import Call, Calls
from ..engine.scopes import inside
from ..errors import JournalError, PyFlueError, RunStopped, SessionBusy
from ..journal import Attached, EventType, NewEntry, NewEvent, NewStep, Step, StepStatus
from .content import Usage
from .metering import Meter
from .redaction import redacted

if TYPE_CHECKING:
    from ..journal import FileRecord
    from .session import Session

T = TypeVar("T")


class OperationAborted(PyFlueError):
    """The operation was ended by `session.abort()`."""

    type = "aborted"


class Operation:
    """An operation that is under way."""

    __slots__ = (
        "about",
        "call",
        "calls",
        "closing",
        "is_closed",
        "kind",
        "meter",
        "operation_id",
        "secrets",
        "session",
    )

    def __init__(self, session: Session, call: Call, kind: str, meter: Meter) -> None:
        self.session = session
        self.call = call
        self.calls: Calls = session.calls
        self.kind = kind
        #: The same in each replay, and no other's in the stream of events.
        self.operation_id = operation_id(session.calls, call.key)
        #: What each of its events says.
        self.about: Mapping[str, Any] = {"operation_id": self.operation_id, "session": session.name}
        self.meter = meter
        #: Values that are taken out of everything that is recorded, with their names.
        self.secrets: Mapping[str, str] = session.harness.shown_secrets
        #: Given its answer, what records that it is complete; None if that has to wait until everything is done.
        self.closing: Callable[[Any], tuple[NewStep, NewEvent]] | None = None
        #: Whether it is recorded as complete, or about to be: together with its last turn.
        self.is_closed = False

    def close(self, told: Any) -> tuple[NewStep, NewEvent] | None:
        """What to record together with the turn that brings the answer; None if it is recorded by itself."""
        if self.closing is None:
            return None
        self.is_closed = True
        return self.closing(told)

    def redact(self, text: str) -> str:
        """Text without the values of secrets that it may show."""
        return redacted(text, self.secrets) if self.secrets else text


class Operations:
    """The operations of one session: one at a time, in the order in which they were asked for."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._turn = asyncio.Lock()
        self._active: Operation | None = None
        self._task: asyncio.Task[Any] | None = None
        self._is_aborted = False

    @property
    def active(self) -> Operation | None:
        """The one that is under way."""
        return self._active

    def check_free(self, call: Call) -> None:
        """Refuse a call that would wait for itself.

        Raises:
            SessionBusy: it is made inside of the session's own operation, by one of its tools.
        """
        active = self._active
        if active is not None and call.scope.path.startswith(f"{active.call.key}/"):
            raise SessionBusy(self._session.name)

    def abort(self) -> bool:
        """End the operation that is under way; whether there was one."""
        if self._task is None or self._active is None or self._active.is_closed:
            return False
        self._is_aborted = True
        self._task.cancel()
        return True

    async def perform(
        self,
        call: Call,
        kind: str,
        body: Callable[[Operation], Awaitable[tuple[T, Any]]],
        restore: Callable[[Any], T],
        *,
        about: Mapping[str, Any],
        meter: Meter,
        finish: Callable[[], Awaitable[tuple[Sequence[NewEntry], Sequence[FileRecord]]]] | None = None,
    ) -> T:
        """Do an operation, or give back what it answered.

        `body` returns the answer and its JSON, of which `restore` makes the answer again. `finish` says what is to be
        recorded together with that.
        """
        session = self._session
        calls = session.calls
        self.check_free(call)
        async with self._turn:
            session.check_open()
            await session.load()
            session.catch_up()
            record = calls.recorded(call, None)
            if isinstance(record, Step):
                if record.status is StepStatus.FAILED and record.error is not None:
                    session.conversation.replay_below(call.key)
                    session.harness.skipped.count(call.key, meter)
                    raise raised.raise_again(record.error, call.key, Operations.perform)
                return await self._replayed(record, call, meter, restore)
            operation = Operation(session, call, kind, meter)
            self._active, self._task, self._is_aborted = operation, asyncio.current_task(), False
            try:
                with calls.parking.calling():
                    return await self._do(operation, body, about, finish)
            finally:
                self._active = self._task = None

    async def _replayed(self, record: Step, call: Call, meter: Meter, restore: Callable[[Any], T]) -> T:
        value = codec.load(record.value or codec.NULL)
        session = self._session
        session.conversation.replay_below(call.key)
        meter.add(Usage.from_dict(value["usage"]), turns=value["turns"], seconds=value["seconds"])
        return restore(value["answer"])

    async def _do(
        self,
        operation: Operation,
        body: Callable[[Operation], Awaitable[tuple[T, Any]]],
        about: Mapping[str, Any],
        finish: Callable[[], Awaitable[tuple[Sequence[NewEntry], Sequence[FileRecord]]]] | None,
    ) -> T:
        calls, call = operation.calls, operation.call
        started_us, started_index, began = calls.clock.now_us(), calls.index, calls.clock.monotonic()
        told_about = redacted(about, operation.secrets)
        start = {**operation.about, "kind": operation.kind, "step": call.key, **told_about}
        calls.announce(EventType.OPERATION_START, start)
        await calls.ready()
        await calls.settle()

        def completed(told: Any) -> tuple[NewStep, NewEvent]:
            meter = operation.meter
            usage = meter.usage.to_dict()
            value = {
                "answer": told,
                "usage": usage,
                "turns": meter.turns,
                "seconds": whole_us(meter.seconds),
            }
            raw = Raw(codec.encode(value))
            step = self._step(operation, StepStatus.COMPLETED, started_us, started_index, value=raw)
            return step, calls.event(EventType.OPERATION, self._end(operation, began, None, usage=usage))

        if finish is None and operation.kind != "task":  # a task has an event of its own after its last turn
            operation.closing = completed
        try:
            with inside(call.scope.inner(call.key)):
                answer, told = await body(operation)
        except (RunStopped, JournalError):
            raise
        except asyncio.CancelledError:
            if calls.host.stopped_because is not None or operation.is_closed:
                raise
            aborted = OperationAborted(f"Operation {operation.operation_id} was aborted.")
            end = self._end(operation, began, aborted)
            if not self._is_aborted:
                calls.tell(EventType.OPERATION, end)
                raise  # a timeout of the author's around it, or a stream that was left
            task = asyncio.current_task()
            if task is not None:
                task.uncancel()
            # When the run is replayed nobody aborts it again.
            error = raised.record_of(aborted, calls.root)
            step = self._step(operation, StepStatus.FAILED, started_us, started_index, error=error)
            await calls.record(step, calls.event(EventType.OPERATION, end))
            raise aborted from None
        except Exception as error:
            # Whatever a tool, a hook or a model's adapter of the author's raises, too.
            if calls.host.stopped_because is None:
                calls.tell(EventType.OPERATION, self._end(operation, began, error))
            raise
        finally:
            operation.closing = None  # it holds the operation: nothing would free the two but a collection
        if operation.is_closed:
            return answer
        step, end = completed(told)
        if finish is None:
            # Its turns and tool calls are on disk: without this record it would be put together from them again.
            calls.record_soon(step, end)
        else:
            entries, files = await finish()
            await calls.record(step, end, attached=Attached(entries=entries, files=files))
        return answer

    def _step(
        self,
        operation: Operation,
        status: StepStatus,
        started_us: int,
        started_index: int,
        *,
        value: Raw | None = None,
        error: Raw | None = None,
    ) -> NewStep:
        call = operation.call
        return NewStep(
            key=call.key,
            kind=operation.kind,
            name=call.name,
            position=call.position,
            status=status,
            value=value,
            error=error,
            started_us=started_us,
            started_index=started_index,
        )

    def _end(
        self, operation: Operation, began: float, error: Exception | None, *, usage: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        data = {
            **operation.about,
            "kind": operation.kind,
            "step": operation.call.key,
            "is_error": error is not None,
            "duration_ms": to_ms(operation.calls.clock.monotonic() - began),
            "turns": operation.meter.turns,
            "usage": usage or operation.meter.usage.to_dict(),
        }
        if error is not None:
            data["error"] = error_told(error)
        return data


def operation_id(calls: Calls, key: str) -> str:
    """The id of an operation: its key, and on the stream of an instance that of its interaction before it."""
    run_id = calls.fence.run_id
    return key if calls.stream_id == run_id else f"{run_id.rpartition(':')[2]}/{key}"


def error_told(error: BaseException) -> dict[str, Any]:
    """An error as events tell it."""
    if isinstance(error, PyFlueError):
        return {"type": error.type, "message": error.message}
    if isinstance(error, asyncio.CancelledError):
        return {"type": OperationAborted.type, "message": "It was aborted."}
    return {"type": "exception", "message": str(error) or type(error).__name__, "exception": type(error).__name__}
