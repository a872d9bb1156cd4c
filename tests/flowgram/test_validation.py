"""Validation: everything that is wrong is told, with long and deep graphs, too."""

from __future__ import annotations

from typing import Any

import pytest

import pyflue.flowgram as fg
from tests.promises import promise

from .graphs import Json, const, edge, end, fields, graph, loop, node, ref, start, template, typed

BODY = [node("bs", "block-start"), node("be", "block-end")]


def errors(schema: Any, inputs: Json | None = None) -> list[str]:
    result = fg.validate(schema, inputs)
    assert result.valid is (result.errors is None)
    return result.errors or []


def test_a_graph_that_can_be_run_has_no_errors() -> None:
    assert fg.validate(graph([start(), end()], "start -> end")) == fg.ValidationResult(valid=True)


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"nodes": 3}, ["Schema.nodes must be an array"]),
        ({"nodes": [], "edges": {}}, ["Schema.edges must be an array"]),
        ([], ["The schema must be an object with nodes and edges"]),
        ({"nodes": ["x"]}, ["A node must be an object"]),
        ({"nodes": [{"type": "start"}]}, ["Node id is required"]),
        ({"nodes": [{"id": "x"}]}, ["Node type is required (node id='x')"]),
        ({"nodes": [{"id": "x", "type": "start", "data": []}]}, ["Node data must be an object (node id='x')"]),
        ({"nodes": [], "edges": [{"sourceNodeID": "a"}]}, ["An edge needs sourceNodeID and targetNodeID"]),
        ({"nodes": [], "edges": [1]}, ["An edge must be an object"]),
    ],
)
def test_what_is_no_graph_is_told(schema: Any, expected: list[str]) -> None:
    assert errors(schema if isinstance(schema, dict) else "[]") == expected


def test_malformed_nodes_inside_of_loops_are_told() -> None:
    made = graph([start(), loop(ref("start", "x"), [{"type": "block-start"}, node("be", "block-end")]), end()])
    assert errors(made) == ["In 'loop': Node id is required"]


@pytest.mark.parametrize(
    ("nodes", "lines", "expected"),
    [
        ([end()], [], ["Workflow must have a start node"]),
        ([start()], [], ["Workflow must have an end node"]),
        ([start(), {**start(), "id": "s2"}, end()], ["start -> end"], ["Workflow must have exactly one start node"]),
        ([start(), end(), {**end(), "id": "e2"}], ["start -> end"], ["Workflow must have exactly one end node"]),
        (
            [start(), end(), end()],
            ["start -> end"],
            ["Node id 'end' is used more than once", "Workflow must have exactly one end node"],
        ),
        (
            [start(), node("a", "condition"), node("b", "condition"), end()],
            ["start -> a -> b -> a", "a -> end"],
            ["Workflow has a cycle (node a)", "Workflow has a cycle (node b)"],
        ),
        ([start(), end()], ["start -> q"], ["Edge target node 'q' does not exist"]),
        ([start(), end()], ["q -> end"], ["Edge source node 'q' does not exist"]),
        (
            [start(), node("w", "wat"), end()],
            ["start -> w -> end"],
            ["Node 'w' has an unknown type 'wat': No executor found for it"],
        ),
        (
            [start(), node("b", "block-end"), end()],
            ["start -> end"],
            ["Node 'b' of type 'block-end' cannot be outside of a loop"],
        ),
        (
            [start(), end({"v": ref("gone", "x")}, v="string")],
            ["start -> end"],
            ["Node 'end' refers to node 'gone', which does not exist"],
        ),
        (
            [start(), end({"v": template("{{gone.x}}")}, v="string")],
            ["start -> end"],
            ["Node 'end' refers to node 'gone', which does not exist"],
        ),
        (
            [start(), {**node("a", "condition"), "blocks": BODY}, end()],
            ["start -> a -> end"],
            ["Node 'a' has blocks, but is no loop"],
        ),
    ],
)
def test_what_is_wrong_with_nodes_and_edges(nodes: list[Json], lines: list[str], expected: list[str]) -> None:
    found = errors(graph(nodes, *lines))
    if len(expected) == 2 and "cycle" in expected[0]:
        assert found in ([expected[0]], [expected[1]])
    else:
        assert found == expected


