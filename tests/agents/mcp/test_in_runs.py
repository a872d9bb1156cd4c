"""MCP servers of an agent in a run."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pyflue.agents.content import Text, ToolResult
from pyflue.journal import RunStatus
from tests.agents.agent_runs import Asked, Stage
from tests.engine.durable import Context, ended, result_of

from .conftest import Servers

_TOKEN = "hunter2-but-longer"


def _says(result: Any) -> tuple[str, bool]:
    assert isinstance(result, ToolResult)
    return "".join(block.text for block in result.content if isinstance(block, Text)), result.is_error


async def test_an_agent_calls_the_tools_of_its_servers_and_nothing_is_left_of_them(
    stage: Stage, servers: Servers
) -> None:
    sample = servers.stdio("sample_server.py", env={"SAMPLE_TOKEN": _TOKEN})
    model = Asked([
        {
            "tool_calls": [
                {"name": "mcp__sample__add", "input": {"a": 1, "b": 2}, "id": "c1"},
                {"name": "mcp__sample__add", "input": {"a": "one"}, "id": "c2"},
                {"name": "mcp__sample__surroundings", "input": {}, "id": "c3"},
                {"name": "mcp__sample__die", "input": {}, "id": "c4"},
                {"name": "mcp__sample__echo", "input": {"text": "back"}, "id": "c5"},
            ]
        },
        "Three.",
    ])  # fmt: skip

    async def work(ctx: Context) -> Any:
        harness = await ctx.init(model.agent(mcp_servers={"sample": sample}, builtin_tools=False))
        return (await (await harness.session()).prompt("Add")).text

    run = await stage.run(work)
    assert result_of(run) == "Three."
    assert "mcp__sample__add" in [tool.name for tool in model.requests[0].tools]
    told = [_says(block) for block in model.messages[1][-1].blocks]
    assert told[0] == ('Structured content:\n{"sum":3}', False)
    assert (told[1][0].splitlines()[0], told[1][1]) == ("The arguments do not fit:", True)
    assert ('"SAMPLE_TOKEN": "[env SAMPLE_TOKEN]"' in told[2][0], told[2][1]) == (True, False)
    assert (told[3][0].split(".")[0], told[3][1]) == ("The connection to MCP server 'sample' has ended", True)
    assert told[4] == ("back", False)
    events = await stage.journal.events(run.run_id)
    assert not any(_TOKEN.encode() in bytes(event.data) for event in events)
    await servers.gone()


@pytest.mark.parametrize("at", ["connecting", "calling"])
async def test_cancelling_a_run_ends_its_servers(stage: Stage, servers: Servers, at: str) -> None:
    kind = ("raw_server.py", "mute") if at == "connecting" else ("sample_server.py",)
    model = Asked([{"tool_calls": [{"name": "mcp__sample__never", "input": {}, "id": "c1"}]}, "Never."])

    async def work(ctx: Context) -> Any:
        agent = model.agent(mcp_servers={"sample": servers.stdio(*kind)}, builtin_tools=False)
        return (await (await (await ctx.init(agent)).session()).prompt("Wait")).text

    async with stage.engine(work) as engine:
        run_id = await stage.submit(engine, work)
        if at == "calling":
            await stage.until(run_id, "tool_start")
        else:
            async with asyncio.timeout(10):
                while not await asyncio.to_thread(servers.processes):
                    pass
        async with asyncio.timeout(2):
            await engine.cancel(run_id)
            run = await ended(engine, run_id)
        assert run.status is RunStatus.CANCELLED
    await servers.gone()


async def test_a_server_that_cannot_be_started_fails_the_prompt(stage: Stage) -> None:
    model = Asked(["Never asked."])

    async def work(ctx: Context) -> Any:
        agent = model.agent(mcp_servers={"missing": {"command": "no-such-program-anywhere"}})
        return (await (await (await ctx.init(agent)).session()).prompt("Go")).text

    run = await stage.run(work)
    assert (run.status, b"mcp_failed" in bytes(run.error or b""), model.count) == (RunStatus.FAILED, True, 0)
