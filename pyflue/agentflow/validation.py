"""What is checked of a workflow before its first step runs.

Called by the executor, the graph and the loader. Whatever is wrong is raised, never turned into a failed result.
"""

from __future__ import annotations

import contextlib
import inspect
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from .definitions import END, StepDefinition, WorkflowDefinition
from .exceptions import StateValidationError, WorkflowDefinitionError

STEP_DEFINITION_ATTR = "__agentflow_step_definition__"
WORKFLOW_DEFINITION_ATTR = "__agentflow_workflow_definition__"

#: Methods that `@workflow` adds.
_RESERVED_METHODS = frozenset({"run", "resume"})


def definition_of(workflow_or_class: object) -> WorkflowDefinition | None:
    """What `@workflow` says of a class, or of an instance's class."""
    kind = workflow_or_class if isinstance(workflow_or_class, type) else type(workflow_or_class)
    found = getattr(kind, WORKFLOW_DEFINITION_ATTR, None)
    return found if isinstance(found, WorkflowDefinition) else None


def check_workflow(cls: type) -> WorkflowDefinition:
    """The definition of a class, after a look at all there is to check, signatures included.

    Raises:
        WorkflowDefinitionError
    """
    definition = definition_of(cls)
    if definition is None:
        raise WorkflowDefinitionError("Workflow metadata is missing from the workflow class.")
    validate_workflow_definition(definition)
    for step in definition.steps:
        facts_of_method(method_of(cls, step))
    return definition


def validate_workflow_definition(definition: WorkflowDefinition) -> WorkflowDefinition:
    """
    Raises:
        WorkflowDefinitionError
    """
    if not definition.steps:
        raise WorkflowDefinitionError("Workflows must define at least one step.")
    if definition.retries < 0:
        raise WorkflowDefinitionError("Workflow retry count must be zero or greater.")
    if definition.retry_on != () and not _are_exceptions(definition.retry_on):
        raise WorkflowDefinitionError("Workflow retry_on must be a tuple of exception classes.")
    if definition.retry_delay < 0:
        raise WorkflowDefinitionError("Workflow retry_delay must be zero or greater.")
    if definition.retry_backoff != 1.0 or definition.retry_jitter or definition.retry_max_delay_s is not None:
        _check_pauses("Workflow", definition)
    if definition.timeout_s is not None and not definition.timeout_s > 0:
        raise WorkflowDefinitionError("Workflow timeout_s must be greater than zero.")
    names: set[str] = set()
    has_routes = False
    for step in definition.steps:
        validate_step_definition(step)
        if step.name in names:
            raise WorkflowDefinitionError(f"Duplicate step name '{step.name}' is not allowed.")
        names.add(step.name)
        has_routes = has_routes or step.routes is not None
    if has_routes:
        _check_targets(definition)
    return definition


def validate_step_definition(step: StepDefinition) -> StepDefinition:
    """
    Raises:
        WorkflowDefinitionError
    """
    if not step.name:
        raise WorkflowDefinitionError("Step definitions must have a non-empty name.")
    if step.name == "run":
        raise WorkflowDefinitionError("Step name 'run' is reserved.")
    if not step.method_name:
        raise WorkflowDefinitionError("Step definitions must have a non-empty method name.")
    if step.method_name in _RESERVED_METHODS:
        raise WorkflowDefinitionError(f"Step method name '{step.method_name}' is reserved.")
    if step.order < 0:
        raise WorkflowDefinitionError("Step definition order must be zero or greater.")
    if step.retries is not None and step.retries < 0:
        raise WorkflowDefinitionError("Step retry count must be zero or greater when provided.")
    if step.retry_on is not None and not _are_exceptions(step.retry_on):
        raise WorkflowDefinitionError("Step retry_on must be None or a tuple of exception classes.")
    if step.retry_delay is not None and step.retry_delay < 0:
        raise WorkflowDefinitionError("Step retry_delay must be zero or greater when provided.")
    _check_pauses("Step", step)
    for option in ("timeout_s", "approval_timeout_s"):
        limit: float | None = getattr(step, option)
        if limit is not None and not limit > 0:
            raise WorkflowDefinitionError(f"Step {option} must be greater than zero when provided.")
    _check_approval(step)
    if step.routes is not None:
        _check_routes(step)
    return step


