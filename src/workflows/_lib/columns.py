"""What is in a column of text cells: its type, how much is missing, its range, and what lies far outside it.

`profile_csv` feeds each cell to the `ColumnFacts` of its column. However many cells come, at most 10,000 hashes of
distinct values and 10,000 numbers are kept; beyond that `distinct` is a lower bound and the quartiles are those of a
fair sample.
"""

from __future__ import annotations

import heapq
import math
import random
import re
import statistics
from collections import Counter
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

Kind = Literal["integer", "number", "boolean", "date", "text", "empty"]

_MISSING = {"", "-", "?", "n/a", "na", "nan", "nil", "none", "null"}
_BOOLEANS = {"true", "false", "yes", "no"}
# Digits after a leading zero, or more than 15 of them, are a code (a postal code, an account), not a number.
_NUMBER = re.compile(r"[+-]?((0|[1-9]\d{0,14})(\.\d*)?|\.\d+)(e[+-]?\d{1,3})?", re.ASCII | re.IGNORECASE)
_DATE = re.compile(r"\d{4}-\d\d-\d\d([T ].{4,30})?", re.ASCII)

_KEPT = 10_000
#: Misfits, and outliers at either end, that are listed.
_SHOWN = 5
#: Share of a column's values that must be of a kind for the column to be of it.
_FITTING = 0.9


class Column(BaseModel):
    """What is in one column. Minimum, maximum and mean are of the values that fit the column's type."""

    name: str
    type: Kind
    missing: int
    distinct: int
    distinct_is_exact: bool
    minimum: int | float | str | None
    maximum: int | float | str | None
    mean: float | None
    outliers: dict[int, float] = Field(
        description="Line and value of numbers more than 1.5 interquartile ranges outside the quartiles."
    )
    misfits: list[str] = Field(description="Some values that are not of the column's type.")


class ColumnFacts:
    """What has been seen of one column so far."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._missing = 0
        self._kinds: Counter[Kind] = Counter()
        self._examples: dict[Kind, list[str]] = {}
        self._hashes: set[int] = set()
        self._numbers = _Numbers()
        self._dates: tuple[str, str] | None = None

    def add(self, line: int, value: str) -> None:
        if value.lower() in _MISSING:
            self._missing += 1
            return
        kind = _kind(value)
        self._kinds[kind] += 1
        if len(self._hashes) < _KEPT:
            self._hashes.add(hash(value))
        examples = self._examples.setdefault(kind, [])
        if len(examples) < _SHOWN:
            examples.append(value[:80])
        if kind in ("integer", "number"):
            self._numbers.add(line, float(value))
        elif kind == "date":
            first, last = self._dates or (value, value)
            self._dates = min(first, value), max(last, value)

    def describe(self) -> Column:
        kind, fitting = self._type()
        minimum, maximum = self._range(kind)
        is_numeric = kind in ("integer", "number")
        return Column(
            name=self.name,
            type=kind,
            missing=self._missing,
            distinct=len(self._hashes),
            distinct_is_exact=len(self._hashes) < _KEPT,
            minimum=minimum,
            maximum=maximum,
            mean=float(f"{self._numbers.mean:.10g}") if is_numeric else None,
            outliers=self._numbers.outliers() if is_numeric else {},
            misfits=[value for seen, values in self._examples.items() if seen not in fitting for value in values],
        )

    def _type(self) -> tuple[Kind, set[Kind]]:
        """The column's type, and the kinds of value that are of it."""
        present = self._kinds.total()
        if not present:
            return "empty", set()
        enough = present * _FITTING
        if self._kinds["integer"] + self._kinds["number"] >= enough:
            return "number" if self._kinds["number"] else "integer", {"integer", "number"}
        for kind in ("boolean", "date"):
            if self._kinds[kind] >= enough:
                return kind, {kind}
        return "text", {"integer", "number", "boolean", "date", "text"}

    def _range(self, kind: Kind) -> tuple[int | float | str | None, int | float | str | None]:
        match kind:
            case "integer":
                return int(self._numbers.minimum), int(self._numbers.maximum)
            case "number":
                return self._numbers.minimum, self._numbers.maximum
            case "date":
                return self._dates or (None, None)
            case _:
                return None, None


class _Numbers:
    """The numbers of a column: exact extremes and mean, and a fair sample for the quartiles."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = 0.0
        self.minimum = math.inf
        self.maximum = -math.inf
        self._sample: list[float] = []
        self._random = random.Random(0)  # noqa: S311  (no secret: a repeated run must draw the same sample)
        self._lowest: list[tuple[float, int]] = []
        self._highest: list[tuple[float, int]] = []

    def add(self, line: int, value: float) -> None:
        self.count += 1
        self.mean += (value - self.mean) / self.count
        self.minimum = min(self.minimum, value)
        self.maximum = max(self.maximum, value)
        _keep_greatest(self._highest, value, line)
        _keep_greatest(self._lowest, -value, line)
        if len(self._sample) < _KEPT:
            self._sample.append(value)
        elif (place := self._random.randrange(self.count)) < _KEPT:
            self._sample[place] = value

    def outliers(self) -> dict[int, float]:
        """Line and value of the numbers farthest outside the quartiles, the smallest first."""
        if self.count < 4:
            return {}
        first, _, third = statistics.quantiles(self._sample, n=4, method="inclusive")
        reach = 1.5 * (third - first)
        if reach == 0:  # half of the values are the same: any other would count as far away
            return {}
        low = [(-value, line) for value, line in self._lowest if -value < first - reach]
        high = [(value, line) for value, line in self._highest if value > third + reach]
        return {line: value for value, line in sorted(low + high)}


def _keep_greatest(heap: list[tuple[float, int]], value: float, line: int) -> None:
    if len(heap) < _SHOWN:
        heapq.heappush(heap, (value, line))
    elif value > heap[0][0]:
        heapq.heapreplace(heap, (value, line))


def _kind(value: str) -> Kind:
    if _NUMBER.fullmatch(value):
        if value.lstrip("+-").isdigit():
            return "integer"
        return "number" if math.isfinite(float(value)) else "text"
    if value.lower() in _BOOLEANS:
        return "boolean"
    if _DATE.fullmatch(value):
        try:
            datetime.fromisoformat(value)
        except ValueError:
            return "text"
        return "date"
    return "text"
