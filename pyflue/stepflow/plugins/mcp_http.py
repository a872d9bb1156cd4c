"""Tools of an MCP server behind an address, as components: what `mcp.py` does with a program, over streamable HTTP.

The official SDK speaks the protocol (`pyflue[mcp]`); it is imported with the first use, in `mcp_session.py`. A session
is for all runs; one that has ended is replaced by the next call. What the server has forgotten (it was started anew)
is asked again once, because it says so before it does anything.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from .. import protocol
from ..jsonrpc import RpcLimits
from .link import Upkeep
from .mcp import content_of, refused
from .port import ComponentCall, ComponentFailed, ComponentInfo
from .process import GRACE_S

if TYPE_CHECKING:
    from .mcp_session import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class McpHttpSettings:
    """Where an MCP server is, and how long to wait for it."""

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    #: Values that must not be told, besides those of the headers and of the address.
    secrets: Sequence[str] = field(default=(), repr=False)
    start_timeout_s: float = 30.0
    #: For the whole list of tools.
    list_timeout_s: float = 30.0
    read_timeout_s: float = 30.0
    #: How long it may take to say goodbye.
    grace_s: float = GRACE_S
    limits: RpcLimits = field(default_factory=RpcLimits)


class McpHttpPlugin:
    """An MCP server behind an address."""

    def __init__(self, name: str, settings: McpHttpSettings) -> None:
        self._name = name
        self._settings = settings
        self._upkeep = Upkeep(name, self._start, grace_s=settings.grace_s)

    def is_composite(self, component: str) -> bool:
        return False

    async def components(self) -> Sequence[ComponentInfo]:
        session = await self._upkeep.connected()
        await session.refresh()
        self._upkeep.has_worked()
        return list(session.tools.values())

    async def execute(self, call: ComponentCall) -> Any:
        arguments: Any = {} if call.input is None else call.input
        path = call.component.removeprefix("/")
        last = path.rpartition("/")[2]
        if not isinstance(arguments, dict):
            raise refused(last, -32602, "the arguments of a tool are an object")
        session = self._upkeep.current or await self._upkeep.connected()
        tool = path if path in session.tools else last
        result = await session.call(tool, cast("dict[str, Any]", arguments))
        if result is None:
            session = await self._upkeep.connected()
            result = await session.call(tool, cast("dict[str, Any]", arguments))
        if result is None:
            raise protocol.broken(self._name, "it forgets its sessions")
        self._upkeep.has_worked()
        return content_of(tool, result, session.redact)

    async def close(self) -> None:
        await self._upkeep.close()

    async def _start(self) -> Session:
        try:
            # It takes a second, and other runs go on meanwhile.
            await asyncio.to_thread(importlib.import_module, "mcp")
        except ImportError as error:
            problem = "MCP servers behind an address need the MCP SDK: pip install 'pyflue[mcp]'"
            raise protocol.broken(self._name, problem, is_retryable=False) from error
        await asyncio.to_thread(importlib.import_module, f"{__package__}.mcp_session")
        from .mcp_session import Session

        session = Session(self._name, self._settings)
        waited_s = self._settings.start_timeout_s
        try:
            async with asyncio.timeout(waited_s):
                await session.opened()
        except TimeoutError:
            await session.end(0)
            raise self._unusable(f"it did not come to an understanding within {waited_s:g} s") from None
        except BaseException:
            await session.end(0)
            raise
        return session

    def _unusable(self, problem: str) -> ComponentFailed:
        return protocol.broken(self._name, problem)
