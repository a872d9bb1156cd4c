"""Where a run goes after a step, and what is said of the steps it did not reach."""

from __future__ import annotations

from collections.abc import Mapping

from .exceptions import RouteResolutionError
from .models import END, RouteDecision, StepDefinition, StepResult, StepStatus, WorkflowDefinition


def workflow_uses_routes(workflow_definition: WorkflowDefinition) -> bool:
    """Whether any step has routes."""
    return any(step.routes is not None for step in workflow_definition.steps)


def resolve_route_decision(
    step_definition: StepDefinition, output: object, step_indexes: Mapping[str, int]
) -> tuple[RouteDecision, int | None]:
    """What a step's output means for a step with routes, and the index of the next step (None at the end).

    Raises:
        RouteResolutionError
    """
    if not isinstance(output, str):
        raise RouteResolutionError(f"Step '{step_definition.name}' returned a non-string route key.")
    routes = step_definition.routes or {}
    if output not in routes:
        raise RouteResolutionError(f"Step '{step_definition.name}' returned unknown route key '{output}'.")
    target = routes[output]
    if not isinstance(target, str):
        return RouteDecision(step_definition.name, output, None, target is END), None
    return RouteDecision(step_definition.name, output, target), step_indexes[target]


def build_skipped_result(step_definition: StepDefinition, reason: str) -> StepResult:
    """The result of a step that was not reached."""
    return StepResult(
        step_definition.name,
        StepStatus.SKIPPED,
        skipped_reason=reason,
        approval_required=step_definition.requires_approval,
    )


def finalize_step_results(
    workflow_definition: WorkflowDefinition, executed_results: Mapping[int, StepResult], *, skipped_reason: str
) -> list[StepResult]:
    """The results to list: the steps that were reached; with routes all steps, those not reached as skipped."""
    if not workflow_uses_routes(workflow_definition):
        return [executed_results[index] for index in sorted(executed_results)]
    return [
        executed_results[index] if index in executed_results else build_skipped_result(step, skipped_reason)
        for index, step in enumerate(workflow_definition.steps)
    ]
