"""Rules of routes and of what is said between a runtime and its component servers, seen in whole flows: over pipes,
over HTTP, and to MCP servers, with servers that write down all that they hear."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from pyflue import __version__
from pyflue.stepflow import FlowResult, StepflowRuntime
from tests.stepflow.plugins.doubles import PYTHON, SERVERS

Json = dict[str, Any]


def step(id_: str, component: str, given: Any = None, **fields: Any) -> Json:
    return {"id": id_, "component": component, "input": given, **fields}


def flow(*steps: Json, output: Any) -> Json:
    return {"name": "sample", "description": "A sample.", "steps": list(steps), "output": output}


@asynccontextmanager
async def running(folder: Path, plugins: Json, routes: Json) -> AsyncGenerator[StepflowRuntime]:
    path = folder / "stepflow-config.yml"
    config = {"plugins": {"builtin": {"type": "builtin"}, **plugins}, "routes": routes}
    path.write_text(json.dumps({**config, "retry": {"backoff": {"type": "constant", "delayMs": 1}}}))
    async with StepflowRuntime.start(path) as runtime, asyncio.timeout(30):
        yield runtime


def heard(folder: Path) -> list[Any]:
    """What a server has written down."""
    return [json.loads(line) for line in (folder / "heard").read_text(encoding="utf-8").splitlines()]


# Routes

SMALL = {"path": "$.size", "value": {"rooms": [1], "garden": None}}


async def test_a_condition_is_about_what_the_input_comes_to_and_about_all_of_it(tmp_path: Path) -> None:
    behaviors = {json.dumps({"size": SMALL["value"]}): {"outcome": "success", "result": "small"}}
    plugins = {"mock": {"type": "mock", "components": {"/noop": {"behaviors": behaviors}}}}
    routes = {"/{*component}": [{"plugin": "mock", "conditions": [SMALL]}, {"plugin": "builtin"}]}
    size = {"rooms": [{"$input": "rooms"}], "garden": {"$input": "garden"}}
    document = flow(step("s", "/noop", {"size": size}), output={"$step": "s"})
    inputs = [{"rooms": 1, "garden": None}, {"rooms": 1, "garden": 5}, {"rooms": "1", "garden": None}]

    async with running(tmp_path, plugins, routes) as runtime:
        results = [await runtime.run(document, given) for given in inputs]

    assert [result.output for result in results] == [
        {"value": "small"},
        {"size": {"rooms": [1], "garden": 5}},
        {"size": {"rooms": ["1"], "garden": None}},
    ]


async def test_a_condition_on_what_the_input_does_not_have_fails_the_step_and_passes_to_no_other_rule(
    tmp_path: Path,
) -> None:
    plugins: Json = {"mock": {"type": "mock", "components": {}}}
    routes = {"/{*component}": [{"plugin": "mock", "conditions": [SMALL]}, {"plugin": "builtin"}]}
    async with running(tmp_path, plugins, routes) as runtime:
        result = await runtime.run(flow(step("s", "/noop", {"other": 1}), output={"$step": "s"}), None)

    assert result.error is not None
    assert (result.error.code, "looks at $.size, which the input does not have" in result.error.message) == (500, True)


async def test_a_rule_that_stands_alone_looks_at_its_lists_too(tmp_path: Path) -> None:
    routes = {"/{*component}": [{"plugin": "builtin", "componentAllow": ["/noop"]}]}
    async with running(tmp_path, {}, routes) as runtime:
        allowed = await runtime.run(flow(step("s", "/noop", {"n": 1}), output={"$step": "s"}), None)
        denied = await runtime.run(flow(step("s", "/sleep", {"duration_ms": 0}), output={"$step": "s"}), None)

    assert allowed == FlowResult.success({"n": 1})
    assert denied.error is not None
    assert "no rule of route '/{*component}' admits '/sleep'" in denied.error.message


# Over pipes

#: Writes down what it hears. `twice` ends the process when all three calls of it are there, the first time; `ask` asks
#: the runtime with the number of its own call as the id of its request.
PIPES = """\
import json, os, sys

