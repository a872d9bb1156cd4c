"""The small HTTP client, against servers that answer in every form that HTTP has, and in some that it has not."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from pyflue.stepflow.plugins.posting import Poster, PostFailed

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def server(serve: Serve) -> AsyncIterator[str]:
    async def serving(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(serving, "127.0.0.1", 0)
    async with listening:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/rpc?x=1"


async def head_of(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    await reader.readexactly(length)
    return head


def answering(answer: bytes, *, piece: int | None = None, close: bool = True) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await head_of(reader)
            for start in range(0, len(answer), piece or len(answer) or 1):
                writer.write(answer[start : start + (piece or len(answer))])
                await writer.drain()
                if piece:
                    await asyncio.sleep(0)
            if close:
                return

    return serve


async def answer_of(poster: Poster) -> tuple[int, bytes]:
    async with poster.post(b"body", {}) as response:
        return response.status, b"".join([part async for part in response.parts()])


@pytest.mark.parametrize("piece", [None, 1])
@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\nX: trailer\r\n\r\n",
        b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\n\r\nhello",
        b"HTTP/1.0 200 OK\r\n\r\nhello",
    ],
)
async def test_a_body_comes_in_every_form(answer: bytes, piece: int | None) -> None:
    async with server(answering(answer, piece=piece)) as url:
        poster = Poster(url, {})
        assert await answer_of(poster) == (200, b"hello")
        poster.close()


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"", "it closed the connection without an answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Len", "it closed the connection without an answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello", "it broke off"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", "it broke off"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "its answer is not HTTP"),
        (b"SSH-2.0-OpenSSH\r\n", "its answer is not HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 500_000, "the head of its answer is too large"),
        (b"HTTP/1.1 100 OK\r\n\r\n" * 50_000, "the head of its answer is too large"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: " + b"x" * 500_000,
            "the head of its answer is too large",
        ),
    ],
    ids=["nothing", "half a head", "half a body", "half a chunk", "no chunk", "no HTTP", "head", "heads", "trailer"],
)
async def test_what_is_no_answer_is_a_failure(answer: bytes, problem: str) -> None:
    async with server(answering(answer)) as url:
        poster = Poster(url, {})
        with pytest.raises(PostFailed, match=problem):
            await answer_of(poster)
        poster.close()


GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.mark.parametrize(
    ("answer", "connections"),
    [
        (GOOD, 1),
        (GOOD + GOOD, 3),
        (GOOD + b"garbage", 3),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", 3),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", 3),
    ],
    ids=["whole", "two", "more", "close", "old"],
)
async def test_a_connection_is_used_again_after_exactly_one_answer(answer: bytes, connections: int) -> None:
    opened: list[None] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened.append(None)
        await answering(answer, close=False)(reader, writer)

    async with asyncio.timeout(5), server(serve) as url:
        poster = Poster(url, {})
        assert [await answer_of(poster) for _ in range(3)] == [(200, b"ok")] * 3
        poster.close()
    assert len(opened) == connections


async def test_a_connection_whose_answer_was_left_is_not_used_again() -> None:
    opened: list[None] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened.append(None)
        await head_of(reader)
        writer.write(GOOD[:-1] if len(opened) == 1 else GOOD)
        await reader.read()

    async with asyncio.timeout(5), server(serve) as url:
        poster = Poster(url, {})
        async with poster.post(b"", {}) as response:
            assert response.status == 200
        assert await answer_of(poster) == (200, b"ok")
        poster.close()
    assert len(opened) == 2


async def test_requests_at_the_same_time_have_connections_of_their_own() -> None:
    both = asyncio.Barrier(5)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        await both.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await writer.drain()

    async with asyncio.timeout(5), server(serve) as url:
        poster = Poster(url, {})
        assert await asyncio.gather(*(answer_of(poster) for _ in range(5))) == [(200, b"ok")] * 5
        poster.close()


async def test_a_body_is_read_as_fast_as_it_is_taken() -> None:
    sent = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await head_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while sent < 64 * 1024 * 1024:
            writer.write(b"x" * 65536)
            await writer.drain()
            sent += 65536

    async with server(serve) as url:
        poster = Poster(url, {})
        async with poster.post(b"", {}) as response:
            await asyncio.sleep(0.2)
            read_ahead = sent
            size = sum([len(part) async for part in response.parts()])
        poster.close()

    assert read_ahead < 16 * 1024 * 1024
    assert size == 64 * 1024 * 1024


async def test_the_request_says_all_that_it_must() -> None:
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await head_of(reader))
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        await writer.drain()

    async with server(serve) as url:
        host = url.split("/")[2]
        poster = Poster(url.replace("http://", "http://me:pass%20word@"), {"A": "b"})
        async with poster.post(b"body", {"C": "d"}) as response:
            assert (response.status, [part async for part in response.parts()]) == (204, [])
        poster.close()

    assert heads[0].decode().split("\r\n")[:-2] == [
        "POST /rpc?x=1 HTTP/1.1",
        f"Host: {host}",
        "A: b",
        "Authorization: Basic bWU6cGFzcyB3b3Jk",
        "C: d",
        "Content-Length: 4",
    ]


@pytest.mark.parametrize("value", ["a\r\nX: y", "é", "a\nb", "\0"])
async def test_nothing_can_be_smuggled_into_a_request(value: str) -> None:
    with pytest.raises(ValueError, match="cannot be sent"):
        Poster("http://127.0.0.1:1/", {"A": value})
    with pytest.raises(ValueError, match="cannot be sent"):
        Poster(f"http://127.0.0.1:1/{value.replace(chr(10), chr(1)).replace(chr(13), chr(1))}", {})
    poster = Poster("http://127.0.0.1:1/", {})
    with pytest.raises(ValueError, match="cannot be sent"):
        async with poster.post(b"", {"A": value}):
            pass


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "http://name.invalid/", "http://" + "a" * 70 + "/"])
async def test_a_server_that_is_not_there_is_a_failure(url: str) -> None:
    with pytest.raises(PostFailed):
        await answer_of(Poster(url, {}))


async def test_a_server_without_a_certificate_is_not_spoken_to_over_tls() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(GOOD)
        await writer.drain()

    async with server(serve) as url:
        poster = Poster(url.replace("http:", "https:"), {})
        with pytest.raises(PostFailed):
            async with asyncio.timeout(5):
                await answer_of(poster)
        context: Any = poster._tls
        assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
        poster.close()


async def test_closing_ends_what_is_under_way() -> None:
    asked = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        asked.set()
        await reader.read()

    async with server(serve) as url:
        poster = Poster(url, {})
        asking = asyncio.create_task(answer_of(poster))
        async with asyncio.timeout(5):
            await asked.wait()
        poster.close()
        with pytest.raises(PostFailed):
            await asking
