"""Whatever a component raises is the failure of its step, and of nothing else; what is secret is not in it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pyflue.journal import Journal
from pyflue.stepflow.backend import NewRun
from pyflue.stepflow.outcome import Failed, Success
from pyflue.stepflow.plugins.port import ComponentFailed
from pyflue.stepflow.variables import secret_paths, secrets_among
from tests.engine.durable import result_of

from ..api.serving import flow, memory_backend
from ..running.flows import Functions, run
from ..running.test_durable import run_flow
from ..running.test_scheduler import step

SECRET = "hunter2-hunter2"


def refuse(value: Any) -> Any:
    raise ValueError("no such thing")


def quit_unasked(value: Any) -> Any:
    raise asyncio.CancelledError


RAISING: dict[str, Callable[[Any], Any]] = {"refuse": refuse, "quit": quit_unasked}
TWO = {
    "steps": [
        step("bad", "/bad", onError={"action": "useDefault", "defaultValue": 7}),
        step("good", input=2),
    ],
    "output": [{"$step": "bad"}, {"$step": "good"}],
}


@pytest.mark.parametrize("name", RAISING)
async def test_what_a_plugin_raises_is_the_failure_of_its_step(name: str) -> None:
    assert await run(TWO, functions=Functions(bad=RAISING[name])) == Success([7, 2])


@pytest.mark.parametrize("name", RAISING)
async def test_what_a_plugin_raises_is_the_failure_of_its_recorded_step(
    name: str,
    tmp_path: Path,
    journal: Journal,
) -> None:
    done = await run_flow(tmp_path, journal, TWO, functions=Functions(bad=RAISING[name]))

    assert result_of(done) == [7, 2]


async def test_an_unexpected_exception_is_told_with_its_type() -> None:
    outcome = await run({"steps": [step("a", "/bad")], "output": {"$step": "a"}}, functions=Functions(bad=refuse))

    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.message) == (500, 'step "a" failed: ValueError: no such thing')


@pytest.mark.parametrize(
    ("component", "field", "given"),
    [
        ("map", "workflow", {"items": [1]}),
        ("iterate", "flow", {"initial_input": 1}),
    ],
)
async def test_a_flow_that_lacks_a_variable_fails_the_step_that_runs_it(
    component: str, field: str, given: dict[str, Any]
) -> None:
    wanting = {"schemas": {"properties": {"variables": {"required": ["region"]}}}, "steps": [], "output": 1}
    a = step("a", f"/builtin/{component}", input={field: {"$literal": wanting}, **given})

    outcome = await run({"steps": [a], "output": {"$step": "a"}})

    problem = f"field {field!r}: the flow cannot be run: Missing required variable: region."
    assert isinstance(outcome, Failed)
    assert outcome.message == f'step "a" failed: Invalid input for /{component}: {problem}'


def declaring(**properties: Any) -> dict[str, Any]:
    variables = {"type": "object", "properties": properties}
    return {
        "schemas": {"$defs": {"Key": {"type": "string", "is_secret": True}}, "properties": {"variables": variables}}
    }


@pytest.mark.parametrize("schema", [{"type": "string", "is_secret": True}, {"$ref": "#/schemas/$defs/Key"}])
async def test_a_secret_that_a_component_repeats_is_not_in_its_failure(schema: Any, tmp_path: Path) -> None:
    steps = [step("look", "/get_blob", input={"blob_id": {"$variable": "key"}})]
    steps += [step("inner", "/map", input={"workflow": {"$literal": LOOKING}, "items": [{"$variable": "key"}]})]
    async with memory_backend(tmp_path) as backend:
        output = {"look": {"$coalesce": [{"$step": "look"}]}}
        stored = await backend.store_flow(flow(steps, output, **declaring(key=schema)))
        counted = await backend.store_flow(flow(steps, {"$step": "inner"}, **declaring(key=schema)))
        for flow_id in (stored.flow_id, counted.flow_id):
            assert flow_id is not None
            new = NewRun(flow_id=flow_id, inputs=[1], variables={"key": SECRET})
            started = await backend.start(new, wait_s=5)
            details = await backend.run(started.run_id)
            told = [await backend.items(started.run_id), await backend.steps(started.run_id), details]

            assert details.variables == {"key": "[REDACTED]"}
            assert SECRET not in str(told)
            assert "'[REDACTED]' is not a blob id" in str(told)


LOOKING = {
    "steps": [{"id": "l", "component": "/get_blob", "input": {"blob_id": {"$input": None}}}],
    "output": {"$step": "l"},
}


async def test_a_secret_is_not_in_what_is_recorded_of_a_failure(
    tmp_path: Path,
    journal: Journal,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def repeat(value: Any) -> Any:
        said = f"cannot use {value}"
        raise ComponentFailed(said, failure=Failed(418, said, {"given": [value]}), attachments=[said])

    monkeypatch.setenv("STEPFLOW_VAR_KEY", json.dumps(SECRET))
    document = flow(
        [step("a", "/repeat", input={"$variable": "key"})], {"$step": "a"}, **declaring(key={"is_secret": True})
    )

    done = await run_flow(tmp_path, journal, document, functions=Functions(repeat=repeat))

    recorded = [await journal.events(done.run_id), await journal.steps(done.run_id), done]
    told = "".join(str(bytes(memoryview(part))) for part in _raw_in(recorded))
    assert "cannot use [REDACTED]" in told
    assert SECRET not in told


def _raw_in(recorded: list[Any]) -> list[Any]:
    events, steps, done = recorded
    raw = [event.data for event in events] + [one for found in steps for one in (found.value, found.error)]
    return [one for one in (*raw, done.result, done.error) if one is not None]


def test_secrets_are_found_through_references_and_alternatives_also_in_circles() -> None:
    shared = {"Key": {"is_secret": True}, "Tree": {"properties": {"key": {"$ref": "#/$defs/Key"}, "sub": TREE}}}

    paths = secret_paths({"properties": {"a": {"anyOf": [{"$ref": "#/schemas/$defs/Key"}]}, "b": TREE}}, shared)

    assert set(paths) == {("a",), ("b", "key")}


TREE = {"$ref": "#/schemas/$defs/Tree"}


def test_short_secrets_are_not_looked_for_in_texts() -> None:
    from pyflue.stepflow.document import read_flow

    one = read_flow({"steps": [], "output": 1, **declaring(a={"is_secret": True}, b={"is_secret": True})})

    assert secrets_among(one, {"a": "no", "b": {"x": ["abcdef", "abcdefg"]}}) == ("abcdefg", "abcdef")
