"""The server's ASGI application: one script, its requests, and how each of them ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Receive, Scope, Send

from . import frames
from .script import Answer, Gate, Script

_HTML = b"<!DOCTYPE html><html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"


@dataclass(kw_only=True)
class Received:
    """One request, and what became of it. The gates can be waited for in any event loop."""

    number: int
    provider: str
    path: str
    headers: Mapping[str, str]
    body: Any
    #: Everything up to the point where the answer is held has been sent.
    is_held: Gate = field(default_factory=Gate)
    #: The client closed the connection before the answer was over.
    client_closed: Gate = field(default_factory=Gate)
    #: The answer is over, in whichever way.
    ended: Gate = field(default_factory=Gate)


class ProviderApp:
    """Answers requests to both APIs from one script, in the order in which they come."""

    def __init__(self, script: Script, on_request: Callable[[Received], None] = lambda _: None) -> None:
        self._script = script
        self._on_request = on_request
        self._lock = threading.Lock()
        self.requests: list[Received] = []
        #: Opened when the request of a number has come.
        self._arrivals: dict[int, Gate] = {}

    def arrival(self, number: int) -> Gate:
        """Open as soon as the request of this number, from 0, has come."""
        with self._lock:
            gate = self._arrivals.setdefault(number, Gate())
            if len(self.requests) > number:
                gate.open()
            return gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        provider = {"messages": "anthropic", "completions": "openai"}.get(scope["path"].rsplit("/", 1)[-1])
        if provider is None or scope["method"] != "POST":
            await _send(send, 404, b'{"error": {"type": "not_found_error", "message": "no such path"}}')
            return
        body = json.loads(await _body(receive))
        headers = {name.decode().lower(): value.decode("latin-1") for name, value in scope["headers"]}
        with self._lock:
            number = len(self.requests)
            received = Received(number=number, provider=provider, path=scope["path"], headers=headers, body=body)
            self.requests.append(received)
            arrival = self._arrivals.setdefault(number, Gate())
        self._on_request(received)
        arrival.open()
        answer = self._script.answer(number, body)
        answering = asyncio.ensure_future(self._answer(received, answer, send))
        leaving = asyncio.ensure_future(_until_left(receive))
        try:
            await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                received.client_closed.open()
        finally:
            for task in (answering, leaving):
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await leaving
            with contextlib.suppress(asyncio.CancelledError):
                await answering
            received.ended.open()

    async def _answer(self, received: Received, answer: Answer, send: Send) -> None:
        body, number = received.body, received.number
        headers = {
            "request-id": f"req_{number:04d}",
            "x-request-id": f"req_{number:04d}",
            **answer.headers,
        }
        if answer.hold_after == 0:
            received.is_held.open()
            await answer.gate.wait()
        is_anthropic = received.provider == "anthropic"
        if answer.html:
            await _send(send, answer.status, _HTML, {**headers, "content-type": "text/html; charset=utf-8"})
        elif answer.error is not None:
            error = (
                frames.anthropic_error(answer.error, answer.message, headers["request-id"])
                if is_anthropic
                else frames.openai_error(answer.error, answer.message)
            )
            await _send(send, answer.status, json.dumps(error).encode(), headers)
        elif not body.get("stream"):
            whole = frames.anthropic_message if is_anthropic else frames.openai_completion
            await _send(send, 200, json.dumps(whole(answer, body, number)).encode(), headers)
        else:
            await self._stream(received, answer, send, headers)

    async def _stream(self, received: Received, answer: Answer, send: Send, headers: Mapping[str, str]) -> None:
        headers = {**headers, "content-type": "text/event-stream; charset=utf-8"}
        await _start(send, 200, headers)
        for sent, frame in enumerate(_frames(received, answer)):
            if sent == answer.cut_after:
                return  # uvicorn closes the connection of an answer that was not finished
            if sent == answer.end_after:
                break
            if sent == answer.hold_after:
                received.is_held.open()
                await answer.gate.wait()
            await send({"type": "http.response.body", "body": frame, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def _frames(received: Received, answer: Answer) -> list[bytes]:
    is_anthropic = received.provider == "anthropic"
    if answer.raw is not None:
        return [answer.raw]
    make = frames.anthropic_frames if is_anthropic else frames.openai_frames
    made = make(answer, received.body, received.number)
    if answer.duplicated:
        made = [frame for frame in made for _ in range(2)]
    wrong: list[bytes] = []
    if answer.wrong_json:
        wrong = [frames.ANTHROPIC_WRONG_JSON if is_anthropic else frames.OPENAI_WRONG_JSON]
    if answer.wrong_shape:
        wrong = [frames.ANTHROPIC_WRONG_SHAPE if is_anthropic else frames.OPENAI_WRONG_SHAPE]
    if answer.error_after is not None:
        frame = frames.anthropic_error_frame if is_anthropic else frames.openai_error_frame
        return [*made[: answer.error_after], frame(answer.error_kind)]
    return [*made[:3], *wrong, *made[3:]]


async def _until_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _body(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


async def _start(send: Send, status: int, headers: Mapping[str, str]) -> None:
    listed = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": listed})


async def _send(send: Send, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
    await _start(send, status, {"content-type": "application/json", **(headers or {})})
    await send({"type": "http.response.body", "body": body})
