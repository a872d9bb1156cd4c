"""Reads the input of a built-in component: fields of an object, each with the type that it has to have.

Small on purpose: these few shapes are known here, and a wrong one has to be told in a sentence that an author of a flow
can do something with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from ..plugins.port import ComponentFailed

_WORDS: Mapping[type, str] = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    list: "a list",
    dict: "an object",
}


class Fields:
    """The input of a component."""

    def __init__(self, component: str, value: Any) -> None:
        self._component = component
        if not isinstance(value, Mapping):
            raise self.refusal("", f"it has to be an object, and is {_shown(value)}")
        self._fields = cast("Mapping[str, Any]", value)

    def required(self, name: str, *types: type) -> Any:
        """A field that has to be there; any type if none are named.

        Raises:
            ComponentFailed: it is not there, or of another type.
        """
        if name not in self._fields:
            raise self.refusal(name, "it is missing")
        value = self._fields[name]
        if types and not _is_a(value, types):
            raise self._wrong(name, value, types)
        return value

    def optional(self, name: str, *types: type, default: Any = None) -> Any:
        """A field that may be left out, or be null.

        Raises:
            ComponentFailed: it is of another type.
        """
        value = self._fields.get(name)
        if value is None:
            return default
        if types and not _is_a(value, types):
            raise self._wrong(name, value, types)
        return value

    def refusal(self, name: str, why: str) -> ComponentFailed:
        """What to raise about a field. Trying again does not help."""
        where = f"field {name!r}: " if name else ""
        return ComponentFailed(f"Invalid input for {self._component}: {where}{why}.", is_retryable=False)

    def _wrong(self, name: str, value: Any, types: Sequence[type]) -> ComponentFailed:
        wanted = " or ".join(_WORDS[one] for one in types)
        return self.refusal(name, f"it has to be {wanted}, and is {_shown(value)}")


def _is_a(value: Any, types: Sequence[type]) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, (*types, int) if float in types else tuple(types))


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    return next((words for kind, words in _WORDS.items() if isinstance(value, kind)), type(value).__name__)
