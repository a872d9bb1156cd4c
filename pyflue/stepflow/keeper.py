"""What makes the steps of a flow durable, and what stands in for it where nothing has to be.

`scheduler.py` says which step is to be done and where it is in the flow; a keeper sees to it that it is done once.
`DirectKeeper` only does it. `durable.py` has the one that records.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeAlias

import msgspec

from .backoff import Retry
from .failures import component_failure
from .outcome import Outcome, Skipped, Success
from .plugins.port import ComponentFailed, ComponentSkipped


class Place(msgspec.Struct, frozen=True):
    """Where in a run something is done: the path of steps and items above it, empty or ending in `/`."""

    path: str = ""
    #: The durable step that this is inside of, and which attempt at it.
    step_key: str | None = None
    step_attempt: int | None = None

    def item(self, index: int) -> Place:
        """The place of one item of a list."""
        return Place(f"{self.path.removesuffix('/')}[{index}]/", self.step_key, self.step_attempt)

    def below(self, more: str) -> Place:
        """A place further down; `more` ends in `/`."""
        return Place(self.path + more, self.step_key, self.step_attempt)


class StepCall(msgspec.Struct, frozen=True):
    """A step that is to be done."""

    place: Place
    step_id: str
    #: As the flow names it.
    component: str
    is_composite: bool
    retry: Retry | None = None


#: One attempt: given its number and the place of what it does, the output.
Attempt: TypeAlias = Callable[[int, Place], Awaitable[Any]]


class Keeper(Protocol):
    """Does steps, once each."""

    #: Exceptions that are not about the step but about the run, which ends with them.
    passing: tuple[type[BaseException], ...]

    async def perform(self, call: StepCall, attempt: Attempt) -> Outcome:
        """Do a step, as often as its retry says. What the component fails with becomes an outcome."""
        ...

    def note(self, place: Place, step_id: str, outcome: Outcome) -> None:
        """Note what became of a step without being performed."""
        ...

    def tell(
        self, place: Place, step_id: str, type_: str, data: Mapping[str, Any], counts_as: Outcome | None = None
    ) -> None:
        """Note something that a reader of the run wants to know: a default that was used, a skip.

        `counts_as` is what a step counts as that has been performed and has come to something else.
        """
        ...

    async def sleep(self, place: Place, seconds: float) -> None:
        """Wait."""
        ...


class DirectKeeper:
    """Does steps and records nothing. Notes what all of them came to, for whoever overrides `note`."""

    passing: tuple[type[BaseException], ...] = ()

    async def perform(self, call: StepCall, attempt: Attempt) -> Outcome:
        place = call.place.below(f"{call.step_id}/")
        number = 1
        while True:
            try:
                outcome = Success(await attempt(number, place))
                break
            except ComponentSkipped as skipped:
                outcome = Skipped(skipped.reason)
                break
            except ComponentFailed as error:
                delay_s = None if call.retry is None else call.retry.delay_after(number, error)
                if delay_s is None:
                    outcome = component_failure(call.step_id, call.component, error)
                    break
                await asyncio.sleep(delay_s)
                number += 1
        self.note(call.place, call.step_id, outcome)
        return outcome

    def note(self, place: Place, step_id: str, outcome: Outcome) -> None:
        """Nobody asks."""

    def tell(
        self, place: Place, step_id: str, type_: str, data: Mapping[str, Any], counts_as: Outcome | None = None
    ) -> None:
        if counts_as is not None:
            self.note(place, step_id, counts_as)

    async def sleep(self, place: Place, seconds: float) -> None:
        await asyncio.sleep(seconds)
