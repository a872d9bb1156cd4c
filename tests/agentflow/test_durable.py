"""Step classes as durable runs: what is recorded, and what a run that is taken up again goes on with."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from pyflue.journal import Journal, RunFilter, RunStatus
from tests.engine.durable import asked, data_of, ended, error_of, result_of, types_of, until
from tests.promises import promise

from .projects import Project, start
from .support import without_times


@pytest.fixture
def signals(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A module that workflow files import: what they have done, and how often they may fail or must stop."""
    module: Any = ModuleType("signals")
    module.done = []
    module.stop_at = set()
    module.reached = asyncio.Event()

    async def here(name: str) -> None:
        """Note that a step has begun; stand still in it if that is asked for."""
        module.done.append(name)
        if name in module.stop_at:
            module.stop_at.discard(name)
            module.reached.set()
            await asyncio.Event().wait()

    module.here = here
    monkeypatch.setitem(sys.modules, "signals", module)
    return module


FLOW = """
import signals
from dataclasses import dataclass, field

@dataclass
class FlowState:
    number: int
    seen: list[str] = field(default_factory=list)

@workflow
class FlowWorkflow:
    @step
    async def one(self):
        await signals.here("one")
        self.state.seen.append("one")
        return {"n": self.state.number}

    @step(routes={"on": "three", "off": END})
    async def two(self):
        await signals.here("two")
        self.state.seen.append("two")
        return "on"

    @step
    def skipped(self): ...

    @step
    async def three(self, context: RunContext):
        await signals.here("three")
        self.state.seen.append("three")
        context.ctx.log.info("in three")
        return [context.run_id == context.ctx.id, context.attempt, context.step_name]
"""


async def test_a_run_records_each_step_and_results_in_state_and_steps(
    project: Project, journal: Journal, signals: Any
) -> None:
    project.write("workflows/flow.py", FLOW)
    run = await project.run(journal, "flow", {"number": 7})
    result = result_of(run)
    assert result["run_id"] == run.run_id
    assert (result["workflow_name"], result["status"], result["error"]) == ("FlowWorkflow", "succeeded", None)
    assert result["state"] == {"number": 7, "seen": ["one", "two", "three"]}
    assert [(s["step_name"], s["status"], s["attempts"], s["output"]) for s in result["steps"]] == [
        ("one", "succeeded", 1, {"n": 7}),
        ("two", "succeeded", 1, "on"),
        ("skipped", "skipped", 0, None),
        ("three", "succeeded", 1, [True, 1, "three"]),
    ]
    assert result["route_trace"] == [{"step_name": "two", "route_key": "on", "next_step": "three", "ended": False}]
    assert [event["step"] for event in await data_of(journal, run.run_id, "step_end")] == ["one", "two", "three"]
    assert await data_of(journal, run.run_id, "step_finished") == [
        {"workflow_name": "FlowWorkflow", "step_name": "one", "status": "succeeded", "attempts": 1},
        {
            "workflow_name": "FlowWorkflow",
            "step_name": "two",
            "status": "succeeded",
            "attempts": 1,
            "route_key": "on",
            "next_step": "three",
        },
        {"workflow_name": "FlowWorkflow", "step_name": "three", "status": "succeeded", "attempts": 1},
    ]
    types = await types_of(journal, run.run_id)
    assert [types.count(kind) for kind in ("workflow_started", "step_started", "workflow_finished")] == [1, 3, 1]


@promise("agentflow.durable")
@pytest.mark.parametrize("stop_at", ["one", "two", "three"])
async def test_a_run_that_stopped_in_a_step_goes_on_there_with_the_right_state(
    project: Project, journal: Journal, signals: Any, stop_at: str
) -> None:
    project.write("workflows/flow.py", FLOW)
    whole = result_of(await project.run(journal, "flow", {"number": 7}))
    signals.done.clear()
    signals.stop_at.add(stop_at)
    async with project.engine(journal) as engine, asyncio.timeout(10):
        run_id = await start(engine, project.find("flow"), {"number": 7})
        await signals.reached.wait()
    async with project.engine(journal) as engine:
        run = await ended(engine, run_id)
    assert run.attempt == 2
    assert without_times(result_of(run)) == without_times(whole)
    assert [signals.done.count(name) for name in ("one", "two", "three")] == [
        2 if name == stop_at else 1 for name in ("one", "two", "three")
    ]
    # Nothing was told twice.
    types = await types_of(journal, run_id)
    assert [types.count(kind) for kind in ("workflow_started", "step_started", "step_finished")] == [1, 3, 3]
    assert "replay_drift" not in types


