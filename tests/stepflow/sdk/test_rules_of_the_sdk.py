"""Rules of component servers: the codes of errors as a runtime sees them, and the ways in which a server is started."""

from __future__ import annotations

import asyncio
import inspect
import json
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pyflue.stepflow import (
    FlowBuilder,
    StepflowClient,
    StepflowHttpServer,
    StepflowRuntime,
    StepflowServer,
    StepflowStdioServer,
)
from pyflue.stepflow.sdk import (
    BlobNotFoundError,
    CodeCompilationError,
    ComponentNotFoundError,
    ErrorCode,
    InputValidationError,
    ServerNotInitializedError,
    StepflowComponentError,
    StepflowError,
    StepflowExecutionError,
    StepflowProtocolError,
    StepflowRuntimeError,
    StepflowValidationError,
    StepflowValueError,
)

from .driver import Server
from .test_http import HttpServer, events, execute

#: What each of the exceptions says of itself.
ERRORS: dict[str, tuple[StepflowError, dict[str, Any]]] = {
    "generic": (StepflowError("it"), {"code": -32000, "message": "it"}),
    "protocol": (StepflowProtocolError("it"), {"code": -32600, "message": "it"}),
    "not_initialized": (ServerNotInitializedError(), {"code": -32001, "message": "Server not initialized"}),
    "component": (StepflowComponentError("it"), {"code": -32001, "message": "it"}),
    "not_found": (
        ComponentNotFoundError("/x"),
        {"code": -32001, "message": "Component '/x' not found", "data": {"component": "/x"}},
    ),
    "validation": (StepflowValidationError("it"), {"code": -32002, "message": "it"}),
    "execution": (StepflowExecutionError("it"), {"code": -32003, "message": "it"}),
    "compilation": (
        CodeCompilationError("it", "1 +"),
        {"code": -32003, "message": "Code compilation failed: it", "data": {"code": "1 +"}},
    ),
    "runtime": (StepflowRuntimeError("it"), {"code": -32004, "message": "it"}),
    "no_blob": (
        BlobNotFoundError("b"),
        {"code": -32004, "message": "Blob 'b' not found", "data": {"blob_id": "b"}},
    ),
    "value": (StepflowValueError("it"), {"code": -32005, "message": "it"}),
    "chosen": (
        StepflowError("it", ErrorCode.VALUE_ERROR, {"hint": "look"}),
        {"code": -32005, "message": "it", "data": {"hint": "look"}},
    ),
}
#: That of the protocol for inputs, which a component may raise as well.
INVALID = InputValidationError("it", {"a": 1})

SERVER = """
import sys

sys.path.insert(0, ROOT)
import asyncio
from typing import Any

from pydantic import BaseModel

from pyflue.stepflow import StepflowContext, StepflowServer
from tests.stepflow.sdk.test_rules_of_the_sdk import ERRORS, INVALID

server = StepflowServer(include_builtins=False)
beside = asyncio.Event()


def fitting(name: str) -> Exception:
    return {"invalid": INVALID, "other": ValueError("it")}.get(name) or ERRORS[name][0]


@server.component
def fail(name: str) -> Any:
    raise fitting(name)


@server.component
async def fail_with_context(name: str, context: StepflowContext) -> Any:
    raise fitting(name)


def shaped(name: str) -> None:
    class Shaped(BaseModel):
        @classmethod
        def __get_pydantic_json_schema__(cls, core_schema: Any, handler: Any) -> Any:
            raise fitting(name)

    @server.component(name=f"shaped/{name}")
    def component(shape: Shaped) -> str:
        return "done"


for name in [*ERRORS, "other"]:
    if sys.argv[2:] == ["shapes"]:
        shaped(name)


@server.component
async def met(given: Any) -> str:
    await beside.wait()
    return "met"


@server.component
async def keep(given: Any, context: StepflowContext) -> Any:
    blob_id = await context.put_blob(given)
    return [await context.get_blob(blob_id), context.session_id is not None, server.is_initialized()]


async def over_http() -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(server.start_http("127.0.0.1", 0, 1, 16, 2))
        beside.set()


if sys.argv[1] == "http":
    asyncio.run(over_http())
else:
    server.start_stdio()
""".replace("ROOT", repr(str(Path(__file__).parents[3])))

Answered = Callable[[str, Any], dict[str, Any]]


