"""`arun` and `aresume`: async steps, hooks and handlers; time limits; cancellation."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from pyflue.agentflow import ApprovalDecision, RunContext, WorkflowDefinitionError, step, workflow
from pyflue.agentflow.models import WorkflowStatus

from .support import Seen, error_of, shape


@workflow
class Mixed:
    state: dict[str, Any]

    @step
    def plain(self) -> str:
        self.state["thread"] = threading.current_thread().name
        return "plain"

    @step(retries=1, retry_on=(ValueError,), retry_delay=0.001)
    async def awaits(self, context: RunContext) -> str:
        await asyncio.sleep(0)
        if context.attempt == 1:
            raise ValueError
        return f"awaited on {threading.current_thread().name}"

    @step(requires_approval=True, routes={"on": "last"})
    async def gated(self) -> str:
        return "on"

    @step
    def last(self) -> Any:
        async def later() -> str:
            return "a coroutine of a plain function"

        return later()


async def test_async_and_plain_steps_run_in_turn() -> None:
    async def handler(request: Any) -> ApprovalDecision:
        await asyncio.sleep(0)
        return ApprovalDecision(approved=True, reason="fine")

    seen: list[str] = []

    async def hook(event: Any) -> None:
        await asyncio.sleep(0)
        seen.append(type(event).__name__)

    flow = Mixed()
    result = await flow.arun({}, approval_handler=handler, hooks=[hook])  # type: ignore[attr-defined]
    assert result.status is WorkflowStatus.SUCCEEDED, result.error
    assert [done.output for done in result.steps] == [
        "plain",
        "awaited on MainThread",
        "on",
        "a coroutine of a plain function",
    ]
    assert [done.attempts for done in result.steps] == [1, 2, 1, 1]
    assert result.state == {"thread": "agentflow Mixed.plain"}
    assert result.steps[2].approval_decision == ApprovalDecision(approved=True, reason="fine")
    assert (len(seen), seen[0], seen[-1]) == (10, "WorkflowStartedEvent", "WorkflowFinishedEvent")
    # Plain hooks and handlers do as well.
    assert (await flow.arun({}, approval_handler=lambda request: True)).status is WorkflowStatus.SUCCEEDED  # type: ignore[attr-defined]


async def test_a_paused_run_goes_on_on_the_event_loop() -> None:
    paused = await Mixed().arun({}, pause_on_approval=True)  # type: ignore[attr-defined]
    assert paused.status is WorkflowStatus.PAUSED
    result = await Mixed().aresume(paused, True)  # type: ignore[attr-defined]
    assert (result.status, result.run_id) == (WorkflowStatus.SUCCEEDED, paused.run_id)
    refused = await Mixed().aresume(result, True)  # type: ignore[attr-defined]
    assert error_of(refused) == ("ApprovalResumeError", "Only paused workflow results can be resumed.")


def test_a_run_without_a_loop_refuses_async_steps_and_says_what_to_await() -> None:
    with pytest.raises(WorkflowDefinitionError) as caught:
        Mixed().run({})  # type: ignore[attr-defined]
    assert str(caught.value) == "Step methods must be synchronous functions."
    assert caught.value.__notes__ == ["Await `arun` (or `aresume`) for workflows with async steps."]


async def test_concurrent_runs_of_one_object_do_not_see_each_other() -> None:
    meet = asyncio.Barrier(20)

    @workflow
    class Flow:
        state: list[int]

        @step
        async def one(self) -> None:
            async with asyncio.timeout(5):
                await meet.wait()
            self.state.append(1)

        @step
        def two(self) -> list[int]:
            return self.state

    flow = Flow()
    results = await asyncio.gather(*(flow.arun([number]) for number in range(20)))  # type: ignore[attr-defined]
    assert [done.steps[1].output for done in results] == [[number, 1] for number in range(20)]


async def test_async_steps_and_runs_have_time_limits() -> None:
    @workflow
    class Slow:
        state: list[int]

        @step(timeout_s=0.02, retries=1, retry_on=(TimeoutError,))
        async def slow(self) -> str:
            self.state.append(1)
            if len(self.state) == 1:
                await asyncio.Event().wait()
            return "in time"

    result = await Slow().arun([])  # type: ignore[attr-defined]
    assert (result.steps[0].output, result.steps[0].attempts) == ("in time", 2)

    @workflow(timeout_s=0.05, retries=9, retry_on=(TimeoutError,))
    class Late:
        @step
        async def slow(self) -> None:
            await asyncio.Event().wait()

    assert error_of(await Late().arun({})) == ("WorkflowTimeout", "Workflow 'Late' did not finish in 0.05 s.")  # type: ignore[attr-defined]

    @workflow
    class Own:
        @step(timeout_s=5)
        async def fails(self) -> None:
            raise TimeoutError("its own")

    assert error_of(await Own().arun({})) == ("TimeoutError", "its own")  # type: ignore[attr-defined]


async def test_an_async_handler_has_a_time_limit() -> None:
    async def never(request: Any) -> bool:
        await asyncio.Event().wait()
        return True

    @workflow
    class Flow:
        @step(requires_approval=True, approval_timeout_s=0.02)
        def gated(self) -> None: ...

    result = await Flow().arun({}, approval_handler=never)  # type: ignore[attr-defined]
    assert error_of(result) == ("TimeoutError", "Step 'gated' was not approved within 0.02 s.")

    @workflow(timeout_s=0.02)
    class Whole:
        @step(requires_approval=True)
        def gated(self) -> None: ...

    result = await Whole().arun({}, approval_handler=never)  # type: ignore[attr-defined]
    assert error_of(result) == ("WorkflowTimeout", "Workflow 'Whole' did not finish in 0.02 s.")

    async def fails(request: Any) -> bool:
        raise TimeoutError("its own")

    assert error_of(await Flow().arun({}, approval_handler=fails)) == ("TimeoutError", "its own")  # type: ignore[attr-defined]


async def test_a_cancelled_run_tells_its_end_and_is_cancelled() -> None:
    reached = asyncio.Event()
    seen = Seen()

    @workflow
    class Flow:
        @step
        def one(self) -> int:
            return 1

        @step
        async def two(self) -> None:
            reached.set()
            await asyncio.Event().wait()

        @step
        async def three(self) -> None: ...

    task = asyncio.ensure_future(Flow().arun({}, hooks=[seen]))  # type: ignore[attr-defined]
    async with asyncio.timeout(5):
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert seen.told[-2:] == [("StepFinished", "two"), ("WorkflowFinished", "Flow")]
    result = seen.events[-1].result
    assert (result.status, shape(result)) == (WorkflowStatus.FAILED, [("one", "succeeded"), ("two", "failed")])
    assert isinstance(result.error, asyncio.CancelledError)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_is_no_exception_leaves_an_async_run_too(error: type[BaseException]) -> None:
    @workflow
    class Flow:
        @step
        def stop(self) -> None:
            raise error

    with pytest.raises(error):
        asyncio.run(Flow().arun({}))  # type: ignore[attr-defined]


async def test_children_may_be_async_from_async_and_from_plain_steps() -> None:
    @workflow
    class Child:
        state: dict[str, Any]

        @step
        async def work(self) -> str:
            return self.state["from"]

    @workflow
    class PlainChild:
        @step
        def work(self) -> str:
            return "plain"

    @workflow
    class Parent:
        @step
        async def awaits(self, context: RunContext) -> Any:
            return (await context.arun_child(Child(), {"from": "async"})).steps[0].output

        @step
        def blocks(self, context: RunContext) -> Any:
            return context.run_child(Child(), {"from": "thread"}).steps[0].output

        @step
        async def does_not_wait(self, context: RunContext) -> Any:
            return context.run_child(PlainChild(), {}).steps[0].output

    result = await Parent().arun({})  # type: ignore[attr-defined]
    assert [done.output for done in result.steps] == ["async", "thread", "plain"], result.error
    assert [child.workflow_name for done in result.steps for child in done.child_workflows] == [
        "Child",
        "Child",
        "PlainChild",
    ]
