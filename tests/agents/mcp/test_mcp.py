"""What agents get of MCP servers, and what is left of them."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from pyflue.agents.content import Image, Text
from pyflue.agents.mcp import connect
from pyflue.agents.mcp.listing import loosened
from pyflue.agents.mcp.naming import named
from pyflue.agents.tools import check_arguments
from pyflue.engine import scopes
from pyflue.errors import McpFailed, SettingsInvalid
from pyflue.settings import McpServerSettings, mcp_server_settings
from pyflue.typed import Misfit

from .conftest import HttpServer, Servers, answering, call

_TOKEN = "hunter2-but-longer"


async def test_a_stdio_server_gives_its_tools_with_names_descriptions_and_schemas(servers: Servers) -> None:
    async with servers.connected(sample=servers.stdio("sample_server.py")) as tools:
        assert [tool.name for tool in tools] == [
            f"mcp__sample__{name}"
            for name in ("add", "echo", "surroundings", "picture", "fail", "die", "never", "helper", "learn")
        ]
        add = tools[0]
        assert (add.description, add.is_idempotent, add.is_parallel, add.is_async) == (
            "Add two numbers.",
            False,
            False,
            True,
        )
        assert (add.input_schema["type"], add.input_schema["required"]) == ("object", ["a", "b"])
        assert check_arguments(add, {"a": 1, "b": 2}) == {"a": 1, "b": 2}
        with pytest.raises(Misfit):
            check_arguments(add, {"a": "one"})


async def test_results_are_text_images_resources_and_structured_content(servers: Servers) -> None:
    async with servers.connected(sample=servers.stdio("sample_server.py")) as tools:
        assert await call(tools, "mcp__sample__echo", text="hello") == "hello"
        assert await call(tools, "mcp__sample__add", a=1, b=2) == 'Structured content:\n{"sum":3}'
        assert await tools[3].call({}) == [
            Text("Look:"),
            Image(mime_type="image/png", data=b"\x89PNG\r\n\x1a\n..."),
            Text("Resource memo://page:\nThe page."),
        ]
        with pytest.raises(McpFailed, match=r"^Error executing tool fail"):
            await call(tools, "mcp__sample__fail")
        with pytest.raises(McpFailed, match="Input should be a valid integer"):
            await call(tools, "mcp__sample__add", a="one", b=2)


async def test_a_server_sees_only_the_environment_it_is_given_and_runs_in_the_project(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOMEBODY_ELSES_KEY", "not for servers")
    (servers.root / "inner").mkdir()
    settings = servers.stdio("sample_server.py", env={"SAMPLE_PLACE": "/srv/sample-data"}, cwd="inner")
    async with servers.connected(sample=settings) as tools:
        seen = json.loads(await call(tools, "mcp__sample__surroundings"))
    passed_on = {"PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR"}
    assert set(seen["env"]) - passed_on == {"SAMPLE_MARK", "SAMPLE_PLACE"}
    assert (seen["env"]["SAMPLE_PLACE"], seen["cwd"]) == ("/srv/sample-data", str(servers.root / "inner"))


async def test_annotations_count_only_if_the_entry_says_so(servers: Servers) -> None:
    async with servers.connected(sample=servers.stdio("sample_server.py", trust_annotations=True)) as tools:
        assert [(tool.name, tool.is_idempotent, tool.is_parallel) for tool in tools[:3]] == [
            ("mcp__sample__add", True, True),
            ("mcp__sample__echo", True, False),
            ("mcp__sample__surroundings", False, False),
        ]


async def test_a_streamable_http_server_is_called_with_the_headers_of_its_entry(
    servers: Servers, http_server: HttpServer
) -> None:
    settings = McpServerSettings(url=http_server.url, headers={"Authorization": f"Bearer {_TOKEN}"}, timeout_s=10)
    async with servers.connected(web=settings) as tools:
        assert await call(tools, "mcp__web__add", a=1, b=2) == 'Structured content:\n{"sum":3}'
        seen = json.loads(await call(tools, "mcp__web__surroundings"))
        assert _TOKEN not in repr(list(tools))
        # It was sent; what comes back of it is taken out.
        assert seen["headers"]["authorization"] == "[header Authorization]"
        await call(tools, "mcp__web__learn")
        while "mcp__web__learned" not in [tool.name for tool in tools]:
            await call(tools, "mcp__web__echo", text="still there?")
        in_flight = asyncio.create_task(call(tools, "mcp__web__never"))
        await call(tools, "mcp__web__echo", text="begun")
        http_server.stop()
        with pytest.raises(McpFailed, match="MCP server 'web'"):
            await in_flight
        with pytest.raises(McpFailed, match=r"MCP server 'web' cannot be used: .*connect"):
            await call(tools, "mcp__web__echo", text="again")


async def test_two_servers_and_two_runs_at_once_have_connections_of_their_own(servers: Servers) -> None:
    settings = servers.stdio("sample_server.py")
    async with servers.connected(one=settings, two=settings) as first, servers.connected(one=settings) as second:
        pids = await asyncio.gather(
            call(first, "mcp__one__surroundings"),
            call(first, "mcp__two__surroundings"),
            call(second, "mcp__one__surroundings"),
        )
        assert len({json.loads(seen)["pid"] for seen in pids}) == 3
        answers = await asyncio.gather(*(call(first, "mcp__one__echo", text=str(n)) for n in range(50)))
        assert answers == [str(n) for n in range(50)]


async def test_a_server_that_dies_in_a_call_fails_the_call_and_the_next_one_connects_again(servers: Servers) -> None:
    async with servers.connected(sample=servers.stdio("sample_server.py")) as tools:
        await call(tools, "mcp__sample__helper")
        other = asyncio.create_task(call(tools, "mcp__sample__never"))
        with pytest.raises(McpFailed, match=r"The connection to MCP server 'sample' has ended.*not known whether"):
            await call(tools, "mcp__sample__die")
        with pytest.raises(McpFailed, match="has ended"):
            await other
        texts = await asyncio.gather(*(call(tools, "mcp__sample__echo", text=text) for text in "ab"))
        assert texts == ["a", "b"]
        # One server, and nothing of the one that died.
        assert len(servers.processes()) == 1


async def test_a_late_answer_is_a_timeout_and_taken_for_no_other_call(servers: Servers) -> None:
    async with servers.connected(raw=servers.stdio("raw_server.py", "late", timeout_s=1.0)) as tools:
        before = servers.processes()
        with pytest.raises(McpFailed, match=r"^MCP server 'raw' did not answer in 1 s"):
            await call(tools, "mcp__raw__good")
        assert await call(tools, "mcp__raw__good") == "answer 2"
        assert servers.processes() == before


async def test_closing_from_another_task_ends_the_server_with_all_it_has_started(servers: Servers) -> None:
    stack = AsyncExitStack()
    tools = await asyncio.create_task(connect({"sample": servers.stdio("sample_server.py")}, stack, root=servers.root))
    await asyncio.create_task(call(tools, "mcp__sample__helper"))
    pending = asyncio.create_task(call(tools, "mcp__sample__never"))
    assert len(servers.processes()) == 2
    async with asyncio.timeout(5):
        await asyncio.create_task(stack.aclose())
        assert servers.processes() == []
        with pytest.raises(McpFailed):
            await pending
        with pytest.raises(McpFailed, match="The connection to MCP server 'sample' was closed"):
            await call(tools, "mcp__sample__echo", text="too late")


async def test_a_server_that_does_not_want_to_end_is_ended(servers: Servers) -> None:
    async with servers.connected(raw=servers.stdio("raw_server.py", "stubborn")) as tools:
        assert [tool.name for tool in tools] == ["mcp__raw__good"]


async def test_being_cancelled_while_connecting_leaves_no_server(servers: Servers) -> None:
    stack = AsyncExitStack()
    both = {"mute": servers.stdio("raw_server.py", "mute"), "sample": servers.stdio("sample_server.py")}
    connecting = asyncio.create_task(connect(both, stack, root=servers.root))
    async with asyncio.timeout(10):
        while len(servers.processes()) < 2:
            await asyncio.to_thread(servers.processes)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        assert servers.processes() == []
        await stack.aclose()


async def test_a_cancelled_call_ends_and_the_connection_goes_on(servers: Servers) -> None:
    async with servers.connected(sample=servers.stdio("sample_server.py")) as tools:
        pending = asyncio.create_task(call(tools, "mcp__sample__never"))
        await call(tools, "mcp__sample__echo", text="begun")
        pending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pending
        assert await call(tools, "mcp__sample__echo", text="on") == "on"


def test_an_event_loop_that_is_closed_around_a_connection_leaves_no_server(servers: Servers) -> None:
    async def forget() -> int:
        await connect({"sample": servers.stdio("sample_server.py")}, AsyncExitStack(), root=servers.root)
        return len(servers.processes())

    assert asyncio.run(forget()) == 1
    assert servers.processes() == []


async def test_a_connection_is_no_part_of_the_run_that_makes_it(servers: Servers) -> None:
    class Run:
        def __init__(self) -> None:
            self.tasks: list[asyncio.Task[Any]] = []

        def add_task(self, task: asyncio.Task[Any]) -> None:
            self.tasks.append(task)

    run, loop = Run(), asyncio.get_running_loop()
    factory = loop.get_task_factory()
    scopes.install(loop)
    try:
        with scopes.inside(scopes.Scope(run)):
            async with servers.connected(raw=servers.stdio("raw_server.py", "legacy")) as tools:
                await call(tools, "mcp__raw__good")
    finally:
        loop.set_task_factory(factory)
    assert run.tasks == []


async def test_hostile_definitions_are_left_out_with_a_warning_or_made_harmless(
    servers: Servers, capsys: pytest.CaptureFixture[str]
) -> None:
    async with servers.connected(raw=servers.stdio("raw_server.py", "hostile")) as tools:
        by_name = {tool.name: tool for tool in tools}
        assert [re.sub("_[0-9a-f]{8}$", "_#", name) for name in by_name] == [
            "mcp__raw__good",
            "mcp__raw__wordy",
            "mcp__raw__w_rd_y_#",
            "mcp__raw__w_rd_y_#",
            f"mcp__raw__{'l' * 54}",
            "mcp__raw__trap",
        ]
        assert len(by_name["mcp__raw__wordy"].description) == 8192
        assert by_name["mcp__raw__good"].description == "Works."
        # Neither the pattern nor the references are followed, here or in the SDK; both would take for ever.
        trap = by_name["mcp__raw__trap"]
        arguments = {"a": "a" * 40 + "!", "b": 1}
        assert check_arguments(trap, arguments) == arguments
        with pytest.raises(Misfit):
            check_arguments(trap, {"b": 1})
        texts = await call(tools, "mcp__raw__trap", **arguments)
        assert texts == [
            "x" * 256 * 1024,
            "[audio of type audio/wav left out: models cannot read it]",
            "[image left out: it is not base64]",
            "[737,925 more characters of text were left out]",
        ]
    lines = [line for line in capsys.readouterr().err.splitlines() if "mcp_tool_left_out" in line]
    assert len(lines) == 11


async def test_tools_that_a_server_of_before_changes_are_there_after_it_says_so(servers: Servers) -> None:
    async with servers.connected(raw=servers.stdio("raw_server.py", "legacy")) as tools:
        assert [tool.name for tool in tools] == ["mcp__raw__good"]
        await call(tools, "mcp__raw__good")
        while len(tools) == 1:
            await call(tools, "mcp__raw__good")
        assert [tool.name for tool in tools][:2] == ["mcp__raw__good", "mcp__raw__new_0"]


async def test_lines_that_are_no_messages_are_passed_over(servers: Servers) -> None:
    async with servers.connected(raw=servers.stdio("raw_server.py", "chatter")) as tools:
        assert [tool.name for tool in tools] == ["mcp__raw__good"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"command": "no-such-program-anywhere"}, "there is no program 'no-such-program-anywhere'. Install it"),
        ({"command": "/"}, "cannot be started: '/': Permission denied"),
        ({"command": "x", "args": ("a\0b",)}, "its arguments or its env cannot be given to a program"),
        ({"command": "x", "cwd": ".."}, "its cwd '..' is no folder inside of the project"),
        ({"command": "x", "cwd": "missing"}, "its cwd 'missing' is no folder inside of the project"),
        (
            {
                "command": sys.executable,
                "args": ("-c", "import os; print(os.environ['KEY'], file=os.sys.stderr); os._exit(7)"),
                "env": {"KEY": _TOKEN},
            },
            "cannot be used: it ended with exit code 7; it said: [env KEY].",
        ),
        ({"url": "http://127.0.0.1:9/", "headers": {"X-Key": f"{_TOKEN}\n"}}, "its header 'X-Key' cannot be sent"),
        ({"url": f"http://user:{_TOKEN}@127.0.0.1:9/mcp?key={_TOKEN}"}, "cannot be used"),
    ],
)
async def test_a_server_that_cannot_be_started_or_reached_is_named_with_what_to_do(
    servers: Servers, settings: dict[str, Any], message: str
) -> None:
    entry = McpServerSettings(**settings, timeout_s=10)
    with pytest.raises(McpFailed) as caught:
        async with servers.connected(broken=entry):
            pass
    assert message in str(caught.value)
    assert "'broken'" in str(caught.value)
    assert caught.value.hint
    assert _TOKEN not in f"{caught.value} {caught.value!r}"


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("mute", "it did not answer in 2 s"),
        ("long", "it sent a line of more than 8,388,608 bytes"),
        ("deep", "it sent a message that cannot be read"),
    ],
)
async def test_a_server_that_does_not_speak_mcp_is_given_up(servers: Servers, kind: str, problem: str) -> None:
    with pytest.raises(McpFailed, match=f"^MCP server 'raw' cannot be used: {problem}"):
        async with servers.connected(raw=servers.stdio("raw_server.py", kind, timeout_s=2.0)):
            pass


_BOMB = gzip.compress(b" " * 20_000_000)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, "did not answer in 1 s"),
        (b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n", "it answered with HTTP status 401"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nHi",
            "Unexpected content type: text/html",
        ),
        (b"HTTP/1.1 302 Go\r\nLocation: http://127.0.0.1:9/other\r\nContent-Length: 0\r\n\r\n", "not followed"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\n\r\n" + _BOMB,
            "compressed",
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + b" " * 9_000_000,
            "larger than 8,388,608 bytes",
        ),
    ],
)
async def test_an_address_that_answers_something_else_is_no_server(
    servers: Servers, answer: bytes | None, message: str
) -> None:
    async with answering(answer) as url:
        with pytest.raises(McpFailed) as caught:
            async with servers.connected(web=McpServerSettings(url=url, timeout_s=1.0, headers={"X-Key": _TOKEN})):
                pass
    assert str(caught.value).startswith("MCP server 'web' cannot be used: ")
    assert message in str(caught.value)
    assert _TOKEN not in str(caught.value)


async def test_after_a_server_has_forgotten_its_session_the_next_call_begins_another(servers: Servers) -> None:
    sessions: list[str] = []
    forgotten: set[str] = set()

    def answer(head: bytes, body: bytes) -> bytes:
        asked = json.loads(body) if body else {}
        session = re.search(rb"(?i)mcp-session-id: (\S+)", head)
        if session is not None and session[1].decode() in forgotten:
            return b"HTTP/1.1 404 Gone\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        if "id" not in asked:
            return b"HTTP/1.1 202 Accepted\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        more = b""
        match asked["method"]:
            case "initialize":
                sessions.append(f"session-{len(sessions)}")
                more = f"Mcp-Session-Id: {sessions[-1]}\r\n".encode()
                version = asked["params"]["protocolVersion"]
                info = {"name": "web", "version": "1"}
                said = {"result": {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info}}
            case "tools/list":
                said = {"result": {"tools": [{"name": "whoami", "inputSchema": {"type": "object"}}]}}
            case "tools/call":
                assert session is not None
                said = {"result": {"content": [{"type": "text", "text": session[1].decode()}]}}
            case _:
                said = {"error": {"code": -32601, "message": "Method not found"}}
        told = json.dumps({"jsonrpc": "2.0", "id": asked["id"], **said}).encode()
        length = f"Content-Length: {len(told)}\r\nConnection: close\r\n\r\n".encode()
        return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" + more + length + told

    async with answering(answer) as url, servers.connected(web=McpServerSettings(url=url, timeout_s=5)) as tools:
        assert await call(tools, "mcp__web__whoami") == "session-0"
        forgotten.add("session-0")
        with pytest.raises(McpFailed, match=r"The connection to MCP server 'web' has ended.* connects again"):
            await call(tools, "mcp__web__whoami")
        assert await call(tools, "mcp__web__whoami") == "session-1"


async def test_if_one_server_fails_the_others_are_ended(servers: Servers) -> None:
    with pytest.raises(McpFailed, match="there is no program"):
        async with servers.connected(
            sample=servers.stdio("sample_server.py"), broken=McpServerSettings(command="no-such-program-anywhere")
        ):
            pass
    assert servers.processes() == []


async def test_without_the_sdk_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "mcp", None)
    with pytest.raises(McpFailed, match=r"Install the extra: pip install 'pyflue\[mcp\]'"):
        await connect({"a": McpServerSettings(command="a")}, AsyncExitStack(), root=tmp_path)
    assert await connect({}, AsyncExitStack(), root=tmp_path) == ()


def test_names_have_the_characters_and_the_length_that_providers_take_and_are_told_apart() -> None:
    tools = [("a", "b.c"), ("a", "b_c"), ("a", "b c"), ("x__y", "z"), ("x", "y__z"), ("long", "n" * 100), ("é", "ü")]
    names = named(tools)
    assert [re.sub("_[0-9a-f]{8}$", "_#", name) for name in names] == [
        "mcp__a__b_c_#",
        "mcp__a__b_c",
        "mcp__a__b_c_#",
        "mcp__x__y__z_#",
        "mcp__x__y__z_#",
        f"mcp__long__{'n' * 53}",
        "mcp______",
    ]
    assert len(set(names)) == len(tools)
    assert named(tools[::-1]) == names[::-1]
    assert all(re.fullmatch("[A-Za-z0-9_-]{1,64}", name) for name in named([("s" * 64, "t" * n) for n in range(1, 9)]))


def test_a_tool_cannot_take_the_name_that_tells_another_one_apart() -> None:
    taken = named([("a", "b.c"), ("a", "b c")])[0]
    tools = [("a", "b.c"), ("a", "b c"), ("a", taken.removeprefix("mcp__a__"))]
    names = named(tools)
    assert (names[2], len(set(names))) == (taken, 3)


def test_an_entry_trusts_annotations_only_with_a_plain_true() -> None:
    assert mcp_server_settings("x", "y", {"command": "a", "trust_annotations": True}).trust_annotations is True
    assert mcp_server_settings("x", "y", {"command": "a"}).trust_annotations is False
    with pytest.raises(SettingsInvalid, match="expected true or false"):
        mcp_server_settings("x", "y", {"command": "a", "trust_annotations": 1})


def test_what_is_checked_here_of_a_schema_fits_whatever_fits_the_schema() -> None:
    schema = {
        "type": "object",
        "required": ["a"],
        "properties": {
            "a": {"oneOf": [{"type": "string", "pattern": "x"}, {"type": "string", "pattern": "y"}]},
            "pattern": {"type": "integer", "minimum": 1},
            "list": {"type": "array", "items": {"enum": [1, 2]}, "contains": {"const": 1}},
            "other": {"$ref": "#/$defs/other", "not": {"pattern": "x"}},
            "free": {"patternProperties": {"^x": {}}, "additionalProperties": False},
        },
        "additionalProperties": False,
        "$defs": {"other": {"type": "string"}},
    }
    assert loosened(schema) == {
        "type": "object",
        "required": ["a"],
        "properties": {
            "a": {"anyOf": [{"type": "string"}, {"type": "string"}]},
            "pattern": {"type": "integer", "minimum": 1},
            "list": {"type": "array", "items": {"enum": [1, 2]}},
            "other": {},
            "free": {},
        },
        "additionalProperties": False,
    }
