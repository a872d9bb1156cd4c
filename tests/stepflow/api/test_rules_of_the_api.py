"""Rules of the runtime, the client and the HTTP API that the tests beside this one do not show: a runtime that is ended
by a fault, what is waited for and what is not, and what is told of runs."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from pyflue.stepflow import (
    FlowResult,
    StepflowClient,
    StepflowClientError,
    StepflowContext,
    StepflowRuntime,
    StepflowServer,
)
from tests.server.harness import client_of

from .serving import ECHO, ENDLESS, KINDS, Described, Json, flow, serving, step
from .test_http import API, got, refused, started, stored

CALL = flow([step("a", "/mine/go", {"$input": "$"})], {"$step": "a"})


def server_of(component: Any) -> StepflowServer:
    server = StepflowServer(include_builtins=False)
    server.component(component, name="go")
    return server


# A runtime that is ended by a fault

#: What a component in the runtime's own process may do to it, and what is told of it.
FAULTS = {
    "stops the loop": "Event loop stopped before Future completed.",
    "exits in a callback": "The event loop was ended by SystemExit(3).",
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_runtime_whose_loop_was_ended_by_a_component_has_crashed_and_says_so(fault: str) -> None:
    async def go(value: Any) -> Any:
        loop = asyncio.get_running_loop()
        if fault == "stops the loop":
            loop.stop()
        else:
            loop.call_soon(sys.exit, 3)
        await asyncio.Event().wait()

    told: list[Exception] = []
    told_of: list[tuple[bool, bool]] = []
    is_told = threading.Event()

    def on_crash(error: Exception) -> None:
        told.append(error)
        # Who is told may stop it; it cannot be used any more.
        runtime.stop()
        told_of.append((runtime.crashed, runtime.is_alive))
        is_told.set()

    async with StepflowRuntime.start(servers={"mine": server_of(go)}, on_crash=on_crash) as runtime:
        assert not runtime.crashed
        async with asyncio.timeout(20):
            # Who waits is told, and does not wait for ever.
            with pytest.raises(RuntimeError, match="The runtime has stopped"):
                await runtime.run(CALL, None)
            assert await asyncio.to_thread(is_told.wait, 20)
        assert told_of == [(True, False)]
        assert (runtime.crashed, runtime.is_alive) == (True, False)
        with pytest.raises(RuntimeError, match="The runtime has stopped"):
            await runtime.run(CALL, None)

    assert [(type(error), str(error)) for error in told] == [(RuntimeError, FAULTS[fault])]
    lines = [(entry.level, entry.message) for entry in runtime.get_recent_logs()]
    assert lines == [("info", "started"), ("error", f"RuntimeError: {FAULTS[fault]}")]


async def test_a_component_that_exits_fails_its_step_and_the_runtime_goes_on() -> None:
    async def go(value: Any) -> Any:
        sys.exit(value)

    told: list[Exception] = []
    async with StepflowRuntime.start(servers={"mine": server_of(go)}, on_crash=told.append) as runtime:
        result = await runtime.run(CALL, 3)
        assert (runtime.is_alive, runtime.crashed, told) == (True, False, [])

    assert result.error is not None
    assert result.error.message == 'step "a" failed: The component ended with sys.exit(3).'
    assert (runtime.crashed, told) == (False, [])


#: Has a database for itself until its standard input ends.
HOLDER = """\
import sqlite3, sys

