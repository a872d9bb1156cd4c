"""A small HTTP/1.1 client: posts bodies to one address, many at a time, over connections that are kept.

Used by `http.py` only. It is there because of what a call costs: 120 µs of our own CPU, where httpx2 takes 740. It
follows no redirects, knows no proxies and no cookies, decodes nothing; a head has a largest size, and a body is read as
fast as it is taken. The parser is that of uvicorn (httptools).
"""

from __future__ import annotations

import asyncio
import ssl
from base64 import b64encode
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import cast
from urllib.parse import unquote, urlsplit

import httptools

#: Connections that wait for the next request: how many, and for how long. (Servers close theirs after 5 s.)
_IDLE = 20
_IDLE_S = 3.0
_CONNECT_S = 10.0
_HEAD_BYTES = 64 * 1024
#: What may be read ahead of those who take it.
_AHEAD_BYTES = 256 * 1024


class PostFailed(Exception):
    """There was no answer, or not all of it."""


class Response:
    """The head of an answer, and what comes after it."""

    def __init__(self, connection: _Connection, status: int, headers: Mapping[str, str]) -> None:
        self._connection = connection
        self.status = status
        #: By their names in lower case; of several of one name the last.
        self.headers = headers

    async def parts(self) -> AsyncIterator[bytes]:
        """The body, in pieces.

        Raises:
            PostFailed: it broke off.
        """
        while (part := await self._connection.part()) is not None:
            yield part


class Poster:
    """Posts to one address. Belongs to one event loop."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        """Read the address.

        Raises:
            ValueError: it, or a header, cannot be sent.
        """
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._tls else 80)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        given = {"Host": parts.netloc.rpartition("@")[2], **headers}
        if parts.username is not None:
            user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            given.setdefault("Authorization", f"Basic {b64encode(user.encode()).decode()}")
        _check(target)
        self._head = f"POST {target} HTTP/1.1\r\n{_lines(given)}"
        self._idle: deque[_Connection] = deque()
        self._open: set[_Connection] = set()

    @asynccontextmanager
    async def post(self, body: bytes, headers: Mapping[str, str]) -> AsyncGenerator[Response]:
        """Post a body. An answer that has not been read to its end when the block ends costs its connection.

        Raises:
            PostFailed: the server cannot be reached, or did not answer.
        """
        head = f"{self._head}{_lines(headers)}Content-Length: {len(body)}\r\n\r\n"
        connection = self._take() or await self._connect()
        self._open.add(connection)
        try:
            yield await connection.exchange(head.encode("latin-1") + body)
        finally:
            self._open.discard(connection)
            if connection.is_reusable and len(self._idle) < _IDLE:
                connection.idle_since = connection.loop.time()
                self._idle.append(connection)
            else:
                connection.abort()

    def close(self) -> None:
        """Close all connections; who waits for an answer hears that there is none."""
        for connection in (*self._idle, *self._open):
            connection.abort()
        self._idle.clear()

    def _take(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_reusable and connection.loop.time() - connection.idle_since < _IDLE_S:
                return connection
            connection.abort()
        return None

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        name = self._host if self._tls else None
        try:
            async with asyncio.timeout(_CONNECT_S):
                _, connection = await loop.create_connection(
                    lambda: _Connection(loop), self._host, self._port, ssl=self._tls, server_hostname=name
                )
        except TimeoutError:
            raise PostFailed(f"there was no connection within {_CONNECT_S:g} s") from None
        except (OSError, UnicodeError) as error:  # a name may be none
            raise PostFailed(getattr(error, "strerror", None) or str(error) or type(error).__name__) from error
        return connection


class _Connection(asyncio.Protocol):
    """One connection: an exchange at a time. Methods that begin with `on_` are called by the parser."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.idle_since = 0.0
        self._transport: asyncio.Transport | None = None
        self._is_lost = False
        self._is_keeping = False
        self._reset()

    def _reset(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._head_bytes = 0
        self._status = 0
        self._has_length = False
        self._is_complete = False
        self._parts: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._is_paused = False
        self._problem: str | None = None
        self._news: asyncio.Future[None] | None = None

    @property
    def is_reusable(self) -> bool:
        return self._is_complete and self._is_keeping and not self._is_lost and self._problem is None

    async def exchange(self, request: bytes) -> Response:
        """Send a request, and wait for the head of the answer."""
        transport = self._transport
        if transport is None or self._is_lost:
            raise PostFailed("the connection was closed")
        self._reset()
        transport.write(request)
        while not self._status:
            await self._wait()
        return Response(self, self._status, self._headers)

    async def part(self) -> bytes | None:
        """The next piece of the body; None after the last."""
        while not self._parts:
            if self._is_complete:
                return None
            await self._wait()
        part = self._parts.popleft()
        self._waiting_bytes -= len(part)
        if self._is_paused and self._waiting_bytes < _AHEAD_BYTES and self._transport is not None:
            self._is_paused = False
            self._transport.resume_reading()
        return part

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    async def _wait(self) -> None:
        if self._problem is not None:
            raise PostFailed(self._problem)
        self._news = self.loop.create_future()
        try:
            await self._news
        finally:
            self._news = None

    def _tell(self, problem: str | None = None) -> None:
        if problem is not None and not self._is_complete:
            self._problem = self._problem or problem
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    # What the event loop tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._is_complete or self._problem is not None:
            # Nothing was asked.
            self.abort()
            return
        try:
            # Of the body, what comes around its pieces counts; `on_body` begins anew.
            self._head_bytes += len(data)
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._tell(f"its answer is not HTTP ({error})")
            self.abort()
            return
        if self._head_bytes > _HEAD_BYTES and not self._is_complete:
            self._tell("the head of its answer is too large")
            self.abort()
        elif self._waiting_bytes > _AHEAD_BYTES and not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_lost = True
        if self._status and not self._has_length and exc is None:
            # The end of the connection is the end of the body.
            self._is_complete = True
        self._tell("it broke off" if self._status else "it closed the connection without an answer")

    # What the parser tells

    def on_message_begin(self) -> None:
        if self._is_complete:
            self._is_keeping = False  # an answer to nothing

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._status:
            return  # it comes after the body, and says nothing that is needed
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self._is_complete:
            return
        status = self._parser.get_status_code()
        if status < 200:
            self._headers = {}
            return
        self._status = status
        self._head_bytes = 0
        self._has_length = "content-length" in self._headers or "transfer-encoding" in self._headers
        self._tell()

    def on_body(self, body: bytes) -> None:
        if self._is_complete:
            return
        self._head_bytes = 0
        self._parts.append(body)
        self._waiting_bytes += len(body)
        self._tell()

    def on_message_complete(self) -> None:
        if self._status and not self._is_complete:
            self._is_complete = True
            self._is_keeping = self._parser.should_keep_alive()
            self._tell()


def _lines(headers: Mapping[str, str]) -> str:
    for name, value in headers.items():
        _check(name)
        _check(value)
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items())


def _check(text: str) -> None:
    """Nothing that could end a line, or be read as another one."""
    if not (text.isascii() and text.isprintable()):
        raise ValueError("a header or the address holds a character that cannot be sent")
