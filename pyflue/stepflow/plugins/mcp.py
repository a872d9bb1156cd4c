"""Tools of an MCP server, as components: a program that is spoken to through its pipes. (An address: `mcp_http.py`.)

As in stepflow-ai/stepflow (`crates/stepflow-components-mcp`): tool `x` is component `/x`, the input is its arguments,
and its `content` is the output. Ours: calls overlap, a tool's own failure (`isError`) is one, a call that is given up
is cancelled, and the server may answer with a newer version of the protocol than it was offered. It is not offered to
sample from a model, since there is none to sample from.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from .. import protocol
from ..jsonrpc import PeerEnded, RequestId, RpcCode, RpcError, RpcLimits
from ..outcome import ErrorCode, Failed
from .link import Link, Upkeep
from .port import ComponentCall, ComponentFailed, ComponentInfo
from .process import ProgramSettings

_PROTOCOL_VERSION = "2024-11-05"
#: A list that goes on and on is no list.
MOST_PAGES = 100
_SHOWN_CHARS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class McpSettings(ProgramSettings):
    """How to start an MCP server, and how long to wait for it."""

    #: For each page of the list of tools.
    list_timeout_s: float = 30.0
    #: How long it may take to read what it is sent, and to answer a call.
    write_timeout_s: float = 5.0
    read_timeout_s: float = 30.0
    limits: RpcLimits = field(default_factory=RpcLimits)


@dataclass(frozen=True, slots=True)
class _Tool:
    name: str
    info: ComponentInfo


class McpPlugin:
    """An MCP server."""

    def __init__(self, name: str, settings: McpSettings) -> None:
        self._name = name
        self._settings = settings
        self._upkeep = Upkeep(name, self._start, grace_s=settings.grace_s)
        self._tools: Mapping[str, _Tool] = {}

    def is_composite(self, component: str) -> bool:
        return False

    async def components(self) -> Sequence[ComponentInfo]:
        link = await self._upkeep.connected()
        try:
            await self._list(link)
        except RpcError as error:
            raise protocol.failure_of(error, link.process.redact) from error
        self._upkeep.has_worked()
        return [tool.info for tool in self._tools.values()]

    async def execute(self, call: ComponentCall) -> Any:
        link = self._upkeep.current or await self._upkeep.connected()
        path = call.component.removeprefix("/")
        tool = path if path in self._tools else path.rpartition("/")[2]
        arguments: Any = {} if call.input is None else call.input
        try:
            params = {"name": tool, "arguments": arguments}
            result = await self._ask(link, "tools/call", params, self._settings.read_timeout_s)
        except RpcError as error:
            self._upkeep.has_worked()
            raise refused(tool, error.code, link.process.redact(error.message)) from error
        self._upkeep.has_worked()
        return content_of(tool, result, link.process.redact)

    async def close(self) -> None:
        await self._upkeep.close()

    async def _start(self) -> Link:
        settings = self._settings
        link = Link(settings.program(self._name), _answer, limits=settings.limits)
        try:
            await link.process.start()
            await self._shake_hands(link)
        except BaseException:
            await link.end(0)
            raise
        return link

    async def _shake_hands(self, link: Link) -> None:
        from ... import __version__

        offered = {
            "protocolVersion": _PROTOCOL_VERSION,
            "capabilities": {"roots": {"listChanged": False}},
            "clientInfo": {"name": "pyflue", "version": __version__},
        }
        waited_s = self._settings.start_timeout_s
        try:
            async with asyncio.timeout(waited_s):
                said = await link.peer.request("initialize", offered)
                version = cast("dict[str, Any]", said).get("protocolVersion") if isinstance(said, dict) else None
                if not isinstance(version, str):
                    raise link.unstarted("its answer to `initialize` names no version of the protocol")
                link.peer.notify("notifications/initialized", {})
                await self._list(link)
        except TimeoutError:
            raise link.unstarted(f"it did not come to an understanding within {waited_s:g} s") from None
        except RpcError as error:
            raise link.unstarted(f"it answered with error {error.code}: {error.message}") from error
        except PeerEnded as error:
            raise link.unstarted(f"{error.story} before it could be used") from error

    async def _list(self, link: Link) -> None:
        tools: dict[str, _Tool] = {}
        cursor: str | None = None
        for _ in range(MOST_PAGES):
            params = {} if cursor is None else {"cursor": cursor}
            result = await self._ask(link, "tools/list", params, self._settings.list_timeout_s)
            fields = cast("dict[str, Any]", result) if isinstance(result, dict) else {}
            listed = fields.get("tools")
            if not isinstance(listed, list):
                raise protocol.broken(self._name, "its answer to `tools/list` has no list of `tools`")
            for entry in cast("list[Any]", listed):
                tool = self._tool(entry)
                tools[tool.name] = tool
            next_cursor = fields.get("nextCursor")
            if not isinstance(next_cursor, str) or next_cursor == cursor:
                break
            cursor = next_cursor
        self._tools = tools

    def _tool(self, entry: Any) -> _Tool:
        fields = cast("dict[str, Any]", entry) if isinstance(entry, dict) else {}
        name, description, schema = fields.get("name"), fields.get("description"), fields.get("inputSchema")
        if not isinstance(name, str) or not name:
            raise protocol.broken(self._name, "it lists a tool without a name")
        return _Tool(name, info_of(name, description, schema))

    async def _ask(self, link: Link, method: str, params: Any, answer_s: float) -> Any:
        write_s = self._settings.write_timeout_s

        def give_up(request_id: RequestId) -> None:
            link.peer.notify("notifications/cancelled", {"requestId": request_id, "reason": "nobody waits for it"})

        try:
            async with asyncio.timeout(write_s):
                await link.peer.ready()
        except TimeoutError:
            raise protocol.broken(self._name, f"it did not read what it was sent within {write_s:g} s") from None
        try:
            async with asyncio.timeout(answer_s):
                return await link.peer.request(method, params, give_up=give_up)
        except TimeoutError:
            raise protocol.broken(self._name, f"it did not answer `{method}` within {answer_s:g} s") from None
        except PeerEnded as error:
            raise protocol.crashed(self._name, error.story, link.process.last_words()) from error


async def _answer(method: str, params: Any) -> Any:
    """What MCP servers may ask of us."""
    match method:
        case "roots/list":
            return {"roots": []}
        case "ping":
            return {}
        case _:
            raise RpcError(RpcCode.METHOD_NOT_FOUND, f"There is no method {method[:200]!r}.")


def info_of(name: str, description: Any, schema: Any) -> ComponentInfo:
    """A tool as a component."""
    return ComponentInfo(
        path=f"/{name}",
        description=description if isinstance(description, str) and description else "MCP tool",
        input_schema=cast("dict[str, Any]", schema) if isinstance(schema, dict) else None,
        output_schema={"type": "object"},
    )


def content_of(tool: str, result: Any, redact: Callable[[str], str]) -> Any:
    """What a tool has given.

    Raises:
        ComponentFailed: it says that it has failed.
    """
    if not isinstance(result, dict):
        return result
    fields = cast("dict[str, Any]", result)
    content = fields.get("content", fields)
    if fields.get("isError") is True:
        text = redact(_text_of(content))
        raise _failed(f"Tool '{tool}' execution failed" + (f": {text}" if text else ""), {"content": content})
    return content


def refused(tool: str, code: int, said: str) -> ComponentFailed:
    """The failure of a call that the server has answered with an error."""
    text = f"Tool '{tool}' execution failed" + (f": {said[:_SHOWN_CHARS]}" if said else "")
    return _failed(text, {"code": code, "message": said})


def _failed(message: str, data: Any) -> ComponentFailed:
    return ComponentFailed(message, failure=Failed(ErrorCode.INTERNAL, message, data))


def _text_of(content: Any) -> str:
    if not isinstance(content, list):
        return ""
    texts = [cast("dict[str, Any]", part).get("text") for part in cast("list[Any]", content) if isinstance(part, dict)]
    return "\n".join(text for text in texts if isinstance(text, str))[:_SHOWN_CHARS]
