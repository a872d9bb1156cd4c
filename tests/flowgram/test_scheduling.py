"""Scheduling: every node once, joins once, skipped branches, failures that stop everything, retries, error branches."""

from __future__ import annotations

import asyncio
import time

import pytest

import pyflue.flowgram as fg
from tests.promises import promise

from .graphs import Log, const, edge, end, fields, graph, log_node, messages, node, ref, start, statuses, typed


async def test_a_join_runs_once_however_its_branches_end(log: Log) -> None:
    for turns in ((0, 0), (0, 3), (3, 0), (3, 3)):
        log.seen.clear()
        made = graph(
            [start(), log_node("a", turns=turns[0]), log_node("b", turns=turns[1]), log_node("j"), end()],
            "start -> a -> j",
            "start -> b -> j -> end",
        )
        task = fg.start(made, {})
        await task.wait()
        assert sorted(log.seen) == ["a", "b", "j"]
        assert [len(report.snapshots) for report in task.report().reports.values()] == [1, 1, 1, 1, 1]


@promise("flowgram.rules", "flowgram.once")
async def test_a_fan_of_500_runs_its_end_once(log: Log) -> None:
    names = [f"n{number}" for number in range(500)]
    made = graph([start(), *map(log_node, names), end()], *(f"start -> {name} -> end" for name in names))
    task = fg.start(made, {})
    await task.wait()
    assert sorted(log.seen) == sorted(names)
    assert len(task.report().reports["end"].snapshots) == 1


async def test_branches_run_at_the_same_time(log: Log) -> None:
    log.release = {"a": asyncio.Event(), "b": asyncio.Event()}
    task = fg.start(graph([start(), log_node("a"), log_node("b"), end()], "start -> a -> end", "start -> b -> end"), {})
    async with asyncio.timeout(5):
        while sorted(log.started) != ["a", "b"]:
            await asyncio.sleep(0)
    for release in log.release.values():
        release.set()
    assert await task.wait(5) == {}


async def test_skipped_branches_are_not_reported_and_a_join_after_them_runs(log: Log) -> None:
    choice = log_node("choice", takes="left")
    made = graph(
        [start(), choice, log_node("a"), log_node("b"), log_node("b2"), log_node("other"), log_node("j"), end()],
        "start -> choice",
        "choice.left -> a -> j",
        "choice.right -> b -> b2 -> j",
        "start -> other -> b2",  # reached from another side as well
        "j -> end",
    )
    task = fg.start(made, {})
    await task.wait()
    assert sorted(log.seen) == ["a", "b2", "choice", "j", "other"]
    assert "b" not in task.report().reports


async def test_nodes_that_nothing_leads_to_are_not_waited_for(log: Log) -> None:
    made = graph([start(), log_node("a"), log_node("lost"), end()], "start -> a -> end", "lost -> end")
    assert await fg.run(made, {}) == {}
    assert log.seen == ["a"]
    assert fg.validate(made).warnings == ["Nothing leads to node 'lost'"]


async def test_an_edge_that_is_drawn_twice_counts_once(log: Log) -> None:
    made = graph([start(), log_node("a"), end()], "start -> a -> end")
    made["edges"].append(edge("a", "end"))
    assert await fg.run(made, {}) == {}


@promise("flowgram.rules")
async def test_a_chain_of_10000_nodes_runs() -> None:
    names = [f"n{number}" for number in range(10_000)]
    made = graph([start(), *(node(name, "condition") for name in names), end()], " -> ".join(["start", *names, "end"]))
    assert await fg.run(made, {}) == {}


async def test_quick_nodes_do_not_hold_the_event_loop(log: Log) -> None:
    names = [f"n{number}" for number in range(5_000)]
    made = graph([start(), *(node(name, "condition") for name in names), end()], " -> ".join(["start", *names, "end"]))
    document = fg.start(made, {})
    longest, before = 0.0, time.monotonic()
    while not document.done():
        await asyncio.sleep(0)
        now = time.monotonic()
        longest, before = max(longest, now - before), now
    assert longest < 0.25  # it is about 0.005 on a quiet machine; the whole chain takes longer than this


async def test_a_node_without_next_nodes_fails_and_says_so(log: Log) -> None:
    task = fg.start(graph([start(), log_node("a"), end()], "start -> a", "start -> end"), {})
    with pytest.raises(fg.NodeFailed, match='Node "a" has no next nodes'):
        await task.wait()
    assert messages(task) == [("a", 'Node "a" has no next nodes')]
    assert statuses(task)["a"] == "failed"


@promise("flowgram.rules")
async def test_the_first_failure_ends_the_run_and_its_siblings_are_cancelled_and_awaited(log: Log) -> None:
    log.failures_left["bad"] = 1
    log.release["slow"] = asyncio.Event()
    made = graph(
        [start(), log_node("slow"), log_node("bad", turns=3), log_node("after"), end()],
        "start -> slow -> after -> end",
        "start -> bad -> end",
    )
    task = fg.start(made, {})
    with pytest.raises(fg.NodeFailed) as failed:
        await task.wait()
    assert (failed.value.node_id, failed.value.message) == ("bad", "bad broke")
    assert log.cancelled == ["slow"]
    assert "after" not in log.seen
    assert statuses(task) == {"start": "succeeded", "slow": "canceled", "bad": "failed"}
    assert messages(task) == [("bad", "bad broke")]
    assert task.status is fg.WorkflowStatus.Failed


