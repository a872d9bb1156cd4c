"""Durable steps: run a piece of work once per run, however often the run restarts.

Called by `FlueContext.step`; reads and writes the journal through `Calls` only. A recorded step returns what it
returned, or raises what it raised. Otherwise it is tried, as often as its policy says; each failed attempt is recorded,
so a restart does not begin to count again. Knows nothing about workflow files, HTTP or agents: a step is a key and a
function.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..clock import to_ms, whole_us
from ..codec import Raw
from ..errors import JournalError, NotSerializable, ResultInvalid, RunStopped, StepTimedOut, TooLarge
from ..journal import EventType, NewStep, Step, StepStatus
from . import raised, values
from .calls import Call, Calls
from .retrying import RetryPolicy
from .scopes import inside
from .waits import pause


@dataclass(frozen=True, slots=True)
class Work:
    """What a step is to do."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    policy: RetryPolicy
    timeout_s: float | None


async def run_step(calls: Calls, call: Call, work: Work) -> Any:
    """The value of a step: recorded, or made now.

    Raises:
        What the function raised in its last attempt; StepTimedOut; StepFailed: a recorded exception that cannot be
        made again; NotSerializable, ResultInvalid, TooLarge: its value cannot be recorded.
    """
    facts = values.facts_of(work.function)
    shape = facts.shape
    digest = values.digest_of(work.args, work.kwargs)
    record = calls.recorded(call, digest)
    failed_attempts = 0
    if isinstance(record, Step):
        if record.status is StepStatus.COMPLETED:
            return values.restore(record.value, shape, call.key)
        if record.status is StepStatus.FAILED and record.error is not None:
            raise raised.raise_again(record.error, call.key, work.function)
        failed_attempts = record.attempts
        if record.status is StepStatus.CANCELLED:
            failed_attempts -= 1
            await calls.parking.until_idle()
        await pause(calls, call, failed_attempts, None)
    with calls.parking.calling():
        return await _Attempts(calls, call, work, facts, digest, failed_attempts).run()


class _Attempts:
    """The attempts at one step, in this attempt at the run."""

    __slots__ = ("_began", "_call", "_calls", "_digest", "_facts", "_failed", "_started_index", "_started_us", "_work")

    def __init__(
        self, calls: Calls, call: Call, work: Work, facts: values.Facts, digest: str | None, failed_attempts: int
    ) -> None:
        self._calls = calls
        self._call = call
        self._work = work
        self._facts = facts
        self._digest = digest
        self._failed = failed_attempts
        self._started_us = calls.clock.now_us()
        self._started_index = calls.index
        self._began = calls.clock.monotonic()

    async def run(self) -> Any:
        calls, call = self._calls, self._call
        while True:
            attempt = self._failed + 1
            calls.announce(
                EventType.STEP_START, {"step": call.key, "name": call.name, "kind": "step", "attempt": attempt}
            )
            await calls.ready()
            await calls.settle()
            try:
                with inside(call.scope.attempt(call.key, attempt)):
                    value = await self._try()
            except (RunStopped, JournalError):
                raise
            except asyncio.CancelledError:
                if calls.host.stopped_because is None:
                    # A timeout of the author's, or a branch beside it that failed; it will do so again.
                    calls.journal.note(calls.fence, self._step(StepStatus.CANCELLED))
                raise
            except Exception as error:
                # Whatever the author's function raises.
                if calls.host.stopped_because is not None:
                    raise
                delay_s = self._work.policy.delay_after(attempt, error)
                if delay_s is None:
                    await self._fail(error)
                    raise
                await self._note_failure(error, delay_s)
                self._failed = attempt
                await pause(calls, call, attempt, delay_s)
            else:
                return await self._complete(value)

    async def _try(self) -> Any:
        """One attempt."""
        timeout_s = self._work.timeout_s
        if timeout_s is None:
            return await self._call_function()
        limit = asyncio.timeout(timeout_s)
        try:
            async with limit:
                return await self._call_function()
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise StepTimedOut(self._calls.fence.run_id, self._call.key, timeout_s) from error

    async def _call_function(self) -> Any:
        work = self._work
        if self._facts.is_async:
            return await work.function(*work.args, **work.kwargs)
        value = await self._calls.parking.in_thread(functools.partial(work.function, *work.args, **work.kwargs))
        return await value if inspect.isawaitable(value) else value

    async def _complete(self, value: Any) -> Any:
        try:
            raw, value = values.store(value, self._facts.shape, self._call.key, self._calls.limits)
        except (NotSerializable, ResultInvalid, TooLarge) as error:
            # Another attempt would do the work again and end here again.
            await self._fail(error)
            raise
        await self._calls.record(self._step(StepStatus.COMPLETED, value=raw), self._end(StepStatus.COMPLETED))
        return value

    async def _fail(self, error: Exception) -> None:
        record = raised.record_of(error, self._calls.root)
        await self._calls.record(self._step(StepStatus.FAILED, error=record), self._end(StepStatus.FAILED, record))

    async def _note_failure(self, error: Exception, delay_s: float) -> None:
        record = raised.record_of(error, self._calls.root)
        data = {
            "step": self._call.key,
            "name": self._call.name,
            "attempt": self._failed + 1,
            "error": raised.shown(record),
            "delay_s": whole_us(delay_s),
        }
        step = self._step(StepStatus.RETRYING, error=record)
        await self._calls.record(step, self._calls.event(EventType.STEP_RETRY, data))

    def _step(self, status: StepStatus, *, value: Raw | None = None, error: Raw | None = None) -> NewStep:
        return NewStep(
            key=self._call.key,
            kind="step",
            name=self._call.name,
            position=self._call.position,
            status=status,
            input_digest=self._digest,
            value=value,
            error=error,
            attempts=self._failed + 1,
            started_us=self._started_us,
            started_index=self._started_index,
        )

    def _end(self, status: StepStatus, error: Raw | None = None) -> Any:
        data: dict[str, Any] = {
            "step": self._call.key,
            "name": self._call.name,
            "kind": "step",
            "status": status.value,
            "attempts": self._failed + 1,
            "duration_ms": to_ms(self._calls.clock.monotonic() - self._began),
        }
        if error is not None:
            data["error"] = raised.shown(error)
        return self._calls.event(EventType.STEP_END, data)


def check_function(name: str, function: Any) -> None:
    """Refuse what cannot be a step.

    Raises:
        TypeError: it is not a function, or it has a `yield`.
    """
    if not callable(function):
        hint = " Pass the function, and its arguments after it." if inspect.isawaitable(function) else ""
        raise TypeError(f"ctx.step({name!r}, …): a {type(function).__name__} cannot be called.{hint}")
    if values.facts_of(function).is_generator:
        raise TypeError(f"ctx.step({name!r}, …): a generator cannot be a step; return all of its values at once.")
