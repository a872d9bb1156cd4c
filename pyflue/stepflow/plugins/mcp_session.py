"""One session with an MCP server behind an address, from its beginning to its end.

The SDK's cancel scopes belong to the task that opened them, so each session has a task of its own, which does
everything with the SDK; whoever wants something leaves an order and waits. Imports the SDK: imported by `mcp_http.py`
when it is needed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import anyio
from mcp import Client, MCPError
from mcp.types import (
    CallToolRequest,
    CallToolRequestParams,
    Implementation,
    ListRootsResult,
    PaginatedRequestParams,
    Tool,
)
from pydantic import RootModel, ValidationError

from ...mcp_http import HttpStreams, secrets_in
from .. import protocol
from ..jsonrpc import own_task
from .mcp import MOST_PAGES, info_of, refused
from .port import ComponentFailed, ComponentInfo

if TYPE_CHECKING:
    from .mcp_http import McpHttpSettings

T = TypeVar("T")

#: How the SDK says that the server knows nothing of the session, and that an answer was an HTTP error.
_FORGOTTEN = (-32600, "Session terminated")
_HTTP_ERROR = (-32603, "Server returned an error response")
_CONNECTION_CLOSED = -32000
#: HTTP errors after which it may help to try again.
_PASSING = frozenset({408, 429})


class _Result(RootModel[dict[str, Any]]):
    """A result as it came."""


class _Order(Generic[T]):
    """Something that somebody waits for."""

    def __init__(self, work: Callable[[Client], Awaitable[T]]) -> None:
        self.work = work
        self.done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.scope = anyio.CancelScope()

    async def carry_out(self, client: Client) -> None:
        with self.scope:
            try:
                result = await self.work(client)
            except Exception as error:  # noqa: BLE001  (whoever waits for it tells what it means)
                self.fail(error)
            else:
                if not self.done.done():
                    self.done.set_result(result)

    def fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class Session:
    """A session: implements `link.Life`. Begins at once."""

    def __init__(self, plugin: str, settings: McpHttpSettings) -> None:
        self._plugin = plugin
        self._settings = settings
        told = {*settings.secrets, *(text for _, text in secrets_in(settings.url, settings.headers))}
        # Longest first: one may be a part of another.
        self._secrets = sorted(told, key=lambda text: (-len(text), text))
        self._streams = HttpStreams(
            settings.url,
            settings.headers,
            timeout_s=settings.start_timeout_s,
            limit_bytes=settings.limits.message_bytes,
        )
        #: The components that its tools are, by the names of these.
        self.tools: Mapping[str, ComponentInfo] = {}
        loop = asyncio.get_running_loop()
        self._is_open: asyncio.Future[None] = loop.create_future()
        self._orders: asyncio.Queue[_Order[Any]] = asyncio.Queue()
        self._waiting: set[_Order[Any]] = set()
        self._ended = asyncio.Event()
        self._scope = anyio.CancelScope()
        self._failure: BaseException | None = None
        self._task = own_task(loop, self._live())
        self._task.add_done_callback(self._over)

    @property
    def is_over(self) -> bool:
        return self._ended.is_set() or self._task.done()

    async def opened(self) -> None:
        """Wait until it can be used.

        Raises:
            ComponentFailed
        """
        await asyncio.wait({self._is_open})
        self._is_open.result()

    async def refresh(self) -> None:
        """Look which tools there are now.

        Raises:
            ComponentFailed
        """
        try:
            self.tools = await self._ask("tools/list", self._list, self._settings.list_timeout_s)
        except MCPError as error:
            raise self._meant(error) from error

    async def call(self, tool: str, arguments: dict[str, Any]) -> Any:
        """The result of a tool as it came; None if the server does not know this session any more.

        Raises:
            ComponentFailed
        """
        request = CallToolRequest(params=CallToolRequestParams(name=tool, arguments=arguments))

        async def send(client: Client) -> dict[str, Any]:
            # Not `call_tool`: that checks what is said to be the output's schema, which a server can make slow.
            return (await client.session.send_request(request, _Result)).root

        try:
            return await self._ask("tools/call", send, self._settings.read_timeout_s)
        except MCPError as error:
            if (error.code, error.message) == _FORGOTTEN:
                self._ended.set()
                return None
            if (error.code, error.message) == _HTTP_ERROR or error.code == _CONNECTION_CLOSED:
                raise self._meant(error) from error
            raise refused(tool, error.code, self.redact(error.message)) from error

    async def end(self, grace_s: float) -> None:
        """Say goodbye, for as long as that may take."""
        self._ended.set()
        if not self._is_open.done():
            self._scope.cancel()
        if not self._task.done() and grace_s:
            await asyncio.wait({self._task}, timeout=grace_s)
        self._scope.cancel()
        await asyncio.wait({self._task})

    def redact(self, text: str) -> str:
        """A text without what must not be told."""
        for secret in self._secrets:
            text = text.replace(secret, "[REDACTED]")
        return text

    async def _ask(self, method: str, work: Callable[[Client], Awaitable[T]], waited_s: float) -> T:
        if self.is_over:
            raise self._lost()
        order = _Order(work)
        self._waiting.add(order)
        self._orders.put_nowait(order)
        try:
            async with asyncio.timeout(waited_s):
                return await order.done
        except TimeoutError:
            raise protocol.broken(self._plugin, f"it did not answer `{method}` within {waited_s:g} s") from None
        except ValidationError as error:
            raise protocol.broken(self._plugin, f"its answer to `{method}` is not what the protocol says") from error
        finally:
            # If nobody waits for it any more, the server is told so.
            self._waiting.discard(order)
            order.scope.cancel()

    # In the task of the session

    async def _live(self) -> None:
        try:
            with self._scope:
                await self._talk()
        except Exception as error:  # noqa: BLE001  (errors of the SDK and of HTTP, alone or in groups, are told in `_over`)
            self._failure = error

    async def _talk(self) -> None:
        from ... import __version__

        client = Client(
            self._streams.open(),
            # The list of tools is kept here, and nothing else is asked for.
            cache=None,
            client_info=Implementation(name="pyflue", version=__version__),
            list_roots_callback=_no_roots,
        )
        async with client:
            self.tools = await self._list(client)
            self._is_open.set_result(None)
            async with anyio.create_task_group() as group:
                group.start_soon(self._serve, client, group)
                await self._ended.wait()
                group.cancel_scope.cancel()

    async def _serve(self, client: Client, group: anyio.abc.TaskGroup) -> None:
        while True:
            group.start_soon((await self._orders.get()).carry_out, client)

    async def _list(self, client: Client) -> dict[str, ComponentInfo]:
        tools: dict[str, ComponentInfo] = {}
        cursor: str | None = None
        for _ in range(MOST_PAGES):
            page = await client.session.list_tools(params=PaginatedRequestParams(cursor=cursor))
            tools.update((tool.name, _info(tool)) for tool in page.tools)
            if page.next_cursor is None or page.next_cursor == cursor:
                break
            cursor = page.next_cursor
        return tools

    # Its end

    def _over(self, task: asyncio.Task[None]) -> None:
        self._ended.set()
        if not self._is_open.done():
            self._is_open.set_exception(self._lost())
            self._is_open.exception()  # nobody may be left who would look at it
        for order in self._waiting:
            order.fail(self._lost())

    def _lost(self) -> ComponentFailed:
        """Why nothing can be asked any more."""
        failure = _leaf(self._failure)
        match failure:
            case MCPError():
                return self._meant(failure)
            case ValidationError():
                return protocol.broken(self._plugin, "it does not speak the protocol")
            case None:
                return protocol.broken(self._plugin, "the connection was closed")
            case _:
                problem = f"it cannot be reached or broke off ({str(failure) or type(failure).__name__})"
                return protocol.broken(self._plugin, self.redact(problem[:1000]))

    def _meant(self, error: MCPError) -> ComponentFailed:
        """What an error that is none of a tool's means."""
        status = self._streams.status
        if (error.code, error.message) == _HTTP_ERROR and status is not None:
            is_retryable = status >= 500 or status in _PASSING
            return protocol.broken(self._plugin, self._streams.story, is_retryable=is_retryable)
        said = self.redact(error.message[:1000])
        return protocol.broken(self._plugin, f"it answered with error {error.code}: {said}")


async def _no_roots(context: object) -> ListRootsResult:
    return ListRootsResult(roots=[])


def _info(tool: Tool) -> ComponentInfo:
    return info_of(tool.name, tool.description, tool.input_schema)


def _leaf(error: BaseException | None) -> BaseException | None:
    """What went wrong first, in a group of errors."""
    while isinstance(error, BaseExceptionGroup):
        errors: tuple[BaseException, ...] = error.exceptions  # pyright: ignore[reportUnknownMemberType,reportUnknownVariableType]
        error = errors[0]
    return error  # pyright: ignore[reportUnknownVariableType]