def over_stdio(arguments: list[str], stack: ExitStack) -> Answered:
    server = Server([sys.executable, "-c", SERVER, "stdio", *arguments])
    stack.callback(server.close)
    server.initialize()
    return server.call


def over_http(arguments: list[str], stack: ExitStack) -> Answered:
    server = HttpServer("-c", SERVER, "http", *arguments)
    stack.callback(server.close)

    def call(method: str, params: Any) -> dict[str, Any]:
        with server.post({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}) as response:
            assert response.status == 200
            is_stream = response.headers["content-type"] == "text/event-stream"
            (answer,) = list(events(response)) if is_stream else [json.loads(response.read())]
        assert (answer.pop("jsonrpc"), answer.pop("id")) == ("2.0", 1)
        return answer

    return call


@pytest.fixture(scope="module", params=[over_stdio, over_http])
def answered(request: pytest.FixtureRequest) -> Iterator[Answered]:
    with ExitStack() as stack:
        yield request.param([], stack)


@pytest.fixture(scope="module", params=[over_stdio, over_http])
def shapes(request: pytest.FixtureRequest) -> Iterator[Answered]:
    """A server of components whose schemas cannot be told."""
    with ExitStack() as stack:
        yield request.param(["shapes"], stack)


@pytest.mark.parametrize("name", ERRORS)
def test_errors_know_their_codes(name: str) -> None:
    error, expected = ERRORS[name]

    assert error.to_json_rpc_error() == expected
    assert isinstance(error, StepflowError)


@pytest.mark.parametrize("component", ["/fail", "/fail_with_context"])
@pytest.mark.parametrize("name", ERRORS)
def test_what_a_component_raises_is_an_execution_error_whatever_its_own_code(
    answered: Answered, name: str, component: str
) -> None:
    told = ERRORS[name][1]
    expected = {**told, "code": -32003, "message": f"Component execution failed: {told['message']}"}

    assert answered("components/execute", execute(component, name)["params"]) == {"error": expected}


@pytest.mark.parametrize("component", ["/fail", "/fail_with_context"])
def test_only_an_input_that_does_not_fit_keeps_its_code(answered: Answered, component: str) -> None:
    invalid = {"code": -32002, "message": "Input validation failed: it", "data": {"input": {"a": 1}}}
    unfit = {"code": -32002, "message": "Input validation failed: Expected `str`, got `int`"}

    assert answered("components/execute", execute(component, "invalid")["params"]) == {"error": invalid}
    assert answered("components/execute", execute(component, 1)["params"]) == {"error": unfit}


@pytest.mark.parametrize("name", ERRORS)
def test_beside_components_each_error_has_its_own_code(shapes: Answered, name: str) -> None:
    assert shapes("components/info", {"component": f"/shaped/{name}"}) == {"error": ERRORS[name][1]}


def test_beside_components_any_other_error_is_a_generic_one(shapes: Answered) -> None:
    assert shapes("components/info", {"component": "/shaped/other"}) == {"error": {"code": -32000, "message": "it"}}
    # The server goes on.
    params = execute("/shaped/other", {})["params"]
    assert shapes("components/execute", params) == {"result": {"output": "done"}}


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("components/fly", {}, -32601),
        ("components/execute", {}, -32602),
        ("components/info", {"component": 1}, -32602),
        ("components/infer_schema", {}, -32602),
        ("initialize", {"runtime_protocol_version": "1"}, -32602),
        ("components/execute", {"component": "/none"}, -32001),
        ("components/info", {"component": "/none"}, -32001),
        ("components/infer_schema", {"component": "/none"}, -32001),
    ],
)
def test_a_request_that_means_nothing_has_the_same_code_over_each_way(
    answered: Answered, method: str, params: Any, code: int
) -> None:
    assert answered(method, params)["error"]["code"] == code


# What the runtime makes of codes

#: A server that answers each call with the error that the input says.
RAW = """
import json
import sys

for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    answer = {"jsonrpc": "2.0", "id": message["id"]}
    if message["method"] == "initialize":
        answer["result"] = {"server_protocol_version": 1}
    else:
        params = message["params"]
        text = f"attempt {params['attempt']}"
        answer["error"] = {"code": params["input"], "message": text, "data": {"of": "no interest"}}
    print(json.dumps(answer), flush=True)
"""


