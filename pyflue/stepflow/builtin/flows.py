"""Built-in components that run flows: `eval`, `iterate` and `map`.

An inline flow comes as a value, so authors protect it with `$literal`, or the outer flow would evaluate it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from ..document import Flow, read_flow
from ..exceptions import LanguageError
from ..outcome import ErrorCode, Failed, Outcome, Skipped, Success, to_wire
from ..plugins.port import ComponentCall, ComponentFailed, ComponentSkipped
from ..sizes import problem_with
from .inputs import Fields

_ITERATIONS = 1000


async def evaluate(call: ComponentCall, folder: Path) -> Any:
    """`{"result": <outcome>, "run_id"}`. A flow that fails is a result like any other."""
    fields = Fields(call.component, call.input)
    flow_id, given = fields.required("flow_id", str), fields.required("input")
    try:
        flow = await call.services.stored_flow(flow_id)
    except (ValueError, LookupError) as error:
        raise fields.refusal("flow_id", str(error).rstrip(".")) from error
    [outcome] = await _run(call, fields, "flow_id", flow, [given])
    return {"result": to_wire(outcome), "run_id": call.run_id}


async def iterate(call: ComponentCall, folder: Path) -> Any:
    """`{"result", "iterations", "terminated"}`."""
    fields = Fields(call.component, call.input)
    flow = _flow(fields, "flow")
    value = fields.required("initial_input")
    most = fields.optional("max_iterations", int, default=_ITERATIONS)
    if most < 0:
        raise fields.refusal("max_iterations", "it is a number of rounds, 0 or more")
    for number in range(most):
        [outcome] = await _run(call, fields, "flow", flow, [value], first=number)
        if isinstance(outcome, Failed):
            raise ComponentFailed(outcome.message, failure=outcome)
        if isinstance(outcome, Skipped):
            raise ComponentSkipped(outcome.reason)
        answer: Mapping[str, Any] = cast("Any", outcome.value) if isinstance(outcome.value, Mapping) else {}
        if "result" in answer:
            return {"result": answer["result"], "iterations": number + 1, "terminated": False}
        if "next" not in answer:
            text = "Workflow result must contain either 'result' or 'next' field"
            raise ComponentFailed(text, failure=Failed(ErrorCode.BAD_REQUEST, text), is_retryable=False)
        value = answer["next"]
    return {"result": value, "iterations": most, "terminated": True}


async def map_items(call: ComponentCall, folder: Path) -> Any:
    """`{"results": [<outcome>], "successful", "failed"}`. Items that fail do not fail the step."""
    fields = Fields(call.component, call.input)
    flow = _flow(fields, "workflow")
    items = fields.required("items", list)
    at_once = fields.optional("max_concurrency", int)
    if at_once is not None and at_once < 1:
        raise fields.refusal("max_concurrency", "it is a number of items at once, 1 or more")
    outcomes = await _run(call, fields, "workflow", flow, items, max_concurrency=at_once)
    results = [to_wire(outcome) for outcome in outcomes]
    if (problem := problem_with(results)) is not None:
        raise ComponentFailed(f"The results cannot be passed on: {problem}.", is_retryable=False)
    return {
        "results": results,
        "successful": sum(isinstance(outcome, Success) for outcome in outcomes),
        "failed": sum(isinstance(outcome, Failed) for outcome in outcomes),
    }


async def _run(
    call: ComponentCall,
    fields: Fields,
    name: str,
    flow: Flow,
    inputs: Sequence[Any],
    *,
    first: int = 0,
    max_concurrency: int | None = None,
) -> list[Outcome]:
    """The outcomes of a flow that came in a field.

    Raises:
        ComponentFailed: it cannot be run without more than it gets here: it requires variables.
    """
    try:
        return await call.services.run_flows(flow, inputs, first=first, max_concurrency=max_concurrency)
    except LanguageError as error:
        raise fields.refusal(name, f"the flow cannot be run: {str(error).rstrip('.')}") from error


def _flow(fields: Fields, name: str) -> Flow:
    """An inline flow.

    Raises:
        ComponentFailed: it is none.
    """
    value = fields.required(name, dict)
    try:
        return read_flow(value)
    except LanguageError as error:
        raise fields.refusal(name, f"it is not a flow: {str(error).rstrip('.')}") from error
