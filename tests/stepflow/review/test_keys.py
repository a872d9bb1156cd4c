"""Every durable call of a flow has a key of its own, and the same one when the run is taken up again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from pyflue.journal import Journal
from pyflue.stepflow.plugins.port import BlobType, ComponentFailed
from tests.engine.durable import ended, result_of
from tests.support import submission

from ..running.flows import Functions
from ..running.projects import Holding, catalog_of, flows_on, steps_of
from ..running.test_durable import run_flow
from ..running.test_scheduler import step

ECHO = {"steps": [step("sleep", input={"$input": None})], "output": {"$step": "sleep"}}


async def test_a_step_named_like_an_item_of_another_has_a_key_of_its_own(
    tmp_path: Path,
    journal: Journal,
) -> None:
    flow = {
        "steps": [
            step("each", "/builtin/map", input={"workflow": {"$literal": ECHO}, "items": [5]}),
            step("each[0]", "/builtin/sleep", input={"duration_ms": 1}),
        ],
        "output": [{"$step": "each", "path": "successful"}, {"$step": "each[0]"}],
    }

    run = await run_flow(tmp_path, journal, flow, functions=Functions())

    found = await steps_of(journal, run.run_id)
    assert result_of(run) == [1, {"duration_ms": 1}]
    assert (found["each[0]/sleep"], found["each%255B0]/sleep"], found["each%255B0]"]) == (5, None, {"duration_ms": 1})


async def test_a_workflow_named_sleep_that_is_tried_again_keeps_its_record(
    tmp_path: Path,
    journal: Journal,
) -> None:
    def fail(value: Any) -> Any:
        raise ComponentFailed("no")

    retry = {"action": "retry", "maxRetries": 1}
    flow = {
        "steps": [step("w", "/project/workflows/sleep", onError=retry)],
        "output": {"$if": {"$step": "w"}, "then": 1, "else": 2},
    }
    failing = {"steps": [step("c", "/fail")], "output": {"$step": "c"}}

    run = await run_flow(tmp_path, journal, flow, functions=Functions(fail=fail), sleep=failing)

    kinds = {found.key: found.kind for found in await journal.steps(run.run_id)}
    assert result_of(run) == 2
    assert kinds == {
        "w/sleep": "child",
        "w/retry/sleep": "sleep",
        "w/attempt-2/sleep": "child",
        "w": "step",
    }


NAMES = ["a/b", "[0]", "x#2", "@k", "k" * 300, "é✓", "item-0", "attempt-1", "(x)", "%2F", "\x00", "sleep", "each[1]"]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
async def test_hostile_names_are_the_same_steps_when_a_run_is_taken_up_again(
    name: str,
    tmp_path: Path,
    journal: Journal,
) -> None:
    inner = {"steps": [step(name, input={"$input": None})], "output": {"$step": name}}
    flow = {
        "steps": [
            step(name, input=1),
            step("each", "/builtin/map", input={"workflow": {"$literal": inner}, "items": [1, 2]}),
            step("last", input=[{"$step": name}, {"$step": "each", "path": "successful"}]),
        ],
        "output": {"$step": "last"},
    }

    called, events = await _stopped_and_resumed(flow, tmp_path, journal, after=2)

    assert called == 2
    assert not [event for event in events if event.startswith("replay")]


async def _stopped_and_resumed(flow: Any, root: Path, journal: Journal, *, after: int) -> tuple[int, list[str]]:
    """How many components were called by the second engine, and the types of the run's events."""
    catalog = catalog_of(root, {"f": flow})
    first = Holding(after)
    async with flows_on(journal, catalog, first) as engine:
        handle = await engine.submit(submission(catalog.find("f"), None))
        async with asyncio.timeout(5):
            await first.reached.wait()
    second = Functions()
    async with flows_on(journal, catalog, second) as engine:
        run = await ended(engine, handle.run_id)
    assert result_of(run) == [1, 2]
    return len(second.called), [event.type for event in await journal.events(run.run_id)]


