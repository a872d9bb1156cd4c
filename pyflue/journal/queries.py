"""SQL statements by name, read from `sql/<dialect>/queries.sql` once per process."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from pathlib import Path

# Read as plain files: importlib.resources would cost every start more than opening the journal does.
_FOLDER = Path(__file__).parent / "sql"
_HEADING = re.compile(r"^-- (\w+) --\n", re.MULTILINE)
_COMMENT = re.compile(r"^--.*\n", re.MULTILINE)


@functools.cache
def load_queries(dialect: str) -> Mapping[str, str]:
    """Every statement of a dialect, without the sentence above it."""
    text = (_FOLDER / dialect / "queries.sql").read_text(encoding="utf-8")
    parts = _HEADING.split(text)[1:]
    return {
        name: _COMMENT.sub("", body).strip().removesuffix(";")
        for name, body in zip(parts[::2], parts[1::2], strict=True)
    }


def load_migrations(dialect: str) -> list[str]:
    """The scripts that build the schema, in order: applying the n-th leads to schema version n."""
    return [file.read_text(encoding="utf-8") for file in sorted((_FOLDER / dialect / "migrations").glob("*.sql"))]
