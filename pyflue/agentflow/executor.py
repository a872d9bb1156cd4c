"""Running step classes here and now, without an event loop: what the methods `run` and `resume` do."""

from __future__ import annotations

from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from .approvals import normalize_approval_decision
from .definitions import StepDefinition, WorkflowDefinition
from .exceptions import ApprovalRequiredError, ApprovalResumeError, ChildWorkflowExecutionError
from .execution import NOBODY, Execution, Work, raise_if_failed
from .hooks import WorkflowEvent
from .models import (
    ApprovalDecision,
    ApprovalRequest,
    ChildOptions,
    ChildRunner,
    StepResult,
    WorkflowResult,
    WorkflowStatus,
)
from .retry import sleep_for_retry

if TYPE_CHECKING:
    from .hooks import WorkflowHook


class Direct:
    """Everything is called, here and now."""

    suspends = False
    ends: tuple[type[BaseException], ...] = (Exception,)

    def now(self) -> datetime:
        return datetime.now(UTC)

    def perform(self, run: Execution, index: int, result: StepResult) -> Coroutine[Any, Any, Any]:
        return run.attempts(self, index, result)

    def call(self, run: Execution, step: StepDefinition, work: Work, limit_s: float | None) -> Any:
        method, args = work
        if limit_s is None:
            return method(*args)
        from .threads import start

        started = start(method, *args)
        if not started.wait(limit_s):
            raise run.timed_out(step)
        return started.value()

    def sleep(self, delay_s: float) -> None:
        sleep_for_retry(delay_s)

    def tell(self, hook: WorkflowHook, event: WorkflowEvent) -> Any:
        hook(event)

    def ask(self, run: Execution, step: StepDefinition, request: ApprovalRequest) -> Any:
        return NOBODY if run.handler is None else run.handler(request)

    def children(self, run: Execution, result: StepResult, ctx: Any) -> ChildRunner:
        return Children(run, result)


class Children:
    """Runs the children of one step, each a run of its own that is over when the step goes on."""

    __slots__ = ("_result", "_run")

    def __init__(self, run: Execution, result: StepResult) -> None:
        self._run = run
        self._result = result

    def run(self, instance: object, state: object, options: ChildOptions) -> WorkflowResult:
        return self.take(run_workflow(instance, state, **self.inherited(options)), options)

    async def arun(self, instance: object, state: object, options: ChildOptions) -> WorkflowResult:
        from .asynchronous import arun_workflow

        return self.take(await arun_workflow(instance, state, **self.inherited(options)), options)

    def inherited(self, options: ChildOptions) -> dict[str, Any]:
        """Whom a child asks, and whom it tells: as its parent, unless the step says otherwise."""
        return {
            "approval_handler": self._run.handler if options.approval_handler is None else options.approval_handler,
            "hooks": self._run.hooks if options.hooks is None else options.hooks,
        }

    def take(self, result: WorkflowResult, options: ChildOptions) -> WorkflowResult:
        """Keep a child's result with the step.

        Raises:
            ChildWorkflowExecutionError
        """
        self._result.child_workflows.append(result)
        if result.status is WorkflowStatus.FAILED and options.fail_parent_on_failure:
            raise ChildWorkflowExecutionError(
                f"Child workflow '{result.workflow_name}' failed while running parent step '{self._result.step_name}'."
            ) from result.error
        return result


def run_workflow(instance: object, state: object, **options: Any) -> WorkflowResult:
    """Run a workflow object without an event loop. The options are those of its method `run`."""
    return finish(Execution(instance, Direct(), **options).go(state))


def resume_workflow(
    instance: object, paused_result: WorkflowResult, decision: object, **options: Any
) -> WorkflowResult:
    """Go on with a paused run without an event loop. The options are those of the method `resume`."""
    run = Execution(instance, Direct(), **options)
    resumed = resumption(run, paused_result, decision)
    return resumed if isinstance(resumed, WorkflowResult) else finish(resumed)


def resumption(
    run: Execution, paused_result: WorkflowResult, decision: object
) -> Coroutine[Any, Any, WorkflowResult] | WorkflowResult:
    """What follows on a pause; or, if it cannot be resumed, the result that says why.

    Raises:
        WorkflowExecutionError: it cannot be resumed, and the caller wants to be told so.
    """
    pause = paused_result.pause
    problem = _why_not(run.definition, paused_result)
    cause: Exception | None = None
    normal: ApprovalDecision | None = None
    if problem is None:
        try:
            normal = normalize_approval_decision(decision)
        except ApprovalRequiredError as error:
            problem, cause = "Resume decision must be ApprovalDecision or bool.", error
    if problem is None and pause is not None:
        run.run_id = pause.run_id
        return run.go(pause.state, pause=pause, decision=normal)
    error = ApprovalResumeError(problem)
    error.__cause__ = cause
    now = run.means.now()
    refused = WorkflowResult(
        run.definition.name,
        paused_result.state,
        WorkflowStatus.FAILED,
        paused_result.steps,
        error,
        now,
        now,
        route_trace=paused_result.route_trace,
        run_id=paused_result.run_id,
    )
    if run.raises:
        raise_if_failed(refused)
    return refused


def _why_not(definition: WorkflowDefinition, paused: WorkflowResult) -> str | None:
    """Why a result cannot be resumed by the workflow of a definition; None if it can."""
    pause = paused.pause
    if paused.status is not WorkflowStatus.PAUSED or pause is None:
        return "Only paused workflow results can be resumed."
    if pause.workflow_name != definition.name:
        return f"Paused result belongs to workflow '{pause.workflow_name}', not '{definition.name}'."
    if pause.is_resumed:
        return "Paused workflow results can be resumed only once."
    names = [step.name for step in definition.steps]
    known = [result.step_name for result in pause.steps]
    if names[: len(known)] != known or names[pause.step_index : pause.step_index + 1] != [pause.step_name]:
        return f"The steps of workflow '{definition.name}' have changed since it paused at step '{pause.step_name}'."
    return None


class WorkflowExecutor:
    """Runs workflow objects: what their methods `run` and `resume` do."""

    def run(self, workflow_instance: object, state: object, **options: Any) -> WorkflowResult:
        return run_workflow(workflow_instance, state, **options)

    def resume(
        self,
        workflow_instance: object,
        paused_result: WorkflowResult,
        decision: ApprovalDecision | bool,
        *,
        pause_on_approval: bool = True,
        **options: Any,
    ) -> WorkflowResult:
        return resume_workflow(
            workflow_instance, paused_result, decision, pause_on_approval=pause_on_approval, **options
        )


def finish(coroutine: Coroutine[Any, Any, WorkflowResult]) -> WorkflowResult:
    """What a coroutine returns that never suspends."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    coroutine.close()
    raise AssertionError("means that do not suspend have suspended")
