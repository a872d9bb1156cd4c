"""The way to one server: requests out, answers or typed errors back.

The namespaces of the client and its streams speak through this; only this module touches the HTTP library, which is
imported with the first request.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from ..codec import Raw
from ..errors import InvalidJson, PyFlueError, SettingsInvalid, Unreachable
from .answers import error_from, read_json, stranger
from .sse import Frame, Parser

if TYPE_CHECKING:
    import httpx2

#: Heartbeats that may be missed before a stream counts as broken.
_MISSED_HEARTBEATS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A successful answer; `body` is None where there was none."""

    status: int
    body: Any


class Frames:
    """An open event stream."""

    def __init__(self, response: httpx2.Response, url: str) -> None:
        self._response = response
        self._url = url

    @property
    def run_id(self) -> str | None:
        """The run whose events these are, as the answer's header names it."""
        value = self._response.headers.get("x-flue-run-id")
        # Ids that a header cannot hold come percent-encoded; a plain id may have a percent sign of its own.
        return unquote(value) if value is not None and not unquote(value).isascii() else value

    @property
    def dispatch_id(self) -> str | None:
        """The prompt to an agent whose events these are."""
        return self._response.headers.get("x-flue-dispatch-id")

    async def __aiter__(self) -> AsyncGenerator[Frame, None]:
        import httpx2

        parser = Parser()
        try:
            async with aclosing(self._response.aiter_bytes()) as chunks:
                async for chunk in chunks:
                    for frame in parser.feed(chunk):
                        yield frame
        except httpx2.ReadTimeout as error:
            raise Unreachable(self._url, "the event stream fell silent, heartbeats included") from error
        except httpx2.RequestError as error:
            raise Unreachable(self._url, f"the event stream broke ({_name(error)})") from error


class Connection:
    """Requests to one server, with its address, token and timeouts."""

    def __init__(
        self,
        url: str,
        *,
        token: str | None,
        timeout_s: float,
        connect_timeout_s: float,
        heartbeat_s: float,
        reconnect_s: float,
        transport: httpx2.AsyncBaseTransport | None,
    ) -> None:
        self.url = _checked_url(url)
        self.headers = _authorization(token)
        self.connect_timeout_s = connect_timeout_s
        #: How long a broken stream tries to reach the server again.
        self.reconnect_s = reconnect_s
        self._timeout_s = timeout_s
        self._silence_s = heartbeat_s * _MISSED_HEARTBEATS
        self._transport = transport
        self._http: httpx2.AsyncClient | None = None

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Raw | None = None,
        headers: Mapping[str, str] | None = None,
        waits: bool = False,
    ) -> Answer:
        """Send a request and read its answer. `waits` is for answers that come when the work is done.

        Raises:
            Unreachable: no connection, or it broke before the whole answer was here.
            PyFlueError: what the server's error envelope stands for.
        """
        import httpx2

        request = self._request(method, path, query, body, headers, read_s=None if waits else self._timeout_s)
        try:
            response = await self._client().send(request)
        except httpx2.RequestError as error:
            raise self._unreachable(error) from error
        return _answer(response)

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Raw | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[Frames, None]:
        """Open an event stream. Silence longer than three heartbeats counts as a broken connection.

        Raises:
            Unreachable: no connection.
            PyFlueError: what the server's error envelope stands for.
        """
        import httpx2

        headers = {"Accept": "text/event-stream", **(headers or {})}
        request = self._request(method, path, query, body, headers, read_s=self._silence_s)
        try:
            response = await self._client().send(request, stream=True)
            if not _is_event_stream(response):
                await response.aread()
        except httpx2.RequestError as error:
            raise self._unreachable(error) from error
        try:
            if not _is_event_stream(response):
                _answer(response)
                raise stranger(f"{method} {request.url} answered {response.status_code}", response.status_code)
            yield Frames(response, self.url)
        finally:
            await response.aclose()

    async def close(self) -> None:
        """Close the connections; the next request opens new ones."""
        if self._http is not None:
            http, self._http = self._http, None
            await http.aclose()

    def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None,
        body: Raw | None,
        headers: Mapping[str, str] | None,
        *,
        read_s: float | None,
    ) -> httpx2.Request:
        import httpx2

        sent = dict(headers or {})
        if body is not None:
            sent["Content-Type"] = "application/json"
        return self._client().build_request(
            method,
            self.url + path,
            params={name: value for name, value in (query or {}).items() if value is not None} or None,
            content=None if body is None else bytes(body),
            headers=sent,
            timeout=httpx2.Timeout(self._timeout_s, connect=self.connect_timeout_s, read=read_s),
        )

    def _client(self) -> httpx2.AsyncClient:
        if self._http is None:
            import httpx2

            # As a mount and not as `transport`, so that proxies from the environment keep working. No cap on the
            # connections: each open stream holds one, and a cap would make ordinary requests wait for streams.
            limits = httpx2.Limits(max_connections=None, max_keepalive_connections=20)
            direct = httpx2.AsyncHTTPTransport(limits=limits, socket_options=_keep_alive())
            self._http = httpx2.AsyncClient(
                headers=self.headers,
                transport=self._transport,
                mounts=None if self._transport else {"all://": direct},
            )
        return self._http

    def _unreachable(self, error: httpx2.RequestError) -> Unreachable:
        return Unreachable(self.url, f"{_name(error)}: {error}" if str(error) else _name(error))


def is_nobody_there(error: PyFlueError) -> bool:
    """Whether there was no connection at all, in contrast to one that broke."""
    import httpx2

    return isinstance(error.__cause__, (httpx2.ConnectError, httpx2.ConnectTimeout))


def _checked_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise SettingsInvalid("url", "PyFlueClient", f"expected something like http://127.0.0.1:2024, not {url!r}.")
    return url.rstrip("/")


def _authorization(token: str | None) -> dict[str, str]:
    if not token:
        return {}
    if not token.isascii() or not token.isprintable():
        raise SettingsInvalid("token", "PyFlueClient", "a token has printable ASCII characters only.")
    return {"Authorization": f"Bearer {token}"}


def _keep_alive() -> list[tuple[int, int, int]]:
    """Socket options by which the kernel notices within a minute that a silent server's machine is gone.

    A request that waits for a result has no read timeout; this is what ends it instead.
    """
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):  # not on every system
            options.append((socket.IPPROTO_TCP, getattr(socket, name), value))
    return options


def _is_event_stream(response: httpx2.Response) -> bool:
    if response.status_code == 204:
        return True  # of a run that has ended, and that has no event after the asked one: a stream of nothing
    return response.is_success and response.headers.get("content-type", "").startswith("text/event-stream")


def _answer(response: httpx2.Response) -> Answer:
    """The answer's body, or the error it stands for."""
    what = f"{response.request.method} {response.request.url} answered {response.status_code}"
    try:
        body = read_json(response.content, what) if response.content else None
    except InvalidJson as error:
        raise stranger(what, response.status_code) from error
    if response.is_success:
        return Answer(status=response.status_code, body=body)
    envelope = body.get("error") if isinstance(body, dict) else None  # pyright: ignore[reportUnknownMemberType,reportUnknownVariableType]
    if not isinstance(envelope, dict):
        raise stranger(what, response.status_code)
    raise error_from(response.status_code, envelope)  # pyright: ignore[reportUnknownArgumentType]


def _name(error: httpx2.RequestError) -> str:
    return type(error).__name__
