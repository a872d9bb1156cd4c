"""Runs per second that are accepted with 202, the caller not waiting, and how long those still open take to finish.

The answers come as soon as a run is on disk; the runs themselves are driven meanwhile and afterwards.
"""

from __future__ import annotations

import time
from urllib.parse import urlsplit

from .http_series import load
from .servers import ours
from .talking import has_runs

_DRAIN_S = 300.0


def measure(*, seconds: float) -> dict[str, float]:
    """The figures `accepted.per_second`, `.p50_ms`, `.p99_ms` and `.drain_s`."""
    with ours() as url:
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        series = load(f"{origin}{parts.path}", connections=32, seconds=seconds, warm_up_s=min(1.0, seconds / 4))
        started = time.monotonic()
        while has_runs(origin, "queued", "running") and time.monotonic() - started < _DRAIN_S:
            time.sleep(0.1)
        drained = time.monotonic() - started
    return {
        "accepted.per_second": series.per_second,
        "accepted.p50_ms": series.p50_ms,
        "accepted.p99_ms": series.p99_ms,
        "accepted.drain_s": round(drained, 1),
    }


if __name__ == "__main__":
    for name, value in measure(seconds=10.0).items():
        print(f"{name:24} {value:12,.3f}")
