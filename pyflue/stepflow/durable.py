"""Steps of a flow as durable steps of a run: implements `keeper.Keeper` on a run's context.

A step is known by its id and the path of steps and items above it: `each[3]/greet`. What a component fails with is
recorded as the error of the step, and is the same failure when the run is replayed. A component whose work is made of
durable calls (`map`, `eval`, a workflow of the project) is no step of the engine: it is walked through again, and what
it came to is recorded beside.
"""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from .. import codec
from ..codec import Raw
from ..engine import calls_of
from ..engine.noting import note_step
from ..engine.scopes import Scope, call_name, current, inside, segment
from ..errors import (
    CallMisplaced,
    JournalError,
    NotSerializable,
    PyFlueError,
    ReplayDrifted,
    ReplayMismatch,
    RunStopped,
    StepFailed,
    TooLarge,
    TooManyEvents,
)
from .failures import component_failure
from .keeper import Attempt, Place, StepCall
from .outcome import ErrorCode, Failed, Outcome, Skipped, Success
from .plugins.port import ComponentFailed, ComponentSkipped
from .sizes import is_larger

if TYPE_CHECKING:
    from ..engine import FlueContext

_SKIPPED = "component_skipped"
_FAILED = "component_failed"
#: Larger values are not recorded a second time, of steps whose parts are recorded.
_NOTED_BYTES = 64 * 1024
#: How many records may wait for the disk before the run waits for them.
_MOST_NOTED = 256


class StepEnded(PyFlueError):
    """A component failed, or had nothing to do: as it is recorded, `details` the flow failure or the reason."""

    def __init__(self, message: str, *, type: str, details: Any, is_retryable: bool) -> None:  # noqa: A002
        super().__init__(message, type=type, details=details)
        self.is_retryable = is_retryable


class DurableKeeper:
    """Records what steps come to."""

    passing: tuple[type[BaseException], ...] = (
        RunStopped,
        JournalError,
        ReplayMismatch,
        ReplayDrifted,
        CallMisplaced,
        TooManyEvents,
    )

    def __init__(self, ctx: FlueContext[Any]) -> None:
        self._ctx = ctx
        self._calls = calls_of(ctx)
        here = current()
        assert here is not None  # noqa: S101  (a workflow runs in a scope)
        self._owner = here.owner
        #: What was noted and may not be on disk yet, in the order in which it will be.
        self._noted: deque[asyncio.Future[int | None]] = deque()

    def scope(self, place: Place) -> Scope:
        """The engine's scope of a place."""
        return Scope(self._owner, place.path, step_key=place.step_key, step_attempt=place.step_attempt)

    async def perform(self, call: StepCall, attempt: Attempt) -> Outcome:
        if call.is_composite:
            return await self._walk(call, attempt)
        name = step_name(call.step_id)
        with inside(self.scope(call.place)):
            work = functools.partial(self._attempt, call, attempt)
            try:
                return Success(await self._ctx.step(name, work, retry=cast("Any", call.retry)))
            except StepEnded as ended:
                return ended_as(ended.type, ended.details)
            except StepFailed as failed:
                return ended_as(str(failed.error.get("type")), failed.error.get("details"))
            except (NotSerializable, TooLarge) as error:
                return component_failure(call.step_id, call.component, ComponentFailed(str(error)))

    async def _attempt(self, call: StepCall, attempt: Attempt) -> Any:
        """One attempt, whose exceptions can be recorded."""
        here = current()
        assert here is not None  # noqa: S101  (a step runs in a scope of its own)
        number = here.step_attempt or 1
        try:
            return await attempt(number, Place(here.path, here.step_key, here.step_attempt))
        except ComponentSkipped as skipped:
            raise StepEnded(str(skipped), type=_SKIPPED, details=skipped.reason, is_retryable=False) from skipped
        except ComponentFailed as error:
            failure = component_failure(call.step_id, call.component, error)
            raise StepEnded(
                failure.message, type=_FAILED, details=failure.to_error(), is_retryable=error.is_retryable
            ) from error

    async def _walk(self, call: StepCall, attempt: Attempt) -> Outcome:
        number = 1
        while True:
            suffix = "" if number == 1 else f"attempt-{number}/"
            place = call.place.below(f"{step_segment(call.step_id)}/{suffix}")
            try:
                with inside(self.scope(place)):
                    outcome: Outcome = Success(await attempt(number, place))
                break
            except ComponentSkipped as skipped:
                outcome = Skipped(skipped.reason)
                break
            except ComponentFailed as error:
                delay_s = None if call.retry is None else call.retry.delay_after(number, error)
                outcome = component_failure(call.step_id, call.component, error)
                if delay_s is None:
                    break
                # A place of its own: a workflow that the component has called may be named `sleep`.
                await self.sleep(place.below("retry/"), delay_s)
                number += 1
        self.note(call.place, call.step_id, outcome)
        while len(self._noted) > _MOST_NOTED:
            # Nobody waits for these records, but a flow that makes them without end would fill the memory, and what
            # other runs have to record would come after all of them.
            await asyncio.wait({self._noted.popleft()})
        return outcome

    def note(self, place: Place, step_id: str, outcome: Outcome) -> None:
        value: Callable[[], Raw] | None = None
        error: Raw | None = None
        match outcome:
            case Success(made):
                value = functools.partial(_noted, made)
            case Failed():
                described = {"type": _FAILED, "message": outcome.message, "details": outcome.to_error()}
                error = codec.encode_loose(described)
            case Skipped(reason):
                error = codec.encode_loose({"type": _SKIPPED, "message": reason or "skipped", "details": reason})
        with inside(self.scope(place)):
            writing = note_step(self._calls, step_name(step_id), value, error)
        if writing is not None:
            self._noted.append(writing)
            while self._noted and self._noted[0].done():
                self._noted.popleft()

    def tell(
        self, place: Place, step_id: str, type_: str, data: Mapping[str, Any], counts_as: Outcome | None = None
    ) -> None:
        # The step keeps the record of what its component came to; the event says that it counts as something else.
        with inside(self.scope(place)):
            self._ctx.emit(type_, {"step": place.path + step_segment(step_id), **data})

    async def sleep(self, place: Place, seconds: float) -> None:
        with inside(self.scope(place)):
            await self._ctx.sleep(seconds)


def _noted(made: Any) -> Raw:
    """What is recorded of a value that is made again when the run is."""
    return codec.encode_loose({"is_omitted": True} if is_larger(made, _NOTED_BYTES) else made)


def step_name(step_id: str) -> str:
    """The name of a step as a durable call.

    Items of a list are told apart by `[0]` after the name of their step, so no name may look like that.
    """
    if "[" in step_id or "%" in step_id:
        step_id = step_id.replace("%", "%25").replace("[", "%5B")
    return call_name(step_id)


def step_segment(step_id: str) -> str:
    """How a step stands in keys and paths."""
    return segment(step_name(step_id))


def ended_as(type_: str, details: Any) -> Outcome:
    """The outcome of a step by the type and details of its recorded error."""
    if type_ == _SKIPPED:
        return Skipped(details)
    if isinstance(details, Mapping):
        return Failed.from_error(cast("Mapping[str, Any]", details))
    return Failed(ErrorCode.INTERNAL, "The step failed; its record does not say how.")
