"""The workflow of flows that come with a request: the run's payload names a stored flow and holds its inputs.

`POST /api/v1/runs`, `pyflue flow run` and `StepflowRuntime` start runs of it (`runs.py`). The flow is on the journal's
shelf of flows, variables are in the run's definition, so no file is needed to take such a run up again; a config that
was named when it was started is used again. What each item
came to is recorded as it ends.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import codec
from ..codec import Raw
from ..engine import FlueContext, Graph, Recovery, calls_of, definition_of
from ..engine.noting import note_step
from ..engine.scopes import Scope, current, inside
from ..errors import PayloadInvalid, PyFlueError
from ..typed import misfits
from .backend import uuid_of
from .batch import DEFAULT_CONCURRENCY, Batch
from .dialect import INLINE, KIND
from .exceptions import OverridesInvalid
from .outcome import Failed, Outcome, to_wire
from .overrides import apply_overrides
from .workflow import blobs_of, run_durably, variables_of

#: The type of the error of a run whose flow failed; its details are the failure.
FLOW_FAILED = "flow_failed"

_SCHEMA = {
    "type": "object",
    "properties": {
        "flow_id": {"type": "string"},
        "inputs": {"type": "array", "minItems": 1},
        "overrides": {"type": ["object", "null"]},
        "max_concurrency": {"type": ["integer", "null"], "minimum": 1},
    },
    "required": ["flow_id", "inputs"],
}


def shown_id(run_id: str) -> str:
    """The UUID by which the API and components know a run of the engine."""
    return uuid_of(run_id.rpartition(":")[2])


def item_name(index: int) -> str:
    """The name of the step that holds what an item came to."""
    return f"item-{index}"


@dataclass(frozen=True, slots=True, kw_only=True)
class InlineFlow:
    """The workflow of flows that come with a request."""

    name: str = INLINE
    path: Path = field(default_factory=lambda: Path(INLINE))
    version: str = "1"
    description: str = "A flow that comes with its request."
    kind: str = KIND
    recovery: Recovery = Recovery.RESUME
    is_strict: bool = False
    input_schema: Mapping[str, Any] = field(default_factory=lambda: _SCHEMA)
    output_schema: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def parse(self, payload: Any) -> Any:
        if not _is_payload(payload):
            problems = misfits(payload, self.input_schema)
            raise PayloadInvalid(self.name, problems or [{"path": "$", "message": "it names no flow and inputs."}])
        return payload

    def graph(self) -> Graph | None:
        return None

    async def run(self, ctx: FlueContext[Any]) -> Any:
        given: Mapping[str, Any] = ctx.payload
        calls = calls_of(ctx)
        try:
            flow = await blobs_of(calls.resources, calls.journal).flow(given["flow_id"])
            patched = apply_overrides(flow, given["overrides"]) if given.get("overrides") else flow
        except (LookupError, OverridesInvalid, ValueError) as error:
            raise PyFlueError(str(error), type="flow_invalid") from error
        definition: Mapping[str, Any] = await definition_of(ctx) or {}
        inputs: Sequence[Any] = given["inputs"]
        batch = Batch(
            flow=patched,
            flow_id=given["flow_id"],
            inputs=inputs,
            variables=variables_of(patched, definition.get("variables") or {}),
            max_concurrency=given.get("max_concurrency") or DEFAULT_CONCURRENCY,
        )
        here = current()
        assert here is not None  # noqa: S101  (a workflow runs in a scope)

        def note(position: int, outcome: Outcome) -> None:
            with inside(Scope(here.owner)):
                note_step(calls, item_name(position), Raw(codec.encode(to_wire(outcome))))

        config = definition.get("config")
        named = None if config is None else Path(config)
        outcomes = await run_durably(batch, ctx, folder=None, run_id=shown_id(ctx.id), config=named, on_end=note)
        failed = [outcome for outcome in outcomes if isinstance(outcome, Failed)]
        if failed:
            more = "" if len(outcomes) == 1 else f" ({len(failed)} of {len(outcomes)} items failed)"
            raise PyFlueError(f"{failed[0].message}{more}", type=FLOW_FAILED, details=failed[0].to_error())
        return [to_wire(outcome) for outcome in outcomes]


def _is_payload(payload: Any) -> bool:
    match payload:
        case {"flow_id": str(), "inputs": [_, *_]}:
            most = payload.get("max_concurrency")
            has_overrides = isinstance(payload.get("overrides"), (Mapping, type(None)))
            return has_overrides and (most is None or (type(most) is int and most > 0))
        case _:
            return False


@functools.cache
def inline_workflow() -> InlineFlow:
    """The workflow of flows that come with a request."""
    return InlineFlow()
