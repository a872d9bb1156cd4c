"""One connection to an MCP server, from its start to its end.

The SDK's cancel scopes belong to the task that opened them. So each connection lives in a task of its own, which does
everything with the SDK; whoever wants something of it leaves an order and waits. The task is made outside of all runs:
a run's tasks have a scope of durable calls and end with the run, this one has no durable calls and ends when it is
told to. It holds on to nothing of the run that began it.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeAlias

import anyio
from mcp import Client, MCPError
from mcp.client.subscriptions import SubscriptionLost
from mcp.shared.message import SessionMessage
from mcp.types import Implementation, JSONRPCResponse, ToolListChangedNotification
from pydantic import ValidationError

from ...errors import McpFailed
from ...logs import logger
from .listing import MOST_TOOLS, McpTool, sifted

if TYPE_CHECKING:
    from mcp.client._transport import ReadStream, WriteStream
    from mcp.types import CallToolResult

    Streams: TypeAlias = tuple[ReadStream[SessionMessage | Exception], WriteStream[SessionMessage]]

log = logger("agents")

#: How long a connection may take to end by itself, and then when it is cut off.
_CLOSE_S = 1.5
_CUT_OFF_S = 2.0
_MOST_PAGES = 100
#: A server that changes its tools all the time is asked for them this often.
_REFRESH_EVERY_S = 0.2
_CONNECTION_CLOSED = -32000
_INVALID_REQUEST = -32600
#: Tasks that are ending while nobody waits for them any more.
_ending: set[asyncio.Task[None]] = set()


class Transport(Protocol):
    """How messages get to a server."""

    @property
    def story(self) -> str:
        """What is known of why it failed; part of a sentence, or empty."""
        ...

    def open(self) -> AbstractAsyncContextManager[Streams]: ...


class _Order:
    """A call that somebody waits for."""

    def __init__(self, tool: str, arguments: dict[str, Any]) -> None:
        self.tool = tool
        self.arguments = arguments
        self.done: asyncio.Future[CallToolResult] = asyncio.get_running_loop().create_future()
        self.scope = anyio.CancelScope()

    def fail(self, error: McpFailed) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class Link:
    """A connection. Begins at once; `opened` is its tools, or why there is no connection."""

    def __init__(
        self,
        server: str,
        transport: Transport,
        *,
        timeout_s: float,
        redact: Callable[[str], str],
        on_tools: Callable[[Sequence[McpTool]], None],
    ) -> None:
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[Sequence[McpTool]] = loop.create_future()
        self._server = server
        self._transport = transport
        self._timeout_s = timeout_s
        self._redact = redact
        self._on_tools = on_tools
        self._orders: asyncio.Queue[_Order] = asyncio.Queue()
        self._waiting: set[_Order] = set()
        self._ended = asyncio.Event()
        self._changed = asyncio.Event()
        self._scope = anyio.CancelScope()
        self._failure: BaseException | None = None
        self._is_late = False
        # An empty context: no scope of a run, and nothing of it to be sent along.
        outside = contextvars.Context()
        self._late = loop.call_later(timeout_s, self._give_up, context=outside)
        self._task = loop.create_task(self._live(), name=f"mcp {server}", context=outside)
        self._task.add_done_callback(self._over, context=outside)

    @property
    def is_over(self) -> bool:
        """Whether nothing can be called any more."""
        return self._ended.is_set() or self._task.done()

    async def call(self, tool: str, arguments: dict[str, Any]) -> CallToolResult:
        """Call a tool.

        Raises:
            McpFailed: the server has ended, has not answered in time, or not with a result.
        """
        if self.is_over:
            raise self._broken()
        order = _Order(tool, arguments)
        self._waiting.add(order)
        self._orders.put_nowait(order)
        try:
            return await order.done
        finally:
            # If the caller was cancelled, the server is told so.
            self._waiting.discard(order)
            order.scope.cancel()

    def begin_to_close(self) -> None:
        """Ask it to end."""
        self._ended.set()
        if not self.opened.done():
            self._scope.cancel()

    async def close(self) -> None:
        """End it, and wait until that is done. Also from another task, and several times."""
        self.begin_to_close()
        _ending.add(self._task)
        self._task.add_done_callback(_ending.discard)
        await asyncio.wait({self._task}, timeout=_CLOSE_S)
        if not self._task.done():
            self._scope.cancel()
            await asyncio.wait({self._task}, timeout=_CUT_OFF_S)

    # In the task of the connection

    async def _live(self) -> None:
        try:
            with self._scope:
                await self._talk()
        except Exception as error:  # noqa: BLE001  (the SDK's and the transport's errors, alone or in groups, are told in `_over`)
            self._failure = error

    async def _talk(self) -> None:
        client = Client(
            self._sifting(),
            # Tool lists are kept here, and nothing else is asked for.
            cache=None,
            message_handler=self._hear,
            client_info=_client_info(),
        )
        async with client:
            tools = await self._list(client)
            self._late.cancel()
            self._on_tools(tools)
            self.opened.set_result(tools)
            async with anyio.create_task_group() as group:
                group.start_soon(self._serve, client, group)
                group.start_soon(self._refresh, client)
                group.start_soon(self._subscribe, client)
                await self._ended.wait()
                group.cancel_scope.cancel()

    @asynccontextmanager
    async def _sifting(self) -> AsyncGenerator[Streams]:
        async with self._transport.open() as (incoming, outgoing):
            yield _Sifted(incoming, self._leave_out, self._ended.set), outgoing

    async def _list(self, client: Client) -> Sequence[McpTool]:
        tools: dict[str, McpTool] = {}
        cursor: str | None = None
        for _ in range(_MOST_PAGES):
            page = await client.list_tools(cursor=cursor)
            for tool in page.tools:
                if tool.name not in tools and len(tools) >= MOST_TOOLS:
                    self._leave_out(tool.name, f"the server has more than {MOST_TOOLS} tools")
                    return list(tools.values())
                hints = tool.annotations
                tools[tool.name] = McpTool(
                    name=tool.name,
                    description=tool.description or f"{tool.name} of the MCP server {self._server}.",
                    input_schema=tool.input_schema,
                    is_read_only=hints is not None and hints.read_only_hint is True,
                    is_idempotent=hints is not None and hints.idempotent_hint is True,
                )
            cursor = page.next_cursor
            if not cursor:
                break
        return list(tools.values())

    async def _serve(self, client: Client, group: anyio.abc.TaskGroup) -> None:
        while True:
            group.start_soon(self._carry_out, client, await self._orders.get())

    async def _carry_out(self, client: Client, order: _Order) -> None:
        with order.scope:
            try:
                with anyio.fail_after(self._timeout_s):
                    result = await client.call_tool(order.tool, order.arguments)
            except TimeoutError:
                order.fail(McpFailed(f"MCP server {self._server!r} did not answer in {self._timeout_s:g} s."))
            except MCPError as error:
                order.fail(self._refused(error))
            except ValidationError:
                order.fail(McpFailed(f"MCP server {self._server!r} answered with something that is no result."))
            except RuntimeError as error:
                # The SDK's own word for several things, such as a server that wants to ask a person something.
                order.fail(McpFailed(self._redact(f"MCP server {self._server!r}: {error}")))
            else:
                if not order.done.done():
                    order.done.set_result(result)

    def _refused(self, error: MCPError) -> McpFailed:
        if error.code == _CONNECTION_CLOSED and self.is_over:
            return self._broken()
        if error.code == _INVALID_REQUEST and error.message == "Session terminated":
            # The server was started anew, or has forgotten us. The next call makes a new connection.
            self._ended.set()
            return self._broken()
        why = f": {self._transport.story}" if self._transport.story else ""
        return McpFailed(self._redact(f"MCP server {self._server!r} refused the call{why}: {error.message[:2000]}"))

    async def _hear(self, message: object) -> None:
        if isinstance(message, ToolListChangedNotification):
            self._changed.set()

    async def _subscribe(self, client: Client) -> None:
        """Servers of today's protocol tell of changes only those who ask for it."""
        tools = client.server_capabilities.tools
        if client.session.discover_result is None or tools is None or not tools.list_changed:
            return
        with suppress(MCPError, SubscriptionLost, TimeoutError):
            async with client.listen(tools_list_changed=True) as changes:
                async for _ in changes:
                    self._changed.set()

    async def _refresh(self, client: Client) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                with anyio.fail_after(self._timeout_s):
                    tools = await self._list(client)
            except (MCPError, TimeoutError, ValidationError) as error:
                if not self._ended.is_set():
                    log.warning("mcp_tools_unread", server=self._server, problem=self._redact(str(error)[:500]))
            else:
                self._on_tools(tools)
            await anyio.sleep(_REFRESH_EVERY_S)

    def _leave_out(self, name: str, problem: str) -> None:
        log.warning("mcp_tool_left_out", server=self._server, tool=self._redact(name), problem=self._redact(problem))

    # Its end

    def _give_up(self) -> None:
        self._is_late = True
        self._scope.cancel()

    def _over(self, task: asyncio.Task[None]) -> None:
        self._ended.set()
        self._late.cancel()
        if not self.opened.done():
            self.opened.set_exception(self._unopened(task))
            # Nobody may be left who would look at it.
            self.opened.exception()
        for order in self._waiting:
            order.fail(self._broken())

    def _broken(self) -> McpFailed:
        story = self._transport.story
        why = f": {story}" if story else ""
        return McpFailed(
            self._redact(f"The connection to MCP server {self._server!r} has ended{why}."),
            hint="It is not known whether the call was carried out. The next call connects again.",
        )

    def _unopened(self, task: asyncio.Task[None]) -> McpFailed:
        failure = self._failure
        leaf = _leaf(failure)
        if isinstance(leaf, McpFailed):
            return leaf
        if self._is_late:
            problem = f"it did not answer in {self._timeout_s:g} s"
        elif self._transport.story:
            problem = self._transport.story
        elif leaf is None:
            problem = "the connection was closed"
        elif isinstance(leaf, ValidationError):
            problem = "it does not speak MCP"
        else:
            problem = str(leaf) or type(leaf).__name__
        error = McpFailed(
            self._redact(f"MCP server {self._server!r} cannot be used: {problem[:3000]}."),
            hint=f"See to it that it runs, and look at what is set for it (mcp.servers.{self._server}).",
        )
        error.__cause__ = failure
        return error


