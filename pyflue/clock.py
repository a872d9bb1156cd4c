"""Time, as one object that can be replaced.

The engine, the journal and the ids read the time only here, so tests can move it. Wall time is for what people read
and for what must mean the same after a restart; durations are always taken from the monotonic reading.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Clock(Protocol):
    """Where time comes from."""

    def now_us(self) -> int:
        """Wall time in microseconds since 1970-01-01 UTC; may jump in both directions."""
        ...

    def monotonic(self) -> float:
        """Seconds that only ever grow; the zero means nothing."""
        ...


class SystemClock:
    """The machine's own clocks."""

    monotonic = staticmethod(time.monotonic)

    def now_us(self) -> int:
        return time.time_ns() // 1000


def whole_us(seconds: float) -> float:
    """Seconds to the microsecond, as records hold them. `round(seconds, 6)` takes ten times as long."""
    return round(seconds * 1e6) / 1e6


def to_ms(seconds: float) -> float:
    """Seconds as milliseconds with three decimals."""
    return round(seconds * 1e6) / 1e3


def to_datetime(us: int) -> datetime:
    """Microseconds since the epoch as an aware UTC `datetime`."""
    return _EPOCH + timedelta(microseconds=us)


def to_us(at: datetime) -> int:
    """An aware `datetime` as microseconds since the epoch."""
    return (at - _EPOCH) // _MICROSECOND


def rfc3339(at: datetime) -> str:
    """An aware `datetime` as JSON carries it: `2026-11-21T05:12:44.498334Z`."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
