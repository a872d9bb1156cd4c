"""Real connections: limits, slow and rude clients, stopping."""

from __future__ import annotations

import asyncio
import contextlib
import select
import signal
import socket
from pathlib import Path

import pytest
from starlette.types import Receive, Scope, Send

from pyflue.errors import PyFlueError
from pyflue.server import bind, serve
from pyflue.settings import load_settings
from tests.promises import promise
from tests.server.harness import finished, frames_of, on_a_socket

OK = b"HTTP/1.1 200 OK"
GET_HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


def post(name: str, body: bytes, *extra: bytes) -> bytes:
    head = b"\r\n".join(
        [
            b"POST /workflows/%b HTTP/1.1" % name.encode(),
            b"Host: localhost",
            b"Content-Type: application/json",
            b"Content-Length: %d" % len(body),
            *extra,
        ]
    )
    return head + b"\r\n\r\n" + body


async def test_answers_are_not_delayed_by_nagles_algorithm(root: Path) -> None:
    async with on_a_socket(root) as server, server.client() as client:
        loop = asyncio.get_running_loop()
        began = loop.time()
        for _ in range(20):
            assert (await client.get("/health")).status_code == 200
        assert loop.time() - began < 20 * 0.03


@promise("F47")
@pytest.mark.parametrize(
    "head",
    [
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Big: " + b"x" * 40_000 + b"\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + b"X: 1\r\n" * 20_000 + b"\r\n",
        b"GET /" + b"x" * 400_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + b"X: 1\r\n" * 200 + b"\r\n",
    ],
    ids=["one large header", "many headers", "long path", "too many headers"],
)
async def test_a_head_above_the_limit_is_431(root: Path, head: bytes) -> None:
    async with on_a_socket(root) as server:
        answer = await server.exchange(head)
        assert answer.startswith(b"HTTP/1.1 431 ")
        assert b'"headers_too_large"' in answer
        assert (await server.exchange(b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n")).startswith(OK)


@promise("F47")
async def test_an_endless_header_is_cut_off(root: Path) -> None:
    async with on_a_socket(root) as server:
        reader, writer = await server.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ")
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 50 * 1024**2 and not reader.at_eof():
                writer.write(b"x" * 65536)
                sent += 65536
                async with asyncio.timeout(10):
                    await writer.drain()
                    await asyncio.sleep(0)
        assert (await reader.read()).startswith(b"HTTP/1.1 431 ")
        writer.close()


@promise("F47")
@pytest.mark.parametrize(
    "request_bytes",
    [
        post("echo", b"{}", b"Transfer-Encoding: chunked"),
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nBad\rName: x\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nBad Name: x\r\n\r\n",
        b"nonsense\r\n\r\n",
        post("echo", b"{}", b"Content-Length: 5"),
    ],
    ids=["length and chunked", "CR in a name", "space in a name", "no HTTP", "two lengths"],
)
async def test_a_request_that_could_be_read_in_two_ways_is_400(root: Path, request_bytes: bytes) -> None:
    async with on_a_socket(root) as server:
        answer = await server.exchange(request_bytes)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert answer.count(b"HTTP/1.1 ") == 1
        async with server.client() as client:
            assert (await client.get("/runs")).json()["runs"] == []


@promise("F47")
@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"", b""),
        (b"GET /hea", b"HTTP/1.1 408 "),
        (b"GET /health HTTP/1.1\r\nHost: local", b"HTTP/1.1 408 "),
        (post("echo", b"{}" + b" " * 100)[:-50], b"HTTP/1.1 408 "),
        (GET_HEALTH, OK),
    ],
    ids=["nothing", "half a line", "half a head", "half a body", "idle afterwards"],
)
async def test_a_connection_that_owes_a_request_is_closed(root: Path, sent: bytes, expected: bytes) -> None:
    async with on_a_socket(root, server__header_timeout_s=0.4) as server:
        async with asyncio.timeout(4):
            answer = await server.exchange(sent)
        assert answer.startswith(expected)


