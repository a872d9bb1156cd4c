"""Blobs in memory have a largest size together, and runs under way keep what they need."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from pyflue.stepflow import StepflowClientError, StepflowRuntime, StepflowServer

#: Keeps its input and gives the id of that.
KEEP: dict[str, Any] = {
    "name": "keep",
    "description": "d",
    "steps": [{"id": "kept", "component": "/put_blob", "input": {"data": {"$input": "$"}, "blob_type": "data"}}],
    "output": {"$step": "kept", "path": "blob_id"},
}
#: Reads a blob.
READ: dict[str, Any] = {
    "name": "read",
    "description": "d",
    "steps": [{"id": "found", "component": "/get_blob", "input": {"blob_id": {"$input": "id"}}}],
    "output": {"$step": "found", "path": "data"},
}
LIMIT = 64 * 1024


def big(number: int) -> str:
    """Something of 10 KiB."""
    return f"{number:04}" + "x" * 10_240


@asynccontextmanager
async def runtime(folder: Path, **options: Any) -> AsyncIterator[StepflowRuntime]:
    config = folder / "stepflow-config.yml"
    config.write_text(
        f"stateStore: {{type: inMemory, maxBlobBytes: {LIMIT}}}\n"
        "plugins: {builtin: {type: builtin}}\n"
        'routes: {"/{*component}": {plugin: builtin}}\n'
    )
    async with asyncio.timeout(20), StepflowRuntime.start(config, **options) as running:
        yield running


async def keep(running: StepflowRuntime, *numbers: int) -> list[str]:
    return [(await running.run(KEEP, big(number))).output["value"] for number in numbers]


async def read(running: StepflowRuntime, blob_id: str) -> Any:
    result = await running.run(READ, {"id": blob_id})
    return result.output["value"] if result.is_success else result.error


async def test_the_blobs_that_were_used_least_lately_go_when_there_is_no_room(tmp_path: Path) -> None:
    async with runtime(tmp_path) as running:
        first, second = await keep(running, 1, 2)
        await keep(running, 3, 4, 5)
        assert await read(running, first) == big(1)
        *_, last = await keep(running, 6, 7)

        assert await read(running, first) == big(1)
        assert await read(running, last) == big(7)
        lost = await read(running, second)
        assert f"There is no blob {second}" in lost.message


async def test_what_a_run_has_kept_stays_and_what_there_is_no_room_for_fails_its_step(tmp_path: Path) -> None:
    names = [f"s{number}" for number in range(8)]
    steps: list[dict[str, Any]] = []
    for number, name in enumerate(names):
        data = [{"$input": f"$.all[{number}]"}, {"$step": names[number - 1], "path": "blob_id"} if number else None]
        steps.append({"id": name, "component": "/put_blob", "input": {"data": data, "blob_type": "data"}})
    back = {"id": "back", "component": "/get_blob", "input": {"blob_id": {"$step": "s0", "path": "blob_id"}}}
    full = {"$if": {"$step": "s7"}, "then": "there was room", "else": {"$step": "back", "path": "data"}}
    flow = {"name": "hoard", "description": "d", "steps": [*steps, back], "output": full}
    async with runtime(tmp_path) as running:
        given = {"all": [big(number) for number in range(8)]}
        kept = await running.run(flow, given)
        assert kept.output == {"value": [big(0), None]}, kept.error
        failed = await running.run({**flow, "output": {"$step": "s7"}}, given)
        assert "There is no room left for blobs: 65,536 bytes are kept in memory" in failed.error.message
        # Those runs are over: there is room again.
        [fresh] = await keep(running, 9)
        assert await read(running, fresh) == big(9)


async def test_a_blob_whose_id_a_run_was_given_is_there_when_the_run_comes_to_it(tmp_path: Path) -> None:
    gate, arrived = threading.Event(), threading.Event()
    server = StepflowServer(include_builtins=False)

    @server.component
    def wait(nothing: Any) -> bool:
        arrived.set()
        return gate.wait(15)

    steps = [
        {"id": "wait", "component": "/gate/wait"},
        {
            "id": "found",
            "component": "/get_blob",
            "input": {"blob_id": {"$if": {"$step": "wait"}, "then": {"$input": "deep.id"}}},
        },
    ]
    late = {"name": "late", "description": "d", "steps": steps, "output": {"$step": "found", "path": "data"}}
    async with runtime(tmp_path, servers={"gate": server}) as running:
        mine, other = await keep(running, 1, 2)
        run_id = await running.submit(late, {"deep": {"id": mine}})
        await asyncio.to_thread(arrived.wait, 15)
        await keep(running, *range(3, 20))
        gate.set()
        result = await running.get_result(run_id)

        assert result.output == {"value": big(1)}, result.error
        assert "There is no blob" in (await read(running, other)).message


async def test_a_flow_that_had_to_go_is_kept_again_when_it_is_stored_again(tmp_path: Path) -> None:
    unused = {"name": "unused", "description": "d", "output": {"$input": "$"}}
    async with runtime(tmp_path, port=0) as running:
        flow_id = (await running.client.store_flow(unused)).flow_id
        assert flow_id is not None
        await keep(running, *range(8))
        with pytest.raises(StepflowClientError) as error:
            await running.client.get_flow(flow_id)
        assert error.value.status_code == 404

        assert (await running.client.store_flow(unused)).flow_id == flow_id
        assert (await running.run(unused, 5)).output == {"value": 5}


async def test_a_flow_that_there_is_no_room_for_is_refused(tmp_path: Path) -> None:
    large = {"name": "large", "description": "d", "output": "x" * LIMIT}
    async with runtime(tmp_path, port=0) as running:
        with pytest.raises(StepflowClientError) as error:
            await running.client.store_flow(large)
        assert error.value.status_code == 507
        assert "There is no room left for blobs" in str(error.value)
