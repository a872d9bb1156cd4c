"""Types as JSON: values in and out of the types that an author wrote in a signature.

Whoever has a resolved annotation gets a `Shape` for it: the loaders for payloads and results of workflows, the engine
for steps, signals and approvals. pydantic is imported only for types that need it, so a workflow without types starts
without it. Knows nothing about files or modules.
"""

from __future__ import annotations

import functools
import re
import typing
from collections.abc import Mapping, Sequence
from datetime import date, time
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from . import codec

if TYPE_CHECKING:
    from jsonschema import FormatChecker
    from pydantic import TypeAdapter, ValidationError

Problem = dict[str, str]
#: More than this many problems of one value are not listed.
PROBLEMS_SHOWN = 100
_MESSAGE_CHARACTERS = 500

#: Dates and times as RFC 3339 writes them. Whether there is such a day is for `datetime` to say.
_DATE = r"(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2})"
_TIME = r"(?P<time>[0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.[0-9]+)?"
_ZONE = r"(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
#: Without a zone, too: so pydantic writes and reads Python's plain times.
_FORMATS = {"date-time": f"{_DATE}[Tt]{_TIME}(?:{_ZONE})?", "date": _DATE, "time": f"{_TIME}(?:{_ZONE})?"}


class Shape(Protocol):
    """A type as JSON."""

    @property
    def schema(self) -> Mapping[str, Any]:
        """Its JSON Schema (2020-12)."""
        ...

    def load(self, value: Any) -> Any:
        """The typed value of some JSON.

        Raises:
            Misfit: with what does not fit, and where.
        """
        ...

    def dump(self, value: Any) -> Any:
        """A typed value as JSON.

        Raises:
            Misfit: with what does not fit, and where.
        """
        ...


class Misfit(Exception):
    """A value that does not fit its type. Callers make a public error of it that says what it was about."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(problems)
        self.problems = problems


def shape_of(annotation: Any, direction: Literal["payload", "result"]) -> Shape:
    """The shape of a payload or result type; anything goes for `Any`, a type variable or no annotation.

    Raises:
        TypeError: there is no JSON form of this type; says why.
    """
    if annotation in (Any, object) or isinstance(annotation, TypeVar):
        return _Open({})
    if annotation is NoneType and direction == "result":
        return _Open({"type": "null"})
    if _is_plain_object(annotation):
        return (_Object if direction == "payload" else _Open)({"type": "object"})
    return _Typed(annotation, direction)


def _is_plain_object(annotation: Any) -> bool:
    if annotation is dict or annotation is Mapping:
        return True
    return typing.get_origin(annotation) in (dict, Mapping) and typing.get_args(annotation) in (
        (str, Any),
        (str, object),
    )


def misfits(data: Any, schema: Mapping[str, Any], *, validator: Any = None) -> list[Problem]:
    """What of a value does not fit a JSON Schema (2020-12), each problem with its path. Formats are checked, too.

    Nothing fits a schema that cannot be used, which is then the problem. Nothing is fetched that it may refer to.
    `validator` is a class in the place of jsonschema's own.
    """
    import jsonschema  # only those who wait with a schema need it
    import referencing  # comes with jsonschema, which takes a registry of it

    try:
        kind: Any = validator or jsonschema.Draft202012Validator
        make_registry: Any = referencing.Registry
        checking = kind(schema, format_checker=_format_checker(), registry=make_registry())
        errors = sorted(checking.iter_errors(data), key=lambda error: error.json_path)
    except Exception as error:  # noqa: BLE001  (the schema is an author's; what it makes jsonschema raise has no limits)
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        return [{"path": "$", "message": f"the schema cannot be used: {reason}"[:_MESSAGE_CHARACTERS]}]
    return [
        {"path": error.json_path, "message": error.message[:_MESSAGE_CHARACTERS]} for error in errors[:PROBLEMS_SHOWN]
    ]


@functools.cache
def _format_checker() -> FormatChecker:
    """What jsonschema checks of formats by itself, and dates and times, for which it would want another package."""
    import jsonschema

    checker = jsonschema.FormatChecker(())
    checker.checkers = dict(jsonschema.Draft202012Validator.FORMAT_CHECKER.checkers)
    for name, pattern in _FORMATS.items():
        checker.checks(name, raises=ValueError)(functools.partial(_is_in_time, re.compile(pattern)))
    return checker


def _is_in_time(pattern: re.Pattern[str], value: object) -> bool:
    """Whether a date or a time is one. Formats say nothing about what is no text.

    Raises:
        ValueError: there is no such day, or no such time of day (a leap second is none in Python).
    """
    if not isinstance(value, str):
        return True
    found = pattern.fullmatch(value)
    if found is None:
        return False
    parts = found.groupdict()
    if "date" in parts:
        date.fromisoformat(parts["date"])
    if "time" in parts:
        time.fromisoformat(parts["time"])
    return True


def check_schema(schema: Mapping[str, Any]) -> None:
    """Refuse what is no JSON Schema.

    Raises:
        ValueError: saying where and why.
    """
    import jsonschema

    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise ValueError(
            f"schema=… is no JSON Schema: {error.json_path}: {error.message[:_MESSAGE_CHARACTERS]}"
        ) from error


class _Open:
    """Whatever it is, it is passed on."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self.schema = schema

    def load(self, value: Any) -> Any:
        return value

    def dump(self, value: Any) -> Any:
        return value


