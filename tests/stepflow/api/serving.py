"""The API over both backends, in the test's own event loop: that of a project, and that of flows without one."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import jsonschema
from starlette.types import ASGIApp

from pyflue.stepflow.app import create_app
from pyflue.stepflow.backend import Backend
from pyflue.stepflow.config import default_config
from pyflue.stepflow.environments import environment_for
from pyflue.stepflow.memory_runs import MemoryBackend
from pyflue.stepflow.openapi import dialect_operations
from tests.server.harness import in_process

Json = dict[str, Any]

KINDS = ("project", "memory")
LIMIT_BYTES = 1024 * 1024


@asynccontextmanager
async def memory_backend(folder: Path) -> AsyncIterator[Backend]:
    """Flows with the built-in components."""
    backend = MemoryBackend(environment_for(default_config(folder)), limit_bytes=LIMIT_BYTES)
    try:
        yield backend
    finally:
        await backend.close()


@asynccontextmanager
async def serving(kind: str, folder: Path) -> AsyncIterator[ASGIApp]:
    """An application that has the API."""
    if kind == "project":
        (folder / "src" / "workflows").mkdir(parents=True, exist_ok=True)
        async with in_process(folder, limits__payload_bytes=LIMIT_BYTES) as here:
            yield here.app
    else:
        async with memory_backend(folder) as backend:
            yield create_app(backend)


def step(name: str, component: str, given: Any = None, **fields: Any) -> Json:
    return {"id": name, "component": component, "input": given, **fields}


def flow(steps: Sequence[Json], output: Any, **fields: Any) -> Json:
    return {"name": "sample", "description": "A sample.", "steps": list(steps), "output": output, **fields}


#: Gives back `value` of its input, by way of a step.
ECHO = flow([step("echo", "/noop", {"value": {"$input": "value"}})], {"$step": "echo", "path": "value"})
#: Goes on until somebody ends it.
ENDLESS = flow([step("rest", "/sleep", {"duration_ms": 3_600_000})], {"$step": "rest"}, name="endless")
#: Fails, with a failure of a component.
BROKEN = flow([step("look", "/get_blob", {"blob_id": "0" * 64})], {"$step": "look"}, name="broken")


class Described:
    """Compares answers with what the API's OpenAPI document says of them."""

    def __init__(self) -> None:
        self._paths = [
            (re.compile(re.sub(r"\{[^}]+\}", "[^/]+", path)), operations)
            for path, operations in dialect_operations().items()
        ]
        self.seen: set[tuple[str, int]] = set()

    async def check(self, response: httpx2.Response) -> None:
        """A hook of clients."""
        await response.aread()
        path, method = response.request.url.path, response.request.method.lower()
        [operations] = [operations for pattern, operations in self._paths if pattern.fullmatch(path)]
        answers = operations[method]["responses"]
        assert str(response.status_code) in answers, f"{method} {path}: {response.status_code} is not described"
        content = answers[str(response.status_code)].get("content")
        if content is None:
            assert response.content == b""
        else:
            jsonschema.validate(response.json(), content["application/json"]["schema"])
        self.seen.add((operations[method]["operationId"], response.status_code))
