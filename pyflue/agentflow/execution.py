"""How a run of a step class goes: the one description of it, whoever does the work.

`Execution` is what happens, in order: events, approvals, steps, routes. How things are done is a `Means`: `executor.py`
calls them, `asynchronous.py` awaits them, `durable.py` does them through the context of a run. `Execution.go` is a
coroutine, which with means that never suspend is simply run to its end.
"""

from __future__ import annotations

import inspect
import os
import time
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from .approvals import build_approval_request, denied, nobody_to_ask, normalize_approval_decision
from .exceptions import (
    HookExecutionError,
    WorkflowDefinitionError,
    WorkflowExecutionError,
)
from .frames import Frame, current
from .hooks import (
    StepFinishedEvent,
    StepStartedEvent,
    WorkflowEvent,
    WorkflowFinishedEvent,
    WorkflowStartedEvent,
    hook_failed,
)
from .models import (
    ApprovalDecision,
    ApprovalPause,
    ApprovalRequest,
    ChildRunner,
    RouteDecision,
    RunContext,
    StepDefinition,
    StepResult,
    StepStatus,
    WorkflowDefinition,
    WorkflowResult,
    WorkflowStatus,
)
from .retry import resolve_retry_policy, should_retry
from .routing import finalize_step_results, resolve_route_decision
from .validation import (
    MethodFacts,
    definition_of,
    facts_of_method,
    method_of,
    must_be_sync,
    validate_initial_state,
    validate_workflow_definition,
)

if TYPE_CHECKING:
    from .hooks import WorkflowHook

Handler = Callable[[ApprovalRequest], Any]
#: One attempt: a bound method and what it is called with, which is a `RunContext` or nothing.
Work = tuple[Callable[..., Any], tuple[RunContext, ...]]

#: The answer of means that have nobody to ask.
NOBODY = object()


class WorkflowTimeout(TimeoutError):
    """The time of a whole run is over; nothing of it is tried again."""


class Means(Protocol):
    """How the things of a run are done. Where `suspends` is set, what these return is awaited."""

    suspends: bool
    #: Exceptions that end a run with a result; others leave it at once.
    ends: tuple[type[BaseException], ...]

    def now(self) -> datetime: ...

    def perform(self, run: Execution, index: int, result: StepResult) -> Coroutine[Any, Any, Any]:
        """The output of a step, after all its attempts."""
        ...

    def tell(self, hook: WorkflowHook, event: WorkflowEvent) -> Any: ...

    def ask(self, run: Execution, step: StepDefinition, request: ApprovalRequest) -> Any:
        """The answer to an approval; None if there is nobody to ask."""
        ...

    def children(self, run: Execution, result: StepResult, ctx: Any) -> ChildRunner:
        """What runs the children of a step."""
        ...


class Tries(Means, Protocol):
    """Means that make the attempts at a step one by one, as `Execution.attempts` asks for them."""

    def call(self, run: Execution, step: StepDefinition, work: Work, limit_s: float | None) -> Any:
        """The output of one attempt."""
        ...

    def sleep(self, delay_s: float) -> Any: ...


