"""Inputs and outputs of components: values and JSON Schemas by what a function's signature says.

Called by `components.py`. msgspec does it for its structs, dataclasses, typed dictionaries and plain types; pydantic
for types of its own, which are known only if the component's module has imported it.
"""

from __future__ import annotations

import inspect
import sys
import typing
from typing import Any, Protocol

import msgspec
from msgspec import Raw

from .exceptions import InputValidationError

Schema = dict[str, Any]


class Shape(Protocol):
    """A type as JSON."""

    def load(self, raw: Raw) -> Any:
        """The value of written JSON.

        Raises:
            InputValidationError: it does not fit; says what and where.
        """
        ...

    def schema(self) -> Schema | None:
        """Its JSON Schema; None if nothing is said about it, or it has none."""
        ...


def input_shape(annotation: Any) -> Shape:
    """The shape of an input.

    Raises:
        TypeError: there is no JSON form of this type; says why.
    """
    if _is_of_pydantic(annotation):
        return _Pydantic(annotation, "validation")
    return _Typed(annotation)


def output_schema(annotation: Any) -> Schema | None:
    """The JSON Schema of what a component returns. Outputs are written as they are, so any type will do."""
    try:
        if _is_of_pydantic(annotation):
            return _Pydantic(annotation, "serialization").schema()
        return _Typed(annotation).schema()
    except Exception:  # noqa: BLE001  (only told; pydantic raises errors of many kinds for types without a schema)
        return None


class _Typed:
    """Whatever msgspec makes of a type."""

    def __init__(self, annotation: Any) -> None:
        self._annotation = annotation
        of_all = annotation is inspect.Parameter.empty or annotation is object
        self._decode = msgspec.json.Decoder(Any if of_all else annotation, dec_hook=_read_unknown).decode

    def load(self, raw: Raw) -> Any:
        try:
            return self._decode(raw)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise InputValidationError(str(error)) from error

    def schema(self) -> Schema | None:
        if self._annotation is inspect.Parameter.empty or self._annotation is object:
            return None
        try:
            return msgspec.json.schema(self._annotation, schema_hook=_schema_of_unknown)
        except (TypeError, NotImplementedError):
            return None


def _read_unknown(kind: type, value: Any) -> Any:
    if _is_of_pydantic(kind):
        return typing.cast("Any", kind).model_validate(value)
    raise TypeError(f"{kind.__qualname__} cannot be read from JSON")


def _schema_of_unknown(kind: type) -> Schema:
    if _is_of_pydantic(kind):
        return {"type": "object", "title": kind.__name__}
    raise NotImplementedError


class _Pydantic:
    """Whatever pydantic makes of a type."""

    def __init__(self, annotation: Any, mode: typing.Literal["validation", "serialization"]) -> None:
        from pydantic import TypeAdapter

        self._adapter: TypeAdapter[Any] = TypeAdapter(annotation)
        self._mode: typing.Literal["validation", "serialization"] = mode

    def load(self, raw: Raw) -> Any:
        from pydantic import ValidationError

        try:
            return self._adapter.validate_json(bytes(raw))
        except ValidationError as error:
            raise InputValidationError(_told(error.errors(include_url=False, include_input=False))) from error

    def schema(self) -> Schema | None:
        return self._adapter.json_schema(by_alias=True, mode=self._mode)


def _told(problems: list[Any]) -> str:
    return "; ".join(
        f"{problem['msg']} - at `${''.join(_spelled(part) for part in problem['loc'])}`" for problem in problems[:10]
    )


def _spelled(part: str | int) -> str:
    return f"[{part}]" if isinstance(part, int) else f".{part}"


def _is_of_pydantic(annotation: Any) -> bool:
    """Whether a model of pydantic is in a type, so that pydantic has to read it."""
    if "pydantic" not in sys.modules:
        return False
    if isinstance(annotation, type) and hasattr(annotation, "__pydantic_validator__"):
        return True
    return any(_is_of_pydantic(argument) for argument in typing.get_args(annotation))
