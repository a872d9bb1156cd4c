"""Query strings, read strictly: a parameter nobody reads, or one without a usable value, is refused by name."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import datetime
from urllib.parse import parse_qsl

from ..clock import to_us
from ..errors import InvalidQuery

_WHOLE_NUMBER = re.compile(r"[0-9]{1,15}")
_MOST_FIELDS = 100
_MOST_ITEMS = 50
_LONGEST_ITEM = 128


class Query:
    """The parameters of one request. Each reader returns None, or an empty list, for what was not given."""

    __slots__ = ("_values",)

    def __init__(self, query_string: bytes, known: frozenset[str]) -> None:
        """
        Raises:
            InvalidQuery: a parameter is not in `known`, or the text cannot be read.
        """
        try:
            pairs = parse_qsl(
                query_string.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS
            )
        except ValueError:
            raise InvalidQuery("(all)", query_string.decode("latin-1"), "percent-encoded UTF-8") from None
        self._values: dict[str, list[str]] = {}
        for name, value in pairs:
            if name not in known:
                expected = f"one of the parameters {', '.join(sorted(known))}" if known else "no parameters here"
                raise InvalidQuery(name, value, expected)
            self._values.setdefault(name, []).append(value)

    def text(self, name: str) -> str | None:
        """A parameter as it was given."""
        values = self._values.get(name)
        if values is None:
            return None
        if len(values) > 1:
            raise InvalidQuery(name, ", ".join(values), "one value")
        if not values[0] or not values[0].isprintable():
            raise InvalidQuery(name, values[0], "printable text")
        return values[0]

    def items(self, name: str) -> tuple[str, ...]:
        """A list: separated by commas, given several times, or both; each item once."""
        values = self._values.get(name)
        if values is None:
            return ()
        items = tuple(dict.fromkeys(item for value in values for item in value.split(",")))
        if len(items) > _MOST_ITEMS:
            raise InvalidQuery(name, ",".join(items), f"at most {_MOST_ITEMS} items")
        for item in items:
            if not 0 < len(item) <= _LONGEST_ITEM or not item.isprintable():
                raise InvalidQuery(name, item, f"items of 1 to {_LONGEST_ITEM} printable characters")
        return items

    def choice(self, name: str, choices: Sequence[str]) -> str | None:
        """One of a few words."""
        value = self.text(name)
        if value is not None and value not in choices:
            raise InvalidQuery(name, value, " or ".join(choices))
        return value

    def number(self, name: str, *, lowest: int, highest: int) -> int | None:
        """A whole number within bounds."""
        value = self.text(name)
        if value is None:
            return None
        if not _WHOLE_NUMBER.fullmatch(value) or not lowest <= int(value) <= highest:
            raise InvalidQuery(name, value, f"a whole number from {lowest} to {highest}")
        return int(value)

    def seconds(self, name: str, *, most: float) -> float | None:
        """A positive number of seconds."""
        value = self.text(name)
        if value is None:
            return None
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not 0 < number <= most:
            raise InvalidQuery(name, value, f"a number of seconds above 0, at most {most:,.0f}")
        return number

    def time_us(self, name: str) -> int | None:
        """A time as in RFC 3339, in microseconds since 1970."""
        value = self.text(name)
        if value is None:
            return None
        try:
            at = datetime.fromisoformat(value)
        except ValueError:
            at = None
        if at is None or at.tzinfo is None:
            raise InvalidQuery(name, value, "a time with its zone, such as 2026-11-21T05:12:44Z")
        return to_us(at)
