"""Conditions: the whole table of operators and types, and what each operator means."""

from __future__ import annotations

from typing import Any

import pytest

import pyflue.flowgram as fg
from tests.promises import promise

from .graphs import Json, const, end, fields, graph, node, ref, start, typed

SAMPLES: dict[str, Any] = {
    "string": "abc",
    "number": 2.5,
    "integer": 2,
    "boolean": True,
    "object": {"a": 1},
    "map": {"a": "b"},
    "array": ["a"],
    "date-time": "2026-01-01T00:00:00Z",
    "null": None,
}
ORDER = ["eq", "neq", "gt", "gte", "lt", "lte"]
SETS = ["in", "nin"]
EMPTY = ["is_empty", "is_not_empty"]
ALLOWED = {
    "string": ["eq", "neq", *SETS, "contains", "not_contains", *EMPTY],
    "number": [*ORDER, *SETS, *EMPTY],
    "integer": [*ORDER, *SETS, *EMPTY],
    "boolean": ["eq", "neq", *SETS, "is_true", "is_false", *EMPTY],
    "object": EMPTY,
    "map": EMPTY,
    "array": EMPTY,
    "date-time": [*ORDER, *EMPTY],
    "null": ["eq", *EMPTY],
}
OPERATORS = [*ORDER, *SETS, "contains", "not_contains", *EMPTY, "is_true", "is_false"]


def condition(left: Json, operator: str, right: Json | None = None) -> Json:
    value = {"left": left, "operator": operator} | ({} if right is None else {"right": right})
    return node("if", "condition", conditions=[{"key": "yes", "value": value}])


async def chosen(condition: Json, inputs: Json, **types: Any) -> bool:
    """Whether the first branch was taken."""
    says = [
        node(
            name,
            "variable",
            outputs=fields(v="string"),
            assign=[{"operator": "declare", "left": "v", "right": const(name)}],
        )
        for name in ("yes", "no")
    ]
    made = graph(
        [
            start(**types),
            condition,
            *says,
            end({"yes": ref("yes", "v"), "no": ref("no", "v")}, yes="string", no="string"),
        ],
        "start -> if",
        "if.yes -> yes -> end",
        "if.else -> no -> end",
    )
    outputs = await fg.run(made, inputs)
    assert outputs in ({"yes": "yes"}, {"no": "no"})
    return "yes" in outputs


async def compare(type_: str, left: Any, operator: str, right: Any = None) -> bool:
    schema = typed(type_, items=typed("string")) if type_ == "array" else typed(type_)
    inputs = {} if left is None else {"a": left}
    return await chosen(
        condition(ref("start", "a"), operator, None if right is None else const(right)), inputs, a=schema
    )


@promise("flowgram.rules")
@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("type_", SAMPLES)
async def test_each_type_has_exactly_the_operators_of_the_table(type_: str, operator: str) -> None:
    right = SAMPLES[type_]
    if operator in SETS:
        right = [right]
    if operator in ALLOWED[type_]:
        assert await compare(type_, SAMPLES[type_], operator, right) in (True, False)
    else:
        with pytest.raises(fg.NodeFailed) as failed:
            await compare(type_, SAMPLES[type_], operator, right)
        assert failed.value.message == f'Condition left type "{type_}" has no operator "{operator}"'


@pytest.mark.parametrize(
    ("type_", "left", "operator", "right", "expected"),
    [
        ("string", "a", "eq", "a", True),
        ("string", "a", "neq", "a", False),
        ("string", None, "eq", "a", False),
        ("string", None, "neq", "a", True),
        ("string", "abc", "contains", "b", True),
        ("string", "abc", "not_contains", "b", False),
        ("string", None, "contains", "b", False),
        ("string", None, "not_contains", "b", True),
        ("string", "a", "in", ["a", "b"], True),
        ("string", "a", "nin", ["a", "b"], False),
        ("string", "a", "in", '["a"]', True),  # the editor keeps arrays as JSON text
        ("string", "", "is_empty", None, True),
        ("string", None, "is_empty", None, True),
        ("string", "a", "is_empty", None, False),
        ("string", "a", "is_not_empty", None, True),
        ("string", "", "is_empty", "ignored", True),
        ("number", 2, "eq", 2.0, True),
        ("number", None, "gt", 1, False),
        ("number", None, "neq", 1, False),
        ("number", None, "lt", 1, False),
        ("number", 5, "is_empty", 4, False),
        ("integer", 5, "gt", 4, True),
        ("integer", 5, "gte", 5, True),
        ("integer", 5, "lt", 5, False),
        ("integer", 5, "lte", 5, True),
        ("integer", 5, "in", [4, 5], True),
        ("integer", 1, "in", [True], False),  # true is not 1
        ("boolean", None, "eq", False, True),
        ("boolean", True, "is_true", None, True),
        ("boolean", None, "is_false", None, True),
        ("boolean", True, "in", [True], True),
        ("object", {}, "is_empty", None, True),
        ("map", {"a": "b"}, "is_not_empty", None, True),
        ("array", [], "is_empty", None, True),
        ("array", ["a"], "is_not_empty", None, True),
        ("date-time", "2026-01-01T00:00:00Z", "eq", "2026-01-01T00:00:00.000Z", True),
        ("date-time", "2026-01-01T01:00:00+01:00", "eq", "2026-01-01T00:00:00Z", True),
        ("date-time", "2026-01-01T10:00:00+09:00", "lt", "2026-01-01T02:00:00Z", True),
        ("date-time", "2026-01-02T00:00:00Z", "gte", "2026-01-01T00:00:00Z", True),
        ("null", None, "eq", None, True),
    ],
)
async def test_what_operators_mean(type_: str, left: Any, operator: str, right: Any, expected: bool) -> None:
    assert await compare(type_, left, operator, right) is expected


