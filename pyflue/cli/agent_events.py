"""Events of agents in words: turns, tool calls, tasks, commands, and what was asked of a continuing agent.

Part of `events`, for what a person wants to see of model work: who was asked, what it said and called, what that took
and cost. The ids that tie such events together are left out; the key of the step says where in the work they belong,
and `--format ndjson` has them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from .. import codec
from ..journal import EventType
from .output import error_lines, paint, safe_json, shown, took, used
from .waits import describe

Fields: TypeAlias = dict[str, Any]

#: As much of what was said, asked or answered as is shown on a line.
_LONGEST = 200
_IDS = ("operation_id", "turn_id", "tool_call_id", "task_id", "session", "parent_session")


def _operation_start(fields: Fields) -> list[str]:
    fields.pop("kind", None)
    return [_step(fields), _quoted(fields.pop("text", ""))]


def _operation(fields: Fields) -> list[str]:
    fields.pop("kind", None)
    turns = fields.pop("turns", 0)
    costs = f"{turns:,} turn{'' if turns == 1 else 's'}" if turns else ""
    return [_step(fields), *_end(fields), *_listed(costs, used(fields.pop("usage", None))), _why(fields)]


def _turn_request(fields: Fields) -> list[str]:
    purpose = _purpose(fields)
    return [_step(fields), "asks", shown(str(fields.pop("model", ""))), purpose, _attempt(fields)]


def _turn(fields: Fields) -> list[str]:
    purpose, attempt, step = _purpose(fields), _attempt(fields), _step(fields)
    model, usage = shown(str(fields.pop("model", ""))), used(fields.pop("usage", None))
    if fields.get("stop_reason") in ("end", "tool_use"):  # what is to be expected
        del fields["stop_reason"]
    calls: Any = fields.pop("tool_calls", ())
    names = ", ".join(shown(str(call.get("tool"))) for call in calls)
    took_ms = fields.pop("duration_ms", None)
    parts = [step, model, purpose, attempt, _duration(took_ms), *_listed(usage)]
    return [*parts, _quoted(fields.pop("text", "")), f"calls {names}" if names else ""]


def _tool_start(fields: Fields) -> list[str]:
    fields.pop("tool", None)  # the key ends with it
    return [_step(fields), _cut(safe_json(codec.encode(fields.pop("arguments", {}))).decode())]


def _tool_end(fields: Fields) -> list[str]:
    fields.pop("tool", None)
    parts = [_step(fields), *_end(fields)]
    error: Any = fields.pop("error", None)
    if error:  # what it says is the result
        parts += [f"({shown(str(error.get('exception') or error.get('type')))})"]
    outcome = fields.pop("outcome", None)
    parts += [f"{paint('outcome', dim=True)}={shown(str(outcome))}" if outcome else ""]
    result = fields.pop("result", "")
    return [*parts, f"{paint('result', dim=True)}={_quoted(result)}" if result else ""]


def _task_start(fields: Fields) -> list[str]:
    return [_step(fields)]


def _task_end(fields: Fields) -> list[str]:
    return [_step(fields), *_end(fields), _why(fields)]


def _command_end(fields: Fields) -> list[str]:
    if not fields.get("is_timed_out", True):
        del fields["is_timed_out"]
    command = _quoted(fields.pop("command", ""))
    return [command, _duration(fields.pop("duration_ms", None))]


def _command_start(fields: Fields) -> list[str]:
    return [_quoted(fields.pop("command", ""))]


def _error(fields: Fields) -> list[str]:
    return [_step(fields), _why(fields)]


def _interaction_accepted(fields: Fields) -> list[str]:
    """`interaction_id` is the event's own; the other fields are what was asked."""
    kind, asked = shown(str(fields.pop("kind", ""))), fields.pop("interaction_id", None)
    session = fields.pop("session", "default")
    if session != "default":
        fields["session"] = session
    return [kind, "" if asked is None else f"({shown(str(asked))})", _quoted(fields.pop("message", ""))]


def _interaction_waiting(fields: Fields) -> list[str]:
    waits: Any = fields.pop("waits", ())
    ids = (f" ({shown(wait['approval_id'])})" if "approval_id" in wait else "" for wait in waits)
    return ["for", ", ".join(describe(wait) + found for wait, found in zip(waits, ids, strict=True))]


def _interaction_end(fields: Fields) -> list[str]:
    fields.pop("result", None)  # the turn before it has the text, the operation what it cost
    return [paint(str(fields.pop("status", "")), fg="red"), _why(fields)] if "error" in fields else []


#: As `events` has them: each takes what it says out of the fields, the others follow as `name=value`.
WORDS: Mapping[str, Callable[[Fields], list[str]]] = {
    EventType.OPERATION_START: _operation_start,
    EventType.OPERATION: _operation,
    EventType.TURN_REQUEST: _turn_request,
    EventType.TURN: _turn,
    EventType.TOOL_START: _tool_start,
    EventType.TOOL_END: _tool_end,
    EventType.TASK_START: _task_start,
    EventType.TASK_END: _task_end,
    EventType.COMMAND_START: _command_start,
    EventType.COMMAND_END: _command_end,
    EventType.COMPACTION_START: _task_start,
    EventType.COMPACTION_END: _task_start,
    EventType.ERROR: _error,
    EventType.INTERACTION_ACCEPTED: _interaction_accepted,
    EventType.INTERACTION_WAITING: _interaction_waiting,
    EventType.INTERACTION_END: _interaction_end,
}


def without_ids(fields: Fields) -> Fields:
    """The fields of an event of an agent's work, without what only ties it to others."""
    return {name: value for name, value in fields.items() if name not in _IDS} if "operation_id" in fields else fields


def _step(fields: Fields) -> str:
    return shown(str(fields.pop("step", "")))


def _end(fields: Fields) -> list[str]:
    is_error = fields.pop("is_error", False)
    verdict = paint("failed", fg="yellow") if is_error else paint("completed", fg="green")
    return [verdict, _duration(fields.pop("duration_ms", None))]


def _duration(duration_ms: float | None) -> str:
    return "" if duration_ms is None else f"in {took(duration_ms / 1000)}"


def _attempt(fields: Fields) -> str:
    attempt = fields.pop("attempt", 1)
    return "" if attempt == 1 else f"(attempt {attempt})"


def _purpose(fields: Fields) -> str:
    purpose = fields.pop("purpose", "agent")
    return "" if purpose == "agent" else f"for {shown(str(purpose))}"


def _listed(*parts: str) -> list[str]:
    found = ", ".join(part for part in parts if part)
    return [f"({found})"] if found else []


def _why(fields: Fields) -> str:
    error: Any = fields.pop("error", None)
    return f"- {shown(error_lines(error)[0])}" if isinstance(error, dict) else ""  # pyright: ignore[reportUnknownArgumentType]


def _quoted(text: Any) -> str:
    if text == "":
        return ""
    cut = f"{text[:_LONGEST]}…" if isinstance(text, str) and len(text) > _LONGEST else text
    whole = safe_json(codec.encode(cut)).decode()
    return whole if isinstance(text, str) else _cut(whole)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
