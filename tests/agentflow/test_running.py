"""A run: state, context, results, retries, routes, failures."""

from __future__ import annotations

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from pyflue.agentflow import (
    END,
    RetryPolicy,
    RouteDecision,
    RouteResolutionError,
    RunContext,
    StepExecutionError,
    WorkflowExecutionError,
    step,
    workflow,
)
from pyflue.agentflow import retry as retry_module
from pyflue.agentflow.execution import milliseconds
from pyflue.agentflow.models import StepDefinition, StepStatus, WorkflowDefinition, WorkflowStatus
from pyflue.agentflow.records import result_from_dict
from pyflue.agentflow.retry import resolve_retry_policy, should_retry, sleep_for_retry

from .support import Seen, error_of, shape, step_of


@dataclass
class Order:
    order_id: str
    found: bool = False


@workflow
class Linear:
    state: Order

    @step
    def check(self) -> str:
        self.state.found = True
        return f"{self.state.order_id} located"

    @step(name="answer")
    def respond(self) -> str:
        return "found" if self.state.found else "lost"


@workflow
class Routed:
    state: dict[str, Any]

    @step(routes={"long": "c", "end": END, "next": "b"})
    def a(self) -> Any:
        return self.state["key"]

    @step(requires_approval=True)
    def b(self) -> str:
        return "b"

    @step
    def c(self) -> str:
        return "c"


def test_the_state_given_is_the_state_of_the_steps_and_of_the_result() -> None:
    order = Order("ord_1")
    flow = Linear()
    result = flow.run(order)  # type: ignore[attr-defined]
    assert result.state is order is flow.state
    assert order == Order("ord_1", found=True)
    assert (result.workflow_name, result.status, result.error, result.pause) == (
        "Linear",
        WorkflowStatus.SUCCEEDED,
        None,
        None,
    )
    assert [(done.step_name, done.status, done.attempts, done.output) for done in result.steps] == [
        ("check", StepStatus.SUCCEEDED, 1, "ord_1 located"),
        ("answer", StepStatus.SUCCEEDED, 1, "found"),
    ]


def test_a_step_may_put_another_object_in_the_place_of_the_state() -> None:
    @workflow
    class Flow:
        state: Any

        @step
        def replace(self) -> None:
            self.state = {"new": True}

        @step
        def look(self) -> Any:
            return self.state

    flow = Flow()
    result = flow.run({"old": True})  # type: ignore[attr-defined]
    assert result.state is result.steps[1].output is flow.state
    assert result.state == {"new": True}


def test_times_are_aware_in_utc_and_durations_are_whole_milliseconds() -> None:
    before = datetime.now(UTC)
    result = Linear().run(Order("ord_1"))  # type: ignore[attr-defined]
    times = [result.started_at, *(time for done in result.steps for time in (done.started_at, done.finished_at))]
    times.append(result.finished_at)
    assert before <= times[0] <= times[-1] <= datetime.now(UTC)
    assert times == sorted(times)
    assert all(time.tzinfo is UTC for time in times)
    assert result.duration_ms == milliseconds(result.started_at, result.finished_at)
    late = datetime(2026, 1, 1, 0, 0, 1, 1999, tzinfo=UTC)
    early = datetime(2026, 1, 1, tzinfo=UTC)
    assert (milliseconds(early, late), milliseconds(late, early)) == (1001, 0)


def test_the_context_says_where_it_is_and_is_new_for_each_attempt() -> None:
    contexts: list[RunContext] = []

    @workflow(name="Named")
    class Flow:
        @step(name="first", retries=1, retry_on=(ValueError,))
        def one(self, context: RunContext) -> None:
            contexts.append(context)
            if context.attempt == 1:
                raise ValueError

    result = Flow().run({})  # type: ignore[attr-defined]
    first, second = contexts
    assert first == RunContext("Named", first.run_id, 1, "first")
    assert second == RunContext("Named", first.run_id, 2, "first")
    assert (len(first.run_id), first.run_id[12], first.run_id[16] in "89ab") == (32, "4", True)
    assert result.run_id == first.run_id
    assert first.run_id != Flow().run({}).run_id  # type: ignore[attr-defined]


def test_without_routes_only_the_steps_that_were_reached_are_listed() -> None:
    @workflow
    class Flow:
        @step
        def one(self) -> int:
            return 1

        @step
        def two(self) -> None:
            raise KeyError("lost")

        @step
        def three(self) -> None: ...

    result = Flow().run({})  # type: ignore[attr-defined]
    assert shape(result) == [("one", "succeeded"), ("two", "failed")]
    failed = result.steps[1]
    assert result.status is WorkflowStatus.FAILED
    assert failed.error is result.error
    assert isinstance(failed.error, KeyError)
    assert (failed.attempts, failed.output) == (1, None)


