"""A component server is started for each runtime, so it must be light."""

from __future__ import annotations

import subprocess
import sys

import pytest

_SERVER = """
import sys
from pyflue.stepflow import StepflowStdioServer
import msgspec

class Input(msgspec.Struct):
    name: str

server = StepflowStdioServer()

@server.component
def greet(input: Input) -> str:
    return input.name

server.run()
print(*sorted(sys.modules), file=sys.stderr)
"""


def test_a_server_of_plain_functions_loads_next_to_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", _SERVER], input=b"", capture_output=True, check=True, timeout=20)
    loaded = set(done.stderr.decode().split())
    ours = {name for name in loaded if name.startswith("pyflue")}
    assert {name for name in ours if not name.startswith("pyflue.stepflow.sdk")} == {"pyflue", "pyflue.stepflow"}
    assert loaded.isdisjoint(
        {"asyncio", "pydantic", "starlette", "uvicorn", "jsonschema", "yaml", "structlog", "apsw", "langchain_core"}
    )


@pytest.mark.parametrize("module", ["pyflue.stepflow.builder", "pyflue.stepflow.executor"])
def test_building_flows_needs_neither_engine_nor_server(module: str) -> None:
    code = f"import {module}, sys; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=20)
    loaded = done.stdout.decode().split()
    rooms = ("engine", "journal", "server", "agents", "workflows", "cli", "client", "main", "agentflow", "flowgram")
    assert [name for name in loaded if name.startswith(tuple(f"pyflue.{room}" for room in rooms))] == []
    assert {"asyncio", "pydantic", "starlette"}.isdisjoint(loaded)
