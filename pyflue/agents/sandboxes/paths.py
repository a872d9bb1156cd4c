"""Paths as a model writes them, taken apart.

Used by every sandbox before it looks at anything. The parts still hold their `..`: what that means depends on links,
so whoever walks the parts goes up by what it came through, and never above the top.
"""

from __future__ import annotations

import fnmatch
import posixpath
import re
from collections.abc import Sequence
from functools import lru_cache

from ...errors import SandboxRefused
from .port import WORKSPACE

#: PyFlue's own folder: as far as a sandbox's files go, it does not exist.
HIDDEN = ".pyflue"

_MOST_CHARACTERS = 4096
_MOST_PARTS = 100
_MOST_NAME_BYTES = 255
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|file:", re.IGNORECASE)


def refused(path: str, why: str, hint: str | None = None) -> SandboxRefused:
    """The refusal of a path, in words a model can act on."""
    shown = path if len(path) <= 200 else f"{path[:200]}…"
    return SandboxRefused(f"The path {shown!r} {why}.", hint=hint or f"Use a path inside of {WORKSPACE}.")


def escaping(path: str) -> SandboxRefused:
    return refused(path, "leads out of the sandbox")


def parts_of(path: str, *, cwd: str, tops: Sequence[str] = (WORKSPACE,)) -> tuple[str, list[str]]:
    """The top a path is below, and the names from there, `..` among them.

    Raises:
        SandboxRefused: it is no path inside of a sandbox, whatever may be there.
    """
    if not path:
        raise refused(path, "is empty")
    if len(path) > _MOST_CHARACTERS:
        raise refused(path, f"is longer than {_MOST_CHARACTERS} characters")
    if "\0" in path:
        raise refused(path, "holds a NUL character")
    if path.startswith("~"):
        raise refused(path, "begins with ~, which only a shell knows", f"Begin it with {WORKSPACE}/ instead.")
    if _SCHEME.match(path):
        raise refused(path, "is a URL, not a path", f"Give the path alone, such as {WORKSPACE}/notes.txt.")
    absolute = path if path.startswith("/") else f"{cwd}/{path}"
    if absolute.strip("/") in ("", "."):
        absolute = WORKSPACE  # `/` is where the workspace is all there is
    for top in tops:
        if absolute == top or absolute.startswith(f"{top}/"):
            names = [name for name in absolute[len(top) :].split("/") if name not in ("", ".")]
            break
    else:
        raise escaping(path)
    if len(names) > _MOST_PARTS:
        raise refused(path, f"has more than {_MOST_PARTS} parts")
    try:
        too_long = any(len(name.encode()) > _MOST_NAME_BYTES for name in names)
    except UnicodeEncodeError:
        raise refused(path, "is not Unicode text") from None
    if too_long:
        raise refused(path, f"has a name of more than {_MOST_NAME_BYTES} bytes in it")
    return top, names


def working_folder(cwd: str) -> str:
    """The path of the folder that a sandbox's relative paths shall count from."""
    top, names = parts_of(cwd, cwd=WORKSPACE)
    if ".." in names:
        raise escaping(cwd)
    return joined(top, names)


def is_hidden(name: str) -> bool:
    """Whether it is PyFlue's own folder, on file systems that do not tell cases apart, too."""
    return name.casefold() == HIDDEN


def pattern_parts(pattern: str, *, cwd: str) -> list[str]:
    """The parts of a glob pattern, as it counts from `cwd`."""
    if pattern.startswith("/"):
        if not pattern.startswith(f"{cwd}/"):
            raise refused(pattern, f"is a pattern that does not begin with {cwd}/", "Use a pattern such as **/*.py.")
        pattern = pattern[len(cwd) + 1 :]
    _, parts = parts_of(pattern, cwd=WORKSPACE)
    if ".." in parts:
        raise escaping(pattern)
    return parts


def fits(path: str, parts: Sequence[str]) -> bool:
    """Whether a pattern's parts fit a path below `cwd`. A name with a leading dot has to be asked for as such."""
    names = path.split("/")
    # Which parts of the pattern may come next, name by name: no pattern makes this slow.
    states = _closure({0}, parts)
    for name in names:
        following: set[int] = set()
        for state in states:
            if state == len(parts):
                continue
            part = parts[state]
            if part == "**":
                if not name.startswith("."):
                    following.add(state)
            elif (part.startswith(".") or not name.startswith(".")) and name_pattern(part).match(name):
                following.add(state + 1)
        if not following:
            return False
        states = _closure(following, parts)
    return len(parts) in states


def _closure(states: set[int], parts: Sequence[str]) -> set[int]:
    """The states, and those that a `**` that stands for nothing leads to."""
    closed = set(states)
    for state in sorted(states):
        while state < len(parts) and parts[state] == "**":
            state += 1
            closed.add(state)
    return closed


@lru_cache(maxsize=256)
def name_pattern(part: str) -> re.Pattern[str]:
    # `translate` makes every star possessive, so that matching takes linear time for each of them.
    return re.compile(fnmatch.translate(part))


def relative(path: str, cwd: str) -> str:
    """A path below `cwd` as it counts from there; another one as it is."""
    return path[len(cwd) + 1 :] if path.startswith(f"{cwd}/") else path


def joined(top: str, names: Sequence[str]) -> str:
    return posixpath.join(top, *names)