RETRIES = """
import signals

@workflow
class Flow:
    state: dict

    @step(retries=3, retry_on=(OSError,), retry_delay=0.001)
    async def flaky(self):
        self.state["tries"] = self.state.get("tries", 0) + 1
        await signals.here(f"try {self.state['tries']}")
        if self.state["tries"] < 3:
            raise TimeoutError("not yet")
        return self.state["tries"]
"""


@promise("agentflow.durable")
async def test_what_failed_attempts_did_to_the_state_survives_a_restart(
    project: Project, journal: Journal, signals: Any
) -> None:
    project.write("workflows/flow.py", RETRIES)
    signals.stop_at.add("try 2")
    async with project.engine(journal) as engine, asyncio.timeout(10):
        run_id = await start(engine, project.find("flow"))
        await signals.reached.wait()
    async with project.engine(journal) as engine:
        result = result_of(await ended(engine, run_id))
    assert (result["state"], result["steps"][0]["attempts"], result["steps"][0]["output"]) == ({"tries": 3}, 3, 3)
    assert signals.done == ["try 1", "try 2", "try 2", "try 3"]
    assert len(await data_of(journal, run_id, "step_retry")) == 2


async def test_a_step_that_fails_for_good_fails_the_run_with_its_exception(project: Project, journal: Journal) -> None:
    project.write(
        "workflows/flow.py",
        """
        @workflow(retries=1, retry_on=(LookupError,))
        class Flow:
            @step
            def bad(self):
                self.state["before"] = True
                raise KeyError("no such order")

            @step
            def after(self): ...
        """,
    )
    run = await project.run(journal, "flow", {})
    error = error_of(run)
    assert (error["type"], error["exception"], error["message"]) == ("exception", "KeyError", "'no such order'")
    assert error["where"].startswith("workflows/flow.py:")
    [told] = await data_of(journal, run.run_id, "workflow_finished")
    assert (told["status"], told["state"], told["steps"][0]["attempts"]) == ("failed", {"before": True}, 2)
    assert told["error"] == {"type": "KeyError", "message": "'no such order'"}


@promise("agentflow.durable")
async def test_a_retry_of_a_failed_run_begins_at_the_step_that_failed(
    project: Project, journal: Journal, signals: Any
) -> None:
    project.write(
        "workflows/flow.py",
        """
        import signals

        def hook(event):
            signals.done.append(type(event).__name__)

        @workflow(hooks=[hook])
        class Flow:
            state: dict

            @step
            async def one(self):
                await signals.here("one")
                self.state["one"] = True

            @step(retries=1, retry_on=(ValueError,))
            async def two(self):
                await signals.here("two")
                self.state["two"] = self.state.get("two", 0) + 1
                if signals.fails:
                    raise ValueError("not today")
                return self.state
        """,
    )
    signals.fails = True
    async with project.engine(journal) as engine:
        run_id = await start(engine, project.find("flow"))
        error_of(await ended(engine, run_id))
        [told] = await data_of(journal, run_id, "workflow_finished")
        assert (told["steps"][1]["attempts"], told["state"]) == (2, {"one": True, "two": 2})
        # It fails again, and is tried as often as the first time.
        again = await ended(engine, (await engine.retry(run_id)).run_id)
        [told] = await data_of(journal, again.run_id, "workflow_finished")
        assert (told["steps"][1]["attempts"], told["state"]) == (2, {"one": True, "two": 2})
        signals.fails = False
        signals.done.clear()
        result = result_of(await ended(engine, (await engine.retry(again.run_id)).run_id))
    assert (result["state"], result["steps"][1]["attempts"]) == ({"one": True, "two": 1}, 1)
    assert [name for name in signals.done if name in ("one", "two")] == ["two"]
    assert [name for name in signals.done if name.endswith("Event")] == ["StepFinishedEvent", "WorkflowFinishedEvent"]


