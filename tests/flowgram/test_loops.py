"""Loops: iterations and their scopes, break and continue, nesting, several at once, and what is collected."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import pyflue.flowgram as fg
from tests.promises import promise

from .graphs import Json, Log, const, end, graph, log_node, loop, messages, node, ref, start, statuses, typed

NUMBERS = typed("array", items=typed("integer"))
BODY = [node("bs", "block-start"), node("be", "block-end")]


def over(body: list[Json], *lines: str, collect: Json | None = None, out: Json | str = NUMBERS, **data: Any) -> Json:
    """A graph whose loop goes over the input `xs`."""
    made = loop(ref("start", "xs"), body, *lines, collect=collect, **data)
    return graph([start(xs=NUMBERS), made, end({"o": ref("loop", "o")}, o=out)], "start -> loop -> end")


def check(operator: str, right: int) -> Json:
    value = {"left": ref("loop_locals", "item"), "operator": operator, "right": const(right)}
    return node("if", "condition", conditions=[{"key": "yes", "value": value}])


async def test_items_and_indexes_are_collected_in_order() -> None:
    collect = {"o": ref("loop_locals", "item"), "i": ref("loop_locals", "index")}
    made = over(BODY, "bs -> be", collect=collect)
    made["nodes"][2] = end(
        {"o": ref("loop", "o"), "i": ref("loop", "i")}, o=NUMBERS, i=typed("array", items=typed("number"))
    )
    task = fg.start(made, {"xs": [7, 8, 9]})
    assert await task.wait() == {"o": [7, 8, 9], "i": [0, 1, 2]}
    counts = {name: len(report.snapshots) for name, report in task.report().reports.items()}
    assert counts == {"start": 1, "loop": 1, "bs": 3, "be": 3, "end": 1}
    assert await fg.run(made, {"xs": []}) == {"o": [], "i": []}


async def test_break_ends_the_loop_and_its_iteration_is_not_collected() -> None:
    body = [*BODY, check("gt", 7), node("stop", "break")]
    made = over(body, "bs -> if", "if.yes -> stop", "if.else -> be", collect={"o": ref("loop_locals", "item")})
    task = fg.start(made, {"xs": [7, 8, 9]})
    assert await task.wait() == {"o": [7]}
    assert len(task.report().reports["bs"].snapshots) == 2


async def test_continue_leaves_an_iteration_out() -> None:
    body = [*BODY, check("eq", 8), node("skip", "continue")]
    made = over(body, "bs -> if", "if.yes -> skip", "if.else -> be", collect={"o": ref("loop_locals", "item")})
    assert await fg.run(made, {"xs": [7, 8, 9]}) == {"o": [7, 9]}


async def test_variables_of_an_iteration_are_gone_after_it(log: Log) -> None:
    outputs = {"type": "object", "properties": {"v": typed("integer", default=5)}}
    work = {"id": "w", "type": "log", "data": {"outputs": outputs}}
    body = [*BODY, check("eq", 7), work]
    lines = ("bs -> if", "if.yes -> w -> be", "if.else -> be")
    made = over(body, *lines, collect={"o": ref("w", "v")})
    # Only the first iteration has it: what is not there is left out.
    assert await fg.run(made, {"xs": [7, 8, 9]}) == {"o": [5]}
    outside = graph([*made["nodes"][:2], end({"v": ref("w", "v")}, v="integer")], "start -> loop -> end")
    assert await fg.run(outside, {"xs": [7]}) == {}


@promise("flowgram.rules")
async def test_nested_loops_over_the_outer_item() -> None:
    inner = loop(
        ref("loop_locals", "item"),
        [node("is", "block-start"), node("ie", "block-end")],
        "is -> ie",
        node_id="inner",
        collect={"v": ref("inner_locals", "item")},
    )
    body = [*BODY, inner]
    for items in (typed("array"), typed("array", items=typed("integer"))):
        made = graph(
            [
                start(xs=typed("array", items=items)),
                loop(ref("start", "xs"), body, "bs -> inner -> be", collect={"o": ref("inner", "v")}),
                end({"o": ref("loop", "o")}, o="array"),
            ],
            "start -> loop -> end",
        )
        assert await fg.run(made, {"xs": [[1, 2], [], [3]]}) == {"o": [[1, 2], [], [3]]}


async def test_loops_go_over_lists_below_a_path_also_empty_ones() -> None:
    for rows, expected in (([4, "a", None], [4, "a", None]), ([], [])):
        made = graph(
            [
                start(o="object"),
                loop(ref("start", "o", "rows"), BODY, "bs -> be", collect={"o": ref("loop_locals", "item")}),
                end({"o": ref("loop", "o")}, o="array"),
            ],
            "start -> loop -> end",
        )
        assert await fg.run(made, {"o": {"rows": rows}}) == {"o": expected}


async def test_items_of_a_list_of_objects_can_be_looked_into() -> None:
    rows = typed("array", items=typed("object", properties={"name": typed("string")}))
    made = graph(
        [
            start(xs=rows),
            loop(ref("start", "xs"), BODY, "bs -> be", collect={"o": ref("loop_locals", "item", "name")}),
            end({"o": ref("loop", "o")}, o="array"),
        ],
        "start -> loop -> end",
    )
    assert await fg.run(made, {"xs": [{"name": "a"}, {"name": "b"}]}) == {"o": ["a", "b"]}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, 'Loop "loopFor" is required'),
        (ref("start", "text"), 'Loop "loopFor" must be an array'),
        (ref("start", "bare"), 'Loop "loopFor.items" must be array items'),
        (ref("start", "missing", "x"), 'Loop "loopFor" must be an array'),
    ],
)
async def test_what_is_no_list_fails_the_loop(value: Json, message: str) -> None:
    made = graph([start(text="string", bare="array"), loop(value, BODY, "bs -> be"), end()], "start -> loop -> end")
    task = fg.start(made, {"text": "x", "bare": []})
    with pytest.raises(fg.NodeFailed) as failed:
        await task.wait()
    assert (failed.value.node_id, failed.value.message) == ("loop", message)
    assert messages(task) == [("loop", message)]


async def test_a_failure_inside_is_told_of_the_node_and_of_the_loop(log: Log) -> None:
    log.failures_left["w"] = 1
    task = fg.start(over([*BODY, log_node("w")], "bs -> w -> be"), {"xs": [1, 2]})
    with pytest.raises(fg.NodeFailed) as failed:
        await task.wait()
    assert (failed.value.node_id, failed.value.message) == ("w", "w broke")
    assert messages(task) == [("w", "w broke"), ("loop", "Loop block execute error")]
    assert statuses(task) == {"start": "succeeded", "loop": "failed", "bs": "succeeded", "w": "failed"}


async def test_an_error_edge_of_a_loop_takes_failures_inside(log: Log) -> None:
    log.failures_left["w"] = 1
    made = over([*BODY, log_node("w")], "bs -> w -> be")
    made["nodes"][2] = end({"why": ref("loop", "error")}, why="string")
    made["edges"].append({"sourceNodeID": "loop", "targetNodeID": "end", "sourcePortID": "error"})
    assert await fg.run(made, {"xs": [1]}) == {"why": "w broke"}


async def test_joins_in_iterations_run_once_each(log: Log) -> None:
    body = [*BODY, log_node("a"), log_node("b", turns=2), log_node("j")]
    await fg.run(over(body, "bs -> a -> j", "bs -> b -> j -> be"), {"xs": [1, 2, 3]})
    assert {name: log.seen.count(name) for name in ("a", "b", "j")} == {"a": 3, "b": 3, "j": 3}


async def test_iterations_run_at_once_up_to_the_limit(log: Log) -> None:
    log.release["w"] = asyncio.Event()
    made = over([*BODY, log_node("w")], "bs -> w -> be", collect={"o": ref("loop_locals", "item")}, concurrency=3)
    task = fg.start(made, {"xs": [1, 2, 3, 4, 5]})
    async with asyncio.timeout(5):
        while len(log.seen) < 3:
            await asyncio.sleep(0)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(log.seen) == 3
    log.release["w"].set()
    assert await task.wait(5) == {"o": [1, 2, 3, 4, 5]}


async def test_a_break_of_one_of_several_iterations_at_once_leaves_later_ones_out() -> None:
    body = [*BODY, check("eq", 3), node("stop", "break")]
    made = over(
        body, "bs -> if", "if.yes -> stop", "if.else -> be", collect={"o": ref("loop_locals", "item")}, concurrency=2
    )
    assert await fg.run(made, {"xs": [1, 2, 3, 4, 5, 6]}) == {"o": [1, 2]}


@pytest.mark.parametrize("limit", [0, -1, True, "2"])
async def test_limits_that_cannot_be_meant_are_refused(limit: Any) -> None:
    with pytest.raises(fg.NodeFailed, match='"concurrency" must be a whole number from 1'):
        await fg.run(over(BODY, "bs -> be", concurrency=limit), {"xs": [1]})


async def test_a_graph_with_loops_can_be_run_again_and_its_schema_is_not_changed() -> None:
    made = over(BODY, "bs -> be", collect={"o": ref("loop_locals", "item")})
    model = fg.WorkflowSchema.model_validate(made)
    before = (model.model_dump_json(), repr(made))
    for _ in range(2):
        assert await fg.run(model, {"xs": [1]}) == {"o": [1]}
        assert await fg.run(made, {"xs": [1]}) == {"o": [1]}
    assert (model.model_dump_json(), repr(made)) == before
