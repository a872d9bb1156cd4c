"""What steps return, as JSON and back: a step's value is the same object shape the first time and when it is replayed.

A function with a typed result (a pydantic model, a dataclass, a tuple …) gets its values rebuilt from JSON with that
type. For plain JSON types, or without an annotation, the value is what JSON makes of it. Called by `steps.py` and for
the schemas of signals and approvals; types are the business of `pyflue.typed`.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import types
import typing
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import NoneType
from typing import Any

from .. import codec
from ..codec import Raw
from ..errors import NotSerializable, ResultInvalid, TooLarge
from ..settings import Limits
from ..typed import Misfit, Shape, check_schema, shape_of

_PLAIN = frozenset({Any, object, NoneType, None, bool, int, float, str, list, dict})


@dataclass(frozen=True, slots=True)
class Facts:
    """What has to be known of a step's function."""

    is_async: bool
    is_generator: bool
    #: The shape of what it returns; None if that is plain JSON, or not said.
    shape: Shape | None


_known: weakref.WeakKeyDictionary[Any, Facts] = weakref.WeakKeyDictionary()


def store(value: Any, shape: Shape | None, step: str, limits: Limits) -> tuple[Raw, Any]:
    """A step's value as it is recorded, and as the workflow gets it.

    Raises:
        NotSerializable, ResultInvalid, TooLarge: naming the step and what is wrong with its value.
    """
    what = f"The result of step {step!r}"
    if shape is None:
        raw, value = codec.round_trip(value, what, max_depth=limits.json_depth)
    else:
        try:
            raw = codec.encode_value(shape.dump(value), what, max_depth=limits.json_depth)
            value = shape.load(codec.load(raw))
        except Misfit as misfit:
            raise _invalid(step, misfit) from misfit.__cause__
    size = len(memoryview(raw))
    if size > limits.payload_bytes:
        raise TooLarge(what, size, limits.payload_bytes, "limits.payload_bytes")
    return raw, value


def restore(raw: Raw | None, shape: Shape | None, step: str) -> Any:
    """A recorded value as the workflow gets it.

    Raises:
        ResultInvalid: the type has changed since, and the value no longer fits it.
    """
    value = codec.load(raw if raw is not None else codec.NULL)
    if shape is None:
        return value
    try:
        return shape.load(value)
    except Misfit as misfit:
        raise _invalid(step, misfit) from misfit.__cause__


def facts_of(function: Callable[..., Any]) -> Facts:
    """What has to be known of a step's function, found out once."""
    plain = unwrapped(function)
    try:
        return _known[plain]
    except (KeyError, TypeError):  # not seen before, or of a type that cannot be referred to weakly
        is_generator = inspect.isgeneratorfunction(plain) or inspect.isasyncgenfunction(plain)
        facts = Facts(_is_async(plain), is_generator, _find_shape(plain))
    with contextlib.suppress(TypeError):
        _known[plain] = facts
    return facts


def shape_of_schema(schema: Any) -> tuple[Shape | None, Mapping[str, Any] | None]:
    """What `schema=` means: a type gives a shape and its JSON Schema, a dict is a JSON Schema, None is neither.

    Raises:
        TypeError: there is no JSON form of the type; ValueError: it is no JSON Schema.
    """
    if schema is None:
        return None, None
    if isinstance(schema, Mapping):
        json_schema = typing.cast("Mapping[str, Any]", schema)
        check_schema(json_schema)
        return None, json_schema
    shape = shape_of(schema, "payload")
    return shape, shape.schema


def digest_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str | None:
    """A short name of a step's arguments by their content; None if there are none, or JSON cannot hold them."""
    if not args and not kwargs:
        return None
    try:
        return digest(codec.encode([args, kwargs]))
    except (TypeError, ValueError, RecursionError, OverflowError):
        pass  # something that is not JSON by itself, such as a model
    try:
        return digest(codec.encode_value([args, kwargs], "The arguments"))
    except NotSerializable:
        return None


def digest(raw: Raw | bytes) -> str:
    """A short name of some JSON by its content."""
    return hashlib.blake2b(bytes(memoryview(raw)), digest_size=16).hexdigest()


def _is_async(function: Any) -> bool:
    if inspect.iscoroutinefunction(function):
        return True
    call = None if inspect.isclass(function) else getattr(function, "__call__", None)  # noqa: B004  (the method itself)
    return inspect.iscoroutinefunction(call)


def _find_shape(function: Any) -> Shape | None:
    if not inspect.isroutine(function):
        function = type(function).__call__
    if "return" not in getattr(function, "__annotations__", {}):
        return None
    try:
        annotation = typing.get_type_hints(function, include_extras=True).get("return", Any)
        return None if _is_plain(annotation) else shape_of(annotation, "result")
    except (NameError, TypeError, AttributeError, SyntaxError):
        # A name that only a type checker imports, or a type without a JSON form: then the value has to be JSON itself.
        return None


def _is_plain(annotation: Any) -> bool:
    """Whether values of a type are what JSON gives back."""
    if isinstance(annotation, typing.TypeVar):
        return True
    origin = typing.get_origin(annotation)
    if origin is None:
        try:
            return annotation in _PLAIN
        except TypeError:
            return False
    if origin in (list, dict, typing.Union, types.UnionType):
        return all(_is_plain(argument) for argument in typing.get_args(annotation))
    return origin is typing.Literal


def unwrapped(function: Any) -> Any:
    """The plain function inside of partials and methods."""
    while isinstance(function, functools.partial):
        function = function.func  # pyright: ignore[reportUnknownMemberType,reportUnknownVariableType]
    return getattr(function, "__func__", function)  # pyright: ignore[reportUnknownArgumentType]


def _invalid(step: str, misfit: Misfit) -> ResultInvalid:
    return ResultInvalid(f"step {step!r}", misfit.problems)
