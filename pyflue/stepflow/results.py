"""What executors answer: outcomes as `FlowResult`s, diagnostics as `ValidationResult`s. Used by client and runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, cast

from .exceptions import DocumentMalformed, FlowMalformed, place_text
from .executor import Diagnostic, FlowResult, ValidationResult
from .outcome import Failed, Outcome, Skipped, Success

#: A flow as a caller gives it: a file, or the value that such a file holds.
FlowGiven: TypeAlias = "str | Path | Mapping[str, Any]"

_INVALID = 400
_CANCELLED = 499
_LEVELS = {1: "fatal", 2: "error", 3: "warning"}


def flow_value(flow: FlowGiven) -> Any:
    """A flow as a JSON value.

    Raises:
        FileNotFoundError, DocumentMalformed, FlowMalformed
    """
    if isinstance(flow, Mapping):
        return flow
    from .document import read_flow_text

    path = Path(flow)
    if not path.is_file():
        raise FileNotFoundError(f"Workflow file not found: {path}")
    return read_flow_text(path.read_bytes(), path.suffix).source


def inputs_of(given: Any) -> Sequence[Any]:
    """The inputs of a run: a list is a batch."""
    return cast("Sequence[Any]", given) if isinstance(given, list) else [given]


def result_of(outcomes: Sequence[Outcome | None], *, run_id: str, is_cancelled: bool = False) -> FlowResult:
    """The result of a run with one item or several. The output of a batch is `{"value": [output, …]}`."""
    if is_cancelled:
        return FlowResult.failed(_CANCELLED, f"Run {run_id} was cancelled")
    known = [outcome or Failed(500, f"Run {run_id} failed without a result") for outcome in outcomes]
    if len(known) == 1:
        return _result(known[0])
    values: list[Any] = []
    for index, outcome in enumerate(known):
        if isinstance(outcome, Failed):
            return FlowResult.failed(int(outcome.code), f"Item {index}: {outcome.message}", outcome.data)
        values.append(outcome.value if isinstance(outcome, Success) else None)
    return FlowResult.success({"value": values})


def _result(outcome: Outcome) -> FlowResult:
    match outcome:
        case Success(value):
            return FlowResult.success(cast("dict[str, Any]", value) if isinstance(value, dict) else {"value": value})
        case Failed(code, message, data):
            return FlowResult.failed(int(code), message, data)
        case Skipped(reason):
            return FlowResult.skipped(reason)


def validation_of(flow_id: str | None, diagnostics: Mapping[str, Any]) -> ValidationResult:
    """What was found in a flow, from what `Backend.store_flow` answers."""
    found = [
        _diagnostic(one)
        for one in cast("list[Mapping[str, Any]]", diagnostics.get("diagnostics") or [])
        if not one.get("ignore")
    ]
    return ValidationResult(valid=flow_id is not None, diagnostics=found)


def unreadable(error: DocumentMalformed | FlowMalformed) -> ValidationResult:
    """The same for what is no flow at all."""
    if isinstance(error, DocumentMalformed):
        found = [Diagnostic("fatal", error.message, f"line {error.line}, column {error.column}")]
    else:
        found = [Diagnostic("fatal", problem.message, place_text(problem.path)) for problem in error.problems]
    return ValidationResult(valid=False, diagnostics=found)


def refused(validation: ValidationResult) -> FlowResult:
    """The result of a flow that cannot be run."""
    errors = [found.message for found in validation.diagnostics if found.level in {"fatal", "error"}]
    return FlowResult.failed(_INVALID, "Workflow validation failed", {"errors": errors})


def _diagnostic(found: Mapping[str, Any]) -> Diagnostic:
    level = found.get("level", "error")
    text = found.get("text") or found.get("formatted") or ""
    return Diagnostic(_LEVELS.get(level, str(level)), str(text), _place(found.get("path")))


def _place(path: Any) -> str | None:
    """Where in a flow, as a path; servers say `[{"String": "steps"}, {"Index": 0}]`, or such a path."""
    if not isinstance(path, list):
        return path if isinstance(path, str) else None
    parts = [cast("Mapping[str, Any]", part) for part in cast("list[Any]", path) if isinstance(part, Mapping)]
    return "$" + "".join(f"[{part['Index']}]" if "Index" in part else f".{part.get('String')}" for part in parts)
