"""Very many runs that wait for approvals at once: memory, other requests beside them, restarts, and waking them all.

Everything goes through a real server. It is restarted twice with all of them waiting: once told to stop (SIGTERM), once
killed. They are woken twice: a part while the server has them in memory, all of them when only the journal has them.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from . import load
from .http_series import load as load_apart
from .servers import Server, fresh_project, server
from .talking import get, has_runs, open_approvals, post

#: The share that is woken from memory.
_SOON = 0.2
#: Requests per second of the others.
_RATE = 200
_CONNECTIONS = 32
_WARM_UP = 2000
#: So few that what they leave behind in the heap does not matter.
_WARM_UP_WAITING = 50
_PATIENCE_S = 120.0
_ORDER = b'{"order": "A-1042", "amount": 129.9}'
_APPROVAL = b'{"approved": true}'


def measure(*, runs: int, seconds: float) -> dict[str, float]:
    """The figures `waiting.…`."""
    soon = int(runs * _SOON)
    figures: dict[str, float] = {"waiting.runs": runs}
    with fresh_project() as project:
        with server(project) as first:
            figures |= _fill(first, runs, soon)
            figures |= _beside(first, seconds)
            figures["waiting.woken_from_memory_per_second"] = _wake(first, soon, tag="soon")
            _open(first, soon)
            stopping = time.perf_counter()
        figures["waiting.stop_s"] = time.perf_counter() - stopping
        with server(project, end=signal.SIGKILL) as second:
            figures |= _taken_up(second, "restart")
        with server(project) as third:
            figures |= _taken_up(third, "restart_after_kill")
            figures["waiting.woken_from_disk_per_second"] = _wake(third, runs - 2)
    return {name: round(value, 3) for name, value in figures.items()}


def _fill(first: Server, runs: int, soon: int) -> dict[str, float]:
    """Let all of them wait, those to be woken soon last. What they take is counted from a server that is warm."""
    _send(first, [_request(first, "/workflows/echo?wait=result", _ORDER)] * _WARM_UP)
    _open(first, _WARM_UP_WAITING)
    _wake(first, _WARM_UP_WAITING)
    before = _resident_bytes(first.pid)
    started = time.perf_counter()
    _open(first, runs - soon)
    _open(first, soon, tag="soon")
    elapsed = time.perf_counter() - started
    return {
        "waiting.opened_per_second": runs / elapsed,
        "waiting.bytes_each": (_resident_bytes(first.pid) - before) / runs,
    }


def _beside(first: Server, seconds: float) -> dict[str, float]:
    """Waited echo requests, at a modest rate."""
    series = load_apart(
        f"{first.origin}/workflows/echo?wait=result", connections=8, seconds=seconds, warm_up_s=1, rate=_RATE
    )
    return {
        "waiting.beside.per_second": series.per_second,
        "waiting.beside.p50_ms": series.p50_ms,
        "waiting.beside.p99_ms": series.p99_ms,
        "waiting.beside.max_ms": series.max_ms,
    }


def _taken_up(restarted: Server, what: str) -> dict[str, float]:
    """Seconds from the start of the process to its first answer, and to the end of a run that was approved then."""
    answered = time.perf_counter()
    (approval,) = open_approvals(restarted.origin, 1)
    post(restarted.origin, f"/approvals/{approval['approval_id']}", {"approved": True})
    _await(
        lambda: get(restarted.origin, f"/runs/{approval['run_id']}")["status"] == "completed",
        "The approved run has not ended",
    )
    return {
        f"waiting.{what}.answers_s": restarted.start_s,
        f"waiting.{what}.taken_up_s": restarted.start_s + time.perf_counter() - answered,
    }


def _open(on: Server, count: int, *, tag: str = "") -> None:
    """Start so many runs and see them all waiting."""
    path = "/workflows/ask" + (f"?tags={tag}" if tag else "")
    _send(on, [_request(on, path, _ORDER)] * count)
    _await(lambda: not has_runs(on.origin, "queued", "running"), "Not all runs wait")


def _wake(on: Server, count: int, *, tag: str = "") -> float:
    """Approve the newest so many; how many per second, from the first decision to the last end."""
    approvals = open_approvals(on.origin, count)
    if len(approvals) != count:
        sys.exit(f"{len(approvals):,} approvals are open instead of {count:,}.")
    started = time.perf_counter()
    _send(on, [_request(on, f"/approvals/{approval['approval_id']}", _APPROVAL) for approval in approvals])
    _await(lambda: not has_runs(on.origin, "queued", "running", "waiting", tag=tag), "Not all approved runs have ended")
    return count / (time.perf_counter() - started)


def _send(to: Server, requests: Sequence[bytes]) -> None:
    parts = urlsplit(to.origin)
    plan = load.Plan(
        host=parts.hostname or "", port=parts.port or 0, connections=_CONNECTIONS, seconds=_PATIENCE_S, each=requests
    )
    refused = {status: n for status, n in load.run(plan).statuses.items() if not status.startswith("2")}
    if refused:
        sys.exit(f"The server refused requests: {refused}")


def _request(to: Server, path: str, body: bytes) -> bytes:
    _, _, request = load.post(f"{to.origin}{path}", body)
    return request


def _await(is_so: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not is_so():
        if time.monotonic() > deadline:
            sys.exit(f"{what} after {_PATIENCE_S:g} s.")
        time.sleep(0.02)


def _resident_bytes(pid: int) -> int:
    said = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], stdout=subprocess.PIPE, check=True)
    return int(said.stdout) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.waiting")
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=8.0, help="how long to measure the requests beside them (8)")
    options = parser.parse_args()
    for name, value in measure(runs=options.runs, seconds=options.seconds).items():
        print(f"{name:44} {value:12,.3f}")


if __name__ == "__main__":
    main()
