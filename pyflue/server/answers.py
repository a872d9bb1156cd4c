"""Answers: a status, a body and headers, sent in two ASGI messages.

Every route that does not stream ends in one of these. They are plain enough for the hottest route and know nothing
about what they carry.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from starlette.types import Receive, Scope, Send

from .. import codec

Headers = list[tuple[bytes, bytes]]

RUN_ID_HEADER = b"x-flue-run-id"
DISPATCH_ID_HEADER = b"x-flue-dispatch-id"

#: On every answer: nothing here may be guessed to be a script or a page, kept, or read by pages of other sites.
SECURITY_HEADERS: Headers = [
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
_JSON_HEADERS: Headers = [(b"content-type", b"application/json"), *SECURITY_HEADERS]


class Answer:
    """A whole answer, sent at once."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        self.status = status
        self.body = body
        self.headers: Headers = [*_JSON_HEADERS, (b"content-length", b"%d" % len(body)), *headers]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        await send({"type": "http.response.body", "body": self.body})


class NoContent(Answer):
    """An answer that is complete without a body."""

    def __init__(self, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        super().__init__(204, b"")
        self.headers = [*SECURITY_HEADERS, *headers]


class BytesAnswer(Answer):
    """An answer of bytes that are nobody's business to interpret."""

    def __init__(self, body: bytes) -> None:
        super().__init__(200, body)
        self.headers[0] = (b"content-type", b"application/octet-stream")


def json_answer(status: int, value: Any, *, run_id: str | None = None) -> Answer:
    """An answer with a value as JSON; `run_id` names the run it is about."""
    return Answer(status, codec.encode(value), () if run_id is None else (run_id_header(run_id),))


def dispatch_id_header(dispatch_id: str) -> tuple[bytes, bytes]:
    """The header that names the prompt to an agent, or the dispatch, that an answer is about."""
    return DISPATCH_ID_HEADER, dispatch_id.encode("ascii")


def run_id_header(run_id: str) -> tuple[bytes, bytes]:
    """The header that names the run an answer is about. What no header can hold is percent-encoded."""
    value = run_id if run_id.isascii() else quote(run_id, safe=":/")
    return RUN_ID_HEADER, value.encode("ascii")
