"""Random graphs with branches, joins and loops: nodes run once per iteration, resumed runs come out equal."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pyflue.flowgram as fg
from pyflue import codec
from pyflue.flowgram.document import Document
from pyflue.flowgram.journal_report import report_of
from pyflue.flowgram.scheduler import Progress
from pyflue.journal import Journal, Run
from tests.promises import promise
from tests.support import engine_on, journal_at, submission

from .graphs import Json, Log, end, graph, log_node, loop, node, ref, start, typed
from .test_durable import catalog_of

NUMBERS = typed("array", items=typed("integer"))


@st.composite
def levels(
    draw: st.DrawFn, prefix: str, entry: str, last: str, depth: int = 0
) -> tuple[list[Json], list[str], dict[str, int]]:
    """A level: its nodes and edges, and how often each node runs, given once for the level."""
    count = draw(st.integers(0 if depth else 1, 5))
    names = [f"{prefix}{number}" for number in range(count)]
    order = [entry, *names, last]
    nodes: list[Json] = []
    lines: list[str] = []
    alive = {entry: 1}
    incoming: dict[str, list[tuple[str, bool]]] = {name: [] for name in order}
    inner_counts: dict[str, int] = {}
    for position, name in enumerate(order[:-1]):
        later = order[position + 1 :]
        targets = draw(st.lists(st.sampled_from(later), min_size=1, max_size=3, unique=True))
        runs = name == entry or any(taken and alive.get(source) for source, taken in incoming[name])
        if runs:
            alive[name] = 1
        is_choice = name != entry and len(targets) > 1 and draw(st.booleans())
        for number, target in enumerate(targets):
            port = f".{'yes' if number == 0 else 'no'}" if is_choice else ""
            lines.append(f"{name}{port} -> {target}")
            incoming[target].append((name, not is_choice or number == 0))
        if name == entry:
            continue
        if not is_choice and depth < 2 and draw(st.integers(0, 3)) == 0:
            body, body_lines, counts = draw(levels(f"{name}_", f"{name}_bs", f"{name}_be", depth + 1))
            turns = draw(st.integers(0, 3))
            everything = [node(f"{name}_bs", "block-start"), *body, node(f"{name}_be", "block-end")]
            made = loop(
                ref("start", f"turns_{turns}"),
                everything,
                *body_lines,
                node_id=name,
            )
            if draw(st.booleans()):
                made["data"]["concurrency"] = 2
            nodes.append(made)
            if runs:
                inner_counts |= {inner: number * turns for inner, number in counts.items()}
        else:
            takes: Json = {"takes": "yes"} if is_choice else {}
            nodes.append(log_node(name, turns=draw(st.integers(0, 2)), **takes))
    counts = {name: 1 for name in names if alive.get(name)}
    return nodes, lines, {**counts, **inner_counts}


@st.composite
def graphs(draw: st.DrawFn) -> tuple[Json, dict[str, int]]:
    nodes, lines, counts = draw(levels("n", "start", "end"))
    first = start(**{f"turns_{turns}": {**NUMBERS, "default": list(range(turns))} for turns in range(4)})
    return graph([first, *nodes, end()], *lines), {name: count for name, count in counts.items() if count}


def logged(counts: dict[str, int], schema: Json) -> dict[str, int]:
    """Of the nodes that run, those of the type `log`."""
    types: dict[str, str] = {}
    waiting = list(schema["nodes"])
    for one in waiting:
        types[one["id"]] = one["type"]
        waiting.extend(one.get("blocks") or ())
    return {name: count for name, count in counts.items() if types[name] == "log"}


@promise("flowgram.once")
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(graphs())
def test_each_reachable_node_runs_exactly_once_per_iteration(made: tuple[Json, dict[str, int]]) -> None:
    schema, counts = made
    fg.reset()
    log = Log()
    fg.register_executor(log)
    assert fg.run_sync(schema, {}) == {}
    assert {name: log.seen.count(name) for name in log.seen} == logged(counts, schema)


class Stops(Log):
    """Holds still from the n-th execution on, or from when it is told to if n is below 0."""

    def __init__(self, stop_after: int) -> None:
        super().__init__()
        self.left = stop_after
        self.reached = asyncio.Event()

    async def execute(self, ctx: fg.ExecutionContext) -> fg.ExecutionResult:
        if self.left == 0:
            self.reached.set()
            await asyncio.Event().wait()
        self.left -= 1
        return await super().execute(ctx)


@promise("flowgram.resume")
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(graphs(), st.integers(0, 8))
def test_a_run_that_is_stopped_and_resumed_gives_the_same_report(
    made: tuple[Json, dict[str, int]], stop_after: int
) -> None:
    schema, counts = made
    expected = logged(counts, schema)
    asyncio.run(stop_and_resume(schema, expected, stop_after))


@promise("flowgram.resume")
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(graphs(), st.integers(1, 60))
def test_a_run_that_is_stopped_at_any_event_gives_the_same_report(
    made: tuple[Json, dict[str, int]], index: int
) -> None:
    schema, counts = made
    asyncio.run(stop_and_resume(schema, logged(counts, schema), None, index))


async def stop_and_resume(
    schema: Json, expected: dict[str, int], stop_after: int | None, index: int | None = None
) -> None:
    """Stop a run after some executions, or once it has an event of an index, and compare it with an undisturbed one."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        catalog = catalog_of(root, g=schema)
        fg.reset()
        first = Stops(-1 if stop_after is None else stop_after)
        fg.register_executor(first)
        journal = journal_at(root)
        try:
            if stop_after is not None:
                run_id = await interrupted(journal, catalog, first, stop_after, sum(expected.values()))
            else:
                run_id = await stopped_at(journal, catalog, first, index or 0)
            before = await keys_of(journal, run_id)
            seen = list(first.seen)
            fg.reset()
            second = Log()
            fg.register_executor(second)
            async with engine_on(journal, catalog) as engine, asyncio.timeout(20):
                run = await engine.wait(run_id)
            assert run.status.value == "completed", run.error
            seen += second.seen
            # A node that was stopped in the middle is run again.
            assert {name: seen.count(name) >= count for name, count in expected.items()} == dict.fromkeys(
                expected, True
            )
            if stop_after is not None:
                assert {name: seen.count(name) for name in seen} == expected
            keys = await keys_of(journal, run.run_id)
            assert before <= keys
            assert "replay_drift" not in [event.type for event in await journal.events(run.run_id)]
            fg.reset()
            fg.register_executor(Log())
            async with engine_on(journal, catalog) as engine, asyncio.timeout(20):
                handle = await engine.submit(submission(catalog.find("g"), {}))
                undisturbed = await engine.wait(handle.run_id)
            assert await keys_of(journal, undisturbed.run_id) == keys
            document = catalog.find("g").document  # type: ignore[attr-defined]  # it is a graph
            assert await told(journal, run, document) == await told(journal, undisturbed, document)
        finally:
            await journal.close()