held = sqlite3.connect(sys.argv[1])
held.execute("PRAGMA journal_mode=WAL")
held.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.read()
"""


def test_a_runtime_that_does_not_start_in_its_time_is_given_up_and_leaves_nothing(tmp_path: Path) -> None:
    config = tmp_path / "c.yml"
    config.write_text('stateStore: {type: sqlite, databaseUrl: "sqlite:held.db"}\n')
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "held.db")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        letting_go = threading.Timer(0.5, holder.stdin.close)
        letting_go.start()
        try:
            with pytest.raises(TimeoutError, match=r"^The runtime did not start within 0\.1 s\.$"):
                StepflowRuntime.start(config, startup_timeout=0.1)
        finally:
            letting_go.join()
    assert "stepflow runtime" not in [thread.name for thread in threading.enumerate()]


async def test_stopping_has_a_time_and_can_be_tried_again() -> None:
    is_there, may_end = threading.Event(), threading.Event()

    async def go(value: Any) -> Any:
        # It holds up the runtime's loop, as a component that is written wrongly does.
        is_there.set()
        may_end.wait(20)
        return value

    runtime = StepflowRuntime.start(servers={"mine": server_of(go)})
    running = asyncio.ensure_future(runtime.run(CALL, 1))
    assert await asyncio.to_thread(is_there.wait, 20)
    try:
        with pytest.raises(TimeoutError, match=r"did not stop within 0\.05 s"):
            await runtime.stop_async(timeout=0.05)
    finally:
        may_end.set()
    await runtime.stop_async()
    await asyncio.gather(running, return_exceptions=True)
    assert (runtime.is_alive, runtime.crashed) == (False, False)


# What is waited for


async def test_a_runtime_returns_from_submit_before_the_run_has_ended() -> None:
    is_there, may_end = threading.Event(), threading.Event()

    def go(value: Any) -> Any:
        is_there.set()
        assert may_end.wait(20)
        return value

    async with StepflowRuntime.start(servers={"mine": server_of(go)}) as runtime, asyncio.timeout(20):
        run_id = await runtime.submit(CALL, {"n": 1})
        assert await asyncio.to_thread(is_there.wait, 20)
        waiting = asyncio.ensure_future(runtime.get_result(run_id))
        may_end.set()
        assert await waiting == FlowResult.success({"n": 1})


async def test_a_client_gives_a_request_up_after_its_timeout() -> None:
    # The system takes the connection; nobody ever reads from it.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with StepflowClient(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.1) as client:
            async with asyncio.timeout(10):
                with pytest.raises(StepflowClientError, match="No answer from") as caught:
                    await client.health_check()
        silent.accept()[0].close()
    assert (caught.value.status_code, caught.value.details) == (None, None)


# Overrides


async def test_an_override_of_the_metadata_of_a_step_is_what_its_component_is_told() -> None:
    async def go(value: Any, context: StepflowContext) -> Any:
        return (await context.get_metadata()).get("step_metadata")

    document = flow([step("a", "/mine/go", metadata={"owner": "Ada", "size": 1})], {"$step": "a"})
    async with StepflowRuntime.start(servers={"mine": server_of(go)}) as runtime, asyncio.timeout(20):
        as_it_is = await runtime.run(document, None)
        patched = await runtime.run(document, None, {"a": {"value": {"metadata": {"size": None, "urgent": True}}}})

    assert as_it_is.output == {"owner": "Ada", "size": 1}
    assert patched.output == {"owner": "Ada", "urgent": True}


# The HTTP API


@pytest.fixture(params=KINDS)
async def client(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[httpx2.AsyncClient]:
    monkeypatch.delenv("PYFLUE_TOKEN", raising=False)
    async with serving(request.param, tmp_path) as app, client_of(app, "http://localhost/") as client:
        client.event_hooks["response"].append(Described().check)
        yield client


async def test_an_override_of_a_type_that_there_is_not_is_refused(client: httpx2.AsyncClient) -> None:
    body: Json = {"flowId": await stored(client, ECHO), "input": [{"value": 1}]}
    overrides: Json = {"steps": {"echo": {"$type": "xml_patch", "value": {}}}}
    answer = await client.post(f"{API}/runs", json={**body, "overrides": overrides})
    refused(answer, 400, "Unsupported override type: xml_patch. Use merge_patch or json_patch.")
    assert await got(client, "/runs") == {"runs": []}


async def test_every_override_and_variable_counts_for_every_item(client: httpx2.AsyncClient) -> None:
    document = flow([step("a", "/noop", 1)], [{"$step": "a"}, {"$input": "$"}, {"$variable": "v"}])
    overrides = {"a": {"value": {"input": "changed"}}}
    run_id = (await started(client, document, 1, 2, 3, overrides=overrides, variables={"v": "same"}))["runId"]
    items = (await got(client, f"/runs/{run_id}/items"))["items"]
    assert [item["result"]["result"] for item in items] == [["changed", number, "same"] for number in (1, 2, 3)]


async def test_a_list_of_runs_has_the_summary_of_each_and_not_what_it_was_given(client: httpx2.AsyncClient) -> None:
    overrides = {"echo": {"value": {"input": {"value": "other"}}}}
    run_id = (await started(client, ECHO, {"value": 1}, overrides=overrides))["runId"]
    whole = await got(client, f"/runs/{run_id}")
    summary = {name: value for name, value in whole.items() if name not in {"inputs", "overrides"}}
    assert set(whole) - set(summary) == {"inputs", "overrides"}
    assert await got(client, "/runs") == {"runs": [summary]}


async def test_cancelling_is_answered_with_the_summary_of_the_run(client: httpx2.AsyncClient) -> None:
    run_id = (await started(client, ENDLESS, None, wait=False))["runId"]
    answer = await client.post(f"{API}/runs/{run_id}/cancel")
    assert answer.status_code == 200
    ended = await got(client, f"/runs/{run_id}", wait="true", timeoutSecs=10)
    # It may be on its way to its end when the answer is written.
    changing = {"status", "items", "completedAt"}
    told = answer.json()
    assert {name: value for name, value in told.items() if name not in changing} == {
        name: value for name, value in ended.items() if name not in {*changing, "inputs"}
    }
    assert told["status"] in {"running", "cancelled"}
    assert (ended["status"], ended["items"]["cancelled"]) == ("cancelled", 1)


async def test_a_run_of_one_input_that_failed_has_its_stack_in_the_layers_of_the_original(
    client: httpx2.AsyncClient,
) -> None:
    broken = flow([step("look", "/get_blob", {"blob_id": "0" * 64})], {"$step": "look"})
    error = (await started(client, broken, None))["result"]["error"]
    assert set(error) == {"code", "message", "data"}
    assert error["data"]["stack"][0] == {
        "error": 'step "look" failed',
        "attachments": ["Component: /get_blob", "Component execution failed for step 'look'"],
    }
