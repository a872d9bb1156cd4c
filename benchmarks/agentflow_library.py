"""Library calls of step classes, ours and stepflow-agent's, turn about: each in a process of its own.

stepflow-agent is installed from the package index at first use, into an environment of its own. What is called, and
how often, is in `agentflow_calls.py`, which both run. (A module called `agentflow` here would be found in the place of
that package.)
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

from pyflue import codec

from .environments import interpreter_with

ORIGINAL_VERSION = "0.1.0"
_CALLS = Path(__file__).parent / "agentflow_calls.py"


def measure(*, rounds: int, with_original: bool = True) -> dict[str, float]:
    """The figures `agentflow.<which>.<what>`, medians over the rounds."""
    commands = {"ours": [sys.executable, str(_CALLS), "pyflue.agentflow"]}
    if with_original:
        interpreter = interpreter_with("stepflow-agent", ORIGINAL_VERSION)
        commands["original"] = [str(interpreter), str(_CALLS), "agentflow"]
    measured: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, command in commands.items():
            figures = codec.load(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
            for what, value in figures.items():
                measured.setdefault(f"agentflow.{name}.{what}", []).append(value)
    return {name: statistics.median(values) for name, values in measured.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.agentflow_library")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--without-original", action="store_true")
    options = parser.parse_args()
    for name, value in measure(rounds=options.rounds, with_original=not options.without_original).items():
        print(f"{name:48} {value:10,.1f}")


if __name__ == "__main__":
    main()