log = open("heard", "a", buffering=1)
calls = []


def send(message):
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\\n")
    sys.stdout.flush()


for line in sys.stdin:
    message = json.loads(line)
    params = message.get("params") or {}
    method = message.get("method")
    attempt = params.get("attempt")
    log.write(json.dumps([method, *([attempt] if attempt else [])]) + "\\n")
    if method == "initialize":
        send({"id": message["id"], "result": {"server_protocol_version": 1}})
    elif method is None:
        # What the first call has asked for: both have the same id.
        send({"id": calls[0]["id"], "result": {"output": message}})
    elif method == "components/execute":
        calls.append(message)
        if params["component"] == "/ask":
            about = {"observability": params["observability"]}
            send({"id": message["id"], "method": "blobs/put", "params": {"data": 5, **about}})
        elif attempt == 2:
            send({"id": message["id"], "result": {"output": [params["input"], attempt]}})
        elif len(calls) == 3:
            os._exit(1)
"""
SERVER = {"type": "stepflow", "transport": "stdio", "command": PYTHON, "args": ["server.py"]}
MINE = {"/mine": [{"plugin": "mine"}], "/{*component}": [{"plugin": "builtin"}]}


async def test_all_calls_that_the_end_of_a_server_interrupts_are_sent_once_more_after_a_new_greeting(
    tmp_path: Path,
) -> None:
    (tmp_path / "server.py").write_text(PIPES)
    steps = [step(f"s{number}", "/mine/twice", number) for number in range(3)]
    document = flow(*steps, output=[{"$step": one["id"]} for one in steps])

    async with running(tmp_path, {"mine": SERVER}, MINE) as runtime:
        result = await runtime.run(document, None)

    assert result.output == {"value": [[number, 2] for number in range(3)]}
    greeting: list[Any] = [["initialize"], ["initialized"]]
    first, second = [["components/execute", attempt] for attempt in (1, 2)]
    assert heard(tmp_path) == [*greeting, *[first] * 3, *greeting, *[second] * 3]


async def test_ids_are_those_of_who_asks_and_may_be_numbers_that_the_other_side_has_used(tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text(PIPES)
    async with running(tmp_path, {"mine": SERVER}, MINE) as runtime:
        result = await runtime.run(flow(step("s", "/mine/ask"), output={"$step": "s"}), None)

    output = result.output or {}
    assert output == {"jsonrpc": "2.0", "id": output["id"], "result": {"blob_id": hashlib.sha256(b"5").hexdigest()}}
    assert isinstance(output["id"], str | int)


#: Says what it does on its standard error.
TALKING = """\
import json, sys

