"""Child workflows: `context.run_child`."""

from __future__ import annotations

from typing import Any

import pytest

from pyflue.agentflow import (
    ChildWorkflowExecutionError,
    RunContext,
    StateValidationError,
    WorkflowDefinitionError,
    step,
    workflow,
)
from pyflue.agentflow.models import WorkflowStatus

from .support import Seen, error_of


@workflow
class Child:
    state: dict[str, Any]

    @step
    def work(self) -> str:
        if self.state.get("fail"):
            raise ValueError("bad")
        self.state["done"] = True
        return "worked"


@workflow
class GatedChild:
    @step(requires_approval=True)
    def work(self) -> str:
        return "worked"


def parent(do: Any, **options: Any) -> Any:
    @workflow
    class Parent:
        state: Any

        @step(**options)
        def go(self, context: RunContext) -> Any:
            return do(context)

    return Parent()


def test_a_child_is_a_run_of_its_own_kept_with_the_step() -> None:
    results: list[Any] = []

    def do(context: RunContext) -> Any:
        results.append(context.run_child(Child(), {"n": 1}))
        return results[0].state

    result = parent(do).run({"parent": True})
    child = results[0]
    assert (child.workflow_name, child.status, child.state) == (
        "Child",
        WorkflowStatus.SUCCEEDED,
        {"n": 1, "done": True},
    )
    assert result.steps[0].child_workflows == results
    assert result.steps[0].output is child.state
    assert result.state == {"parent": True}
    assert child.run_id != result.run_id


def test_a_child_that_fails_fails_the_step_that_may_catch_it() -> None:
    result = parent(lambda context: context.run_child(Child(), {"fail": True})).run({})
    message = "Child workflow 'Child' failed while running parent step 'go'."
    assert error_of(result) == ("ChildWorkflowExecutionError", message)
    assert isinstance(result.error.__cause__, ValueError)
    assert result.steps[0].child_workflows[0].error is result.error.__cause__

    def catch(context: RunContext) -> str:
        with pytest.raises(ChildWorkflowExecutionError):
            context.run_child(Child(), {"fail": True})
        return "caught"

    result = parent(catch).run({})
    assert (result.status, result.steps[0].output, len(result.steps[0].child_workflows)) == (
        WorkflowStatus.SUCCEEDED,
        "caught",
        1,
    )


def test_the_results_of_children_are_kept_across_attempts() -> None:
    result = parent(
        lambda context: context.run_child(Child(), {"fail": context.attempt < 3}),
        retries=2,
        retry_on=(ChildWorkflowExecutionError,),
    ).run({})
    assert result.status is WorkflowStatus.SUCCEEDED
    children = result.steps[0].child_workflows
    assert [child.status.value for child in children] == ["failed", "failed", "succeeded"]


def test_a_failed_child_need_not_fail_its_parent() -> None:
    result = parent(
        lambda context: context.run_child(Child(), {"fail": True}, fail_parent_on_failure=False).status
    ).run({})
    assert (result.status, result.steps[0].output) == (WorkflowStatus.SUCCEEDED, WorkflowStatus.FAILED)


def test_a_child_that_cannot_be_run_raises_its_own_error() -> None:
    @workflow
    class Empty: ...

    result = parent(lambda context: context.run_child(Empty(), {})).run({})
    assert isinstance(result.error, WorkflowDefinitionError)
    assert result.steps[0].child_workflows == []
    assert isinstance(parent(lambda context: context.run_child(Child(), None)).run({}).error, StateValidationError)


def test_a_child_asks_and_tells_whom_its_parent_does_unless_it_is_given_others() -> None:
    asked: list[str] = []
    seen, own = Seen(), Seen()

    def handler(request: Any) -> bool:
        asked.append(request.workflow_name)
        return True

    parent(lambda context: context.run_child(GatedChild(), {})).run({}, approval_handler=handler, hooks=[seen])
    assert asked == ["GatedChild"]
    assert [name for name, _ in seen.told] == [
        "WorkflowStarted",
        "StepStarted",
        "WorkflowStarted",
        "StepStarted",
        "StepFinished",
        "WorkflowFinished",
        "StepFinished",
        "WorkflowFinished",
    ]
    assert len({event.run_id for event in seen.events}) == 2
    seen.events.clear()
    result = parent(
        lambda context: context.run_child(GatedChild(), {}, approval_handler=lambda request: False, hooks=[own])
    ).run({}, approval_handler=handler, hooks=[seen])
    assert (len(own.events), len(seen.events)) == (4, 4)
    assert str(result.error.__cause__) == "Approval denied for step 'work'."
    seen.events.clear()
    parent(lambda context: context.run_child(Child(), {}, hooks=[])).run({}, hooks=[seen])
    assert len(seen.events) == 4


def test_a_gated_child_without_a_handler_fails_also_if_the_parent_pauses() -> None:
    result = parent(lambda context: context.run_child(GatedChild(), {})).run({}, pause_on_approval=True)
    assert (result.status, type(result.error.__cause__).__name__) == (
        WorkflowStatus.FAILED,
        "ApprovalRequiredError",
    )


def test_a_context_made_by_hand_has_no_children_and_one_that_is_kept_still_does() -> None:
    with pytest.raises(ChildWorkflowExecutionError) as caught:
        RunContext("W", "r").run_child(Child(), {})
    assert str(caught.value) == "Child workflows can only be run from an active workflow step context."
    kept: list[RunContext] = []
    result = parent(kept.append).run({})
    assert kept[0].run_child(Child(), {}).status is WorkflowStatus.SUCCEEDED
    assert len(result.steps[0].child_workflows) == 1
