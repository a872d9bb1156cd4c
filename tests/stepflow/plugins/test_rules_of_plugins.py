"""Rules of plugins that are seen from outside: what they wait for by default, what they send first, what is kept of
what a program said, and the server that is installed as a command."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from pyflue.stepflow import StepflowRuntime
from pyflue.stepflow.config import read_config_value
from pyflue.stepflow.plugins.environment import Environment
from pyflue.stepflow.plugins.mcp import McpPlugin, McpSettings
from tests.stepflow.plugins.doubles import PYTHON, call_of, children, failure_of, until_there
from tests.stepflow.sdk.driver import INITIALIZE, Server
from tests.stepflow.sdk.test_http import HttpServer, execute

# MCP: how long is waited

#: An MCP server that stands still where it is told to, until there is a file of that name, and notes what it hears.
PATIENT = """
import json, os, sys, time
stops_at, folder = sys.argv[1], sys.argv[2]
results = {
    "initialize": {"protocolVersion": "2024-11-05", "capabilities": {}},
    "tools/list": {"tools": [{"name": "t", "inputSchema": {"type": "object"}}]},
    "tools/call": {"content": ["done"]},
}
for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    if message["method"] == stops_at:
        open(os.path.join(folder, "heard"), "w").close()
        while not os.path.exists(os.path.join(folder, "go")):
            time.sleep(0.005)
    answer = {"jsonrpc": "2.0", "id": message["id"], "result": results[message["method"]]}
    print(json.dumps(answer), flush=True)
"""


class ShiftedLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock can be put forward."""

    ahead_s = 0.0

    def time(self) -> float:
        return super().time() + self.ahead_s


def on_a_shifted_clock(test: Callable[[ShiftedLoop], Coroutine[Any, Any, None]]) -> None:
    loop = ShiftedLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(test(loop))


@asynccontextmanager
async def tools(folder: Path, stops_at: str, **settings: Any) -> AsyncIterator[Environment]:
    """The plugins of a config with one MCP server."""
    args = ["-c", PATIENT, stops_at, str(folder)]
    value = {
        "plugins": {"tools": {"type": "mcp", "command": PYTHON, "args": args, **settings}},
        "routes": {"/{*component}": [{"plugin": "tools"}]},
    }
    environment = Environment(read_config_value(value, folder))
    try:
        yield environment
    finally:
        (folder / "go").touch()  # so that it ends by itself
        await environment.close()
    assert not children()


#: The method at which the server stands still, the config's word for it, how long is waited, and what is said then.
WAITS = [
    ("initialize", "startTimeoutSecs", 30.0, "it did not come to an understanding within {} s"),
    ("tools/call", "executionTimeoutSecs", 30.0, "it did not answer `tools/call` within {} s"),
]


@pytest.mark.parametrize(("stops_at", "name", "limit_s", "problem"), WAITS)
@pytest.mark.parametrize("is_said", [False, True])
def test_an_mcp_server_has_thirty_seconds_to_start_and_to_answer_unless_the_config_says_otherwise(
    tmp_path: Path, stops_at: str, name: str, limit_s: float, problem: str, is_said: bool
) -> None:
    waited_s = 500.0 if is_said else limit_s

    async def check(loop: ShiftedLoop) -> None:
        async with tools(tmp_path, stops_at, **({name: waited_s} if is_said else {})) as environment:
            asked = asyncio.ensure_future(failure_of(environment.plugin("tools"), "/t"))
            await until_there(tmp_path / "heard")
            loop.ahead_s += waited_s + 0.1
            async with asyncio.timeout(10):
                error = await asked
        assert problem.format(f"{waited_s:g}") in error.message

    on_a_shifted_clock(check)


def test_an_mcp_server_has_the_time_that_the_config_says_to_list_its_tools(tmp_path: Path) -> None:
    async def check(loop: ShiftedLoop) -> None:
        async with tools(tmp_path, "tools/list", listTimeoutSecs=20) as environment:
            asked = asyncio.ensure_future(environment.components())
            await until_there(tmp_path / "heard")
            loop.ahead_s += 20.1
            async with asyncio.timeout(10):
                found = await asked
        problem = "Plugin 'tools' cannot be used: it did not answer `tools/list` within 20 s."
        assert (found.components, found.failures) == ((), {"tools": problem})

    on_a_shifted_clock(check)


