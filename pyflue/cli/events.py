"""Events as lines: which of them to show, and how.

`logs` and `run --stream` use it, for events from the journal and from a server alike: here an event is the JSON object
that `Event.to_dict` makes, with its data read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

import click

from .. import codec
from ..journal import Event, EventType
from . import agent_events
from .output import error_lines, local_time, paint, safe_json, short_json, shown, took
from .waits import describe

EventJson: TypeAlias = Mapping[str, Any]

LEVELS = ("info", "warn", "error")
_COLOURS = {"info": "green", "warn": "yellow", "error": "red"}


def to_json(event: Event) -> EventJson:
    """An event of the journal as the object a server would send."""
    return {**event.to_dict(), "data": codec.load(event.data)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which events to show: those of some types, from a level upwards, from a time on."""

    types: Sequence[str] = ()
    level: str = LEVELS[0]
    since: datetime | None = None

    def takes(self, event: EventJson) -> bool:
        if self.types and event["type"] not in self.types:
            return False
        if LEVELS.index(_level(event)) < LEVELS.index(self.level):
            return False
        return self.since is None or datetime.fromisoformat(event["at"]) >= self.since


def ndjson_line(event: EventJson) -> str:
    """The event as one line of JSON, however long."""
    return safe_json(codec.encode(event)).decode()


def pretty_line(event: EventJson) -> str:
    """The event as one line to read: index, local time, type and what is in it."""
    index = paint(f"{event['index']:>5}", dim=True)
    at = datetime.fromisoformat(event["at"]).astimezone().strftime("%H:%M:%S.%f")[:-3]
    kind = shown(str(event["type"]))
    return f"{index}  {paint(at, dim=True)}  {paint(f'{kind:<12}', bold=True)} {_detail(event)}".rstrip()


FORMATS: Mapping[str, Callable[[EventJson], str]] = {"pretty": pretty_line, "ndjson": ndjson_line}


def plain_detail(event: EventJson) -> str:
    """What is in the event, without colours."""
    return click.unstyle(_detail(event))


def _level(event: EventJson) -> str:
    """How serious an event is.

    A log line has its own level. The end of a failed run, and a model that does not answer, is an error; what went
    wrong and may still turn out well is a warning; everything else is information.
    """
    data = event["data"]
    if not isinstance(data, dict):
        return "info"
    status: Any = data.get("status")  # pyright: ignore[reportUnknownMemberType,reportUnknownVariableType]
    if event["type"] == EventType.LOG and data.get("level") in LEVELS:  # pyright: ignore[reportUnknownMemberType]
        return str(data["level"])  # pyright: ignore[reportUnknownArgumentType]
    if (event["type"] in _ENDS and status == "failed") or event["type"] == EventType.ERROR:
        return "error"
    if event["type"] in _WARNINGS or (event["type"] == EventType.STEP_END and status == "failed"):
        return "warn"
    if event["type"] in _TOLD_FAILURES and data.get("is_error"):  # pyright: ignore[reportUnknownMemberType]
        return "warn"
    return "info"


_ENDS = frozenset({EventType.RUN_END, EventType.INTERACTION_END})
_TOLD_FAILURES = frozenset({EventType.OPERATION, EventType.TOOL_END, EventType.TASK_END})
_WARNINGS = frozenset({EventType.STEP_RETRY, EventType.SIGNAL_REFUSED, EventType.REPLAY_DRIFT})


def _detail(event: EventJson) -> str:
    if not isinstance(event["data"], dict):
        return _value(event["data"])
    fields: dict[str, Any] = agent_events.without_ids(dict(event["data"]))  # pyright: ignore[reportUnknownArgumentType]
    if event["type"] == EventType.INTERACTION_ACCEPTED:
        fields["interaction_id"] = event.get("interaction_id")
    words = _WORDS.get(event["type"])
    parts = [] if words is None else words(fields)
    parts += [f"{paint(shown(key), dim=True)}={_value(value)}" for key, value in fields.items()]
    return " ".join(part for part in parts if part)


def _value(value: Any) -> str:
    if isinstance(value, str) and value and value.isprintable() and " " not in value and '"' not in value:
        return shown(value)
    return safe_json(codec.encode(value)).decode()


# What the engine's own events say. Each takes the fields it puts into words out of the event's data; the others follow
# as `name=value`. None of them is sure to be there: too large data is in a blob.


def _log(fields: dict[str, Any]) -> list[str]:
    level = fields.pop("level", None)
    level = level if level in LEVELS else LEVELS[0]
    return [paint(f"{level:<5}", fg=_COLOURS[level]), shown(str(fields.pop("message", "")))]


def _progress(fields: dict[str, Any]) -> list[str]:
    return [f"{float(fields.pop('fraction', 0)):4.0%}", shown(str(fields.pop("message", "")))]