async def test_a_run_forks_from_a_step_with_the_state_of_before_it(
    project: Project, journal: Journal, signals: Any
) -> None:
    project.write("workflows/flow.py", FLOW)
    async with project.engine(journal) as engine:
        run_id = await start(engine, project.find("flow"), {"number": 7})
        result_of(await ended(engine, run_id))
        signals.done.clear()
        forked = await ended(engine, (await engine.fork(run_id, from_step="three")).run_id)
    assert signals.done == ["three"]
    assert result_of(forked)["state"]["seen"] == ["one", "two", "three"]


async def test_a_failure_that_was_recorded_before_a_crash_is_told_in_full(
    project: Project, journal: Journal, signals: Any
) -> None:
    project.write(
        "workflows/flow.py",
        """
        import asyncio
        import signals

        async def hook(event):
            if isinstance(event, StepFinishedEvent) and event.result.status == "failed" and signals.stop_at:
                await signals.here("hook")

        @workflow(hooks=[hook], retries=1, retry_on=(ValueError,))
        class Flow:
            state: dict

            @step
            def bad(self):
                self.state["tries"] = self.state.get("tries", 0) + 1
                raise ValueError("no")
        """,
    )
    signals.stop_at.add("hook")
    async with project.engine(journal) as engine, asyncio.timeout(10):
        run_id = await start(engine, project.find("flow"))
        await signals.reached.wait()
    async with project.engine(journal) as engine:
        assert error_of(await ended(engine, run_id))["exception"] == "ValueError"
    [told] = await data_of(journal, run_id, "workflow_finished")
    assert (told["steps"][0]["attempts"], told["state"]) == (2, {"tries": 2})


async def test_an_output_or_a_state_that_is_no_json_fails_the_run(project: Project, journal: Journal) -> None:
    flow = "@workflow\nclass Flow:\n    state: dict[str, int]\n    @step\n    def only(self):\n        "
    project.write("workflows/output.py", flow + "return object()\n")
    assert error_of(await project.run(journal, "output"))["type"] == "not_serializable"
    project.write("workflows/state.py", flow + "self.state = {'a': 'text'}\n")
    assert error_of(await project.run(journal, "state"))["type"] == "result_invalid"


async def test_a_state_that_its_json_does_not_give_back_fails_the_run(project: Project, journal: Journal) -> None:
    project.write(
        "workflows/flow.py",
        """
        from pydantic import BaseModel, field_serializer

        class State(BaseModel):
            number: int

            @field_serializer("number")
            def words(self, number: int) -> str:
                return "seven"

        @workflow
        class Flow:
            state: State

            @step
            def only(self): ...
        """,
    )
    error = error_of(await project.run(journal, "flow", {"number": 7}))
    assert (error["type"], error["details"][0]["path"]) == ("result_invalid", "$.number")


async def test_the_payload_stays_as_it_came(project: Project, journal: Journal) -> None:
    flow = """
    @workflow
    class Flow:
        @step
        def only(self, context):
            self.state["list"].append(1)
            return [self.state, context.ctx.payload]
    """
    project.write("workflows/flow.py", flow)
    run = await project.run(journal, "flow", {"list": []})
    assert result_of(run)["steps"][0]["output"] == [{"list": [1]}, {"list": []}]


async def test_a_step_that_leaves_no_json_fails_with_its_own_error(project: Project, journal: Journal) -> None:
    flow = """
    @workflow
    class Flow:
        state: dict[str, int]

        @step
        def only(self):
            self.state["odd"] = "text"
            raise LookupError("its own")
    """
    project.write("workflows/flow.py", flow)
    run = await project.run(journal, "flow")
    assert error_of(run)["message"] == "its own"
    [told] = await data_of(journal, run.run_id, "workflow_finished")
    assert (told["state"], told["steps"][0]["attempts"]) == (None, 1)


