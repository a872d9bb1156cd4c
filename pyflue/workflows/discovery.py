"""Which workflow files a project has, and by which names.

Called by the catalog. Walks the workflow folders and asks the loaders which files are theirs; opens nothing else and
imports nothing. A name is the file's place below its folder, without suffix, with dots: `orders/refund.py` is
`orders.refund`. Only names found here resolve, so no name of a request ever becomes a path.

Left out without a word: whatever starts with `_` or `.` (files and folders), and files that no loader claims. Left out
with a diagnostic: names that would not fit into a URL, links that lead out of the project, two files for one name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from ..errors import WorkflowInvalid
from ..settings import WORKFLOW_FOLDERS
from .dialect import Dialect, Level, Source

NAME_LIMIT = 128
_Claimed: TypeAlias = tuple[Path, tuple[Dialect, ...]]
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnostic:
    """Something about the workflow files that their author should know."""

    #: The file, from the project folder.
    path: str
    line: int | None = None
    column: int | None = None
    level: Level = Level.FATAL
    #: The number of its kind, in dialects that have them.
    code: int | None = None
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A name, and the file behind it. With `error` the file (or files) cannot be used, whatever is in it."""

    source: Source
    #: None if it is not clear whose file it is.
    dialect: Dialect | None
    kind: str
    error: WorkflowInvalid | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovery:
    """What one look at the workflow folders found."""

    found: dict[str, Found]
    diagnostics: tuple[Diagnostic, ...]
    #: Every folder that was read: where a new workflow file may turn up.
    folders: frozenset[Path]


def discover(
    root: Path,
    dialects: Sequence[Dialect],
    folders: Sequence[str] = WORKFLOW_FOLDERS,
    what: str = "workflow",
) -> Discovery:
    """Look through the workflow folders of a project. Folders named earlier win over later ones.

    `what` is the word for such files in messages: agent files are found in the same way.
    """
    walk = _Walk(root)
    found: dict[str, Found] = {}
    for folder in folders:
        here: dict[str, list[_Claimed]] = {}
        for path in walk.files(root / folder):
            claimants = _without_the_rest([dialect for dialect in dialects if _claims(dialect, path, walk)])
            if not claimants:
                continue
            place = path.relative_to(root / folder)
            parts = (*place.parts[:-1], place.stem)
            if problem := _name_problem(parts, what):
                walk.report(path, problem)
            else:
                here.setdefault(".".join(parts), []).append((path, claimants))
        for name, files in sorted(here.items()):
            if name in found:
                winner = shown_path(found[name].source.path, root)
                for path, _ in files:
                    walk.report(
                        path, f"{what.capitalize()} {name!r} is also in {winner}, which is the one that is used."
                    )
            else:
                found[name] = _choose(Source(name=name, path=files[0][0], root=root), files, what)
    return Discovery(found=found, diagnostics=tuple(walk.diagnostics), folders=frozenset(walk.folders))


def shown_path(path: Path, root: Path) -> str:
    """A path as messages show it: from the project folder, nothing in it that a terminal would obey."""
    text = (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()
    return text if text.isprintable() else ascii(text)[1:-1]


def _choose(source: Source, files: Sequence[_Claimed], what: str) -> Found:
    """The one file and the one loader behind a name, or what is in the way."""
    kind = ", ".join(dict.fromkeys(dialect.kind for _, claimants in files for dialect in claimants))
    (_, claimants), *others = files
    if others:
        paths = " and ".join(shown_path(path, source.root) for path, _ in others)
        problem = f"{paths} gives the same {what} name, {source.name!r}. Rename all but one; until then none is served."
    else:
        dialect, *rivals = claimants
        if not rivals:
            return Found(source=source, dialect=dialect, kind=kind)
        problem = f"more than one kind of {what} claims this file: {kind}."
    error = WorkflowInvalid(shown_path(source.path, source.root), problem)
    return Found(source=source, dialect=None, kind=kind, error=error)


def _without_the_rest(claimants: Sequence[Dialect]) -> tuple[Dialect, ...]:
    """Those who claim a file, unless they leave it to others who do."""
    first = tuple(dialect for dialect in claimants if not dialect.takes_the_rest)
    return first or tuple(claimants)


def _claims(dialect: Dialect, path: Path, walk: _Walk) -> bool:
    try:
        return dialect.loader.claims(path)
    except OSError:
        return False  # it went away, or cannot be read by us
    except Exception as error:  # noqa: BLE001  (a plug-in's code; it must not hide everybody's workflows)
        walk.report(path, f"The {dialect.kind} loader failed on it: {type(error).__name__}: {error}")
        return False


def _name_problem(parts: Sequence[str], what: str) -> str | None:
    name = ".".join(parts)
    if len(name) > NAME_LIMIT:
        return f"Its {what} name has {len(name)} characters; the limit is {NAME_LIMIT}."
    if not all(_PART.fullmatch(part) for part in parts):
        article = "an" if what[0] in "aeiou" else "a"
        return (
            f"{name!a} cannot be {article} {what} name. Folders and file start with a letter or digit and have only "
            "A-Z, a-z, 0-9, '_' and '-'; put helpers in a folder that starts with '_'."
        )
    return None


class _Walk:
    """One walk through the workflow folders, and what it met."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.diagnostics: list[Diagnostic] = []
        self.folders: set[Path] = set()

    def report(self, path: Path, message: str) -> None:
        diagnostic = Diagnostic(path=shown_path(path, self.root), message=message)
        if diagnostic not in self.diagnostics:
            self.diagnostics.append(diagnostic)

    def files(self, folder: Path) -> Iterator[Path]:
        """Regular files below a folder, in the order of their names."""
        if folder.is_dir() and self._stays_inside(folder):
            yield from self._below(folder, frozenset())

    def _below(self, folder: Path, above: frozenset[str]) -> Iterator[Path]:
        real = os.path.realpath(folder)
        if real in above:
            return  # a link to a folder around it
        try:
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            self.report(folder, f"The folder cannot be read: {error.strerror}.")
            return
        self.folders.add(folder)
        for entry in entries:
            path = folder / entry.name
            if entry.name.startswith(("_", ".")) or (entry.is_symlink() and not self._stays_inside(path)):
                continue
            if entry.is_dir():
                yield from self._below(path, above | {real})
            elif entry.is_file():
                yield path

    def _stays_inside(self, path: Path) -> bool:
        target = Path(os.path.realpath(path))
        if target.is_relative_to(self.root):
            return True
        self.report(path, "It is a link that leads out of the project and is not followed.")
        return False
