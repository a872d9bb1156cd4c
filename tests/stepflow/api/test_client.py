"""`StepflowClient` with a real server, over a socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from pyflue.stepflow.backend import FlowView, ItemCounts, ItemView, RunStatus, StepStatus, StepView
from pyflue.stepflow.client import StepflowClient, StepflowClientError
from pyflue.stepflow.executor import ComponentInfo, Diagnostic, FlowResult, StepflowExecutor
from pyflue.stepflow.outcome import Failed, Success
from tests.server.harness import on_a_socket

from .serving import BROKEN, ECHO, ENDLESS, Json, flow, step

COMPONENTS = '''
from pyflue.stepflow import StepflowStdioServer
import msgspec

class GreetInput(msgspec.Struct):
    name: str

class GreetOutput(msgspec.Struct):
    greeting: str

server = StepflowStdioServer()

@server.component
def greet(input: GreetInput) -> GreetOutput:
    """Say hello."""
    return GreetOutput(greeting=f"Hello, {input.name}!")

if __name__ == "__main__":
    server.run()
'''
CONFIG = """
plugins:
  builtin:
    type: builtin

  python:
    type: stepflow
    transport: stdio
    command: python
    args: ["my_components.py"]

routes:
  "/python/{*component}":
    - plugin: python
  "/{*component}":
    - plugin: builtin
"""
HELLO = """
schema: "flow/v1"
name: hello-world

input:
  type: object
  properties:
    name:
      type: string
  required: [name]

steps:
  greet:
    component: /python/greet
    input:
      name: { $input: "name" }

output:
  message: { $step: "greet", path: "greeting" }
