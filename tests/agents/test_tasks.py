"""Tasks: child sessions with a conversation of their own, the same files, and their parent's budget."""

from __future__ import annotations

from typing import Any

import pytest

from pyflue.agents import AgentProfile, tool
from pyflue.agents.content import user
from pyflue.agents.models.port import ModelRequest
from tests.engine.durable import Context, error_of, result_of
from tests.promises import promise

from .agent_runs import Asked, Stage, calls, dense, last_text, results_told, told_plainly

USAGE = {"input_tokens": 90, "output_tokens": 10}


async def test_a_task_has_its_own_conversation_and_its_parents_files(stage: Stage) -> None:
    def answer(request: ModelRequest) -> Any:
        if request.messages[0].text == "Write it":
            return (
                calls(("write", {"path": "a.txt", "content": "by the child"}))
                if len(request.messages) == 1
                else "Written."
            )
        return "Fine."

    model = Asked(answer)

    async def work(ctx: Context) -> Any:
        harness = await ctx.init(model.agent())
        session = await harness.session()
        await session.prompt("Private")
        reply = await session.task("Write it")
        await session.prompt("And?")
        return [reply.text, reply.session, await harness.fs.read_file("a.txt")]

    run = await stage.run(work)
    assert result_of(run) == ["Written.", "default:task", "by the child"]
    assert [request.messages[0].text for request in model.requests] == ["Private", "Write it", "Write it", "Private"]
    assert len(model.messages[-1]) == 3
    assert len(await stage.conversation(run.run_id, "agent/default:task")) == 4


@promise("agents.events")
async def test_the_record_tells_a_task_between_its_parents_events(stage: Stage) -> None:
    def answer(request: ModelRequest) -> Any:
        if request.messages[0].text == "Child":
            return {"text": "Done.", "usage": USAGE}
        call = {"name": "task", "input": {"prompt": "Child"}, "id": "c1"}
        return {**({"tool_calls": [call]} if len(request.messages) == 1 else {"text": "All done."}), "usage": USAGE}

    model = Asked(answer)

    async def work(ctx: Context) -> Any:
        return (await (await (await ctx.init(model.agent())).session()).prompt("Go")).usage.total_tokens

    run = await stage.run(work)
    assert result_of(run) == 300
    told = told_plainly(await dense(stage.journal, run))
    key = "prompt/turn/task/attempt-1/task"
    child = {"operation_id": key, "session": f"default:{key}"}
    about = {**child, "task_id": child["session"], "agent": None, "step": key, "parent_session": "default"}
    types = [type_ for type_, _ in told]
    assert types[4:12] == [
        "tool_start", "operation_start", "task_start", "turn_request", "turn", "task_end", "operation", "tool_end",
    ]  # fmt: skip
    assert told[5][1] == {**child, "kind": "task", "step": key, "agent": None, "text": "Child"}
    assert told[6][1] == about
    assert told[8][1]["turn_id"] == f"{key}/turn"
    assert told[9][1] == {**about, "is_error": False}
    assert told[10][1]["usage"]["total_tokens"] == 100
    assert told[-2][1]["usage"]["total_tokens"] == 300


async def test_a_subagent_has_the_model_the_tools_and_the_instructions_of_its_profile(stage: Stage) -> None:
    @tool
    def dig() -> str:
        """Dig."""
        return "dug"

    scout = Asked(["Scouted."], id="scripted/scout")
    model = Asked(
        [
            calls(("task", {"prompt": "Look", "agent": "scout"}), ("task", {"prompt": "Look", "agent": "nobody"})),
            "Done.",
        ]
    )
    profile = AgentProfile(name="scout", description="Finds.", instructions="You find.", model=scout.model, tools=[dig])

    async def work(ctx: Context) -> Any:
        harness = await ctx.init(
            model.agent(instructions="You lead.", subagents=[profile], builtin_tools=["read", "task"])
        )
        return (await (await harness.session()).prompt("Go")).text

    assert result_of(await stage.run(work)) == "Done."
    (request,) = scout.requests
    assert (request.system, request.messages) == ("You find.", [user("Look")])
    assert [spec.name for spec in request.tools] == ["read", "task", "dig"]
    assert [spec.name for spec in model.requests[0].tools] == ["read", "task"]
    assert "- scout: Finds." in model.requests[0].tools[1].description
    told = results_told(model.requests[1])
    assert told[0] == ("Scouted.", False)
    assert told[1] == ("There is no subagent 'nobody'. The agent's subagents: scout.", True)