@promise("flowgram.rules")
async def test_every_failure_has_a_message() -> None:
    class Silent(fg.INodeExecutor):
        type = "silent"

        async def execute(self, ctx: fg.ExecutionContext) -> fg.ExecutionResult:
            raise TimeoutError

    fg.register_executor(Silent())
    task = fg.start(graph([start(), node("s", "silent"), end()], "start -> s -> end"), {})
    with pytest.raises(fg.NodeFailed):
        await task.wait()
    assert messages(task) == [("s", "TimeoutError")]


async def test_a_node_is_tried_again_as_its_author_wants(log: Log) -> None:
    log.failures_left["a"] = 2
    retry = {"maxAttempts": 3, "delayMs": 1, "backoff": 1}
    made = graph([start(), log_node("a", retry=retry), end()], "start -> a -> end")
    assert await fg.run(made, {}) == {}
    assert log.seen == ["a", "a", "a"]
    log.failures_left["a"] = 3
    with pytest.raises(fg.NodeFailed, match="a broke"):
        await fg.run(made, {})


async def test_retries_that_cannot_be_meant_are_refused(log: Log) -> None:
    for retry in ({"maxAttempts": 0}, {"delayMs": -1}, {"backoff": "2"}, {"maxAttempts": True}):
        with pytest.raises(fg.NodeFailed, match='"retry" must be like'):
            await fg.run(graph([start(), log_node("a", retry=retry), end()], "start -> a -> end"), {})


async def test_a_failed_node_is_left_by_its_error_edge(log: Log) -> None:
    log.failures_left["a"] = 1
    made = graph(
        [start(), log_node("a"), log_node("good"), log_node("rescue"), end({"why": ref("a", "error")}, why="string")],
        "start -> a -> good -> end",
        "a.error -> rescue -> end",
    )
    task = fg.start(made, {})
    assert await task.wait() == {"why": "a broke"}
    assert log.seen == ["a", "rescue"]
    assert statuses(task)["a"] == "failed"
    log.seen.clear()
    assert await fg.run(made, {}) == {}
    assert log.seen == ["a", "good"]


async def test_a_run_without_an_end_that_is_reached_succeeds_with_nothing() -> None:
    made = graph([start(), node("b", "break"), end({"v": const(1)}, v="integer")], "start -> b -> end")
    task = fg.start(made, {})
    assert await task.wait() == {}
    assert task.status is fg.WorkflowStatus.Succeeded


async def test_a_branch_of_a_users_node_that_has_no_edge_fails_it(log: Log) -> None:
    made = graph([start(), log_node("a", takes="x"), end()], "start -> a -> end")
    with pytest.raises(fg.NodeFailed, match='Branch "x" not found'):
        await fg.run(made, {})


async def test_cancelling_ends_running_nodes(log: Log) -> None:
    log.release["a"] = asyncio.Event()
    task = fg.start(graph([start(), log_node("a"), end()], "start -> a -> end"), {})
    async with asyncio.timeout(5):
        while "a" not in log.started:
            await asyncio.sleep(0)
    assert task.cancel()
    with pytest.raises(fg.GraphCancelled):
        await task.wait(5)
    assert log.cancelled == ["a"]
    assert statuses(task) == {"start": "succeeded", "a": "canceled"}
    assert (task.status, task.result(), task.cancel()) == (fg.WorkflowStatus.Cancelled, {}, True)


async def test_variables_are_declared_and_assigned() -> None:
    assign = [
        {"operator": "declare", "left": "own", "right": {**const("3"), "schema": typed("string")}},
        {"operator": "assign", "left": ref("global", "count"), "right": const(7)},
        {"operator": "assign", "left": ref("start", "n"), "right": ref("global", "count")},
    ]
    values = {"own": ref("v", "own"), "count": ref("global", "count"), "n": ref("start", "n")}
    made = graph(
        [
            start(n="integer"),
            node("v", "variable", assign=assign, outputs=fields(own="string")),
            end(values, own="string", count="integer", n="integer"),
        ],
        "start -> v -> end",
        globalVariable=fields(count="integer"),
    )
    assert await fg.run(made, {"n": 1}) == {"own": "3", "count": 7, "n": 7}


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"operator": "assign", "left": ref("nobody", "x"), "right": const(1)}, "Cannot assign to nobody.x"),
        ({"operator": "assign", "left": ref("start", "zz"), "right": const(1)}, "Cannot assign to start.zz"),
        ({"operator": "swap", "left": "x", "right": const(1)}, "Invalid assignment: 'swap' to 'x'"),
    ],
)
async def test_assignments_that_cannot_be_done_fail_the_node(step: dict[str, object], message: str) -> None:
    fg_node = node("v", "variable", assign=[step])
    made = graph([start(n="integer"), node("nobody", "comment"), fg_node, end()], "start -> v -> end")
    with pytest.raises(fg.NodeFailed, match=message):
        await fg.run(made, {"n": 1})


async def test_a_workflow_node_needs_a_project() -> None:
    made = graph([start(), node("w", "workflow", workflow="other"), end()], "start -> w -> end")
    with pytest.raises(fg.NodeFailed, match="Workflow 'other' cannot be run here: a workflow node needs a project"):
        await fg.run(made, {})
