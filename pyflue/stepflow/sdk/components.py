"""The components of a server: what their functions take, and which one a path means.

Called by `server.py` and `dispatcher.py`. A name may have parameters, `core/{*path}` or `{kind}/read`; they are handed
to the function by their names. Of several that fit a path the most specific one wins, whatever the order.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
import typing
from collections.abc import Callable, Mapping
from typing import Any, cast

import msgspec

from .exceptions import ComponentNotFoundError, InputValidationError
from .shapes import Schema, Shape, input_shape, output_schema

_PARAMETER = re.compile(r"\{(\*?)([A-Za-z_][A-Za-z0-9_]*)\}")


class ComponentEntry:
    """A component: a function and what it says of itself."""

    __slots__ = (
        "_input_schema",
        "_output_schema",
        "description",
        "expects_context",
        "function",
        "input_shape",
        "input_type",
        "is_async",
        "is_blocking",
        "name",
        "output_type",
        "path_types",
    )

    def __init__(
        self,
        name: str,
        function: Callable[..., Any],
        description: str | None,
        known: Mapping[str, Any] | None = None,
        *,
        is_blocking: bool = True,
    ) -> None:
        self.name = name
        self.function = function
        self.description = description
        parameters, self.output_type = _signature(name, function, known)
        in_path = [found[2] for found in _PARAMETER.finditer(name)]
        first = parameters[0] if parameters else None
        if first is None or first.kind in (first.KEYWORD_ONLY, first.VAR_KEYWORD) or first.name in in_path:
            raise TypeError(f"The function of component {name} must take the input as its first parameter.")
        others = parameters[1:]
        self.input_type: Any = first.annotation
        self.expects_context = any(other.name == "context" for other in others)
        self.path_types = _path_types(name, in_path, others)
        try:
            self.input_shape: Shape = input_shape(self.input_type)
        except Exception as error:  # pydantic raises errors of many kinds for types that it cannot read
            raise TypeError(f"The input of component {name} cannot be read from JSON: {error}") from error
        called = function if inspect.isroutine(function) else getattr(function, "__call__", function)  # noqa: B004
        self.is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called)
        #: Whether it needs a thread where there is an event loop.
        self.is_blocking = is_blocking and not self.is_async
        self._input_schema: Schema | msgspec.UnsetType | None = msgspec.UNSET
        self._output_schema: Schema | msgspec.UnsetType | None = msgspec.UNSET

    def input_schema(self) -> Schema | None:
        """The JSON Schema of its input; None if it takes anything."""
        if self._input_schema is msgspec.UNSET:
            self._input_schema = self.input_shape.schema()
        return self._input_schema

    def output_schema(self) -> Schema | None:
        """The JSON Schema of its output; None if it does not say."""
        if self._output_schema is msgspec.UNSET:
            known = self.output_type is not inspect.Parameter.empty
            self._output_schema = output_schema(self.output_type) if known else None
        return self._output_schema

    def with_schemas(self, input_schema: Schema | None, output_schema: Schema | None) -> ComponentEntry:
        """The same with schemas that are known from elsewhere."""
        self._input_schema, self._output_schema = input_schema, output_schema
        return self

    def info(self) -> dict[str, Any]:
        """What `components/list` tells of it."""
        info: dict[str, Any] = {
            "component": self.name,
            "description": self.description,
            "input_schema": self.input_schema(),
            "output_schema": self.output_schema(),
        }
        return {field: value for field, value in info.items() if value is not None}


class Components:
    """All components of a server."""

    def __init__(self) -> None:
        self.entries: dict[str, ComponentEntry] = {}
        self._patterns: list[tuple[tuple[int, ...], re.Pattern[str], ComponentEntry]] = []

    def add(self, entry: ComponentEntry) -> None:
        """
        Raises:
            ValueError: there is one of this name, or the name cannot be read.
        """
        if entry.name in self.entries:
            raise ValueError(f"There are two components of the name {entry.name!r}; give one of them `name=`.")
        if "{" in entry.name or "}" in entry.name:
            rank, pattern = _pattern(entry.name)
            if any(_unnamed(pattern) == _unnamed(other) for _, other, _ in self._patterns):
                raise ValueError(f"Component {entry.name!r} means the same paths as another one.")
            self._patterns.append((rank, pattern, entry))
            self._patterns.sort(key=lambda found: found[0])
        self.entries[entry.name] = entry

    def find(self, path: str) -> tuple[ComponentEntry, dict[str, str]]:
        """The component that a path means, and the parameters in the path.

        Raises:
            ComponentNotFoundError
        """
        entry = self.entries.get(path)
        if entry is not None:
            return entry, {}
        for _, pattern, found in self._patterns:
            match = pattern.fullmatch(path)
            if match is not None:
                return found, match.groupdict()
        raise ComponentNotFoundError(path)


def component_name(name: str | None, function: Callable[..., Any]) -> str:
    """The name of a component: what was given, or that of its function; with a leading `/`."""
    found = name or getattr(function, "__name__", None)
    if not found or not isinstance(found, str):
        raise TypeError("A component whose function has no name needs `name=`.")
    return found if found.startswith("/") else f"/{found}"


def description_of(function: Callable[..., Any]) -> str | None:
    """The docstring of a function."""
    text = getattr(function, "__doc__", None)
    is_own = inspect.isroutine(function) or "__doc__" in getattr(function, "__dict__", {})
    return inspect.cleandoc(text) or None if is_own and text else None


def path_values(entry: ComponentEntry, found: Mapping[str, str]) -> dict[str, Any]:
    """The parameters in a path as the function wants them.

    Raises:
        InputValidationError: one does not fit its type.
    """
    values: dict[str, Any] = {}
    for name, text in found.items():
        kind = entry.path_types.get(name)
        if kind is None:
            continue
        try:
            values[name] = text if kind is str else msgspec.convert(text, kind, strict=False)
        except msgspec.ValidationError as error:
            raise InputValidationError(f"{error} - in the path, for `{name}`") from error
    return values


def _signature(
    name: str, function: Callable[..., Any], known: Mapping[str, Any] | None
) -> tuple[list[inspect.Parameter], Any]:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise TypeError(f"Component {name}: {error}") from error
    parameters = list(signature.parameters.values())
    if not any(isinstance(found, str) for found in (signature.return_annotation, *(p.annotation for p in parameters))):
        return parameters, signature.return_annotation
    # Annotations are texts (`from __future__ import annotations`); classes may be local to the function around.
    while isinstance(function, functools.partial):
        function = cast("functools.partial[Any]", function).func
    hinted: Any = inspect.unwrap(function) if inspect.isroutine(function) else type(function).__call__
    try:
        hints = typing.get_type_hints(hinted, localns=dict(known or {}), include_extras=True)
    except NameError as error:
        raise TypeError(f"Component {name}: {error}; define it before the component, or import it.") from error
    parameters = [found.replace(annotation=hints.get(found.name, found.annotation)) for found in parameters]
    return parameters, hints.get("return", signature.return_annotation)


def _path_types(name: str, in_path: list[str], others: list[inspect.Parameter]) -> dict[str, Any]:
    """The types of the parameters in the path that the function takes. All else must have a default."""
    if "context" in in_path:
        raise TypeError(f"Component {name}: a parameter in the path cannot be called `context`.")
    takes_all = any(other.kind is other.VAR_KEYWORD for other in others)
    types: dict[str, Any] = dict.fromkeys(in_path, str) if takes_all else {}
    for other in others:
        if other.name == "context" or other.kind in (other.VAR_KEYWORD, other.VAR_POSITIONAL):
            continue
        if other.name in in_path:
            types[other.name] = str if other.annotation is other.empty else other.annotation
        elif other.default is other.empty:
            raise TypeError(
                f"Component {name} takes `{other.name}`, which nothing gives it: there are the input, `context`, and "
                "parameters in the name (`{name}`)."
            )
    return types


def _pattern(name: str) -> tuple[tuple[int, ...], re.Pattern[str]]:
    """A name with parameters as a pattern, and how it is ranked: literal segments before `{x}` before `{*x}`."""
    seen: set[str] = set()
    rank: list[int] = []
    written: list[str] = []
    segments = name.split("/")[1:]
    for position, segment in enumerate(segments):
        found = _PARAMETER.fullmatch(segment)
        if found is None:
            if "{" in segment or "}" in segment:
                raise ValueError(f"Component {name!r}: {segment!r} must be a name, `{{name}}` or `{{*name}}`.")
            rank.append(0)
            written.append(re.escape(segment))
            continue
        is_rest, parameter = found[1] == "*", found[2]
        if parameter in seen or (is_rest and position != len(segments) - 1):
            raise ValueError(
                f"Component {name!r}: each parameter has a name of its own, and `{{*{parameter}}}` can only be last."
            )
        seen.add(parameter)
        rank.append(2 if is_rest else 1)
        written.append(f"(?P<{parameter}>{'.+' if is_rest else '[^/]+'})")
    return tuple(rank), re.compile("/" + "/".join(written), re.DOTALL)


def _unnamed(pattern: re.Pattern[str]) -> str:
    return re.sub(r"\?P<\w+>", "", pattern.pattern)


def names_around(depth: int) -> Mapping[str, Any]:
    """The local names where a decorator is used: a component's types may be defined in a function."""
    frame = sys._getframe(depth)  # pyright: ignore[reportPrivateUsage]  (what `typing.NamedTuple` and enum do, too)
    return frame.f_locals