for line in sys.stdin:
    message = json.loads(line)
    print(message["method"], "ü", file=sys.stderr, flush=True)
    if message["method"] == "initialize":
        result = {"server_protocol_version": 1}
    elif message["method"] == "components/execute":
        result = {"output": "said"}
    else:
        continue
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
"""


@pytest.mark.parametrize(
    ("wanted", "logged"), [("verbose", ["initialize ü", "initialized ü", "components/execute ü"]), (None, [])]
)
async def test_what_a_server_says_beside_its_answers_is_logged_only_if_that_is_wanted(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    wanted: str | None,
    logged: list[str],
) -> None:
    if wanted is None:
        monkeypatch.delenv("STEPFLOW_COMPONENT_STDERR", raising=False)
    else:
        monkeypatch.setenv("STEPFLOW_COMPONENT_STDERR", wanted)
    (tmp_path / "server.py").write_text(TALKING, encoding="utf-8")
    talking = {**SERVER, "env": {"PYTHONIOENCODING": "utf-8"}}

    async with running(tmp_path, {"mine": talking}, MINE) as runtime:
        result = await runtime.run(flow(step("s", "/mine/any"), output={"$step": "s"}), None)

    assert result.output == {"value": "said"}
    entries = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert [entry["line"] for entry in entries if "line" in entry] == logged


# Over HTTP


class Posted:
    """A component server over HTTP that writes down what is posted to it, and answers as the component says."""

    def __init__(self) -> None:
        self.posts: list[tuple[str, dict[str, str], Json]] = []
        self._answered: dict[Any, asyncio.Future[Json]] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
            message = json.loads(await reader.readexactly(int(headers["content-length"])))
            self.posts.append((head[0], headers, message))
            await self._answer(message, writer)
        finally:
            writer.close()
            await writer.wait_closed()

    async def _answer(self, message: Json, writer: asyncio.StreamWriter) -> None:
        match message.get("method"):
            case "initialize":
                self._reply(writer, 200, {"id": message["id"], "result": {"server_protocol_version": 1}})
            case "components/execute":
                await self._execute(message, writer)
            case None:
                self._answered[message["id"]].set_result(message)
                self._reply(writer, 202)
            case _:
                self._reply(writer, 202)

    async def _execute(self, message: Json, writer: asyncio.StreamWriter) -> None:
        params, id_ = message["params"], message["id"]
        if params["component"] == "/broken":
            error = {"code": -32003, "message": f"attempt {params['attempt']}", "data": None}
            self._reply(writer, params["input"], {"id": id_, "error": error})
            return
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nStepflow-Instance-Id: one-of-many\r\n")
        writer.write(b"Connection: close\r\n\r\n")
        about = {"observability": params["observability"]}
        found: list[Any] = []
        for number in range(2):
            # Its own ids, a number and a text.
            asking = number or "first"
            self._answered[asking] = asyncio.get_running_loop().create_future()
            request = {"id": asking, "method": "blobs/put", "params": {"data": number, "blob_type": "data", **about}}
            writer.write(b"data: " + json.dumps({"jsonrpc": "2.0", **request}).encode() + b"\n\n")
            await writer.drain()
            found.append((await self._answered[asking])["result"]["blob_id"])
        result = {"id": id_, "result": {"output": found}}
        writer.write(b"data: " + json.dumps({"jsonrpc": "2.0", **result}).encode() + b"\n\n")

    def _reply(self, writer: asyncio.StreamWriter, status: int, message: Json | None = None) -> None:
        body = b"" if message is None else json.dumps({"jsonrpc": "2.0", **message}).encode()
        kind = "" if message is None else "Content-Type: application/json\r\n"
        head = f"HTTP/1.1 {status} Said\r\n{kind}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + body)


@asynccontextmanager
async def posted() -> AsyncGenerator[tuple[Posted, Json]]:
    """A server, and the plugin that leads to it."""
    server = Posted()
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        url = f"http://127.0.0.1:{port}/deep/rpc?tenant=a%20b"
        yield server, {"type": "stepflow", "transport": "http", "url": url, "headers": {"X-Of": "the config"}}


async def test_everything_is_posted_to_the_address_of_the_plugin_and_answers_to_the_instance_that_asks(
    tmp_path: Path,
) -> None:
    async with posted() as (server, plugin), running(tmp_path, {"mine": plugin}, MINE) as runtime:
        result = await runtime.run(flow(step("s", "/mine/ask", 7), output={"$step": "s"}), None)

    first, second = (result.output or {})["value"]
    assert {line for line, _, _ in server.posts} == {"POST /deep/rpc?tenant=a%20b HTTP/1.1"}
    for _, headers, message in server.posts:
        assert headers["content-type"] == "application/json"
        assert headers["accept"] == "application/json, text/event-stream"
        assert headers["x-of"] == "the config"
        assert headers.get("stepflow-instance-id") == (None if "method" in message else "one-of-many")
    messages = [message for _, _, message in server.posts]
    initialize, initialized, execute, *answers = messages
    assert initialize["params"] == {"runtime_protocol_version": 1}
    assert initialized == {"jsonrpc": "2.0", "method": "initialized", "params": {}}
    assert {name: execute["params"][name] for name in ("component", "input", "attempt")} == {
        "component": "/ask",
        "input": 7,
        "attempt": 1,
    }
    assert answers == [
        {"jsonrpc": "2.0", "id": "first", "result": {"blob_id": first}},
        {"jsonrpc": "2.0", "id": 1, "result": {"blob_id": second}},
    ]


@pytest.mark.parametrize("status", [200, 400, 404, 500, 503])
async def test_an_error_is_that_of_the_component_whatever_status_it_comes_with_and_is_not_posted_again(
    tmp_path: Path, status: int
) -> None:
    async with posted() as (server, plugin), running(tmp_path, {"mine": plugin}, MINE) as runtime:
        result = await runtime.run(flow(step("s", "/mine/broken", status), output={"$step": "s"}), None)

    assert result.error is not None
    assert (result.error.code, result.error.message) == (500, 'step "s" failed: attempt 1')
    calls = [message for _, _, message in server.posts if message.get("method") == "components/execute"]
    assert [call["params"]["attempt"] for call in calls] == [1]


# Flows that a component runs

#: Runs flows in each way that its context has, and tells what they came to.
RUNS = """\
import msgspec
from typing import Any

