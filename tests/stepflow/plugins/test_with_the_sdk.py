"""Component servers made with our own SDK, over both transports."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from pyflue.stepflow.config import read_config_value
from pyflue.stepflow.plugins.environment import Environment
from pyflue.stepflow.plugins.port import ComponentSkipped
from tests.stepflow.plugins.doubles import PYTHON, Services, call_of, children, failure_of

SERVER = """
from pyflue.stepflow.sdk import SkipStep, StepflowContext, StepflowServer

server = StepflowServer(include_builtins=False)

@server.component
def double(input: dict) -> dict:
    if "skip" in input:
        raise SkipStep(input["skip"])
    return {"value": input["value"] * 2}

@server.component
async def keep(input: dict, context: StepflowContext) -> dict:
    blob_id = await context.put_blob(input)
    return {"got": await context.get_blob(blob_id), "attempt": context.attempt, "step": context.step_id}

server.start_stdio()
"""


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    (tmp_path / "server.py").write_text(SERVER)
    server = {"type": "stepflow", "transport": "stdio", "command": PYTHON, "args": ["server.py"]}
    # The package is found from the folder of the repository only if that is said.
    env = {"PYTHONPATH": str(Path(__file__).parents[3])}
    value: Any = {"plugins": {"python": {**server, "env": env}}, "routes": {"/python": [{"plugin": "python"}]}}
    return Environment(read_config_value(value, tmp_path))


async def test_components_of_the_sdk_do_their_work_and_ask_for_what_they_need(environment: Environment) -> None:
    plugin = environment.plugin("python")
    services = [Services() for _ in range(10)]

    found = await environment.components()
    doubled = await plugin.execute(call_of("/double", {"value": 4}))
    kept = await asyncio.gather(
        *(plugin.execute(call_of("/keep", {"n": n}, services=each)) for n, each in enumerate(services))
    )
    with pytest.raises(ComponentSkipped, match="not today"):
        await plugin.execute(call_of("/double", {"skip": "not today"}))
    failed = await failure_of(plugin, "/double", {})
    await environment.close()

    assert [info.path for info in found.components] == ["/python/double", "/python/keep"]
    assert doubled == {"value": 8}
    assert kept == [{"got": {"n": n}, "attempt": 1, "step": "step-1"} for n in range(10)]
    assert [[data for data, _ in each.blobs.values()] for each in services] == [[{"n": n}] for n in range(10)]
    assert "'value'" in failed.message
    assert not children()
