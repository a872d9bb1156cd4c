"""JSON in and out: the one place that knows which values are JSON and how they are written.

Everything that is stored or sent passes here. Text from outside goes through `decode`; values from workflow code go
through `encode_value`, which accepts exactly what JSON can give back (plus pydantic models and dataclasses, which it
dumps) and names the path of anything else. Values of our own go through `encode`. Stored JSON stays in its written
form (`Raw`) until somebody needs to look inside it.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import msgspec

from .errors import InvalidJson, NotSerializable, TooDeep

#: JSON that is already written: encoding it copies its bytes.
Raw: TypeAlias = msgspec.Raw

DEFAULT_DEPTH = 100
#: The longest decimal integer CPython converts without being asked to (`sys.set_int_max_str_digits`).
MAX_INTEGER_DIGITS = 4300

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder()
#: Possessive, because a body may be one string of megabytes: a step for each character would hold up the event loop.
_STRINGS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))

NULL = Raw(b"null")
EMPTY_OBJECT = Raw(b"{}")


#: Write a value of our own making (dicts, lists, strings, numbers, `Raw`, structs, enums) as compact JSON.
encode: Callable[[Any], bytes] = _encoder.encode


def load(raw: Raw | bytes) -> Any:
    """Read JSON that we wrote ourselves."""
    return _decoder.decode(raw)


def canonical(raw: Raw | bytes) -> bytes:
    """Written JSON in the one form that all texts of the same value have: no spaces, keys in order."""
    return msgspec.json.encode(_decoder.decode(raw), order="deterministic")


def indented(raw: Raw | bytes) -> bytes:
    """Written JSON laid out for people."""
    return msgspec.json.format(bytes(raw), indent=2)


def decode(data: bytes, what: str, *, max_depth: int = DEFAULT_DEPTH) -> Any:
    """Read JSON that came from outside; `what` names it in errors ("The payload").

    Of two equal keys the last one counts, as in other JSON readers.

    Raises:
        InvalidJson: not JSON, or NaN, an infinity, a lone surrogate, an integer of more than 4,300 digits, a BOM.
        TooDeep: nested deeper than `max_depth`.
    """
    try:
        value = _decoder.decode(data)
    except RecursionError:
        raise TooDeep(what, max_depth) from None
    except UnicodeDecodeError as error:
        raise InvalidJson(what, f"byte {error.start} is not UTF-8") from error
    except msgspec.MsgspecError as error:
        raise InvalidJson(what, _problem(data, error)) from error
    if _deeper_than(max_depth, data):
        raise TooDeep(what, max_depth)
    return value


def compact(data: bytes, value: Any) -> Raw:
    """The shortest written form of a decoded value, on one line: the text as it came if that already is one line."""
    if b"\n" in data or b"\r" in data:
        data = _encoder.encode(value)
    return Raw(data)


def encode_value(value: Any, what: str, *, max_depth: int = DEFAULT_DEPTH) -> Raw:
    """Write a value of somebody else's code as JSON.

    pydantic models and dataclasses are dumped, tuples become lists; anything else JSON cannot hold is refused.

    Raises:
        NotSerializable: with the path of the first value that is not JSON.
    """
    try:
        data = _encoder.encode(value)
        if _decoder.decode(data) == value:
            if _deeper_than(max_depth, data):
                raise NotSerializable(what, "$", f"a value nested deeper than {max_depth} levels")
            return Raw(data)
    except (TypeError, ValueError, RecursionError, OverflowError, msgspec.MsgspecError):
        pass  # `_plain` finds out what it was, and where
    return Raw(_encoder.encode(_plain(value, what, "$", max_depth)))


def round_trip(value: Any, what: str, *, max_depth: int = DEFAULT_DEPTH) -> tuple[Raw, Any]:
    """As `encode_value`, and the value as it will be read back: a copy made of plain JSON types."""
    try:
        data = _encoder.encode(value)
        back = _decoder.decode(data)
        if back == value and not _deeper_than(max_depth, data):
            return Raw(data), back
    except (TypeError, ValueError, RecursionError, OverflowError, msgspec.MsgspecError):
        pass
    raw = encode_value(value, what, max_depth=max_depth)
    return raw, _decoder.decode(raw)


def encode_loose(value: Any) -> Raw:
    """Write log fields: like `encode_value`, but what JSON cannot hold is written as its `repr`, never refused."""
    try:
        data = _encoder.encode(value)
        if _decoder.decode(data) == value:
            return Raw(data)
    except (TypeError, ValueError, RecursionError, OverflowError, msgspec.MsgspecError):
        pass
    return Raw(_encoder.encode(_loose(value, 0)))


def _problem(data: bytes, error: msgspec.MsgspecError) -> str:
    text = str(error)
    if not data.strip():
        return "it is empty"
    if data.startswith(b"\xef\xbb\xbf"):
        return "it starts with a byte order mark"
    if b"\\u" in data and ("truncated" in text or "surrogate" in text):
        return "it is cut off, or holds a lone surrogate"
    if "out of range" in text:
        return f"a number is out of range (no infinities, at most {MAX_INTEGER_DIGITS} digits)"
    return text.removeprefix("JSON is malformed: ")


def _deeper_than(limit: int, data: bytes) -> bool:
    """Whether the (valid) JSON text nests deeper than `limit`, without a Python loop over its bytes."""
    if data.count(b"[") + data.count(b"{") <= limit:
        return False
    brackets = _STRINGS.sub(b"", data).translate(None, _NOT_BRACKETS)
    for _ in range(limit):
        brackets = _peel(brackets)
        if not brackets:
            return False
    return True


def _peel(brackets: bytes) -> bytes:
    # One level only: every innermost pair becomes a mark first, so that a parent emptied by this pass stays.
    return brackets.replace(b"[]", b".").replace(b"{}", b".").translate(None, b".")


def _plain(value: Any, what: str, path: str, depth_left: int) -> Any:
    """The value rebuilt from plain JSON types.

    Raises:
        NotSerializable: naming the path of what is in the way.
    """
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise NotSerializable(what, path, "a string with a lone surrogate") from None
        return str.__str__(value)  # of an enum, too, its value
    if isinstance(value, int):
        if value.bit_length() > 14_000 and len(_digits(value)) > MAX_INTEGER_DIGITS:
            raise NotSerializable(what, path, f"an integer of more than {MAX_INTEGER_DIGITS:,} digits")
        return int.__int__(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise NotSerializable(what, path, f"the number {value}")
        return float.__float__(value)
    if depth_left == 0:
        raise NotSerializable(what, path, "a value that contains itself, or is nested too deep,")
    if isinstance(value, Raw):
        return value
    if isinstance(value, Mapping):
        plain: dict[str, Any] = {}
        for key, item in value.items():  # pyright: ignore[reportUnknownVariableType]
            if not isinstance(key, str):
                raise NotSerializable(what, path, f"a dict key of type {type(key).__name__}")  # pyright: ignore[reportUnknownArgumentType]
            plain[_plain(key, what, path, 1)] = _plain(item, what, f"{path}.{key}", depth_left - 1)
        return plain
    if isinstance(value, (list, tuple)):
        return [_plain(item, what, f"{path}[{i}]", depth_left - 1) for i, item in enumerate(value)]  # pyright: ignore[reportUnknownArgumentType,reportUnknownVariableType]
    dump = getattr(value, "model_dump", None)
    if callable(dump) and not isinstance(value, type):
        try:
            dumped = dump(mode="json")
        except Exception as error:  # the author's model, and what it holds, may refuse in their own way
            problem = f"a {type(value).__name__} that cannot be dumped ({type(error).__name__})"
            raise NotSerializable(what, path, problem) from error
        return _plain(dumped, what, path, depth_left - 1)
    if _is_dataclass(value):
        return _plain(_fields(value), what, path, depth_left - 1)
    raise NotSerializable(what, path, f"a value of type {type(value).__name__}")


def _is_dataclass(value: object) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _fields(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def _digits(value: int) -> str:
    try:
        return str(abs(value))
    except ValueError:
        return "9" * (MAX_INTEGER_DIGITS + 1)


def _loose(value: Any, depth: int) -> Any:
    if isinstance(value, Mapping) and depth < DEFAULT_DEPTH:
        return {_text(key): _loose(item, depth + 1) for key, item in value.items()}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, (list, tuple)) and depth < DEFAULT_DEPTH:
        return [_loose(item, depth + 1) for item in value]  # pyright: ignore[reportUnknownVariableType]
    try:
        return _plain(value, "", "$", DEFAULT_DEPTH)
    except Exception:  # noqa: BLE001  (the value's own `model_dump` may do anything)
        return _text(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        try:
            value = repr(value)
        except Exception as error:  # noqa: BLE001  (the repr of somebody else's object may do anything)
            value = f"<{type(value).__name__}: repr failed: {type(error).__name__}>"
    return value.encode(errors="backslashreplace").decode()
