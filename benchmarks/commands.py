"""Wall times of short commands, ours and the previous release's, as a person at a terminal has them.

Each command runs many times, all of them in turn, and the median counts. The interpreter's own start is measured too:
it is part of every figure.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

from . import previous
from .servers import PYFLUE, fresh_project

_PAYLOAD = '{"text": "PyFlue workflows are finite operations."}'


def measure(*, times: int, with_previous: bool = True) -> dict[str, float]:
    """The figures: `command.<which>.<what>_ms`, medians."""
    commands = _commands("ours", Path(sys.executable), PYFLUE)
    if with_previous:
        commands |= _commands("previous", previous.python(), previous.command())
    taken = {name: list[float]() for name in commands}
    with fresh_project() as project:
        for turn in range(times + 1):
            for name, arguments in commands.items():
                started = time.perf_counter()
                subprocess.run(
                    arguments, cwd=project, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )  # fmt: skip
                if turn:  # the first turn fills the caches
                    taken[name].append((time.perf_counter() - started) * 1000)
    return {f"command.{name}_ms": round(statistics.median(values), 1) for name, values in taken.items()}


def _commands(which: str, python: Path, pyflue: Path) -> dict[str, list[str]]:
    return {
        f"{which}.python": [str(python), "-c", "pass"],
        f"{which}.import": [str(python), "-c", "import pyflue"],
        f"{which}.help": [str(pyflue), "--help"],
        f"{which}.run": [str(pyflue), "run", "echo", "--payload", _PAYLOAD],
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.commands")
    parser.add_argument("--times", type=int, default=15)
    parser.add_argument("--without-previous", action="store_true")
    options = parser.parse_args()
    for name, value in measure(times=options.times, with_previous=not options.without_previous).items():
        print(f"{name:32} {value:9,.1f}")


if __name__ == "__main__":
    main()