def _check_pauses(whose: str, options: StepDefinition | WorkflowDefinition) -> None:
    if options.retry_backoff is not None and not options.retry_backoff >= 1:
        raise WorkflowDefinitionError(f"{whose} retry_backoff multiplies the delay, so it must be 1 or more.")
    if options.retry_max_delay_s is not None and not options.retry_max_delay_s >= 0:
        raise WorkflowDefinitionError(f"{whose} retry_max_delay_s must be zero or greater.")
    if options.retry_jitter is not None and not 0 <= options.retry_jitter <= 1:
        raise WorkflowDefinitionError(f"{whose} retry_jitter is a share of the delay, from 0 to 1.")


def _check_approval(step: StepDefinition) -> None:
    # These are an author's values, whatever their annotations say.
    required: Any = step.requires_approval
    message: Any = step.approval_message
    metadata: Any = step.approval_metadata
    if not isinstance(required, bool):
        raise WorkflowDefinitionError("Step requires_approval must be a boolean.")
    if message is not None and not (isinstance(message, str) and message):
        raise WorkflowDefinitionError("Step approval_message must be None or a non-empty string.")
    if metadata is not None and not isinstance(metadata, dict):
        raise WorkflowDefinitionError("Step approval_metadata must be None or a dictionary.")


def _check_routes(step: StepDefinition) -> None:
    if not step.routes:
        raise WorkflowDefinitionError("Step routes must not be empty when provided.")
    routes = cast("dict[Any, Any]", step.routes)
    for key, target in routes.items():
        if not (isinstance(key, str) and key):
            raise WorkflowDefinitionError("Step route keys must be non-empty strings.")
        if target is not END and not (isinstance(target, str) and target):
            raise WorkflowDefinitionError("Step route targets must be non-empty step names or END.")


def _check_targets(definition: WorkflowDefinition) -> None:
    places = {step.name: place for place, step in enumerate(definition.steps)}
    for place, step in enumerate(definition.steps):
        for target in (step.routes or {}).values():
            if not isinstance(target, str):
                continue
            if target not in places:
                raise WorkflowDefinitionError(f"Route target '{target}' does not match a workflow step.")
            if places[target] <= place:
                raise WorkflowDefinitionError(f"Route target '{target}' must point to a later step.")


def _are_exceptions(value: object) -> bool:
    if not isinstance(value, tuple):
        return False
    kinds = cast("tuple[Any, ...]", value)
    return all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds)


def validate_initial_state(state: object) -> object:
    """
    Raises:
        StateValidationError: there is none.
    """
    if state is None:
        raise StateValidationError("Initial workflow state must not be None.")
    return state


@dataclass(frozen=True, slots=True)
class MethodFacts:
    """How a step's function is called."""

    is_async: bool
    takes_context: bool


def validate_step_method_signature(method: Callable[..., object], *, allow_async: bool = False) -> None:
    """
    Raises:
        WorkflowDefinitionError: the function cannot be a step (of a run that is not async).
    """
    facts = facts_of_method(method)
    if facts.is_async and not allow_async:
        raise must_be_sync()


def must_be_sync() -> WorkflowDefinitionError:
    error = WorkflowDefinitionError("Step methods must be synchronous functions.")
    error.add_note("Await `arun` (or `aresume`) for workflows with async steps.")
    return error


def method_of(cls: type, step: StepDefinition) -> Callable[..., object]:
    """The function of a step, as the class has it now: a subclass may have put another one in its place.

    Raises:
        WorkflowDefinitionError: there is none.
    """
    method = getattr(cls, step.method_name, None)
    if not callable(method):
        raise WorkflowDefinitionError(f"Step '{step.name}' has no method '{step.method_name}' in the workflow class.")
    return method


_facts: weakref.WeakKeyDictionary[Any, MethodFacts] = weakref.WeakKeyDictionary()


def facts_of_method(method: Callable[..., object]) -> MethodFacts:
    """How to call a step's function, found out once.

    Raises:
        WorkflowDefinitionError: it cannot be called as a step.
    """
    try:
        return _facts[method]
    except (KeyError, TypeError):
        facts = _look_at(method)
    with contextlib.suppress(TypeError):  # something that cannot be referred to weakly; it is looked at each time
        _facts[method] = facts
    return facts


def _look_at(method: Callable[..., object]) -> MethodFacts:
    parameters = list(inspect.signature(method).parameters.values())
    if any(parameter.kind not in _POSITIONAL for parameter in parameters):
        raise WorkflowDefinitionError("Step methods may only use positional parameters for self and optional context.")
    if not parameters:
        raise WorkflowDefinitionError("Step methods must declare a workflow instance parameter.")
    if len(parameters) > len(("self", "context")):
        raise WorkflowDefinitionError("Step methods may declare only the workflow instance and optional context.")
    return MethodFacts(is_async=inspect.iscoroutinefunction(method), takes_context=len(parameters) > 1)


_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
