"""Tools of MCP servers behind an address: one made with the `mcp` SDK, and one that does as it likes."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from pyflue.stepflow.config import read_config_value
from pyflue.stepflow.environments import environment_for
from pyflue.stepflow.jsonrpc import RpcLimits
from pyflue.stepflow.outcome import Failed
from pyflue.stepflow.plugins.mcp_http import McpHttpPlugin, McpHttpSettings
from pyflue.stepflow.plugins.port import ComponentFailed, ComponentInfo
from tests.promises import promise
from tests.stepflow.plugins.doubles import call_of, failure_of, mcp_server

HELLO = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": {"name": "x", "version": "1"}}
TOOLS = {"tools": [{"name": "t", "inputSchema": {"type": "object"}}]}
SECRET = "planted-secret"


class Hang:
    """No answer."""


@asynccontextmanager
async def rogue(script: Mapping[str, Any], heard: list[dict[str, Any]] | None = None) -> AsyncIterator[str]:
    """The address of a server that follows a script: bytes as they are, an `error`, or else a result; or no answer."""
    over = asyncio.Event()
    whole = {"initialize": HELLO, "tools/list": TOOLS, **script}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            size = re.search(rb"(?i)content-length: (\d+)", head)
            message = json.loads(await reader.readexactly(int(size[1]))) if size is not None else {}
            if heard is not None and message:
                heard.append(message)
            writer.write(await answer(message))
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def answer(message: dict[str, Any]) -> bytes:
        if "id" not in message:
            return http(b"", status="202 Accepted" if message else "405 No")
        said = whole.get(message["method"], {"error": {"code": -32601, "message": "no such method"}})
        if isinstance(said, Hang):
            await over.wait()
            return b""
        if isinstance(said, bytes):
            return said
        fields = said if isinstance(said, dict) and "error" in said else {"result": said}
        return http(json.dumps({"jsonrpc": "2.0", "id": message["id"], **fields}).encode())

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        yield f"http://{host}:{port}/mcp"
        over.set()


def http(body: bytes, *more: str, status: str = "200 OK", kind: str = "application/json") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}", "Connection: close", *more]
    return "\r\n".join([*lines, "", ""]).encode() + body


@pytest.fixture
def free_port() -> int:
    """A port for a server that comes and goes."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


@asynccontextmanager
async def plugin_at(url: str, **settings: Any) -> AsyncIterator[McpHttpPlugin]:
    plugin = McpHttpPlugin("tools", McpHttpSettings(url=url, **{"grace_s": 0.5, **settings}))
    async with asyncio.timeout(30):
        try:
            yield plugin
        finally:
            await plugin.close()


@promise("stepflow.mcp")
@pytest.mark.parametrize("mode", [(), ("json",)])
async def test_a_server_of_the_sdk_lists_its_tools_and_does_its_work(mode: tuple[str, ...]) -> None:
    headers = {"Authorization": f"Bearer {SECRET}"}
    async with mcp_server(*mode) as url, plugin_at(url, headers=headers) as plugin:
        listed = {info.path: info for info in await plugin.components()}
        output = await plugin.execute(call_of("/echo", {"value": "hello"}))
        by_last_segment = await plugin.execute(call_of("/some/where/header", {"name": "authorization"}))
        failed = await failure_of(plugin, "/fail", {"why": "because"})
        unknown = await failure_of(plugin, "/nope", None)
        misused = await failure_of(plugin, "/echo", ["value"])

    assert sorted(listed) == ["/crash", "/echo", "/fail", "/header", "/variable", "/wait"]
    assert (listed["/echo"].description, listed["/fail"].description) == ("Gives back what it gets.", "MCP tool")
    assert listed["/echo"].output_schema == {"type": "object"}
    assert listed["/echo"].input_schema is not None
    assert listed["/echo"].input_schema["properties"]["value"]["type"] == "string"
    assert output == [{"type": "text", "text": "hello"}]
    assert by_last_segment == [{"type": "text", "text": f"Bearer {SECRET}"}]
    assert failed.failure is not None
    assert failed.failure.code == 500
    assert failed.message.startswith("Tool 'fail' execution failed: ")
    assert unknown.failure is not None
    assert unknown.message.startswith("Tool 'nope' execution failed")
    assert misused.message == "Tool 'echo' execution failed: the arguments of a tool are an object"


