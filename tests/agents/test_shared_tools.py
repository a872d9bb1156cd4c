"""Toolboxes that runs share: what they hold is the same for all, what they do is done in the run that asks."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pyflue.agents import tool
from pyflue.agents.models.port import ModelRequest
from pyflue.agents.sandboxes import SandboxPolicy
from pyflue.agents.toolbox import shared_builtins, task_tool, toolbox_of
from tests.engine.durable import Context, ended, result_of
from tests.promises import promise

from .agent_runs import Asked, Stage, calls, last_text, results_told

PRIVATE = "the-private-text"


def turn_of(request: ModelRequest) -> int:
    """How many answers the conversation has."""
    return sum(message.role == "assistant" for message in request.messages)


def by_turns(*answers: Any) -> Asked:
    """A model of many conversations at once: each gets the answers in their order."""
    return Asked(lambda request: answers[turn_of(request)])


@promise("agents.isolation")
@pytest.mark.parametrize("kind", ["virtual", "local"])
async def test_runs_side_by_side_that_share_their_tools_write_and_read_their_own_files(stage: Stage, kind: str) -> None:
    names = [f"run-{number}" for number in range(4)]
    written = asyncio.Barrier(len(names))

    def answer(request: ModelRequest) -> Any:
        own = request.messages[0].text
        return [
            calls(("write", {"path": "note.txt", "content": f"{PRIVATE} of {own}"})),
            calls(("write", {"path": f"{own}.txt", "content": "mine"})),
            "Written.",
            calls(("read", {"path": "note.txt"}), ("bash", {"command": "ls"})),
            "Read.",
        ][turn_of(request)]

    model = Asked(answer)

    async def work(ctx: Context) -> Any:
        agent = model.agent(sandbox=kind, policy={"writes": True, "shell": True})
        session = await (await ctx.init(agent)).session()
        await session.prompt(ctx.payload)
        async with asyncio.timeout(10):
            await written.wait()
        await session.prompt("And now read")
        return [name for name, _ in results_told_of(model, ctx.payload)]

    async with stage.engine(work) as engine:
        run_ids = [await stage.submit(engine, work, name) for name in names]
        told = [result_of(await ended(engine, run_id)) for run_id in run_ids]
    for name, (note, listing) in zip(names, told, strict=True):
        assert f"{PRIVATE} of {name}" in note
        assert sorted(listing.split("stdout:\n")[1].split()) == ["note.txt", f"{name}.txt"]


def results_told_of(model: Asked, said_first: str) -> list[tuple[str, bool]]:
    """The last results that a conversation's model was told."""
    return results_told([each for each in model.requests if each.messages[0].text == said_first][-1])


@promise("agents.isolation")
async def test_agents_of_different_policies_do_not_get_one_anothers_tools(stage: Stage) -> None:
    model = by_turns(calls(("write", {"path": "a.txt", "content": "x"}), ("bash", {"command": "echo hi"})), "Done.")
    policies = [{}, {"writes": False}, {"shell": False}, {"allowed_commands": ["ls"]}, {}]

    async def work(ctx: Context) -> None:
        for number, policy in enumerate(policies):
            harness = await ctx.init(model.agent(policy=policy), name=f"agent-{number}")
            await (await harness.session()).prompt("Go")

    result_of(await stage.run(work))
    allowed = [[not is_error for _, is_error in results_told(request)] for request in model.requests[1::2]]
    assert allowed == [[True, True], [False, True], [True, False], [True, False], [True, True]]


@promise("agents.secrets", "F38")
async def test_secrets_of_one_prompt_are_in_no_tool_of_the_next_or_of_another_run(stage: Stage) -> None:
    show = 'echo "[$KEY]"'
    model = by_turns(*[calls(("bash", {"command": show})), "Done."] * 3)
    agent = model.agent(policy={"shell": True}, env={"KEY": "s3cr3t"})

    async def work(ctx: Context) -> None:
        session = await (await ctx.init(agent)).session()
        if ctx.payload == "granted":
            await session.prompt("Go")
            await session.prompt("Go", secrets=["KEY"])
        await session.prompt("Go")

    for payload in ("granted", "none"):
        async with stage.engine(work) as engine:
            result_of(await ended(engine, await stage.submit(engine, work, payload)))
    told = [results_told(request)[0][0].split("stdout:\n")[1] for request in model.requests[1::2]]
    assert told == ["[]", "[[secret KEY]]", "[]", "[]"]


@promise("agents.isolation")
async def test_tools_and_choices_of_one_prompt_are_not_those_of_the_next(stage: Stage) -> None:
    @tool
    def own() -> str:
        """A tool of one prompt."""
        return "mine"

    model = Asked(lambda request: "Fine.")

    async def work(ctx: Context) -> None:
        session = await (await ctx.init(model.agent(instructions="Be brief."))).session()
        await session.prompt("1")
        await session.prompt("2", tools=[own], max_tokens=7, thinking_level="high")
        await session.prompt("3")
        await session.task("4", tools=[own])
        await session.prompt("5")

    result_of(await stage.run(work))
    seen = {
        last_text(request): ("own" in [spec.name for spec in request.tools], request.max_tokens, request.thinking)
        for request in model.requests
    }
    assert seen["1"] == seen["3"] == seen["5"]
    assert seen["1"][0] is False
    assert seen["2"] == (True, 7, "high")
    assert seen["4"][0] is True
    usual, later = (next(r for r in model.requests if last_text(r) == text) for text in ("1", "5"))
    assert (usual.tools, usual.system) == (later.tools, later.system)


async def test_only_tools_that_are_the_same_for_all_are_shared() -> None:
    free = SandboxPolicy().for_kind("virtual")
    shared = shared_builtins("virtual", free)
    assert shared_builtins("virtual", SandboxPolicy().for_kind("virtual")) is shared
    assert not set(shared) & set(shared_builtins("virtual", SandboxPolicy(reads=False).for_kind("virtual")))
    assert not set(shared) & set(shared_builtins("local", free))
    assert toolbox_of(shared) is toolbox_of(tuple(shared))
    assert toolbox_of((*shared, task_tool({}))) is toolbox_of((*shared, task_tool({})))
    assert toolbox_of((*shared, task_tool({}))) is not toolbox_of(shared)
