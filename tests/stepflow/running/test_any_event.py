"""Flows of all sorts that are stopped at any event of their record: resumed, they come to the same, and repeat nothing.

`test_durable.py` stops flows around the calls of their components; here it is the record that says when.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyflue import codec
from pyflue.engine import EmbeddedEngine
from pyflue.engine.scopes import current
from pyflue.journal import Journal, Run, RunFilter, StepStatus
from pyflue.settings import EngineSettings
from pyflue.stepflow.backend import NewRun, uuid_of
from pyflue.stepflow.outcome import Failed, Success, to_wire
from pyflue.stepflow.plugins.port import ComponentCall, ComponentFailed, ComponentSkipped
from pyflue.stepflow.runs import JournalBackend, engine_id_of
from pyflue.workflows import Catalog
from tests.engine.durable import ended
from tests.promises import promise
from tests.support import journal_at, submission

from .flows import Functions
from .projects import catalog_of, flows_on
from .test_scheduler import fail, flows, step

#: An engine that gives its runs next to no time to come to an end when it stops.
SUDDEN = EngineSettings(adopt_every_s=0.05, cancel_grace_s=0.2, stop_s=0.05)
#: One attempt of one call: the run, the key of the step, and which attempt.
Call = tuple[str, str, int]
Submit = Callable[[EmbeddedEngine], Awaitable[str]]

DOUBLE = {"steps": [step("double", "/double", input={"$input": "n"})], "output": {"$step": "double"}}
#: Goes on until nothing is left; says what it was given to carry.
LOOP = {"steps": [step("turn", "/turn", input={"$input": None})], "output": {"$step": "turn"}}
#: A workflow of the project of its own.
SUB = {
    "steps": [
        step("ask", "/flaky", input={"$input": None}, onError={"action": "retry", "maxRetries": 1}),
        step("each", "/builtin/map", input={"workflow": {"$literal": DOUBLE}, "items": [{"n": 1}, {"n": {}}]}),
    ],
    "output": [{"$step": "ask"}, {"$step": "each", "path": "successful"}],
}


def double(value: Any) -> Any:
    if isinstance(value, dict):
        raise ComponentFailed("not a number")
    return value * 2


def flaky(value: Any, call: ComponentCall) -> Any:
    if call.attempt == 1:
        raise ComponentFailed("not at once")
    return [value, call.attempt]


def turn(value: Any) -> Any:
    if value["left"] == 0:
        return {"result": value["carried"]}
    return {"next": {**value, "left": value["left"] - 1}}


def idle(value: Any) -> Any:
    raise ComponentSkipped("nothing to do")


async def asks(value: Any, call: ComponentCall) -> Any:
    """A component that has flows run while it works."""
    outcomes = await call.services.run_flows(DOUBLE, [{"n": 1}, {"n": 2}, {"n": value}])
    return [to_wire(outcome) for outcome in outcomes]


FUNCTIONS = {
    "fail": fail,
    "nothing": lambda value: None,
    "double": double,
    "flaky": flaky,
    "turn": turn,
    "asks": asks,
    "idle": idle,
}


class Watched(Functions):
    """Notes each attempt of each call. Nothing begins or ends any more once the run has an event of an index."""

    def __init__(self, journal: Journal, stop_at: int | None = None) -> None:
        super().__init__(**FUNCTIONS)
        self.journal = journal
        self.stop_at = stop_at
        self.run_id: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.begun: list[Call] = []

    async def execute(self, call: ComponentCall) -> Any:
        here = current()
        assert here is not None
        assert here.step_key is not None
        await self._pass()
        self.begun.append((call.run_id, here.step_key, call.attempt))
        try:
            value = await super().execute(call)
        except (ComponentFailed, ComponentSkipped):
            await self._pass()
            raise
        await self._pass()
        return value

    async def _pass(self) -> None:
        if self.stop_at is None:
            return
        run = await self.journal.run(await self.run_id, values=False)
        if run is not None and run.last_index >= self.stop_at:
            await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def project_of(flow: Mapping[str, Any]) -> AsyncIterator[tuple[Journal, Catalog]]:
    with tempfile.TemporaryDirectory() as folder:
        journal = journal_at(Path(folder))
        try:
            yield journal, catalog_of(Path(folder), {"f": flow, "sub": SUB})
        finally:
            await journal.close()


def backend_on(engine: EmbeddedEngine, journal: Journal, catalog: Catalog) -> JournalBackend:
    return JournalBackend(engine, journal, folder=catalog.root, root=catalog.root, limit_bytes=100_000)


async def begun_on(engine: EmbeddedEngine, catalog: Catalog, payload: Any, submit: Submit | None) -> str:
    """A new run: of the file `f`, or what `submit` starts."""
    if submit is not None:
        return await submit(engine)
    return (await engine.submit(submission(catalog.find("f"), payload))).run_id


async def undisturbed(
    journal: Journal, catalog: Catalog, payload: Any, submit: Submit | None = None
) -> tuple[Run, Watched]:
    functions = Watched(journal)
    async with flows_on(journal, catalog, functions) as engine:
        run_id = await begun_on(engine, catalog, payload, submit)
        return await ended(engine, run_id), functions


async def stopped_at(
    journal: Journal, catalog: Catalog, payload: Any, index: int, submit: Submit | None
) -> tuple[str, Watched]:
    """A run whose engine stops as soon as it has an event of an index."""
    functions = Watched(journal, index)
    async with flows_on(journal, catalog, functions, settings=SUDDEN) as engine, asyncio.timeout(20):
        run_id = await begun_on(engine, catalog, payload, submit)
        functions.run_id.set_result(run_id)
        with journal.watch(run_id) as bell:
            while (run := await journal.run(run_id, values=False)) and not run.is_final:
                if run.last_index >= index:
                    break
                await bell.wait()
    return run_id, functions


async def recorded(journal: Journal, begun: list[Call]) -> set[tuple[str, str]]:
    """The steps of these runs that have come to something, by run and key."""
    return {
        (run_id, one.key)
        for run_id in {run_id for run_id, _, _ in begun}
        for one in await journal.steps(run_id)
        if one.status in {StepStatus.COMPLETED, StepStatus.FAILED}
    }


async def tried(journal: Journal, begun: list[Call]) -> set[Call]:
    """The attempts of these runs that have failed and were recorded, with others to follow."""
    found: set[Call] = set()
    for run_id in {run_id for run_id, _, _ in begun}:
        for event in await journal.events(run_id, types=["step_retry"]):
            data = codec.load(event.data)
            found.add((run_id, data["step"], data["attempt"]))
    return found


async def told(journal: Journal, run: Run) -> Any:
    """What a run came to, and all its steps; but for its own id, which `eval` tells."""
    steps = {
        one.key: (one.status.value, bytes(one.value or b""), bytes(one.error or b""))
        for one in await journal.steps(run.run_id)
    }
    own = run.run_id.encode()
    return (
        run.status,
        bytes(run.result or b"").replace(own, b"-"),
        bytes(run.error or b"").replace(own, b"-"),
        {
            key: (status, value.replace(own, b"-"), error.replace(own, b"-"))
            for key, (status, value, error) in steps.items()
        },
    )


async def resumed(
    journal: Journal,
    catalog: Catalog,
    payload: Any,
    index: int,
    expected: Any,
    keys: set[str],
    submit: Submit | None = None,
) -> int:
    """Stop a run at an event, resume it, and compare it with one that was not disturbed; how often it was resumed."""
    run_id, first = await stopped_at(journal, catalog, payload, index, submit)
    was_recorded, was_tried = await recorded(journal, first.begun), await tried(journal, first.begun)
    second = Watched(journal)
    async with flows_on(journal, catalog, second) as engine:
        run = await ended(engine, run_id)

    assert await told(journal, run) == expected
    assert {(run_id, key) for run_id, key, _ in second.begun} & was_recorded == set()
    assert set(second.begun) & was_tried == set()
    assert len(set(second.begun)) == len(second.begun)
    assert {key for _, key, _ in first.begun + second.begun} == keys
    events = await journal.events(run_id)
    ends = [codec.load(event.data)["step"] for event in events if event.type == "step_end"]
    assert sorted(ends) == sorted(set(ends))
    types = [event.type for event in events]
    assert "replay_drift" not in types
    return types.count("run_resumed")


#: A step of each sort. `late` needs the rest, so that there is a beginning, a middle and an end.
EVERYTHING: dict[str, Any] = {
    "steps": [
        step("first", input={"$input": "flag"}),
        step("flaky", "/flaky", input={"$step": "first"}, onError={"action": "retry", "maxRetries": 2}),
        step("default", "/fail", input={"$step": "flaky"}, onError={"action": "useDefault", "defaultValue": {"d": 1}}),
        step("hopeless", "/fail", onError={"action": "retry", "maxRetries": 1}),
        step(
            "each",
            "/builtin/map",
            input={
                "workflow": {"$literal": DOUBLE},
                "items": [{"n": 1}, {"n": {"$step": "default"}}, {"n": 3}, {}],
                "max_concurrency": 2,
            },
        ),
        step(
            "rounds",
            "/builtin/iterate",
            input={"flow": {"$literal": LOOP}, "initial_input": {"left": 2, "carried": {"$step": "first"}}},
        ),
        step("kept", "/builtin/put_blob", input={"data": {"$literal": DOUBLE}, "blob_type": "flow"}),
        step("evaluated", "/builtin/eval", input={"flow_id": {"$step": "kept", "path": "blob_id"}, "input": {"n": 4}}),
        step("child", "/project/workflows/sub", input={"$step": "first"}),
        step("asked", "/asks", input={"$step": "rounds", "path": "iterations"}),
        step("nap", "/builtin/sleep", input={"duration_ms": 1, "passthrough": {"$step": "asked"}}),
        step("never", "/double", input=1),
        step("aside", "/double", input=1, mustExecute=True),
        step("late", input=[{"$step": "each", "path": "failed"}, {"$step": "nap"}, {"$step": "child"}]),
    ],
    "output": {
        "late": {"$step": "late"},
        "evaluated": {"$step": "evaluated", "path": "result"},
        "chosen": {"$if": {"$step": "hopeless"}, "then": {"$step": "never"}, "else": {"$step": "flaky"}},
        "first": {"$coalesce": [{"$step": "first", "path": "$"}, {"$step": "never"}]},
    },
}


EVERYTHING_GIVES = {
    "late": [
        2,
        {"duration_ms": 1, "passthrough": [{"outcome": "success", "result": number} for number in (2, 4, 6)]},
        [[{"a": 1}, 2], 1],
    ],
    "evaluated": {"outcome": "success", "result": 8},
    "chosen": [{"a": 1}, 2],
    "first": {"a": 1},
}

#: A document of the older kind: what is skipped, in each of the ways.
OLDER: dict[str, Any] = {
    "steps": [
        step("condition", "/nothing"),
        step("off", "/double", input=1, skipIf={"$from": {"workflow": "input"}, "path": "flag"}),
        step("on", "/double", input=2, skipIf={"$from": {"step": "condition"}}),
        step("broken", "/fail", onError={"action": "skip"}),
        step("idle", "/idle", input={"$from": {"step": "on"}}),
        step("after", "/double", input=[{"$from": {"step": "idle"}}]),
        step(
            "held",
            input=[
                {"$from": {"step": "off"}, "onSkip": {"action": "useDefault", "defaultValue": "was off"}},
                {"$coalesce": [{"$step": "broken"}, {"$step": "after"}, {"$step": "on"}]},
            ],
        ),
        step("each", "/builtin/map", input={"workflow": {"$literal": DOUBLE}, "items": [{"n": {"$step": "on"}}]}),
    ],
    "output": {"held": {"$step": "held"}, "each": {"$step": "each", "path": "results"}},
}
OLDER_GIVES = {"held": ["was off", 4], "each": [{"outcome": "success", "result": 8}]}


@promise("stepflow.resume")
@pytest.mark.parametrize(
    ("flow", "gives"), [(EVERYTHING, EVERYTHING_GIVES), (OLDER, OLDER_GIVES)], ids=["new", "older"]
)
async def test_a_flow_with_everything_in_it_can_be_stopped_at_each_of_its_events(flow: Any, gives: Any) -> None:
    payload = {"flag": {"a": 1}}
    async with project_of(flow) as (journal, catalog):
        run, functions = await undisturbed(journal, catalog, payload)
        expected, keys = await told(journal, run), {key for _, key, _ in functions.begun}
        times = [
            await resumed(journal, catalog, payload, index, expected, keys) for index in range(1, run.last_index + 1)
        ]

    # At the last few events there may be nothing left to be held up.
    assert set(times) <= {0, 1}
    assert sum(times) > run.last_index // 2
    assert codec.load(run.result or codec.NULL) == gives


#: With overrides and variables, and for inputs of which one fails.
REQUESTED: dict[str, Any] = {
    "schemas": {"properties": {"variables": {"properties": {"factor": {"type": "integer"}}}}},
    "steps": [
        step("first", "/flaky", input={"$input": "n"}, onError={"action": "retry", "maxRetries": 1}),
        step("each", "/builtin/map", input={"workflow": {"$literal": DOUBLE}, "items": [{"n": 1}, {"$input": "$"}]}),
        step("last", input="overridden"),
    ],
    "output": [{"$step": "last"}, {"$step": "each", "path": "successful"}, {"$variable": "factor"}],
}


@promise("stepflow.resume")
async def test_a_batch_that_came_with_a_request_can_be_stopped_at_each_of_its_events() -> None:
    last = {"op": "replace", "path": "/input", "value": [{"$step": "first"}, {"$variable": "factor"}]}
    overrides = {"last": {"$type": "json_patch", "value": [last]}}
    inputs = [{"n": 1}, {}, {"n": {"no": "number"}}]

    async with project_of({"steps": []}) as (journal, catalog):

        async def submitted(engine: EmbeddedEngine) -> str:
            backend = backend_on(engine, journal, catalog)
            stored = await backend.store_flow(REQUESTED)
            assert stored.flow_id is not None
            new = NewRun(flow_id=stored.flow_id, inputs=inputs, overrides=overrides, variables={"factor": 3})
            return engine_id_of(await backend.submit(new))

        async def items(run_id: str) -> Any:
            async with flows_on(journal, catalog, Functions()) as engine:
                backend = backend_on(engine, journal, catalog)
                ulid = run_id.rpartition(":")[2]
                return [(item.status, item.outcome) for item in await backend.items(uuid_of(ulid))]

        run, functions = await undisturbed(journal, catalog, None, submitted)
        expected, keys = await told(journal, run), {key for _, key, _ in functions.begun}
        outcomes = await items(run.run_id)
        times = [
            await resumed(journal, catalog, None, index, expected, keys, submitted)
            for index in range(1, run.last_index + 1)
        ]
        (newest,) = (await journal.runs(RunFilter(workflows=[run.workflow]), limit=1)).runs

        assert newest.run_id != run.run_id
        assert await items(newest.run_id) == outcomes
    assert sum(times) > run.last_index // 2
    assert [status.value for status, _ in outcomes] == ["completed", "failed", "completed"]
    assert [outcome for _, outcome in outcomes] == [
        Success([[[1, 2], 3], 2, 3]),
        Failed(1, "Input path $.n not found"),
        Success([[[{"no": "number"}, 2], 3], 1, 3]),
    ]


ON_ERROR = st.sampled_from(
    [
        None,
        {"action": "fail"},
        {"action": "useDefault", "defaultValue": {"$step": "is no expression here"}},
        {"action": "retry", "maxRetries": 1},
        {"action": "retry", "maxRetries": 2},
    ]
)


@st.composite
def mixed_flows(draw: st.DrawFn) -> dict[str, Any]:
    """Flows as of `flows`, some of whose steps run other flows, are tried again, or have defaults."""
    flow = draw(flows())
    for one in flow["steps"]:
        given_, inner = one["input"], {"$literal": draw(flows())}
        match draw(st.integers(0, 9)):
            case 0:
                items = [{"flag": given_}, given_, {"flag": True}]
                one |= {"component": "/builtin/map", "input": {"workflow": inner, "items": items}}
                if draw(st.booleans()):
                    one["input"]["max_concurrency"] = 1
            case 1:
                first = {"left": draw(st.integers(0, 2)), "carried": given_}
                one |= {"component": "/builtin/iterate", "input": {"flow": {"$literal": LOOP}, "initial_input": first}}
            case 2:
                # Its values are no rounds, so this fails, or goes on and on up to its limit.
                one |= {
                    "component": "/builtin/iterate",
                    "input": {"flow": inner, "initial_input": {"flag": given_}, "max_iterations": 3},
                }
            case 3:
                one |= {"component": "/project/workflows/sub"}
            case 4:
                one |= {"component": "/asks"}
            case 5:
                one |= {"component": "/flaky"}
            case 6:
                one |= {"component": "/builtin/sleep", "input": {"duration_ms": 1, "passthrough": given_}}
            case _:
                pass
        if (on_error := draw(ON_ERROR)) is not None:
            one["onError"] = on_error
    return flow


@promise("stepflow.resume")
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(flow=mixed_flows(), flag=st.sampled_from([True, None]), data=st.data())
def test_any_flow_can_be_stopped_at_any_event(flow: dict[str, Any], flag: Any, data: st.DataObject) -> None:
    async def check() -> None:
        async with project_of(flow) as (journal, catalog):
            run, functions = await undisturbed(journal, catalog, {"flag": flag})
            expected, keys = await told(journal, run), {key for _, key, _ in functions.begun}
            index = data.draw(st.integers(1, run.last_index), label="index")
            await resumed(journal, catalog, {"flag": flag}, index, expected, keys)

    asyncio.run(check())
