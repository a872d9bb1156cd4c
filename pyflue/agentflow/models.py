"""The data of runs: contexts, decisions and results. Plain dataclasses that know nothing of how runs go.

They can be changed, compared and pickled. `to_dict` is their JSON form, the one that durable runs end with. The
definitions can be imported from here as well.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from .definitions import END, ExceptionTypes, RouteTarget, StepDefinition, WorkflowDefinition
from .exceptions import ChildWorkflowExecutionError

if TYPE_CHECKING:
    from .hooks import WorkflowHook

__all__ = [
    "END",
    "ApprovalDecision",
    "ApprovalPause",
    "ApprovalRequest",
    "ChildOptions",
    "ChildRunner",
    "ExceptionTypes",
    "RouteDecision",
    "RouteTarget",
    "RunContext",
    "StepDefinition",
    "StepResult",
    "StepStatus",
    "WorkflowDefinition",
    "WorkflowResult",
    "WorkflowStatus",
]


class WorkflowStatus(StrEnum):
    """How a run stands. `run` returns `succeeded`, `failed` or `paused`."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"
    PAUSED = "paused"


class StepStatus(StrEnum):
    """How a step stands. Results hold `succeeded`, `failed`, `skipped` or `paused`."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"
    PAUSED = "paused"


class ChildRunner(Protocol):
    """Runs child workflows for one step."""

    def run(self, instance: object, state: object, options: ChildOptions) -> WorkflowResult: ...

    def arun(self, instance: object, state: object, options: ChildOptions) -> Awaitable[WorkflowResult]: ...


@dataclass(slots=True)
class ChildOptions:
    """What a step says about a child workflow. None means: as its own run has it."""

    fail_parent_on_failure: bool = True
    approval_handler: Callable[[ApprovalRequest], Any] | None = None
    hooks: Sequence[WorkflowHook] | None = None


@dataclass(slots=True)
class RunContext:
    """The second parameter of a step: which attempt at which step of which run this is. A new one for each attempt."""

    workflow_name: str
    run_id: str
    attempt: int = 1
    step_name: str | None = None
    _child_runner: ChildRunner | None = field(default=None, repr=False, compare=False)
    #: In a durable run its context (`FlueContext` in an async step, `BlockingContext` in others); else None.
    ctx: Any = field(default=None, repr=False, compare=False)

    def run_child(
        self,
        workflow_instance: object,
        state: object,
        *,
        fail_parent_on_failure: bool = True,
        approval_handler: Callable[[ApprovalRequest], Any] | None = None,
        hooks: Sequence[WorkflowHook] | None = None,
    ) -> WorkflowResult:
        """Run another workflow inside of this step; its result is also kept on the step's.

        Raises:
            ChildWorkflowExecutionError: it failed, unless `fail_parent_on_failure=False`.
        """
        options = ChildOptions(fail_parent_on_failure, approval_handler, hooks)
        return self._children().run(workflow_instance, state, options)

    async def arun_child(
        self,
        workflow_instance: object,
        state: object,
        *,
        fail_parent_on_failure: bool = True,
        approval_handler: Callable[[ApprovalRequest], Any] | None = None,
        hooks: Sequence[WorkflowHook] | None = None,
    ) -> WorkflowResult:
        """As `run_child`, for steps that are async."""
        options = ChildOptions(fail_parent_on_failure, approval_handler, hooks)
        return await self._children().arun(workflow_instance, state, options)

    def _children(self) -> ChildRunner:
        if self._child_runner is None:
            raise ChildWorkflowExecutionError("Child workflows can only be run from an active workflow step context.")
        return self._child_runner


def _no_metadata() -> dict[str, object]:
    return {}


@dataclass(slots=True)
class ApprovalRequest:
    """What an approval handler is asked."""

    workflow_name: str
    step_name: str
    run_id: str
    state: Any
    message: str | None = None
    metadata: dict[str, object] = field(default_factory=_no_metadata)


@dataclass(slots=True)
class ApprovalDecision:
    """What was decided."""

    approved: bool
    reason: str | None = None
    metadata: dict[str, object] = field(default_factory=_no_metadata)

    def to_dict(self) -> dict[str, Any]:
        return {"approved": self.approved, "reason": self.reason, "metadata": self.metadata}


@dataclass(slots=True)
class RouteDecision:
    """Which way a step with routes went."""

    step_name: str
    route_key: str
    next_step: str | None = None
    ended: bool = False

    def to_dict(self) -> dict[str, Any]:
        return {
            "step_name": self.step_name,
            "route_key": self.route_key,
            "next_step": self.next_step,
            "ended": self.ended,
        }


def _no_children() -> list[WorkflowResult]:
    return []


@dataclass(slots=True)
class StepResult:
    """What became of a step."""

    step_name: str
    status: StepStatus = StepStatus.PENDING
    attempts: int = 0
    output: Any = None
    error: BaseException | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    duration_ms: int = 0
    route_key: str | None = None
    next_step: str | None = None
    skipped_reason: str | None = None
    approval_required: bool = False
    approval_decision: ApprovalDecision | None = None
    child_workflows: list[WorkflowResult] = field(default_factory=_no_children)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, as far as the outputs are JSON."""
        return {
            "step_name": self.step_name,
            "status": self.status.value,
            "attempts": self.attempts,
            "output": self.output,
            "error": _error(self.error),
            "started_at": _time(self.started_at),
            "finished_at": _time(self.finished_at),
            "duration_ms": self.duration_ms,
            "route_key": self.route_key,
            "next_step": self.next_step,
            "skipped_reason": self.skipped_reason,
            "approval_required": self.approval_required,
            "approval_decision": None if self.approval_decision is None else self.approval_decision.to_dict(),
            "child_workflows": [child.to_dict() for child in self.child_workflows],
        }


@dataclass(slots=True)
class ApprovalPause:
    """A checkpoint: where a run paused for an approval, and what it had done."""

    workflow_name: str
    run_id: str
    step_name: str
    step_index: int
    state: Any
    request: ApprovalRequest
    steps: list[StepResult]
    route_trace: list[RouteDecision]
    workflow_started_at: datetime
    created_at: datetime
    #: Whether a run has been resumed from here; it goes on from a checkpoint once.
    is_resumed: bool = field(default=False, repr=False, compare=False)


def _no_results() -> list[StepResult]:
    return []


def _no_routes() -> list[RouteDecision]:
    return []


@dataclass(slots=True)
class WorkflowResult:
    """What became of a run."""

    workflow_name: str
    state: Any
    status: WorkflowStatus = WorkflowStatus.PENDING
    steps: list[StepResult] = field(default_factory=_no_results)
    error: BaseException | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    duration_ms: int = 0
    route_trace: list[RouteDecision] = field(default_factory=_no_routes)
    pause: ApprovalPause | None = None
    run_id: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, as far as the state and the outputs are JSON."""
        return {
            "workflow_name": self.workflow_name,
            "run_id": self.run_id,
            "status": self.status.value,
            "state": self.state,
            "steps": [step.to_dict() for step in self.steps],
            "error": _error(self.error),
            "started_at": _time(self.started_at),
            "finished_at": _time(self.finished_at),
            "duration_ms": self.duration_ms,
            "route_trace": [decision.to_dict() for decision in self.route_trace],
        }


def _time(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat().replace("+00:00", "Z")


def _error(error: BaseException | None) -> dict[str, str] | None:
    if error is None:
        return None
    recorded: dict[str, str] | None = getattr(error, "recorded", None)
    return recorded or {"type": type(error).__name__, "message": str(error)}