from pyflue.stepflow import StepflowContext, StepflowFailed, StepflowServer, StepflowSkipped

server = StepflowServer(include_builtins=False)


@server.component
async def ways(flow: dict[str, Any], context: StepflowContext) -> Any:
    flow_id = await context.put_blob(flow, "flow")
    batch_id = await context.submit_batch(flow, [{"n": 1}, {}])
    details, outputs = await context.get_batch(batch_id, wait=True, include_results=True)
    run = await context.submit_run_by_id(flow_id, [{"n": 6}])
    ended = await context.get_run(run.run_id, wait=True, include_results=True)
    return msgspec.to_builtins({
        "by_value": await context.evaluate_flow(flow, {"n": 2}),
        "by_id": await context.evaluate_flow_by_id(flow_id, {"n": 3}),
        "batch": await context.evaluate_batch(flow, [{"n": 4}, {"n": 5}]),
        "batch_by_id": await context.evaluate_batch_by_id(flow_id, [{"n": 4}]),
        "run": await context.evaluate_run(flow, [{"n": 7}]),
        "run_by_id": await context.evaluate_run_by_id(flow_id, [{"n": 8}, {"n": 9}]),
        "details": [details.total_runs, details.completed_runs, details.failed_runs],
        "outputs": [output.status for output in outputs],
        "submitted": [item.result.result for item in ended.results],
        "changed": await context.evaluate_flow(flow, {"n": 0}, {"s": {"value": {"input": {"n": 11}}}}),
    })


@server.component
async def ends(flow: dict[str, Any], context: StepflowContext) -> Any:
    try:
        return await context.evaluate_flow(flow, {})
    except StepflowFailed as failed:
        return ["failed", failed.error_code, failed.message, failed.data]
    except StepflowSkipped as skipped:
        return ["skipped", skipped.message]


if __name__ == "__main__":
    server.start_stdio()
"""
INNER = flow(step("s", "/noop", {"n": {"$input": "n"}}), output={"$step": "s", "path": "n"})
OLDER = {"steps": [{**step("o", "/noop"), "skipIf": True}], "output": {"$from": {"step": "o"}}}
FAILING = {"steps": [step("m", "/mock/fail", {"n": 1})], "output": {"$step": "m"}}
FAILURE = {"code": 8, "message": "too many", "data": {"most": 1}}
WAYS = {
    "stdio": {**SERVER, "args": ["server.py"]},
    "python": {"type": "python", "server": "server_of_ways:server"},
}


@pytest.fixture(params=WAYS)
def ways(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Json, Json]:
    """A config's plugins and routes to it."""
    for name in ("server.py", "server_of_ways.py"):
        (tmp_path / name).write_text(RUNS)
    behavior = {'{"n": 1}': {"outcome": "failed", "error": FAILURE}}
    mock = {"type": "mock", "components": {"/fail": {"behaviors": behavior}}}
    return {"mine": WAYS[request.param], "mock": mock}, {**MINE, "/mock": [{"plugin": "mock"}]}


