"""The dialect door: how a kind of workflow file joins PyFlue, ours and strangers' alike.

A dialect registers under the entry point group `pyflue.dialects`: the entry point is a function without arguments that
returns a `Dialect`. Discovery asks each loader "is this file yours?"; downstream of the loader nothing knows the kind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ..engine import Workflow

ENTRY_POINT_GROUP = "pyflue.dialects"


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


def _no_routes(services: Any) -> Sequence[Any]:
    return ()


def _no_commands() -> Sequence[Any]:
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """A kind of workflow file: its loader, and the HTTP routes and commands that its own users expect."""

    kind: str
    loader: Loader
    #: Starlette routes, made from the server's services.
    routes: Callable[[Any], Sequence[Any]] = field(default=_no_routes)
    #: click commands.
    commands: Callable[[], Sequence[Any]] = field(default=_no_commands)
    #: What makes workflows without a file (of definitions that come with a request), by names that no file then gets.
    reserved: Mapping[str, Callable[[], Workflow]] = field(default_factory=dict[str, Callable[[], Workflow]])
    #: Whether files that other kinds claim as well are theirs: Python files are, of whatever kind they are besides.
    takes_the_rest: bool = False
