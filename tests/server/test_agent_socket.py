"""The WebSocket of an agent's instance, over a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from pyflue import codec
from tests.agent_project import write_agents
from tests.promises import promise
from tests.server.harness import Address, on_a_socket


@pytest.fixture
async def server(root: Path) -> AsyncGenerator[Address, None]:
    write_agents(root)
    async with on_a_socket(root, server__socket_idle_s=0.3) as server:
        yield server


def opening(server: Address, path: str = "echo/one", **headers: str) -> connect:
    return connect(f"ws://{server.host}:{server.port}/agents/{path}", additional_headers=headers, max_size=None)


async def send(socket: ClientConnection, **message: Any) -> None:
    await socket.send(codec.encode(message).decode())


async def received(socket: ClientConnection, *, until: str | None = None) -> list[Any]:
    """Messages through the one that ends a prompt, or the first of a type."""
    messages: list[Any] = []
    async with asyncio.timeout(10):
        while True:
            messages.append(codec.load(await socket.recv(decode=False)))
            last = messages[-1]
            if last["type"] == until or ("index" not in last and last["type"] in {"result", "error"}):
                return messages


async def closed_with(socket: ClientConnection) -> int:
    async with asyncio.timeout(10):
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                await socket.recv()
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code


async def test_a_socket_stays_open_for_several_prompts(server: Address) -> None:
    async with opening(server) as socket:
        for number in (1, 3):
            await send(socket, type="prompt", message="count")
            *events, result = await received(socket)
            stored = [event["type"] for event in events if "index" in event]
            assert (stored[0], stored[-1]) == ("interaction_accepted", "interaction_end")
            assert {event["interaction_id"] for event in events if "index" in event} == {result["dispatch_id"]}
            assert (result["type"], result["result"]["text"]) == ("result", str(number))
        # Longer than the silence that is allowed before the first message.
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await socket.recv()
        await send(socket, type="prompt", message="count", session="other")
        assert (await received(socket))[-1]["result"]["text"] == "1"


async def test_what_fails_leaves_the_socket_open(server: Address) -> None:
    async with opening(server) as socket:
        refused: list[str] = []
        for text in ("{", "[1]", '{"type": "sing"}', '{"type": "prompt"}', '{"type": "prompt", "prompt": "hi"}'):
            await socket.send(text)
            (error,) = await received(socket)
            assert "dispatch_id" not in error
            refused.append(error["error"]["type"])
        assert refused == ["invalid_json", "socket_misused", "socket_misused", "payload_invalid", "payload_invalid"]
        await send(socket, type="prompt", message="fail")
        *_, end, error = await received(socket)
        assert (end["type"], error["error"]["type"]) == ("interaction_end", "model_failed")
        assert error["dispatch_id"] == error["error"]["dispatch_id"]
        await send(socket, type="abort")  # of nothing
        await send(socket, type="prompt", message="hi")
        assert (await received(socket))[-1]["type"] == "result"


async def test_an_unknown_agent_and_a_refusal_are_errors_of_their_prompts(server: Address) -> None:
    for path, expected in (("nobody/1", "agent_not_found"), ("guarded/1", "forbidden"), ("broken/1", "agent_invalid")):
        async with opening(server, path) as socket:
            await send(socket, type="prompt", message="hi")
            (error,) = await received(socket)
            assert error["error"]["type"] == expected
    with pytest.raises(InvalidStatus) as refused:
        async with opening(server, "echo"):
            pass
    assert refused.value.response.status_code == 404


async def test_a_prompt_is_aborted_and_another_one_meanwhile_is_busy(root: Path, server: Address) -> None:
    async with opening(server) as socket:
        await send(socket, type="prompt", message="gate")
        await received(socket, until="text_delta")
        await send(socket, type="prompt", message="hi")
        (busy,) = [message for message in await received(socket) if message["type"] == "error"]
        assert busy["error"]["type"] == "session_busy"
        await send(socket, type="abort")
        *_, end, error = await received(socket)
        assert (end["type"], end["data"]["status"]) == ("interaction_end", "cancelled")
        assert error["error"]["type"] == "dispatch_cancelled"
        (root / "src" / "agents" / "open").touch()
        await send(socket, type="prompt", message="hi")
        assert (await received(socket))[-1]["result"]["text"] == "You said 'hi'."


async def test_who_leaves_ends_nothing(root: Path, server: Address) -> None:
    async with opening(server) as socket:
        await send(socket, type="prompt", message="gate")
        first = (await received(socket, until="turn_request"))[0]
    (root / "src" / "agents" / "open").touch()
    async with server.client() as client:
        path = f"/agents/echo/one/dispatches/{first['interaction_id']}?wait=result"
        assert (await client.get(path)).json()["status"] == "completed"


@promise("F25")
async def test_binary_too_large_silent_and_flooding_clients_are_closed(server: Address) -> None:
    async with opening(server) as socket:
        await socket.send(b"{}")
        assert await closed_with(socket) == 1003
    async with opening(server) as socket:
        await send(socket, type="prompt", message="x" * 2 * 1024**2)
        assert await closed_with(socket) == 1009
    async with opening(server) as socket:
        assert await closed_with(socket) == 1008
    for flood in ('{"type": "abort"}', "{", '{"type": "prompt", "message": "gate"}'):
        async with opening(server) as socket:
            try:
                for _ in range(10_000):
                    await socket.send(flood)
            except ConnectionClosed:
                pass
            assert await closed_with(socket) == 1008
    async with server.client() as client:
        assert len((await client.get("/agents/echo/one/dispatches")).json().get("dispatches", [])) <= 1
        await client.post("/agents/echo/one/sessions/default/abort")


@promise("F45")
async def test_a_foreign_page_gets_no_socket(server: Address) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with opening(server, Origin="http://evil.example"):
            pass
    assert refused.value.response.status_code == 403
