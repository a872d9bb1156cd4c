"""Results from their JSON form, as durable runs keep them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from .exceptions import StepExecutionError
from .models import ApprovalDecision, RouteDecision, StepResult, StepStatus, WorkflowResult, WorkflowStatus


def result_from_dict(told: Mapping[str, Any]) -> WorkflowResult:
    """A run's result. Its state is as JSON has it; errors are a `StepExecutionError` that says what they were."""
    return WorkflowResult(
        workflow_name=told["workflow_name"],
        state=told["state"],
        status=WorkflowStatus(told["status"]),
        steps=[_step(step) for step in told["steps"]],
        error=_error(told["error"]),
        started_at=_time(told["started_at"]),
        finished_at=_time(told["finished_at"]),
        duration_ms=told["duration_ms"],
        route_trace=[RouteDecision(**decision) for decision in told["route_trace"]],
        run_id=told["run_id"],
    )


def _step(told: Mapping[str, Any]) -> StepResult:
    fields = dict(told)
    decision = fields["approval_decision"]
    fields |= {
        "status": StepStatus(told["status"]),
        "error": _error(told["error"]),
        "started_at": _time(told["started_at"]),
        "finished_at": _time(told["finished_at"]),
        "approval_decision": None if decision is None else ApprovalDecision(**decision),
        "child_workflows": [result_from_dict(child) for child in told["child_workflows"]],
    }
    return StepResult(**fields)


def _error(told: Mapping[str, str] | None) -> Exception | None:
    if told is None:
        return None
    error = StepExecutionError(f"{told['type']}: {told['message']}")
    error.recorded = dict(told)
    return error


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
