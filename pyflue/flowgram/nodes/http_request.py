"""The http node: one request. Any answer is a success, whatever its status.

Where it may go is the business of `network.py`, another try if nobody answers that of `retries.py`; how much an answer
may bring and how long it may take is limited here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from ..document import as_object, properties
from ..exceptions import NoAnswer, NodeError, text_of
from ..executing import Call, ExecutionResult
from ..network import guarded_client
from ..values import Scope, as_text, evaluate, render

if TYPE_CHECKING:
    import httpx2

METHODS = frozenset({"GET", "POST", "PUT", "DELETE", "PATCH", "HEAD"})
_WITHOUT_BODY = frozenset({"GET", "HEAD"})
_TEXTS = {
    "JSON": ("json", "application/json"),
    "raw-text": ("rawText", "text/plain"),
    "binary": ("binary", "application/octet-stream"),
}
_FORM = "application/x-www-form-urlencoded"
DEFAULT_TIMEOUT_MS = 30_000
_LONGEST_TIMEOUT_MS = 600_000
_MOST_RETRIES = 10
#: More of an answer is not read.
LIMIT_BYTES = 8 * 1024**2


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    method: str
    url: str
    headers: dict[str, str]
    params: dict[str, str]
    body_type: str
    #: Text as it is sent, or fields of a form.
    body: str | dict[str, str] | None
    content_type: str | None
    timeout_ms: float
    retry_times: int
    follows_redirects: bool

    def shown(self) -> dict[str, Any]:
        """As the report has it."""
        return {
            "method": self.method,
            "url": self.url,
            "headers": self.headers,
            "params": self.params,
            "bodyType": self.body_type,
            "body": "" if self.body is None else self.body,
            "timeout": self.timeout_ms,
            "retryTimes": self.retry_times,
        }


async def execute_http(call: Call) -> ExecutionResult:
    """Send the request of an http node."""
    request = _request(call.node.data, call.scope)
    call.inputs = request.shown()
    return ExecutionResult(await _send(request))


def _request(data: Mapping[str, Any], scope: Scope) -> _Request:
    api = _object(data.get("api"))
    method = str(api.get("method") or "GET").upper()
    if method not in METHODS:
        raise NodeError(f'HTTP invalid method "{method}"')
    url = render(api.get("url"), scope)
    if url is None or not url.value.strip():
        raise NodeError("HTTP url is required")
    body_type, body, content_type = _body(_object(data.get("body")), scope)
    timeout = _object(data.get("timeout"))
    return _Request(
        method=method,
        url=url.value.strip(),
        headers=_texts(data.get("headers"), data.get("headersValues"), scope),
        params=_texts(data.get("params"), data.get("paramsValues"), scope),
        body_type=body_type,
        body=body,
        content_type=content_type,
        timeout_ms=_number(timeout.get("timeout"), DEFAULT_TIMEOUT_MS, 1, _LONGEST_TIMEOUT_MS, "timeout"),
        retry_times=int(_number(timeout.get("retryTimes"), 0, 0, _MOST_RETRIES, "retryTimes")),
        follows_redirects=api.get("followRedirects") is True,
    )


def _body(body: Mapping[str, Any], scope: Scope) -> tuple[str, str | dict[str, str] | None, str | None]:
    kind = str(body.get("bodyType") or "none")
    if kind == "none":
        return kind, None, None
    if kind == "form-data":
        return kind, _texts(body.get("formData"), body.get("formDataValues"), scope), None
    if kind == "x-www-form-urlencoded":
        values = _texts(body.get("xWwwFormUrlencoded"), body.get("xWwwFormUrlencodedValues"), scope)
        return kind, values, _FORM
    if kind not in _TEXTS:
        raise NodeError(f'HTTP invalid body type "{kind}"')
    name, content_type = _TEXTS[kind]
    value = body.get(name)
    if value is None and kind == "raw-text":
        value = body.get("json")
    text = None if value is None else render(value, scope)
    if text is None:
        raise NodeError(f"HTTP {kind.lower()} body is required")
    return kind, text.value, content_type


async def _send(request: _Request) -> dict[str, Any]:
    url = _url(request)
    client = await guarded_client(follow_redirects=request.follows_redirects)
    import httpx2  # in `sys.modules` by now

    headers = {name.lower(): value for name, value in request.headers.items()}
    content: dict[str, Any] = {}
    if request.method not in _WITHOUT_BODY and request.body is not None:
        content = _content(request, headers)
    try:
        async with asyncio.timeout(request.timeout_ms / 1000), client:
            made = client.build_request(request.method, url, headers=headers, **content)
            answer = await client.send(made, stream=True)
            try:
                return await _read(answer)
            finally:
                await answer.aclose()
    except NodeError:
        raise
    except TimeoutError as error:
        raise NoAnswer(f"HTTP request timed out after {request.timeout_ms:g} ms") from error
    except (httpx2.InvalidURL, httpx2.UnsupportedProtocol, UnicodeError, ValueError) as error:
        raise NodeError(f"HTTP request cannot be sent: {text_of(error)}") from error
    except httpx2.HTTPError as error:
        raise NoAnswer(f"HTTP request failed: {text_of(error)}") from error


async def _read(answer: httpx2.Response) -> dict[str, Any]:
    body = bytearray()
    async for part in answer.aiter_bytes():
        body += part
        if len(body) > LIMIT_BYTES:
            raise NodeError(f"HTTP answer is larger than {LIMIT_BYTES:,} bytes")
    try:
        text = body.decode(answer.charset_encoding or "utf-8", "replace")
    except LookupError:
        text = body.decode("utf-8", "replace")
    return {"headers": dict(answer.headers), "statusCode": answer.status_code, "body": text}


def _url(request: _Request) -> str:
    """The URL with the parameters; those that it has itself stay, unless one of the same name is set."""
    try:
        parts = urlsplit(request.url)
        port = parts.port
    except ValueError as error:
        raise NodeError(f"HTTP url is invalid: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise NodeError(f"HTTP url must begin with http:// or https://, got {request.url[:200]!r}")
    if "@" in parts.netloc or port == 0:
        raise NodeError("HTTP url must not hold a user name or password; use headers")
    if not request.params:
        return request.url
    kept = [
        (name, value) for name, value in parse_qsl(parts.query, keep_blank_values=True) if name not in request.params
    ]
    return urlunsplit(parts._replace(query=urlencode([*kept, *request.params.items()])))


def _content(request: _Request, headers: dict[str, str]) -> dict[str, Any]:
    if isinstance(request.body, str):
        headers.setdefault("content-type", str(request.content_type))
        return {"content": request.body.encode()}
    fields = request.body or {}
    if request.content_type is not None:
        headers.setdefault("content-type", request.content_type)
        return {"content": urlencode(fields).encode()}
    if "boundary=" not in headers.get("content-type", ""):
        headers.pop("content-type", None)  # only who writes the parts knows what is between them
    return {"files": [(name, (None, value)) for name, value in fields.items()]}


def _texts(schema: Any, values: Any, scope: Scope) -> dict[str, str]:
    """Headers, parameters or fields: their values as text, without those that have none."""
    types = properties(schema)
    texts: dict[str, str] = {}
    for name, value in _object(values).items():
        variable = evaluate(value, types.get(name), scope)
        if variable is not None and variable.value is not None:
            texts[name] = as_text(variable.value)
    return texts


def _object(value: Any) -> Mapping[str, Any]:
    return as_object(value)


def _number(value: Any, default: float, least: float, most: float, name: str) -> float:
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value < least:
        raise NodeError(f'HTTP "{name}" must be a number from {least:g}, got {value!r}')
    return min(value, most)
