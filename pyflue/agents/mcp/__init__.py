"""MCP servers: their tools as tools of an agent.

`connect` is called by the agents room at the first prompt of an agent that has servers. What it gives is a live view of
the servers' tools; they stay connected until the stack is closed. The official SDK (`pyflue[mcp]`) speaks the protocol
and is imported here, at first use. Whatever a server says is hostile.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, overload

from ...errors import McpFailed
from ...settings import McpServerSettings
from ..tools import ToolDefinition

if TYPE_CHECKING:
    from .server import Server

__all__ = ["connect"]


async def connect(
    servers: Mapping[str, McpServerSettings], stack: AsyncExitStack, *, root: Path
) -> Sequence[ToolDefinition]:
    """Connect to all servers, side by side. The tools are those that the servers have at the time one looks.

    `root` is the project folder, where servers are started. Closing the stack ends them; any task may do that.

    Raises:
        McpFailed: the SDK is not installed, or a server cannot be started or reached; then none stays connected.
    """
    if not servers:
        return ()
    await _import_sdk()
    from .server import Server, close_all

    opened = [Server(name, settings, root=root) for name, settings in servers.items()]
    try:
        openings = [server.begin() for server in opened]
        await asyncio.wait(openings, return_when=asyncio.FIRST_EXCEPTION)
        for opening in openings:
            if opening.done():
                opening.result()
    except BaseException:
        await close_all(opened)
        raise
    stack.push_async_callback(close_all, opened)
    return _Tools(opened)


async def _import_sdk() -> None:
    """Import it in a thread: that takes a second, and other runs go on meanwhile.

    Raises:
        McpFailed
    """
    try:
        await asyncio.to_thread(importlib.import_module, "mcp")
    except ImportError as error:
        raise McpFailed(
            "MCP servers need the MCP SDK, which is not installed.",
            hint="Install the extra: pip install 'pyflue[mcp]'.",
        ) from error
    await asyncio.to_thread(importlib.import_module, f"{__name__}.server")


class _Tools(Sequence[ToolDefinition]):
    """The tools of all servers, as they are now."""

    def __init__(self, servers: Sequence[Server]) -> None:
        self._servers = servers
        self._made_of: list[object] = []
        self._definitions: Sequence[ToolDefinition] = ()

    @overload
    def __getitem__(self, index: int) -> ToolDefinition: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[ToolDefinition]: ...
    def __getitem__(self, index: int | slice) -> ToolDefinition | Sequence[ToolDefinition]:
        return self._now()[index]

    def __len__(self) -> int:
        return len(self._now())

    def __iter__(self) -> Iterator[ToolDefinition]:
        # Not by index: the servers may change their tools while somebody looks at them.
        return iter(self._now())

    def _now(self) -> Sequence[ToolDefinition]:
        from .naming import named

        listings: list[object] = [server.tools for server in self._servers]
        if len(listings) != len(self._made_of) or any(a is not b for a, b in zip(listings, self._made_of, strict=True)):
            offered = [(server, tool) for server in self._servers for tool in server.tools]
            names = named([(server.name, tool.name) for server, tool in offered])
            self._definitions = tuple(
                server.definition(tool, name) for name, (server, tool) in zip(names, offered, strict=True)
            )
            self._made_of = listings
        return self._definitions