@pytest.mark.parametrize(
    ("body", "lines", "expected"),
    [
        ([], [], "Loop 'loop' must have exactly one block-start node"),
        ([*BODY, node("b2", "block-start")], ["bs -> be"], "Loop 'loop' must have exactly one block-start node"),
        ([*BODY, node("b2", "block-end")], ["bs -> be"], "Loop 'loop' must have at most one block-end node"),
        (
            [*BODY, node("a", "condition"), node("b", "condition")],
            ["bs -> a -> b -> a", "b -> be"],
            "Loop 'loop' has a cycle",
        ),
        ([*BODY, node("x", "start")], ["bs -> be"], "Node 'x' of type 'start' cannot be inside of a loop"),
        (BODY, ["bs -> end"], "In 'loop': Edge target node 'end' is on another level"),
        ([*BODY, node("start", "condition")], ["bs -> be"], "Node id 'start' is used more than once"),
    ],
)
def test_bodies_of_loops_are_looked_at(body: list[Json], lines: list[str], expected: str) -> None:
    made = graph(
        [start(xs=typed("array", items=typed("string"))), loop(ref("start", "xs"), body, *lines), end()],
        "start -> loop -> end",
    )
    assert expected in "; ".join(errors(made))


def test_edges_do_not_cross_levels() -> None:
    made = graph(
        [start(xs=typed("array", items=typed("string"))), loop(ref("start", "xs"), BODY, "bs -> be"), end()],
        "start -> loop -> end",
    )
    made["edges"].append(edge("start", "be"))
    assert errors(made) == ["Edge target node 'be' is on another level"]


def test_all_errors_are_told_at_once() -> None:
    made = graph(
        [start(), node("w", "wat"), node("w", "code"), end({"v": ref("gone", "x")}, v="string")], "start -> zz"
    )
    assert len(errors(made)) == 4


def test_what_may_be_meant_is_a_warning() -> None:
    value = {"left": ref("start", "zz"), "operator": "is_empty"}
    condition = node("if", "condition", conditions=[{"key": "yes", "value": value}, {"key": "no", "value": value}])
    made = graph(
        [start(), condition, node("late", "condition"), end()], "start -> if", "if.yes -> end", "if.old -> late"
    )
    assert fg.validate(made) == fg.ValidationResult(
        valid=True,
        errors=None,
        warnings=[
            "Condition 'if' has no edge for its branch 'no'",
            "Condition 'if' has no else edge: the run fails if nothing holds",
            "Condition 'if' has an edge from 'old', which is never taken",
            "Node 'late' has no next nodes: the run fails after it",
            "Node 'if' refers to start.zz, which is not declared",
        ],
    )


def test_inputs_that_will_be_left_out_are_warnings() -> None:
    values = {
        "a": template("{{start.n}}"),
        "b": ref("start", "n"),
        "c": ref("start", "o"),
        "d": ref("start", "t"),
        "e": ref("start", "o", "deep"),
        "f": ref("global", "g"),
        "h": const("not looked at"),
        "undeclared": ref("start", "o"),
    }
    made = graph(
        [
            start(n="integer", o="object", t="string"),
            end(values, a="number", b="number", c="map", d="date-time", e="string", f="boolean", h="number"),
        ],
        "start -> end",
        globalVariable=fields(g="array"),
    )
    assert fg.validate(made).warnings == [
        "Input 'a' of node 'end' is declared as number, and given string: it will be left out",
        "Input 'c' of node 'end' is declared as map, and given object: it will be left out",
        "Input 'f' of node 'end' is declared as boolean, and given array: it will be left out",
    ]