@pytest.mark.parametrize(
    ("key", "expected", "trace"),
    [
        (
            "long",
            [("a", "succeeded"), ("b", "skipped"), ("c", "succeeded")],
            RouteDecision("a", "long", "c", ended=False),
        ),
        (
            "end",
            [("a", "succeeded"), ("b", "skipped"), ("c", "skipped")],
            RouteDecision("a", "end", None, ended=True),
        ),
    ],
)
def test_a_route_leads_on_or_ends_the_run(key: str, expected: Any, trace: RouteDecision) -> None:
    result = Routed().run({"key": key})  # type: ignore[attr-defined]
    assert result.status is WorkflowStatus.SUCCEEDED
    assert shape(result) == expected
    assert result.route_trace == [trace]
    assert (result.steps[0].route_key, result.steps[0].next_step) == (key, trace.next_step)
    skipped = result.steps[1]
    assert (skipped.skipped_reason, skipped.attempts, skipped.approval_required, skipped.started_at) == (
        "not reached because workflow ended",
        0,
        True,
        None,
    )


def test_steps_without_routes_go_on_with_the_next_declared_one() -> None:
    result = Routed().run({"key": "next"}, approval_handler=lambda request: True)  # type: ignore[attr-defined]
    assert shape(result) == [("a", "succeeded"), ("b", "succeeded"), ("c", "succeeded")]


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (5, "Step 'a' returned a non-string route key."),
        (None, "Step 'a' returned a non-string route key."),
        ("q", "Step 'a' returned unknown route key 'q'."),
    ],
)
def test_an_output_that_is_no_route_fails_the_step_and_is_kept(key: Any, message: str) -> None:
    result = Routed().run({"key": key})  # type: ignore[attr-defined]
    first = result.steps[0]
    assert (first.status, first.output, first.attempts, first.route_key) == (StepStatus.FAILED, key, 1, None)
    assert isinstance(first.error, RouteResolutionError)
    assert first.error is result.error
    assert str(first.error) == message
    assert result.route_trace == []
    assert [done.skipped_reason for done in result.steps[1:]] == ["not reached because workflow failed"] * 2


# Retries


def flaky(failures: int, **options: Any) -> Any:
    @workflow
    class Flow:
        state: list[int]

        @step(**options)
        def work(self) -> int:
            self.state.append(len(self.state))
            if len(self.state) <= failures:
                raise TimeoutError(len(self.state))
            return len(self.state)

    return Flow()


@pytest.mark.parametrize(
    ("options", "attempts", "status"),
    [
        ({"retries": 2, "retry_on": (TimeoutError,)}, 3, "succeeded"),
        ({"retries": 1, "retry_on": (TimeoutError,)}, 2, "failed"),
        ({"retries": 5}, 1, "failed"),
        ({"retries": 5, "retry_on": (ValueError,)}, 1, "failed"),
        ({"retries": 5, "retry_on": (OSError,)}, 3, "succeeded"),
        ({}, 1, "failed"),
    ],
)
def test_a_step_is_tried_again_for_the_exceptions_it_names(options: Any, attempts: int, status: str) -> None:
    state: list[int] = []
    result = flaky(2, **options).run(state)
    assert (result.steps[0].attempts, result.status.value) == (attempts, status)
    # What attempts that failed did to the state stays.
    assert state == list(range(attempts))


def test_a_step_inherits_what_it_does_not_say_and_may_say_none() -> None:
    flow = WorkflowDefinition("W", [], 3, (ValueError,), 1.0, 2.0, 5.0, 0.1)
    inherits = StepDefinition("a", "a", 0)
    assert resolve_retry_policy(flow, inherits) == RetryPolicy(3, (ValueError,), 1.0, 2.0, 5.0, 0.1)
    says = StepDefinition("a", "a", 0, 0, (), 0.0, retry_backoff=1.0, retry_jitter=0.0, retry_max_delay_s=1.0)
    assert resolve_retry_policy(flow, says) == RetryPolicy(0, (), 0.0, 1.0, 1.0, 0.0)
    policy = RetryPolicy(2, (OSError,), 0.0)
    assert [should_retry(policy, TimeoutError(), attempt) for attempt in (1, 2, 3)] == [True, True, False]
    assert not should_retry(RetryPolicy(2, (), 0.0), TimeoutError(), 1)

    @workflow(retries=2, retry_on=(TimeoutError,))
    class Flow:
        attempts = 0

        @step
        def work(self) -> None:
            self.attempts += 1
            raise TimeoutError

    assert Flow().run({}).steps[0].attempts == 3  # type: ignore[attr-defined]