async def test_a_server_that_was_started_anew_is_called_as_if_nothing_had_happened(free_port: int) -> None:
    async with plugin_at(f"http://127.0.0.1:{free_port}/mcp") as plugin:
        async with mcp_server(port=free_port):
            assert await plugin.execute(call_of("/echo", {"value": "1"})) == [{"type": "text", "text": "1"}]
        async with mcp_server(port=free_port):
            assert await plugin.execute(call_of("/echo", {"value": "2"})) == [{"type": "text", "text": "2"}]


async def test_a_server_that_ends_in_the_middle_of_a_call_is_a_failure_and_asked_again_later(free_port: int) -> None:
    async with plugin_at(f"http://127.0.0.1:{free_port}/mcp") as plugin:
        async with mcp_server(port=free_port):
            crashed = await failure_of(plugin, "/crash", {})
        gone = await failure_of(plugin, "/echo", {"value": "x"})
        async with mcp_server(port=free_port):
            assert await plugin.execute(call_of("/echo", {"value": "y"})) == [{"type": "text", "text": "y"}]

    assert crashed.message.startswith("Plugin 'tools' cannot be used: ")
    assert crashed.is_retryable
    assert gone.message.startswith("Plugin 'tools' cannot be used: it cannot be reached or broke off (")


async def test_what_the_server_gives_is_the_output_with_all_its_fields() -> None:
    content = [{"type": "text", "text": "a", "ours": {"x": None}}]
    # A schema that takes for ever to check, of an output that does not fit it.
    slow = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^(a+)+$"}}, "required": ["b"]}
    tools = {"tools": [{"name": "t", "inputSchema": {"type": "object"}, "outputSchema": slow}]}
    result = {"content": content, "structuredContent": {"a": "a" * 40 + "!"}}
    async with rogue({"tools/list": tools, "tools/call": result}) as url, plugin_at(url) as plugin:
        assert await plugin.components() == [
            ComponentInfo(
                path="/t", description="MCP tool", input_schema={"type": "object"}, output_schema={"type": "object"}
            )
        ]
        assert await plugin.execute(call_of("/t")) == content


async def test_a_tool_that_says_that_it_failed_has_failed() -> None:
    content = [{"type": "text", "text": "no luck"}]
    async with rogue({"tools/call": {"isError": True, "content": content}}) as url, plugin_at(url) as plugin:
        error = await failure_of(plugin, "/t")
    assert error.failure == Failed(500, "Tool 't' execution failed: no luck", {"content": content})


async def test_an_error_of_the_server_is_a_failure_that_flows_can_tell() -> None:
    said = {"error": {"code": -1, "message": f"{SECRET}: no"}}
    headers = {"Authorization": f"Bearer {SECRET}"}
    async with rogue({"tools/call": said}) as url, plugin_at(url, headers=headers) as plugin:
        error = await failure_of(plugin, "/t")
    shown = "[REDACTED]: no"
    assert error.failure == Failed(500, f"Tool 't' execution failed: {shown}", {"code": -1, "message": shown})


async def test_pages_of_tools_are_read_to_the_last() -> None:
    heard: list[dict[str, Any]] = []
    page = {**TOOLS, "nextCursor": "same"}
    async with rogue({"tools/list": page}, heard) as url, plugin_at(url) as plugin:
        await plugin.components()
    asked = [message.get("params") for message in heard if message.get("method") == "tools/list"]
    assert [(params or {}).get("cursor") for params in asked] == [None, "same"] * 2