async def test_tasks_of_one_turn_run_side_by_side(stage: Stage) -> None:
    import asyncio

    together = asyncio.Barrier(3)

    async def answer(request: ModelRequest) -> Any:
        if request.messages[0].text.startswith("Part"):
            await together.wait()
            return f"{last_text(request)} is done."
        if len(request.messages) == 1:
            return calls(*(("task", {"prompt": f"Part {number}"}) for number in range(3)))
        return "Done."

    model = Asked(answer)

    async def work(ctx: Context) -> None:
        await (await (await ctx.init(model.agent())).session()).prompt("Go")

    async with asyncio.timeout(10):
        result_of(await stage.run(work))
    assert results_told(model.requests[-1]) == [(f"Part {number} is done.", False) for number in range(3)]


@promise("F43")
async def test_tasks_that_start_tasks_end_at_the_depth_that_is_allowed(stage: Stage) -> None:
    stage.set(agent={"task_depth": 2})
    depths: list[int] = []

    def answer(request: ModelRequest) -> Any:
        if len(request.messages) > 1:
            return f"Told: {results_told(request)[0][0]}"
        depths.append(len(depths))
        return calls(("task", {"prompt": "Deeper"}))

    model = Asked(answer)

    async def work(ctx: Context) -> Any:
        return (await (await (await ctx.init(model.agent())).session()).prompt("Go")).text

    text = result_of(await stage.run(work))
    assert depths == [0, 1, 2]
    assert text.startswith("Told: Told: Told: There is no tool 'task'.")
    assert "task" not in [spec.name for spec in model.requests[2].tools]


@pytest.mark.parametrize("depth", [0, 1])
async def test_a_workflow_cannot_go_deeper_either(stage: Stage, depth: int) -> None:
    stage.set(agent={"task_depth": depth})
    model = Asked(lambda request: "Fine.")

    async def work(ctx: Context) -> Any:
        return (await (await (await ctx.init(model.agent())).session()).task("Go")).text

    run = await stage.run(work)
    if depth:
        assert result_of(run) == "Fine."
    else:
        assert error_of(run)["type"] == "task_too_deep"


async def test_a_task_that_fails_fails_its_tool_call_only(stage: Stage) -> None:
    def answer(request: ModelRequest) -> Any:
        if request.messages[0].text == "Child":
            return {"error": "The child's model is gone."}
        return calls(("task", {"prompt": "Child"})) if len(request.messages) == 1 else "Alone, then."

    model = Asked(answer)

    async def work(ctx: Context) -> Any:
        return (await (await (await ctx.init(model.agent())).session()).prompt("Go")).text

    run = await stage.run(work)
    assert result_of(run) == "Alone, then."
    assert results_told(model.requests[-1]) == [("The child's model is gone.", True)]
    (end,) = await stage.told(run.run_id, "task_end")
    assert (end["is_error"], end["error"]["type"]) == (True, "model_failed")


async def test_a_task_may_answer_with_data(stage: Stage) -> None:
    model = Asked([{"value": [1, 2]}])

    async def work(ctx: Context) -> Any:
        session = await (await ctx.init(model.agent())).session()
        return (await session.task("Count", result=list[int], cwd="sub")).data

    assert result_of(await stage.run(work)) == [1, 2]
    assert model.messages == [[user("Work in the folder sub.\n\nCount")]]