"""
MISSING = FlowResult.failed(1, "Input path $.value not found")


@pytest.fixture
async def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StepflowClient]:
    monkeypatch.delenv("PYFLUE_TOKEN", raising=False)
    (tmp_path / "src" / "workflows").mkdir(parents=True)
    (tmp_path / "my_components.py").write_text(COMPONENTS)
    (tmp_path / "stepflow-config.yml").write_text(CONFIG)
    async with on_a_socket(tmp_path) as address, StepflowClient(address.url) as client:
        yield client


def folder_of(tmp_path: Path, text: str, name: str = "flow.yaml") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


# As an executor


async def test_the_example_of_the_original_runs_as_it_is(client: StepflowClient, tmp_path: Path) -> None:
    assert isinstance(client, StepflowExecutor)
    path = folder_of(tmp_path, HELLO, "hello-workflow.yaml")
    result = await client.run(str(path), {"name": "World"})
    assert result == FlowResult.success({"message": "Hello, World!"})
    components = await client.list_components()
    [greet] = [found for found in components if found.path == "/python/greet"]
    assert (greet.description, greet.input_schema is None) == ("Say hello.", False)
    assert ComponentInfo(path="/python/greet", description="Say hello.") in await client.list_components(
        include_schemas=False
    )


async def test_a_value_that_is_no_object_is_under_value(client: StepflowClient) -> None:
    assert await client.run(ECHO, {"value": 5}) == FlowResult.success({"value": 5})
    assert await client.run(ECHO, {"value": {"a": None}}) == FlowResult.success({"a": None})


async def test_a_flow_that_fails_is_a_failed_result(client: StepflowClient) -> None:
    assert await client.run(ECHO, {}) == MISSING
    broken = await client.run(BROKEN, {})
    assert broken.error is not None
    assert (broken.is_failed, broken.error.code) == (True, 500)


async def test_a_list_is_a_batch(client: StepflowClient) -> None:
    assert await client.run(ECHO, [{"value": 1}, {"value": 2}]) == FlowResult.success({"value": [1, 2]})
    assert await client.run(ECHO, [{"value": 1}, {}]) == FlowResult.failed(1, "Item 1: Input path $.value not found")


async def test_a_submitted_run_is_not_waited_for_until_its_result_is_asked_for(client: StepflowClient) -> None:
    run_id = await client.submit(ENDLESS, {})
    assert (await client.get_run(run_id)).summary.status is RunStatus.RUNNING
    waiting = asyncio.create_task(client.get_result(run_id))
    await client.cancel_run(run_id)
    async with asyncio.timeout(10):
        assert await waiting == FlowResult.failed(499, f"Run {run_id} was cancelled")
    assert await client.get_result(await client.submit(ECHO, {"value": "x"})) == FlowResult.success({"value": "x"})


async def test_overrides_change_steps(client: StepflowClient) -> None:
    overrides = {"echo": {"value": {"input": {"value": "other"}}}}
    assert await client.run(ECHO, {"value": 1}, overrides) == FlowResult.success({"value": "other"})


async def test_validation_tells_what_it_found_and_where(client: StepflowClient, tmp_path: Path) -> None:
    fine = await client.validate(ECHO)
    assert (fine.valid, fine.errors) == (True, [])

    nameless = await client.validate({"steps": [], "output": 1})
    assert nameless.valid
    assert Diagnostic("warning", "Workflow has no name defined", "$.name") in nameless.warnings

    twice = await client.validate(flow([step("a", "/noop"), step("a", "/noop")], {"$step": "a"}))
    assert not twice.valid
    assert [found.location for found in twice.errors] == ["$.steps[1].id"]

    shapeless: Json = {"steps": 5}
    from_server = await client.validate(shapeless)
    from_file = await client.validate(folder_of(tmp_path, "steps: 5\n"))
    assert from_server == from_file
    assert (from_server.valid, [found.location for found in from_server.errors]) == (False, ["$.steps"])

    broken = await client.validate(folder_of(tmp_path, "steps: [\n"))
    assert [(found.level, found.location) for found in broken.errors] == [("fatal", "line 2, column 1")]


async def test_a_flow_that_cannot_be_run_is_a_failed_result_and_cannot_be_submitted(client: StepflowClient) -> None:
    twice = flow([step("a", "/noop"), step("a", "/noop")], {"$step": "a"})
    texts = [found.message for found in (await client.validate(twice)).errors]
    refused = await client.run(twice, {})
    assert refused == FlowResult.failed(400, "Workflow validation failed", {"errors": texts})
    with pytest.raises(StepflowClientError, match="Workflow validation failed") as caught:
        await client.submit(twice, {})
    assert (caught.value.status_code, caught.value.details) == (400, {"errors": texts})


async def test_a_file_that_is_not_there_is_said_to_be_missing(client: StepflowClient, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"Workflow file not found: .*nowhere.yaml"):
        await client.run(tmp_path / "nowhere.yaml", {})


# The operations of the API


async def test_flows_and_runs_are_kept_and_can_be_looked_at(client: StepflowClient) -> None:
    assert (await client.health_check())["status"] == "healthy"
    stored = await client.store_flow(ECHO)
    assert stored.flow_id is not None
    assert stored.is_stored
    view = await client.get_flow(stored.flow_id)
    assert view == FlowView(flow=view.flow, flow_id=stored.flow_id)
    await client.delete_flow(stored.flow_id)

    started = await client.create_run(stored.flow_id, {"value": 1})
    assert (started.status, started.outcome) == (RunStatus.COMPLETED, Success(1))
    details = await client.get_run(started.run_id)
    assert (details.inputs, details.overrides, details.variables) == ([{"value": 1}], None, None)
    assert (details.summary.flow_name, details.summary.items) == ("sample", ItemCounts(total=1, completed=1))
    assert await client.get_run_flow(started.run_id) == FlowView(flow=view.flow, flow_id=stored.flow_id)
    assert await client.get_run_items(started.run_id) == [
        ItemView(item_index=0, status=RunStatus.COMPLETED, outcome=Success(1))
    ]
    assert await client.get_run_steps(started.run_id) == {
        "echo": StepView(
            step_index=0,
            step_id="echo",
            component="/noop",
            status=StepStatus.COMPLETED,
            outcome=Success({"value": 1}),
        )
    }
    failed = await client.create_run(stored.flow_id, [{}], max_concurrency=1)
    assert failed.outcome == Failed(1, "Input path $.value not found")
    assert [run.run_id for run in await client.list_runs(status="failed")] == [failed.run_id]
    assert [run.run_id for run in await client.list_runs(flow_id=stored.flow_id, limit=1, offset=1)] == [started.run_id]
    await client.delete_run(failed.run_id)
    assert [run.run_id for run in await client.list_runs()] == [started.run_id]


async def test_a_refusal_has_the_status_and_the_body_of_the_answer(client: StepflowClient) -> None:
    run_id = "018f0000-0000-7000-8000-000000000000"
    with pytest.raises(StepflowClientError) as caught:
        await client.get_run(run_id)
    assert str(caught.value) == f"GET /runs/{run_id}: Execution not found"
    assert (caught.value.status_code, caught.value.details) == (404, {"code": 404, "message": "Execution not found"})


async def test_a_name_with_a_slash_does_not_reach_another_route(client: StepflowClient) -> None:
    with pytest.raises(StepflowClientError) as caught:
        await client.get_flow("../runs")
    assert caught.value.status_code in {400, 404}


async def test_a_client_that_was_closed_can_be_used_again(client: StepflowClient) -> None:
    await client.close()
    assert (await client.health_check())["status"] == "healthy"


# Without such a server


async def test_a_server_that_is_not_there_is_an_error_without_a_status() -> None:
    async with StepflowClient("http://127.0.0.1:1") as client:
        with pytest.raises(StepflowClientError, match=r"No answer from http://127.0.0.1:1") as caught:
            await client.health_check()
    assert (caught.value.status_code, caught.value.details) == (None, None)


async def test_another_kind_of_server_is_an_error() -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        status = 502 if request.url.path.endswith("/runs") else 200
        return httpx2.Response(status, text="<html>")

    async with StepflowClient("http://localhost", transport=httpx2.MockTransport(answer)) as client:
        with pytest.raises(StepflowClientError, match="GET /health: the answer is no JSON object"):
            await client.health_check()
        with pytest.raises(StepflowClientError, match="GET /runs: HTTP 502") as caught:
            await client.list_runs()
        assert caught.value.status_code == 502


@pytest.mark.parametrize("address", ["localhost:7837", "ftp://localhost", "http://", ""])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="is no address of a server"):
        StepflowClient(address)


async def test_the_token_and_further_headers_are_sent() -> None:
    seen: list[httpx2.Headers] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request.headers)
        return httpx2.Response(200, json={})

    transport = httpx2.MockTransport(answer)
    async with StepflowClient("http://localhost", token="t", headers={"x-tenant": "a"}, transport=transport) as client:
        await client.health_check()
    assert (seen[0]["authorization"], seen[0]["x-tenant"]) == ("Bearer t", "a")