async def test_plain_functions_that_return_coroutines_are_awaited(project: Project, journal: Journal) -> None:
    project.write(
        "workflows/flow.py",
        """
        async def later(*told):
            return "later"

        @workflow(hooks=[lambda event: later(event)])
        class Flow:
            @step
            def only(self):
                return later()
        """,
    )
    assert result_of(await project.run(journal, "flow"))["steps"][0]["output"] == "later"


async def test_a_step_has_the_context_of_its_run(project: Project, journal: Journal) -> None:
    project.write(
        "workflows/flow.py",
        """
        def double(n):
            return 2 * n

        @workflow
        class Flow:
            @step
            def blocks(self, context):
                return context.ctx.step("inner", double, 2)

            @step
            async def awaits(self, context):
                return [await context.ctx.step("inner", double, 3), context.ctx.step_id]
        """,
    )
    run = await project.run(journal, "flow")
    assert [done["output"] for done in result_of(run)["steps"]] == [4, [6, f"{run.run_id}/awaits"]]


GATED = """
from dataclasses import dataclass

@dataclass
class FlowState:
    amount: float

@workflow
class FlowWorkflow:
    @step(requires_approval=True, approval_message="Pay?", approval_metadata={"limit": 100}, approval_timeout_s=LIMIT)
    def pay(self):
        return "paid"
"""


@promise("agentflow.approval")
async def test_a_gated_step_waits_for_the_decision_across_restarts(project: Project, journal: Journal) -> None:
    project.write("workflows/flow.py", GATED.replace("LIMIT", "None"))
    async with project.engine(journal) as engine:
        run_id = await start(engine, project.find("flow"), {"amount": 5})
        approval = await asked(journal, run_id)
        assert (approval.wait.name, approval.workflow) == ("pay", "flow")
        assert approval.to_dict()["request"] == {
            "workflow_name": "FlowWorkflow",
            "step_name": "pay",
            "message": "Pay?",
            "metadata": {"limit": 100},
            "state": {"amount": 5.0},
        }
        await until(journal, run_id, RunStatus.WAITING)
    async with project.engine(journal) as engine:
        await engine.decide(approval.wait.wait_id, approved=True, by="Ada", reason="fine")
        run = await ended(engine, run_id)
    [pay] = result_of(run)["steps"]
    decision = pay["approval_decision"]
    assert (decision["approved"], decision["reason"], decision["metadata"]["by"]) == (True, "fine", "Ada")
    assert (pay["output"], pay["approval_required"], pay["attempts"]) == ("paid", True, 1)


async def test_a_denied_or_expired_approval_fails_the_run(project: Project, journal: Journal) -> None:
    project.write("workflows/flow.py", GATED.replace("LIMIT", "None"))
    async with project.engine(journal) as engine:
        run_id = await start(engine, project.find("flow"), {"amount": 5})
        approval = await asked(journal, run_id)
        await engine.decide(approval.wait.wait_id, approved=False, by="Ada", reason="too much")
        error = error_of(await ended(engine, run_id))
    assert (error["exception"], error["message"]) == (
        "pyflue.agentflow.exceptions.ApprovalRequiredError",
        "Approval denied for step 'pay'.",
    )
    [told] = await data_of(journal, run_id, "workflow_finished")
    assert told["steps"][0]["approval_decision"]["reason"] == "too much"
    project.write("workflows/late.py", GATED.replace("LIMIT", "0.01"))
    error = error_of(await project.run(journal, "late", {"amount": 5}))
    assert error["message"] == "Step 'pay' was not approved within 0.01 s."


async def test_a_state_too_large_to_be_shown_is_left_out_of_the_request(project: Project, journal: Journal) -> None:
    flow = "@workflow\nclass Flow:\n    @step(requires_approval=True)\n    def only(self): ...\n"
    project.write("workflows/flow.py", flow)
    async with project.engine(journal) as engine:
        run_id = await start(engine, project.find("flow"), {"text": "x" * 70_000})
        approval = await asked(journal, run_id)
        assert "state" not in approval.to_dict()["request"]


