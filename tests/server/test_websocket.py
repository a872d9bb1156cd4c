"""The WebSocket of a workflow, over a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from pyflue import codec
from tests.promises import promise
from tests.server.harness import Address, finished, on_a_socket


@pytest.fixture
async def server(root: Path) -> AsyncGenerator[Address, None]:
    async with on_a_socket(root, server__socket_idle_s=0.3) as server:
        yield server


def opening(server: Address, name: str, **headers: str) -> connect:
    return connect(f"ws://{server.host}:{server.port}/workflows/{name}", additional_headers=headers, max_size=None)


async def received(socket: ClientConnection) -> tuple[list[Any], int]:
    """Every message until the server closes, and the code it closed with."""
    messages: list[Any] = []
    async with asyncio.timeout(10):
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                messages.append(codec.load(await socket.recv(decode=False)))
    assert closed.value.rcvd is not None
    return messages, closed.value.rcvd.code


async def ids_of_runs(server: Address) -> list[str]:
    async with server.client() as client:
        return [run["run_id"] for run in (await client.get("/runs")).json()["runs"]]


@promise("guide.run.websocket")
async def test_a_socket_takes_the_payload_and_gives_events_and_the_result(server: Address) -> None:
    async with opening(server, "chatty?tags=a") as socket:
        await socket.send('{"count": 2}')
        messages, code = await received(socket)
    *events, last = messages
    assert [(event["index"], event["type"]) for event in events] == [
        (1, "run_start"),
        (2, "log"),
        (3, "log"),
        (4, "run_end"),
    ]
    run_id = events[0]["stream_id"]
    assert (last, code) == ({"type": "result", "run_id": run_id, "result": 2}, 1000)
    async with server.client() as client:
        run = (await client.get(f"/runs/{run_id}")).json()
    assert (run["payload"], run["tags"], run["request"]["method"]) == ({"count": 2}, ["a"], "GET")


async def test_a_failing_run_ends_with_one_error(server: Address) -> None:
    async with opening(server, "fails") as socket:
        await socket.send("{}")
        messages, code = await received(socket)
    assert [message["type"] for message in messages] == ["run_start", "run_end", "error"]
    run_id = messages[0]["stream_id"]
    assert (messages[-1]["run_id"], messages[-1]["error"]["type"], code) == (run_id, "run_failed", 1000)
    assert b"secret text" not in codec.encode(messages)


@pytest.mark.parametrize(
    ("name", "payload", "expected", "code"),
    [
        ("typed", '{"id": "x"}', "payload_invalid", 1000),
        ("echo", "NaN", "invalid_json", 1007),
        ("nope", "{}", "workflow_not_found", 1000),
        ("echo?tag=a", "{}", "invalid_query", 1000),
    ],
)
async def test_what_cannot_start_is_one_error_and_no_run(
    server: Address, name: str, payload: str, expected: str, code: int
) -> None:
    async with opening(server, name) as socket:
        await socket.send(payload)
        messages, closed_with = await received(socket)
    assert [(message["type"], message["error"]["type"]) for message in messages] == [("error", expected)]
    assert closed_with == code
    assert await ids_of_runs(server) == []


@promise("F25")
async def test_a_message_above_the_limit_closes_with_1009(server: Address) -> None:
    async with opening(server, "echo") as socket:
        await socket.send('"' + "x" * 2 * 1024**2 + '"')
        assert await received(socket) == ([], 1009)
    assert await ids_of_runs(server) == []


@promise("F25")
async def test_a_binary_message_closes_with_1003(server: Address) -> None:
    async with opening(server, "echo") as socket:
        await socket.send(b"{}")
        assert await received(socket) == ([], 1003)


@promise("F25")
async def test_silence_is_closed(server: Address) -> None:
    async with opening(server, "echo") as socket:
        assert await received(socket) == ([], 1008)


@promise("F25")
async def test_a_flood_of_messages_is_one_run_and_1008_and_the_run_goes_on(root: Path, server: Address) -> None:
    payload = codec.encode({"file": str(root / "open")}).decode()
    async with opening(server, "gate") as socket:
        try:
            for _ in range(10_000):
                await socket.send(payload)
        except ConnectionClosed:
            pass
        _, code = await received(socket)
    assert code == 1008
    (run_id,) = await ids_of_runs(server)
    (root / "open").touch()
    async with server.client() as client:
        assert (await finished(client, run_id))["status"] == "completed"


async def test_a_client_that_leaves_does_not_end_the_run(root: Path, server: Address) -> None:
    async with opening(server, "gate") as socket:
        await socket.send(codec.encode({"file": str(root / "open")}).decode())
        await socket.recv()
    (run_id,) = await ids_of_runs(server)
    (root / "open").touch()
    async with server.client() as client:
        assert (await finished(client, run_id))["status"] == "completed"


@promise("F45", "F46")
async def test_a_socket_is_refused_before_it_is_accepted(root: Path) -> None:
    token = "admin-token-0123456789"
    async with on_a_socket(root, server__token=token, server__allowed_origins="https://app.example") as server:
        known = {"Authorization": f"Bearer {token}"}
        for headers, status in (
            ({}, 401),
            ({"Authorization": "Bearer wrong"}, 401),
            ({**known, "Origin": "https://evil.example"}, 403),
            ({**known, "Origin": "null"}, 403),
        ):
            with pytest.raises(InvalidStatus) as refused:
                await opening(server, "echo", **headers).__aenter__()
            assert refused.value.response.status_code == status
            assert b'{"error":' in bytes(refused.value.response.body or b"")
        async with opening(server, "echo", **known, Origin="https://app.example") as socket:
            await socket.send("1")
            assert (await received(socket))[0][-1]["result"] == 1
        foreign = b"GET /workflows/echo HTTP/1.1\r\nHost: evil.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        keys = b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        assert (await server.exchange(foreign + keys)).startswith(b"HTTP/1.1 421 ")


async def test_a_socket_of_another_path_is_404(server: Address) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"ws://{server.host}:{server.port}/runs").__aenter__()
    assert refused.value.response.status_code == 404


async def test_a_stop_closes_sockets_with_1012(root: Path) -> None:
    async with on_a_socket(root, engine__stop_s=1) as server:
        socket = await opening(server, "gate")
        await socket.send(codec.encode({"file": str(root / "never")}).decode())
        await socket.recv()
    messages, code = await received(socket)
    assert [message["type"] for message in messages] == ["log"]
    assert code == 1012