def test_pauses_are_slept_between_attempts_only(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(retry_module.time, "sleep", slept.append)
    result = flaky(9, retries=2, retry_on=(TimeoutError,), retry_delay=0.25).run([])
    assert (result.steps[0].attempts, slept) == (3, [0.25, 0.25])
    sleep_for_retry(0)
    assert len(slept) == 2


def test_pauses_may_grow_up_to_a_limit_and_vary(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(retry_module.time, "sleep", slept.append)
    options: Any = {"retries": 4, "retry_on": (TimeoutError,), "retry_delay": 1.0}
    flaky(9, **options, retry_backoff=2.0, retry_max_delay_s=5.0).run([])
    assert slept == [1.0, 2.0, 4.0, 5.0]
    slept.clear()
    flaky(9, **options, retry_jitter=0.5).run([])
    assert all(0.5 <= pause <= 1.5 for pause in slept)
    assert len(set(slept)) == 4
    assert RetryPolicy(5, (), 1.0, 10.0).delay_after(10_000) == 10.0**64


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_is_no_exception_leaves_the_run_at_once(error: type[BaseException]) -> None:
    seen = Seen()

    @workflow
    class Flow:
        @step(retries=3, retry_on=(BaseException,))
        def stop(self) -> None:
            raise error

    with pytest.raises(error):
        Flow().run({}, hooks=[seen])  # type: ignore[attr-defined]
    assert seen.told == [("WorkflowStarted", "Flow"), ("StepStarted", "stop")]


def test_a_step_may_raise_stop_iteration() -> None:
    @workflow
    class Flow:
        @step
        def odd(self) -> None:
            next(iter(()))

    assert isinstance(Flow().run({}).error, StopIteration)  # type: ignore[attr-defined]


def test_a_coroutine_that_a_plain_step_returns_is_its_output() -> None:
    async def later() -> None: ...

    @workflow
    class Flow:
        @step
        def odd(self) -> Any:
            return later()

    output = Flow().run({}).steps[0].output  # type: ignore[attr-defined]
    assert output.__name__ == "later"
    output.close()


# raise_on_failure


def test_a_failed_run_raises_if_asked_to_with_its_result() -> None:
    seen = Seen()
    with pytest.raises(WorkflowExecutionError) as caught:
        flaky(9, retries=1, retry_on=(TimeoutError,)).run([], raise_on_failure=True, hooks=[seen])
    assert str(caught.value) == "Workflow 'Flow' failed at step 'work' after 2 attempt(s) due to TimeoutError."
    result = caught.value.result
    assert result is not None
    assert (result.status, caught.value.__cause__) == (WorkflowStatus.FAILED, result.error)
    assert seen.told[-1] == ("WorkflowFinished", "Flow")
    assert seen.events[-1].result is result
    with pytest.raises(WorkflowExecutionError) as caught:
        Linear().run(Order("ord_1"), raise_on_failure=True, hooks=[Seen("WorkflowStartedEvent")])  # type: ignore[attr-defined]
    assert str(caught.value) == "Workflow 'Linear' failed outside step execution due to HookExecutionError."


# Beyond the original: one object for several runs


def test_one_object_serves_concurrent_runs_each_with_its_own_state() -> None:
    meet = threading.Barrier(8)

    @workflow
    class Flow:
        state: dict[str, Any]

        @step
        def begin(self) -> None:
            meet.wait(10)
            self.state["mine"] = self.state["number"]

        @step
        def end(self) -> Any:
            meet.wait(10)
            return self.state["mine"]

    flow = Flow()
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda number: flow.run({"number": number}), range(8)))  # type: ignore[attr-defined]
    assert [(done.state["mine"], done.steps[1].output) for done in results] == [(n, n) for n in range(8)]


def test_a_run_inside_of_a_run_of_the_same_object_leaves_the_outer_state_alone() -> None:
    @workflow
    class Flow:
        state: int

        @step
        def count(self, context: RunContext) -> int:
            if self.state > 0:
                context.run_child(self, self.state - 1)
            return self.state

    result = Flow().run(2)  # type: ignore[attr-defined]
    assert (result.steps[0].output, result.steps[0].child_workflows[0].steps[0].output) == (2, 1)


def test_a_thread_of_the_authors_own_sees_the_state_of_the_run_that_began_last() -> None:
    @workflow
    class Flow:
        state: str

        @step
        def look(self) -> list[str]:
            seen: list[str] = []
            thread = threading.Thread(target=lambda: seen.append(self.state))
            thread.start()
            thread.join()
            return seen

    assert Flow().run("here").steps[0].output == ["here"]  # type: ignore[attr-defined]


