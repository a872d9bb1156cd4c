"""The dialect door: how a kind of workflow file joins PyFlue, ours and strangers' alike.

A dialect registers under the entry point group `pyflue.dialects`: the entry point is a function without arguments that
returns a `Dialect`. Discovery asks each loader "is this file yours?"; downstream of the loader nothing knows the kind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

from ..engine import Workflow
from ..entry_points import DIALECTS

ENTRY_POINT_GROUP = DIALECTS

#: What a token may do: start work, look, everything.
TokenScope: TypeAlias = Literal["run", "read", "admin"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A workflow file that discovery found."""

    name: str
    path: Path
    #: The project folder, importable for the file's own imports.
    root: Path


class Loader(Protocol):
    """Turns one kind of file into a `Workflow`. Loading runs no user steps."""

    def claims(self, path: Path) -> bool:
        """Whether the file is of this kind: its suffix, and for shared suffixes a look at its first keys."""
        ...

    def load(self, source: Source) -> Workflow:
        """Load the file as it is now. Called in a worker thread, under a deadline.

        Raises:
            WorkflowInvalid: with file, line and what is wrong.
        """
        ...


class Level(StrEnum):
    """How bad a finding is."""

    FATAL = "fatal"  #: the file cannot be used
    ERROR = "error"  #: it will fail where this is reached
    WARNING = "warning"  #: it may not do what was meant


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something in a file that its author should look at. Lines and columns count from 1."""

    message: str
    level: Level = Level.WARNING
    line: int | None = None
    column: int | None = None
    #: The number of its kind, in dialects that have them.
    code: int | None = None


@runtime_checkable
class HasFindings(Protocol):
    """What a workflow has besides, if its file can be used and its author should look at something all the same."""

    @property
    def findings(self) -> Sequence[Finding]:
        """In the order of the file."""
        ...


def _no_routes(services: Any) -> Sequence[Any]:
    return ()


def _no_scope(method: str, path: str) -> TokenScope | None:
    return None


def _no_operations() -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
    return {}


def _no_commands() -> Sequence[Any]:
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """A kind of workflow file: its loader, and the HTTP routes and commands that its own users expect."""

    kind: str
    loader: Loader
    #: Starlette routes, made from the server's services.
    routes: Callable[[Any], Sequence[Any]] = field(default=_no_routes)
    #: The scope that a token needs for a method and a path of `routes`. None leaves it to the server, for which what is
    #: no `GET` needs `admin`.
    scope_of: Callable[[str, str], TokenScope | None] = field(default=_no_scope)
    #: What the OpenAPI document says of `routes`: by path and by method in lower case, as OpenAPI has it. The server's
    #: own refusals are added.
    operations: Callable[[], Mapping[str, Mapping[str, Mapping[str, Any]]]] = field(default=_no_operations)
    #: click commands.
    commands: Callable[[], Sequence[Any]] = field(default=_no_commands)
    #: What makes workflows without a file (of definitions that come with a request), by names that no file then gets.
    reserved: Mapping[str, Callable[[], Workflow]] = field(default_factory=dict[str, Callable[[], Workflow]])
    #: Whether files that other kinds claim as well are theirs: Python files are, of whatever kind they are besides.
    takes_the_rest: bool = False
