"""The messages of the component protocol as they are written, and JSON of whatever components return.

Called by `dispatcher.py` and `context.py`. JSON-RPC 2.0, one message at a time; fields as in stepflow-ai/stepflow,
`schemas/protocol.json`. Params and results stay in their written form (`Raw`) until it is known what they are.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Literal, cast

import msgspec
from msgspec import UNSET, Raw, UnsetType

from .exceptions import ErrorCode

RequestId = int | str


class RpcError(msgspec.Struct, frozen=True):
    """An error as the runtime answers it."""

    code: int
    message: str
    data: Any = None


class Message(msgspec.Struct, frozen=True):
    """Whatever comes in: a request (`method` and `id`), a notification (`method`) or an answer (neither)."""

    id: RequestId | UnsetType | None = UNSET
    method: str | UnsetType = UNSET
    params: Raw | UnsetType = UNSET
    result: Raw | UnsetType = UNSET
    error: RpcError | UnsetType | None = UNSET
    jsonrpc: Literal["2.0"] | None = None

    @property
    def is_request(self) -> bool:
        return self.method is not UNSET and self.id is not UNSET


class Observability(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whose work a call is. It goes back with all that a component asks, so that the runtime knows whose it is."""

    trace_id: str | None = None
    span_id: str | None = None
    run_id: str | None = None
    flow_id: str | None = None
    step_id: str | None = None


class ExecuteParams(msgspec.Struct, frozen=True):
    component: str
    input: Raw = Raw(b"null")
    attempt: int = 1
    observability: Observability | None = None


class InitializeParams(msgspec.Struct, frozen=True):
    runtime_protocol_version: int


class InfoParams(msgspec.Struct, frozen=True):
    component: str


class InferParams(msgspec.Struct, frozen=True):
    component: str
    input_schema: Any = None


class Output(msgspec.Struct, frozen=True):
    output: Any


class _Success(msgspec.Struct, frozen=True):
    id: RequestId
    result: Any
    jsonrpc: Literal["2.0"] = "2.0"


class _Failure(msgspec.Struct, frozen=True):
    id: RequestId | None
    error: dict[str, Any]
    jsonrpc: Literal["2.0"] = "2.0"


class _Request(msgspec.Struct, frozen=True):
    id: RequestId
    method: str
    params: Any
    jsonrpc: Literal["2.0"] = "2.0"


def _write_unknown(value: Any) -> Any:
    """What JSON knows in the place of something that msgspec does not know."""
    pydantic: Any = sys.modules.get("pydantic")  # nobody can have made a model without it
    if pydantic is not None and isinstance(value, pydantic.BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    if isinstance(value, Mapping):
        return dict(cast("Mapping[Any, Any]", value))
    raise TypeError(f"{value.__class__.__qualname__} cannot be written as JSON")


_encoder = msgspec.json.Encoder(enc_hook=_write_unknown)
read_message = msgspec.json.Decoder(Message).decode


def success(request_id: RequestId, result: Any) -> bytes:
    """An answer.

    Raises:
        TypeError, ValueError, OverflowError, RecursionError: the result cannot be written as JSON.
    """
    return _encoder.encode(_Success(request_id, result))


def failure(request_id: RequestId | None, code: int, message: str, data: Any = None) -> bytes:
    """An answer that is an error. Text that is no Unicode is mended; data that is not JSON is left out."""
    error: dict[str, Any] = {"code": int(code), "message": mend(message)}
    if data:
        try:
            return _encoder.encode(_Failure(request_id, {**error, "data": data}))
        except Exception:  # noqa: BLE001, S110  (the data is a component's; the message matters more)
            pass
    return _encoder.encode(_Failure(request_id, error))


def request(request_id: RequestId, method: str, params: Any) -> bytes:
    """A request of a component.

    Raises:
        TypeError, ValueError, OverflowError, RecursionError: the params cannot be written as JSON.
    """
    return _encoder.encode(_Request(request_id, method, params))


def refusal(data: bytes, error: Exception) -> bytes:
    """The answer to what could not be read as a message; with its id if that can be found."""
    try:
        found = msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return failure(None, ErrorCode.PARSE_ERROR, f"Parse error: {error}")
    given = cast("dict[str, Any]", found).get("id") if isinstance(found, dict) else None
    request_id = given if type(given) is int or type(given) is str else None
    return failure(request_id, ErrorCode.INVALID_REQUEST, f"Invalid request: {error}")


def mend(text: str) -> str:
    """The text with `?` for what is no Unicode (an error may speak of a broken file name)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="replace").decode()
    return text