def _run_end(fields: dict[str, Any]) -> list[str]:
    # The traceback is not for one line; `pyflue runs show` has it.
    return [paint(str(fields.pop("status", "")), fg="red"), _error(fields)] if "error" in fields else []


def _run_waiting(fields: dict[str, Any]) -> list[str]:
    waits: Any = fields.pop("waits", ())
    return [
        "for",
        ", ".join(
            describe(wait) + (f" ({shown(wait['approval_id'])})" if "approval_id" in wait else "") for wait in waits
        ),
    ]


def _step_start(fields: dict[str, Any]) -> list[str]:
    attempt = fields.pop("attempt", 1)
    return [_step(fields), f"(attempt {attempt})" if attempt != 1 else ""]


def _step_retry(fields: dict[str, Any]) -> list[str]:
    step, attempt, delay_s = _step(fields), fields.pop("attempt", None), fields.pop("delay_s", None)
    again = "" if delay_s is None else f"; again in {took(delay_s)}"
    return [f"{step} {paint('failed', fg='yellow')} (attempt {attempt}): {_error(fields)}{again}"]


def _step_end(fields: dict[str, Any]) -> list[str]:
    step, status = _step(fields), str(fields.pop("status", ""))
    duration_ms, attempts = fields.pop("duration_ms", None), fields.pop("attempts", 1)
    parts = [step, paint(status, fg="red" if status == "failed" else "green")]
    parts += ["" if duration_ms is None else f"in {took(duration_ms / 1000)}"]
    parts += ["" if attempts == 1 else f"(attempt {attempts})"]
    error = _error(fields)
    return [*parts, f"- {error}" if error else ""]


def _approval_requested(fields: dict[str, Any]) -> list[str]:
    approval_id, due_at = fields.pop("approval_id", ""), fields.pop("due_at", None)
    step = _step(fields)
    request = f"- {short_json(fields.pop('request'))}" if "request" in fields else ""
    for name in ("schema", "digest"):  # `pyflue approvals show` has them
        fields.pop(name, None)
    due = "" if due_at is None else f", due {local_time(due_at)}"
    return [f"{step} ({shown(str(approval_id))}{due})", request]


def _approval_decided(fields: dict[str, Any]) -> list[str]:
    approved, by, reason = fields.pop("approved", None), fields.pop("by", None), fields.pop("reason", None)
    approval_id, data = fields.pop("approval_id", ""), fields.pop("data", None)
    verdict = "" if approved is None else paint("approved", fg="green") if approved else paint("rejected", fg="red")
    return [
        f"{_step(fields)} ({shown(str(approval_id))})",
        verdict,
        "" if by is None else f"by {shown(str(by))}",
        f"- {shown(str(reason))}" if reason else "",
        "" if data is None else f"{paint('data', dim=True)}={short_json(data)}",
    ]


def _signal(fields: dict[str, Any]) -> list[str]:
    data = fields.pop("data", None)
    return [shown(str(fields.pop("name", ""))), "" if data is None else f"- {short_json(data)}"]


def _signal_refused(fields: dict[str, Any]) -> list[str]:
    problems: Any = fields.pop("problems", ())
    listed = "; ".join(f"{problem['path']}: {problem['message']}" for problem in problems)
    return [f"{_step(fields)} does not take it: {shown(listed)}"]


def _replay_drift(fields: dict[str, Any]) -> list[str]:
    return [f"{_step(fields)} was recorded with another {shown(str(fields.pop('what', '')))}"]


_WORDS: Mapping[str, Callable[[dict[str, Any]], list[str]]] = {
    EventType.LOG: _log,
    EventType.PROGRESS: _progress,
    EventType.RUN_END: _run_end,
    EventType.RUN_WAITING: _run_waiting,
    EventType.STEP_START: _step_start,
    EventType.STEP_RETRY: _step_retry,
    EventType.STEP_END: _step_end,
    EventType.APPROVAL_REQUESTED: _approval_requested,
    EventType.APPROVAL_DECIDED: _approval_decided,
    EventType.SIGNAL: _signal,
    EventType.SIGNAL_REFUSED: _signal_refused,
    EventType.REPLAY_DRIFT: _replay_drift,
    **agent_events.WORDS,
}


def _step(fields: dict[str, Any]) -> str:
    """The step's key. Its name is a part of that, and its kind is told by what the event is."""
    name, kind = fields.pop("name", ""), fields.pop("kind", "step")
    key = shown(str(fields.pop("step", name)))
    return key if kind == "step" else f"{key} [{shown(str(kind))}]"


def _error(fields: dict[str, Any]) -> str:
    """The error in words, on one line."""
    error = fields.pop("error", None)
    return shown(error_lines(error)[0]) if isinstance(error, dict) else ""  # pyright: ignore[reportUnknownArgumentType]
