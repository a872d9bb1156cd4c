"""Flows in a project: files into workflows, steps into durable steps, runs that are taken up again in the middle."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyflue.engine import Graph, GraphEdge, GraphNode
from pyflue.errors import PayloadInvalid, WorkflowInvalid
from pyflue.journal import Journal, Run, RunStatus
from pyflue.main import open_project
from pyflue.stepflow.backend import NewRun
from pyflue.stepflow.dialect import FlowLoader
from pyflue.stepflow.outcome import Failed, Success
from pyflue.stepflow.plugins.port import BlobType, ComponentFailed
from pyflue.stepflow.runs import JournalBackend, engine_id_of
from tests.engine.durable import ended, error_of, result_of, until
from tests.promises import promise
from tests.support import engine_on, journal_at, submission

from .flows import Functions
from .projects import Holding, catalog_of, flows_on, steps_of, write
from .test_scheduler import fail, flows, step

HELLO = """
schema: flow/v1
name: hello-world
description: Greets somebody.

input:
  type: object
  properties:
    name: {type: string}
  required: [name]

steps:
  greet:
    component: /greet
    input:
      name: { $input: "name" }

output:
  message: { $step: "greet", path: "greeting" }
"""
DOUBLE = {"steps": [step("double", "/double", input={"$input": None})], "output": {"$step": "double"}}
EACH = {
    "steps": [
        step("first", input=1),
        step("each", "/builtin/map", input={"workflow": {"$literal": DOUBLE}, "items": {"$input": "items"}}),
        step("last", input={"$step": "each", "path": "successful"}),
    ],
    "output": [{"$step": "first"}, {"$step": "last"}],
}


def greet(value: Any) -> Any:
    return {"greeting": f"Hello, {value['name']}!"}


def double(value: Any) -> Any:
    return value * 2


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    journal = journal_at(tmp_path)
    yield journal
    await journal.close()


async def run_flow(
    root: Path, journal: Journal, flow: Any, payload: Any = None, functions: Functions | None = None, **others: Any
) -> Run:
    catalog = catalog_of(root, {"f": flow, **others})
    async with flows_on(journal, catalog, functions or Functions(greet=greet, double=double)) as engine:
        handle = await engine.submit(submission(catalog.find("f"), payload))
        return await ended(engine, handle.run_id)


async def test_a_flow_document_is_a_workflow(tmp_path: Path, journal: Journal) -> None:
    catalog = catalog_of(tmp_path, {"hello": HELLO, "other": "a: 1\n", "stepflow-config.yml": "plugins: {}\n"})

    workflow = catalog.find("hello")

    assert catalog.names() == ["hello"]
    assert (workflow.kind, workflow.description) == ("stepflow", "Greets somebody.")
    assert workflow.input_schema["required"] == ["name"]
    assert workflow.graph() == Graph(
        nodes=[
            GraphNode(id="greet", label="greet", kind="/greet"),
            GraphNode(id="output", label="output", kind="output"),
        ],
        edges=[GraphEdge(source="greet", target="output")],
    )
    with pytest.raises(PayloadInvalid) as invalid:
        workflow.parse({})
    assert invalid.value.details == [{"path": "$", "message": "'name' is a required property"}]
    run = await run_flow(tmp_path, journal, HELLO, {"name": "Ann"})
    assert (run.kind, result_of(run)) == ("stepflow", {"message": "Hello, Ann!"})


def test_schemas_of_input_and_output_are_published(tmp_path: Path) -> None:
    flow = {
        "schemas": {"properties": {"input": {"type": "integer"}, "output": {"type": "string"}}},
        "steps": [],
        "output": "x",
    }
    workflow = catalog_of(tmp_path, {"f": flow}).find("f")

    assert (workflow.input_schema, workflow.output_schema) == ({"type": "integer"}, {"type": "string"})


def test_only_flows_are_claimed(tmp_path: Path) -> None:
    loader = FlowLoader()

    assert loader.claims(write(tmp_path, "a.yml", HELLO))
    assert loader.claims(write(tmp_path, "b.json", '{"steps": []}'))
    assert loader.claims(write(tmp_path, "g.yaml", '{"name": "g", "steps": []}'))
    assert loader.claims(write(tmp_path, "c.json", '{"steps": [}'))  # broken, and meant to be one
    assert not loader.claims(write(tmp_path, "d.json", '{"nodes": [], "edges": [], "steps": 1}'))
    assert not loader.claims(write(tmp_path, "e.yaml", "nested:\n  steps: []\n"))
    assert not loader.claims(write(tmp_path, "stepflow-config.yml", "steps: []\n"))
    assert not loader.claims(tmp_path / "f.py")


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("steps: []\nsteps: []\n", 2, "column 1: "),
        ("steps:\n  - id: a\n    component: /x\n  - id: a\n    component: /x\n", 4, "a"),
        ("steps:\n  - id: a\n    component: /x\n    input: {$step: b}\n", 4, "b"),
        ("steps:\n  - id: a\n", 2, "A step needs `component`"),
        ("steps: 1\n", 1, "`steps` must be a list"),
    ],
)
def test_a_broken_flow_is_told_with_file_and_line(tmp_path: Path, text: str, line: int, problem: str) -> None:
    with pytest.raises(WorkflowInvalid) as invalid:
        catalog_of(tmp_path, {"f": text}).find("f")

    assert (invalid.value.path, invalid.value.line) == ("src/workflows/f.yaml", line)
    assert problem in invalid.value.problem


def test_a_broken_config_is_told_by_the_flows_that_need_it_until_it_is_mended(tmp_path: Path) -> None:
    (tmp_path / "stepflow-config.yml").write_text("plugins: [1]\n")
    catalog = catalog_of(tmp_path, {"f": HELLO})
    with pytest.raises(WorkflowInvalid, match="its config cannot be used"):
        catalog.find("f")

    (tmp_path / "stepflow-config.yml").write_text("plugins: {}\n")
    catalog.refresh()

    assert catalog.find("f").name == "f"


@promise("stepflow.durable")
async def test_steps_are_known_by_their_ids_and_the_path_of_items(tmp_path: Path, journal: Journal) -> None:
    run = await run_flow(tmp_path, journal, EACH, {"items": [5, 6]})

    assert result_of(run) == [1, 2]
    results = [{"outcome": "success", "result": 10}, {"outcome": "success", "result": 12}]
    assert await steps_of(journal, run.run_id) == {
        "first": 1,
        "each[0]/double": 10,
        "each[1]/double": 12,
        "each": {"results": results, "successful": 2, "failed": 0},
        "last": 2,
    }


async def test_a_failed_flow_fails_its_run_with_the_failure(tmp_path: Path, journal: Journal) -> None:
    flow = {"steps": [step("bad", "/fail"), step("next", input={"$step": "bad"})], "output": {"$step": "next"}}

    run = await run_flow(tmp_path, journal, flow, functions=Functions(fail=fail))

    error = error_of(run)
    assert (error["type"], error["message"]) == ("flow_failed", 'step "bad" failed: the disk is on fire')
    assert error["details"]["code"] == 500
    told = 'step "bad" failed: the disk is on fire'
    assert await steps_of(journal, run.run_id) == {"bad": told, "next": told}


async def test_failures_defaults_and_skips_are_the_same_when_a_run_is_taken_up_again(
    tmp_path: Path, journal: Journal
) -> None:
    def refuse(value: Any) -> Any:
        raise ComponentFailed("no", failure=Failed(418, "teapot", {"kind": "green"}))

    flow = {
        "steps": [
            step("refused", "/refuse"),
            step("default", "/refuse", onError={"action": "useDefault", "defaultValue": 3}),
            step("skipped", skipIf=True),
            step("held", input=[{"$coalesce": [{"$step": "skipped"}, "x"]}, {"$step": "default"}]),
        ],
        "output": {
            "held": {"$step": "held"},
            "was_refused": {"$if": {"$step": "refused"}, "then": False, "else": True},
        },
    }
    catalog = catalog_of(tmp_path, {"f": flow})
    first = Holding(2, refuse=refuse)
    async with flows_on(journal, catalog, first) as engine:
        handle = await engine.submit(submission(catalog.find("f"), None))
        async with asyncio.timeout(5):
            await first.reached.wait()
    second = Functions(refuse=refuse)
    async with flows_on(journal, catalog, second) as engine:
        run = await ended(engine, handle.run_id)

    assert result_of(run) == {"held": ["x", 3], "was_refused": True}
    assert (first.called, second.called) == (["refused", "default"], ["held"])
    events = [event.type for event in await journal.events(run.run_id)]
    assert (events.count("step_default"), events.count("step_skipped"), events.count("replay_drift")) == (1, 1, 0)


async def test_items_of_a_list_that_were_finished_are_not_done_again(tmp_path: Path, journal: Journal) -> None:
    catalog = catalog_of(tmp_path, {"f": EACH})
    first = Holding(4, double=double)
    async with flows_on(journal, catalog, first) as engine:
        handle = await engine.submit(submission(catalog.find("f"), {"items": list(range(10))}))
        async with asyncio.timeout(5):
            await first.reached.wait()
    second = Functions(double=double)
    async with flows_on(journal, catalog, second) as engine:
        run = await ended(engine, handle.run_id)

    assert result_of(run) == [1, 10]
    assert len(first.finished) == 4
    assert len(second.called) == 8  # the seven items that were left, and the last step


async def test_a_failing_step_is_tried_again_with_the_number_of_the_attempt(tmp_path: Path, journal: Journal) -> None:
    def third_time(value: Any, call: Any) -> Any:
        if call.attempt < 3:
            raise ComponentFailed("not yet")
        return call.attempt

    flow = {
        "steps": [step("a", "/third_time", onError={"action": "retry", "maxRetries": 2})],
        "output": {"$step": "a"},
    }
    functions = Functions(third_time=third_time)
    catalog = catalog_of(tmp_path, {"f": flow})
    async with flows_on(journal, catalog, functions) as engine:
        handle = await engine.submit(submission(catalog.find("f"), None))
        run = await ended(engine, handle.run_id)

    assert result_of(run) == 3
    assert functions.attempts == [1, 2, 3]
    assert [event.type for event in await journal.events(run.run_id)].count("step_retry") == 2


async def test_a_sleeping_flow_waits_and_its_time_goes_on_over_a_restart(tmp_path: Path, journal: Journal) -> None:
    flow = {
        "steps": [
            step("nap", "/builtin/sleep", input={"duration_ms": 300, "passthrough": 4}),
            step("after", input={"$step": "nap", "path": "passthrough"}),
        ],
        "output": {"$step": "after"},
    }
    catalog = catalog_of(tmp_path, {"f": flow})
    async with flows_on(journal, catalog, Functions()) as engine:
        handle = await engine.submit(submission(catalog.find("f"), None))
        await until(journal, handle.run_id, RunStatus.WAITING)
    async with flows_on(journal, catalog, Functions()) as engine:
        run = await ended(engine, handle.run_id)

    assert result_of(run) == 4


async def test_a_workflow_of_the_project_is_a_component(tmp_path: Path, journal: Journal) -> None:
    flow = {
        "steps": [step("greeting", "/project/workflows/hello", input={"name": "Bo"})],
        "output": {"$step": "greeting", "path": "message"},
    }
    run = await run_flow(tmp_path, journal, flow, hello=HELLO)

    assert result_of(run) == "Hello, Bo!"
    children = [step for step in await journal.steps(run.run_id) if step.kind == "child"]
    assert [child.name for child in children] == ["hello"]


async def test_a_child_that_fails_fails_its_step(tmp_path: Path, journal: Journal) -> None:
    flow = {
        "steps": [
            step("none", "/project/workflows/nowhere", onError={"action": "useDefault", "defaultValue": "none"}),
            step("bad", "/project/workflows/hello", input={}),
        ],
        "output": [{"$step": "none"}, {"$if": {"$step": "bad"}, "then": 1, "else": 2}],
    }
    run = await run_flow(tmp_path, journal, flow, hello=HELLO)

    assert result_of(run) == ["none", 2]


async def test_flows_that_a_component_runs_give_back_what_they_gave(tmp_path: Path, journal: Journal) -> None:
    """A component of another process asks for runs while it works; its step is repeated, theirs are not."""

    async def orchestrate(value: Any, call: Any) -> Any:
        outcomes = await call.services.run_flows(DOUBLE, [1, 2])
        submitted = await call.services.put_blob(DOUBLE, BlobType.FLOW)
        later = await call.services.submit(submitted, [3])
        done = await call.services.sub_run(later.run_id, wait=True)
        if functions.hold:
            functions.reached.set()
            await asyncio.Event().wait()
        return [outcome.value for outcome in (*outcomes, *done.outcomes)]

    class Orchestra(Functions):
        hold = True
        reached = asyncio.Event()

    flow = {"steps": [step("o", "/orchestrate")], "output": {"$step": "o"}}
    catalog = catalog_of(tmp_path, {"f": flow})
    functions = Orchestra(orchestrate=orchestrate, double=double)
    async with flows_on(journal, catalog, functions) as engine:
        handle = await engine.submit(submission(catalog.find("f"), None))
        async with asyncio.timeout(5):
            await functions.reached.wait()
    assert sorted(functions.called) == ["double", "double", "double", "o"]
    functions = Orchestra(orchestrate=orchestrate, double=double)
    functions.hold = False
    async with flows_on(journal, catalog, functions) as engine:
        run = await ended(engine, handle.run_id)

    assert result_of(run) == [2, 4, 6]
    assert functions.called == ["o"]


async def test_variables_of_flows_in_files_come_from_the_environment(
    tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = {
        "schemas": {
            "properties": {
                "variables": {
                    "type": "object",
                    "properties": {"region": {"type": "string"}, "size": {"type": "integer", "default": 3}},
                    "required": ["region"],
                }
            }
        },
        "steps": [step("a", input=[{"$variable": "region"}, {"$variable": "size"}])],
        "output": {"$step": "a"},
    }
    missing = await run_flow(tmp_path, journal, flow)
    monkeypatch.setenv("STEPFLOW_VAR_REGION", "north")
    found = await run_flow(tmp_path, journal, flow)

    assert error_of(missing)["message"] == (
        "Missing required variable: region. Set STEPFLOW_VAR_REGION, or give it with the run."
    )
    assert result_of(found) == ["north", 3]


async def test_steps_that_wait_for_one_another_fail_the_run(tmp_path: Path, journal: Journal) -> None:
    flow = {
        "steps": [step("a", input=1), step("b", input={"$input": None})],
        "output": {"$step": "b"},
    }
    # Validation refuses later references in files, so the circle comes as an inline flow.
    circle = {
        "steps": [step("a", input={"$step": "b"}), step("b", input={"$step": "a"})],
        "output": {"$step": "a"},
    }
    flow["steps"][1] = step("b", "/builtin/map", input={"workflow": {"$literal": circle}, "items": [1]})

    run = await run_flow(tmp_path, journal, flow)

    assert "wait for one another" in error_of(run)["message"]


@promise("stepflow.resume")
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(flow=flows(), flag=st.sampled_from([True, None]), after=st.integers(0, 7))
def test_a_flow_that_is_stopped_and_resumed_comes_to_the_same_and_repeats_nothing(
    flow: dict[str, Any], flag: Any, after: int
) -> None:
    asyncio.run(_stop_and_resume(flow, {"flag": flag}, after))


async def _stop_and_resume(flow: dict[str, Any], payload: Any, after: int) -> None:
    functions = {"fail": fail, "nothing": lambda value: None}
    with tempfile.TemporaryDirectory() as folder:
        catalog = catalog_of(Path(folder), {"f": flow})
        journal = journal_at(Path(folder))
        try:
            undisturbed = Functions(**functions)
            async with flows_on(journal, catalog, undisturbed) as engine:
                handle = await engine.submit(submission(catalog.find("f"), payload))
                expected = await ended(engine, handle.run_id)
            first = Holding(after, **functions)
            async with flows_on(journal, catalog, first) as engine:
                handle = await engine.submit(submission(catalog.find("f"), payload))
                if after >= len(undisturbed.called):
                    await ended(engine, handle.run_id)
                else:
                    async with asyncio.timeout(10):
                        await first.reached.wait()
            second = Functions(**functions)
            async with flows_on(journal, catalog, second) as engine:
                run = await ended(engine, handle.run_id)
            assert (run.status, run.result) == (expected.status, expected.result)
            assert sorted(first.called + second.called) == sorted(undisturbed.called)
            assert await steps_of(journal, run.run_id) == await steps_of(journal, expected.run_id)
            assert "replay_drift" not in [event.type for event in await journal.events(run.run_id)]
        finally:
            await journal.close()


async def test_models_and_agents_of_the_project_are_components(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYFLUE_MODEL", "scripted/answers.json")
    (tmp_path / "answers.json").write_text('["one"]')
    (tmp_path / "pyflue.toml").write_text("")
    (tmp_path / "src" / "agents").mkdir(parents=True)
    (tmp_path / "src" / "agents" / "helper.py").write_text(
        "from pyflue import create_agent\n\nagent = create_agent(lambda ctx: {'model': 'anthropic/claude-haiku-4-5'})\n"
    )
    (tmp_path / "stepflow-config.yml").write_text(
        "plugins: {builtin: {type: builtin}, project: {type: pyflue}}\n"
        "routes:\n"
        '  "/project/{*component}": [{plugin: project}]\n'
        '  "/{*component}": [{plugin: builtin}]\n'
    )
    flow = {
        "steps": [
            step("messages", "/create_messages", input={"user_prompt": "one", "system_instructions": "brief"}),
            step("model", "/openai", input={"messages": {"$step": "messages", "path": "messages"}, "api_key": "k"}),
            step("agent", "/project/agents/helper", input={"prompt": "two"}),
            step("nobody", "/project/agents/nobody", input={"prompt": "x"}),
        ],
        "output": {
            "model": {"$step": "model", "path": "response"},
            "agent": {"$step": "agent", "path": "text"},
            "nobody": {"$if": {"$step": "nobody"}, "then": True, "else": False},
        },
    }
    write(tmp_path, "f", flow)
    project = open_project(tmp_path)
    try:
        async with project.engine(adopts=False) as engine:
            workflow = await asyncio.to_thread(project.catalog.find, "f")
            handle = await engine.submit(submission(workflow, None))
            run = await ended(engine, handle.run_id)
    finally:
        await project.journal.close()

    assert result_of(run) == {"model": "one", "agent": "one", "nobody": False}


async def test_a_run_with_a_named_config_has_it_also_when_another_engine_takes_it_up(
    tmp_path: Path, journal: Journal
) -> None:
    (tmp_path / "named.yml").write_text(
        "plugins: {builtin: {type: builtin}, m: {type: mock, components: {/who: {input_schema: {}, output_schema: {}, "
        "behaviors: {x: {outcome: success, result: named}}}}}}\n"
        'routes: {"/sleep": [{plugin: builtin, component: /sleep}], "/{*component}": [{plugin: m}]}\n'
    )
    nap = step("nap", "/sleep", input={"duration_ms": 200, "passthrough": "x"})
    who = step("who", "/who", input={"$step": "nap", "path": "passthrough"})
    flow = {"steps": [nap, who], "output": {"$step": "who"}}
    catalog = catalog_of(tmp_path, {})
    async with engine_on(journal, catalog, adopts=False) as engine:
        blobs = JournalBackend(
            engine, journal, folder=tmp_path, root=tmp_path, limit_bytes=1000, config=tmp_path / "named.yml"
        )
        stored = await blobs.store_flow(flow)
        assert stored.flow_id is not None
        run_id = await blobs.submit(NewRun(flow_id=stored.flow_id, inputs=[None]))
        await until(journal, engine_id_of(run_id), RunStatus.WAITING)
    async with engine_on(journal, catalog) as engine:
        other = JournalBackend(engine, journal, folder=tmp_path, root=tmp_path, limit_bytes=1000)
        assert await other.wait(run_id, 10)
        items = await other.items(run_id)

    assert [item.outcome for item in items] == [Success("named")]