@promise("F47")
async def test_above_the_cap_connections_are_503_and_health_still_answers(root: Path) -> None:
    async with on_a_socket(root, limits__connections=20) as server, contextlib.AsyncExitStack() as stack:
        for _ in range(20):
            _, writer = await server.connect()
            stack.callback(writer.close)
        refused = await server.exchange(b"GET /runs HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert refused.startswith(b"HTTP/1.1 503 ")
        assert b'"too_many_connections"' in refused
        began = asyncio.get_running_loop().time()
        health = await server.exchange(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert health.startswith(OK)
        assert asyncio.get_running_loop().time() - began < 0.5


async def test_an_old_connection_is_closed_after_its_answer(root: Path) -> None:
    async with on_a_socket(root, server__connection_age_s=0.000001) as server:
        answer = await server.exchange(GET_HEALTH)
        assert answer.startswith(OK)
        assert b"\r\nconnection: close\r\n" in answer


@promise("F26")
async def test_a_body_that_is_refused_early_does_not_break_the_connection(root: Path) -> None:
    async with on_a_socket(root, limits__payload_bytes=1000) as server:
        reader, writer = await server.connect()
        writer.write(post("echo", b" " * 300_000) + GET_HEALTH)
        async with asyncio.timeout(5):
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 413 ")
            rest = await reader.readuntil(b'"ok":true')
            assert OK in rest
        writer.close()


@promise("F22")
async def test_readers_that_never_read_are_closed_and_do_not_slow_the_run(root: Path) -> None:
    async with (
        on_a_socket(root, server__send_timeout_s=0.5) as server,
        server.client() as client,
        contextlib.AsyncExitStack() as stack,
    ):
        payload = {"count": 1500, "size": 4000}
        run_id = (await client.post("/workflows/chatty?wait=result", json=payload)).json()["run_id"]
        hung_up = select.poll()
        for _ in range(50):
            sock = stack.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect((server.host, server.port))
            sock.sendall(b"GET /runs/%b/stream HTTP/1.1\r\nHost: localhost\r\n\r\n" % run_id.encode())
            hung_up.register(sock, select.POLLHUP | select.POLLERR)
        async with asyncio.timeout(5):
            assert (await client.post("/workflows/chatty?wait=result", json=payload)).json()["result"] == 1500
        async with asyncio.timeout(10):
            while len(hung_up.poll(0)) < 50:
                await asyncio.sleep(0.05)
        again = await client.get(f"/runs/{run_id}/stream")
        assert len(frames_of(again.text)) == 1502


async def test_a_refused_client_that_goes_on_sending_is_cut_off(root: Path) -> None:
    async with on_a_socket(root) as server:
        reader, writer = await server.connect()
        writer.write(b"nonsense\r\n\r\n")
        async with asyncio.timeout(5):
            assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
            with pytest.raises(ConnectionError):
                while True:
                    writer.write(b"more")
                    await writer.drain()
                    await asyncio.sleep(0.02)


@promise("F24")
async def test_a_reader_that_leaves_is_freed_and_the_run_goes_on(root: Path) -> None:
    async with on_a_socket(root) as server, server.client() as client:
        run_id = (await client.post("/workflows/gate", json={"file": str(root / "open")})).json()["run_id"]
        before = len(asyncio.all_tasks())
        reader, writer = await server.connect()
        writer.write(b"GET /runs/%b/stream HTTP/1.1\r\nHost: localhost\r\n\r\n" % run_id.encode())
        await reader.readuntil(b"waiting")
        assert len(asyncio.all_tasks()) > before
        writer.transport.abort()
        async with asyncio.timeout(1):
            while len(asyncio.all_tasks()) > before:
                await asyncio.sleep(0.01)
        (root / "open").touch()
        assert (await finished(client, run_id))["status"] == "completed"


async def test_a_quiet_stream_is_kept_alive_by_heartbeats(root: Path) -> None:
    async with on_a_socket(root, server__heartbeat_s=0.05, engine__stop_s=1) as server, server.client() as client:
        run_id = (await client.post("/workflows/gate", json={"file": str(root / "never")})).json()["run_id"]
        reader, writer = await server.connect()
        writer.write(b"GET /runs/%b/stream HTTP/1.1\r\nHost: localhost\r\n\r\n" % run_id.encode())
        async with asyncio.timeout(5):
            for _ in range(3):
                await reader.readuntil(b": heartbeat\n\n")
        writer.close()


async def test_a_stop_ends_open_streams_and_waits_promptly(root: Path) -> None:
    loop = asyncio.get_running_loop()
    async with on_a_socket(root, engine__stop_s=1) as server:
        client = server.client()
        payload = {"file": str(root / "never")}
        waiting = asyncio.ensure_future(client.post("/workflows/gate?wait=result", json=payload))
        reader, writer = await server.connect()
        writer.write(post("gate", b'{"file": "%b"}' % str(root / "never").encode(), b"Accept: text/event-stream"))
        await reader.readuntil(b"waiting")
        async with asyncio.timeout(5):
            while len((await client.get("/runs?status=running")).json()["runs"]) < 2:
                await asyncio.sleep(0.01)
        began = loop.time()
    assert loop.time() - began < 3
    assert (await waiting).status_code == 202
    assert b"run_end" not in await reader.read()
    writer.close()
    await client.aclose()


@promise("F05")
async def test_while_runs_are_handed_back_new_requests_are_503(root: Path) -> None:
    async with asyncio.TaskGroup() as tasks, on_a_socket(root, engine__stop_s=3) as server:
        async with server.client() as client:
            accepted = await client.post("/workflows/gate", json={"file": str(root / "never")})
        run_id = accepted.json()["run_id"].encode()
        reader, writer = await server.connect()
        writer.write(b"GET /runs/%b/stream HTTP/1.1\r\nHost: localhost\r\n\r\n" % run_id)
        await reader.readuntil(b"waiting")

        async def ask_while_stopping() -> bytes:
            await reader.readuntil(b"\r\n0\r\n\r\n")  # the stream ends when the stop begins
            writer.close()
            return await server.exchange(post("echo", b"{}", b"Connection: close"))

        asked = tasks.create_task(ask_while_stopping())
    assert (await asked).startswith(b"HTTP/1.1 503 ")
    assert b'"stopping"' in await asked


async def test_an_application_that_cannot_start_says_why(root: Path) -> None:
    async def app(scope: object, receive: object, send: object) -> None:
        raise PyFlueError("The journal is broken.")

    settings = load_settings(root, options={"server.port": 0}, environ={})
    with pytest.raises(PyFlueError, match="The journal is broken"):
        await serve(app, bind(settings.server), settings, on_ready=print)


async def test_a_server_that_is_stopped_while_it_starts_is_never_ready(root: Path) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        signal.raise_signal(signal.SIGTERM)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    settings = load_settings(root, options={"server.port": 0}, environ={})
    ready: list[str] = []
    async with asyncio.timeout(10):
        await serve(app, bind(settings.server), settings, on_ready=ready.append)
    assert ready == []
