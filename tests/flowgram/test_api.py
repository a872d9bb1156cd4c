"""The HTTP API, of a project's server and of `fg.create_app()`: the same requests, the same answers."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

import pyflue.flowgram as fg
from tests.promises import promise
from tests.server.harness import client_of, in_process

from .graphs import Json, Log, const, end, fields, graph, log_node, loop, node, ref, start, typed

ECHO = graph([start(msg="string"), end({"echo": ref("start", "msg")}, echo="string")], "start -> end")


@pytest.fixture(params=["project", "library"])
async def client(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[httpx2.AsyncClient]:
    monkeypatch.delenv("PYFLUE_TOKEN", raising=False)
    async with serving(request.param, tmp_path) as client:
        yield client


@asynccontextmanager
async def serving(kind: str, root: Path) -> AsyncIterator[httpx2.AsyncClient]:
    if kind == "project":
        (root / "src" / "workflows").mkdir(parents=True, exist_ok=True)
        async with in_process(root) as here:
            yield here.client
    else:
        async with client_of(fg.create_app()) as client:
            yield client


async def run(client: httpx2.AsyncClient, schema: Json, inputs: Json | None = None, prefix: str = "") -> str:
    answer = await client.post(f"{prefix}/task/run", json={"schema": json.dumps(schema), "inputs": inputs or {}})
    assert answer.status_code == 200, answer.text
    return answer.json()["taskID"]


async def get(client: httpx2.AsyncClient, path: str, task_id: str) -> Any:
    answer = await client.get(path, params={"taskID": task_id})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def result(client: httpx2.AsyncClient, task_id: str) -> Any:
    async with asyncio.timeout(10):
        while (found := await get(client, "/task/result", task_id)) is None:
            await asyncio.sleep(0.005)
    return found


@promise("flowgram.editor")
@pytest.mark.parametrize("prefix", ["", "/api"])
async def test_a_graph_is_run_reported_and_answered(client: httpx2.AsyncClient, prefix: str) -> None:
    task_id = await run(client, ECHO, {"msg": "hello"}, prefix)
    assert await result(client, task_id) == {"echo": "hello"}
    assert await get(client, f"{prefix}/task/result", task_id) == {"echo": "hello"}
    report = await get(client, f"{prefix}/task/report", task_id)
    status = report.pop("workflowStatus")
    assert (status.pop("status"), status.pop("terminated")) == ("succeeded", True)
    assert status["startTime"] <= status["endTime"]
    assert set(status) == {"startTime", "endTime", "timeCost"}
    empty: Any = {"log": [], "info": [], "debug": [], "error": [], "warning": []} if prefix else []
    assert (report["id"], report["inputs"], report["outputs"], report["messages"]) == (
        task_id,
        {"msg": "hello"},
        {"echo": "hello"},
        empty,
    )
    shown = {
        name: (one["id"], one["status"], [{k: v for k, v in s.items() if k != "id"} for s in one["snapshots"]])
        for name, one in report["reports"].items()
    }
    snapshot = {"branch": None, "error": None}
    assert shown == {
        "start": (
            "start",
            "succeeded",
            [
                {
                    "nodeID": "start",
                    "inputs": {},
                    "outputs": {"msg": "hello"},
                    "data": ECHO["nodes"][0]["data"],
                    **snapshot,
                }
            ],
        ),
        "end": (
            "end",
            "succeeded",
            [
                {
                    "nodeID": "end",
                    "inputs": {"echo": "hello"},
                    "outputs": {"echo": "hello"},
                    "data": ECHO["nodes"][1]["data"],
                    **snapshot,
                }
            ],
        ),
    }


@pytest.mark.parametrize("prefix", ["", "/api"])
async def test_the_server_says_what_it_is(client: httpx2.AsyncClient, prefix: str) -> None:
    info = (await client.get(f"{prefix}/info")).json()
    assert set(info) == {"name", "title", "description", "runtime", "version", "time"}
    assert info["runtime"] == "python"


async def test_a_failed_run_has_an_empty_result_and_a_message_for_the_editor(
    client: httpx2.AsyncClient, log: Log
) -> None:
    log.failures_left["w"] = 1
    body = [node("bs", "block-start"), log_node("w"), node("be", "block-end")]
    made = graph(
        [start(xs=typed("array", items=typed("integer"))), loop(ref("start", "xs"), body, "bs -> w -> be"), end()],
        "start -> loop -> end",
    )
    task_id = await run(client, made, {"xs": [1, 2]})
    assert await result(client, task_id) == {}
    report = await get(client, "/api/task/report", task_id)
    assert report["workflowStatus"]["status"] == "failed"
    assert [(m["nodeID"], m["message"]) for m in report["messages"]["error"]] == [
        ("w", "w broke"),
        ("loop", "Loop block execute error"),
    ]
    assert {name: one["status"] for name, one in report["reports"].items()} == {
        "start": "succeeded",
        "loop": "failed",
        "bs": "succeeded",
        "w": "failed",
    }
    assert report["reports"]["w"]["snapshots"][0]["error"] == "w broke"
    assert [(m["nodeID"], m["type"]) for m in (await get(client, "/task/report", task_id))["messages"]] == [
        ("w", "error"),
        ("loop", "error"),
    ]


async def test_a_failure_of_a_node_that_only_looks_at_values_is_reported(client: httpx2.AsyncClient) -> None:
    value = {"left": ref("start", "msg"), "operator": "gt", "right": const("a")}
    made = graph(
        [start(msg="string"), node("if", "condition", conditions=[{"key": "yes", "value": value}]), end()],
        "start -> if",
        "if.yes -> end",
    )
    task_id = await run(client, made, {"msg": "x"})
    assert await result(client, task_id) == {}
    report = await get(client, "/task/report", task_id)
    assert [(m["nodeID"], m["message"]) for m in report["messages"]] == [
        ("if", 'Condition left type "string" has no operator "gt"')
    ]
    assert {name: one["status"] for name, one in report["reports"].items()} == {"start": "succeeded", "if": "failed"}


async def test_cancelling_ends_a_run_and_its_nodes(client: httpx2.AsyncClient, log: Log) -> None:
    log.release["w"] = asyncio.Event()
    task_id = await run(client, graph([start(), log_node("w"), end()], "start -> w -> end"))
    async with asyncio.timeout(5):
        while "w" not in log.started:
            await asyncio.sleep(0.001)
    assert await get(client, "/task/result", task_id) is None
    async with asyncio.timeout(5):
        while "w" not in (report := await get(client, "/task/report", task_id))["reports"]:
            await asyncio.sleep(0.001)  # a project's report shows what is on disk
    assert (report["workflowStatus"]["status"], report["reports"]["w"]["status"]) == ("processing", "processing")
    assert (await client.put("/task/cancel", json={"taskID": task_id})).json() == {"success": True}
    assert await result(client, task_id) == {}
    report = await get(client, "/task/report", task_id)
    assert (report["workflowStatus"]["status"], report["workflowStatus"]["terminated"]) == ("canceled", True)
    assert {name: one["status"] for name, one in report["reports"].items()} == {"start": "succeeded", "w": "canceled"}
    assert (await client.put("/api/task/cancel", json={"taskID": task_id})).json() == {"success": True}
    assert (await client.put("/task/cancel", json={"taskID": "nobody"})).json() == {"success": False}


async def test_unknown_runs_are_null(client: httpx2.AsyncClient) -> None:
    for path in ("/task/report", "/task/result"):
        assert await get(client, path, "nobody") is None


async def test_invalid_graphs_and_inputs_are_runs_that_fail(client: httpx2.AsyncClient) -> None:
    task_id = await run(client, graph([end()]))
    assert await result(client, task_id) == {}
    report = await get(client, "/task/report", task_id)
    assert report["workflowStatus"]["status"] == "failed"
    assert [(m["nodeID"], m["message"]) for m in report["messages"]] == [(None, "Workflow must have a start node")]
    assert report["reports"] == {}
    task_id = await run(client, ECHO, {"msg": 3})
    assert await result(client, task_id) == {}
    messages = (await get(client, "/task/report", task_id))["messages"]
    assert [m["message"] for m in messages] == ["JSON Schema validation failed: 3 is not of type 'string' (at msg)"]


@pytest.mark.parametrize("prefix", ["", "/api"])
async def test_validating_tells_errors_and_warnings(client: httpx2.AsyncClient, prefix: str) -> None:
    async def validate(schema: Json) -> Any:
        return (await client.post(f"{prefix}/task/validate", json={"schema": json.dumps(schema)})).json()

    assert await validate(graph([start(), end()], "start -> end")) == {"valid": True, "errors": None, "warnings": []}
    assert await validate(graph([end()])) == {
        "valid": False,
        "errors": ["Workflow must have a start node"],
        "warnings": [],
    }


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        ({}, 422, [{"type": "missing", "loc": ["body", "schema"], "msg": "Field required"}]),
        (
            {"schema": {"nodes": []}},
            422,
            [{"type": "string_type", "loc": ["body", "schema"], "msg": "Input should be a valid string"}],
        ),
        (
            {"schema": "{}", "inputs": 3},
            422,
            [{"type": "dict_type", "loc": ["body", "inputs"], "msg": "Input should be a valid dictionary"}],
        ),
        ([], 422, [{"type": "model_attributes_type", "loc": ["body"], "msg": "Input should be an object"}]),
        (
            {"schema": "{broken"},
            400,
            "Invalid schema JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
        ),
        ({"schema": '{"nodes": [{}]}'}, 400, "Invalid workflow schema: Node id is required"),
    ],
)
async def test_requests_that_are_wrong(client: httpx2.AsyncClient, body: Any, status: int, detail: Any) -> None:
    for path in ("/task/run", "/api/task/validate"):
        answer = await client.post(path, json=body)
        assert (answer.status_code, answer.json()) == (status, {"detail": detail})


async def test_bodies_that_a_foreign_page_could_send_are_refused(client: httpx2.AsyncClient) -> None:
    body = json.dumps({"schema": json.dumps(ECHO)})
    for type_ in ("text/plain", "application/x-www-form-urlencoded"):
        assert (await client.post("/task/run", content=body, headers={"content-type": type_})).status_code == 415
        assert (await client.post("/trpc/task.run", content=body, headers={"content-type": type_})).status_code == 415


@pytest.mark.parametrize("name", ["task.run", "task/run"])
async def test_trpc_procedures_by_both_notations_and_both_wrappings(client: httpx2.AsyncClient, name: str) -> None:
    payload = {"schema": json.dumps(ECHO), "inputs": {"msg": "x"}}
    for body in (payload, {"json": payload}):
        answer = (await client.post(f"/trpc/{name}", json=body)).json()
        task_id = answer["result"]["data"]["taskID"]
        assert await result(client, task_id) == {"echo": "x"}
        asked = quote(json.dumps({"json": {"taskID": task_id}}))
        assert (await client.get(f"/trpc/task.result?input={asked}")).json() == {"result": {"data": {"echo": "x"}}}
    assert "runtime" in (await client.get("/trpc/info")).json()["result"]["data"]


async def test_trpc_batches_also_without_input(client: httpx2.AsyncClient) -> None:
    payload = {"schema": json.dumps(ECHO), "inputs": {}}
    answers = (await client.post("/trpc/task.validate,info?batch=1", json={"0": payload})).json()
    assert answers[0] == {"result": {"data": {"valid": True, "errors": None, "warnings": []}}}
    assert answers[1]["result"]["data"]["runtime"] == "python"
    assert len((await client.get("/trpc/info,info,task.result?batch=1")).json()) == 3
    error = (await client.get("/trpc/info,task.result?batch=1")).json()[1]
    assert error == {"error": {"message": "Field required", "code": -32603}}


async def test_a_batch_is_not_endless(client: httpx2.AsyncClient) -> None:
    answers = (await client.get(f"/trpc/{','.join(['info'] * 100)}?batch=1")).json()
    assert len(answers) == 100
    refused = await client.get(f"/trpc/{','.join(['info'] * 101)}?batch=1")
    assert (refused.status_code, refused.json()["detail"]) == (400, "Invalid input: a batch has 100 procedures at most")


async def test_a_long_graph_does_not_hold_up_others(tmp_path: Path) -> None:
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        while True:
            before = time.thread_time()
            await asyncio.sleep(0.002)
            longest = max(longest, time.thread_time() - before)

    names = [f"n{number}" for number in range(5000)]
    nodes = [start(), *(node(name, "condition") for name in names), end()]
    schema = graph(nodes, " -> ".join(["start", *names, "end"]), "n1 -> n3")
    schema["nodes"][1]["data"]["title"] = "x" * 300_000  # too long to be kept
    broken = graph([*nodes[:-1]], " -> ".join(["start", *names]))
    bodies = [json.dumps({"schema": json.dumps(one)}).encode() for one in (schema, broken)]
    headers = {"content-type": "application/json"}
    async with serving("project", tmp_path) as client:
        watching = asyncio.create_task(watch())
        validated = await client.post("/task/validate", content=bodies[0], headers=headers)
        ran = await client.post("/task/run", content=bodies[1], headers=headers)
        outputs = await result(client, ran.json()["taskID"])
        watching.cancel()
    assert (validated.json()["valid"], outputs) == (True, {})
    assert longest < 0.05  # of this thread's own time: others on the machine do not count


async def test_trpc_requests_that_are_wrong(client: httpx2.AsyncClient) -> None:
    unknown = await client.get("/trpc/info,nobody?batch=1")
    assert (unknown.status_code, unknown.json()) == (404, {"detail": "No such tRPC procedure: nobody"})
    assert (await client.get("/trpc/info?input={broken")).status_code == 400
    assert (await client.post("/trpc/task.run", json={"schema": "{"})).status_code == 400
    changing = await client.get("/trpc/task.run?input={}")
    assert (changing.status_code, changing.json()) == (
        405,
        {"detail": "The tRPC procedure task.run changes something: call it with POST"},
    )


async def test_secrets_do_not_leave_in_reports(client: httpx2.AsyncClient, log: Log) -> None:
    work = log_node("w", inputs=fields(apiKey="string"), inputsValues={"apiKey": const("sk-planted-4711")})
    task_id = await run(
        client, graph([start(token="string"), work, end()], "start -> w -> end"), {"token": "planted-input"}
    )
    await result(client, task_id)
    assert "planted" not in (await client.get("/task/report", params={"taskID": task_id})).text
    assert log.inputs == [{"apiKey": "sk-planted-4711"}]


async def test_a_task_of_a_project_is_a_run_with_a_journal(tmp_path: Path) -> None:
    async with serving("project", tmp_path) as client:
        task_id = await run(client, ECHO, {"msg": "x"})
        await result(client, task_id)
        assert task_id.startswith("workflow:flowgram.inline:")
        record = (await client.get(f"/runs/{task_id}")).json()
        assert (record["kind"], record["status"], record["result"]) == ("flowgram", "completed", {"echo": "x"})
        steps = (await client.get(f"/runs/{task_id}/steps")).json()["steps"]
        assert [step["step"] for step in steps] == ["start", "end"]
    async with serving("project", tmp_path) as client:
        assert (await get(client, "/task/report", task_id))["workflowStatus"]["status"] == "succeeded"


async def test_the_same_idempotency_key_is_the_same_task(tmp_path: Path) -> None:
    async with serving("project", tmp_path) as client:
        body = {"schema": json.dumps(ECHO), "inputs": {}}
        answers = [
            (await client.post("/task/run", json=body, headers={"idempotency-key": "k"})).json() for _ in range(2)
        ]
        assert answers[0] == answers[1]
        assert (await client.post("/task/run", json=body, headers={"idempotency-key": "x" * 256})).status_code == 400


async def test_a_graph_file_is_a_workflow_with_a_report(tmp_path: Path) -> None:
    folder = tmp_path / "src" / "workflows"
    folder.mkdir(parents=True)
    (folder / "echo.json").write_text(json.dumps(ECHO))
    async with serving("project", tmp_path) as client:
        answer = (await client.post("/workflows/echo?wait=result", json={"msg": "x"})).json()
        assert answer["result"] == {"echo": "x"}
        report = await get(client, "/task/report", answer["run_id"])
        assert list(report["reports"]) == ["start", "end"]
    (folder / "echo.json").unlink()
    async with serving("project", tmp_path) as client:  # what is left without its file
        report = await get(client, "/task/report", answer["run_id"])
        assert (report["outputs"], report["reports"]) == ({"echo": "x"}, {})


@promise("flowgram.editor")
async def test_an_editor_on_another_port_may_call_if_it_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "src" / "workflows").mkdir(parents=True)
    origin = "http://localhost:3000"
    asks = {"origin": origin, "access-control-request-method": "PUT", "access-control-request-headers": "content-type"}
    async with in_process(tmp_path, server__allowed_origins=[origin]) as here:
        preflight = await here.client.options("/api/task/cancel", headers=asks)
        assert "PUT" in preflight.headers["access-control-allow-methods"]
        answer = await here.client.put("/api/task/cancel", json={"taskID": "x"}, headers={"origin": origin})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, origin)
        refused = await here.client.get("/api/info", headers={"origin": "http://evil.example"})
        assert refused.status_code == 403
    async with client_of(fg.create_app(fg.ServerConfig(allowed_origins=(origin,)))) as client:
        assert (await client.get("/api/info", headers={"origin": origin})).headers[
            "access-control-allow-origin"
        ] == origin
        assert "PUT" in (await client.options("/api/task/cancel", headers=asks)).headers["access-control-allow-methods"]


async def test_the_application_mounts_below_a_prefix() -> None:
    parent = Starlette(routes=[Mount("/_flowgram", fg.create_app())])
    async with client_of(parent) as client:
        answer = await client.post("/_flowgram/task/validate", json={"schema": json.dumps(ECHO)})
        assert answer.json() == {"valid": True, "errors": None, "warnings": []}
    async with client_of(fg.create_app(fg.ServerConfig(base_path="/graphs/", name="mine"))) as client:
        assert (await client.get("/graphs/info")).json()["name"] == "mine"
        too_large = fg.create_app(fg.ServerConfig(limit_bytes=10))
    async with client_of(too_large) as client:
        assert (await client.post("/task/validate", json={"schema": "x" * 20})).status_code == 413


async def test_paths_and_methods_that_there_are_not_have_a_detail() -> None:
    async with client_of(fg.create_app()) as client:
        nowhere = await client.get("/task/nowhere")
        assert (nowhere.status_code, nowhere.json()) == (404, {"detail": "Not Found"})
        wrong = await client.get("/task/run")
        assert (wrong.status_code, wrong.json(), wrong.headers["allow"]) == (
            405,
            {"detail": "Method Not Allowed"},
            "POST",
        )
