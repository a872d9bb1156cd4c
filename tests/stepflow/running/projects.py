"""Flows in a project: files, an engine on a real journal, and a plugin of functions called `fn`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from pyflue import codec
from pyflue.engine import EmbeddedEngine
from pyflue.journal import Journal
from pyflue.stepflow.config import StepflowConfig, read_config_value
from pyflue.stepflow.environments import environments_of
from pyflue.workflows import Catalog
from tests.support import engine_on

from .flows import Functions

CONFIG = {
    "plugins": {
        "builtin": {"type": "builtin"},
        "project": {"type": "pyflue"},
        "fn": {"type": "mock", "components": {}},
    },
    "routes": {
        "/builtin/{*component}": [{"plugin": "builtin"}],
        "/project/{*component}": [{"plugin": "project"}],
        "/{*component}": [{"plugin": "fn"}],
    },
    "retry": {"backoff": {"type": "constant", "delayMs": 5}},
}


def config_at(root: Path) -> StepflowConfig:
    return read_config_value(CONFIG, root)


def write(root: Path, name: str, flow: Any) -> Path:
    path = root / "src" / "workflows" / (name if "." in name else f"{name}.yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(flow if isinstance(flow, str) else yaml.safe_dump(flow, sort_keys=False))
    return path


def catalog_of(root: Path, flows: Mapping[str, Any]) -> Catalog:
    for name, flow in flows.items():
        write(root, name, flow)
    return Catalog(root)


@contextlib.asynccontextmanager
async def flows_on(
    journal: Journal, catalog: Catalog, functions: Functions, **options: Any
) -> AsyncIterator[EmbeddedEngine]:
    """An engine whose flows find the functions."""
    async with contextlib.AsyncExitStack() as stack:
        engine = await stack.enter_async_context(engine_on(journal, catalog, **options))
        environments_of(engine.resources, config_at(catalog.root), {"fn": functions})
        yield engine


async def steps_of(journal: Journal, run_id: str) -> dict[str, Any]:
    """The values of steps by their keys; for failed ones the message of the error."""
    found: dict[str, Any] = {}
    for step in await journal.steps(run_id):
        if step.error is not None:
            found[step.key] = codec.load(step.error)["message"]
        else:
            found[step.key] = codec.load(step.value or codec.NULL)
    return found


class Holding(Functions):
    """Components stand still from the n-th call on."""

    def __init__(self, after: int, **functions: Any) -> None:
        super().__init__(**functions)
        self.left = after
        self.reached = asyncio.Event()
        self.finished: list[str] = []

    async def execute(self, call: Any) -> Any:
        if self.left <= 0:
            self.reached.set()
            await asyncio.Event().wait()
        self.left -= 1
        value = await super().execute(call)
        self.finished.append(call.step_id)
        return value
