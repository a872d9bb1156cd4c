"""Files into workflows: discovery, the catalog, the Python kind, and the door for further kinds.

`watch` is imported from its own module by those who need it: it brings `watchfiles` with it.
"""

from __future__ import annotations

from .catalog import Catalog, Entry, ReadsOtherFiles
from .dialect import ENTRY_POINT_GROUP, Dialect, Finding, HasFindings, Level, Loader, Source, TokenScope
from .discovery import Diagnostic
from .python_file import python_dialect

__all__ = [
    "ENTRY_POINT_GROUP",
    "Catalog",
    "Diagnostic",
    "Dialect",
    "Entry",
    "Finding",
    "HasFindings",
    "Level",
    "Loader",
    "ReadsOtherFiles",
    "Source",
    "TokenScope",
    "python_dialect",
]
