"""Checks that all definitions share: unknown fields, wrong types, names given twice.

Called by the modules that agents are defined with. Every refusal is an `AgentInvalid` whose text names the thing, the
field, the value and what is allowed instead.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

from ..errors import AgentInvalid

#: What a model may call something by; no provider allows more.
_CALL_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_AGENT_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}", re.ASCII)
_SHOWN_CHARACTERS = 200


def shown(value: object) -> str:
    """A value as messages show it: its repr, of bounded length."""
    try:
        text = repr(value)
    except Exception as error:  # noqa: BLE001  (the repr of somebody else's object may do anything)
        text = f"<{type(value).__name__}: repr failed: {type(error).__name__}>"
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"


def refuse(what: str, field: str, value: object, allowed: str) -> NoReturn:
    raise AgentInvalid(f"{what}: {field} is {shown(value)}; {allowed}.")


def refuse_unknown(what: str, kind: str, given: Iterable[Any], known: Sequence[str]) -> None:
    """Refuse a field that there is not. `kind` says what kind of field, such as `agent profile`."""
    for name in given:
        if not isinstance(name, str) or name not in known:
            raise AgentInvalid(f"{what}: unknown {kind} field {shown(name)}.", hint=meant(name, known))


def meant(name: object, known: Iterable[str]) -> str:
    """What a wrong name was probably meant to be, and what there is."""
    names = list(known)
    close = difflib.get_close_matches(str(name), names, n=1)
    listed = f"Known are: {', '.join(names) or '(none)'}."
    return f"Did you mean {close[0]!r}? {listed}" if close else listed


def text(what: str, field: str, value: Any) -> str:
    """A string that says something."""
    if not isinstance(value, str) or not value.strip():
        refuse(what, field, value, "it must be a string that is not empty")
    return value


def name(what: str, field: str, value: Any) -> str:
    """The name of an agent, profile, skill or role."""
    if not isinstance(value, str) or not _AGENT_NAME.fullmatch(value):
        refuse(what, field, value, "a name is a letter, then letters, digits, '_' and '-', 64 characters at most")
    return value


def call_name(what: str, value: Any) -> str:
    """The name of a tool or command."""
    if not isinstance(value, str) or not _CALL_NAME.fullmatch(value):
        refuse(what, "name", value, "a name has 1 to 64 letters, digits, '_' and '-'")
    return value


def truth(what: str, field: str, value: Any) -> bool:
    if not isinstance(value, bool):
        refuse(what, field, value, "it must be True or False")
    return value


def whole(what: str, field: str, value: Any, *, least: int = 0) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        refuse(what, field, value, f"it must be a whole number, {least} or more")
    return value


def number(what: str, field: str, value: Any) -> float:
    """A number above 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
        refuse(what, field, value, "it must be a number above 0")
    return float(value)


def mapping(what: str, field: str, value: Any) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        refuse(what, field, value, "it must be a mapping, such as a dict")
    return value  # pyright: ignore[reportUnknownVariableType]


def fields(value: Any) -> Mapping[str, Any] | None:
    """The fields that somebody wrote as a mapping; None if it is no mapping."""
    return value if isinstance(value, Mapping) else None  # pyright: ignore[reportUnknownVariableType]


def items(what: str, field: str, value: Any) -> list[Any]:
    """The items of a list, tuple or other iterable; a string is none."""
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        refuse(what, field, value, "it must be a list")  # pyright: ignore[reportUnknownArgumentType]
    return list(value)  # pyright: ignore[reportUnknownVariableType,reportUnknownArgumentType]


def refuse_duplicates(what: str, kind: str, names: Iterable[str]) -> None:
    """Refuse a name given twice. `kind` is a word such as `tool`."""
    seen: set[str] = set()
    for each in names:
        if each in seen:
            raise AgentInvalid(f"{what}: duplicate {kind} name {each!r}. Rename one of the two.")
        seen.add(each)
