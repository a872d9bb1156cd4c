"""Graphs in a project: files into workflows, nodes into steps, and runs that are taken up again in the middle."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import pyflue.flowgram as fg
from pyflue import codec
from pyflue.engine import Graph, GraphEdge, GraphNode
from pyflue.errors import PayloadInvalid, WorkflowInvalid
from pyflue.flowgram.dialect import INLINE, GraphLoader
from pyflue.flowgram.journal_report import report_of
from pyflue.journal import Journal, Run
from pyflue.workflows import Catalog
from tests.engine.durable import ended, error_of, result_of
from tests.support import engine_on, journal_at, raw, submission

from .graphs import Json, Log, const, end, fields, graph, log_node, loop, node, ref, start, typed

UNKNOWN = graph([start(), node("w", "wat"), end()], "start -> w -> end")
NUMBERS = typed("array", items=typed("integer"))


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    journal = journal_at(tmp_path)
    yield journal
    await journal.close()


def write(root: Path, name: str, schema: Any) -> Path:
    path = root / "src" / "workflows" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(schema if isinstance(schema, str) else json.dumps(schema, indent=1))
    return path


def catalog_of(root: Path, **graphs: Any) -> Catalog:
    for name, schema in graphs.items():
        write(root, name, schema)
    return Catalog(root)


async def run_graph(journal: Journal, catalog: Catalog, payload: Any, name: str = "g") -> Run:
    async with engine_on(journal, catalog) as engine:
        handle = await engine.submit(submission(catalog.find(name), payload))
        return await ended(engine, handle.run_id)


async def steps_of(journal: Journal, run_id: str) -> dict[str, Any]:
    return {step.key: codec.load(step.value or codec.NULL) for step in await journal.steps(run_id)}


def looped(*body: Json, **data: Any) -> Json:
    """A graph whose loop runs nodes of the type `log`, one after the other."""
    inner = [node("bs", "block-start"), *body, node("be", "block-end")]
    line = " -> ".join(["bs", *(one["id"] for one in body), "be"])
    made = loop(ref("start", "xs"), inner, line, collect={"o": ref("loop_locals", "item")}, **data)
    return graph(
        [start(xs=NUMBERS), made, log_node("last"), end({"o": ref("loop", "o")}, o=NUMBERS)],
        "start -> loop -> last -> end",
    )


async def test_a_json_file_with_nodes_and_edges_is_a_workflow(tmp_path: Path, journal: Journal) -> None:
    schema = graph(
        [start(n="integer"), end({"n": ref("start", "n")}, n="integer")], "start -> end", description="Echo a number."
    )
    catalog = catalog_of(tmp_path, g=schema, other={"things": []}, data=[1])
    assert catalog.names() == ["g"]
    workflow = catalog.find("g")
    assert (workflow.kind, workflow.description) == ("flowgram", "Echo a number.")
    assert workflow.input_schema == {"type": "object", "properties": {"n": {"type": "integer"}}}
    assert workflow.output_schema == {"type": "object", "properties": {"n": {"type": "integer"}}}
    assert workflow.graph() == Graph(
        nodes=[GraphNode(id="start", label="start", kind="start"), GraphNode(id="end", label="end", kind="end")],
        edges=[GraphEdge(source="start", target="end")],
    )
    run = await run_graph(journal, catalog, {"n": 3})
    assert (run.kind, result_of(run)) == ("flowgram", {"n": 3})
    with pytest.raises(PayloadInvalid) as invalid:
        workflow.parse({"n": "x"})
    assert invalid.value.details == [{"path": "$.n", "message": "'x' is not of type 'integer'"}]


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ('{"nodes": [],\n "edges": [}', 2, "not valid JSON"),
        (json.dumps(UNKNOWN, indent=1), 20, "unknown type 'wat'"),
        ('{"nodes": [{"type": "x"}], "edges": []}', None, "Node id is required."),
    ],
)
def test_a_broken_graph_is_told_with_file_and_line(tmp_path: Path, text: str, line: int | None, problem: str) -> None:
    with pytest.raises(WorkflowInvalid) as invalid:
        catalog_of(tmp_path, g=text).find("g")
    assert (invalid.value.path, invalid.value.line) == ("src/workflows/g.json", line)
    assert problem in invalid.value.problem


def test_only_graphs_are_claimed(tmp_path: Path) -> None:
    loader = GraphLoader()
    assert loader.claims(write(tmp_path, "a", {"nodes": [], "edges": []}))
    assert not loader.claims(write(tmp_path, "b", {"nodes": []}))
    assert not loader.claims(write(tmp_path, "c", "[" * 100_000))
    assert not loader.claims(tmp_path / "d.yaml")


async def test_node_executions_are_steps_known_by_id_and_loop_path(tmp_path: Path, journal: Journal, log: Log) -> None:
    work = log_node(
        "w",
        inputs=fields(i="integer"),
        inputsValues={"i": ref("loop_locals", "item")},
        gives={"v": 1},
        outputs=fields(v="integer"),
    )
    run = await run_graph(journal, catalog_of(tmp_path, g=looped(work)), {"xs": [7, 8]})
    assert result_of(run) == {"o": [7, 8]}
    steps = await steps_of(journal, run.run_id)
    assert list(steps) == [
        "start",
        "loop[0]/bs",
        "loop[0]/w",
        "loop[0]/be",
        "loop[1]/bs",
        "loop[1]/w",
        "loop[1]/be",
        "loop",
        "last",
        "end",
    ]
    assert steps["loop[1]/w"] == {"inputs": {"i": 8}, "outputs": {"v": 1}, "branch": None}
    assert steps["loop"] == {"inputs": {}, "outputs": {"o": [7, 8]}, "branch": None}


async def test_a_run_is_taken_up_again_with_each_finished_node_once(tmp_path: Path, journal: Journal, log: Log) -> None:
    catalog = catalog_of(tmp_path, g=looped(log_node("a"), log_node("b")))
    log.release["last"] = asyncio.Event()
    async with engine_on(journal, catalog) as engine:
        handle = await engine.submit(submission(catalog.find("g"), {"xs": [1, 2, 3]}))
        async with asyncio.timeout(5):
            while "last" not in log.started:
                await asyncio.sleep(0)
    assert log.cancelled == ["last"]
    log.release["last"].set()
    async with engine_on(journal, catalog) as engine:
        run = await ended(engine, handle.run_id)
    assert result_of(run) == {"o": [1, 2, 3]}
    assert {name: log.seen.count(name) for name in ("a", "b", "last")} == {"a": 3, "b": 3, "last": 2}
    assert [event.type for event in await journal.events(run.run_id)].count("replay_drift") == 0


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("stop_after", range(7))
async def test_a_run_that_stops_after_any_node_comes_to_the_same_result(
    tmp_path: Path, journal: Journal, log: Log, stop_after: int, concurrency: int
) -> None:
    catalog = catalog_of(tmp_path, g=looped(log_node("a"), log_node("b"), concurrency=concurrency))
    reached, hold = asyncio.Event(), asyncio.Event()

    class Counts(Log):
        async def execute(self, ctx: fg.ExecutionContext) -> fg.ExecutionResult:
            if len(self.seen) >= stop_after and not hold.is_set():
                reached.set()
                await hold.wait()
            return await super().execute(ctx)

    counts = Counts()
    fg.register_executor(counts)
    async with engine_on(journal, catalog) as engine:
        handle = await engine.submit(submission(catalog.find("g"), {"xs": [1, 2, 3]}))
        async with asyncio.timeout(5):
            await reached.wait()
    hold.set()
    async with engine_on(journal, catalog) as engine:
        run = await ended(engine, handle.run_id)
    assert result_of(run) == {"o": [1, 2, 3]}
    assert sorted(counts.seen) == ["a", "a", "a", "b", "b", "b", "last"]
    keys = list(await steps_of(journal, run.run_id))
    assert len(keys) == len(set(keys)) == 4 * 3 + 4
    assert "replay_drift" not in [event.type for event in await journal.events(run.run_id)]


async def test_a_failed_node_fails_the_run_with_its_id_and_a_retried_run_begins_there(
    tmp_path: Path, journal: Journal, log: Log
) -> None:
    log.failures_left["b"] = 1
    catalog = catalog_of(tmp_path, g=looped(log_node("a"), log_node("b")))
    async with engine_on(journal, catalog) as engine:
        handle = await engine.submit(submission(catalog.find("g"), {"xs": [1, 2]}))
        run = await ended(engine, handle.run_id)
        error = error_of(run)
        assert (error["type"], error["message"]) == ("node_failed", "Node 'b' failed: b broke")
        assert error["details"] == {"node": "b", "message": "b broke"}
        again = await engine.retry(run.run_id)
        assert result_of(await ended(engine, again.run_id)) == {"o": [1, 2]}
    assert log.seen == ["a", "b", "b", "a", "b", "last"]


async def test_retries_and_error_edges_are_durable(tmp_path: Path, journal: Journal, log: Log) -> None:
    log.failures_left = {"a": 1, "b": 9}
    retry = {"maxAttempts": 2, "delayMs": 1}
    schema = graph(
        [
            start(),
            log_node("a", retry=retry),
            log_node("b", retry=retry),
            log_node("rescue"),
            end({"why": ref("b", "error")}, why="string"),
        ],
        "start -> a -> b -> end",
        "b.error -> rescue -> end",
    )
    run = await run_graph(journal, catalog_of(tmp_path, g=schema), {})
    assert result_of(run) == {"why": "b broke"}
    assert log.seen == ["a", "a", "b", "b", "rescue"]


async def test_inputs_that_are_left_out_are_told_in_the_log_once(tmp_path: Path, journal: Journal, log: Log) -> None:
    log.release["w"] = asyncio.Event()
    values = {"a": ref("start", "o", "p"), "b": const("sk-planted-1")}
    schema = graph(
        [
            start(o="object"),
            log_node("w"),
            end(values, a="number", b="string"),
        ],
        "start -> w -> end",
    )
    catalog = catalog_of(tmp_path, g=schema)
    async with engine_on(journal, catalog) as engine:
        handle = await engine.submit(submission(catalog.find("g"), {"o": {"p": "text"}}))
        async with asyncio.timeout(5):
            while "w" not in log.started:
                await asyncio.sleep(0)
    log.release["w"].set()
    async with engine_on(journal, catalog) as engine:
        run = await ended(engine, handle.run_id)
    assert result_of(run) == {"b": "sk-planted-1"}
    said = [codec.load(event.data) for event in await journal.events(run.run_id, types=["log"])]
    message = "Input 'a' is declared as number, but was given string"
    assert said == [{"node": "end", "level": "warn", "message": message}]
    report = await report_of(journal, run, catalog.find("g").document, {})  # type: ignore[attr-defined]  # a graph
    assert [(one["nodeID"], one["type"], one["message"]) for one in report["messages"]] == [("end", "warn", message)]


async def test_a_workflow_node_runs_another_workflow_of_the_project(tmp_path: Path, journal: Journal) -> None:
    child = graph([start(n="integer"), end({"twice": ref("start", "n")}, twice="integer")], "start -> end")
    calls = node(
        "w",
        "workflow",
        workflow="child",
        inputs=fields(n="integer"),
        inputsValues={"n": const(4)},
        outputs=fields(twice="integer"),
    )
    parent = graph([start(), calls, end({"v": ref("w", "twice")}, v="integer")], "start -> w -> end")
    lost = graph([start(), {**calls, "data": {**calls["data"], "workflow": "nobody"}}, end()], "start -> w -> end")
    catalog = catalog_of(tmp_path, g=parent, child=child, lost=lost)
    run = await run_graph(journal, catalog, {})
    assert result_of(run) == {"v": 4}
    failed = await run_graph(journal, catalog, {}, "lost")
    assert error_of(failed)["message"].startswith("Node 'w' failed: There is no workflow 'nobody'.")


async def test_secrets_of_nodes_are_not_recorded(tmp_path: Path, journal: Journal, log: Log) -> None:
    values = {"apiKey": const("sk-planted-999"), "text": const("with sk-planted-999")}
    work = log_node("w", inputs=fields(apiKey="string", text="string"), inputsValues=values)
    run = await run_graph(journal, catalog_of(tmp_path, g=graph([start(), work, end()], "start -> w -> end")), {})
    assert log.inputs == [{"apiKey": "sk-planted-999", "text": "with sk-planted-999"}]
    assert (await steps_of(journal, run.run_id))["w"]["inputs"] == {"apiKey": "***", "text": "with ***"}
    assert not any(b"planted" in event.to_json() for event in await journal.events(run.run_id))


async def test_secrets_in_what_a_node_raises_are_not_recorded(tmp_path: Path, journal: Journal) -> None:
    class Tells(fg.INodeExecutor):
        type = "tells"

        async def execute(self, ctx: fg.ExecutionContext) -> fg.ExecutionResult:
            raise ValueError(f"bad key {ctx.inputs['apiKey']}")

    fg.register_executor(Tells())
    work = node("w", "tells", inputs=fields(apiKey="string"), inputsValues={"apiKey": const("sk-planted-999")})
    run = await run_graph(journal, catalog_of(tmp_path, g=graph([start(), work, end()], "start -> w -> end")), {})
    assert error_of(run)["message"] == "Node 'w' failed: bad key ***"
    assert b"planted" not in bytes(run.error or b"")
    assert not any(b"planted" in bytes(step.error or b"") for step in await journal.steps(run.run_id))
    assert not any(b"planted" in event.to_json() for event in await journal.events(run.run_id))


async def test_ids_that_mean_something_in_keys_do_not(tmp_path: Path, journal: Journal, log: Log) -> None:
    ids = ["a/b", "c#2", "[x]", "@k", "%2F", "x" * 300, "line\nbreak"]
    schema = graph([start(), *(log_node(name) for name in ids), end()])
    schema["edges"] = [
        {"sourceNodeID": a, "targetNodeID": b} for a, b in zip(["start", *ids], [*ids, "end"], strict=True)
    ]
    run = await run_graph(journal, catalog_of(tmp_path, g=schema), {})
    assert result_of(run) == {}
    keys = list(await steps_of(journal, run.run_id))
    assert keys[1:6] == ["a%2Fb", "c%232", "%5Bx]", "%40k", "%252F"]
    assert len(set(keys)) == 9


async def test_a_graph_that_comes_with_its_request_runs_under_a_reserved_name(
    tmp_path: Path, journal: Journal, log: Log
) -> None:
    log.release["last"] = asyncio.Event()
    catalog = catalog_of(tmp_path, flowgram="[]")
    write(tmp_path, "flowgram/inline", graph([start(), end()], "start -> end"))  # it does not get the name
    definition = raw(looped(log_node("a")))
    async with engine_on(journal, catalog) as engine:
        asked = submission(catalog.find(INLINE), {"inputs": {"xs": [1, 2]}}, definition=definition)
        handle = await engine.submit(asked)
        assert handle.run_id.startswith("workflow:flowgram.inline:")
        async with asyncio.timeout(5):
            while "last" not in log.started:
                await asyncio.sleep(0)
    log.release["last"].set()
    async with engine_on(journal, Catalog(tmp_path)) as engine:  # as after a restart
        run = await ended(engine, handle.run_id)
    assert result_of(run) == {"o": [1, 2]}
    assert log.seen.count("a") == 2


async def test_an_invalid_graph_of_a_request_is_a_failed_run(tmp_path: Path, journal: Journal) -> None:
    catalog = Catalog(tmp_path)
    for definition, errors in (
        (graph([end()]), ["Workflow must have a start node"]),
        ("{", ["schema must be valid JSON: The schema is not valid JSON: Input data was truncated."]),
        ({"nodes": 1}, ["Schema.nodes must be an array"]),
        (3, ["schema must be WorkflowSchema | dict | str, got int"]),
        (None, ["no graph came with the request; flowgram.inline runs those of POST /task/run"]),
    ):
        async with engine_on(journal, catalog) as engine:
            given = None if definition is None else raw(definition)
            asked = submission(catalog.find(INLINE), {"inputs": {}}, definition=given)
            error = error_of(await ended(engine, (await engine.submit(asked)).run_id))
        assert (error["type"], error["details"]) == ("graph_invalid", {"errors": errors})
    for payload in ({"inputs": 3}, [], {"schema": "{}"}):
        with pytest.raises(PayloadInvalid):
            catalog.find(INLINE).parse(payload)
