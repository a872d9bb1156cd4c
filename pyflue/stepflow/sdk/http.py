"""Components over HTTP: a request in, its answer out; what a component asks meanwhile comes as events.

`StepflowServer.start_http` and `stepflow_server --http` end here. The transport is that of stepflow-ai/stepflow
("streamable HTTP", `sdks/python/stepflow-server`): one address takes all messages by POST. The answer to a request is
JSON, or a stream of events if the component has a context: each event is a request of the component, whose answer is
posted here with the `Stepflow-Instance-Id` of the stream, and the last one is the answer.

Who can reach this can run its components. So it is bound to this machine unless it is told otherwise, and then refuses
requests that a web page has made the browser send (by the names of the host and the origin).
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from . import messages
from .context import Waiting
from .dispatcher import Call, Dispatcher
from .exceptions import ErrorCode
from .threads import Threads

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from .server import StepflowServer

INSTANCE_HEADER = "Stepflow-Instance-Id"
#: The longest message that is taken.
LIMIT_BYTES = 256 * 1024 * 1024
_STOP_TIMEOUT_S = 5
_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
_EVERYWHERE = frozenset({"", "0.0.0.0", "::"})  # noqa: S104  (what is asked about, not what is bound)


class StepflowHttpServer:
    """A component server that a runtime speaks to over HTTP.

    One process serves, whatever `workers` is (which is there for programs that give it): answers to what a component
    asks must reach the process in which it runs.
    """

    def __init__(
        self,
        server: StepflowServer | None = None,
        host: str = "localhost",
        port: int = 8080,
        instance_id: str | None = None,
        workers: int = 3,
        backlog: int = 128,
        timeout_keep_alive: int = 5,
    ) -> None:
        if server is None:
            from .server import StepflowServer

            server = StepflowServer()
        #: Holds the components.
        self.server = server
        # As they are there; typed as they are there, too.
        self.component = server.component
        self.langchain_component = server.langchain_component
        self.host = host
        self.port = port
        self.instance_id = instance_id or os.urandom(8).hex()
        self.workers = workers
        self.backlog = backlog
        self.timeout_keep_alive = timeout_keep_alive
        self._dispatcher = Dispatcher(server.components, session_id=self.instance_id, is_initialized=True)
        self._threads = Threads()
        self._waiting = Waiting()
        #: The ASGI application, for those who serve it by other means.
        self.app = Starlette(
            routes=[Route("/", _Endpoint(self._post), methods=["POST"]), Route("/health", self._health)],
            exception_handlers={HTTPException: _refused},
        )

    async def run(self) -> None:
        """Serve until SIGTERM or Ctrl-C. Prints `{"port": …}` on standard output as soon as it can be reached.

        Raises:
            OSError: the address cannot be used.
        """
        import uvicorn

        config = uvicorn.Config(
            self.app,
            lifespan="off",
            log_level="warning",
            access_log=False,
            timeout_keep_alive=self.timeout_keep_alive,
            timeout_graceful_shutdown=_STOP_TIMEOUT_S,
            server_header=False,
            date_header=False,
        )
        listener = self._listen()
        self.server.set_initialized(True)
        sys.stdout.write(msgspec.json.encode({"port": self.port}).decode() + "\n")
        sys.stdout.flush()
        try:
            await uvicorn.Server(config).serve(sockets=[listener])
        finally:
            self._waiting.end()
            listener.close()

    def _listen(self) -> socket.socket:
        """The socket; with port 0 the system chooses one, and `port` says which."""
        host = "127.0.0.1" if self.host == "localhost" else self.host
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # With the protocol left out, event loops would not know that it is TCP, and each answer would wait for an
        # acknowledgement that the other side delays (40 ms).
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, self.port))
            listener.listen(self.backlog)
        except OSError:
            listener.close()
            raise
        self.port = listener.getsockname()[1]
        return listener

    async def _health(self, request: Request) -> Response:
        refusal = self._check_caller(request.headers)
        if refusal is not None:
            return refusal
        now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        told = {
            "status": "healthy",
            "instanceId": self.instance_id,
            "timestamp": now,
            "service": "pyflue-stepflow-server",
        }
        return Response(msgspec.json.encode(told), media_type="application/json")

    async def _post(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        refusal = self._check_caller(headers) or self._check_form(headers)
        if refusal is None:
            body = await _read_body(receive)
            if body is None:
                refusal = _refusal(413, f"A message may have {LIMIT_BYTES:,} bytes.")
            else:
                await self._take(body, scope, receive, send)
                return
        await refusal(scope, receive, send)

    async def _take(self, body: bytes, scope: Scope, receive: Receive, send: Send) -> None:
        message = self._dispatcher.read(body)
        if isinstance(message, bytes):
            response = Response(message, 400, media_type="application/json")
        elif not message.is_request:
            if isinstance(message.method, str):
                self._dispatcher.note(message)
            else:
                self._waiting.answer(message)
            response = Response(status_code=202)
        else:
            answer = self._dispatcher.answer(message)
            if isinstance(answer, Call):
                await self._run(answer, scope, receive, send)
                return
            response = Response(answer, media_type="application/json")
        await response(scope, receive, send)

    async def _run(self, call: Call, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a call. If the caller goes away, the component is cancelled."""
        stream = _Stream(self._waiting, self._threads)
        work = asyncio.create_task(self._work(call, stream))
        gone = asyncio.create_task(_until_gone(receive))
        try:
            if call.entry.expects_context:
                gone.add_done_callback(stream.end)
                work.add_done_callback(stream.end)
                await self._send_events(work, stream, send)
            else:
                await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
                if work.done():
                    await Response(work.result(), media_type="application/json")(scope, receive, send)
        finally:
            work.cancel()
            gone.cancel()
            await asyncio.wait((work, gone))

    async def _work(self, call: Call, stream: _Stream) -> bytes:
        try:
            if call.entry.is_async:
                return await self._dispatcher.run_async(call, stream)
            if not call.entry.is_blocking:
                return self._dispatcher.run(call, stream)
            return await self._threads.call(self._dispatcher.run, call, stream)
        except SystemExit as stop:
            # A component over HTTP serves many, so it does not end for all of them.
            text = f"Component execution failed: it wanted to end the process (SystemExit: {stop.code})"
            return messages.failure(call.id, ErrorCode.EXECUTION_ERROR, text)

    async def _send_events(self, work: asyncio.Task[bytes], stream: _Stream, send: Send) -> None:
        head = [
            (b"content-type", b"text/event-stream"),
            (b"cache-control", b"no-store"),
            (INSTANCE_HEADER.lower().encode(), self.instance_id.encode("latin-1")),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        while (message := await stream.next()) is not None:
            await send({"type": "http.response.body", "body": b"data: " + message + b"\n\n", "more_body": True})
        if work.done():
            await send({"type": "http.response.body", "body": b"data: " + work.result() + b"\n\n", "more_body": True})
            await send({"type": "http.response.body", "body": b""})

    def _check_caller(self, headers: Headers) -> Response | None:
        """Refuse what a page of another site may have sent, if only this machine is to reach us."""
        if self.host in _EVERYWHERE:
            return None
        host = headers.get("host", "")
        if not self._is_ours(host):
            return _refusal(421, f"This server is not called {host[:200]!r}.")
        origin = headers.get("origin")
        if origin is not None and not self._is_ours(origin.partition("://")[2]):
            return _refusal(403, "Pages of other sites may not use this server.")
        return None

    def _is_ours(self, authority: str) -> bool:
        name, separator, port = authority.rpartition(":")
        if not separator or not port.isdecimal():
            name = authority
        name = name.lower()
        return name in _LOCAL_NAMES or name.strip("[]") == self.host.lower().strip("[]")

    def _check_form(self, headers: Headers) -> Response | None:
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return _refusal(415, "Content-Type must be application/json")
        accepted = {part.partition(";")[0].strip().lower() for part in headers.get("accept", "").split(",")}
        if not {"application/json", "text/event-stream"} <= accepted:
            return _refusal(406, "Accept header must include application/json and text/event-stream")
        instance_id = headers.get(INSTANCE_HEADER)
        if instance_id is not None and instance_id != self.instance_id:
            return _refusal(404, f"This is not instance {instance_id[:200]!r}; it may have been started again.")
        return None


class _Endpoint:
    """An ASGI application for a route."""

    def __init__(self, answer: Callable[[Scope, Receive, Send], Any]) -> None:
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._answer(scope, receive, send)


class _Stream:
    """What a component asks, on its way to the runtime."""

    def __init__(self, waiting: Waiting, threads: Threads) -> None:
        self.waiting = waiting
        self.threads = threads
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue()

    def send(self, message: bytes) -> None:
        self._loop.call_soon_threadsafe(self._queue.put_nowait, message)

    def end(self, _task: object) -> None:
        """Nothing more comes. What was sent before is sent on."""
        self._loop.call_soon(self._queue.put_nowait, None)

    async def next(self) -> bytes | None:
        return await self._queue.get()


async def _read_body(receive: Receive) -> bytes | None:
    """The body of a request; None if it is too long, or its sender has gone."""
    pieces: list[bytes] = []
    length = 0
    while True:
        event = await receive()
        if event["type"] != "http.request":
            return None
        pieces.append(event.get("body", b""))
        length += len(pieces[-1])
        if length > LIMIT_BYTES:
            return None
        if not event.get("more_body", False):
            return b"".join(pieces)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _refusal(status: int, text: str) -> Response:
    body = messages.failure(None, ErrorCode.INVALID_REQUEST, text)
    return Response(body, status, media_type="application/json")


async def _refused(request: Request, error: Exception) -> Response:
    """The answer to a request that no route takes."""
    assert isinstance(error, HTTPException)  # noqa: S101  (it is called for nothing else)
    response = _refusal(error.status_code, error.detail)
    response.headers.update(error.headers or {})
    return response