async def test_a_right_side_of_another_type_makes_a_condition_false() -> None:
    types: dict[str, Any] = {"a": "string", "n": "integer", "x": "number", "xs": typed("array", items=typed("string"))}
    given = {"a": "1", "n": 1, "x": 1.0}
    assert not await chosen(condition(ref("start", "a"), "eq", ref("start", "n")), given, **types)
    assert not await chosen(condition(ref("start", "a"), "neq", ref("start", "n")), given, **types)
    assert not await chosen(condition(ref("start", "a"), "nin"), given, **types)
    assert not await chosen(condition(ref("start", "a"), "nin", const(None)), given, **types)
    # Numbers and integers stand for each other; an array that is null is an empty one.
    assert await chosen(condition(ref("start", "n"), "eq", ref("start", "x")), given, **types)
    assert await chosen(condition(ref("start", "a"), "nin", ref("start", "xs")), given, **types)
    assert not await chosen(condition(ref("start", "a"), "in", ref("start", "xs")), given, **types)


async def test_what_cannot_be_compared_fails_the_node_with_a_reason() -> None:
    with pytest.raises(fg.NodeFailed) as failed:
        await compare("integer", 5, "gt", "3")
    assert failed.value.message == 'Condition operator "gt" cannot compare int and str'


async def test_a_variable_that_has_no_value_is_null() -> None:
    assert await chosen(condition(ref("start", "o", "zz"), "is_empty"), {"o": {}}, o="object")


async def test_the_first_condition_that_holds_decides_and_unusable_ones_are_passed_over() -> None:
    made = node(
        "if",
        "condition",
        conditions=[
            {"value": {"left": ref("start", "n"), "operator": "eq", "right": const(1)}},  # no key
            {"key": "odd", "value": {"left": ref("start", "n"), "operator": "zzz", "right": const(1)}},
            {"key": "yes", "value": {"left": ref("start", "n"), "operator": "gt", "right": const(0)}},
            {"key": "no", "value": {"left": ref("start", "n"), "operator": "eq", "right": const(1)}},
        ],
    )
    assert await chosen(made, {"n": 1}, n="integer")


@pytest.mark.parametrize("data", [{}, {"conditions": []}])
async def test_without_conditions_all_edges_are_followed(data: Json) -> None:
    made = graph(
        [start(), node("if", "condition", **data), node("a", "condition"), node("b", "condition"), end()],
        "start -> if",
        "if.x -> a -> end",
        "if.y -> b -> end",
    )
    task = fg.start(made, {})
    await task.wait()
    assert set(task.report().reports) == {"start", "if", "a", "b", "end"}


async def test_a_branch_without_an_edge_fails_the_node() -> None:
    only = condition(ref("start", "n"), "gt", const(5))
    made = graph([start(n="integer"), only, end()], "start -> if", "if.yes -> end")
    assert await fg.run(made, {"n": 6}) == {}
    with pytest.raises(fg.NodeFailed) as failed:
        await fg.run(made, {"n": 1})
    assert (failed.value.node_id, failed.value.message) == ("if", 'Branch "else" not found')


@pytest.mark.parametrize(
    ("n", "expected"), [(1, {"small": "x"}), (50, {"other": "x"}), (100, {"special": "x"}), (101, {"special": "x"})]
)
async def test_branches_of_several_conditions_combine_them(n: int, expected: Json) -> None:
    def item(operator: str, right: int) -> Json:
        return {"key": f"k{right}", "value": {"left": ref("start", "n"), "operator": operator, "right": const(right)}}

    branch = [
        {"key": "small", "logic": "and", "conditions": [item("gt", 0), item("lt", 10)]},
        {"logic": "or", "conditions": [item("eq", 100), item("eq", 101)]},
    ]
    says = [
        node(
            name,
            "variable",
            outputs=fields(v="string"),
            assign=[{"operator": "declare", "left": "v", "right": const("x")}],
        )
        for name in ("small", "special", "other")
    ]
    made = graph(
        [
            start(n="integer"),
            node("if", "condition", branch=branch),
            *says,
            end({s["id"]: ref(s["id"], "v") for s in says}, small="string", special="string", other="string"),
        ],
        "start -> if",
        "if.small -> small -> end",
        "if.k100 -> special -> end",
        "if.else -> other -> end",
    )
    assert await fg.run(made, {"n": n}) == expected
