"""Values: references, constants, templates, defaults, and what is left out because its type does not fit."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import pyflue.flowgram as fg
from tests.promises import promise

from .graphs import Json, Log, const, end, graph, messages, ref, start, template, typed


async def given(value: Json | None, type_: str | Json, inputs: Json | None = None, **more: Any) -> Any:
    """What an end node's input comes to; the word `nothing` if it was left out."""
    types: dict[str, Any] = {"text": "string", "n": "integer", "x": "number", "flag": "boolean", "o": "object"}
    types |= {"xs": typed("array", items=typed("string")), "at": "date-time", "m": "map"}
    made = graph([start(**types), end({"v": value}, v=type_)], "start -> end", **more)
    return (await fg.run(made, inputs or {})).get("v", "nothing")


async def test_references_follow_paths_into_objects_and_lists() -> None:
    inputs = {"o": {"a": [{"b": "deep"}]}, "xs": ["first", "second"]}
    assert await given(ref("start", "o", "a", "0", "b"), "string", inputs) == "deep"
    assert await given(ref("start", "xs", "1"), "string", inputs) == "second"
    assert await given(ref("start", "xs", "7"), "string", inputs) == "nothing"
    assert await given(ref("start", "xs", "-1"), "string", inputs) == "nothing"
    assert await given(ref("start", "o", "zz", "0"), "null", inputs) is None


@pytest.mark.parametrize("content", [["start"], [], "start.text"])
async def test_a_reference_of_less_than_two_parts_is_no_value(content: Any) -> None:
    assert await given({"type": "ref", "content": content}, "string", {"text": "x"}) == "nothing"


@pytest.mark.parametrize(
    ("content", "type_", "expected"),
    [
        ("text", "string", "text"),
        ("abc", "number", "abc"),  # the type of a constant is what was declared
        ('{"a": 1}', "object", {"a": 1}),
        ("[1, 2]", "array", [1, 2]),
        ('{"a": 1}', "map", {"a": 1}),
        ("{broken", "object", "{broken"),
        ('{"a": 1}', "string", '{"a": 1}'),
        (None, "string", "nothing"),
        (False, "boolean", False),
    ],
)
async def test_constants(content: Any, type_: str, expected: Any) -> None:
    assert await given(const(content), type_) == expected


@promise("flowgram.rules")
async def test_templates_write_values_as_json_and_nothing_for_what_is_not_there() -> None:
    inputs = {"text": "hi", "n": 3, "x": 2.0, "flag": True, "o": {"a": [1, 2.0, None, False]}, "xs": ["é"]}
    text = (
        "{{start.text}}|{{ start.n }}|{{start.x}}|{{start.flag}}|{{start.o}}|{{start.xs}}|{{start.zz}}|{{start . text}}"
    )
    assert await given(template(text), "string", inputs) == 'hi|3|2|true|{"a": [1, 2, null, false]}|["é"]||hi'
    assert await given(template("{{start.xs.0}} and {{}} and {{start}}"), "string", inputs) == "é and {{}} and "
    assert await given(template(""), "string", inputs) == "nothing"


async def test_templates_of_any_text_are_read_in_no_time() -> None:
    for text in ("{{" + " " * 200_000, "{" * 200_000, "{{ a" * 50_000, "{{" + "a." * 100_000):
        async with asyncio.timeout(2):
            assert await given(template(text), "string") == text


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"type": "expression", "content": "1"}, "Unknown flow value type: 'expression'"),
        (None, "Invalid flow value type: None"),
        ("x", "Invalid flow value type: 'x'"),
        ({"type": "template", "content": 3}, "Invalid template value: {'type': 'template', 'content': 3}"),
    ],
)
async def test_values_that_are_none_fail_their_node(value: Any, message: str) -> None:
    with pytest.raises(fg.NodeFailed) as failed:
        await given(value, "string")
    assert (failed.value.node_id, failed.value.message) == ("end", message)


async def test_inputs_of_another_type_are_left_out_and_the_report_says_so() -> None:
    values = {"a": template("{{start.n}}"), "b": ref("start", "n"), "c": ref("start", "o", "p")}
    made = graph([start(n="integer", o="object"), end(values, a="number", b="number", c="map")], "start -> end")
    task = fg.start(made, {"n": 4, "o": {"p": {"q": 1}}})
    assert await task.wait() == {"b": 4}
    assert [(m.nodeID, m.type, m.message) for m in task.report().messages] == [
        ("end", "warn", "Input 'a' is declared as number, but was given string"),
        ("end", "warn", "Input 'c' is declared as map, but was given object"),
    ]


async def test_undeclared_inputs_are_not_seen_and_a_broken_schema_counts_as_none() -> None:
    assert await fg.run(graph([start(), end({"v": const(1)})], "start -> end"), {}) == {}
    broken = end({"v": const(1)}, v=typed("object", properties={"w": {"title": "no type"}}))
    assert await fg.run(graph([start(), broken], "start -> end"), {}) == {}
    assert fg.validate(graph([start(), broken], "start -> end")).warnings == [
        "The inputs schema of node 'end' is broken, and counts as none"
    ]


async def test_declared_outputs_become_variables_with_their_defaults(log: Log) -> None:
    outputs = {
        "type": "object",
        "properties": {
            "given": typed("string"),
            "missing": typed("string", default="d"),
            "parsed": typed("array", items=typed("integer"), default="[1]"),
            "nothing": typed("string"),
            "null": typed("string", default="d"),
        },
    }
    work = {"id": "w", "type": "log", "data": {"outputs": outputs, "gives": {"given": "g", "null": None, "more": 1}}}
    names = ("given", "missing", "parsed", "nothing", "null", "more")
    types = {"parsed": typed("array", items=typed("integer"))}
    finish = end({n: ref("w", n) for n in names}, **{n: types.get(n, "string") for n in names})
    assert await fg.run(graph([start(), work, finish], "start -> w -> end"), {}) == {
        "given": "g",
        "missing": "d",
        "parsed": [1],
        "nothing": None,
        "null": None,
    }


async def test_global_variables_have_their_defaults() -> None:
    schema = {"type": "object", "properties": {"g": typed("string", default="all")}}
    assert await given(ref("global", "g"), "string", globalVariable=schema) == "all"


async def test_a_time_that_was_not_declared_is_taken_for_one_where_a_time_is_wanted() -> None:
    inputs = {"o": {"at": "2026-01-01T00:00:00Z", "no": "yesterday"}}
    assert await given(ref("start", "o", "at"), "date-time", inputs) == "2026-01-01T00:00:00Z"
    assert await given(ref("start", "o", "no"), "date-time", inputs) == "nothing"


async def test_what_is_done_to_the_inputs_later_does_not_change_the_run(log: Log) -> None:
    class Changes(fg.INodeExecutor):
        type = "changes"

        async def execute(self, ctx: fg.ExecutionContext) -> fg.ExecutionResult:
            ctx.inputs["o"]["a"] = "changed"
            return fg.ExecutionResult(outputs={})

    fg.register_executor(Changes())
    changes = {
        "id": "c",
        "type": "changes",
        "data": {"inputs": {"type": "object", "properties": {"o": typed("object")}}},
    }
    changes["data"]["inputsValues"] = {"o": ref("start", "o")}
    inputs = {"o": {"a": "as given"}}
    task = fg.start(
        graph([start(o="object"), changes, end({"v": ref("start", "o", "a")}, v="string")], "start -> c -> end"), inputs
    )
    assert await task.wait() == {"v": "as given"}
    assert inputs == {"o": {"a": "as given"}}
    assert messages(task) == []
