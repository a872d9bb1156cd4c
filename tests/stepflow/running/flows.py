"""Flows in this process: a plugin of functions, and the scheduler without a journal."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pyflue.stepflow.backoff import Backoff
from pyflue.stepflow.batch import DEFAULT_CONCURRENCY, Batch, run_batch
from pyflue.stepflow.blobs import Blobs, MemoryShelves
from pyflue.stepflow.builtin import BuiltinPlugin
from pyflue.stepflow.document import flow_id, read_flow
from pyflue.stepflow.keeper import DirectKeeper, Place
from pyflue.stepflow.outcome import Outcome
from pyflue.stepflow.overrides import apply_overrides
from pyflue.stepflow.plugins.port import ComponentCall, ComponentFailed, ComponentInfo, Plugin
from pyflue.stepflow.services import surround
from pyflue.stepflow.variables import resolve_variables


class Functions:
    """A plugin whose components are functions of this process. Notes the order in which they were called."""

    def __init__(self, **functions: Callable[..., Any]) -> None:
        self.functions: dict[str, Callable[..., Any]] = {"echo": lambda value: value, **functions}
        self.called: list[str] = []
        self.attempts: list[int] = []
        self.now = 0
        self.most = 0

    def is_composite(self, component: str) -> bool:
        return False

    async def components(self) -> Sequence[ComponentInfo]:
        return [ComponentInfo(path=f"/{name}") for name in self.functions]

    async def execute(self, call: ComponentCall) -> Any:
        self.called.append(call.step_id)
        self.attempts.append(call.attempt)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            function = self.functions[call.component.removeprefix("/")]
            takes_call = len(inspect.signature(function).parameters) > 1
            value = function(call.input, call) if takes_call else function(call.input)
            return await value if inspect.isawaitable(value) else value
        finally:
            self.now -= 1

    async def close(self) -> None:
        pass


@dataclass(frozen=True)
class Found:
    plugin: Plugin
    component: str


@dataclass
class Routes:
    """`/builtin/…` is built in, everything else a function."""

    functions: Functions
    builtin: BuiltinPlugin = field(init=False)
    folder: Any = "."

    def __post_init__(self) -> None:
        from pathlib import Path

        self.builtin = BuiltinPlugin(Path(self.folder))

    def resolve(self, component: str, input: Any) -> Found:  # noqa: A002  (the port has this name)
        if component.startswith("/builtin/"):
            return Found(self.builtin, component.removeprefix("/builtin"))
        if component.removeprefix("/") not in self.functions.functions:
            raise ComponentFailed(f"no route for {component}")
        return Found(self.functions, component)


async def run_items(
    document: Mapping[str, Any],
    inputs: Sequence[Any],
    functions: Functions | None = None,
    *,
    variables: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
    max_concurrency: int = DEFAULT_CONCURRENCY,
    folder: Any = ".",
    blobs: Blobs | None = None,
    backoff: Backoff | None = None,
) -> list[Outcome]:
    flow = apply_overrides(read_flow(document), overrides)
    around = surround(
        run_id="run-1",
        router=Routes(functions or Functions(), folder=folder),
        keeper=DirectKeeper(),
        blobs=blobs or Blobs(MemoryShelves()),
        backoff=backoff,
    )
    batch = Batch(
        flow=flow,
        flow_id=flow_id(flow),
        inputs=inputs,
        variables=resolve_variables(flow, variables or {}),
        max_concurrency=max_concurrency,
    )
    async with asyncio.timeout(20):
        return await run_batch(batch, around, Place())


async def run(
    document: Mapping[str, Any], given: Any = None, functions: Functions | None = None, **more: Any
) -> Outcome:
    [outcome] = await run_items(document, [given], functions, **more)
    return outcome
