"""An MCP server behind an address: the SDK's streamable HTTP, with headers of ours and with a largest answer.

Agents (`agents/mcp`) and flows (`stepflow/plugins`) speak to servers through it; their rooms do not know one another.
The official SDK (`pyflue[mcp]`) is imported here, so this module is imported at first use. Redirects are followed by
the SDK, and only to the same origin. Whatever a server says is hostile.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import parse_qsl, urlsplit

import httpx2
from mcp.client.streamable_http import streamable_http_client

if TYPE_CHECKING:
    from mcp.client._transport import ReadStream, WriteStream
    from mcp.shared.message import SessionMessage

    Streams: TypeAlias = tuple[ReadStream[SessionMessage | Exception], WriteStream[SessionMessage]]

_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", re.ASCII)
_VALUE = re.compile(r"(?:[!-~](?:[ -~]*[!-~])?)?", re.ASCII)
#: Shorter values say nothing, or stand everywhere.
_SHORTEST_SECRET = 4

#: What the SDK tells its log (answers that it cannot read, with parts of them) its users raise, without what is secret.
logging.getLogger("mcp").addHandler(logging.NullHandler())


class HeaderUnsendable(ValueError):
    """A header that cannot be sent; `name` says which."""

    def __init__(self, name: str) -> None:
        super().__init__(f"its header {name[:100]!r} cannot be sent")
        self.name = name


class HttpStreams:
    """How to reach a server, and what was wrong with its last answer."""

    def __init__(self, url: str, headers: Mapping[str, str], *, timeout_s: float, limit_bytes: int) -> None:
        """`timeout_s` is for a connection and for what is sent; calls have their own deadline."""
        self._url = url
        self._headers = headers
        self._timeout_s = timeout_s
        self._limit_bytes = limit_bytes
        #: The HTTP status of its last answer, if that was an error.
        self.status: int | None = None

    @property
    def story(self) -> str:
        """What it answered, if that was an error; part of a sentence."""
        return f"it answered with HTTP status {self.status}" if self.status is not None else ""

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Streams]:
        """The messages from and to the server.

        Raises:
            HeaderUnsendable
        """
        for name, value in self._headers.items():
            # The error of the HTTP library would show it.
            if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
                raise HeaderUnsendable(name)
        async with (
            httpx2.AsyncClient(
                # Compressed, a small answer may be a large one.
                headers={**self._headers, "Accept-Encoding": "identity"},
                # A stream of events may be silent for as long as it likes.
                timeout=httpx2.Timeout(self._timeout_s, read=None),
                event_hooks={"response": [self._look]},
            ) as client,
            streamable_http_client(self._url, http_client=client, max_sse_event_size=self._limit_bytes) as streams,
        ):
            yield streams

    async def _look(self, response: httpx2.Response) -> None:
        self.status = response.status_code if response.status_code >= 400 else None
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise httpx2.DecodingError("The answer is compressed, which was not asked for.", request=response.request)
        if not response.headers.get("content-type", "").lower().startswith("text/event-stream"):
            assert isinstance(response.stream, httpx2.AsyncByteStream)  # noqa: S101  (the client is an asynchronous one)
            response.stream = _Capped(response.stream, self._limit_bytes)


class _Capped(httpx2.AsyncByteStream):
    """A body with a largest size. (Of a stream of events, each has one.)"""

    def __init__(self, stream: httpx2.AsyncByteStream, limit_bytes: int) -> None:
        self._stream = stream
        self._limit_bytes = limit_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in self._stream:
            size += len(chunk)
            if size > self._limit_bytes:
                raise httpx2.StreamError(f"The answer is larger than {self._limit_bytes:,} bytes.")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


def secrets_in(url: str, headers: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """What must not be told of an address and its headers: where it is from, and the text."""
    for name, value in headers.items():
        if len(value) >= _SHORTEST_SECRET:
            yield f"header {name}", value
        scheme, _, rest = value.partition(" ")
        if scheme and len(rest.strip()) >= _SHORTEST_SECRET:
            yield f"header {name}", rest.strip()
    parts = urlsplit(url)
    for value in (parts.password, parts.username, parts.query, *(value for _, value in parse_qsl(parts.query))):
        if value and len(value) >= _SHORTEST_SECRET:
            yield "part of the url", value