def test_drawings_are_no_nodes() -> None:
    made = graph([start(), node("c", "comment"), node("g", "group", blockIDs=["start"]), end()], "start -> end")
    assert fg.validate(made) == fg.ValidationResult(valid=True)


@pytest.mark.parametrize(
    ("schema", "inputs", "expected"),
    [
        ({"required": ["msg"]}, {}, "'msg' is a required property (at root)"),
        ({}, {"msg": 3}, "3 is not of type 'string' (at msg)"),
        (
            {"properties": {"msg": typed("array", items=typed("integer"))}},
            {"msg": [1, "x"]},
            "'x' is not of type 'integer' (at msg.1)",
        ),
        ({"properties": {"msg": typed("string", enum=["a"])}}, {"msg": "b"}, "'b' is not one of ['a'] (at msg)"),
        (
            {"properties": {"msg": typed("map", additionalProperties=typed("string"))}},
            {"msg": {"k": 1}},
            "1 is not of type 'string' (at msg.k)",
        ),
        ({"properties": {"msg": typed("integer")}}, {"msg": True}, "True is not of type 'integer' (at msg)"),
    ],
)
def test_inputs_are_compared_with_the_start_node(schema: Json, inputs: Json, expected: str) -> None:
    first = start(msg="string")
    first["data"]["outputs"] |= schema
    assert errors(graph([first, end()], "start -> end"), inputs) == [f"JSON Schema validation failed: {expected}"]


def test_inputs_that_fit() -> None:
    made = graph([start(m="map", at="date-time", n="number", i="integer"), end()], "start -> end")
    assert errors(made, {"m": {"a": 1}, "at": "2026-01-01", "n": 1, "i": 2.0, "more": None}) == []
    with_enum = start(a=typed("string", enum=["x"]))
    assert errors(graph([with_enum, end()], "start -> end"), {"a": "x"}) == []


def test_references_to_other_places_are_not_fetched() -> None:
    first = start(a={"type": "object", "$ref": "http://127.0.0.1:1/schema.json"})
    assert errors(graph([first, end()], "start -> end"), {"a": {}})[0].startswith("JSON Schema validation failed: the")


async def test_a_start_without_declared_outputs_takes_anything() -> None:
    made = graph([node("start", "start"), end()], "start -> end")
    assert errors(made, {"x": 1}) == []
    assert await fg.run(made, {"x": 1}) == {}


@promise("flowgram.rules")
def test_long_chains_and_deep_loops_are_validated_without_recursion() -> None:
    names = [f"n{number}" for number in range(20_000)]
    chain = graph([start(), *(node(name, "condition") for name in names), end()], " -> ".join(["start", *names, "end"]))
    assert errors(chain) == []
    chain["edges"].append(edge("n19999", "n0"))
    assert errors(chain)[0].startswith("Workflow has a cycle (node n")
    body: list[Json] = [node("bs0", "block-start"), node("be0", "block-end")]
    for depth in range(1, 3000):
        inner = {
            **node(f"l{depth}", "loop", loopFor=const([])),
            "blocks": body,
            "edges": [edge(f"bs{depth - 1}", f"be{depth - 1}")],
        }
        body = [node(f"bs{depth}", "block-start"), node(f"be{depth}", "block-end"), inner]
    deep = graph(
        [start(), {**node("top", "loop", loopFor=const([])), "blocks": body, "edges": []}, end()], "start -> top -> end"
    )
    assert errors(deep) == []


@pytest.mark.parametrize(
    ("schema", "error", "text"),
    [
        ("{broken", ValueError, "schema must be valid JSON: "),
        (7, TypeError, "schema must be WorkflowSchema | dict | str, got int"),
    ],
)
async def test_what_is_no_schema_at_all_is_refused(schema: Any, error: type[Exception], text: str) -> None:
    for call in (fg.validate, fg.start):
        with pytest.raises(error) as raised:
            call(schema)
        assert str(raised.value).startswith(text)
