"""The plugin of type `builtin`: finds the component of a path and does its work.

The components are functions of `components.py` and `flows.py`; here stands what each is called and described as.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from ..plugins.port import ComponentCall, ComponentFailed, ComponentInfo
from . import components, flows
from .schemas import SCHEMAS

_Work: TypeAlias = Callable[[ComponentCall, Path], Awaitable[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Component:
    work: _Work
    description: str
    #: Made of durable calls, or of nothing but its input.
    is_composite: bool = False


_COMPONENTS: Mapping[str, _Component] = {
    "/create_messages": _Component(
        work=components.create_messages,
        description="Makes chat messages of a prompt and system instructions.",
        is_composite=True,
    ),
    "/eval": _Component(work=flows.evaluate, description="Runs a stored flow once.", is_composite=True),
    "/get_blob": _Component(work=components.get_blob, description="Gives the value of a blob."),
    "/iterate": _Component(
        work=flows.iterate,
        description="Runs a flow on its own result until it gives `result` and not `next`.",
        is_composite=True,
    ),
    "/load_file": _Component(
        work=components.load_file, description="Reads a JSON, YAML or text file below the working directory."
    ),
    "/map": _Component(work=flows.map_items, description="Runs a flow on each item of a list.", is_composite=True),
    "/noop": _Component(work=components.noop, description="Gives its input back.", is_composite=True),
    "/openai": _Component(work=components.openai, description="Sends messages to a chat model."),
    "/put_blob": _Component(work=components.put_blob, description="Keeps a value and gives its id."),
    "/sleep": _Component(work=components.sleep, description="Waits.", is_composite=True),
}


class BuiltinPlugin:
    """What is built in. `folder` is the working directory of the config."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def is_composite(self, component: str) -> bool:
        found = _COMPONENTS.get(component)
        return found is not None and found.is_composite

    async def components(self) -> Sequence[ComponentInfo]:
        return [
            ComponentInfo(
                path=path,
                description=component.description,
                input_schema=SCHEMAS[path][0],
                output_schema=SCHEMAS[path][1],
            )
            for path, component in _COMPONENTS.items()
        ]

    async def execute(self, call: ComponentCall) -> Any:
        found = _COMPONENTS.get(call.component)
        if found is None:
            from difflib import get_close_matches

            close = get_close_matches(call.component, _COMPONENTS)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise ComponentFailed(f"There is no built-in component {call.component!r}.{hint}", is_retryable=False)
        return await found.work(call, self._folder)

    async def close(self) -> None:
        """There is nothing to let go of."""