class _Object(_Open):
    """A JSON object with any content."""

    def load(self, value: Any) -> Any:
        if not isinstance(value, dict):
            raise Misfit([{"path": "$", "message": "Input should be an object"}])
        return value  # pyright: ignore[reportUnknownVariableType]


class _Typed:
    """Whatever pydantic makes of a type."""

    def __init__(self, annotation: Any, direction: Literal["payload", "result"]) -> None:
        from pydantic import TypeAdapter
        from pydantic.errors import PydanticUserError

        try:
            self._adapter: TypeAdapter[Any] = TypeAdapter(annotation)
            self.schema: Mapping[str, Any] = self._adapter.json_schema(
                by_alias=True, mode="validation" if direction == "payload" else "serialization"
            )
        except (PydanticUserError, NameError) as error:
            message = error.message if isinstance(error, PydanticUserError) else str(error)
            raise TypeError(message.partition("\n")[0]) from error

    def load(self, value: Any) -> Any:
        from pydantic import ValidationError

        try:
            # As JSON and not as Python values: a strict model, too, takes a date from a string and a tuple from a list.
            return self._adapter.validate_json(codec.encode(value))
        except ValidationError as error:
            raise Misfit(_problems(error, value)) from error
        except Exception as error:  # the author's validators may raise anything, and this payload made them
            raise Misfit([{"path": "$", "message": f"{type(error).__name__}: {error}"}]) from error

    def dump(self, value: Any) -> Any:
        from pydantic import ValidationError

        try:
            typed = self._adapter.validate_python(value, by_alias=True, by_name=True)
        except ValidationError as error:
            raise Misfit(_problems(error, value)) from error
        try:
            return self._adapter.dump_python(typed, mode="json", by_alias=True, warnings="error")
        except ValueError as error:  # pydantic's serialization error, and bytes that are no text
            raise Misfit([{"path": "$", "message": str(error).partition("\n")[0]}]) from error


def _problems(error: ValidationError, value: Any) -> list[Problem]:
    found = error.errors(include_url=False, include_context=False, include_input=False)
    problems = [
        {"path": _path(problem["loc"], value, is_missing=problem["type"] == "missing"), "message": problem["msg"]}
        for problem in found[:PROBLEMS_SHOWN]
    ]
    if len(found) > PROBLEMS_SHOWN:
        problems.append({"path": "$", "message": f"{len(found) - PROBLEMS_SHOWN} more problems"})
    return problems


def _path(location: Sequence[int | str], value: Any, *, is_missing: bool) -> str:
    """pydantic's location as a path into the JSON: what is no key there (the tag of a union, say) is left out."""
    path = "$"
    for number, part in enumerate(location, start=1):
        if isinstance(value, (list, tuple)) and isinstance(part, int) and part < len(value):  # pyright: ignore[reportUnknownArgumentType]
            path, value = f"{path}[{part}]", value[part]  # pyright: ignore[reportUnknownVariableType]
        elif isinstance(value, dict) and part in value:
            path, value = path + _key(part), value[part]  # pyright: ignore[reportUnknownVariableType]
        elif is_missing and number == len(location):
            path += _key(part)
    return path


def _key(part: int | str) -> str:
    return f".{part}" if isinstance(part, str) and part.isidentifier() else f"[{codec.encode(str(part)).decode()}]"
