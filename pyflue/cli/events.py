"""Events as lines: which of them to show, and how.

`logs` and `run --stream` use it, for events from the journal and from a server alike: here an event is the JSON object
that `Event.to_dict` makes, with its data read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

from .. import codec
from ..journal import Event
from .output import error_lines, paint, safe_json, shown

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


def _level(event: EventJson) -> str:
    """How serious an event is: a log line's own level; a failed run's end is an error, everything else information."""
    data = event["data"]
    if not isinstance(data, dict):
        return "info"
    if event["type"] == "log" and data.get("level") in LEVELS:  # pyright: ignore[reportUnknownMemberType]
        return str(data["level"])  # pyright: ignore[reportUnknownArgumentType]
    if event["type"] == "run_end" and data.get("status") == "failed":  # pyright: ignore[reportUnknownMemberType]
        return "error"
    return "info"


def _detail(event: EventJson) -> str:
    if not isinstance(event["data"], dict):
        return _value(event["data"])
    fields: dict[str, Any] = dict(event["data"])  # pyright: ignore[reportUnknownArgumentType]
    parts: list[str] = []
    if event["type"] == "log":
        level = _level(event)
        parts = [paint(f"{level:<5}", fg=_COLOURS[level]), shown(str(fields.pop("message", "")))]
        fields.pop("level", None)
    elif event["type"] == "progress":
        parts = [f"{float(fields.pop('fraction', 0)):4.0%}", shown(str(fields.pop("message", "")))]
    elif event["type"] == "run_end" and isinstance(fields.get("error"), dict):
        # The traceback is not for one line; `pyflue runs show` has it.
        error = shown(error_lines(fields.pop("error"))[0])
        parts = [paint(str(fields.pop("status", "")), fg="red"), error]
    parts += [f"{paint(shown(key), dim=True)}={_value(value)}" for key, value in fields.items()]
    return " ".join(part for part in parts if part)


def _value(value: Any) -> str:
    if isinstance(value, str) and value and " " not in value and '"' not in value:
        return shown(value)
    return safe_json(codec.encode(value)).decode()
