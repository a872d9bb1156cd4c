"""Runs per second that are accepted with 202, the caller not waiting, and how long those still open take to finish.

The answers come as soon as a run is on disk; the runs themselves are driven meanwhile and afterwards.
"""

from __future__ import annotations

import time
import urllib.request
from urllib.parse import urlsplit

from pyflue import codec

from .http_series import load
from .servers import ours

_DRAIN_S = 300.0


def measure(*, seconds: float) -> dict[str, float]:
    """The figures `accepted.per_second`, `.p50_ms`, `.p99_ms` and `.drain_s`."""
    with ours() as url:
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        series = load(f"{origin}{parts.path}", connections=32, seconds=seconds, warm_up_s=min(1.0, seconds / 4))
        started = time.monotonic()
        while _open_runs(origin) and time.monotonic() - started < _DRAIN_S:
            time.sleep(0.1)
        drained = time.monotonic() - started
    return {
        "accepted.per_second": series.per_second,
        "accepted.p50_ms": series.p50_ms,
        "accepted.p99_ms": series.p99_ms,
        "accepted.drain_s": round(drained, 1),
    }


def _open_runs(origin: str) -> bool:
    """Whether any run is still queued or running."""
    for status in ("queued", "running"):
        with urllib.request.urlopen(f"{origin}/runs?status={status}&limit=1", timeout=30) as answer:
            if codec.load(answer.read())["runs"]:
                return True
    return False


if __name__ == "__main__":
    for name, value in measure(seconds=10.0).items():
        print(f"{name:24} {value:12,.3f}")