def config_at(folder: Path, **plugins: Any) -> Path:
    path = folder / "stepflow-config.yml"
    config = {
        "plugins": {"builtin": {"type": "builtin"}, **plugins},
        "routes": {"/{*component}": [{"plugin": "builtin"}], **{f"/{name}": {"plugin": name} for name in plugins}},
        "retry": {"backoff": {"type": "constant", "delayMs": 1}},
    }
    path.write_text(json.dumps(config))
    return path


async def test_each_error_fails_its_step_with_500_and_those_that_may_pass_are_tried_again(tmp_path: Path) -> None:
    (tmp_path / "raw.py").write_text(RAW)
    raw = {"type": "stepflow", "transport": "stdio", "command": sys.executable, "args": ["raw.py"]}
    passing, lasting = [-32000, -32003, -32004, -32603, 1], [-32001, -32002, -32005, -32600, -32601, -32602]
    codes = [*passing, *lasting]
    retry = {"action": "retry", "maxRetries": 1}
    steps = [
        {"id": f"s{index}", "component": "/raw/any", "input": code, "onError": retry}
        for index, code in enumerate(codes)
    ]
    async with StepflowRuntime.start(config_at(tmp_path, raw=raw)) as runtime, asyncio.timeout(30):
        results = [
            await runtime.run({"steps": steps, "output": {"$step": f"s{index}"}}, None) for index in range(len(codes))
        ]

    for index, (code, result) in enumerate(zip(codes, results, strict=True)):
        text = f"attempt {2 if code in passing else 1}"
        assert result.error is not None
        assert (result.error.code, result.error.message) == (500, f'step "s{index}" failed: {text}')
        assert result.error.details == {
            "stack": [
                {
                    "error": f'step "s{index}" failed',
                    "attachments": [
                        "Component: /any",
                        f"Component execution failed for step 's{index}'",
                    ],
                },
                {
                    "error": text,
                    "attachments": ["error executing component", f"component server error({code}): {text}"],
                },
            ]
        }


#: Tells what a component sees when the runtime refuses what it asks.
REFUSED = """
from typing import Any

from pyflue.stepflow import StepflowContext, StepflowError, StepflowServer

server = StepflowServer(include_builtins=False)


@server.component
async def ask(given: Any, context: StepflowContext) -> Any:
    method, *arguments = given
    if arguments == ["an object"]:
        arguments = [object()]
    try:
        return await getattr(context, method)(*arguments)
    except StepflowError as error:
        return [type(error).__name__, int(error.code), error.data]


if __name__ == "__main__":
    server.start_stdio()
"""
STUCK = {
    "steps": [
        {"id": "a", "component": "/noop", "input": {"$step": "b"}},
        {"id": "b", "component": "/noop", "input": {"$step": "a"}},
    ],
    "output": {"$step": "a"},
}


@pytest.mark.parametrize("way", ["stdio", "python"])
async def test_a_component_that_is_refused_something_sees_its_own_codes_and_that_of_the_runtime(
    tmp_path: Path, way: str
) -> None:
    name = f"refused_{way}"
    (tmp_path / f"{name}.py").write_text(REFUSED)
    stdio = {"type": "stepflow", "transport": "stdio", "command": sys.executable, "args": [f"{name}.py"]}
    plugin = stdio if way == "stdio" else {"type": "python", "server": f"{name}:server"}
    asked: list[tuple[list[Any], list[Any]]] = [
        (["get_blob", "0" * 64], ["BlobNotFoundError", -32004, {"blob_id": "0" * 64}]),
        (["get_blob", "short"], ["StepflowRuntimeError", -32004, {"method": "blobs/get", "code": -32012}]),
        (["put_blob", 1, "flow"], ["StepflowRuntimeError", -32004, {"method": "blobs/put", "code": -32012}]),
        (["put_blob", "an object"], ["StepflowValueError", -32005, {}]),
        (["get_run", "other"], ["StepflowRuntimeError", -32004, {"method": "runs/get", "code": -32011}]),
        (
            ["submit_run_by_id", "0" * 64, [1]],
            ["StepflowRuntimeError", -32004, {"method": "runs/submit", "code": -32011}],
        ),
        (
            ["submit_run_by_id", "0" * 64, [1], False, 0],
            ["StepflowRuntimeError", -32004, {"method": "runs/submit", "code": -32602}],
        ),
        (["evaluate_flow", STUCK, 1], ["StepflowRuntimeError", -32004, {"method": "runs/submit", "code": -32000}]),
        (
            ["get_metadata", "no step"],
            ["StepflowRuntimeError", -32004, {"method": "flows/get_metadata", "code": -32011}],
        ),
    ]
    steps = [
        {"id": f"s{index}", "component": "/mine/ask", "input": {"$literal": given}}
        for index, (given, _) in enumerate(asked)
    ]
    flow = {"steps": steps, "output": {step["id"]: {"$step": step["id"]} for step in steps}}
    async with StepflowRuntime.start(config_at(tmp_path, mine=plugin)) as runtime, asyncio.timeout(30):
        result = await runtime.run(flow, None)

    assert result.output == {f"s{index}": expected for index, (_, expected) in enumerate(asked)}


