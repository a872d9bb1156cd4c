"""The examples and the sample graph do what they say."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

import pyflue.flowgram as fg
from tests.samples.sample_runs import run_sample
from tests.server.harness import client_of

EXAMPLES = Path(__file__).parents[2] / "examples" / "flowgram"


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("fire_and_await", "{'echo': 'hello'}\n"),
        ("task_handle", "processing\n{'echo': 'hello'}\nsucceeded ['start_0', 'end_0']\n"),
        ("from_sync_code", "[\"JSON Schema validation failed: 3 is not of type 'string' (at msg)\"]\n{'echo': 'hi'}\n"),
        ("custom_node", "{'score': 0.5}\n"),
        ("code_node", "{'total': 35.7}\n"),
        ("low_level", "{'echo': 'hello'}\n"),
    ],
)
def test_an_example_prints_what_it_should(name: str, printed: str, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert capsys.readouterr().out == printed


async def test_the_mounted_example_answers() -> None:
    app: Any = runpy.run_path(str(EXAMPLES / "mounted.py"))["app"]
    async with client_of(app) as client:
        assert (await client.get("/_flowgram/info")).json()["title"] == "My graphs"
        schema = (EXAMPLES / "echo.json").read_text()
        assert (await client.post("/_flowgram/task/validate", json={"schema": schema})).json()["valid"]


def test_the_sample_graph_runs_from_the_command_line() -> None:
    orders = [{"id": "a", "total": 120}, {"id": "b", "total": 20.5}, {"id": "c", "total": 100}]
    ran = run_sample("large_orders", {"orders": orders, "limit": 100})
    assert (ran.exit_code, ran.status) == (0, "completed")
    assert ran.result == {"lines": ["a: 120", "c: 100"], "summary": 'Orders from 100 on: ["a: 120", "c: 100"]'}
    schema = (Path(__file__).parents[2] / "src" / "workflows" / "large_orders.json").read_text()
    assert fg.validate(schema, {"orders": orders}) == fg.ValidationResult(valid=True)
