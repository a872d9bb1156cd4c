"""Component servers that misbehave, seen from flows: theirs fail as documented, others go on, no process is left."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyflue.stepflow import StepflowRuntime
from tests.promises import promise
from tests.stepflow.plugins.doubles import SERVERS, children, note_children


@pytest.fixture(autouse=True)
def processes() -> Iterator[None]:
    note_children()
    yield
    assert not children()


def config_at(folder: Path) -> Path:
    path = folder / "stepflow-config.yml"
    server = f'{{type: stepflow, transport: stdio, command: "{sys.executable}", args: ["{SERVERS / "components.py"}"]'
    path.write_text(
        f"plugins:\n  bad: {server}, executionTimeoutSecs: 1, maxMessageBytes: 1048576}}\n  good: {server}}}\n"
        "  builtin: {type: builtin}\n"
        'routes:\n  "/bad/{*component}": [{plugin: bad}]\n  "/good/{*component}": [{plugin: good}]\n'
        '  "/{*component}": [{plugin: builtin}]\n'
    )
    return path


def one(component: str, given: Any = None) -> dict[str, Any]:
    return {"steps": [{"id": "s", "component": component, "input": given}], "output": {"$step": "s"}}


@promise("stepflow.faults")
@pytest.mark.parametrize(
    ("component", "given", "said"),
    [
        ("hang", None, "component /hang did not answer within 1 s"),
        ("exit", 7, "component server error(-32603)"),
        ("flood_line", None, "component server error"),
        ("flood_lines", None, "component server error"),
        ("flood_requests", None, "component"),
        ("garbage", None, "component server error"),
        ("batch", None, "component server error"),
        ("deep", None, "component server error"),
        ("no_output", None, "output"),
        ("close_stdout", None, "component"),
    ],
)
async def test_a_server_that_misbehaves_fails_its_flow_and_no_other(
    tmp_path: Path, component: str, given: Any, said: str
) -> None:
    async with StepflowRuntime.start(config_at(tmp_path)) as runtime, asyncio.timeout(60):
        bad, good = await asyncio.gather(
            runtime.run(one(f"/bad/{component}", given), None), runtime.run(one("/good/echo", {"n": 1}), None)
        )
        again = await runtime.run(one("/bad/echo", {"n": 2}), None)

    assert bad.error is not None
    assert (bad.error.code, bad.error.message.startswith('step "s" failed: ')) == (500, True)
    assert said in str(bad.error)
    assert not bad.error.message.endswith("..")
    assert (good.output, again.output) == ({"n": 1}, {"n": 2})


@promise("stepflow.faults")
async def test_a_server_that_answers_twice_or_leaves_children_behind_harms_nobody(tmp_path: Path) -> None:
    async with StepflowRuntime.start(config_at(tmp_path)) as runtime, asyncio.timeout(30):
        twice = await runtime.run(one("/bad/twice"), None)
        left = await runtime.run(one("/bad/children", "600"), None)
        after = await runtime.run(one("/bad/echo", {"n": 3}), None)
        assert children()

    assert (twice.output, left.is_success, after.output) == ({"value": 1}, True, {"n": 3})