class _Sifted:
    """A stream of messages whose lists of tools have only what can be used. Says when it ends."""

    def __init__(
        self,
        stream: ReadStream[SessionMessage | Exception],
        leave_out: Callable[[str, str], None],
        on_end: Callable[[], None],
    ) -> None:
        self._stream = stream
        self._leave_out = leave_out
        self._on_end = on_end

    async def receive(self) -> SessionMessage | Exception:
        try:
            item = await self._stream.receive()
        except (anyio.EndOfStream, anyio.ClosedResourceError):
            self._on_end()
            raise
        if isinstance(item, SessionMessage) and isinstance(item.message, JSONRPCResponse):
            result = item.message.result
            tools: Any = result.get("tools")
            if isinstance(tools, list):
                # Not in the loop: a server can make it long.
                page = await asyncio.to_thread(sifted, tools)  # pyright: ignore[reportUnknownArgumentType]
                result["tools"] = page.tools
                for name, problem in page.left_out:
                    self._leave_out(name, problem)
        return item

    async def aclose(self) -> None:
        await self._stream.aclose()

    def __aiter__(self) -> ReadStream[SessionMessage | Exception]:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> bool | None:
        await self.aclose()
        return None


def _leaf(error: BaseException | None) -> BaseException | None:
    """What went wrong first, in a group of errors."""
    while isinstance(error, BaseExceptionGroup):
        errors: tuple[BaseException, ...] = error.exceptions  # pyright: ignore[reportUnknownMemberType,reportUnknownVariableType]
        error = errors[0]
    return error  # pyright: ignore[reportUnknownVariableType]


def _client_info() -> Implementation:
    from ... import __version__

    return Implementation(name="pyflue", version=__version__)