@pytest.mark.parametrize(
    ("answer", "problem", "is_retryable"),
    [
        (Hang(), "it did not answer `tools/call` within 0.3 s", True),
        (http(b"", status="503 Down"), "it answered with HTTP status 503", True),
        (http(b"no", status="401 No", kind="text/plain"), "it answered with HTTP status 401", False),
        (http(b"", "Location: http://127.0.0.2:9/other", status="307 Go"), "not followed", True),
        (http(b"<html>", kind="text/html"), "Unexpected content type: text/html", True),
        (http(b"x" * 20_000), "", True),
        (http(b"data: " + b"x" * 20_000 + b"\n\n", kind="text/event-stream"), "", True),
        (http(gzip.compress(b"{}"), "Content-Encoding: gzip"), "The answer is compressed", True),
        (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{", "", True),
        (b"nonsense\r\n\r\n", "it cannot be reached or broke off", True),
        ([], "", True),
    ],
)
async def test_a_server_that_goes_wrong_is_a_failure_and_can_be_asked_again(
    answer: Any, problem: str, is_retryable: bool
) -> None:
    limits = RpcLimits(message_bytes=10_000)
    async with rogue({"tools/call": answer}) as url, plugin_at(url, read_timeout_s=0.3, limits=limits) as plugin:
        error = await failure_of(plugin, "/t")
        listed = await plugin.components()

    assert problem in error.message
    assert len(error.message) < 1500
    assert error.is_retryable == is_retryable
    assert [info.path for info in listed] == ["/t"]


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ({"initialize": Hang(), "server/discover": Hang()}, "it did not come to an understanding within 0.5 s"),
        ({"initialize": {"error": {"code": 1, "message": "no"}}}, "it answered with error 1: no"),
        ({"initialize": {}}, "it does not speak the protocol"),
        ({"tools/list": {"tools": "many"}}, "it does not speak the protocol"),
        ({"tools/list": {"tools": [{}]}}, "it does not speak the protocol"),
        ({"tools/list": http(b"", status="403 No")}, "it answered with HTTP status 403"),
    ],
)
async def test_a_server_that_cannot_be_understood_cannot_be_used(script: dict[str, Any], problem: str) -> None:
    async with rogue(script) as url, plugin_at(url, start_timeout_s=0.5) as plugin:
        error = await failure_of(plugin, "/t")
        with pytest.raises(ComponentFailed):
            await plugin.components()
    assert problem in error.message


async def test_a_call_that_is_given_up_is_cancelled_at_the_server() -> None:
    heard: list[dict[str, Any]] = []
    async with rogue({"tools/call": Hang()}, heard) as url, plugin_at(url, read_timeout_s=0.2) as plugin:
        await failure_of(plugin, "/t")
        await plugin.components()
    [call] = [message for message in heard if message.get("method") == "tools/call"]
    [cancelled] = [message for message in heard if message.get("method") == "notifications/cancelled"]
    assert cancelled["params"]["requestId"] == call["id"]


async def test_a_header_that_cannot_be_sent_is_named_and_not_shown() -> None:
    async with plugin_at("http://127.0.0.1:9/", headers={"X-Key": f"{SECRET}\n"}) as plugin:
        error = await failure_of(plugin, "/t")
    assert error.message == (
        "Plugin 'tools' cannot be used: it cannot be reached or broke off (its header 'X-Key' cannot be sent)."
    )


async def test_without_the_sdk_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mcp", None)
    async with plugin_at("http://127.0.0.1:9/") as plugin:
        error = await failure_of(plugin, "/t")
    assert "pip install 'pyflue[mcp]'" in error.message
    assert not error.is_retryable


async def test_a_config_names_the_address_and_the_headers_with_variables(tmp_path: Path) -> None:
    async with mcp_server() as url:
        config = read_config_value(
            {
                "plugins": {
                    "tools": {
                        "type": "mcp",
                        "url": "${TOOLS_URL}",
                        "headers": {"Authorization": "Bearer ${TOOLS_KEY}", "X-Kind": "${KIND:-plain}"},
                        "executionTimeoutSecs": 20,
                        "maxMessageBytes": 100_000,
                    }
                },
                "routes": {"/tools": {"plugin": "tools"}},
            },
            tmp_path,
        )
        assert config.warnings == ()
        assert config.unset_variables({}) == ["TOOLS_KEY", "TOOLS_URL"]
        environment = environment_for(config, environ={"TOOLS_URL": url, "TOOLS_KEY": SECRET})
        route = environment.router.resolve("/tools/header", None)
        try:
            shown = await route.plugin.execute(call_of(route.component, {"name": "authorization"}))
            kind = await route.plugin.execute(call_of(route.component, {"name": "x-kind"}))
        finally:
            await environment.close()

    assert (shown[0]["text"], kind[0]["text"]) == (f"Bearer {SECRET}", "plain")


async def test_an_address_that_comes_from_the_environment_is_looked_at_when_it_is_known(tmp_path: Path) -> None:
    config = read_config_value({"plugins": {"tools": {"type": "mcp", "url": "${TOOLS_URL}"}}}, tmp_path)
    plugin = environment_for(config, environ={"TOOLS_URL": f"ftp://{SECRET}"}).plugin("tools")
    error = await failure_of(plugin, "/t")
    assert error.message.endswith("plugin 'tools': `url` is an address that starts with http:// or https://.")
