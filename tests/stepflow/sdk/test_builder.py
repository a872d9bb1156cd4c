"""Flows written in Python."""

from __future__ import annotations

import copy
import dataclasses
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from pyflue.stepflow import FlowBuilder, Value
from pyflue.stepflow.document import flow_to_value, read_flow
from pyflue.stepflow.outcome import Failed, Success
from pyflue.stepflow.paths import read_path
from pyflue.stepflow.validation import diagnose
from tests.stepflow.running.flows import Functions, run

SCHEMA = "https://stepflow.org/schemas/v1/flow.json"


def test_a_flow_is_a_plain_document() -> None:
    builder = FlowBuilder(name="pricing", description="What it costs.", version="1", metadata={"owner": "me"})
    fetch = builder.add_step(
        id="fetch",
        component="/python/fetch",
        input_data={"url": Value.input().shop.url, "retries": 3, "proxy": Value.variable("proxy", default=None)},
        on_error={"action": "useDefault", "defaultValue": []},
        output_schema={"type": "array"},
    )
    builder.add_step(
        id="sum",
        component="/python/sum",
        input_data=[fetch[0].price, fetch, Value.step("fetch", "$[1]['unit price']"), Value.literal({"$step": "x"})],
        must_execute=True,
        metadata={"note": {"$step": "not a reference"}},
    )
    builder.set_input_schema({"type": "object"}).set_output_schema({}).set_variables_schema({"type": "object"})
    builder.set_output({"total": Value.step("sum").total, "first": Value.coalesce(Value.step("sum")[0], 0)})
    assert builder.build() == {
        "schema": SCHEMA,
        "name": "pricing",
        "description": "What it costs.",
        "version": "1",
        "schemas": {
            "type": "object",
            "properties": {
                "input": {"type": "object"},
                "output": {},
                "variables": {"type": "object"},
                "steps": {"type": "object", "properties": {"fetch": {"type": "array"}}},
            },
        },
        "steps": [
            {
                "id": "fetch",
                "component": "/python/fetch",
                "input": {
                    "url": {"$input": "$.shop.url"},
                    "retries": 3,
                    "proxy": {"$variable": "$.proxy", "default": None},
                },
                "onError": {"action": "useDefault", "defaultValue": []},
            },
            {
                "id": "sum",
                "component": "/python/sum",
                "input": [
                    {"$step": "fetch", "path": "$[0].price"},
                    {"$step": "fetch"},
                    {"$step": "fetch", "path": "$[1].unit price"},
                    {"$literal": {"$step": "x"}},
                ],
                "mustExecute": True,
                "metadata": {"note": {"$step": "not a reference"}},
            },
        ],
        "output": {
            "total": {"$step": "sum", "path": "$.total"},
            "first": {"$coalesce": [{"$step": "sum", "path": "$[0]"}, 0]},
        },
        "metadata": {"owner": "me"},
    }


async def test_a_flow_that_was_built_runs() -> None:
    builder = FlowBuilder("greeting", "Greets.")
    greet = builder.add_step(
        id="greet",
        component="/greet",
        input_data={"name": Value.input().who["first name"], "mark": Value.variable("mark")},
    )
    builder.set_output(Value.if_(Value.input().loud, {"text": greet.upper}, greet))
    functions = Functions(
        greet=lambda given: {"plain": f"{given['name']}{given['mark']}", "upper": given["name"].upper()}
    )
    document = builder.set_variables_schema({"properties": {"mark": {"default": "!"}}}).build()
    who = {"who": {"first name": "Ada"}}
    assert await run(document, {**who, "loud": True}, functions) == Success({"text": "ADA"})
    assert await run(document, {**who, "loud": False}, functions) == Success({"plain": "Ada!", "upper": "ADA"})
    assert isinstance(await run(document, {}, functions), Failed)
    assert not diagnose(read_flow(document)).has_errors


