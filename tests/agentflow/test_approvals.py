"""Approvals: by a handler, and by pausing and resuming."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from pyflue.agentflow import (
    ApprovalDecision,
    ApprovalRequest,
    ApprovalRequiredError,
    ApprovalResumeError,
    RouteDecision,
    RunContext,
    WorkflowExecutionError,
    step,
    workflow,
)
from pyflue.agentflow.approvals import build_approval_request, normalize_approval_decision, request_step_approval
from pyflue.agentflow.models import StepStatus, WorkflowStatus

from .support import Seen, error_of, raising, shape, step_of


@workflow
class Gated:
    state: dict[str, Any]

    @step
    def first(self) -> int:
        self.state["first"] = True
        return 1

    @step(
        requires_approval=True,
        approval_message="Go on?",
        approval_metadata={"limit": 100},
        routes={"on": "last"},
        retries=1,
        retry_on=(ValueError,),
    )
    def gated(self, context: RunContext) -> str:
        if context.attempt == 1:
            raise ValueError
        return "on"

    @step
    def between(self) -> None: ...

    @step(requires_approval=True)
    def last(self) -> str:
        return "done"


@workflow
class Other:
    @step(requires_approval=True)
    def gated(self) -> str:
        return "done"


def run(flow: Any, *args: Any, **options: Any) -> Any:
    return flow.run(*args, **options)


def test_a_handler_is_asked_once_for_each_gated_step_before_its_first_attempt() -> None:
    asked: list[ApprovalRequest] = []
    state: dict[str, Any] = {}

    def handler(request: ApprovalRequest) -> ApprovalDecision | bool:
        asked.append(request)
        return ApprovalDecision(approved=True, reason="fine", metadata={"by": "Ada"}) if request.message else True

    result = run(Gated(), state, approval_handler=handler)
    assert result.status is WorkflowStatus.SUCCEEDED
    assert asked == [
        ApprovalRequest("Gated", "gated", result.run_id, state, "Go on?", {"limit": 100}),
        ApprovalRequest("Gated", "last", result.run_id, state),
    ]
    assert asked[0].state is state
    gated, last = step_of(result, "gated"), step_of(result, "last")
    assert (gated.approval_decision, gated.attempts) == (ApprovalDecision(True, "fine", {"by": "Ada"}), 2)
    assert (last.approval_decision, last.approval_required) == (ApprovalDecision(approved=True), True)
    assert not step_of(result, "first").approval_required


def test_the_metadata_of_a_request_is_a_copy() -> None:
    def handler(request: ApprovalRequest) -> bool:
        request.metadata["limit"] = 5
        return False

    run(Gated(), {}, approval_handler=handler)
    result = run(Gated(), {}, pause_on_approval=True)
    assert result.pause.request.metadata == {"limit": 100}


@pytest.mark.parametrize(
    ("handler", "message", "decision"),
    [
        (None, "Step 'gated' requires approval but no approval handler was provided.", None),
        (lambda request: 1, "Approval handlers must return an ApprovalDecision or a boolean.", None),
        (lambda request: "yes", "Approval handlers must return an ApprovalDecision or a boolean.", None),
        (lambda request: None, "Approval handlers must return an ApprovalDecision or a boolean.", None),
        (lambda request: ApprovalDecision("x"), "ApprovalDecision.approved must be a boolean.", None),
        (lambda request: False, "Approval denied for step 'gated'.", ApprovalDecision(approved=False)),
        (
            lambda request: ApprovalDecision(False, "no", {"by": "Ada"}),
            "Approval denied for step 'gated'.",
            ApprovalDecision(False, "no", {"by": "Ada"}),
        ),
    ],
)
def test_without_an_approval_the_step_fails_and_is_not_tried(handler: Any, message: str, decision: Any) -> None:
    result = run(Gated(), {}, approval_handler=handler)
    gated = step_of(result, "gated")
    assert (gated.status, gated.attempts, gated.approval_required) == (StepStatus.FAILED, 0, True)
    assert gated.approval_decision == decision
    assert gated.error is result.error
    assert isinstance(result.error, ApprovalRequiredError)
    assert str(result.error) == message
    assert step_of(result, "last").skipped_reason == "not reached because workflow failed"


def test_what_a_handler_raises_is_the_error_of_the_step() -> None:
    error = LookupError("nobody is there")
    # A handler goes before pausing.
    for options in ({}, {"pause_on_approval": True}):
        result = run(Gated(), {}, approval_handler=raising(error), **options)
        assert (result.status, result.error, result.pause) == (WorkflowStatus.FAILED, error, None)


def test_a_run_pauses_with_a_checkpoint() -> None:
    seen = Seen()
    state: dict[str, Any] = {}
    result = run(Gated(), state, pause_on_approval=True, hooks=[seen])
    assert (result.status, result.error) == (WorkflowStatus.PAUSED, None)
    assert shape(result) == [
        ("first", "succeeded"),
        ("gated", "paused"),
        ("between", "skipped"),
        ("last", "skipped"),
    ]
    assert step_of(result, "last").skipped_reason == "not reached because workflow paused"
    pause = result.pause
    assert (pause.workflow_name, pause.run_id, pause.step_name, pause.step_index) == (
        "Gated",
        result.run_id,
        "gated",
        1,
    )
    assert pause.request == ApprovalRequest("Gated", "gated", result.run_id, state, "Go on?", {"limit": 100})
    assert pause.state is state
    assert pause.steps is result.steps
    assert pause.route_trace is result.route_trace
    assert pause.workflow_started_at == result.started_at <= pause.created_at
    assert seen.told[-2:] == [("StepFinished", "gated"), ("WorkflowFinished", "Gated")]
    assert (step_of(result, "gated").attempts, step_of(result, "gated").started_at is None) == (0, False)
    # Being paused is not having failed.
    run(Gated(), {}, pause_on_approval=True, raise_on_failure=True)


def test_a_paused_run_goes_on_with_the_decision_in_another_object() -> None:
    paused = run(Gated(), {}, pause_on_approval=True)
    seen = Seen()
    decision = ApprovalDecision(approved=True, reason="fine")
    again = Gated().resume(paused, decision, hooks=[seen])  # type: ignore[attr-defined]
    # Resuming pauses at the next approval, unless it is told not to.
    assert (again.status, again.pause.step_name) == (WorkflowStatus.PAUSED, "last")
    assert (again.run_id, again.started_at) == (paused.run_id, paused.started_at)
    assert step_of(again, "first") is step_of(paused, "first")
    assert step_of(again, "gated").approval_decision == decision
    assert again.route_trace == [RouteDecision("gated", "on", "last")]
    assert paused.route_trace == []
    assert seen.told == [
        ("WorkflowStarted", "Gated"),
        ("StepStarted", "gated"),
        ("StepFinished", "gated"),
        ("StepStarted", "last"),
        ("StepFinished", "last"),
        ("WorkflowFinished", "Gated"),
    ]
    done = Gated().resume(again, True)  # type: ignore[attr-defined]
    assert (done.status, done.state) == (WorkflowStatus.SUCCEEDED, {"first": True})
    assert shape(done) == [
        ("first", "succeeded"),
        ("gated", "succeeded"),
        ("between", "skipped"),
        ("last", "succeeded"),
    ]
    # What is said of steps that were never reached is of now, not of the time of the pause.
    assert step_of(done, "between").skipped_reason == "not reached because workflow ended"
    assert done.duration_ms >= done.steps[3].duration_ms


def test_a_resumed_run_asks_the_handler_for_later_approvals() -> None:
    paused = run(Gated(), {}, pause_on_approval=True)
    asked: list[str] = []
    done = Gated().resume(paused, True, approval_handler=lambda request: not asked.append(request.step_name))  # type: ignore[attr-defined]
    assert (done.status, asked) == (WorkflowStatus.SUCCEEDED, ["last"])
    paused = run(Gated(), {}, pause_on_approval=True)
    failed = Gated().resume(paused, True, pause_on_approval=False)  # type: ignore[attr-defined]
    assert error_of(failed)[1] == "Step 'last' requires approval but no approval handler was provided."


def test_a_denied_pause_fails_the_run() -> None:
    denied = Gated().resume(run(Gated(), {}, pause_on_approval=True), False)  # type: ignore[attr-defined]
    assert error_of(denied) == ("ApprovalRequiredError", "Approval denied for step 'gated'.")
    assert step_of(denied, "gated").approval_decision == ApprovalDecision(approved=False)
    with pytest.raises(WorkflowExecutionError, match=r"failed at step 'gated' after 0 attempt\(s\)"):
        Gated().resume(run(Gated(), {}, pause_on_approval=True), False, raise_on_failure=True)  # type: ignore[attr-defined]


def test_a_checkpoint_can_be_pickled_and_resumed_elsewhere() -> None:
    paused = pickle.loads(pickle.dumps(run(Gated(), {}, pause_on_approval=True)))
    assert Gated().resume(paused, True).pause.step_name == "last"  # type: ignore[attr-defined]


def test_what_cannot_be_resumed_is_a_failed_result_and_no_hook_is_told() -> None:
    paused = run(Gated(), {}, pause_on_approval=True)
    done = run(Other(), {}, approval_handler=lambda request: True)
    seen = Seen()
    for flow, result, decision, message in (
        (Other(), done, True, "Only paused workflow results can be resumed."),
        (Other(), paused, True, "Paused result belongs to workflow 'Gated', not 'Other'."),
        (Gated(), paused, "yes", "Resume decision must be ApprovalDecision or bool."),
    ):
        refused = flow.resume(result, decision, hooks=[seen])  # type: ignore[attr-defined]
        assert (refused.status, refused.pause, str(refused.error)) == (WorkflowStatus.FAILED, None, message)
        assert isinstance(refused.error, ApprovalResumeError)
        assert refused.steps == result.steps
        assert isinstance(refused.error.__cause__, ApprovalRequiredError) == (decision == "yes")
    assert seen.events == []
    with pytest.raises(WorkflowExecutionError, match="outside step execution due to ApprovalResumeError"):
        Other().resume(done, True, raise_on_failure=True)  # type: ignore[attr-defined]
    with pytest.raises(AttributeError):
        Other().resume(5, True)  # type: ignore[attr-defined]


# Beyond the original


def test_a_checkpoint_is_resumed_once() -> None:
    paused = run(Gated(), {}, pause_on_approval=True)
    # A decision that is none leaves it as it was.
    Gated().resume(paused, "yes")  # type: ignore[attr-defined]
    assert Gated().resume(paused, True).status is WorkflowStatus.PAUSED  # type: ignore[attr-defined]
    again = Gated().resume(paused, True)  # type: ignore[attr-defined]
    assert error_of(again) == ("ApprovalResumeError", "Paused workflow results can be resumed only once.")


def test_a_checkpoint_is_not_resumed_by_a_class_whose_steps_have_changed() -> None:
    paused = run(Gated(), {}, pause_on_approval=True)

    @workflow(name="Gated")
    class Renamed:
        @step
        def first(self) -> None: ...

        @step(requires_approval=True)
        def other(self) -> None: ...

    @workflow(name="Gated")
    class Shorter:
        @step
        def first(self) -> None: ...

    message = "The steps of workflow 'Gated' have changed since it paused at step 'gated'."
    for flow in (Renamed(), Shorter()):
        assert error_of(flow.resume(paused, True)) == ("ApprovalResumeError", message)  # type: ignore[attr-defined]
    assert not paused.pause.is_resumed


def test_the_functions_of_the_module_do_the_same() -> None:
    definition = Gated.__agentflow_workflow_definition__  # type: ignore[attr-defined]
    gated = definition.steps[1]
    request = build_approval_request(definition, gated, run_id="r", state=1)
    assert request == ApprovalRequest("Gated", "gated", "r", 1, "Go on?", {"limit": 100})
    assert normalize_approval_decision(True) == ApprovalDecision(approved=True)
    options: dict[str, Any] = {"run_id": "r", "state": 1}
    decided = request_step_approval(definition, gated, **options, approval_handler=lambda request: False)
    assert decided == ApprovalDecision(approved=False)
    with pytest.raises(ApprovalRequiredError, match="no approval handler"):
        request_step_approval(definition, gated, **options, approval_handler=None)
