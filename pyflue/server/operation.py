"""What describes an operation of the server: method, path, parameters, answers and errors, as data.

`operations.py` and `agent_operations.py` are the tables of these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import PyFlueError

Schema = Mapping[str, Any]
JSON = "application/json"
EVENT_STREAM = "text/event-stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """Something an operation takes outside of its body."""

    name: str
    place: str
    about: str
    schema: Schema
    example: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer that is not an error: media types and the names of their shapes (None: bytes or text)."""

    about: str
    content: Mapping[str, str | None] = field(default_factory=dict[str, str | None])
    names_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """What an operation takes as its body: any JSON, or a shape of a name."""

    shape: str | None = None
    is_required: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path."""

    id: str
    method: str
    path: str
    tag: str
    summary: str
    about: str = ""
    parameters: Sequence[Parameter] = ()
    replies: Mapping[int, Reply]
    errors: Sequence[type[PyFlueError]] = ()
    body: Body | None = None
    #: Whether the answer may have a status that a workflow's author chose.
    has_chosen_status: bool = False


TEXT: Schema = {"type": "string", "minLength": 1}
WORDS: Schema = {"type": "array", "items": {"type": "string", "minLength": 1, "maxLength": 128}, "maxItems": 50}
TIME: Schema = {"type": "string", "format": "date-time"}
INDEX: Schema = {"type": "integer", "minimum": 0, "maximum": 10**15 - 1}


def query(name: str, about: str, schema: Schema, example: Any = None) -> Parameter:
    """A parameter of the query string."""
    return Parameter(name=name, place="query", about=about, schema=schema, example=example)


IDEMPOTENCY_KEY = Parameter(
    name="Idempotency-Key",
    place="header",
    about="Requests with the same key start one run; every answer names that run.",
    schema={"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
    example="order-4711",
)
AFTER = query("after", "The last `index` that was seen; 0 reads from the start.", INDEX, 0)
LAST_EVENT_ID = Parameter(
    name="Last-Event-ID",
    place="header",
    about="As `after`, which wins.",
    schema={"type": "string", "pattern": "^[0-9]{1,15}$"},
    example="17",
)
