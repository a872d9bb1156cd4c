"""What has ended does nothing any more: steps, runtimes, runs that were deleted, plugins of an older config."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from pyflue.stepflow.backend import Backend, NewRun
from pyflue.stepflow.blobs import Blobs, MemoryShelves
from pyflue.stepflow.environments import Environments
from pyflue.stepflow.outcome import Success
from pyflue.stepflow.plugins.port import BlobType, ComponentCall, ComponentFailed
from pyflue.stepflow.plugins.stdio import StdioPlugin, StdioSettings
from pyflue.stepflow.runtime import StepflowRuntime

from ..api.serving import ECHO, ENDLESS, KINDS, memory_backend, serving
from ..running.flows import Functions, run
from ..running.test_scheduler import step


class SlowShelves(MemoryShelves):
    """Blobs are found when somebody says so."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.answers = asyncio.Event(), asyncio.Event()

    async def get(self, blob_id: str, blob_type: BlobType) -> bytes | None:
        self.asked.set()
        await self.answers.wait()
        return await super().get(blob_id, blob_type)


async def test_a_step_that_has_ended_starts_no_flows_that_it_asked_for_before() -> None:
    shelves = SlowShelves()
    blobs = Blobs(shelves)
    late = {"steps": [step("late")], "output": {"$step": "late"}}
    flow_id = await blobs.put(late, BlobType.FLOW)
    asked: list[asyncio.Task[Any]] = []

    async def submit(value: Any, call: ComponentCall) -> Any:
        asked.append(asyncio.ensure_future(call.services.submit(flow_id, [1])))
        await shelves.asked.wait()
        return "done"

    functions = Functions(submit=submit)
    document = {"steps": [step("a", "/submit")], "output": {"$step": "a"}}
    assert await run(document, functions=functions, blobs=blobs) == Success("done")
    shelves.answers.set()

    with pytest.raises(ComponentFailed, match="has ended"):
        await asked[0]
    assert functions.called == ["a"]


async def test_a_flow_that_was_submitted_and_fails_unseen_is_not_complained_of() -> None:
    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, about: complaints.append(about))
    circle = {
        "steps": [step("a", input={"$step": "b"}), step("b", input={"$step": "a"})],
        "output": {"$step": "a"},
    }

    async def submit(value: Any, call: ComponentCall) -> Any:
        flow_id = await call.services.put_blob(circle, BlobType.FLOW)
        submitted = await call.services.submit(flow_id, [1])
        with pytest.raises(ComponentFailed, match="wait for one another"):
            await call.services.sub_run(submitted.run_id, wait=True)
        await call.services.submit(flow_id, [2])
        for _ in range(20):
            await asyncio.sleep(0)
        return "done"

    document = {"steps": [step("a", "/submit")], "output": {"$step": "a"}}
    assert await run(document, functions=Functions(submit=submit)) == Success("done")
    gc.collect()  # asyncio complains when a task is collected
    assert complaints == []


# Runtimes


def runtime_with_a_store(folder: Path) -> StepflowRuntime:
    config = folder / "stepflow-config.yml"
    config.write_text(
        'plugins: {b: {type: builtin}}\nroutes: {"/{*component}": [{plugin: b}]}\n'
        'stateStore: {type: sqlite, databaseUrl: "sqlite:state.db"}\n'
    )
    return StepflowRuntime.start(config)


async def test_who_waits_for_a_recorded_run_is_told_that_the_runtime_has_stopped(tmp_path: Path) -> None:
    runtime = await asyncio.to_thread(runtime_with_a_store, tmp_path)
    run_id = await runtime.submit(ENDLESS, 1)
    waiting = asyncio.ensure_future(runtime.get_result(run_id))
    await runtime.list_components()  # it comes after what was asked before

    await runtime.stop_async()

    with pytest.raises(RuntimeError, match="has stopped"):
        async with asyncio.timeout(5):
            await waiting


async def test_what_is_left_when_a_runtime_stops_does_not_look_like_a_cancelled_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    runtime = await StepflowRuntime.start_async()
    begun = concurrent.futures.Future[None]()

    async def forever() -> None:
        begun.set_result(None)
        await asyncio.Event().wait()

    waiting = asyncio.ensure_future(runtime._there(forever()))  # pyright: ignore[reportPrivateUsage]  (what all methods do)
    await asyncio.wrap_future(begun)
    await runtime.stop_async()

    with pytest.raises(RuntimeError, match="has stopped"):
        async with asyncio.timeout(5):
            await waiting
    with pytest.raises(RuntimeError, match="has stopped"):
        await runtime.run(ECHO, {"value": 1})
    await runtime.stop_async()


async def test_a_caller_that_is_cancelled_is_cancelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with await StepflowRuntime.start_async() as runtime:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await runtime.run(ENDLESS, 1)


# Runs