def test_paths_are_spelled_in_one_way() -> None:
    whole = Value.input()
    spelled = {
        "$": whole,
        "$.a": Value.input("a"),
        "$.a.b[0]": whole["a"].b[0],
        '$["a.b"]': whole["a.b"],
        "$['\"].']": whole['"].'],
        '$[""]': whole[""],
        "$.id": whole.id,
        "$._private": whole._private,
        "a.b": Value.input("a.b"),  # a bare name, which is a key first
    }
    for path, reference in spelled.items():
        builder = FlowBuilder().set_output(reference)
        assert builder.build()["output"] == {"$input": path}
    assert Value.step("s", "") == Value.step("s", "$") == Value.step("s")
    assert Value.input().a != Value.input().b
    assert repr(Value.step("s").a) == "<Reference {'$step': 's', 'path': '$.a'}>"


def test_what_cannot_be_said_in_a_path_is_refused() -> None:
    for part, kind in ((-1, ValueError), (True, TypeError), (1.5, TypeError), (".a\"]b']c", ValueError)):
        with pytest.raises(kind):
            Value.input()[part]  # type: ignore[index]
    with pytest.raises(ValueError, match=r"The path '\$\[x\]' cannot be read"):
        Value.input("$[x]")
    with pytest.raises(ValueError, match=r"if it is to go on"):
        _ = Value.input("a.b").c
    with pytest.raises(TypeError, match="cannot be iterated over"):
        list(Value.input().items)
    with pytest.raises(AttributeError):
        copy.copy(Value.input()).__nothing__  # noqa: B018


def test_objects_of_python_stand_for_json() -> None:
    @dataclasses.dataclass
    class Point:
        x: Any
        y: Any

    class Named(msgspec.Struct, rename="camel"):
        first_name: Any

    class Model(BaseModel):
        n: int

    builder = FlowBuilder()
    builder.set_output([Point(Value.input().x, 2), Named(Value.input().name), Model(n=1), (1, 2), {"k": {3}}])
    assert builder.build()["output"] == [
        {"x": {"$input": "$.x"}, "y": 2},
        {"firstName": {"$input": "$.name"}},
        {"n": 1},
        [1, 2],
        {"k": [3]},
    ]
    for wrong in (object(), {1: "a"}):
        with pytest.raises(TypeError):
            FlowBuilder().set_output(wrong)
    with pytest.raises(TypeError, match="taken as it is"):
        Value.literal({"a": Value.input()})


def test_ids_components_and_references_are_checked() -> None:
    builder = FlowBuilder()
    with pytest.raises(ValueError, match="output must be set"):
        builder.build()
    builder.add_step(id="a", component="/x", input_data=Value.step("b").c)
    with pytest.raises(ValueError, match="two steps of the id 'a'"):
        builder.add_step(id="a", component="/x")
    with pytest.raises(ValueError, match="must start with '/'"):
        builder.add_step(id="other", component="x")
    with pytest.raises(ValueError, match="has an id"):
        builder.add_step(id=" ", component="/x")
    with pytest.raises(KeyError):
        builder.step("b")
    builder.set_output(None)
    with pytest.raises(ValueError, match="Step 'a' refers to step 'b', which is not there"):
        builder.build()
    builder.add_step(id="b", component="/x")
    with pytest.raises(ValueError, match="Step 'a' refers to step 'b', which does not come before it"):
        builder.build()
    builder = FlowBuilder().set_output({"x": [{"$if": True, "then": {"$step": "gone"}}]})
    with pytest.raises(ValueError, match="The output refers to step 'gone', which is not there"):
        builder.build()


def test_the_output_can_be_put_together_by_fields() -> None:
    builder = FlowBuilder().add_output_field("a", Value.input().a)
    assert builder.build()["output"] == {"a": {"$input": "$.a"}}
    builder.set_output({"b": 1})
    assert builder.build()["output"] == {"b": 1, "a": {"$input": "$.a"}}
    builder.set_output(Value.input())
    with pytest.raises(ValueError, match="no object"):
        builder.build()


def test_references_can_be_asked_for() -> None:
    builder = FlowBuilder()
    step = builder.add_step(
        id="s",
        component="/x",
        input_data=[
            Value.input().a,
            Value.literal({"$input": "b"}),
            Value.if_(Value.variable("v"), 1, {"$from": {"workflow": "input"}, "path": "c"}),
        ],
        metadata={"x": {"$input": "d"}},
    )
    builder.set_output(step.result)
    expected = [Value.input().a, Value.variable("v"), Value.input().c]
    assert builder.step("s").get_references() == step.get_references() == expected
    assert builder.get_references() == [*expected, Value.step("s").result]
    assert step.id == "s"