async def test_flows_with_other_overrides_are_told_apart_in_whatever_order_they_are_asked_for(
    tmp_path: Path,
    journal: Journal,
) -> None:
    """A component asks for the same flow twice, and in another order after the restart."""
    order = ["one", "two"]
    hold, reached = True, asyncio.Event()

    async def orchestrate(value: Any, call: Any) -> Any:
        flow_id = await call.services.put_blob(ECHO, BlobType.FLOW)
        found: dict[str, Any] = {}
        for name in order:
            overrides = {"sleep": {"value": {"input": name}}}
            submitted = await call.services.submit(flow_id, [0], overrides=overrides)
            [outcome] = (await call.services.sub_run(submitted.run_id, wait=True)).outcomes
            found[name] = outcome.value
        if hold:
            reached.set()
            await asyncio.Event().wait()
        return found

    flow = {"steps": [step("o", "/orchestrate")], "output": {"$step": "o"}}
    catalog = catalog_of(tmp_path, {"f": flow})
    async with flows_on(journal, catalog, Functions(orchestrate=orchestrate)) as engine:
        handle = await engine.submit(submission(catalog.find("f"), None))
        async with asyncio.timeout(5):
            await reached.wait()
    order.reverse()
    hold = False
    second = Functions(orchestrate=orchestrate)
    async with flows_on(journal, catalog, second) as engine:
        run = await ended(engine, handle.run_id)

    assert result_of(run) == {"two": "two", "one": "one"}
    assert second.called == ["o"]


async def test_stopping_anywhere_in_nested_flows_repeats_nothing(
    tmp_path: Path,
    journal: Journal,
) -> None:
    """`map`, `iterate`, `eval`, a sleeping step, retries and a child workflow, stopped before each component call."""

    def second_time(value: Any, call: Any) -> Any:
        if call.attempt == 1:
            raise ComponentFailed("not yet")
        return value

    counted = {
        "steps": [step("n", "/count", input={"$input": None})],
        "output": {
            "$if": {"$step": "n", "path": "done"},
            "then": {"result": {"$step": "n", "path": "value"}},
            "else": {"next": {"$step": "n", "path": "value"}},
        },
    }
    tried = {
        "steps": [step("t", "/second_time", input={"$input": None}, onError={"action": "retry", "maxRetries": 1})],
        "output": {"$step": "t"},
    }
    flow = {
        "steps": [
            step("each", "/builtin/map", input={"workflow": {"$literal": tried}, "items": [0, 2]}),
            step("rest", "/builtin/sleep", input={"duration_ms": 5, "passthrough": 9}),
            step("again", "/builtin/iterate", input={"flow": {"$literal": counted}, "initial_input": 0}),
            step("child", "/project/workflows/child", input=3),
            step("put", "/builtin/put_blob", input={"data": {"$literal": ECHO}, "blob_type": "flow"}),
            step("eval", "/builtin/eval", input={"flow_id": {"$step": "put", "path": "blob_id"}, "input": 5}),
            step("last", input=[{"$step": name} for name in ("each", "rest", "again", "child")]),
        ],
        "output": [{"$step": "last"}, {"$step": "eval", "path": "result"}],
    }
    functions = {"count": lambda value: {"value": value + 1, "done": value >= 2}, "second_time": second_time}
    catalog = catalog_of(tmp_path, {"f": flow, "child": ECHO})
    undisturbed = Functions(**functions)
    async with flows_on(journal, catalog, undisturbed) as engine:
        handle = await engine.submit(submission(catalog.find("f"), None))
        expected = await ended(engine, handle.run_id)
    keys = set(await steps_of(journal, expected.run_id))

    for after in range(len(undisturbed.called)):
        first = Holding(after, **functions)
        async with flows_on(journal, catalog, first) as engine:
            handle = await engine.submit(submission(catalog.find("f"), None))
            async with asyncio.timeout(5):
                await first.reached.wait()
        second = Functions(**functions)
        async with flows_on(journal, catalog, second) as engine:
            run = await ended(engine, handle.run_id)
        assert (run.status, run.result) == (expected.status, expected.result)
        assert sorted(first.called + second.called) == sorted(undisturbed.called)
        assert set(await steps_of(journal, run.run_id)) == keys
        assert not [one.type for one in await journal.events(run.run_id) if one.type.startswith("replay")]