async def test_a_component_runs_flows_in_each_way_of_older_and_newer_servers(
    tmp_path: Path, ways: tuple[Json, Json]
) -> None:
    document = flow(step("s", "/mine/ways", {"$literal": INNER}), output={"$step": "s"})
    async with running(tmp_path, *ways) as runtime:
        result = await runtime.run(document, None)

    assert result.output == {
        "by_value": 2,
        "by_id": 3,
        "batch": [4, 5],
        "batch_by_id": [4],
        "run": [7],
        "run_by_id": [8, 9],
        "details": [2, 1, 1],
        "outputs": ["completed", "failed"],
        "submitted": [6],
        "changed": 11,
    }


@pytest.mark.parametrize(
    ("inner", "expected"),
    [
        (FAILING, ["failed", 8, "too many", {"most": 1}]),
        (INNER, ["failed", 1, "Input path $.n not found", None]),
        (OLDER, ["skipped", "Flow execution was skipped"]),
    ],
)
async def test_a_flow_that_was_no_success_is_an_exception_with_code_message_and_data(
    tmp_path: Path, ways: tuple[Json, Json], inner: Json, expected: list[Any]
) -> None:
    document = flow(step("s", "/mine/ends", {"$literal": inner}), output={"$step": "s"})
    async with running(tmp_path, *ways) as runtime:
        result = await runtime.run(document, None)

    value = (result.output or {})["value"]
    if expected[0] == "skipped":
        # The reason, if there is one, follows.
        assert (value[0], value[1].startswith(expected[1])) == ("skipped", True)
    else:
        assert value == expected


async def test_the_older_requests_of_a_server_are_answered_by_real_runs(tmp_path: Path) -> None:
    raw = {**SERVER, "args": [str(SERVERS / "components.py")]}
    flow_id = {"$step": "kept", "path": "blob_id"}
    asked: dict[str, tuple[str, Json]] = {
        "evaluated": ("flows/evaluate", {"flow_id": flow_id, "input": {"n": 10}}),
        "failed": ("flows/evaluate", {"flow_id": flow_id, "input": {}}),
        "changed": (
            "flows/evaluate",
            {
                "flow_id": flow_id,
                "input": {"n": 1},
                "overrides": {"$literal": {"steps": {"s": {"value": {"input": {"n": 11}}}}}},
            },
        ),
        "unknown": ("flows/evaluate", {"flow_id": "0" * 64, "input": 1}),
        "nameless": ("flows/fly", {}),
        "of_another": ("flows/get_metadata", {"flow_id": flow_id, "step_id": "s"}),
        "of_its_own": ("flows/get_metadata", {"step_id": "of_its_own"}),
        "of_no_step": ("flows/get_metadata", {"flow_id": flow_id, "step_id": "of_no_step"}),
        "of_no_flow": ("flows/get_metadata", {"flow_id": "0" * 64}),
        "of_no_id": ("flows/get_metadata", {"flow_id": "short"}),
        "of_a_number": ("flows/get_metadata", {"flow_id": 5}),
    }
    kept = {**flow(step("s", "/noop", {"n": {"$input": "n"}}, metadata={"of": "s"}), output=INNER["output"])}
    kept["metadata"] = {"owner": "Ada"}
    steps = [
        step("kept", "/put_blob", {"blob_type": "flow", "data": {"$literal": kept}}),
        *(
            step(id_, "/raw/ask", {"method": method, "params": params}, metadata={"of": id_})
            for id_, (method, params) in asked.items()
        ),
    ]
    document = flow(*steps, output={id_: {"$step": id_} for id_ in asked})
    async with running(tmp_path, {"raw": raw}, {**MINE, "/raw": [{"plugin": "raw"}]} | {"/mine": []}) as runtime:
        output = (await runtime.run(document, None)).output or {}

    assert output["evaluated"] == {"result": {"outcome": "success", "result": 10}}
    missing = {"code": 1, "message": "Input path $.n not found"}
    assert output["failed"] == {"result": {"outcome": "failed", "error": missing}}
    assert output["changed"] == {"result": {"outcome": "success", "result": 11}}
    assert output["of_another"] == {"flow_metadata": {"owner": "Ada"}, "step_metadata": {"of": "s"}}
    assert output["of_its_own"] == {"flow_metadata": {}, "step_metadata": {"of": "of_its_own"}}
    assert {id_: told["error"]["code"] for id_, told in output.items() if "error" in told} == {
        "unknown": -32011,
        "nameless": -32601,
        "of_no_step": -32011,
        "of_no_flow": -32011,
        "of_no_id": -32012,
        "of_a_number": -32602,
    }