async def test_steps_and_runs_have_time_limits(project: Project, journal: Journal) -> None:
    flow = """
    import asyncio
    @workflow(%s)
    class Flow:
        @step(%s)
        async def slow(self):
            await asyncio.Event().wait()
    """
    project.write("workflows/a_step.py", flow % ("", "timeout_s=0.02, retries=1, retry_on=(TimeoutError,)"))
    run = await project.run(journal, "a_step")
    assert error_of(run)["message"] == "Step 'slow' did not finish in 0.02 s."
    assert len(await data_of(journal, run.run_id, "step_retry")) == 1
    project.write("workflows/a_run.py", flow % ("timeout_s=0.05", "retries=9, retry_on=(TimeoutError,)"))
    run = await project.run(journal, "a_run")
    assert error_of(run)["message"] == "Workflow 'Flow' did not finish in 0.05 s."
    assert await data_of(journal, run.run_id, "step_retry") == []
    project.write(
        "workflows/asks.py",
        "@workflow(timeout_s=0.05)\nclass Flow:\n    @step(requires_approval=True)\n    def only(self): ...\n",
    )
    error = error_of(await project.run(journal, "asks"))
    assert error["message"] == "Workflow 'Flow' did not finish in 0.05 s."


async def test_hooks_of_the_class_are_called_once_and_recorded(
    project: Project, journal: Journal, signals: Any
) -> None:
    hooks = """
def plain(event):
    signals.done.append(type(event).__name__)

async def awaits(event):
    signals.done.append("async")

@workflow(hooks=[plain, awaits])
"""
    project.write("workflows/flow.py", FLOW.replace("@workflow\n", hooks))
    signals.stop_at.add("three")
    async with project.engine(journal) as engine, asyncio.timeout(10):
        run_id = await start(engine, project.find("flow"), {"number": 7})
        await signals.reached.wait()
    async with project.engine(journal) as engine:
        result_of(await ended(engine, run_id))
    told = [name for name in signals.done if name.endswith("Event")]
    expected = ["WorkflowStartedEvent", *["StepStartedEvent", "StepFinishedEvent"] * 3, "WorkflowFinishedEvent"]
    assert told == expected
    assert signals.done.count("async") == len(expected)
    steps = [data["step"] for data in await data_of(journal, run_id, "step_end")]
    assert [key for key in steps if key.startswith("hook plain: StepStarted")] == [
        "hook plain: StepStartedEvent",
        "hook plain: StepStartedEvent#2",
        "hook plain: StepStartedEvent#3",
    ]


async def test_an_object_named_in_the_file_is_copied_for_each_run(project: Project, journal: Journal) -> None:
    project.write(
        "workflows/flow.py",
        """
        @workflow
        class Flow:
            def __init__(self, limit):
                self.limit = limit

            @step
            def only(self):
                self.limit += 1
                return self.limit

        workflow = Flow(10)
        """,
    )
    async with project.engine(journal) as engine:
        workflow = project.find("flow")
        for _ in range(2):
            run = await ended(engine, await start(engine, workflow))
            assert result_of(run)["steps"][0]["output"] == 11


# Children

CHILDREN = """
from dataclasses import dataclass
import signals

@dataclass
class ParentState:
    amount: float

@dataclass
class ChildState:
    amount: float
    paid: bool = False

@workflow
class ChildWorkflow:
    @step(requires_approval=True)
    async def pay(self):
        await signals.here("pay")
        if self.state.amount < 0:
            raise ValueError("less than nothing")
        self.state.paid = True
        return "paid"

@workflow
class ParentWorkflow:
    @step
    DEF go(self, context):
        signals.done.append("go")
        child = CALL(ChildWorkflow(), ChildState(self.state.amount), fail_parent_on_failure=FAIL)
        return [child.status.value, child.state.paid, [s.step_name + " " + s.status.value for s in child.steps]]

workflow = ParentWorkflow
"""
PLAIN = CHILDREN.replace("DEF", "def").replace("CALL", "context.run_child")
AWAITED = CHILDREN.replace("DEF", "async def").replace("CALL", "await context.arun_child")


