"""What runs wait for, in words, and the commands that answer it.

Used wherever a run may be found waiting: `run`, `runs`, `logs`, `approvals`. A wait is the JSON object that a run's
record holds in `waiting_for` and its event `run_waiting` in `waits`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeAlias

from .output import local_time, shown

WaitJson: TypeAlias = Mapping[str, Any]

#: The key of the pause between two attempts at a model call.
_PAUSE_OF_TURN = re.compile(r"(^|/)turn(#\d+)?/pause-\d+$")
#: As many waits of one run as are told one by one.
_TOLD = 10


def describe(wait: WaitJson) -> str:
    """What is waited for: `approval ship, due 2026-11-21 12:00:00`."""
    due = "" if wait["due_at"] is None else local_time(wait["due_at"])
    if wait["kind"] == "timer":
        if _PAUSE_OF_TURN.search(str(wait.get("step", ""))):
            return f"its model, which failed and is asked again at {due}"
        return f"the time {due}"
    what = "run" if wait["kind"] == "child" else wait["kind"]
    return shown(f"{what} {wait['name']}") + (f", due {due}" if due else "")


def answered_by(run_id: str, wait: WaitJson, *, server: str | None = None) -> str | None:
    """The command that answers a wait, or shows the run that is waited for; None for a timer."""
    if wait["kind"] == "approval":
        words = ["approvals", "approve", str(wait["approval_id"])]
    elif wait["kind"] == "signal":
        words = ["signal", run_id, wait["name"]]
    elif wait["kind"] == "child":
        words = ["runs", "show", wait["name"]]
    else:
        return None
    at_server = [] if server is None else ["--server", server]
    return shown(shlex.join(["pyflue", *words, *at_server]))


def lines_about(run_id: str, waits: Sequence[WaitJson], *, server: str | None = None) -> list[str]:
    """What to tell somebody who looks at a waiting run: a line for each wait, with its command."""
    lines: list[str] = []
    for wait in waits[:_TOLD]:
        command = answered_by(run_id, wait, server=server)
        lines.append(f"run {shown(run_id)} waits for {describe(wait)}" + (f": {command}" if command else ""))
    if len(waits) > _TOLD:
        lines.append(f"run {shown(run_id)} waits for {len(waits) - _TOLD:,} more: pyflue runs show {shown(run_id)}")
    return lines


def is_worth_telling(wait: WaitJson) -> bool:
    """Whether a wait lasts for long enough that somebody who watches should hear of it: not a timer of a moment."""
    if wait["kind"] != "timer" or wait["due_at"] is None:
        return True
    return (datetime.fromisoformat(wait["due_at"]) - datetime.now(UTC)).total_seconds() > 1
