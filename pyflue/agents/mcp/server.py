"""A server with a name: its connection, which is made again once it is lost, and its tools as an agent has them."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import McpFailed
from ...settings import McpServerSettings
from ..tools import Content, ToolDefinition
from .http import HttpTransport
from .link import Link, Transport
from .listing import Arguments, McpTool
from .results import content_of
from .secrets import Secrets
from .stdio import StdioTransport


class Server:
    """One entry of `mcp_servers`."""

    def __init__(self, name: str, settings: McpServerSettings, *, root: Path) -> None:
        self.name = name
        #: What it has now; another list when that changes.
        self.tools: Sequence[McpTool] = ()
        self._settings = settings
        self._root = root
        self._secrets = Secrets(settings)
        self._link: Link | None = None
        self._connecting = asyncio.Lock()
        self._is_closed = False

    def begin(self) -> asyncio.Future[Sequence[McpTool]]:
        """Begin to connect."""
        return self._begin().opened

    def definition(self, tool: McpTool, name: str) -> ToolDefinition:
        """A tool of this server, as an agent has it."""
        is_trusted = self._settings.trust_annotations
        return ToolDefinition(
            name=name,
            description=tool.description,
            input_schema=tool.input_schema,
            execute=functools.partial(self.call, tool.name),
            is_idempotent=is_trusted and (tool.is_idempotent or tool.is_read_only),
            is_parallel=is_trusted and tool.is_read_only,
            is_async=True,
            shape=Arguments(tool.input_schema),
        )

    async def call(self, tool: str, arguments: Mapping[str, Any]) -> list[Content]:
        """Call a tool; a lost connection is made again first, once.

        Raises:
            McpFailed: with what the tool says of its failure, or what is wrong with the server.
        """
        link = await self._connected()
        return content_of(await link.call(tool, dict(arguments)), self._secrets.redact)

    def begin_to_close(self) -> None:
        """Ask it to end."""
        self._is_closed = True
        if self._link is not None:
            self._link.begin_to_close()

    async def close(self) -> None:
        """End it, and wait until that is done."""
        self.begin_to_close()
        if self._link is not None:
            await self._link.close()

    def _begin(self) -> Link:
        transport: Transport = (
            HttpTransport(self.name, self._settings)
            if self._settings.url
            else StdioTransport(self.name, self._settings, root=self._root)
        )
        link = self._link = Link(
            self.name,
            transport,
            timeout_s=self._settings.timeout_s,
            redact=self._secrets.redact,
            on_tools=self._have,
        )
        return link

    def _have(self, tools: Sequence[McpTool]) -> None:
        if tools != self.tools:
            self.tools = tools

    async def _connected(self) -> Link:
        async with self._connecting:
            link = self._link
            if self._is_closed or link is None:
                raise McpFailed(f"The connection to MCP server {self.name!r} was closed.")
            if link.is_over:
                await link.close()
                link = self._begin()
                try:
                    await asyncio.wait({link.opened})
                finally:
                    # A call that is cancelled or too late leaves nothing half open.
                    if not link.opened.done():
                        link.begin_to_close()
                link.opened.result()
            return link


async def close_all(servers: Sequence[Server]) -> None:
    """End servers, side by side."""
    for server in servers:
        server.begin_to_close()
    for server in servers:
        await server.close()