class Execution:
    """One run, or what follows on a pause."""

    __slots__ = (
        "definition",
        "facts",
        "finished",
        "frame",
        "handler",
        "hooks",
        "instance",
        "means",
        "pauses",
        "places",
        "raises",
        "run_id",
        "started",
        "trace",
        "until",
    )

    def __init__(
        self,
        instance: object,
        means: Means,
        *,
        raise_on_failure: bool = False,
        approval_handler: Handler | None = None,
        hooks: Sequence[WorkflowHook] | None = None,
        pause_on_approval: bool = False,
        run_id: str | None = None,
    ) -> None:
        """
        Raises:
            WorkflowDefinitionError: the class cannot be used.
        """
        definition = definition_of(type(instance))
        if definition is None:
            raise WorkflowDefinitionError("Workflow metadata is missing from the workflow class.")
        self.definition: WorkflowDefinition = validate_workflow_definition(definition)
        self.facts = self._facts(instance, allow_async=means.suspends)
        self.instance = instance
        self.means = means
        self.raises = raise_on_failure
        self.handler = approval_handler
        # One pass, so that a generator serves all events. Only hooks that are told in vain are looked at then.
        own = definition.hooks
        self.hooks: Sequence[WorkflowHook] = own if not hooks else (*own, *hooks) if own else tuple(hooks)
        self.pauses = pause_on_approval
        self.run_id = run_id or _new_run_id()
        self.places: dict[str, int] | None = None
        self.finished: dict[int, StepResult] = {}
        self.trace: list[RouteDecision] = []
        self.until: float | None = None

    def _facts(self, instance: object, *, allow_async: bool) -> list[MethodFacts]:
        cls = type(instance)
        facts = [facts_of_method(method_of(cls, step)) for step in self.definition.steps]
        if not allow_async:
            for fact in facts:
                if fact.is_async:
                    raise must_be_sync()
        return facts

    async def go(
        self, state: Any, *, pause: ApprovalPause | None = None, decision: ApprovalDecision | None = None
    ) -> WorkflowResult:
        """The result of the run.

        Raises:
            StateValidationError; WorkflowExecutionError: it failed, and its caller wants to be told so.
        """
        validate_initial_state(state)
        self.frame = Frame(self.instance, state, current.get())
        token = current.set(self.frame)
        try:
            self.instance.state = state  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
            self.started = self.means.now()
            if self.definition.timeout_s is not None:
                # A durable run may have begun long ago, in another process.
                begun_s = (datetime.now(UTC) - self.started).total_seconds()
                self.until = time.monotonic() + self.definition.timeout_s - max(begun_s, 0.0)
            result = await self._go(pause, decision)
        finally:
            current.reset(token)
        if self.raises:
            raise_if_failed(result)
        return result

    @property
    def state(self) -> Any:
        """The state as it is now: steps may put another object in its place."""
        return self.instance.state  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue,reportUnknownMemberType,reportUnknownVariableType]

    async def _go(self, pause: ApprovalPause | None, decision: ApprovalDecision | None) -> WorkflowResult:
        name = self.definition.name
        index: int | None = 0
        if pause is not None:
            index, self.started = pause.step_index, pause.workflow_started_at
        if self.hooks:
            try:
                await self._emit(WorkflowStartedEvent(name, self.run_id, self.state, self.started))
            except HookExecutionError as error:
                return self._result(WorkflowStatus.FAILED, [], error)
        if pause is not None:
            pause.is_resumed = True
            self._carry_over(pause)
        steps = self.definition.steps
        status, skipped = WorkflowStatus.SUCCEEDED, "not reached because workflow ended"
        error: BaseException | None = None
        request: ApprovalRequest | None = None
        paused_at = 0
        while index is not None:
            result, following, request = await self._step(index, decision)
            decision = None
            if request is not None:
                status, skipped, paused_at = WorkflowStatus.PAUSED, "not reached because workflow paused", index
                break
            if result.status is StepStatus.FAILED:
                status, skipped, error = WorkflowStatus.FAILED, "not reached because workflow failed", result.error
                break
            index = following if following is not None and following < len(steps) else None
        listed = finalize_step_results(self.definition, self.finished, skipped_reason=skipped)
        whole = self._result(status, listed, error)
        if request is not None:
            whole.pause = ApprovalPause(
                name,
                self.run_id,
                steps[paused_at].name,
                paused_at,
                whole.state,
                request,
                whole.steps,
                whole.route_trace,
                self.started,
                self.means.now(),
            )
        if self.hooks:
            await self._tell_end(whole)
        return whole

    def _carry_over(self, pause: ApprovalPause) -> None:
        places = self._places()
        for result in pause.steps:
            place = places[result.step_name]
            if place != pause.step_index and result.status is not StepStatus.SKIPPED:
                self.finished[place] = result
        self.trace = list(pause.route_trace)

    def _result(self, status: WorkflowStatus, steps: list[StepResult], error: BaseException | None) -> WorkflowResult:
        finished = self.means.now()
        return WorkflowResult(
            self.definition.name,
            self.state,
            status,
            steps,
            error,
            self.started,
            finished,
            milliseconds(self.started, finished),
            self.trace,
            None,
            self.run_id,
        )

    async def _tell_end(self, result: WorkflowResult) -> None:
        try:
            await self._emit(WorkflowFinishedEvent(self.definition.name, self.run_id, result.state, result))
        except HookExecutionError as error:
            from dataclasses import replace

            error.result = replace(result)
            result.status, result.pause = WorkflowStatus.FAILED, None
            if result.error is None:
                result.error = error
            else:
                _chain(result.error, error)

    # A step

    async def _step(
        self, index: int, decision: ApprovalDecision | None
    ) -> tuple[StepResult, int | None, ApprovalRequest | None]:
        """A step's result, the place of the next one, and what is asked if the run pauses here."""
        means, step = self.means, self.definition.steps[index]
        started = means.now()
        result = StepResult(step.name, StepStatus.RUNNING, 0, None, None, started)
        result.approval_required = step.requires_approval
        self.finished[index] = result
        following: int | None = index + 1
        request: ApprovalRequest | None = None
        is_announced = True
        try:
            if self.hooks:
                is_announced = False
                await self._emit(StepStartedEvent(self.definition.name, self.run_id, step.name, self.state, started))
                is_announced = True
            if step.requires_approval:
                request = await self._approve(step, result, decision)
            if request is not None:
                result.status = StepStatus.PAUSED
            else:
                result.output = output = await means.perform(self, index, result)
                if step.routes is not None:
                    following = self._route(step, result, output)
                result.status = StepStatus.SUCCEEDED
        except means.ends as error:
            result.status, result.error = StepStatus.FAILED, _as_raised(error)
        finished = means.now()
        result.finished_at = finished
        # Durable steps say when they began and ended, whenever that was.
        result.duration_ms = milliseconds(result.started_at or started, finished)
        if self.hooks and is_announced:
            event = StepFinishedEvent(self.definition.name, self.run_id, step.name, self.state, result)
            try:
                await self._emit(event)
            except HookExecutionError as error:
                request = None
                result.status = StepStatus.FAILED
                if result.error is None:
                    result.error = error
                else:
                    _chain(result.error, error)
        return result, following, request

    def _route(self, step: StepDefinition, result: StepResult, output: object) -> int | None:
        decision, following = resolve_route_decision(step, output, self._places())
        result.route_key, result.next_step = decision.route_key, decision.next_step
        self.trace.append(decision)
        return following

    def _places(self) -> dict[str, int]:
        if self.places is None:
            self.places = {step.name: place for place, step in enumerate(self.definition.steps)}
        return self.places

    async def _approve(
        self, step: StepDefinition, result: StepResult, decision: ApprovalDecision | None
    ) -> ApprovalRequest | None:
        """Ask for a step's approval; returns the request if the run has to pause for it.

        Raises:
            ApprovalRequiredError; whatever the handler raises.
        """
        if decision is None:
            request = build_approval_request(self.definition, step, run_id=self.run_id, state=self.state)
            answer = self.means.ask(self, step, request)
            if self.means.suspends:
                answer = await answer
            if answer is NOBODY:
                if self.pauses:
                    return request
                raise nobody_to_ask(step)
            decision = normalize_approval_decision(answer)
        result.approval_decision = decision
        if not decision.approved:
            raise denied(step)
        return None

    async def attempts(self, means: Tries, index: int, result: StepResult) -> Any:
        """The output of a step, tried as often as its policy says.

        Raises:
            What the last attempt raised; TimeoutError.
        """
        step = self.definition.steps[index]
        attempt = 0
        while True:
            attempt += 1
            result.attempts = attempt
            work = self.work(index, attempt, result)
            limit_s = self.limit_s(step.timeout_s)
            try:
                output = means.call(self, step, work, limit_s)
                return await output if means.suspends else output
            except Exception as error:
                # Whatever the author's step raises.
                policy = resolve_retry_policy(self.definition, step)
                if self.is_late() or not should_retry(policy, error, attempt):
                    raise
            delay_s = policy.delay_after(attempt)
            if delay_s > 0:
                pause = means.sleep(delay_s if self.until is None else min(delay_s, self.left_s()))
                if means.suspends:
                    await pause

    def work(self, index: int, attempt: int, result: StepResult, ctx: Any = None) -> Work:
        """One attempt at a step."""
        step = self.definition.steps[index]
        method = getattr(self.instance, step.method_name)
        takes_context = self.facts[index].takes_context
        if step.method_name in getattr(self.instance, "__dict__", ()):
            # Something that was put on the object itself need not be like the method of the class.
            takes_context = bool(inspect.signature(method).parameters)
        if not takes_context:
            return method, ()
        children = self.means.children(self, result, ctx)
        return method, (RunContext(self.definition.name, self.run_id, attempt, step.name, children, ctx),)

    async def _emit(self, event: WorkflowEvent) -> None:
        """
        Raises:
            HookExecutionError
        """
        means = self.means
        for hook in self.hooks:
            try:
                told = means.tell(hook, event)
                if means.suspends:
                    await told
            except Exception as error:
                # A hook is the author's code and may raise anything.
                raise hook_failed(event) from error

    # Time

    def left_s(self) -> float:
        return 0.0 if self.until is None else max(self.until - time.monotonic(), 0.0)

    def is_late(self) -> bool:
        """Whether the run's own time is over."""
        return self.until is not None and not self.left_s()

    def limit_s(self, own: float | None) -> float | None:
        """How long something may take that has a limit of its own, or none.

        Raises:
            TimeoutError: the run's time is over.
        """
        if self.until is None:
            return own
        left_s = self.left_s()
        if not left_s:
            raise self.late()
        return left_s if own is None else min(own, left_s)

    def late(self) -> TimeoutError:
        return WorkflowTimeout(f"Workflow '{self.definition.name}' did not finish in {self.definition.timeout_s:g} s.")

    def timed_out(self, step: StepDefinition) -> TimeoutError:
        """The error of an attempt that was cut off."""
        if self.is_late():
            return self.late()
        return TimeoutError(f"Step '{step.name}' did not finish in {step.timeout_s:g} s.")


