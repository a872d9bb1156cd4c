"""Measures everything, prints the figures and the budgets, and writes both as JSON; `README.md` tells the parts."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pyflue import codec

from . import (
    accepted,
    agentflow_library,
    commands,
    disk,
    flowgram_library,
    http_series,
    machine,
    neighbours,
    stepflow_library,
    three_steps,
    waiting,
)
from .budgets import Verdict, judge

_RESULTS = Path(__file__).parent / "results"
#: Load of the machine above which other programs have a share in the figures.
_BUSY = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class _Size:
    """How long each part measures."""

    rounds: int
    seconds: float
    command_times: int
    events: int
    waiting: int
    replays: int
    prompts: int


_FULL = _Size(rounds=3, seconds=9.0, command_times=15, events=100_000, waiting=10_000, replays=7, prompts=400)
_QUICK = _Size(rounds=1, seconds=3.0, command_times=4, events=20_000, waiting=2_000, replays=3, prompts=100)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure what PyFlue costs.")
    parser.add_argument(
        "--quick", action="store_true", help="two minutes instead of eight; figures for orientation only"
    )
    parser.add_argument(
        "--without-previous", action="store_true", help="leave pyflue 0.2.0 and the originals of dialects out"
    )
    parser.add_argument("--without-dbos", action="store_true", help="leave DBOS out")
    options = parser.parse_args()
    size = _QUICK if options.quick else _FULL
    facts = machine.facts()
    if facts["load"] > _BUSY:
        print(f"The machine is busy (load {facts['load']}): expect worse figures than usual.", file=sys.stderr)
    figures: dict[str, float] = {}
    rounds: list[dict[str, Any]] = []

    def http() -> dict[str, float]:
        names = [name for name in http_series.SERVERS if not (options.without_previous and name == "previous")]
        measured = http_series.compare(names, connections=[32, 1], rounds=size.rounds, seconds=size.seconds)
        rounds.extend(
            {"server": name, **asdict(one)}
            for servers in measured.values()
            for name, series in servers.items()
            for one in series
        )
        return http_series.medians(measured)

    parts: dict[str, Callable[[], dict[str, float]]] = {
        "the disk": disk.measure,
        "commands": lambda: commands.measure(times=size.command_times, with_previous=not options.without_previous),
        "runs in process": lambda: _child("in_process", "--seconds", str(size.seconds / 2)),
        "runs of three steps": lambda: three_steps.measure(
            rounds=size.rounds, seconds=size.seconds / 2, with_dbos=not options.without_dbos
        ),
        "library calls of step classes": lambda: agentflow_library.measure(
            rounds=size.rounds, with_original=not options.without_previous
        ),
        "graphs": lambda: flowgram_library.measure(
            rounds=size.rounds, seconds=size.seconds / 3, with_original=not options.without_previous
        ),
        "flows": lambda: stepflow_library.measure(
            rounds=size.rounds, which=stepflow_library.OURS if options.without_previous else ()
        ),
        "children": lambda: _child("children", "--seconds", str(size.seconds / 3)),
        "agents": lambda: _child("agents", "--prompts", str(size.prompts)),
        "agents, the journal written by a process of its own": lambda: _child(
            "agents", "--prompts", str(size.prompts), "--writer-process"
        ),
        "replay": lambda: _child("replay", "--times", str(size.replays)),
        "a long run": lambda: _child("long_run", "--count", str(size.events)),
        "a tenth of it": lambda: _shorter(_child("long_run", "--count", str(size.events // 10))),
        "waited requests": http,
        "accepted requests": lambda: accepted.measure(seconds=size.seconds),
        "two servers on one journal": lambda: neighbours.measure(seconds=size.seconds),
        "runs that wait": lambda: waiting.measure(runs=size.waiting, seconds=size.seconds),
    }
    for number, (what, measure) in enumerate(parts.items(), start=1):
        print(f"{number}/{len(parts)} {what}", file=sys.stderr)
        figures |= measure()

    verdicts = judge(figures)
    _print(figures, verdicts)
    path = _write({"quick": options.quick, "machine": facts}, figures, verdicts, rounds)
    print(f"Written to {path.relative_to(_RESULTS.parent.parent)}")


def _child(module: str, *arguments: str) -> dict[str, float]:
    """A part that measures itself in a process of its own and prints its figures as JSON."""
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{module}", *arguments], stdout=subprocess.PIPE, check=True
    )
    return codec.load(done.stdout)


def _shorter(figures: dict[str, float]) -> dict[str, float]:
    return {name.replace("long_run.", "shorter_run."): value for name, value in figures.items()}


def _print(figures: dict[str, float], verdicts: list[Verdict]) -> None:
    # On a pipe rich would fold the table to 80 columns.
    console = Console(width=None if sys.stdout.isatty() else 120)
    table = Table("figure", title="Figures (medians)")
    table.add_column("value", justify="right")
    for name, value in figures.items():
        table.add_row(name, _number(value))
    console.print(table)
    table = Table("budget", title="Budgets")
    for heading in ("measured", "bound", "aim"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for verdict in verdicts:
        table.add_row(*_row(verdict))
    console.print(table)


def _row(verdict: Verdict) -> tuple[str, ...]:
    budget = verdict.budget
    bound = f"≥ {_number(budget.at_least)}" if budget.at_least is not None else f"≤ {_number(budget.at_most)}"
    said = {True: "[green]met[/]", False: "[bold red]missed[/]", None: "not measured"}[verdict.met]
    return (
        budget.what,
        f"{_number(verdict.value)} {budget.unit}".strip(),
        f"{bound} {budget.unit}".strip(),
        "" if budget.aim is None else _number(budget.aim),
        said,
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.3f}".rstrip("0").rstrip(".")


def _write(
    about: dict[str, Any], figures: dict[str, float], verdicts: list[Verdict], rounds: list[dict[str, Any]]
) -> Path:
    at = datetime.now(UTC)
    record = {
        "at": at.isoformat(timespec="seconds"),
        **about,
        "figures": figures,
        "budgets": [
            {
                "what": verdict.budget.what,
                "measured": verdict.value,
                "at_least": verdict.budget.at_least,
                "at_most": verdict.budget.at_most,
                "met": verdict.met,
            }
            for verdict in verdicts
        ],
        "rounds": rounds,
    }
    path = _RESULTS / f"{at:%Y%m%dT%H%M%SZ}.json"
    path.write_bytes(codec.encode(record))
    return path


if __name__ == "__main__":
    main()
