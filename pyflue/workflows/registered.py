"""The dialects that are installed, found through their entry points. Called by the catalog unless it is handed its
dialects."""

from __future__ import annotations

from ..entry_points import entry_points, load
from .dialect import ENTRY_POINT_GROUP, Dialect
from .discovery import Diagnostic
from .python_file import KIND, python_dialect


def registered_dialects() -> tuple[list[Dialect], list[Diagnostic]]:
    """Every installed dialect, and what was wrong with those that could not be loaded."""
    # A checkout that is not installed has no entry points; our own kind is there all the same.
    dialects = {KIND: python_dialect()}
    diagnostics: list[Diagnostic] = []
    for name, target in entry_points(ENTRY_POINT_GROUP):
        if name == KIND:
            continue
        try:
            dialects[name] = load(target)()
        except Exception as error:  # noqa: BLE001  (a plug-in's code; it must not take the others with it)
            message = f"The dialect {name!r} could not be loaded: {type(error).__name__}: {error}"
            diagnostics.append(Diagnostic(path=target, message=message))
    return list(dialects.values()), diagnostics
