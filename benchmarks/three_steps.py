"""Runs of three steps, ours and on DBOS, turn and turn about: each in a process of its own, 64 callers, on one disk.

DBOS keeps its state in SQLite, too: as it sets that up (`dbos`), and in WAL mode (`dbos_wal`), which it does not choose
but gains from. Its own documentation recommends SQLite for development and PostgreSQL for production.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from pyflue import codec

from .environments import interpreter_with
from .servers import fresh_project

DBOS_VERSION = "3.4.0"
_CALLERS = 64
_HERE = Path(__file__).parent


def measure(*, rounds: int, seconds: float, with_dbos: bool = True) -> dict[str, float]:
    """The figures `three_steps.<which>.per_second`, medians over the rounds."""
    series: dict[str, Callable[[float], float]] = {"ours": _ours}
    if with_dbos:
        interpreter_with("dbos", DBOS_VERSION)
        series |= {"dbos": _dbos, "dbos_wal": lambda seconds: _dbos(seconds, "--wal")}
    measured = {name: list[float]() for name in series}
    for round_number in range(1, rounds + 1):
        for name, take in series.items():
            measured[name].append(take(seconds))
            print(f"  round {round_number}  {name:8}  {measured[name][-1]:9,.0f}/s", file=sys.stderr)
    return {f"three_steps.{name}.per_second": statistics.median(values) for name, values in measured.items()}


def _ours(seconds: float) -> float:
    module = [sys.executable, "-m", "benchmarks.in_process", "--workflow", "three_steps"]
    return codec.load(_output(module, seconds))["in_process.three_steps.per_second"]


def _dbos(seconds: float, *options: str) -> float:
    with fresh_project() as folder:
        script = [str(interpreter_with("dbos", DBOS_VERSION)), str(_HERE / "dbos_steps.py"), str(folder), *options]
        return float(_output(script, seconds))


def _output(arguments: Sequence[str], seconds: float) -> bytes:
    options = ["--callers", str(_CALLERS), "--seconds", str(seconds)]
    return subprocess.run([*arguments, *options], stdout=subprocess.PIPE, check=True).stdout


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.three_steps")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="per series (5)")
    parser.add_argument("--without-dbos", action="store_true")
    options = parser.parse_args()
    measured = measure(rounds=options.rounds, seconds=options.seconds, with_dbos=not options.without_dbos)
    for name, value in measured.items():
        print(f"{name:40} {value:12,.1f}")


if __name__ == "__main__":
    main()