def test_a_loaded_flow_can_be_continued() -> None:
    document = {
        "schema": "flow/v1",
        "name": "old",
        "inputSchema": {"type": "object"},
        "steps": {"a": {"component": "/x", "skipIf": {"$from": {"workflow": "input"}, "path": "no"}}},
        "output": {"$step": "a"},
        "test": {"cases": []},
        "schemas": {"$defs": {"X": {}}, "properties": {"steps": {"properties": {"a": {"type": "string"}}}}},
    }
    before = copy.deepcopy(document)
    builder = FlowBuilder.load(document)
    builder.add_step(id="b", component="/y", input_data=builder.step("a").text)
    built = builder.build()
    assert document == before
    assert built == {
        "schema": SCHEMA,
        "name": "old",
        "schemas": {
            "type": "object",
            "$defs": {"X": {}},
            "properties": {"steps": {"type": "object", "properties": {"a": {"type": "string"}}}},
        },
        "steps": [
            {"id": "a", "component": "/x", "skipIf": {"$from": {"workflow": "input"}, "path": "no"}},
            {"id": "b", "component": "/y", "input": {"$step": "a", "path": "$.text"}},
        ],
        "output": {"$step": "a"},
        "inputSchema": {"type": "object"},
        "test": {"cases": []},
    }
    assert FlowBuilder.load(built).build() == built


# Names that a path can hold: everything but those with both kinds of quotation ends.
_names = st.text(max_size=6).filter(lambda name: '"' not in name or "'" not in name)
_parts = st.lists(st.one_of(st.integers(0, 10**6), _names), max_size=4)


@given(_parts)
def test_every_path_of_names_and_indexes_reads_back_as_it_was_built(parts: list[str | int]) -> None:
    reference = Value.input()
    for part in parts:
        reference = reference[part]
    path = FlowBuilder().set_output(reference).build()["output"]["$input"]
    found = read_path(path)
    assert found.parts == tuple(parts)
    assert found.text == path


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def _values(draw: st.DrawFn, steps: list[str]) -> Any:
    kinds = [
        st.builds(Value.literal, _json),
        st.builds(lambda name: Value.input()[name], _names),
        st.builds(lambda name: Value.variable(name or "v"), _names),
        _json.filter(lambda value: "$" not in json.dumps(value)),
    ]
    if steps:
        kinds.append(st.builds(lambda step, name: Value.step(step)[name], st.sampled_from(steps), _names))
    leaf = st.one_of(*kinds)
    return draw(
        st.one_of(
            leaf,
            st.lists(leaf, max_size=2),
            st.dictionaries(st.text("abc", max_size=2), leaf, max_size=2),
            st.builds(Value.if_, leaf, leaf, leaf),
            st.builds(Value.coalesce, leaf, leaf),
        )
    )


@settings(max_examples=50)
@given(st.data())
def test_every_flow_that_can_be_built_is_read_without_errors_and_loaded_as_it_is(data: st.DataObject) -> None:
    builder = FlowBuilder(name="n", description="d")
    ids: list[str] = []
    for number in range(data.draw(st.integers(0, 3))):
        step_id = f"s{number}"
        builder.add_step(
            id=step_id,
            component="/x",
            input_data=data.draw(_values(ids)),
            must_execute=data.draw(st.booleans()),
        )
        ids.append(step_id)
    builder.set_output(data.draw(_values(ids)))
    document = builder.build()
    flow = read_flow(document)
    diagnosed = diagnose(flow)
    # Variables without a schema are warned about; nothing is wrong otherwise.
    assert not diagnosed.has_errors
    assert FlowBuilder.load(document).build() == document
    written = flow_to_value(flow)
    assert [step.get("input") for step in written.get("steps", [])] == [step.get("input") for step in document["steps"]]
    assert written.get("output") == document["output"]
    assert FlowBuilder.load(written).get_references() == builder.get_references()
