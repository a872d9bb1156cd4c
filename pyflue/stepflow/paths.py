"""Paths into values: `field`, `$.field`, `$["field"]`, `$[0]`, `$.field[0].nested`.

Read once when a flow is read (`read_path`), resolved at every evaluation. Reference:
stepflow-ai/stepflow `crates/stepflow-core/src/values/json_path.rs`.

A **bare name** is one field, whatever it contains. The original writes it back as `$.` and the name, so that `a.b`
means something else after a flow was stored. Here a bare name that would change its meaning that way is the exact key
if the object has it, else it is read as the original reads it back, and it is written back as it is.
"""

from __future__ import annotations

import re
from typing import Any, Final, cast

from .exceptions import PathInvalid

#: What `Path.resolve` gives if there is nothing; unlike None, which is a value.
MISSING: Final = object()

# More digits than any list has items; also keeps `int` cheap.
_INDEX = re.compile(r"[0-9]{1,15}")
_NAME = re.compile(r"[^.\[]+")
_QUOTED = re.compile(r"""\[\s*(?:"(.*?)"|'(.*?)')\s*\]""", re.DOTALL)


class Path:
    """A path that was read. `parts` are field names and indexes; none of them means the whole value."""

    __slots__ = ("nested", "parts", "shown", "text")

    def __init__(
        self, parts: tuple[str | int, ...], text: str, shown: str, nested: tuple[str | int, ...] | None = None
    ) -> None:
        self.parts = parts
        #: The one spelling of this path in a flow that is written back; read again, it means the same.
        self.text = text
        #: As it stands in messages; always starts with `$`.
        self.shown = shown
        #: What a bare name means if the object does not have it as a key: (`a`, `b`) for `a.b`. None for other paths.
        self.nested = nested

    def resolve(self, value: Any) -> Any:
        """What is at the path in a value, or `MISSING`."""
        found = walk(value, self.parts)
        return walk(value, self.nested) if found is MISSING and self.nested is not None else found

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Path) and (self.parts, self.nested) == (other.parts, other.nested)

    def __hash__(self) -> int:
        return hash((self.parts, self.nested))

    def __repr__(self) -> str:
        return f"<Path {self.text}>"


#: The whole value.
WHOLE: Final = Path((), "$", "$")


def walk(value: Any, parts: tuple[str | int, ...]) -> Any:
    """Follow field names in objects and indexes in lists; `MISSING` where that is not possible."""
    for part in parts:
        if type(part) is str:
            if not isinstance(value, dict):
                return MISSING
            value = cast("dict[str, Any]", value).get(part, MISSING)
            if value is MISSING:
                return MISSING
        else:
            index = cast("int", part)
            if not isinstance(value, list) or index >= len(cast("list[Any]", value)):
                return MISSING
            value = cast("list[Any]", value)[index]
    return value


def read_path(text: Any) -> Path:
    """Read a path as it stands in a document; None is the whole value.

    Raises:
        PathInvalid: it is not a text, or cannot be read.
    """
    if text is None:
        return WHOLE
    if not isinstance(text, str):
        raise PathInvalid(f"A path is a text such as `$.field` or `$[0]`, not {_kind(text)}.")
    text = text.strip()
    if not text:
        return WHOLE
    if text[0] == "$":
        parts = _read_parts(text, 1)
        spelled = spell(parts)
        return Path(parts, spelled, spelled) if parts else WHOLE
    if _is_plain(text):
        return Path((text,), f"$.{text}", f"$.{text}")
    try:
        nested = _read_parts(f"$.{text}", 1)
    except PathInvalid:
        nested = None
    return Path((text,), text, f"$.{text}", nested or None)


def spell(parts: tuple[str | int, ...]) -> str:
    """The path of these parts as a text that reads back as them."""
    return "$" + "".join(map(_spell_part, parts))


def _spell_part(part: str | int) -> str:
    if isinstance(part, int):
        return f"[{part}]"
    if _is_plain(part):
        return f".{part}"
    # A name that would end a quotation of one kind came in by the other kind.
    double, single = f'["{part}"]', f"['{part}']"
    found = _QUOTED.match(double)
    return double if found is not None and found.end() == len(double) and _name_in(found) == part else single


def _name_in(found: re.Match[str]) -> str:
    return found[1] if found[1] is not None else found[2]


def _is_plain(name: str) -> bool:
    return name != "" and "." not in name and "[" not in name and name == name.strip()


def _read_parts(text: str, at: int) -> tuple[str | int, ...]:
    parts: list[str | int] = []
    while at < len(text):
        if text[at] == ".":
            name = _NAME.match(text, at + 1)
            if name is not None:  # `$.a.` and `$..a` have an empty name, which is passed over
                parts.append(name[0])
            at = at + 1 if name is None else name.end()
        elif text[at] == "[":
            quoted = _QUOTED.match(text, at)
            if quoted is not None:
                parts.append(_name_in(quoted))
                at = quoted.end()
                continue
            end = text.find("]", at)
            if end < 0:
                raise PathInvalid("Unclosed bracket '[' in path")
            index = text[at + 1 : end].strip()
            if not _INDEX.fullmatch(index):
                raise PathInvalid(f"Invalid index '{index[:100]}' in JSON path. Expected a number or a quoted string.")
            parts.append(int(index))
            at = end + 1
        else:
            raise PathInvalid(f"Invalid character '{text[at]}' in JSON path after $ or ']'. Expected '.' or '['")
    return tuple(parts)


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "a truth value"
    if isinstance(value, (int, float)):
        return "a number"
    return "a list" if isinstance(value, list) else "an object"
