"""Runs one item of a flow: which steps are needed, when each can be done, and what the flow comes to.

Called by `batch.py`. Nothing is done that nobody needs: it begins with what the output (and every step with
`mustExecute`) needs to be known, and looks again each time a step has ended. A step is done by the keeper; its outcome
is a value that expressions look at, so a failed step ends nothing by itself.

One step goes on in the same task; more that can be done at once get tasks of their own in a task group. Knows neither
journal nor HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from .backoff import Backoff, Retry
from .document import Flow, FlowStep, OnErrorAction
from .expressions import NOTHING, Expression
from .failures import FlowStuck, redacted, routing_failure
from .keeper import Keeper, Place, StepCall
from .limits import Limit
from .outcome import ErrorCode, Failed, Outcome, Skipped, Success
from .plugins.port import ComponentCall, ComponentFailed, ComponentSkipped, Plugin, RunServices
from .sizes import problem_with
from .turns import turns

if TYPE_CHECKING:
    from collections.abc import Callable


class Routed(Protocol):
    """Where a component was found."""

    @property
    def plugin(self) -> Plugin: ...
    @property
    def component(self) -> str: ...


class StepServices(RunServices, Protocol):
    """The services of one attempt at a step."""

    @property
    def times_again(self) -> int:
        """How often the component was called once more in this attempt."""
        ...

    async def close(self) -> None:
        """End what was begun and not waited for."""
        ...


class Router(Protocol):
    """Finds the plugin of a component."""

    def resolve(self, component: str, input: Any) -> Routed:  # noqa: A002  (the field's name)
        """The plugin, and the component as it knows it.

        Raises:
            ComponentFailed: no route leads anywhere.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What a run of a flow has around it."""

    run_id: str
    router: Router
    keeper: Keeper
    #: What components may ask of the run, at a place in it and on behalf of a step.
    services: Callable[[Place, Flow, str], StepServices]
    backoff: Backoff = field(default_factory=Backoff)
    #: Texts that must not be in what is told of failures.
    secrets: Sequence[str] = ()


class FlowState:
    """What expressions look at: implements `expressions.State`."""

    __slots__ = ("_variables", "input", "known", "notes", "steps")

    def __init__(self, flow: Flow, input: Any, variables: Mapping[str, Any]) -> None:  # noqa: A002  (the field's name)
        self.input = input
        self.known = flow.by_id
        self.steps: dict[str, Outcome] = {}
        self.notes: dict[Expression, Any] = {}
        self._variables = variables

    def variable(self, name: str) -> Success | None:
        return Success(self._variables[name]) if name in self._variables else None


class FlowRun:
    """One item of a flow, on its way."""

    def __init__(
        self,
        flow: Flow,
        flow_id: str,
        state: FlowState,
        *,
        around: Around,
        place: Place,
        limit: Limit,
        order: int = 0,
    ) -> None:
        """`order` is the item's number: steps of lower ones go first where the limit holds them up."""
        self._flow = flow
        self._flow_id = flow_id
        self._state = state
        self._around = around
        self._place = place
        self._limit = limit
        self._order = order
        #: Who waits for a step: other steps by id, and the output as None.
        self._waiters: dict[str, dict[str | None, FlowStep | None]] = {}
        #: How many steps one of them still waits for.
        self._missing: dict[str | None, int] = {}
        self._asked: set[str] = set()
        self._begun: set[str | None] = set()
        self._group: asyncio.TaskGroup | None = None
        self._turns = turns()

    async def outcome(self) -> Outcome:
        """Do what is needed; what the output comes to.

        Raises:
            FlowStuck: steps wait for one another. Whatever the keeper lets pass.
        """
        ready = self._want(None)
        for step in self._flow.steps:
            if step.must_execute:
                ready += self._want(step)
        while len(ready) == 1:
            ready = await self._do(ready[0])
        if ready:
            await self._branch(ready)
        unfinished = self._asked - self._state.steps.keys()
        if unfinished:
            raise FlowStuck(sorted(unfinished))
        if self._flow.is_legacy:
            # There a step that has to be done has to be done well.
            for step in self._flow.steps:
                ended = self._state.steps.get(step.id)
                if step.must_execute and isinstance(ended, Failed):
                    return ended
        output = self._flow.output
        ended = output.evaluate(self._state)
        return _weighed(ended, "output") if output.grows else ended

    async def _branch(self, ready: Sequence[FlowStep]) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                for step in ready:
                    if self._turns.is_over:
                        await self._turns.next()
                    group.create_task(self._follow(step))
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def _follow(self, step: FlowStep) -> None:
        """Do a step, then one of those that it has made ready; the others are done beside it."""
        group = self._group
        assert group is not None  # noqa: S101  (branches are made in it)
        while True:
            ready = await self._do(step)
            if not ready:
                return
            step = ready[0]
            for other in ready[1:]:
                if self._turns.is_over:
                    await self._turns.next()
                group.create_task(self._follow(other))

    # What is needed

    def _want(self, wanted: FlowStep | None) -> list[FlowStep]:
        """Ask for a step, or for the output (None); the steps that can be done now."""
        if wanted is not None:
            if wanted.id in self._asked:
                return []
            self._asked.add(wanted.id)
        return self._look(wanted)

    def _look(self, wanted: FlowStep | None) -> list[FlowStep]:
        """The steps that can be done now among one that was asked for and all that it needs."""
        ready: list[FlowStep] = []
        looking = [wanted]
        while looking:  # not by recursion: chains may be long
            one = looking.pop()
            needs = self._needs(one)
            if needs:
                looking += self._wait(one, needs)
            elif one is not None:
                self._begun.add(one.id)
                ready.append(one)
        return ready

    def _wait(self, waiter: FlowStep | None, needs: Set[str]) -> list[FlowStep]:
        """Let a step (or the output) wait for others; those that nobody has asked for before, the last one first."""
        asked: list[FlowStep] = []
        name = None if waiter is None else waiter.id
        self._missing[name] = len(needs)
        for step_id in needs:
            self._waiters.setdefault(step_id, {})[name] = waiter
            if step_id not in self._asked:
                self._asked.add(step_id)
                asked.append(self._flow.by_id[step_id])
        if len(asked) > 1:
            asked.sort(key=lambda step: -step.index)
        return asked

    def _needs(self, step: FlowStep | None) -> Set[str]:
        """The unfinished steps without which no more can be said about a step, or about the output."""
        state = self._state
        if step is None:
            return self._flow.output.needs(state)
        if step.skip_if is not None:
            needs = step.skip_if.needs(state)
            if needs or _is_true(step.skip_if, state):
                return needs
        return step.input.needs(state)

    def _is_lazy(self, step: FlowStep | None) -> bool:
        """Whether what it needs can depend on what steps come to."""
        if step is None:
            return self._flow.output.is_lazy
        return step.input.is_lazy or step.skip_if is not None

    def _settle(self, step: FlowStep, outcome: Outcome) -> list[FlowStep]:
        """Note what a step came to; the steps that can be done now."""
        self._state.steps[step.id] = outcome
        ready: list[FlowStep] = []
        for name, waiter in self._waiters.pop(step.id, {}).items():
            if name in self._begun:
                continue  # it turned out not to need this one
            self._missing[name] -= 1
            if self._is_lazy(waiter):
                needs = self._needs(waiter)
            elif self._missing[name]:
                continue
            else:
                needs = NOTHING
            if needs:
                for asked in reversed(self._wait(waiter, needs)):
                    ready += self._look(asked)
            elif waiter is not None:
                self._begun.add(waiter.id)
                ready.append(waiter)
        return ready

    # Doing a step

    async def _do(self, step: FlowStep) -> list[FlowStep]:
        """Do a step; the steps that can be done then."""
        if self._turns.is_over:
            await self._turns.next()
        ready = self._prepared(step)
        if isinstance(ready, tuple):
            limit = self._limit
            if limit.is_free:
                limit.take()
            else:
                await limit.wait(self._order)
            try:
                outcome = await self._perform(step, *ready)
            finally:
                limit.give_back()
            if isinstance(outcome, Failed):
                outcome = self._handled(step, outcome)
        else:
            outcome = self._noted(step, ready)
        return self._settle(step, outcome)

    def _prepared(self, step: FlowStep) -> tuple[Routed, Any] | Outcome:
        """The component and its input; or what the step comes to without being performed."""
        keeper, place = self._around.keeper, self._place
        if step.skip_if is not None and _is_true(step.skip_if, self._state):
            keeper.tell(place, step.id, "step_skipped", {"reason": "skipIf"})
            return Skipped("skipIf")
        given = step.input.evaluate(self._state)
        if step.input.joins:
            given = _weighed(given, f"input of step {step.id!r}")
        if not isinstance(given, Success):
            if isinstance(given, Skipped):
                keeper.tell(place, step.id, "step_skipped", {"reason": given.reason or "a step that it needs was"})
            return given
        try:
            route = self._around.router.resolve(step.component, given.value)
        except ComponentFailed as error:
            return routing_failure(step.id, redacted(error, self._around.secrets))
        if step.input.grows and route.plugin.is_composite(route.component):
            # Others write their input down, and find out by themselves.
            weighed = _weighed(given, f"input of step {step.id!r}")
            if weighed is not given:
                return weighed
        return route, given.value

    def _perform(self, step: FlowStep, route: Routed, given: Any) -> Awaitable[Outcome]:
        around = self._around
        plugin, component = route.plugin, route.component
        times_again = 0

        async def attempt(number: int, place: Place) -> Any:
            nonlocal times_again
            services = around.services(place, self._flow, step.id)
            call = ComponentCall(
                component=component,
                input=given,
                attempt=number + times_again,
                run_id=around.run_id,
                flow_id=self._flow_id,
                step_id=step.id,
                services=services,
            )
            try:
                return await plugin.execute(call)
            except ComponentFailed as error:
                if not around.secrets:
                    raise
                raise redacted(error, around.secrets) from None
            except (ComponentSkipped, *around.keeper.passing):
                raise
            except asyncio.CancelledError as error:
                if _is_cancelled():
                    raise
                # Nobody has asked for the end of this step: it is the component's own, and would end the run unseen.
                raise ComponentFailed("The component was cancelled from within.") from error
            except Exception as error:
                # A plugin of somebody's own may raise anything. It is the failure of this step, and of no other.
                said = f": {error}" if str(error) else ""
                failed = ComponentFailed(f"{type(error).__name__}{said}")
                if not around.secrets:
                    raise failed from error
                raise redacted(failed, around.secrets) from None
            finally:
                times_again += services.times_again
                await services.close()

        call = StepCall(
            self._place,
            step.id,
            component,
            plugin.is_composite(component),
            Retry(step.on_error.max_retries + 1, around.backoff)
            if step.on_error.action is OnErrorAction.RETRY
            else None,
        )
        return around.keeper.perform(call, attempt)

    def _handled(self, step: FlowStep, outcome: Failed) -> Outcome:
        """What `onError` makes of a failure."""
        counts_as = handled(step, outcome, self._state)
        match step.on_error.action:
            case OnErrorAction.USE_DEFAULT:
                type_ = "step_default"
            case OnErrorAction.SKIP:
                type_ = "step_skipped"
            case _:
                return outcome
        self._around.keeper.tell(self._place, step.id, type_, {"error": outcome.to_error()}, counts_as)
        return counts_as

    def _noted(self, step: FlowStep, outcome: Outcome) -> Outcome:
        self._around.keeper.note(self._place, step.id, outcome)
        return outcome


def handled(step: FlowStep, outcome: Failed, state: FlowState) -> Outcome:
    """What a step counts as whose component has failed: what its `onError` makes of it."""
    match step.on_error.action:
        case OnErrorAction.USE_DEFAULT:
            return step.on_error.default.evaluate(state)
        case OnErrorAction.SKIP:
            return Skipped(outcome.message)
        case _:
            return outcome


def _is_true(condition: Expression, state: FlowState) -> bool:
    """What a `skipIf` says: a failed one, null, false, zero and an empty text say no.

    Older than `$if`, which takes zero and empty texts for true.
    """
    outcome = condition.evaluate(state)
    return isinstance(outcome, Success) and outcome.value is not None and outcome.value not in (False, "")


def _weighed(outcome: Outcome, what: str) -> Outcome:
    """An outcome, unless it is more than can be written down."""
    problem = problem_with(outcome.value) if isinstance(outcome, Success) else None
    return outcome if problem is None else Failed(ErrorCode.INTERNAL, f"The {what} cannot be passed on: {problem}.")


def _is_cancelled() -> bool:
    """Whether somebody has asked for the end of this task."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
