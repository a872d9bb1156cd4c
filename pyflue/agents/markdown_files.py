"""Markdown files with front matter: found below a folder, and read with care.

Called by `skills`, `roles` and `instructions`. The text may come from anywhere (a cloned project, a sandbox a model
has written to), so the front matter is read by a YAML loader that makes no objects, follows no alias, takes no key
twice, and gives back plain JSON values only. Links that lead out of the project are not followed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import codec
from ..errors import AgentInvalid, NotSerializable

SUFFIXES = (".md", ".markdown")
LIMIT_BYTES = 1024**2
_FRONT_MATTER_CHARACTERS = 64 * 1024
_FENCE = "---"


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkdownText:
    """What stands between the fences, and the text below."""

    fields: dict[str, Any]
    body: str


def find_markdown(folder: Path, root: Path) -> Iterator[Path]:
    """Markdown files below a folder, in the order of their names. Hidden ones are left out, `SKILL.md` comes first."""
    root = Path(os.path.realpath(root))
    yield from _below(folder, root, frozenset())


def _below(folder: Path, root: Path, above: frozenset[str]) -> Iterator[Path]:
    real = os.path.realpath(folder)
    if real in above or not Path(real).is_relative_to(root):
        return
    try:
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError:
        return  # there is none, or it is not ours to read
    for entry in entries:
        path = folder / entry.name
        if entry.name.startswith("."):
            continue
        if entry.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(root):
            continue
        if entry.is_dir():
            yield from _below(path, root, above | {real})
        elif entry.is_file() and path.suffix.lower() in SUFFIXES:
            yield path


def inside(root: Path, path: str | Path, what: str) -> Path:
    """A path of the project, links followed.

    Raises:
        AgentInvalid: it leads out of the project.
    """
    real_root = Path(os.path.realpath(root))
    try:
        place = Path(os.path.realpath(real_root / path))
    except ValueError as error:  # a null character
        raise AgentInvalid(f"{what}: {str(path)!a} is no path.") from error
    if not place.is_relative_to(real_root):
        raise AgentInvalid(f"{what}: {str(path)!a} leads out of the project.")
    return place


def read_text(path: Path, shown: str) -> str:
    """The text of a file.

    Raises:
        FileNotFoundError: there is none.
        AgentInvalid: it is too large, not text, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            data = file.read(LIMIT_BYTES + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise AgentInvalid(f"{shown}: the file cannot be read: {error.strerror}.") from error
    if len(data) > LIMIT_BYTES:
        raise AgentInvalid(f"{shown}: the file is larger than {LIMIT_BYTES:,} bytes.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise AgentInvalid(f"{shown}: the file is not UTF-8 (byte {error.start}).") from error


def read_listed(path: Path, shown: str) -> str | None:
    """As `read_text`; None if the file has gone since somebody saw it."""
    try:
        return read_text(path, shown)
    except FileNotFoundError:
        return None


def split_front_matter(content: str, shown: str) -> MarkdownText:
    """Take a file's text apart. One without front matter is all body.

    Raises:
        AgentInvalid: the front matter is not YAML of the plain kind.
    """
    lines = content.splitlines(keepends=True)
    if not lines or lines[0].rstrip() != _FENCE:
        return MarkdownText(fields={}, body=content.strip())
    for number, line in enumerate(lines[1:], start=1):
        if line.rstrip() == _FENCE:
            fields = _read_yaml("".join(lines[1:number]), shown)
            return MarkdownText(fields=fields, body="".join(lines[number + 1 :]).strip())
    raise AgentInvalid(f"{shown}: its front matter has no end; write a line '---' below it.")


def _read_yaml(source: str, shown: str) -> dict[str, Any]:
    if len(source) > _FRONT_MATTER_CHARACTERS:
        raise AgentInvalid(f"{shown}: its front matter has more than {_FRONT_MATTER_CHARACTERS:,} characters.")
    import yaml  # only projects that have skills or roles need it

    from .guarded_yaml import GuardedLoader

    try:
        # A SafeLoader with further limits: it makes nothing but plain values.
        value = yaml.load(source, Loader=GuardedLoader)  # noqa: S506
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise AgentInvalid(f"{shown}: its front matter must be lines of the form 'key: value'.")
        codec.encode_value(value, "The front matter")
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f" in line {mark.line + 2}"
        problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise AgentInvalid(f"{shown}: its front matter is not YAML{where}: {problem}.") from error
    except NotSerializable as error:
        raise AgentInvalid(
            f"{shown}: its front matter holds something that is not plain text, numbers and lists: {error}"
        ) from error
    except (RecursionError, ValueError, OverflowError) as error:
        if isinstance(error, AgentInvalid):
            raise
        raise AgentInvalid(
            f"{shown}: its front matter is nested too deep, or holds a number or date that is none."
        ) from error
    return value  # pyright: ignore[reportUnknownVariableType]