def raise_if_failed(result: WorkflowResult) -> None:
    """
    Raises:
        WorkflowExecutionError: the result is that of a failed run.
    """
    if result.status is not WorkflowStatus.FAILED:
        return
    kind = type(result.error).__name__
    failed = next((step for step in result.steps if step.status is StepStatus.FAILED), None)
    if failed is None:
        message = f"Workflow '{result.workflow_name}' failed outside step execution due to {kind}."
    else:
        message = (
            f"Workflow '{result.workflow_name}' failed at step '{failed.step_name}' "
            f"after {failed.attempts} attempt(s) due to {kind}."
        )
    error = WorkflowExecutionError(message)
    error.result = result
    raise error from result.error


def milliseconds(start: datetime, end: datetime) -> int:
    """Whole milliseconds between two times; 0 if the clock was set back."""
    taken = end - start
    return max((taken.days * 86_400 + taken.seconds) * 1000 + taken.microseconds // 1000, 0)


def _as_raised(error: BaseException) -> BaseException:
    """The author's exception: one that Python does not let out of coroutines comes inside of another."""
    cause = error.__cause__
    return cause if isinstance(error, RuntimeError) and isinstance(cause, StopIteration) else error


def _chain(first: BaseException, later: BaseException) -> None:
    """Keep a step's own error, with what else went wrong."""
    first.add_note(f"And then: {later}")
    if later.__context__ is None:
        later.__context__ = first
    if first.__context__ is None and first.__cause__ is None:
        first.__context__ = later.__cause__


def _new_run_id() -> str:
    """A random UUID (version 4) as 32 hexadecimal digits, without importing `uuid`."""
    number = int.from_bytes(os.urandom(16), "big")
    number = number & ~(0xF000 << 64) & ~(0xC000 << 48) | (4 << 76) | (0x8000 << 48)
    return f"{number:032x}"
