"""What the language of flows raises.

LanguageError
├── DocumentMalformed       text that is no YAML or JSON, or not of the kind that is read here; has line and column
├── PathInvalid             a path that cannot be read
├── FlowMalformed           a value that does not have the shape of a flow; `problems` lists why
├── OverridesInvalid        overrides that do not fit the flow
├── MissingVariable         a variable that the flow requires was not given
└── NotContent              a value without a content id: NaN, a lone surrogate, something that is not JSON

They are plain exceptions, because flows also run without a project. Where they end a run of a project, `workflow.py`
turns them into `PyFlueError`s. What the users of the Python SDK catch is in `sdk/exceptions.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

#: Where something is in a document: the keys and indexes that lead to it.
Place: TypeAlias = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong with a document."""

    path: Place
    #: A sentence that says what is wrong and what to do.
    message: str
    #: Both from 1; None if the text is not known.
    line: int | None = None
    column: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON: `path` (`$.steps[0].input`), `message`, and `line` and `column` if they are known."""
        where = {} if self.line is None else {"line": self.line, "column": self.column}
        return {"path": place_text(self.path), "message": self.message, **where}

    def __str__(self) -> str:
        where = "" if self.line is None else f"line {self.line}, column {self.column}, "
        return f"{where}{place_text(self.path)}: {self.message}"


def place_text(path: Place) -> str:
    """A place as text: `$.steps[0].input`, `$.steps["a.b"]`."""
    return "$" + "".join(map(_part_text, path))


def _part_text(part: str | int) -> str:
    if isinstance(part, int):
        return f"[{part}]"
    return f'["{part}"]' if any(mark in part for mark in ".[]") else f".{part}"


class LanguageError(ValueError):
    """The base of what is raised here: something that an author or a caller wrote cannot be used."""


class DocumentMalformed(LanguageError):
    """Text that cannot be read as YAML or JSON. `line` and `column` count from 1."""

    def __init__(self, message: str, line: int, column: int) -> None:
        super().__init__(message, line, column)
        self.message = message
        self.line = line
        self.column = column

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}: {self.message}"


class PathInvalid(LanguageError):
    """A path that cannot be read."""


class FlowMalformed(LanguageError):
    """A value that does not have the shape of a flow."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(tuple(problems))
        self.problems = tuple(problems)

    def __str__(self) -> str:
        listed = "; ".join(map(str, self.problems[:5]))
        return f"{listed}; and {len(self.problems) - 5} more" if len(self.problems) > 5 else listed


class OverridesInvalid(LanguageError):
    """Overrides that do not fit the flow."""


class MissingVariable(LanguageError):
    """A variable that the flow requires was not given."""

    def __init__(self, name: str) -> None:
        super().__init__(f"Missing required variable: {name}")
        self.name = name


class NotContent(LanguageError):
    """A value that cannot be written as JSON, and so has no content id."""