async def interrupted(journal: Journal, catalog: Any, log: Stops, stop_after: int, total: int) -> str:
    """A run whose engine stopped after some executions, or at its end if it has fewer."""
    async with engine_on(journal, catalog) as engine, asyncio.timeout(20):
        handle = await engine.submit(submission(catalog.find("g"), {}))
        if stop_after >= total:
            await engine.wait(handle.run_id)
        else:
            await log.reached.wait()
    return handle.run_id


async def stopped_at(journal: Journal, catalog: Any, log: Stops, index: int) -> str:
    """A run in which nothing more begins once it has an event of an index, and whose engine stops then."""
    async with engine_on(journal, catalog) as engine, asyncio.timeout(20):
        handle = await engine.submit(submission(catalog.find("g"), {}))
        with journal.watch(handle.run_id) as bell:
            while (run := await journal.run(handle.run_id)) and not run.is_final and run.last_index < index:
                await bell.wait()
        log.left = 0
    return handle.run_id


async def told(journal: Journal, run: Run, document: Document) -> Any:
    """A run's report, but for what cannot be the same: its id, and when it was."""
    report = await report_of(journal, run, document, {})
    return {
        **{name: report[name] for name in ("inputs", "outputs")},
        "status": report["workflowStatus"]["status"],
        "reports": {
            name: (one["status"], one["terminated"], sorted(one["snapshots"], key=lambda shot: shot["id"]))
            for name, one in report["reports"].items()
        },
        "messages": sorted((one["nodeID"], one["type"], one["message"]) for one in report["messages"]),
    }


async def keys_of(journal: Journal, run_id: str) -> set[tuple[str, bytes]]:
    return {
        (step.key, bytes(step.value or codec.NULL))
        for step in await journal.steps(run_id)
        if step.status.value == "completed"
    }


def test_dead_edges_reach_behind_skipped_nodes() -> None:
    # The property above would not say which part of it broke.
    from pyflue.flowgram.document import read_document
    from pyflue.flowgram.values import Scope

    document = read_document(
        graph([start(), log_node("a"), log_node("b"), end()], "start -> a -> b -> end", "start -> end")
    )
    progress = Progress(document.root.plan, Scope())
    first = document.start
    assert progress.settle(first.outgoing, [edge for edge in first.outgoing if edge.target.id == "end"]) == [
        document.nodes["end"]
    ]
