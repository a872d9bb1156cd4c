"""An MCP server behind an address, as a `link.Transport`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from ...errors import McpFailed
from ...mcp_http import HeaderUnsendable, HttpStreams
from ...settings import McpServerSettings

if TYPE_CHECKING:
    from .link import Streams

_ANSWER_BYTES = 8 * 1024 * 1024


class HttpTransport:
    """How to reach the server, and what was wrong with its last answer."""

    def __init__(self, server: str, settings: McpServerSettings) -> None:
        self._server = server
        self._streams = HttpStreams(
            settings.url or "", settings.headers, timeout_s=settings.timeout_s, limit_bytes=_ANSWER_BYTES
        )

    @property
    def story(self) -> str:
        """What it answered, if that was an error."""
        return self._streams.story

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Streams]:
        try:
            async with self._streams.open() as streams:
                yield streams
        except HeaderUnsendable as error:
            raise McpFailed(
                f"MCP server {self._server!r} cannot be called: {error}.",
                hint="A value is printable ASCII, without a line break at its end.",
            ) from error
