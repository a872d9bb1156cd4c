"""What commands write: results on stdout, everything else on stderr, and nothing that a terminal would obey.

Text of payloads, logs and errors comes from outside. On its way to a terminal every control character and every mark
that reorders text is shown as an escape. JSON stays JSON: there the same characters become `\\u` escapes.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import click

from .. import codec

#: C0 and C1 controls, DEL, line and paragraph separators, the marks that change the direction of text, and the halves
#: of characters that stand for bytes which are no text (in the name of a file, say).
_UNSAFE = "\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff"
#: Between two columns of a table on a terminal.
_GAP = 3
#: Cells of a cut column that are still worth showing.
_LEAST = 12
#: A value in a line or a cell of a table.
_SHORT = 60
_unsafe = re.compile(f"[{_UNSAFE}]")
_unsafe_but_layout = re.compile(f"(?![\\n\\t])[{_UNSAFE}]")


def shown(text: str, *, layout: bool = False) -> str:
    """Text that is safe to print; `layout` leaves line breaks and tabs as they are."""
    return (_unsafe_but_layout if layout else _unsafe).sub(_escape, text)


def safe_json(data: bytes) -> bytes:
    """JSON text of the same meaning without characters a terminal would obey. Line breaks of its layout stay."""
    if data.isascii() and b"\x7f" not in data:
        return data
    # Unsafe characters can only stand inside strings, where an escape means the same.
    return _unsafe_but_layout.sub(lambda found: f"\\u{ord(found[0]):04x}", data.decode()).encode()


def paint(text: str, **style: Any) -> str:
    """Coloured text; plain under NO_COLOR. `click.echo` takes the colours out where there is no terminal."""
    return text if os.environ.get("NO_COLOR") else click.style(text, **style)


def counted(number: int, noun: str) -> str:
    """A number with its noun: `1 run`, `2 runs`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def local_time(at: str) -> str:
    """An RFC 3339 time as the clock on the wall has it."""
    return datetime.fromisoformat(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def took(seconds: float) -> str:
    """How long something took, to read: `12 ms`, `1.5 s`, `0:03:20`."""
    if seconds < 1:
        return f"{max(seconds, 0.0) * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 120 else str(timedelta(seconds=int(seconds)))


def used(usage: Mapping[str, Any] | None) -> str:
    """What model work used, to read: `812 tokens in, 9 out, $0.0009`; empty if it used nothing."""
    if usage is None or not (usage.get("input_tokens") or usage.get("output_tokens")):
        return ""
    parts = [f"{usage.get('input_tokens', 0):,} tokens in", f"{usage.get('output_tokens', 0):,} out"]
    if usage.get("cache_read_tokens"):
        parts.append(f"{usage['cache_read_tokens']:,} read from the cache")
    cost = usage.get("cost_usd")
    if cost != 0:  # what costs nothing is a scripted model
        parts.append("price unknown" if cost is None else f"${_dollars(cost)}")
    return ", ".join(parts)


def _dollars(cost: float) -> str:
    """Cents of what is dear, two digits of what is not; never as 3.5e-05."""
    if cost >= 1:
        return f"{cost:,.2f}"
    return f"{cost:.{1 - math.floor(math.log10(cost))}f}" if cost > 0 else f"{cost:g}"


def roughly(seconds: float) -> str:
    """A length of time in its largest unit: `45s`, `12m`, `3h`, `2d`."""
    for unit, unit_s in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= unit_s:
            return f"{seconds / unit_s:.0f}{unit}"
    return f"{max(seconds, 0.0):.0f}s"


def short_json(value: Any) -> str:
    """A value on a part of a line: a string as it is, anything else as compact JSON, cut where it gets long."""
    text = value if isinstance(value, str) else codec.encode(value).decode()
    return shown(text if len(text) <= _SHORT else text[: _SHORT - 1] + "…")


def one_line(text: str) -> str:
    """The beginning of a text that may have many lines, on a part of one."""
    return short_json(" ".join(text[: 4 * _SHORT].split()))


def print_field(name: str, value: str) -> None:
    """Write a named value to stdout; nothing if it is empty."""
    if value:
        click.echo(f"{paint(f'{name:<16}', bold=True)}  {value}")


def say(message: str) -> None:
    """Tell the person at the terminal something: a line on stderr."""
    click.echo(message, err=True)


def prints_aside() -> contextlib.AbstractContextManager[Any]:
    """While it is open, what authors' code prints goes to stderr: it is no result, so it does not belong on stdout."""
    return contextlib.redirect_stdout(sys.stderr)


def print_json(value: Any, *, indent: int = 2) -> None:
    """Write a JSON value to stdout, indented; `indent=0` writes it on one line."""
    data = codec.encode(value)
    click.echo(safe_json(codec.indented(data) if indent else data))


def print_result(value: codec.Raw | None) -> None:
    """Write a run's result to stdout: a string as it is (safe for a terminal), anything else as indented JSON."""
    if value is not None and bytes(value).startswith(b'"'):
        text = str(codec.load(value))
        # As bytes: from a string click would take out what looks like a colour, and a pipe gets the result as it is.
        click.echo((shown(text, layout=True) if sys.stdout.isatty() else text).encode())
    else:
        print_json(value)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, whole: int = 0) -> None:
    """Write rows to stdout. The first column, an id or a name to copy, is never broken.

    On a terminal that is too narrow, cells are folded; with `whole` none is. Then the columns after the first `whole`
    are left out, from the last one on, and only the last one may be cut.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, markup=False, emoji=False)
    cells = [[Text(shown(cell)) for cell in row] for row in (columns, *rows)]
    last_width = None
    if not console.is_terminal:
        console.width = 100_000  # another program reads this: no line may be broken
    elif whole:
        widths = [max(row[at].cell_len for row in cells) for at in range(len(columns))]
        count = _fitting(widths, whole, console.width)
        cells = [row[:count] for row in cells]
        before_last = sum(widths[: count - 1]) + _GAP * (count - 1)
        last_width = max(console.width - before_last, _LEAST) if count == len(columns) > whole else None
        console.width = max(console.width, before_last + (last_width or widths[count - 1]))
    table = Table(box=box.SIMPLE_HEAD if console.is_terminal else None, pad_edge=False, show_edge=False)
    for position, name in enumerate(cells[0]):
        if whole:
            is_last = position == len(columns) - 1
            table.add_column(name, no_wrap=True, overflow="ellipsis", max_width=last_width if is_last else None)
        else:
            table.add_column(name, no_wrap=position == 0, overflow="fold")
    for row in cells[1:]:
        table.add_row(*row)
    console.print(table)


def _fitting(widths: Sequence[int], whole: int, width: int) -> int:
    """How many columns a terminal has room for, at least `whole`; of the last one a part is enough."""
    count = len(widths)
    needed = [*widths[:-1], min(widths[-1], _LEAST)]
    while count > whole and sum(needed[:count]) + _GAP * (count - 1) > width:
        count -= 1
    return count


def error_lines(error: Mapping[str, Any]) -> list[str]:
    """A run's recorded error to read: what it was and where, then the author's part of the traceback, if any."""
    what = shown(f"{error.get('exception') or error.get('type')}: {error.get('message')}", layout=True)
    where = f" (at {shown(str(error['where']))})" if "where" in error else ""
    traceback = shown(str(error.get("traceback", "")).rstrip(), layout=True)
    return [what + where, *([paint(traceback, dim=True)] if traceback else [])]


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
