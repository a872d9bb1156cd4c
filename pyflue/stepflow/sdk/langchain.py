"""LangChain runnables as components. Imported only by those who use them; needs langchain-core.

Called by `StepflowServer.langchain_component`. The input is that of stepflow-ai/stepflow,
`sdks/python/stepflow-server` (`server.py`): what is in `input` goes to the runnable, `config` around it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from .components import ComponentEntry
from .context import StepflowContext
from .exceptions import StepflowExecutionError
from .shapes import Schema

MODES = ("invoke", "batch", "stream")
_CONFIG_FIELDS = ("run_name", "tags", "metadata", "max_concurrency")


class RunnableInput(msgspec.Struct, frozen=True):
    """What a component that is a runnable takes."""

    input: Any = None
    config: dict[str, Any] | None = None
    execution_mode: str | None = None


def runnable_component(
    name: str, factory: Callable[..., Any], description: str | None, execution_mode: str
) -> ComponentEntry:
    """The component of the runnable that `factory` gives.

    Raises:
        StepflowExecutionError, ValueError: as `StepflowServer.langchain_component`.
    """
    _check_mode(execution_mode)
    kind = _runnable_class()
    try:
        runnable = factory()
    except Exception as error:  # the factory is an author's and may raise anything
        raise StepflowExecutionError(f"The LangChain runnable of component {name} cannot be made: {error}") from error
    if not isinstance(runnable, kind):
        raise StepflowExecutionError(
            f"The function of component {name} must return a LangChain Runnable, not a {type(runnable).__name__}."
        )

    async def run(input: RunnableInput, context: StepflowContext) -> Any:  # noqa: A002  (the input)
        mode = input.execution_mode or execution_mode
        _check_mode(mode)
        given = input.config or {}
        config = {field: given[field] for field in _CONFIG_FIELDS if field in given}
        config["metadata"] = {**config.get("metadata", {}), "stepflow_context": context}
        if mode == "batch":
            return await runnable.abatch(input.input, config=config)
        if mode == "stream":
            return [chunk async for chunk in runnable.astream(input.input, config=config)]
        return await runnable.ainvoke(input.input, config=config)

    inner = _schema_of(runnable, "get_input_schema")
    schema: Schema = {
        "type": "object",
        "properties": {
            "input": {} if inner is None else {key: part for key, part in inner.items() if key != "$defs"},
            "config": {"type": ["object", "null"]},
            "execution_mode": {"enum": [*MODES, None]},
        },
    }
    if inner is not None and "$defs" in inner:
        schema["$defs"] = inner["$defs"]  # where its references look for them
    output = _schema_of(runnable, "get_output_schema") if execution_mode == "invoke" else None
    return ComponentEntry(name, run, description, locals()).with_schemas(schema, output)


def _runnable_class() -> Any:
    try:
        from langchain_core.runnables import (  # pyright: ignore[reportMissingImports]  (nobody has to have it)
            Runnable,  # pyright: ignore[reportUnknownVariableType]
        )
    except ImportError as error:
        raise StepflowExecutionError(
            "A component that is a LangChain runnable needs langchain-core: pip install langchain-core"
        ) from error
    return Runnable  # pyright: ignore[reportUnknownVariableType]


def _check_mode(mode: str) -> None:
    if mode not in MODES:
        raise ValueError(f"Invalid execution_mode {mode!r}: it must be one of {', '.join(MODES)}.")


def _schema_of(runnable: Any, method: str) -> Schema | None:
    try:
        return getattr(runnable, method)().model_json_schema()
    except Exception:  # noqa: BLE001  (runnables of all kinds; many cannot say)
        return None
