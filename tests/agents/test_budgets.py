"""Budgets: how much model work there may be, counted over subagents, sessions and restarts."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from pyflue import codec
from pyflue.agents import Budget, ToolContext, tool
from pyflue.agents.models import ScriptedModel
from pyflue.agents.models.port import ModelRequest
from pyflue.errors import BudgetExceeded
from pyflue.journal import Run, StepStatus
from tests.engine.durable import Context, ended, error_of, result_of
from tests.promises import promise

from .agent_runs import Asked, Spoken, Stage, calls, dense
from .test_cancel import processes_with

#: What each call reports.
USAGE = {"input_tokens": 900, "output_tokens": 100}


def thousand(answer: Any) -> dict[str, Any]:
    return {**({"text": answer} if isinstance(answer, str) else answer), "usage": USAGE}


def spender(**options: Any) -> Asked:
    """A model that calls a tool for ever, at 1,000 tokens a call."""
    return Asked(lambda request: thousand(calls(("exists", {"path": "a"}))), **options)


async def check_fourth_is_recorded(stage: Stage, run: Run, model: Asked, whose: str) -> None:
    error = error_of(run)
    assert (error["type"], error["message"]) == (
        "budget_exceeded", f"The budget max_tokens=3500 of {whose} is used up (4000).",
    )  # fmt: skip
    assert error["details"] == {"budget": "max_tokens", "limit": 3500, "used": 4000, "whose": whose}
    assert model.count == 4
    turns = await stage.told(run.run_id, "turn")
    assert [turn["usage"]["total_tokens"] for turn in turns] == [1000] * 4
    assert codec.load(run.usage or codec.NULL)["total_tokens"] == 4000
    await dense(stage.journal, run)


@promise("agents.budget")
@pytest.mark.parametrize("where", ["call", "agent", "run"])
async def test_the_call_that_goes_over_the_budget_is_recorded_and_no_other_is_made(stage: Stage, where: str) -> None:
    limit = {"max_tokens": 3500}
    model = spender()
    if where == "run":
        stage.set(budget=limit)

    async def work(ctx: Context) -> None:
        harness = await ctx.init(model.agent(**({"budget": limit, "name": "spender"} if where == "agent" else {})))
        session = await harness.session()
        await session.prompt("Go", **({"budget": Budget(**limit)} if where == "call" else {}))

    whose = {"call": "this prompt", "agent": "agent 'spender'", "run": "the run"}[where]
    await check_fourth_is_recorded(stage, await stage.run(work), model, whose)


@promise("agents.budget")
@pytest.mark.parametrize("where", ["call", "agent", "run"])
@pytest.mark.parametrize("at", [1, 2, 3])
async def test_a_budget_holds_over_a_restart(stage: Stage, where: str, at: int) -> None:
    limit = {"max_tokens": 3500}
    reached, gate = asyncio.Event(), asyncio.Event()

    async def answer(request: ModelRequest) -> Any:
        if len(request.messages) == 2 * at + 1 and not gate.is_set():
            reached.set()
            await gate.wait()
        return thousand(calls(("exists", {"path": "a"})))

    model = Asked(answer)
    if where == "run":
        stage.set(budget=limit)

    async def work(ctx: Context) -> None:
        harness = await ctx.init(model.agent(**({"budget": limit, "name": "spender"} if where == "agent" else {})))
        await (await harness.session()).prompt("Go", **({"budget": limit} if where == "call" else {}))

    async with stage.interrupted(work) as run_id:
        async with asyncio.timeout(5):
            await reached.wait()
    gate.set()
    run = await stage.resume(run_id, work)
    assert model.count == 5  # the one that was cut off is asked for again
    model.requests.pop()
    whose = {"call": "this prompt", "agent": "agent 'spender'", "run": "the run"}[where]
    await check_fourth_is_recorded(stage, run, model, whose)


@promise("agents.budget")
@pytest.mark.parametrize("is_interrupted", [False, True])
async def test_what_subagents_use_counts_for_whoever_asked(stage: Stage, is_interrupted: bool) -> None:
    """One turn of the parent, two of its child, one more of the parent; there is no fifth."""
    reached, gate = asyncio.Event(), asyncio.Event()
    if not is_interrupted:
        gate.set()

    async def answer(request: ModelRequest) -> Any:
        first = request.messages[0].text
        if first == "Child":
            return thousand(calls(("exists", {"path": "a"})) if len(request.messages) == 1 else "Done.")
        if len(request.messages) == 3 and not gate.is_set():
            reached.set()
            await gate.wait()
        return thousand(calls(("task", {"prompt": "Child"})))

    model = Asked(answer)

    async def work(ctx: Context) -> None:
        await (await (await ctx.init(model.agent())).session()).prompt("Go", budget={"max_tokens": 3500})

    async with stage.interrupted(work) as run_id:
        async with asyncio.timeout(5):
            if is_interrupted:
                await reached.wait()
            else:
                await stage.until(run_id, "run_end")
    gate.set()
    run = await stage.resume(run_id, work)
    if is_interrupted:
        model.requests.pop()
    error = error_of(run)
    assert error["details"] == {"budget": "max_tokens", "limit": 3500, "used": 4000, "whose": "this prompt"}
    assert model.count == 4
    (_, told) = [told for told in await stage.told(run_id, "operation") if told["session"] != ""][-2:]
    assert told["usage"]["total_tokens"] == 4000


@promise("agents.budget")
async def test_a_subagent_may_use_up_what_its_parent_has_left(stage: Stage) -> None:
    def answer(request: ModelRequest) -> Any:
        if request.messages[0].text == "Child":
            return thousand(calls(("exists", {"path": "a"})))
        return thousand(calls(("task", {"prompt": "Child"})))

    model = Asked(answer)

    async def work(ctx: Context) -> None:
        await (await (await ctx.init(model.agent())).session()).prompt("Go", budget={"max_tokens": 3500})

    run = await stage.run(work)
    assert error_of(run)["type"] == "budget_exceeded"
    assert model.count == 4
    ends = await stage.told(run.run_id, "operation")
    assert [(end["kind"], end["usage"]["total_tokens"], end["is_error"]) for end in ends] == [
        ("task", 3000, True), ("prompt", 4000, True),
    ]  # fmt: skip


async def test_an_agents_budget_counts_all_of_its_sessions_and_a_runs_all_of_its_agents(stage: Stage) -> None:
    stage.set(budget={"max_turns": 5})
    model = Asked(lambda request: thousand("Fine."))

    async def work(ctx: Context) -> Any:
        first = await ctx.init(model.agent(budget={"max_turns": 3}), name="first")
        second = await ctx.init(model.agent(), name="second")
        ended: list[str] = []
        for harness, name in [
            (first, "a"),
            (first, "b"),
            (first, "a"),
            (first, "c"),
            (second, "a"),
            (second, "b"),
            (second, "c"),
        ]:
            try:
                await (await harness.session(name)).prompt("Go")
                ended.append("fine")
            except Exception as error:
                ended.append(error.details["whose"])  # type: ignore[attr-defined]
        return ended

    assert result_of(await stage.run(work)) == ["fine", "fine", "fine", "agent 'first'", "fine", "fine", "the run"]
    assert model.count == 5


async def test_a_budget_in_money_ends_a_prompt_that_has_cost_it(stage: Stage) -> None:
    """At the real prices of a real model, which is not asked."""
    model = spender(id="claude-haiku-4-5")
    model.model.provider = "anthropic"

    async def work(ctx: Context) -> None:
        await (await (await ctx.init(model.agent())).session()).prompt("Go", budget={"max_cost_usd": 0.002})

    run = await stage.run(work)
    error = error_of(run)
    assert (error["type"], error["details"]["budget"]) == ("budget_exceeded", "max_cost_usd")
    turns = await stage.told(run.run_id, "turn")
    cost = turns[0]["usage"]["cost_usd"]
    assert cost > 0
    assert model.count == math.ceil(0.002 / cost) > 1
    assert codec.load(run.usage or codec.NULL)["cost_usd"] == pytest.approx(cost * model.count)


async def test_an_unknown_price_is_no_price_and_not_nothing(stage: Stage) -> None:
    model = Asked([thousand("Fine.")], id="nowhere/unheard-of")
    model.model.provider = "nowhere"

    async def work(ctx: Context) -> Any:
        return (await (await (await ctx.init(model.agent())).session()).prompt("Go")).usage.cost_usd

    run = await stage.run(work)
    assert result_of(run) is None
    assert codec.load(run.usage or codec.NULL)["cost_usd"] is None


async def test_a_model_without_a_price_does_not_lift_a_budget_in_money(stage: Stage) -> None:
    priced = Asked(lambda request: thousand("Fine."), id="claude-haiku-4-5")
    priced.model.provider = "anthropic"
    other = Asked(lambda request: thousand("Fine."), id="unheard-of")
    other.model.provider = "nowhere"

    async def work(ctx: Context) -> None:
        harness = await ctx.init(priced.agent(budget={"max_cost_usd": 1e-6}))
        await (await harness.session("other")).prompt("Go", model=other.model)
        await (await harness.session()).prompt("Go")
        await (await harness.session()).prompt("Go")

    assert error_of(await stage.run(work))["details"]["budget"] == "max_cost_usd"
    assert (other.count, priced.count) == (1, 1)


async def test_seconds_end_a_model_that_is_still_talking(stage: Stage) -> None:
    slow = Spoken("Once ", "upon")

    async def work(ctx: Context) -> None:
        harness = await ctx.init(Asked([]).agent())
        slow.gates[0].set()
        await (await harness.session()).prompt("Go", model=slow, budget={"max_seconds": 0.05})

    async with asyncio.timeout(5):
        error = error_of(await stage.run(work))
    assert (error["type"], error["details"]["budget"]) == ("budget_exceeded", "max_seconds")
    assert slow.is_closed


@promise("agents.budget")
@pytest.mark.parametrize("where", ["call", "agent", "run"])
async def test_seconds_end_a_tool_that_is_still_at_it(stage: Stage, where: str) -> None:
    ends: list[str] = []

    @tool
    async def wait() -> None:
        """Wait."""
        try:
            await asyncio.Event().wait()
        finally:
            ends.append("ended")

    model = Asked([calls(("wait", {}))])
    limit = {"max_seconds": 0.05}
    if where == "run":
        stage.set(budget=limit)

    async def work(ctx: Context) -> None:
        harness = await ctx.init(model.agent(tools=[wait], **({"budget": limit} if where == "agent" else {})))
        await (await harness.session()).prompt("Go", **({"budget": limit} if where == "call" else {}))

    async with asyncio.timeout(5):
        run = await stage.run(work)
    whose = {"call": "this prompt", "agent": "agent 'agent'", "run": "the run"}[where]
    told = {"type": "budget_exceeded", "message": f"The budget max_seconds=0.05 of {whose} is used up (0.05)."}
    error = error_of(run)
    assert {name: error[name] for name in told} == told
    assert error["details"] == {"budget": "max_seconds", "limit": 0.05, "used": 0.05, "whose": whose}
    assert ends == ["ended"]
    (tool_end,) = await stage.told(run.run_id, "tool_end")
    assert (tool_end["is_error"], tool_end["error"]) == (True, told)
    (operation,) = await stage.told(run.run_id, "operation")
    assert (operation["is_error"], operation["error"]) == (True, told)
    (record,) = [step for step in await stage.journal.steps(run.run_id) if step.kind == "tool"]
    assert (record.status, codec.load(record.error or codec.NULL)["type"]) == (StepStatus.FAILED, "budget_exceeded")
    await dense(stage.journal, run)


@promise("agents.budget", "F37")
async def test_seconds_end_a_command_with_all_of_its_processes(stage: Stage) -> None:
    model = Asked([calls(("bash", {"command": "echo begun > begun; sleep 600.375 & sleep 600.375"}))])
    begun: list[bool] = []

    async def work(ctx: Context) -> None:
        harness = await ctx.init(model.agent(sandbox="local", policy={"shell": True}))
        try:
            await (await harness.session()).prompt("Go", budget={"max_seconds": 1})
        finally:
            begun.append(await harness.fs.exists("begun"))

    async with asyncio.timeout(20):
        error = error_of(await stage.run(work))
        while processes_with("sleep 600.375"):
            await asyncio.sleep(0.01)
    assert (error["type"], error["details"]["budget"]) == ("budget_exceeded", "max_seconds")
    assert begun == [True]


@promise("agents.budget", "agents.resume")
@pytest.mark.parametrize("is_idempotent", [True, False])
async def test_a_tool_that_took_too_long_is_not_called_again_when_the_run_is(stage: Stage, is_idempotent: bool) -> None:
    begun: list[str] = []
    reached, gate = asyncio.Event(), asyncio.Event()

    @tool(idempotent=is_idempotent)
    async def wait(ctx: ToolContext) -> None:
        """Wait."""
        begun.append("begun")
        await ctx.fs.write_file("a.txt", "half")
        await asyncio.Event().wait()

    async def hold() -> None:
        reached.set()
        await gate.wait()

    model = Asked([calls(("wait", {})), "Fine."])

    async def work(ctx: Context) -> Any:
        harness = await ctx.init(model.agent(tools=[wait], budget={"max_seconds": 30}))
        session = await harness.session()
        try:
            await session.prompt("Go", budget={"max_seconds": 0.1})
        except BudgetExceeded as error:
            await ctx.step("hold", hold)
            used = harness.meter.seconds
            reply = await session.prompt("And?")
            return [error.message, used >= 0.1, await harness.fs.read_file("a.txt"), reply.text]

    async with stage.interrupted(work) as run_id, asyncio.timeout(10):
        await reached.wait()
    gate.set()
    run = await stage.resume(run_id, work)
    message = "The budget max_seconds=0.1 of this prompt is used up (0.1)."
    assert result_of(run) == [message, True, "half", "Fine."]
    assert (begun, model.count) == (["begun"], 2)
    assert len(await stage.told(run_id, "tool_end")) == 1
    assert "replay_drift" not in await stage.types(run_id)


@promise("agents.budget", "agents.resume")
async def test_tools_side_by_side_are_not_begun_again_when_one_of_them_took_too_long(stage: Stage) -> None:
    begun: list[str] = []
    reached, gate = asyncio.Event(), asyncio.Event()

    @tool(idempotent=True)
    async def slow(name: str) -> None:
        """Be slow."""
        begun.append(name)
        await asyncio.Event().wait()

    @tool(idempotent=True, timeout_s=60)
    async def slower() -> None:
        """Be slow, and take your time to end."""
        begun.append("slower")
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.05)

    async def hold() -> None:
        reached.set()
        await gate.wait()

    model = Asked([calls(("slower", {}), ("slow", {"name": "b"}))])

    async def work(ctx: Context) -> Any:
        session = await (await ctx.init(model.agent(tools=[slow, slower]))).session()
        try:
            await session.prompt("Go", budget={"max_seconds": 0.1})
        except BudgetExceeded as error:
            await ctx.step("hold", hold)
            return error.type

    async with stage.interrupted(work) as run_id, asyncio.timeout(10):
        await reached.wait()
    gate.set()
    assert result_of(await stage.resume(run_id, work)) == "budget_exceeded"
    assert begun == ["slower", "b"]


@promise("agents.budget")
async def test_seconds_that_end_a_task_are_recorded_of_the_task_and_of_who_gave_it(stage: Stage) -> None:
    slow = Spoken("Never")

    model = Asked([calls(("task", {"prompt": "Part", "agent": "slow"}))])

    async def work(ctx: Context) -> None:
        harness = await ctx.init(model.agent(subagents=[{"name": "slow", "description": "Slow.", "model": slow}]))
        await (await harness.session()).prompt("Go", budget={"max_seconds": 0.1})

    async with asyncio.timeout(5):
        run = await stage.run(work)
    assert error_of(run)["type"] == "budget_exceeded"
    assert slow.is_closed
    assert [end["error"]["type"] for end in await stage.told(run.run_id, "tool_end")] == ["budget_exceeded"]


@promise("agents.budget")
async def test_seconds_of_a_task_count_once(stage: Stage) -> None:
    slow = ScriptedModel(["Its part."], delay_s=0.2)
    reached, gate = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        reached.set()
        await gate.wait()

    model = Asked([calls(("task", {"prompt": "Part", "agent": "slow"})), "Fine."])

    async def work(ctx: Context) -> Any:
        harness = await ctx.init(model.agent(subagents=[{"name": "slow", "description": "Slow.", "model": slow}]))
        reply = await (await harness.session()).prompt("Go", budget={"max_seconds": 30})
        await ctx.step("hold", hold)
        return [reply.text, harness.meter.seconds]

    async with stage.interrupted(work) as run_id, asyncio.timeout(10):
        await reached.wait()
    gate.set()
    text, counted = result_of(await stage.resume(run_id, work))
    assert text == "Fine."
    (task,) = await stage.told(run_id, "tool_end")
    turns = [turn["duration_ms"] for turn in await stage.told(run_id, "turn") if turn["session"] == "default"]
    # The task's own turn is within the tool that was called for it.
    assert 0.2 <= counted <= (task["duration_ms"] + sum(turns)) / 1000 + 0.001


async def test_a_budget_that_is_used_up_asks_no_model_at_all(stage: Stage) -> None:
    model = Asked(lambda request: thousand("Fine."))

    async def work(ctx: Context) -> Any:
        session = await (await ctx.init(model.agent(budget={"max_tokens": 1000}))).session()
        await session.prompt("One")
        await session.prompt("Two")

    run = await stage.run(work)
    assert error_of(run)["type"] == "budget_exceeded"
    assert model.count == 1
    assert (await stage.types(run.run_id)).count("turn_request") == 1


async def test_attempts_that_failed_count_no_turn(stage: Stage) -> None:
    answers = iter([{"error": {"message": "Busy.", "is_retryable": True, "retry_after_s": 0.0}}, thousand("Fine.")])
    model = Asked(lambda request: next(answers))

    async def work(ctx: Context) -> Any:
        return (await (await (await ctx.init(model.agent())).session()).prompt("Go", budget={"max_turns": 1})).turns

    assert result_of(await stage.run(work)) == 1


async def test_a_run_that_is_tried_again_has_used_what_it_took_over(stage: Stage) -> None:
    is_broken = [True]

    def answer(request: ModelRequest) -> Any:
        turn = sum(message.role == "assistant" for message in request.messages)
        if turn == 2 and is_broken[0]:
            return {"error": "Gone."}
        return thousand(calls(("exists", {"path": "a"})))

    model = Asked(answer)

    async def work(ctx: Context) -> None:
        await (await (await ctx.init(model.agent())).session()).prompt("Go", budget={"max_tokens": 3500})

    async with stage.engine(work) as engine:
        failed = await ended(engine, await stage.submit(engine, work))
        is_broken[0] = False
        run = await ended(engine, (await engine.retry(failed.run_id)).run_id)
    assert error_of(run)["details"]["used"] == 4000
    assert model.count == 5