@promise("agentflow.child")
@pytest.mark.parametrize("text", [PLAIN, AWAITED], ids=["plain", "async"])
async def test_a_gated_child_is_a_run_of_its_own_that_its_parent_waits_for(
    project: Project, journal: Journal, signals: Any, text: str
) -> None:
    project.write("workflows/flow.py", text.replace("FAIL", "True"))
    async with project.engine(journal) as engine:
        run_id = await start(engine, project.find("flow"), {"amount": 5})
        await until(journal, run_id, RunStatus.WAITING)
        [child] = (await journal.runs(RunFilter(parent_run_id=run_id))).runs
        approval = await asked(journal, child.run_id)
        assert (child.workflow, child.kind) == ("flow", "agentflow")
    async with project.engine(journal) as engine:
        await engine.decide(approval.wait.wait_id, approved=True, by="Ada")
        run = await ended(engine, run_id)
    [go] = result_of(run)["steps"]
    assert go["output"] == ["succeeded", True, ["pay succeeded"]]
    [told] = go["child_workflows"]
    assert (told["run_id"], told["workflow_name"], told["state"]) == (
        child.run_id,
        "ChildWorkflow",
        {"amount": 5.0, "paid": True},
    )
    assert signals.done.count("pay") == 1


@pytest.mark.parametrize("text", [PLAIN, AWAITED], ids=["plain", "async"])
async def test_a_failed_child_run_is_nested_with_its_steps(
    project: Project, journal: Journal, signals: Any, text: str
) -> None:
    text = text.replace("requires_approval=True", "retries=0")
    project.write("workflows/caught.py", text.replace("FAIL", "False"))
    run = await project.run(journal, "caught", {"amount": -1})
    [go] = result_of(run)["steps"]
    assert go["output"] == ["failed", False, ["pay failed"]]
    assert go["child_workflows"][0]["error"]["type"] == "RunFailed"
    project.write("workflows/raised.py", text.replace("FAIL", "True"))
    error = error_of(await project.run(journal, "raised", {"amount": -1}))
    assert (error["exception"], error["message"]) == (
        "pyflue.agentflow.exceptions.ChildWorkflowExecutionError",
        "Child workflow 'ChildWorkflow' failed while running parent step 'go'.",
    )


async def test_a_failed_child_run_that_left_too_much_is_nested_without_its_steps(
    project: Project, journal: Journal, signals: Any
) -> None:
    text = PLAIN.replace("requires_approval=True", "retries=0").replace("FAIL", "False")
    text = text.replace("raise ValueError", "self.state.paid = 'x' * 300_000; raise ValueError")
    project.write("workflows/flow.py", text.replace("paid: bool = False", "paid: object = False"))
    run = await project.run(journal, "flow", {"amount": -1})
    assert result_of(run)["steps"][0]["output"] == ["failed", False, []]


@promise("agentflow.child")
async def test_nobody_from_outside_starts_a_class_that_is_kept_for_the_steps(
    project: Project, journal: Journal, signals: Any
) -> None:
    project.write("workflows/flow.py", PLAIN.replace("FAIL", "True"))
    project.write("workflows/other.py", "async def run(ctx):\n    return await ctx.call('flow', ctx.payload)\n")
    payload = {"$workflow": "ChildWorkflow", "$state": {"amount": 5}}
    error = error_of(await project.run(journal, "flow", payload))
    assert (error["type"], error["details"][0]["message"]) == (
        "payload_invalid",
        "Only runs of this workflow start its other classes",
    )
    assert error_of(await project.run(journal, "other", payload))["type"] == "run_failed"
    assert signals.done == []
    from pyflue.errors import PayloadInvalid

    for unknown in ("Nothing", 5, "ParentState"):
        with pytest.raises(PayloadInvalid):
            project.find("flow").parse({"$workflow": unknown, "$state": {}})