# MCP

#: Writes down what it hears, with its arguments and a variable, and asks for roots before it answers its first call.
TOOLS = """\
import json, os, sys

log = open("heard", "a", buffering=1)
log.write(json.dumps([sys.argv[1:], os.environ.get("GIVEN")]) + "\\n")
results = {
    "initialize": {"protocolVersion": "2024-11-05", "capabilities": {}},
    "tools/list": {"tools": [{"name": "t", "inputSchema": {"type": "object", "required": ["a"]}}]},
    "tools/call": {"content": [{"type": "text", "text": "done"}]},
}
for line in sys.stdin:
    message = json.loads(line)
    log.write(line)
    if message.get("method") in results and "id" in message:
        if message["method"] == "tools/call":
            print(json.dumps({"jsonrpc": "2.0", "id": "roots", "method": "roots/list"}), flush=True)
            log.write(sys.stdin.readline())
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": results[message["method"]]}), flush=True)
"""


async def test_all_that_an_mcp_server_hears_of_a_flow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_US", "ours")
    monkeypatch.delenv("NOBODYS", raising=False)
    (tmp_path / "tools.py").write_text(TOOLS)
    tools = {
        "type": "mcp",
        "command": PYTHON,
        "args": ["tools.py", "--as=${OF_US}", "${NOBODYS:-a default}"],
        "env": {"GIVEN": "${OF_US}/${NOBODYS:-}"},
    }
    async with running(tmp_path, {"tools": tools}, {"/tools": [{"plugin": "tools"}]}) as runtime:
        result = await runtime.run(flow(step("s", "/tools/deep/t", {"a": 1}), output={"$step": "s"}), None)
        [component] = await runtime.list_components()

    assert result.output == {"value": [{"type": "text", "text": "done"}]}
    assert (component.path, component.description, component.input_schema, component.output_schema) == (
        "/tools/t",
        "MCP tool",
        {"type": "object", "required": ["a"]},
        {"type": "object"},
    )
    started, initialize, initialized, listing, call, roots, *_ = heard(tmp_path)
    assert started == [["--as=ours", "a default"], "ours/"]
    assert initialize == {
        "jsonrpc": "2.0",
        "id": initialize["id"],
        "method": "initialize",
        "params": {
            "protocolVersion": "2024-11-05",
            "capabilities": {"roots": {"listChanged": False}},
            "clientInfo": {"name": "pyflue", "version": __version__},
        },
    }
    assert initialized == {"jsonrpc": "2.0", "method": "notifications/initialized", "params": {}}
    assert (listing["method"], listing["params"]) == ("tools/list", {})
    assert (call["method"], call["params"]) == ("tools/call", {"name": "t", "arguments": {"a": 1}})
    assert roots == {"jsonrpc": "2.0", "id": "roots", "result": {"roots": []}}


async def test_a_variable_that_is_not_set_and_has_no_default_fails_the_steps_that_need_it_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOBODYS", raising=False)
    for kind in ("mcp", "stepflow"):
        plugin = {"type": kind, "command": PYTHON, "args": ["${NOBODYS}"]}
        if kind == "stepflow":
            plugin["transport"] = "stdio"
        async with running(tmp_path, {"mine": plugin}, MINE) as runtime:
            failed = await runtime.run(flow(step("s", "/mine/t", {}), output={"$step": "s"}), None)
            other = await runtime.run(flow(step("s", "/noop", {"n": 1}), output={"$step": "s"}), None)
        assert failed.error is not None
        assert "plugin 'mine' needs the environment variable NOBODYS, which is not set" in failed.error.message
        assert other == FlowResult.success({"n": 1})
