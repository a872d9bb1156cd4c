"""Describe a CSV file: for each column its type, missing and distinct values, minimum, maximum, mean and outliers.

Name a file of the project, `{"path": "examples/data/deliveries.csv"}`, or send the text, `{"text": "a,b\\n1,2"}`.
It is read once, row by row: what is kept in memory depends on the number of columns, not of rows. Rows that do not fit
the header are left out and reported.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import chain, islice
from typing import TextIO

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pyflue import FlueContext, PyFlueError
from workflows._lib.columns import Column, ColumnFacts
from workflows._lib.project_files import project_file

_DELIMITERS = ",;\t|"
_SNIFFED_LINES = 50
_LONGEST_LINE = 1024 * 1024
_MOST_COLUMNS = 1000
#: Bad rows that are listed.
_SHOWN = 5
_ROWS_PER_PROGRESS = 5000


class Source(BaseModel):
    """What to describe: a file of the project or a text."""

    model_config = ConfigDict(extra="forbid")

    path: str | None = Field(default=None, min_length=1, description="A file, relative to the project folder.")
    text: str | None = Field(default=None, description="The CSV text itself, instead of a path.")
    delimiter: str | None = Field(default=None, min_length=1, max_length=1, description="Found out if not given.")
    has_header: bool = Field(default=True, description="Whether the first row names the columns.")

    @model_validator(mode="after")
    def _one_of_both(self) -> Source:
        if (self.path is None) == (self.text is None):
            raise ValueError("give either path or text")
        return self


class Profile(BaseModel):
    """The description of a CSV file."""

    rows: int
    delimiter: str
    columns: list[Column]
    bad_row_count: int
    bad_rows: dict[int, str] = Field(description="Line and problem of the first of them.")


def run(ctx: FlueContext[Source]) -> Profile:
    """Describe a CSV file or text, column by column."""
    source = ctx.payload
    with _open(source) as file:
        lines = _Lines(file)
        first_lines = list(islice(lines, _SNIFFED_LINES))
        delimiter = source.delimiter or _sniff(first_lines)
        rows = _rows(chain(first_lines, lines), delimiter)
        table = _start_table(rows, has_header=source.has_header)
        ctx.log.info("columns found", columns=[column.name for column in table.columns], delimiter=delimiter)
        for line, row in rows:
            table.add(line, row)
            if table.rows % _ROWS_PER_PROGRESS == 0:
                ctx.progress(lines.share_read, f"{table.rows:,} rows")
    if table.bad_rows:
        ctx.log.warn("rows left out", count=table.bad_row_count, lines=list(table.bad_rows))
    ctx.progress(1, f"{table.rows:,} rows")
    return Profile(
        rows=table.rows,
        delimiter=delimiter,
        columns=[column.describe() for column in table.columns],
        bad_row_count=table.bad_row_count,
        bad_rows=table.bad_rows,
    )


def _open(source: Source) -> AbstractContextManager[TextIO]:
    if source.path is None:
        return io.StringIO(source.text, newline="")
    return project_file(source.path).open(encoding="utf-8-sig", newline="")


class _Lines(Iterator[str]):
    """The lines of a text, one at a time. Knows roughly how much of it has been read."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._size = file.seek(0, io.SEEK_END) or 1
        self._read = 0
        file.seek(0)

    @property
    def share_read(self) -> float:
        # Counted in characters, while a file's size is in bytes: behind, never ahead.
        return min(1.0, self._read / self._size)

    def __next__(self) -> str:
        try:
            line = self._file.readline(_LONGEST_LINE)
        except UnicodeDecodeError as error:
            raise _invalid(f"it is not UTF-8 text: {error}") from error
        if not line:
            raise StopIteration
        if len(line) == _LONGEST_LINE:
            raise _invalid(f"it has a line of more than {_LONGEST_LINE:,} characters")
        self._read += len(line)
        return line


def _sniff(lines: Sequence[str]) -> str:
    """The delimiter that cuts most lines into the same number of fields, and into most fields."""

    def evenness(delimiter: str) -> tuple[float, int]:
        widths = Counter(len(row) for _, row in _rows(lines, delimiter) if not isinstance(row, csv.Error))
        width, count = widths.most_common(1)[0] if widths else (1, 0)
        return (count / widths.total(), width) if width > 1 else (0.0, 1)

    return max(_DELIMITERS, key=evenness)


def _rows(lines: Iterable[str], delimiter: str) -> Iterator[tuple[int, list[str] | csv.Error]]:
    """Each row that is not blank with the line it starts on; in place of an unreadable one, what is wrong with it."""
    reader = csv.reader(lines, delimiter=delimiter)
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, error
        else:
            if row:
                yield line, row


def _start_table(rows: Iterator[tuple[int, list[str] | csv.Error]], *, has_header: bool) -> _Table:
    line, first = next(rows, (0, csv.Error("it is empty")))
    if isinstance(first, csv.Error):
        raise _invalid(f"its first row cannot be read: {first}") from first
    if len(first) > _MOST_COLUMNS:
        raise _invalid(f"it has {len(first):,} columns, and {_MOST_COLUMNS:,} is the most")
    table = _Table(_names(first if has_header else [""] * len(first)))
    if not has_header:
        table.add(line, first)
    return table


def _names(header: Sequence[str]) -> list[str]:
    """Column names that are not empty and all different."""
    seen: Counter[str] = Counter()
    names: list[str] = []
    for position, cell in enumerate(header, start=1):
        name = cell.strip() or f"column {position}"
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return names


def _invalid(problem: str) -> PyFlueError:
    return PyFlueError(f"The CSV cannot be described: {problem}.", type="csv_invalid", status=422)


class _Table:
    """What has been seen of the rows so far."""

    def __init__(self, names: Sequence[str]) -> None:
        self.columns = [ColumnFacts(name) for name in names]
        self.rows = 0
        self.bad_row_count = 0
        self.bad_rows: dict[int, str] = {}

    def add(self, line: int, row: list[str] | csv.Error) -> None:
        if isinstance(row, csv.Error):
            self._leave_out(line, str(row))
        elif len(row) != len(self.columns):
            self._leave_out(line, f"{len(row)} fields instead of {len(self.columns)}")
        else:
            self.rows += 1
            for column, cell in zip(self.columns, row, strict=True):
                column.add(line, cell.strip())

    def _leave_out(self, line: int, problem: str) -> None:
        self.bad_row_count += 1
        if len(self.bad_rows) < _SHOWN:
            self.bad_rows[line] = problem
