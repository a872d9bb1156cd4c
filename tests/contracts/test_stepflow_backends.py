"""The contract of stepflow's `Backend` port, run against every adapter: in memory, and on an engine with a journal."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from pyflue.errors import IdempotencyConflict, RunFinished, RunNotFinished, RunNotFound
from pyflue.stepflow.backend import (
    Backend,
    FlowNotFound,
    ItemCounts,
    ItemView,
    NewRun,
    NotAFlow,
    RunRefused,
    RunStatus,
    RunsWanted,
    StepStatus,
)
from pyflue.stepflow.environments import environment_for, environments_of
from pyflue.stepflow.exceptions import FlowMalformed
from pyflue.stepflow.memory_runs import MemoryBackend
from pyflue.stepflow.outcome import Failed, Skipped, Success
from pyflue.stepflow.plugins.port import ComponentFailed
from pyflue.stepflow.runs import JournalBackend
from pyflue.workflows import Catalog
from tests.stepflow.running.flows import Functions
from tests.stepflow.running.projects import config_at
from tests.support import engine_on, journal_at

ECHO = {
    "name": "echo",
    "steps": [{"id": "a", "component": "/echo", "input": {"$input": None}}],
    "output": {"$step": "a"},
    "examples": [{"name": "one", "input": 1}],
}


class World:
    """A backend, and the functions that its flows call."""

    def __init__(self, backend: Backend, functions: Functions) -> None:
        self.backend = backend
        self.functions = functions

    async def stored(self, flow: Any) -> str:
        stored = await self.backend.store_flow(flow)
        assert stored.flow_id is not None
        return stored.flow_id

    async def done(self, flow: Any, *inputs: Any, **more: Any) -> str:
        run_id = await self.backend.submit(NewRun(flow_id=await self.stored(flow), inputs=inputs, **more))
        assert await self.backend.wait(run_id, 10)
        return run_id

    async def held(self, *inputs: Any) -> str:
        """A run whose steps stand still."""
        began = asyncio.Event()

        async def hold(value: Any) -> Any:
            began.set()
            await asyncio.Event().wait()

        self.functions.functions["hold"] = hold
        flow = {"steps": [{"id": "h", "component": "/hold"}], "output": {"$step": "h"}}
        run_id = await self.backend.submit(NewRun(flow_id=await self.stored(flow), inputs=inputs))
        async with asyncio.timeout(5):
            await began.wait()
        return run_id


def fail_on(value: Any) -> Any:
    if value == "bad":
        raise ComponentFailed("bad input", failure=Failed(422, "bad input"))
    return value


@pytest.fixture(params=["memory", "journal"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    functions = Functions(fail_on=fail_on)
    async with contextlib.AsyncExitStack() as stack:
        if request.param == "memory":
            made = MemoryBackend(environment_for(config_at(tmp_path), {"fn": functions}), limit_bytes=1000)
            stack.push_async_callback(made.close)
            yield World(made, functions)
            return
        journal = journal_at(tmp_path)
        stack.push_async_callback(journal.close)
        engine = await stack.enter_async_context(engine_on(journal, Catalog(tmp_path)))
        environments_of(engine.resources, config_at(tmp_path), {"fn": functions})
        yield World(JournalBackend(engine, journal, folder=tmp_path, root=tmp_path, limit_bytes=1000), functions)


async def test_a_stored_flow_comes_back_in_its_one_form(world: World) -> None:
    flow_id = await world.stored(ECHO)

    found = await world.backend.flow(flow_id)

    assert (found.flow_id, list(found.examples)) == (flow_id, [{"name": "one", "input": 1}])
    assert found.flow["steps"] == [{"id": "a", "component": "/echo", "input": {"$input": "$"}}]
    assert await world.stored(found.flow) == flow_id


async def test_a_dry_run_says_the_id_and_keeps_nothing(world: World) -> None:
    stored = await world.backend.store_flow(ECHO, dry_run=True)

    assert not stored.is_stored
    assert stored.flow_id is not None
    with pytest.raises(FlowNotFound):
        await world.backend.flow(stored.flow_id)
    assert await world.stored(ECHO) == stored.flow_id


async def test_a_flow_with_a_fatal_fault_is_not_stored(world: World) -> None:
    flow = {"steps": [{"id": "a", "component": "/x"}, {"id": "a", "component": "/x"}]}

    stored = await world.backend.store_flow(flow)

    assert (stored.flow_id, stored.is_stored, stored.diagnostics["numFatal"]) == (None, False, 1)
    with pytest.raises(FlowMalformed):
        await world.backend.store_flow({"steps": 1})


async def test_ids_that_mean_nothing(world: World) -> None:
    with pytest.raises(FlowNotFound):
        await world.backend.flow("0" * 64)
    with pytest.raises(NotAFlow):
        await world.backend.flow("nope")
    for run_id in ("nope", "0190a5b0-0000-7000-8000-000000000000"):
        with pytest.raises(RunNotFound):
            await world.backend.run(run_id)


async def test_a_run_of_one_input(world: World) -> None:
    run_id = await world.done(ECHO, {"n": 1})

    assert UUID(run_id).version == 7
    details = await world.backend.run(run_id)
    summary = details.summary
    assert (summary.run_id, summary.flow_name, summary.status) == (run_id, "echo", RunStatus.COMPLETED)
    assert summary.items == ItemCounts(total=1, completed=1)
    assert summary.completed_at is not None
    assert list(details.inputs) == [{"n": 1}]
    assert await world.backend.items(run_id) == [
        ItemView(item_index=0, status=RunStatus.COMPLETED, outcome=Success({"n": 1}))
    ]
    [step] = await world.backend.steps(run_id)
    assert (step.step_id, step.component, step.status, step.outcome) == (
        "a",
        "/echo",
        StepStatus.COMPLETED,
        Success({"n": 1}),
    )
    assert (await world.backend.run_flow(run_id)).flow_id == summary.flow_id


async def test_a_batch_fails_if_an_item_does_and_has_all_others(world: World) -> None:
    flow = {"steps": [{"id": "a", "component": "/fail_on", "input": {"$input": None}}], "output": {"$step": "a"}}

    run_id = await world.done(flow, 1, "bad", 3)

    assert (await world.backend.run(run_id)).summary.items == ItemCounts(total=3, completed=2, failed=1)
    assert (await world.backend.run(run_id)).summary.status is RunStatus.FAILED
    assert [item.outcome for item in await world.backend.items(run_id)] == [
        Success(1),
        Failed(422, "bad input"),
        Success(3),
    ]


async def test_overrides_and_variables_are_used_and_secret_ones_not_told(world: World) -> None:
    flow = {
        "schemas": {
            "properties": {
                "variables": {
                    "type": "object",
                    "properties": {"key": {"type": "string", "is_secret": True}, "size": {"type": "integer"}},
                    "required": ["key"],
                }
            }
        },
        "steps": [{"id": "a", "component": "/echo", "input": 1}],
        "output": [{"$step": "a"}, {"$variable": "size"}],
    }
    overrides = {"a": {"value": {"input": 2}}}

    run_id = await world.done(flow, None, overrides=overrides, variables={"key": "planted-secret", "size": 5})

    details = await world.backend.run(run_id)
    assert [item.outcome for item in await world.backend.items(run_id)] == [Success([2, 5])]
    assert (details.overrides, details.variables) == (overrides, {"key": "[REDACTED]", "size": 5})


@pytest.mark.parametrize(
    "more", [{"overrides": {"nobody": {"value": {}}}}, {"variables": {}}], ids=["overrides", "variables"]
)
async def test_what_does_not_fit_the_flow_is_refused(world: World, more: dict[str, Any]) -> None:
    flow = {**ECHO, "schemas": {"properties": {"variables": {"type": "object", "properties": {"v": {}}}}}}
    flow["schemas"]["properties"]["variables"]["required"] = ["v"]  # pyright: ignore

    with pytest.raises(RunRefused):
        await world.done(flow, 1, **more)


async def test_a_run_that_is_cancelled_is_over(world: World) -> None:
    run_id = await world.held(1, 2)
    assert (await world.backend.run(run_id)).summary.items == ItemCounts(total=2, running=2)
    assert not await world.backend.wait(run_id, 0.01)
    with pytest.raises(RunNotFinished):
        await world.backend.delete(run_id)

    summary = await world.backend.cancel(run_id)

    assert (summary.status, summary.items) == (RunStatus.CANCELLED, ItemCounts(total=2, cancelled=2))
    assert await world.backend.wait(run_id, 5)
    with pytest.raises(RunFinished):
        await world.backend.cancel(run_id)
    await world.backend.delete(run_id)
    with pytest.raises(RunNotFound):
        await world.backend.run(run_id)


async def test_a_key_starts_one_run(world: World) -> None:
    first = await world.done(ECHO, 1, idempotency_key="k")
    again = await world.done(ECHO, 1, idempotency_key="k")

    assert again == first
    with pytest.raises(IdempotencyConflict):
        await world.done(ECHO, 2, idempotency_key="k")


async def test_lists_of_runs_newest_first_with_filters(world: World) -> None:
    flow_id = await world.stored(ECHO)
    runs = [await world.done(ECHO, number) for number in range(3)]
    bad = await world.done({"name": "bad", "steps": [], "output": {"$input": "x"}}, 1)

    async def listed(**wanted: Any) -> list[str]:
        return [run.run_id for run in await world.backend.runs(RunsWanted(**wanted))]

    assert await listed() == [bad, *reversed(runs)]
    assert await listed(status=RunStatus.FAILED) == [bad]
    assert await listed(flow_id=flow_id) == runs[::-1]
    assert await listed(flow_name="echo", limit=1, offset=1) == [runs[1]]
    assert await listed(root_run_id=bad) == [bad]
    assert await listed(parent_run_id=bad) == []


async def test_components_are_listed_by_the_paths_that_flows_write(world: World) -> None:
    found = await world.backend.components()

    paths = [component.path for component in found.components]
    assert "/builtin/map" in paths
    assert "/echo" in paths
    assert found.failures == {}


async def test_a_skipped_step_is_shown_as_skipped(world: World) -> None:
    flow = {
        "steps": [
            {"id": "off", "component": "/echo", "skipIf": True},
            {"id": "on", "component": "/echo", "input": {"$coalesce": [{"$step": "off"}, 1]}},
        ],
        "output": {"$step": "on"},
    }

    run_id = await world.done(flow, None)

    shown = {step.step_id: step.status for step in await world.backend.steps(run_id)}
    assert shown == {"off": StepStatus.SKIPPED, "on": StepStatus.COMPLETED}


async def test_a_step_is_shown_as_what_its_on_error_makes_of_its_failure(world: World) -> None:
    def bad(name: str, *, given: Any = "bad", **on_error: Any) -> dict[str, Any]:
        return {"id": name, "component": "/fail_on", "input": given, "onError": on_error}

    composite = {"id": "composite", "component": "/builtin/create_messages", "onError": {"action": "useDefault"}}
    newer: list[Any] = [
        bad("plain", action="fail"),
        bad("default", action="useDefault", defaultValue={"$input": "$"}),
        composite,
        bad("never_tried", given={"$step": "plain"}, action="useDefault", defaultValue=1),
        bad("retried", action="retry", maxRetries=1),
        {"id": "nowhere", "component": "/", "onError": {"action": "useDefault"}},
    ]
    older = [
        bad("default", action="useDefault", defaultValue={"$input": "$"}),
        bad("after", action="useDefault", defaultValue=[{"$step": "default"}, {"$variable": "v"}]),
        bad("skipped", action="skip"),
    ]
    older[1]["input"] = {"$if": {"$step": "default"}, "then": "bad"}
    failed, success = Failed(422, "bad input"), StepStatus.COMPLETED

    async def shown(steps: list[Any], **more: Any) -> dict[str, tuple[StepStatus, Any]]:
        output = {"$coalesce": [[{"$if": {"$step": step["id"]}, "then": 1} for step in steps], None]}
        run_id = await world.done({"steps": steps, "output": output, **more}, "given", variables={"v": "of the run"})
        return {step.step_id: (step.status, step.outcome) for step in await world.backend.steps(run_id)}

    found = await shown(newer)
    assert isinstance(found["nowhere"][1], Failed)
    assert found.pop("nowhere")[0] is StepStatus.FAILED
    assert found == {
        "plain": (StepStatus.FAILED, failed),
        "default": (success, Success({"$input": "$"})),
        "composite": (success, Success(None)),
        "never_tried": (StepStatus.FAILED, failed),
        "retried": (StepStatus.FAILED, failed),
    }
    assert await shown(older) == {
        "default": (success, Success("given")),
        "after": (success, Success(["given", "of the run"])),
        "skipped": (StepStatus.SKIPPED, Skipped("bad input")),
    }


async def test_what_a_blob_was_stored_as_is_no_part_of_its_id(world: World) -> None:
    put = {
        "steps": [
            {"id": kind, "component": "/builtin/put_blob", "input": {"data": {"$literal": ECHO}, "blob_type": kind}}
            for kind in ("data", "flow")
        ],
        "output": [{"$step": "data", "path": "blob_id"}, {"$step": "flow", "path": "blob_id"}],
    }

    run_id = await world.done(put, None)

    [item] = await world.backend.items(run_id)
    assert isinstance(item.outcome, Success)
    assert item.outcome.value[0] == item.outcome.value[1]
