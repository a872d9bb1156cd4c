"""What an approval asks, and which answers count."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .exceptions import ApprovalRequiredError
from .models import ApprovalDecision, ApprovalRequest, StepDefinition, WorkflowDefinition


def build_approval_request(
    workflow_definition: WorkflowDefinition, step_definition: StepDefinition, *, run_id: str, state: object
) -> ApprovalRequest:
    """The request of a step that needs an approval."""
    return ApprovalRequest(
        workflow_definition.name,
        step_definition.name,
        run_id,
        state,
        step_definition.approval_message,
        dict(step_definition.approval_metadata or {}),
    )


def normalize_approval_decision(decision: object) -> ApprovalDecision:
    """An answer as a decision.

    Raises:
        ApprovalRequiredError: it is none.
    """
    if isinstance(decision, bool):
        return ApprovalDecision(decision)
    if not isinstance(decision, ApprovalDecision):
        raise ApprovalRequiredError("Approval handlers must return an ApprovalDecision or a boolean.")
    if not isinstance(decision.approved, bool):  # pyright: ignore[reportUnnecessaryIsInstance]  (a handler's answer)
        raise ApprovalRequiredError("ApprovalDecision.approved must be a boolean.")
    return decision


def request_step_approval(
    workflow_definition: WorkflowDefinition,
    step_definition: StepDefinition,
    *,
    run_id: str,
    state: object,
    approval_handler: Callable[[ApprovalRequest], Any] | None,
) -> ApprovalDecision:
    """Ask a handler.

    Raises:
        ApprovalRequiredError: there is none, or its answer is no decision.
    """
    if approval_handler is None:
        raise nobody_to_ask(step_definition)
    request = build_approval_request(workflow_definition, step_definition, run_id=run_id, state=state)
    return normalize_approval_decision(approval_handler(request))


def nobody_to_ask(step_definition: StepDefinition) -> ApprovalRequiredError:
    return ApprovalRequiredError(
        f"Step '{step_definition.name}' requires approval but no approval handler was provided."
    )


def denied(step_definition: StepDefinition) -> ApprovalRequiredError:
    return ApprovalRequiredError(f"Approval denied for step '{step_definition.name}'.")
