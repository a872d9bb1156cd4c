"""The dialects that are installed, found through their entry points.

Called by the catalog unless it is handed its dialects. The entry points are read from the metadata files directly:
importing `importlib.metadata` would take longer than finding and loading a workflow does. The format is the one of
packaging.python.org, "Entry points specification".
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

from .dialect import ENTRY_POINT_GROUP, Dialect
from .discovery import Diagnostic
from .python_file import KIND, python_dialect


def registered_dialects() -> tuple[list[Dialect], list[Diagnostic]]:
    """Every installed dialect, and what was wrong with those that could not be loaded."""
    # A checkout that is not installed has no entry points; our own kind is there all the same.
    dialects = {KIND: python_dialect()}
    diagnostics: list[Diagnostic] = []
    for name, target in _entry_points():
        if name == KIND:
            continue
        try:
            dialects[name] = _load(target)()
        except Exception as error:  # noqa: BLE001  (a plug-in's code; it must not take the others with it)
            message = f"The dialect {name!r} could not be loaded: {type(error).__name__}: {error}"
            diagnostics.append(Diagnostic(path=target, message=message))
    return list(dialects.values()), diagnostics


def _load(target: str) -> Callable[[], Dialect]:
    module, _, attribute = target.partition(":")
    return getattr(import_module(module), attribute)


def _entry_points() -> Iterator[tuple[str, str]]:
    """The name and target of each entry point of our group; the first on the path wins, as with imports."""
    seen: set[str] = set()
    for entry in sys.path:
        for file in sorted(Path(entry).glob("*.dist-info/entry_points.txt")):
            for name, target in _of_our_group(file):
                if name not in seen:
                    seen.add(name)
                    yield name, target


def _of_our_group(file: Path) -> Iterator[tuple[str, str]]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return
    group = ""
    for line in map(str.strip, text.splitlines() if ENTRY_POINT_GROUP in text else ()):
        if line.startswith("["):
            group = line.strip("[]").strip()
        elif group == ENTRY_POINT_GROUP and "=" in line and not line.startswith(("#", ";")):
            name, _, target = line.partition("=")
            yield name.strip(), target.partition("[")[0].strip()
