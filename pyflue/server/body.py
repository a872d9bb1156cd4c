"""What requests bring: headers, each once, and bodies: JSON or nothing, and never more in memory than the limit.

Called by the routes; raises the errors `server/errors.py` has a status for.
"""

from __future__ import annotations

from collections.abc import Mapping

from starlette.types import Message, Receive

from ..errors import InvalidRequest, TooLarge, UnsupportedMediaType

#: A request's headers by lower-case name, each once.
RequestHeaders = Mapping[bytes, bytes]

_JSON_TYPES = frozenset({b"application/json", b"application/json; charset=utf-8", b"application/json;charset=utf-8"})
_NO_ENCODING = frozenset({b"", b"identity"})
_LONGEST_KEY = 255


class ClientGone(Exception):
    """The client left before it had sent its request; there is nobody to answer."""


def check_media_type(headers: RequestHeaders) -> None:
    """Refuse bodies that are not plain JSON.

    A declared type counts even without a body: a browser lets a foreign page send forms and plain text unasked, never
    JSON.

    Raises:
        UnsupportedMediaType
    """
    declared = headers.get(b"content-type")
    if declared is not None and declared not in _JSON_TYPES and not _is_json(declared):
        raise UnsupportedMediaType(f"The body's type {declared[:100].decode('latin-1')!r} is not accepted.")
    encoding = headers.get(b"content-encoding")
    if encoding is not None and encoding.strip().lower() not in _NO_ENCODING:
        raise UnsupportedMediaType(f"The body's encoding {encoding[:100].decode('latin-1')!r} is not accepted.")


async def read_body(receive: Receive, headers: RequestHeaders, limit_bytes: int) -> bytes:
    """The whole body.

    Raises:
        UnsupportedMediaType: there is a body and it does not say that it is JSON.
        TooLarge: as soon as that is known, before the rest is read.
        ClientGone
    """
    check_media_type(headers)
    length = headers.get(b"content-length")
    if length is not None and len(length) < 20 and length.isdigit() and int(length) > limit_bytes:
        raise TooLarge("The request's body", int(length), limit_bytes, "limits.payload_bytes")
    message = await receive()
    body = _part(message)
    if message.get("more_body"):
        body = await _read_on(receive, body, limit_bytes)
    if len(body) > limit_bytes:
        raise TooLarge("The request's body", None, limit_bytes, "limits.payload_bytes")
    if body and b"content-type" not in headers:
        raise UnsupportedMediaType("The body has no declared type.")
    return body


async def _read_on(receive: Receive, start: bytes, limit_bytes: int) -> bytes:
    body = bytearray(start)
    more = True
    while more and len(body) <= limit_bytes:
        message = await receive()
        body += _part(message)
        more = message.get("more_body", False)
    return bytes(body)


def _part(message: Message) -> bytes:
    if message["type"] == "http.disconnect":
        raise ClientGone
    return message.get("body", b"")


def _is_json(declared: bytes) -> bool:
    media_type, *parameters = declared.lower().split(b";")
    return media_type.strip() == b"application/json" and all(
        parameter.strip().replace(b'"', b"") in {b"charset=utf-8", b""} for parameter in parameters
    )


def single_headers(pairs: list[tuple[bytes, bytes]]) -> RequestHeaders:
    """Headers by name. Repeated ones are joined as HTTP says, except those that must not come twice.

    Raises:
        InvalidRequest: such a header came twice.
    """
    headers = dict(pairs)
    if len(headers) == len(pairs):
        return headers
    headers.clear()
    for name, value in pairs:
        if name not in headers:
            headers[name] = value
        elif name in _ONCE:
            raise InvalidRequest(f"The header {name.decode('latin-1')!r} came twice.")
        else:
            headers[name] += (b"; " if name == b"cookie" else b", ") + value
    return headers


def idempotency_key(headers: RequestHeaders) -> str | None:
    """The request's `Idempotency-Key`, if it has one.

    Raises:
        InvalidRequest: it is empty, too long, or not printable ASCII.
    """
    raw = headers.get(b"idempotency-key")
    if raw is None:
        return None
    key = raw.decode("latin-1")
    if not 0 < len(key) <= _LONGEST_KEY or not key.isascii() or not key.isprintable():
        raise InvalidRequest(f"Idempotency-Key must be 1 to {_LONGEST_KEY} printable ASCII characters.")
    return key


_ONCE = frozenset(
    {
        b"authorization",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"host",
        b"idempotency-key",
        b"last-event-id",
        b"origin",
        b"sec-fetch-mode",
        b"sec-fetch-site",
        b"signal-id",
        b"transfer-encoding",
    }
)
