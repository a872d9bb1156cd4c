"""Many rows in one statement.

Between two steps of a statement the writer thread gives up Python's lock, and may wait milliseconds for it while the
event loop is busy. Hundreds of rows, each a step of its own, would take as many turns; one statement takes one.

The statement stands in `queries.sql` for one row, whose values are written between `/*row*/` and `/*end*/`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

from .sqlite_file import Database

#: Statements for so many rows are kept prepared, the larger ones first; they are as long as apsw keeps any.
_PREPARED = (512, 256, 128, 64)
_LONGEST_PREPARED = 16_000
#: What is left is written by one that is made for it, kept only if it may soon be wanted again.
_OFTEN_WANTED = 4


class ManyRows:
    """A statement that is written for one row, and run for as many as there are."""

    def __init__(self, sql: str) -> None:
        self._before, rest = sql.split("/*row*/")
        self._row, self._after = rest.split("/*end*/")
        self._prepared = [
            (count, statement) for count in _PREPARED if len(statement := self._for(count)) < _LONGEST_PREPARED
        ]

    def write(self, db: Database, rows: Sequence[Sequence[Any]]) -> None:
        """Run it for the rows, in their order."""
        start, left = 0, len(rows)
        for count, statement in self._prepared:
            while left >= count:
                db.execute(statement, tuple(chain.from_iterable(rows[start : start + count])))
                start += count
                left -= count
        if left:
            values = tuple(chain.from_iterable(rows[start:] if start else rows))
            db.execute(self._for(left), values, can_cache=left <= _OFTEN_WANTED)

    def _for(self, count: int) -> str:
        return f"{self._before}{', '.join([self._row] * count)}{self._after}"
