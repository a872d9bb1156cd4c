"""An MCP server behind an address: the SDK's streamable HTTP, with our headers and with a largest answer."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx2
from mcp.client.streamable_http import streamable_http_client

from ...errors import McpFailed
from ...settings import McpServerSettings

if TYPE_CHECKING:
    from .link import Streams

_ANSWER_BYTES = 8 * 1024 * 1024
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", re.ASCII)
_VALUE = re.compile(r"(?:[!-~](?:[ -~]*[!-~])?)?", re.ASCII)


class HttpTransport:
    """How to reach the server, and what was wrong with its last answer."""

    def __init__(self, server: str, settings: McpServerSettings) -> None:
        self._server = server
        self._settings = settings
        self._status: int | None = None

    @property
    def story(self) -> str:
        """What it answered, if that was an error."""
        return f"it answered with HTTP status {self._status}" if self._status is not None else ""

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Streams]:
        settings = self._settings
        for name, value in settings.headers.items():
            # The error of the HTTP library would show it.
            if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
                raise McpFailed(
                    f"MCP server {self._server!r} cannot be called: its header {name[:100]!r} cannot be sent.",
                    hint="A value is printable ASCII, without a line break at its end.",
                )
        async with (
            httpx2.AsyncClient(
                # Compressed, a small answer may be a large one.
                headers={**settings.headers, "Accept-Encoding": "identity"},
                # A stream of events may be silent for as long as it likes; calls have their own deadline.
                timeout=httpx2.Timeout(settings.timeout_s, read=None),
                event_hooks={"response": [self._look]},
            ) as client,
            streamable_http_client(settings.url or "", http_client=client, max_sse_event_size=_ANSWER_BYTES) as streams,
        ):
            yield streams

    async def _look(self, response: httpx2.Response) -> None:
        self._status = response.status_code if response.status_code >= 400 else None
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise httpx2.DecodingError("The answer is compressed, which was not asked for.", request=response.request)
        if not response.headers.get("content-type", "").lower().startswith("text/event-stream"):
            assert isinstance(response.stream, httpx2.AsyncByteStream)  # noqa: S101  (the client is an asynchronous one)
            response.stream = _Capped(response.stream)


class _Capped(httpx2.AsyncByteStream):
    """A body with a largest size. (Of a stream of events, each has one.)"""

    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in self._stream:
            size += len(chunk)
            if size > _ANSWER_BYTES:
                raise httpx2.StreamError(f"The answer is larger than {_ANSWER_BYTES:,} bytes.")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()
