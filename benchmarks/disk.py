"""What one fsync costs on the disk the journals of a benchmark are on: the floor under every durable answer."""

from __future__ import annotations

import os
import statistics
import time

from .servers import fresh_project

#: A WAL frame of one page.
_WRITE_BYTES = 4096 + 24


def measure(*, times: int = 300) -> dict[str, float]:
    """The figures `disk.fsync_p50_ms` and `disk.fsync_p99_ms`: append a page to a file, then fsync it."""
    block = os.urandom(_WRITE_BYTES)
    taken: list[float] = []
    with fresh_project() as project:
        descriptor = os.open(project / "fsync", os.O_WRONLY | os.O_CREAT)
        try:
            for _ in range(times):
                started = time.perf_counter()
                os.write(descriptor, block)
                os.fsync(descriptor)
                taken.append((time.perf_counter() - started) * 1000)
        finally:
            os.close(descriptor)
    taken.sort()
    return {
        "disk.fsync_p50_ms": round(statistics.median(taken), 3),
        "disk.fsync_p99_ms": round(taken[int(len(taken) * 0.99)], 3),
    }


if __name__ == "__main__":
    for name, value in measure().items():
        print(f"{name:24} {value:8.3f}")