@pytest.mark.parametrize(
    ("stops_at", "settings"),
    [
        ("initialize", {}),
        ("tools/list", {}),
        ("tools/call", {}),
        # A limit for calls is none for the start.
        ("initialize", {"executionTimeoutSecs": 5}),
        ("tools/list", {"executionTimeoutSecs": 5}),
        ("tools/call", {"startTimeoutSecs": 5, "listTimeoutSecs": 5}),
    ],
)
def test_an_mcp_server_that_answers_in_its_last_seconds_is_heard(
    tmp_path: Path, stops_at: str, settings: dict[str, Any]
) -> None:
    async def check(loop: ShiftedLoop) -> None:
        async with tools(tmp_path, stops_at, **settings) as environment:
            asked = asyncio.ensure_future(environment.plugin("tools").execute(call_of("/t")))
            await until_there(tmp_path / "heard")
            loop.ahead_s += 25.0
            # What is due at this time is done first.
            for _ in range(5):
                await asyncio.sleep(0)
            (tmp_path / "go").touch()
            assert await asked == ["done"]

    on_a_shifted_clock(check)


#: More than a pipe and what is kept beside it hold.
LARGE = "x" * 1_000_000


def test_an_mcp_server_has_five_seconds_to_read_what_is_sent_to_it(tmp_path: Path) -> None:
    async def check(loop: ShiftedLoop) -> None:
        async with tools(tmp_path, "tools/call") as environment:
            plugin = environment.plugin("tools")
            first = asyncio.ensure_future(plugin.execute(call_of("/t")))
            await until_there(tmp_path / "heard")
            # It is busy with the first, and reads no more: the second fills its pipe, and the third has to wait.
            second = asyncio.ensure_future(plugin.execute(call_of("/t", {"value": LARGE})))
            await asyncio.sleep(0)
            third = asyncio.ensure_future(failure_of(plugin, "/t"))
            await asyncio.sleep(0)
            loop.ahead_s += 5.1
            async with asyncio.timeout(10):
                error = await third
            assert not first.done()
            assert not second.done()
        assert error.message == "Plugin 'tools' cannot be used: it did not read what it was sent within 5 s."
        await asyncio.gather(first, second, return_exceptions=True)

    on_a_shifted_clock(check)


async def test_how_long_an_mcp_server_may_take_to_read_can_be_set(tmp_path: Path) -> None:
    args = ["-c", PATIENT, "tools/call", str(tmp_path)]
    settings = McpSettings(command=PYTHON, args=args, cwd=tmp_path, write_timeout_s=0.1)
    plugin = McpPlugin("tools", settings)
    first = asyncio.ensure_future(plugin.execute(call_of("/t")))
    await until_there(tmp_path / "heard")
    second = asyncio.ensure_future(plugin.execute(call_of("/t", {"value": LARGE})))
    await asyncio.sleep(0)

    error = await failure_of(plugin, "/t")
    (tmp_path / "go").touch()
    await plugin.close()

    assert error.message == "Plugin 'tools' cannot be used: it did not read what it was sent within 0.1 s."
    await asyncio.gather(first, second, return_exceptions=True)


# Component servers: what is sent first, and what is kept of what they say

#: A component server that gives back how it was greeted.
GREETED = """
import json, sys
greetings = []
for line in sys.stdin:
    message = json.loads(line)
    if message["method"] in ("initialize", "initialized"):
        greetings.append(message)
        result = {"server_protocol_version": 1}
    else:
        result = {"output": {"greetings": greetings, "about": message["params"]["observability"]}}
    if "id" in message:
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
"""


def write_config(folder: Path, script: str, **plugin: Any) -> Path:
    (folder / "server.py").write_text(script, encoding="utf-8")
    entry = {"type": "stepflow", "transport": "stdio", "command": PYTHON, "args": ["server.py"], **plugin}
    config = {"plugins": {"mine": entry}, "routes": {"/mine/{*component}": [{"plugin": "mine"}]}}
    path = folder / "stepflow-config.yml"
    path.write_text(json.dumps(config), encoding="utf-8")
    return path


CALL = {
    "name": "call",
    "steps": [{"id": "asked", "component": "/mine/t"}],
    "output": {"$step": "asked"},
}


async def test_a_server_is_greeted_for_no_run_and_called_for_one(tmp_path: Path) -> None:
    async with StepflowRuntime.start(write_config(tmp_path, GREETED)) as runtime:
        result = await runtime.run(CALL, None)

    initialize, initialized = result.output["greetings"]
    # A server is there for all runs: there is nothing to observe in its start, and `observability` may be left out.
    assert initialize == {
        "jsonrpc": "2.0",
        "id": initialize["id"],
        "method": "initialize",
        "params": {"runtime_protocol_version": 1},
    }
    assert initialized == {"jsonrpc": "2.0", "method": "initialized", "params": {}}
    assert sorted(result.output["about"]) == ["flow_id", "run_id", "span_id", "step_id"]
    assert result.output["about"]["step_id"] == "asked"