# Ways to start


async def test_a_server_that_was_started_over_http_is_used_by_a_runtime_and_leaves_its_loop_to_others(
    tmp_path: Path,
) -> None:
    with ExitStack() as stack:
        server = HttpServer("-c", SERVER, "http")
        stack.callback(server.close)
        web = {"type": "stepflow", "transport": "http", "url": f"http://127.0.0.1:{server.port}/"}
        flow = {
            "steps": [
                {"id": "met", "component": "/web/met", "input": {"$input": None}},
                {"id": "kept", "component": "/web/keep", "input": {"$input": None}},
            ],
            "output": [{"$step": "met"}, {"$step": "kept"}],
        }
        async with StepflowRuntime.start(config_at(tmp_path, web=web)) as runtime, asyncio.timeout(30):
            result = await runtime.run(flow, {"a": 1})

        assert result.output == {"value": ["met", [{"a": 1}, True, True]]}
        server.process.terminate()
        server.wait()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port), 5)


async def test_a_server_that_cannot_listen_says_so_to_whoever_has_started_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        await StepflowServer().start_http("127.0.0.1", taken.getsockname()[1])


def _defaults(function: Callable[..., Any]) -> dict[str, Any]:
    """The parameters of a function, with their defaults (`...` if there is none)."""
    parameters = list(inspect.signature(function).parameters.values())
    return {
        one.name: ... if one.default is one.empty else one.default
        for one in parameters
        if one.name != "self" and one.kind is not one.VAR_KEYWORD
    }


def test_programs_for_the_original_find_the_same_parameters_and_defaults() -> None:
    listening = {"host": "localhost", "port": 8080, "workers": 3, "backlog": 128, "timeout_keep_alive": 5}
    assert _defaults(StepflowServer) == {"include_builtins": True}
    assert _defaults(StepflowServer.start_http) == listening
    assert _defaults(StepflowHttpServer) == {"server": None, "instance_id": None, **listening}
    assert list(_defaults(StepflowHttpServer))[:4] == ["server", "host", "port", "instance_id"]
    assert _defaults(StepflowServer.start_stdio) == _defaults(StepflowStdioServer.run) == {}
    assert _defaults(StepflowServer.langchain_component) == {
        "func": None,
        "name": None,
        "description": None,
        "execution_mode": "invoke",
    }
    started = _defaults(StepflowRuntime.start)
    assert {name: getattr(value, "value", value) for name, value in started.items() if name != "servers"} == {
        "config_path": None,
        "port": None,
        "env": None,
        "inherit_env": True,
        "log_config": None,
        "restart_policy": "never",
        "max_restarts": 3,
        "startup_timeout": 30.0,
        "on_crash": None,
    }
    assert _defaults(StepflowRuntime.stop) == {"timeout": 5.0}
    assert _defaults(StepflowRuntime.get_recent_logs) == {"limit": 100}
    assert _defaults(StepflowClient)["timeout"] == 30.0
    for executor in (StepflowRuntime, StepflowClient):
        for method in (executor.run, executor.submit):
            assert list(_defaults(method))[:3] == ["flow", "input", "overrides"]
    assert list(_defaults(StepflowClient.create_run))[:6] == [
        "flow_id",
        "input",
        "overrides",
        "variables",
        "debug",
        "max_concurrency",
    ]
    assert list(_defaults(FlowBuilder.add_step))[:3] == ["id", "component", "input_data"]


# Runs that a component asks for

