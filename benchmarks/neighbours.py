"""A small server beside a saturated one on the same project: the turnstile must keep the small one quick."""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor

from .http_series import load
from .servers import fresh_project, serving


def measure(*, seconds: float) -> dict[str, float]:
    """p50 and p99 of one connection to one server while 32 connections load another one."""
    with (
        fresh_project() as project,
        serving(project) as busy_url,
        serving(project) as small_url,
        ThreadPoolExecutor(1) as beside,
    ):
        busy = beside.submit(load, busy_url, connections=32, seconds=seconds + 2, warm_up_s=1)
        small = load(small_url, connections=1, seconds=seconds, warm_up_s=2)
        loaded = busy.result()
    return {
        "neighbours.small.p50_ms": small.p50_ms,
        "neighbours.small.p99_ms": small.p99_ms,
        "neighbours.small.per_second": small.per_second,
        "neighbours.busy.per_second": loaded.per_second,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.neighbours")
    parser.add_argument("--seconds", type=float, default=8.0)
    for name, value in measure(seconds=parser.parse_args().seconds).items():
        print(f"{name:40} {value:12,.3f}")


if __name__ == "__main__":
    main()
