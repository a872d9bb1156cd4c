"""Hooks: what they are told, in which order, and what it means when one fails."""

from __future__ import annotations

from typing import Any

import pytest

from pyflue.agentflow import (
    HookExecutionError,
    StepFinishedEvent,
    StepStartedEvent,
    WorkflowFinishedEvent,
    WorkflowStartedEvent,
    step,
    workflow,
)
from pyflue.agentflow.hooks import emit_hooks
from pyflue.agentflow.models import WorkflowStatus

from .support import Seen, error_of, shape


@workflow
class Two:
    state: dict[str, Any]

    @step(retries=1, retry_on=(ValueError,))
    def one(self) -> int:
        self.state["tries"] = self.state.get("tries", 0) + 1
        if self.state["tries"] == 1:
            raise ValueError
        return 1

    @step(requires_approval=True)
    def two(self) -> int:
        if self.state.get("fail"):
            raise LookupError("two")
        return 2


def run(state: dict[str, Any] | None = None, *hooks: Any, **options: Any) -> Any:
    options = {"approval_handler": lambda request: True, **options}
    return Two().run({} if state is None else state, hooks=hooks, **options)  # type: ignore[attr-defined]


def test_hooks_are_told_of_each_event_in_order() -> None:
    first, second = Seen(), Seen()
    state: dict[str, Any] = {}
    result = run(state, first, second)
    started = first.events[1].started_at
    assert first.events == [
        WorkflowStartedEvent("Two", result.run_id, state, result.started_at),
        StepStartedEvent("Two", result.run_id, "one", state, started),
        StepFinishedEvent("Two", result.run_id, "one", state, result.steps[0]),
        StepStartedEvent("Two", result.run_id, "two", state, first.events[3].started_at),
        StepFinishedEvent("Two", result.run_id, "two", state, result.steps[1]),
        WorkflowFinishedEvent("Two", result.run_id, state, result),
    ]
    assert started == result.steps[0].started_at
    assert first.events[-1].result is result
    assert all(one is other for one, other in zip(first.events, second.events, strict=True))


def test_a_step_is_announced_before_its_approval_is_asked() -> None:
    order: list[str] = []

    def handler(request: Any) -> bool:
        order.append("approval")
        return True

    run({}, lambda event: order.append(type(event).__name__), approval_handler=handler)
    assert order[3:5] == ["StepStartedEvent", "approval"]


def test_skipped_steps_are_no_events_and_what_hooks_return_does_not_matter() -> None:
    seen = Seen()
    result = run({"fail": True}, seen, lambda event: 1 / 1)
    assert seen.told[-2:] == [("StepFinished", "two"), ("WorkflowFinished", "Two")]
    assert result.status is WorkflowStatus.FAILED
    # A generator is good for every event of a run, too.
    again = Seen()
    Two().run({}, approval_handler=lambda request: True, hooks=(hook for hook in [again]))  # type: ignore[attr-defined]
    assert len(again.events) == 6


@pytest.mark.parametrize(
    ("event", "expected", "told"),
    [
        ("WorkflowStartedEvent", [], 1),
        ("StepStartedEvent", [("one", "failed", 0)], 3),
        ("StepFinishedEvent", [("one", "failed", 2)], 4),
        ("WorkflowFinishedEvent", [("one", "succeeded", 2), ("two", "succeeded", 1)], 6),
    ],
)
def test_a_hook_that_fails_fails_the_run(event: str, expected: Any, told: int) -> None:
    seen, after = Seen(event), Seen()
    result = run({}, seen, after)
    assert result.status is WorkflowStatus.FAILED
    assert error_of(result) == ("HookExecutionError", f"Workflow hook failed while handling {event}.")
    assert isinstance(result.error.__cause__, ValueError)
    assert [(done.step_name, done.status.value, done.attempts) for done in result.steps] == expected
    assert all(done.error is result.error for done in result.steps if done.status.value == "failed")
    assert len(seen.events) == told
    # Those after it do not hear of that event.
    assert len(after.events) == told - 1
    if event == "StepFinishedEvent":
        assert result.steps[0].output == 1


def test_a_hook_that_fails_at_the_end_does_not_lose_the_checkpoint_of_a_paused_run() -> None:
    result = run({}, Seen("WorkflowFinishedEvent"), approval_handler=None, pause_on_approval=True)
    assert (result.status, result.pause) == (WorkflowStatus.FAILED, None)
    assert shape(result) == [("one", "succeeded"), ("two", "paused")]
    paused = result.error.result
    assert paused.status is WorkflowStatus.PAUSED
    assert Two().resume(paused, True).status is WorkflowStatus.SUCCEEDED  # type: ignore[attr-defined]


def test_a_hook_that_fails_at_a_pause_fails_the_step() -> None:
    class AtTwo(Seen):
        def __call__(self, event: Any) -> None:
            if isinstance(event, StepFinishedEvent) and event.step_name == "two":
                raise ValueError

    result = run({}, AtTwo(), approval_handler=None, pause_on_approval=True)
    assert (result.status, result.pause, shape(result)) == (
        WorkflowStatus.FAILED,
        None,
        [("one", "succeeded"), ("two", "failed")],
    )


def test_a_failed_start_of_a_resumed_run_has_no_steps_and_can_be_tried_again() -> None:
    paused = run({}, approval_handler=None, pause_on_approval=True)
    failed = Two().resume(paused, True, hooks=[Seen("WorkflowStartedEvent")])  # type: ignore[attr-defined]
    assert (failed.status, failed.steps) == (WorkflowStatus.FAILED, [])
    assert Two().resume(paused, True).status is WorkflowStatus.SUCCEEDED  # type: ignore[attr-defined]


@pytest.mark.parametrize("event", ["StepFinishedEvent", "WorkflowFinishedEvent"])
def test_a_step_that_failed_keeps_its_own_error_when_a_hook_fails_too(event: str) -> None:
    class AtTheEnd(Seen):
        def __call__(self, told: Any) -> None:
            if type(told).__name__ == event and getattr(told, "step_name", "two") == "two":
                raise OSError("the log is full")

    result = run({"fail": True}, AtTheEnd())
    assert error_of(result) == ("LookupError", "two")
    assert result.steps[1].error is result.error
    assert result.error.__notes__ == [f"And then: Workflow hook failed while handling {event}."]
    assert isinstance(result.error.__context__, OSError)


def test_a_workflow_may_have_hooks_of_its_own_which_are_told_first() -> None:
    order: list[str] = []

    @workflow(hooks=[lambda event: order.append("own")])
    class Flow:
        @step
        def only(self) -> None: ...

    Flow().run({}, hooks=[lambda event: order.append("given")])  # type: ignore[attr-defined]
    assert order == ["own", "given"] * 4
    Flow().run({})  # type: ignore[attr-defined]
    assert order[8:] == ["own"] * 4


def test_the_function_of_the_module_does_the_same() -> None:
    event = WorkflowStartedEvent("W", "r", {}, None)  # type: ignore[arg-type]
    emit_hooks(None, event)
    seen = Seen()
    with pytest.raises(HookExecutionError, match=r"^Workflow hook failed while handling WorkflowStartedEvent\.$"):
        emit_hooks([seen, Seen("WorkflowStartedEvent"), seen], event)
    assert seen.events == [event]