#: What a runtime that traces its own start tells with it.
ABOUT = {"trace_id": "0af7651916cd43dd8448eb211c80319c", "span_id": "b7ad6b7169203331"}


@contextmanager
def served(*command: str) -> Iterator[Server]:
    server = Server(list(command))
    try:
        yield server
    finally:
        server.close()


@pytest.mark.parametrize("observability", [ABOUT, {}, None])
def test_a_server_of_the_sdk_takes_what_is_to_be_observed_of_its_start(observability: Any) -> None:
    with served(PYTHON, "-m", "pyflue.stepflow.sdk") as server:
        params = {"runtime_protocol_version": 1, "observability": observability}
        server.send({**INITIALIZE, "params": params})
        assert server.answer_to("init")["result"] == {"server_protocol_version": 1}
        server.send({"jsonrpc": "2.0", "method": "initialized", "params": {}})
        assert [one["component"] for one in server.call("components/list")["result"]["components"]] == ["/udf"]


#: A component server that says more than is kept, and ends.
TALKATIVE = """
import json, os, sys
for line in sys.stdin:
    message = json.loads(line)
    if message["method"] == "initialize":
        result = {"server_protocol_version": 1}
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
    elif message["method"] == "components/execute":
        for number in range(1, 151):
            print(f"line {number}", file=sys.stderr)
        sys.stderr.flush()
        os._exit(3)
"""


async def test_of_what_a_crashed_server_said_the_last_hundred_lines_are_logged_and_the_last_few_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async with StepflowRuntime.start(write_config(tmp_path, TALKATIVE)) as runtime:
        result = await runtime.run(CALL, None)

    logged = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    ends = [entry for entry in logged if entry["event"] == "component_server_ended"]
    # It was called a second time, as the second attempt.
    assert [entry["stderr"] for entry in ends] == [[f"line {number}" for number in range(51, 151)]] * 2
    assert result.error is not None
    assert result.error.code == 500
    assert result.error.message == (
        "step \"asked\" failed: Plugin 'mine' did not answer: its process ended with exit code 3. It said last:\n"
        "line 146\nline 147\nline 148\nline 149\nline 150"
    )
    assert "line 145" not in json.dumps(result.error.details)


# The server that is installed as a command

COMMANDS = [
    [str(Path(sys.executable).with_name("stepflow_server"))],
    [PYTHON, "-m", "pyflue.stepflow.sdk"],
]
UDF = {
    "name": "sum",
    "steps": [
        {
            "id": "code",
            "component": "/put_blob",
            "input": {"blob_type": "data", "data": {"input_schema": {}, "code": "sum(input['numbers'])"}},
        },
        {
            "id": "sum",
            "component": "/mine/udf",
            "input": {"blob_id": {"$step": "code", "path": "blob_id"}, "input": {"$input": "$"}},
        },
    ],
    "output": {"$step": "sum"},
}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_installed_server_says_what_it_can_do(command: list[str]) -> None:
    said = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True, timeout=20)
    assert said.stdout.startswith("usage: stepflow_server [-h] [--http] [--host HOST] [--port PORT]\n")


@pytest.mark.parametrize("command", COMMANDS)
async def test_a_config_can_name_the_installed_server(tmp_path: Path, command: list[str]) -> None:
    path = write_config(tmp_path, "", command=command[0], args=command[1:])
    config = json.loads(path.read_text(encoding="utf-8"))
    config["plugins"]["builtin"] = {"type": "builtin"}
    config["routes"]["/{*component}"] = [{"plugin": "builtin"}]
    path.write_text(json.dumps(config), encoding="utf-8")

    async with StepflowRuntime.start(path) as runtime:
        result = await runtime.run(UDF, {"numbers": [1, 2, 3]})

    assert result.output == {"value": 6}


async def test_the_installed_server_is_found_by_its_name_alone(tmp_path: Path) -> None:
    path = write_config(tmp_path, "", command="stepflow_server", args=[])

    async with StepflowRuntime.start(path) as runtime:
        listed = await runtime.list_components()

    assert [one.path for one in listed] == ["/mine/udf"]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_installed_server_listens_where_it_is_told(command: list[str]) -> None:
    class Installed(HttpServer):
        def __init__(self) -> None:
            Server.__init__(self, [*command, "--http", "--host", "127.0.0.1", "--port", "0"])
            self.port = self.next()["port"]

    server = Installed()
    try:
        listing = {"jsonrpc": "2.0", "id": 1, "method": "components/list", "params": {}}
        status, answer = server.answer(listing)
        assert (status, [one["component"] for one in answer["result"]["components"]]) == (200, ["/udf"])
        status, answer = server.answer(execute("/none", None))
        assert answer["error"]["code"] == -32001
    finally:
        server.close()
