"""A run of a sample workflow of `src/workflows/`, started as a user does: `pyflue run`, then `pyflue logs`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from pyflue import codec
from pyflue.cli import main

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Ran:
    """How a run of a sample ended."""

    exit_code: int
    status: str
    result: Any
    error: Any
    #: Data of the run's events by type, in order.
    events: dict[str, list[Any]]


RunSample = Callable[[str, Any], Ran]


def run_sample(name: str, payload: Any) -> Ran:
    """Run a sample to its end and read its record back."""
    ran = _pyflue("run", name, "--payload", codec.encode(payload).decode(), "--json")
    assert ran.stdout, ran.stderr
    record = codec.load(ran.stdout.encode())
    logs = _pyflue("logs", record["run_id"], "--format", "json")
    events: dict[str, list[Any]] = {}
    for event in codec.load(logs.stdout.encode())["events"]:
        events.setdefault(event["type"], []).append(event["data"])
    return Ran(
        exit_code=ran.exit_code,
        status=record["status"],
        result=record.get("result"),
        error=record.get("error"),
        events=events,
    )


def _pyflue(*arguments: str) -> Any:
    return CliRunner().invoke(main, ["--project", str(ROOT), *arguments])
