"""Streams that survive: cut connections, restarts, silence."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from pyflue import PyFlueClient
from pyflue.errors import RunNotFound, SocketMisused, Unauthorized, Unreachable, WorkflowNotFound
from tests.client.client_server import Proxy, a_client, collect, indexes, port_of, serving
from tests.promises import promise


@promise("guide.run.stream")
async def test_a_stream_starts_a_run_and_brings_its_events_to_the_end(client: PyFlueClient) -> None:
    events = await collect(client.workflows.stream("chatty", {"count": 10}, tags=["x"]))
    assert indexes(events) == list(range(1, 13))
    assert [events[0]["type"], events[-1]["type"]] == ["run_start", "run_end"]
    assert (await client.runs.get(events[0]["stream_id"]))["tags"] == ["x"]


async def test_a_stream_of_a_failed_run_ends_with_run_end_like_any_other(client: PyFlueClient) -> None:
    events = await collect(client.workflows.stream("fails"))
    assert [event["type"] for event in events] == ["run_start", "run_end"]
    assert events[-1]["data"]["status"] == "failed"


async def test_a_run_can_be_followed_from_an_index(client: PyFlueClient) -> None:
    run_id = (await client.workflows.invoke("chatty", {"count": 10}, wait=True))["run_id"]
    assert indexes(await collect(client.runs.stream(run_id, after=8))) == [9, 10, 11, 12]
    assert indexes(await collect(client.runs.stream(run_id, after=12))) == []


@promise("F23")
async def test_a_stream_of_what_is_not_there_is_a_typed_error(client: PyFlueClient) -> None:
    with pytest.raises(RunNotFound):
        await collect(client.runs.stream("workflow:echo:01M7YECVC6VBMK1TADZGY7YRFC"))
    with pytest.raises(WorkflowNotFound):
        await collect(client.workflows.stream("ecco"))


@promise("F23", "R5")
async def test_a_reader_that_is_cut_300_times_sees_each_index_once(server: str, client: PyFlueClient) -> None:
    run_id = (await client.workflows.invoke("chatty", {"count": 2000}, wait=True))["run_id"]
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    proxy = Proxy(server, lambda number: dice.randrange(0, 3500) if number < 300 else None)
    async with proxy.running() as url, a_client(url) as cut:
        events = await collect(cut.runs.stream(run_id))
    assert proxy.connections > 200
    assert indexes(events) == list(range(1, 2003))


async def test_a_posted_stream_that_is_cut_goes_on_without_a_second_run(server: str, client: PyFlueClient) -> None:
    proxy = Proxy(server, lambda number: 2000 if number == 0 else None)
    async with proxy.running() as url, a_client(url) as cut:
        events = await collect(cut.workflows.stream("chatty", {"count": 100}))
    assert proxy.connections == 2
    assert indexes(events) == list(range(1, 103))
    assert len((await client.runs.list(workflow="chatty"))["runs"]) == 1


async def test_a_connection_that_falls_silent_is_replaced(server: str, client: PyFlueClient) -> None:
    run_id = (await client.workflows.invoke("chatty", {"count": 50}, wait=True))["run_id"]
    proxy = Proxy(server, lambda number: 3000 if number == 0 else None, goes_silent=True)
    async with proxy.running() as url, a_client(url, heartbeat_s=0.05) as client_of_proxy:
        events = await collect(client_of_proxy.runs.stream(run_id))
    assert proxy.connections == 2
    assert indexes(events) == list(range(1, 53))


async def test_heartbeats_keep_a_quiet_stream_open(root: Path) -> None:
    async with serving(root, heartbeat_s=0.05) as url, a_client(url, heartbeat_s=0.1) as client:
        proxy = Proxy(url, lambda number: None)
        async with proxy.running() as proxied, a_client(proxied, heartbeat_s=0.1) as watching:
            run_id = (await client.workflows.invoke("slow", {"seconds": 1.0}))["run_id"]
            events = await collect(watching.runs.stream(run_id))
        assert proxy.connections == 1
        assert events[-1]["type"] == "run_end"


@promise("R5")
async def test_a_stream_goes_on_over_a_restart_of_the_server(root: Path) -> None:
    payload = {"file": str(root / "open")}
    seen = asyncio.Event()

    async def read(client: PyFlueClient) -> list[dict]:
        events = []
        async for event in client.workflows.stream("gate", payload):
            events.append(event)
            if event["type"] == "log":
                seen.set()
        return events

    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        async with serving(root) as url:
            client = a_client(url)
            reading = tasks.create_task(read(client))
            await seen.wait()
        (root / "open").touch()
        async with serving(root, port=port_of(url)):
            events = await reading
        await client.close()
    assert indexes(events) == list(range(1, len(events) + 1))
    assert [event["type"] for event in events].count("run_end") == 1
    assert events[-1]["data"]["status"] == "completed"


@promise("guide.run.websocket")
async def test_a_websocket_carries_one_run(client: PyFlueClient) -> None:
    async with client.workflows.connect("chatty") as conn:
        messages = await conn.run({"count": 3})
        with pytest.raises(SocketMisused):
            await conn.run({"count": 3})
    *events, last = messages
    assert indexes(events) == [1, 2, 3, 4, 5]
    assert last == {"type": "result", "run_id": events[0]["stream_id"], "result": 3}


async def test_a_websocket_of_a_failed_run_ends_with_an_error_message(client: PyFlueClient) -> None:
    async with client.workflows.connect("refuses") as conn:
        messages = await conn.run()
    assert messages[-1]["type"] == "error"
    assert messages[-1]["error"]["type"] == "quota"
    assert [event["type"] for event in messages[:-1]] == ["run_start", "run_end"]


async def test_a_websocket_of_an_unknown_workflow_brings_the_error_only(client: PyFlueClient) -> None:
    async with client.workflows.connect("ecco") as conn:
        messages = await conn.run()
    assert [message["type"] for message in messages] == ["error"]
    assert messages[0]["error"]["type"] == "workflow_not_found"


async def test_a_websocket_that_breaks_is_finished_over_http(server: str, client: PyFlueClient) -> None:
    for workflow, payload, ending in (("chatty", {"count": 100}, "result"), ("chatty", {"count": "x"}, "error")):
        proxy = Proxy(server, lambda number: 600 if number == 0 else None)
        async with proxy.running() as url, a_client(url) as cut, cut.workflows.connect(workflow) as conn:
            messages = await conn.run(payload)
        *events, last = messages
        assert indexes(events) == list(range(1, len(events) + 1))
        assert events[-1]["type"] == "run_end"
        assert last["type"] == ending


@promise("F46")
async def test_a_websocket_without_the_token_is_refused(root: Path) -> None:
    async with serving(root, token="a-token-of-the-tests") as url, a_client(url) as client:
        with pytest.raises(Unauthorized) as raised:
            async with client.workflows.connect("echo"):
                pass
        assert raised.value.status == 401


async def test_following_where_nobody_is_ends_at_once() -> None:
    async with asyncio.timeout(10), PyFlueClient("http://127.0.0.1:9", reconnect_s=600) as client:
        with pytest.raises(Unreachable):
            await anext(client.runs.stream("workflow:echo:1"))
