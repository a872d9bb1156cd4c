"""Tools of MCP servers as components: one made with the `mcp` SDK, and one that does as it likes."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from pyflue.stepflow.jsonrpc import RpcLimits
from pyflue.stepflow.outcome import Failed
from pyflue.stepflow.plugins.mcp import McpPlugin, McpSettings
from pyflue.stepflow.plugins.port import ComponentFailed, ComponentInfo
from tests.promises import promise
from tests.stepflow.plugins.doubles import PYTHON, SERVERS, call_of, children, failure_of, until_gone

#: A server that follows a script: what it answers to each method.
ROGUE = """
import json, sys, time, os
script, log = json.loads(sys.argv[1]), open(sys.argv[2], "a", buffering=1)
for line in sys.stdin:
    message = json.loads(line)
    log.write(line)
    if message.get("id") is None or "method" not in message:
        continue
    for answer in script.get(message["method"], script["*"] if "*" in script else []):
        if answer == "hang":
            continue
        if answer == "exit":
            os._exit(4)
        if isinstance(answer, str):
            print(answer, flush=True)
            continue
        about = {} if "method" in answer else {"id": message["id"]}
        print(json.dumps({"jsonrpc": "2.0", **about, **answer}), flush=True)
"""
HELLO = {"result": {"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": {"name": "x", "version": "1"}}}
TOOLS = {"result": {"tools": [{"name": "t", "inputSchema": {"type": "object"}}]}}


def rogue(tmp_path: Path, script: dict[str, Any], **settings: Any) -> McpPlugin:
    whole = {"initialize": [HELLO], "tools/list": [TOOLS], **script}
    args = ["-c", ROGUE, json.dumps(whole), str(tmp_path / "log")]
    return McpPlugin(
        "rogue", McpSettings(**{"command": PYTHON, "args": args, "cwd": tmp_path, "grace_s": 0.2, **settings})
    )


def heard(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]


@promise("stepflow.mcp")
async def test_a_server_of_the_sdk_lists_its_tools_and_does_its_work(tmp_path: Path) -> None:
    plugin = McpPlugin(
        "tools",
        McpSettings(command=PYTHON, args=[str(SERVERS / "tools.py")], cwd=tmp_path, env={"LISTED": "yes"}),
    )

    listed = {info.path: info for info in await plugin.components()}
    output = await plugin.execute(call_of("/echo", {"value": "hello"}))
    by_last_segment = await plugin.execute(call_of("/some/where/variable", {"name": "LISTED"}))
    failed = await failure_of(plugin, "/fail", {"why": "because"})
    unknown = await failure_of(plugin, "/nope", {})
    misused = await failure_of(plugin, "/echo", {"other": 1})
    crashed = await failure_of(plugin, "/crash", {})
    after = await plugin.execute(call_of("/echo", {"value": "again"}))
    await plugin.close()

    assert sorted(listed) == ["/crash", "/echo", "/fail", "/header", "/variable", "/wait"]
    assert (listed["/echo"].description, listed["/fail"].description) == ("Gives back what it gets.", "MCP tool")
    assert listed["/echo"].output_schema == {"type": "object"}
    assert listed["/echo"].input_schema is not None
    assert listed["/echo"].input_schema["properties"]["value"]["type"] == "string"
    assert output == [{"type": "text", "text": "hello"}]
    assert by_last_segment == [{"type": "text", "text": "yes"}]
    assert failed.failure is not None
    assert failed.failure.code == 500
    assert failed.failure.message.startswith("Tool 'fail' execution failed: ")
    assert unknown.failure is not None
    assert unknown.failure.message.startswith("Tool 'nope' execution failed")
    assert misused.failure is not None
    assert crashed.message == "Plugin 'tools' did not answer: its process ended with exit code 3."
    assert after == [{"type": "text", "text": "again"}]
    assert not children()


async def test_the_handshake_is_that_of_the_protocol_and_a_newer_version_is_taken(tmp_path: Path) -> None:
    plugin = rogue(tmp_path, {"tools/call": [{"result": {"content": [1]}}]})

    assert await plugin.components() == [
        ComponentInfo(
            path="/t", description="MCP tool", input_schema={"type": "object"}, output_schema={"type": "object"}
        )
    ]
    assert await plugin.execute(call_of("/t")) == [1]
    await plugin.close()

    initialize, initialized, listing, *_, call = heard(tmp_path)
    assert initialize["params"]["protocolVersion"] == "2024-11-05"
    assert initialize["params"]["capabilities"] == {"roots": {"listChanged": False}}
    assert initialized["method"] == "notifications/initialized"
    assert listing["method"] == "tools/list"
    assert (call["method"], call["params"]) == ("tools/call", {"name": "t", "arguments": {}})


@pytest.mark.parametrize(
    ("answers", "output"),
    [
        ([{"result": {"content": []}}], []),
        ([{"result": {"structured": 1}}], {"structured": 1}),
        ([{"result": 5}], 5),
        (["a line of a log", {"result": {"content": [2]}}], [2]),
        ([{"method": "notifications/progress", "params": {}}, {"result": {"content": [3]}}], [3]),
        ([{"result": {"content": [4]}}, {"result": {"content": [5]}}], [4]),
    ],
)
async def test_the_content_is_the_output(tmp_path: Path, answers: list[Any], output: Any) -> None:
    plugin = rogue(tmp_path, {"tools/call": answers})

    assert await plugin.execute(call_of("/t")) == output
    await plugin.close()


async def test_an_error_of_the_server_is_a_failure_that_flows_can_tell(tmp_path: Path) -> None:
    plugin = rogue(tmp_path, {"tools/call": [{"error": {"code": -1, "message": "no"}}]})

    error = await failure_of(plugin, "/t")
    await plugin.close()

    assert error.failure == Failed(500, "Tool 't' execution failed: no", {"code": -1, "message": "no"})


async def test_a_tool_that_says_that_it_failed_has_failed(tmp_path: Path) -> None:
    content = [{"type": "text", "text": "no luck"}, {"type": "image"}]
    plugin = rogue(tmp_path, {"tools/call": [{"result": {"isError": True, "content": content}}]})

    error = await failure_of(plugin, "/t")
    await plugin.close()

    assert error.failure == Failed(500, "Tool 't' execution failed: no luck", {"content": content})


async def test_roots_are_none_and_what_is_not_offered_is_refused(tmp_path: Path) -> None:
    asking = [
        '{"jsonrpc": "2.0", "id": "a", "method": "roots/list"}',
        '{"jsonrpc": "2.0", "id": "b", "method": "ping"}',
        '{"jsonrpc": "2.0", "id": "c", "method": "sampling/createMessage", "params": {}}',
    ]
    plugin = rogue(tmp_path, {"tools/list": [*asking, TOOLS], "tools/call": [{"result": {"content": []}}]})
    await plugin.components()
    await plugin.execute(call_of("/t"))
    await plugin.close()

    answers = {message["id"]: message for message in heard(tmp_path) if message.get("id") in ("a", "b", "c")}
    assert answers["a"]["result"] == {"roots": []}
    assert answers["b"]["result"] == {}
    assert answers["c"]["error"]["code"] == -32601


@pytest.mark.parametrize(
    ("answers", "problem"),
    [
        (["hang"], "did not answer `tools/call` within 0.3 s"),
        (["exit"], "its process ended with exit code 4"),
        (['{"jsonrpc": "2.0", "id": 1, oh'], "a message that cannot be read"),
        (["[" + '{"jsonrpc": "2.0"}' + "]"], "several messages in one"),
        (["x" * 20_000], "a line of more than 10,000 bytes"),
    ],
)
async def test_a_server_that_goes_wrong_is_a_failure_and_leaves_nothing(
    tmp_path: Path, answers: list[Any], problem: str
) -> None:
    plugin = rogue(tmp_path, {"tools/call": answers}, read_timeout_s=0.3, limits=RpcLimits(message_bytes=10_000))
    await plugin.components()

    error = await failure_of(plugin, "/t")
    listed = await plugin.components()
    await plugin.close()

    assert problem in error.message
    assert [info.path for info in listed] == ["/t"]
    assert not children()


async def test_a_call_that_is_given_up_is_cancelled_at_the_server(tmp_path: Path) -> None:
    plugin = rogue(tmp_path, {"tools/call": ["hang"]}, read_timeout_s=0.2)

    await failure_of(plugin, "/t")
    await plugin.close()

    call, cancelled = heard(tmp_path)[-2:]
    assert cancelled["method"] == "notifications/cancelled"
    assert cancelled["params"]["requestId"] == call["id"]


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ({"initialize": ["hang"]}, "it did not come to an understanding within 0.5 s"),
        ({"initialize": ["exit"]}, "its process ended with exit code 4 before it could be used"),
        ({"initialize": [{"error": {"code": 1, "message": "no"}}]}, "it answered with error 1: no"),
        ({"initialize": [{"result": {}}]}, "names no version of the protocol"),
        ({"tools/list": [{"result": {"tools": "many"}}]}, "has no list of `tools`"),
        ({"tools/list": [{"result": {"tools": [{}]}}]}, "lists a tool without a name"),
    ],
)
async def test_a_server_that_cannot_be_understood_cannot_be_used(
    tmp_path: Path, script: dict[str, Any], problem: str
) -> None:
    plugin = rogue(tmp_path, script, start_timeout_s=0.5)

    error = await failure_of(plugin, "/t")
    with pytest.raises(ComponentFailed):
        await plugin.components()
    await plugin.close()

    assert problem in error.message
    assert not children()


async def test_pages_of_tools_are_read_to_the_last(tmp_path: Path) -> None:
    page = {"result": {"tools": [{"name": "t"}], "nextCursor": "same"}}
    plugin = rogue(tmp_path, {"tools/list": [page]})

    await plugin.components()
    await plugin.close()

    asked = [message.get("params") for message in heard(tmp_path) if message.get("method") == "tools/list"]
    assert asked[:2] == [{}, {"cursor": "same"}]


async def test_calls_overlap(tmp_path: Path) -> None:
    plugin = McpPlugin("tools", McpSettings(command=PYTHON, args=[str(SERVERS / "tools.py")], cwd=tmp_path))
    waiting = [
        asyncio.create_task(plugin.execute(call_of("/wait", {"until": str(tmp_path / "mark")}))) for _ in range(3)
    ]

    await plugin.execute(call_of("/echo", {"value": "x"}))
    (tmp_path / "mark").touch()

    async with asyncio.timeout(10):
        assert await asyncio.gather(*waiting) == [[{"type": "text", "text": "waited"}]] * 3
    await plugin.close()


async def test_a_server_that_dies_takes_its_children_with_it(tmp_path: Path) -> None:
    script = "import subprocess, sys; print(subprocess.Popen(['sleep', '98765']).pid, file=sys.stderr); sys.exit(1)"
    plugin = McpPlugin("tools", McpSettings(command=PYTHON, args=["-c", script], cwd=tmp_path))

    error = await failure_of(plugin, "/t")
    await plugin.close()

    await until_gone(int(error.message.rpartition("\n")[2]))