def test_a_class_may_have_a_state_of_its_own_making() -> None:
    @workflow
    class WithProperty:
        def __init__(self) -> None:
            self.given: Any = None

        @property
        def state(self) -> Any:
            return self.given

        @state.setter
        def state(self, value: Any) -> None:
            self.given = {"kept": value}

        @step
        def look(self) -> Any:
            return self.state

    @workflow
    class WithSlots:
        __slots__ = ("state",)

        @step
        def look(self) -> Any:
            return self.state  # type: ignore[attr-defined]

    @workflow
    class WithDefault:
        state: Any = "default"

        @step
        def look(self) -> Any:
            return self.state

    assert WithProperty().run(1).steps[0].output == {"kept": 1}  # type: ignore[attr-defined]
    assert WithSlots().run(1).steps[0].output == 1  # type: ignore[attr-defined]
    flow = WithDefault()
    assert (WithDefault.state, flow.state) == ("default", "default")
    assert (flow.run(1).steps[0].output, flow.state) == (1, 1)  # type: ignore[attr-defined]
    del flow.state
    assert flow.state == "default"
    with pytest.raises(AttributeError, match="no run has begun"):
        _ = Linear().state
    with pytest.raises(AttributeError):
        _ = Linear.state
    with pytest.raises(AttributeError):
        del Linear().state


# JSON


def test_results_can_be_copied_pickled_and_written_as_json() -> None:
    result = Routed().run({"key": "next"}, approval_handler=lambda request: True)  # type: ignore[attr-defined]
    assert pickle.loads(pickle.dumps(result)) == result
    assert asdict(result)["steps"][1]["approval_decision"] == {"approved": True, "reason": None, "metadata": {}}
    assert result_from_dict(result.to_dict()) == result
    failed = Routed().run({"key": "q"})  # type: ignore[attr-defined]
    told = failed.to_dict()
    assert told["error"] == {"type": "RouteResolutionError", "message": "Step 'a' returned unknown route key 'q'."}
    again = result_from_dict(told)
    assert isinstance(again.error, StepExecutionError)
    assert error_of(again) == (
        "StepExecutionError",
        "RouteResolutionError: Step 'a' returned unknown route key 'q'.",
    )
    assert again.to_dict() == told
    assert step_of(again, "b").skipped_reason == "not reached because workflow failed"


# Time limits


def test_a_step_that_takes_too_long_fails_and_may_be_tried_again() -> None:
    go_on = threading.Event()
    try:

        @workflow
        class Flow:
            state: list[int]

            @step(timeout_s=0.05, retries=1, retry_on=(TimeoutError,))
            def slow(self) -> str:
                self.state.append(1)
                if len(self.state) == 1:
                    go_on.wait(10)
                return "in time"

        result = Flow().run([])  # type: ignore[attr-defined]
        assert (result.status.value, result.steps[0].attempts, result.steps[0].output) == ("succeeded", 2, "in time")
        assert error_of(flaky_slow(go_on).run([])) == ("TimeoutError", "Step 'slow' did not finish in 0.02 s.")
    finally:
        go_on.set()


def flaky_slow(go_on: threading.Event) -> Any:
    @workflow
    class Flow:
        @step(timeout_s=0.02)
        def slow(self) -> None:
            go_on.wait(10)

    return Flow()


def test_a_run_that_takes_too_long_fails_where_it_is_and_tries_nothing_again() -> None:
    go_on = threading.Event()
    seen = Seen()
    try:

        @workflow(timeout_s=0.1, retries=5, retry_on=(TimeoutError,))
        class Flow:
            @step
            def quick(self) -> int:
                return 1

            @step
            def slow(self) -> None:
                go_on.wait(10)

        result = Flow().run({}, hooks=[seen])  # type: ignore[attr-defined]
    finally:
        go_on.set()
    assert shape(result) == [("quick", "succeeded"), ("slow", "failed")]
    assert isinstance(result.error, TimeoutError)
    assert (str(result.error), result.steps[1].attempts) == ("Workflow 'Flow' did not finish in 0.1 s.", 1)
    assert seen.told[-1] == ("WorkflowFinished", "Flow")


def test_what_a_step_with_a_limit_raises_is_its_error() -> None:
    @workflow
    class Flow:
        @step(timeout_s=5)
        def fails(self) -> None:
            raise TimeoutError("its own")

    assert error_of(Flow().run({})) == ("TimeoutError", "its own")  # type: ignore[attr-defined]