@promise("agentflow.child")
async def test_a_state_that_looks_like_a_child_is_only_a_state(project: Project, journal: Journal) -> None:
    project.write(
        "workflows/flow.py",
        """
        @workflow
        class Kept:
            @step
            def only(self):
                raise AssertionError("nobody may start this")

        @workflow
        class Flow:
            @step
            def go(self, context):
                inner = self.state.get("inner")
                return None if inner is None else context.run_child(Flow(), inner).state

        workflow = Flow
        """,
    )
    inner = {"$workflow": "Kept", "$state": {}}
    assert result_of(await project.run(journal, "flow", {"inner": inner}))["steps"][0]["output"] == inner


async def test_a_child_from_another_file_is_a_run_of_that_file(project: Project, journal: Journal) -> None:
    project.write(
        "workflows/shop/pay.py",
        """
        from dataclasses import dataclass

        @dataclass
        class PayState:
            amount: float

        @workflow
        class PayWorkflow:
            @step
            def pay(self):
                self.state.amount *= 2
                return self.state.amount
        """,
    )
    project.write(
        "workflows/flow.py",
        """
        from workflows.shop.pay import PayState, PayWorkflow

        @workflow
        class Flow:
            @step
            def go(self, context):
                child = context.run_child(PayWorkflow(), PayState(5))
                return [child.run_id.split(":")[1], type(child.state).__name__, child.state.amount]
        """,
    )
    run = await project.run(journal, "flow")
    assert result_of(run)["steps"][0]["output"] == ["shop.pay", "PayState", 10.0]


async def test_a_child_that_no_file_is_about_runs_inside_of_its_parents_step(
    project: Project, journal: Journal, signals: Any
) -> None:
    project.write(
        "workflows/flow.py",
        """
        import signals

        def limited(limit):
            @workflow
            class Inner:
                state: dict

                def __init__(self):
                    self.limit = limit

                @step(requires_approval=True)
                async def one(self):
                    await signals.here("inner one")
                    self.state["limit"] = self.limit
                    return 1

                @step
                async def two(self):
                    await signals.here("inner two")
                    return 2
            return Inner()

        async def approves(request):
            signals.done.append("asked")
            return ApprovalDecision(request.state["n"] == 1, "because")

        @workflow
        class Flow:
            @step
            async def go(self, context):
                child = await context.arun_child(limited(9), {"n": 1}, approval_handler=approves)
                return child.state

            @step
            def plain(self, context):
                child = context.run_child(limited(9), {"n": 2}, approval_handler=lambda r: True)
                return [s.output for s in child.steps]
        """,
    )
    signals.stop_at.add("inner two")
    async with project.engine(journal) as engine, asyncio.timeout(10):
        run_id = await start(engine, project.find("flow"))
        await signals.reached.wait()
    async with project.engine(journal) as engine:
        run = await ended(engine, run_id)
    go, plain = result_of(run)["steps"]
    assert go["output"] == {"n": 1, "limit": 9}
    assert go["child_workflows"][0]["steps"][0]["approval_decision"]["reason"] == "because"
    assert plain["output"] == [1, 2]
    # What the child had recorded before the restart was not done again.
    assert signals.done == ["asked", "inner one", "inner two", "inner two", "inner one", "inner two"]


async def test_a_child_with_the_wrong_state_is_refused(project: Project, journal: Journal, signals: Any) -> None:
    text = PLAIN.replace("FAIL", "True").replace("ChildState(self.state.amount)", "{'amount': 'much'}")
    project.write("workflows/flow.py", text)
    error = error_of(await project.run(journal, "flow", {"amount": 5}))
    assert error["exception"] == "pyflue.agentflow.exceptions.StateValidationError"
    assert error["message"].startswith("The state of child workflow 'ChildWorkflow' does not fit its type: $.amount: ")


async def test_a_workflow_may_call_itself(project: Project, journal: Journal) -> None:
    project.write(
        "workflows/flow.py",
        """
        @workflow
        class Flow:
            @step
            def count(self, context):
                if self.state["n"] == 0:
                    return 0
                return 1 + context.run_child(Flow(), {"n": self.state["n"] - 1}).steps[0].output
        """,
    )
    assert result_of(await project.run(journal, "flow", {"n": 2}))["steps"][0]["output"] == 2