@pytest.fixture(params=KINDS)
async def client(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[httpx2.AsyncClient]:
    async with serving(request.param, tmp_path) as app:
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost/api/v1") as client:
            yield client


async def _finished(client: httpx2.AsyncClient, key: str | None = None) -> str:
    flow_id = (await client.post("/flows", json={"flow": ECHO})).json()["flowId"]
    headers = {} if key is None else {"Idempotency-Key": key}
    answer = await client.post("/runs", json={"flowId": flow_id, "input": [{"value": 1}]}, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()["runId"]


async def test_the_key_of_a_run_that_was_deleted_starts_another(client: httpx2.AsyncClient) -> None:
    first = await _finished(client, "key")
    assert await _finished(client, "key") == first
    assert (await client.delete(f"/runs/{first}")).status_code == 200

    assert await _finished(client, "key") != first


async def test_a_list_of_no_runs_is_empty_wherever_it_begins(client: httpx2.AsyncClient) -> None:
    for _ in range(3):
        await _finished(client)

    assert (await client.get("/runs?limit=0&offset=1")).json() == {"runs": []}


async def test_a_root_is_listed_only_if_it_fits_everything_else_that_is_asked(client: httpx2.AsyncClient) -> None:
    run_id = await _finished(client)

    async def listed(more: str) -> list[str]:
        answer = await client.get(f"/runs?rootRunId={run_id}{more}")
        return [found["runId"] for found in answer.json()["runs"]]

    assert await listed("") == await listed("&status=completed&flowName=sample") == [run_id]
    others = ["&status=failed", "&flowName=other", f"&flowId={'0' * 64}", "&offset=1", "&limit=0"]
    assert [await listed(other) for other in others] == [[], [], [], [], []]


async def test_of_requests_with_one_key_for_a_large_flow_one_starts_the_run(tmp_path: Path) -> None:
    large = {"steps": [step(f"s{n}", "/noop", input=n) for n in range(3000)], "output": {"$step": "s1"}}
    async with memory_backend(tmp_path) as backend:
        flow_id = (await backend.store_flow(large)).flow_id
        assert flow_id is not None

        async def submit(to: Backend) -> str:
            return await to.submit(NewRun(flow_id=flow_id, inputs=[1], idempotency_key="key"))

        started = await asyncio.gather(submit(backend), submit(backend))

        assert started[0] == started[1]


# Configs


class SlowToClose(Functions):
    """Takes its time to end."""

    def __init__(self) -> None:
        super().__init__()
        self.closing, self.may_close = asyncio.Event(), asyncio.Event()
        self.is_closed = False

    async def close(self) -> None:
        self.is_closed = True
        self.closing.set()
        await self.may_close.wait()


async def test_a_config_that_changes_while_the_plugins_of_the_last_one_end_closes_none_that_is_in_use(
    tmp_path: Path,
) -> None:
    def write(size: int) -> None:
        path = tmp_path / "stepflow-config.yml"
        path.write_text("plugins: {b: {type: builtin}}\n" + "# \n" * size)
        os.utime(path, ns=(size, size))

    plugin = SlowToClose()
    environments = Environments(plugins={"slow": plugin})
    write(1)
    async with environments.use(tmp_path, None) as first:
        pass
    write(2)
    entered, leave = asyncio.Event(), asyncio.Event()
    used: list[Any] = []

    async def use() -> None:
        async with environments.use(tmp_path, None) as environment:
            used.append(environment)
            entered.set()
            await leave.wait()

    using = asyncio.ensure_future(use())
    async with asyncio.timeout(5):
        await plugin.closing.wait()
    write(3)
    another = asyncio.ensure_future(use())
    plugin.may_close.set()
    async with asyncio.timeout(5):
        while len(used) < 2:
            await asyncio.sleep(0)

    # The one of the second config is in use by the first who asked for it.
    assert [environment._is_closed for environment in (first, *used)] == [True, False, False]
    leave.set()
    await asyncio.gather(using, another)
    await environments.close()
    assert [environment._is_closed for environment in (first, *used)] == [True, True, True]


# Components that are lost

CRASHING = """
import os
from pyflue.stepflow import StepflowContext, StepflowStdioServer

server = StepflowStdioServer()


@server.component
async def orchestrate(input: dict, context: StepflowContext) -> dict:
    found = [await context.evaluate_flow(input["flow"], 1) for _ in range(2)]
    if context.attempt == 1:
        os._exit(3)
    return {"attempt": context.attempt, "found": found}


server.run()
"""


async def test_a_component_that_is_called_again_after_its_crash_gets_the_flows_it_has_run(tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text(CRASHING)
    settings = StdioSettings(command=sys.executable, args=["server.py"], cwd=tmp_path, env=dict(os.environ))
    plugin = StdioPlugin("crashing", settings)
    functions = Functions(orchestrate=lambda value, call: plugin.execute(call))
    inner = {"schema": "flow/v1", "steps": [step("inner", input={"$input": None})], "output": {"$step": "inner"}}
    document = {
        "steps": [step("o", "/orchestrate", input={"flow": {"$literal": inner}})],
        "output": {"$step": "o"},
    }
    try:
        outcome = await run(document, functions=functions)
    finally:
        await plugin.close()

    assert outcome == Success({"attempt": 2, "found": [1, 1]})
    assert functions.called == ["o", "inner", "inner"]