#: Its items end in the order that is the reverse of theirs. `way` is how the runtime speaks to it.
TURNED = """
import asyncio
import sys
from collections import defaultdict
from typing import Any

import msgspec

from pyflue.stepflow import StepflowContext, StepflowServer

server = StepflowServer(include_builtins=False)
over = defaultdict(asyncio.Event)

FLOW = {
    "name": "turned",
    "steps": [{"id": "g", "component": "/mine/gate", "input": {"$input": None}}],
    "output": {"$step": "g"},
}


@server.component
async def gate(given: Any) -> int:
    number, last = given["number"], given["last"]
    if number < last:
        await over[number + 1].wait()
    over[number].set()
    if number == 1 and given.get("fails"):
        raise ValueError("one")
    return number * given.get("times", 1)


@server.component
async def ask(given: Any, context: StepflowContext) -> Any:
    over.clear()
    inputs = [{"number": number, "last": 2, **given["more"]} for number in range(3)]
    submitted = await context.submit_run(FLOW, inputs, **given["options"])
    orders = [
        await context.get_run(submitted.run_id, wait=True, include_results=True, result_order=order)
        for order in ("byCompletion", "byIndex")
    ]
    plain = await context.get_run(submitted.run_id)
    return msgspec.to_builtins([submitted, *orders, plain])


@server.component
async def ask_one_at_a_time(given: Any, context: StepflowContext) -> Any:
    over.clear()
    inputs = [{"number": 0, "last": 0, "times": number} for number in range(3)]
    status = await context.submit_run(FLOW, inputs, wait=True, max_concurrency=1)
    return [status.status, [item.item_index for item in status.results]]


if __name__ == "__main__":
    if sys.argv[1] == "stdio":
        server.start_stdio()
    else:
        asyncio.run(server.start_http(port=0))
"""


@pytest.mark.parametrize("way", ["stdio", "http", "python"])
async def test_a_component_submits_runs_and_gets_their_results_in_the_order_it_wants(tmp_path: Path, way: str) -> None:
    name = f"turned_{way}"
    (tmp_path / f"{name}.py").write_text(TURNED)
    program = {"type": "stepflow", "command": sys.executable, "args": [f"{name}.py", way]}
    plugin = {
        "stdio": {**program, "transport": "stdio"},
        "http": program,
        "python": {"type": "python", "server": f"{name}:server"},
    }[way]
    # A merge patch would leave it the reference that it is.
    patch = {"op": "replace", "path": "/input", "value": {"number": 1, "last": 1, "times": 5}}
    override = {"g": {"$type": "json_patch", "value": [patch]}}
    asked = [
        {"more": {}, "options": {}},
        {"more": {"fails": True}, "options": {}},
        {"more": {}, "options": {"overrides": override}},
    ]
    config = config_at(tmp_path, mine=plugin)
    async with StepflowRuntime.start(config) as runtime, asyncio.timeout(30):
        results = [
            await runtime.run(
                {
                    "steps": [{"id": "a", "component": "/mine/ask", "input": {"$input": "$"}}],
                    "output": {"$step": "a"},
                },
                given,
            )
            for given in asked
        ]
        one = await runtime.run(
            {"steps": [{"id": "a", "component": "/mine/ask_one_at_a_time"}], "output": {"$step": "a"}}, None
        )

    submitted, by_completion, by_index, plain = (results[0].output or {})["value"]
    assert submitted == {
        "runId": submitted["runId"],
        "flowId": submitted["flowId"],
        "flowName": "turned",
        "flowLabel": None,
        "status": "running",
        "items": {"total": 3, "completed": 0, "running": 3, "failed": 0, "cancelled": 0},
        "createdAt": submitted["createdAt"],
        "completedAt": None,
        "results": None,
    }
    ended = {
        **submitted,
        "status": "completed",
        "items": {"total": 3, "completed": 3, "running": 0, "failed": 0, "cancelled": 0},
        "completedAt": by_index["completedAt"],
    }
    assert ended["createdAt"] <= ended["completedAt"]
    items = [
        {
            "itemIndex": index,
            "status": "completed",
            "result": {"outcome": "success", "result": index, "error": None, "reason": None},
            "completedAt": None,
        }
        for index in range(3)
    ]
    assert by_index == {**ended, "results": items}
    assert by_completion == {**ended, "results": items[::-1]}
    assert plain == ended
    failed = (results[1].output or {})["value"][2]
    assert (failed["status"], failed["items"]["failed"]) == ("failed", 1)
    assert [item["status"] for item in failed["results"]] == ["completed", "failed", "completed"]
    assert failed["results"][1]["result"]["error"]["code"] == 500
    changed = (results[2].output or {})["value"][2]
    assert [item["result"]["result"] for item in changed["results"]] == [5, 5, 5]
    assert one.output == {"value": ["completed", [0, 1, 2]]}
