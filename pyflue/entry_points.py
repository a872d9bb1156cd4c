"""What installed packages offer us, read from their metadata files.

Importing `importlib.metadata` takes as long as a whole `pyflue --help`, and longer than finding and loading a workflow.
The format is the one of packaging.python.org, "Entry points specification". Used by the catalog for dialects, and by
the command line for their commands.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

#: The group of kinds of workflow file.
DIALECTS = "pyflue.dialects"
_OURS = __name__.partition(".")[0]


def entry_points(group: str) -> Iterator[tuple[str, str]]:
    """The name and target of each entry point of a group; the first on the path wins, as with imports."""
    seen: set[str] = set()
    for entry in sys.path:
        for file in sorted(Path(entry).glob("*.dist-info/entry_points.txt")):
            for name, target in _of_group(group, file):
                if name not in seen:
                    seen.add(name)
                    yield name, target


def load(target: str) -> Any:
    """What an entry point's target is. Raises whatever its import raises."""
    module, _, attribute = target.partition(":")
    return getattr(import_module(module), attribute)


def is_ours(target: str) -> bool:
    """Whether a target is part of this package."""
    return target.partition(":")[0].partition(".")[0] == _OURS


def _of_group(group: str, file: Path) -> Iterator[tuple[str, str]]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return
    section = ""
    for line in map(str.strip, text.splitlines() if group in text else ()):
        if line.startswith("["):
            section = line.strip("[]").strip()
        elif section == group and "=" in line and not line.startswith(("#", ";")):
            name, _, target = line.partition("=")
            yield name.strip(), target.partition("[")[0].strip()
