"""`@step` and `@workflow`: what they write down. Nothing is checked here, and nothing run, unless `check=True` asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, overload

from .definitions import ExceptionTypes, RouteTarget, StepDefinition, WorkflowDefinition
from .frames import keep_state_per_run
from .validation import STEP_DEFINITION_ATTR, WORKFLOW_DEFINITION_ATTR, check_workflow

if TYPE_CHECKING:
    from .hooks import WorkflowHook
    from .models import ApprovalDecision, ApprovalRequest, WorkflowResult

Function = TypeVar("Function", bound=Callable[..., Any])
Class = TypeVar("Class", bound=type)


@overload
def step(function: Function, /) -> Function: ...
@overload
def step(
    function: None = None,
    /,
    *,
    name: str | None = None,
    retries: int | None = None,
    retry_on: ExceptionTypes | None = None,
    retry_delay: float | None = None,
    description: str | None = None,
    routes: dict[str, RouteTarget] | None = None,
    requires_approval: bool = False,
    approval_message: str | None = None,
    approval_metadata: dict[str, object] | None = None,
    retry_backoff: float | None = None,
    retry_max_delay_s: float | None = None,
    retry_jitter: float | None = None,
    timeout_s: float | None = None,
    approval_timeout_s: float | None = None,
) -> Callable[[Function], Function]: ...
def step(function: Any = None, /, *, name: str | None = None, **options: Any) -> Any:
    """Make a method a step of its class; they run in the order in which they stand there.

    The method takes `self`, and a `RunContext` if it has a second parameter. `retries` are further attempts after the
    first, for exceptions in `retry_on`, `retry_delay` seconds apart (times `retry_backoff` each time,
    `retry_max_delay_s` at most, more or less by the share `retry_jitter`). `routes` maps what the step returns to the
    step that follows, or `END`. `requires_approval` asks somebody before the step is done. `timeout_s` limits each
    attempt, `approval_timeout_s` the wait for the decision.
    """

    def mark(function: Any) -> Any:
        own = function.__name__
        definition = StepDefinition(name or own, own, -1, **options)
        setattr(function, STEP_DEFINITION_ATTR, definition)
        return function

    return mark if function is None else mark(function)


@overload
def workflow(cls: Class, /) -> Class: ...
@overload
def workflow(
    cls: None = None,
    /,
    *,
    name: str | None = None,
    retries: int = 0,
    retry_on: ExceptionTypes = (),
    retry_delay: float = 0.0,
    retry_backoff: float = 1.0,
    retry_max_delay_s: float | None = None,
    retry_jitter: float = 0.0,
    timeout_s: float | None = None,
    hooks: Sequence[WorkflowHook] = (),
    state: Any = None,
    check: bool = False,
) -> Callable[[Class], Class]: ...
def workflow(cls: Any = None, /, *, name: str | None = None, check: bool = False, **options: Any) -> Any:
    """Make a class a workflow: adds `run`, `resume`, `arun` and `aresume`, as far as the class has none of its own.

    Steps of base classes come first, and keep their places when they are overridden. The retry options count for steps
    that say nothing themselves; `timeout_s` limits a run; `hooks` are told of every run. `state` is the type of the
    state, for durable runs. With `check=True` a mistake in the class is raised here, and not when it is first run.
    """

    def mark(cls: Any) -> Any:
        hooks = tuple(options.pop("hooks", ()))
        steps = [replace(found, order=order) for order, found in enumerate(_steps_of(cls))]
        definition = WorkflowDefinition(name or cls.__name__, steps, hooks=hooks, **options)
        setattr(cls, WORKFLOW_DEFINITION_ATTR, definition)
        for method in (run, resume, arun, aresume):
            if method.__name__ not in vars(cls):
                setattr(cls, method.__name__, method)
        keep_state_per_run(cls)
        if check:
            check_workflow(cls)
        return cls

    return mark if cls is None else mark(cls)


def _steps_of(cls: type) -> Iterator[StepDefinition]:
    """The steps of a class and its bases, in order. An override has the place of what it overrides."""
    found: dict[str, StepDefinition] = {}
    for base in reversed(cls.__mro__):
        for attribute, value in vars(base).items():
            definition = getattr(value, STEP_DEFINITION_ATTR, None)
            if isinstance(definition, StepDefinition):
                found[attribute] = _named(definition, attribute)
            elif attribute in found and not callable(value):
                del found[attribute]  # `check = None` takes a step away
    yield from found.values()


def _named(definition: StepDefinition, attribute: str) -> StepDefinition:
    """The definition with the name that the class gives the function: lambdas and wrappers have another one."""
    if definition.method_name == attribute:
        return definition
    name = attribute if definition.name == definition.method_name else definition.name
    return replace(definition, name=name, method_name=attribute)


# What `@workflow` adds to a class. The executor is imported when something is first run.


def run(
    self: Any,
    state: Any,
    *,
    raise_on_failure: bool = False,
    approval_handler: Callable[[ApprovalRequest], ApprovalDecision | bool] | None = None,
    hooks: Sequence[WorkflowHook] | None = None,
    pause_on_approval: bool = False,
) -> WorkflowResult:
    """Run the workflow with this state, and return its result, also if it failed.

    Raises:
        WorkflowDefinitionError, StateValidationError: nothing has been run; WorkflowExecutionError: it failed, and
        `raise_on_failure` is set.
    """
    from .executor import run_workflow

    return run_workflow(
        self,
        state,
        raise_on_failure=raise_on_failure,
        approval_handler=approval_handler,
        hooks=hooks,
        pause_on_approval=pause_on_approval,
    )


def resume(
    self: Any,
    paused_result: WorkflowResult,
    decision: ApprovalDecision | bool,
    *,
    raise_on_failure: bool = False,
    approval_handler: Callable[[ApprovalRequest], ApprovalDecision | bool] | None = None,
    hooks: Sequence[WorkflowHook] | None = None,
    pause_on_approval: bool = True,
) -> WorkflowResult:
    """Go on with a paused run, with the decision on the step it paused at. Once for each pause."""
    from .executor import resume_workflow

    return resume_workflow(
        self,
        paused_result,
        decision,
        raise_on_failure=raise_on_failure,
        approval_handler=approval_handler,
        hooks=hooks,
        pause_on_approval=pause_on_approval,
    )


async def arun(
    self: Any,
    state: Any,
    *,
    raise_on_failure: bool = False,
    approval_handler: Callable[[ApprovalRequest], Any] | None = None,
    hooks: Sequence[WorkflowHook] | None = None,
    pause_on_approval: bool = False,
) -> WorkflowResult:
    """As `run`, for an event loop: steps, hooks and the handler may be async; other steps get a thread each."""
    from .asynchronous import arun_workflow

    return await arun_workflow(
        self,
        state,
        raise_on_failure=raise_on_failure,
        approval_handler=approval_handler,
        hooks=hooks,
        pause_on_approval=pause_on_approval,
    )


async def aresume(
    self: Any,
    paused_result: WorkflowResult,
    decision: ApprovalDecision | bool,
    *,
    raise_on_failure: bool = False,
    approval_handler: Callable[[ApprovalRequest], Any] | None = None,
    hooks: Sequence[WorkflowHook] | None = None,
    pause_on_approval: bool = True,
) -> WorkflowResult:
    """As `resume`, for an event loop."""
    from .asynchronous import aresume_workflow

    return await aresume_workflow(
        self,
        paused_result,
        decision,
        raise_on_failure=raise_on_failure,
        approval_handler=approval_handler,
        hooks=hooks,
        pause_on_approval=pause_on_approval,
    )
