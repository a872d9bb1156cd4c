"""Flow documents: what they may look like, what a flow is afterwards, and how it is written back."""

from __future__ import annotations

from typing import Any

import pytest

from pyflue.stepflow.document import (
    FLOW_SCHEMA,
    Flow,
    OnErrorAction,
    all_examples,
    flow_id,
    flow_to_value,
    read_flow,
    read_flow_text,
)
from pyflue.stepflow.exceptions import DocumentMalformed, FlowMalformed
from pyflue.stepflow.outcome import Success

from .states import RunState

HELLO = """\
schema: "flow/v1"
name: hello-world

input:
  type: object
  properties:
    name:
      type: string
  required: [name]

steps:
  greet:
    component: /python/greet
    input:
      name: { $input: "name" }

output:
  message: { $step: "greet", path: "greeting" }
"""


def step(**fields: Any) -> dict[str, Any]:
    return {"id": "a", "component": "/x", **fields}


def problems(value: Any) -> list[tuple[str, str]]:
    with pytest.raises(FlowMalformed) as refused:
        read_flow(value)
    return [(problem.to_dict()["path"], problem.message) for problem in refused.value.problems]


def test_the_hello_workflow_of_the_seed_is_read_as_it_is_written() -> None:
    flow = read_flow_text(HELLO)
    assert (flow.name, flow.description, flow.is_legacy) == ("hello-world", None, False)
    schema = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    assert flow.input_schema == schema
    [greet] = flow.steps
    assert (greet.id, greet.component, greet.index, greet.path) == ("greet", "/python/greet", 0, ("steps", "greet"))
    assert flow.by_id == {"greet": greet}
    assert greet.input.evaluate(RunState({"name": "World"})) == Success({"name": "World"})
    done = RunState(steps={"greet": Success({"greeting": "Hello, World!"})})
    assert flow.output.evaluate(done) == Success({"message": "Hello, World!"})
    assert flow_to_value(flow) == {
        "schema": FLOW_SCHEMA,
        "name": "hello-world",
        "schemas": {"type": "object", "properties": {"input": schema}},
        "steps": [{"id": "greet", "component": "/python/greet", "input": {"name": {"$input": "$.name"}}}],
        "output": {"message": {"$step": "greet", "path": "$.greeting"}},
    }


def test_a_mapping_of_steps_is_the_list_with_its_keys_as_ids() -> None:
    steps = {"b": {"component": "/x"}, "a": {"component": "/y", "id": "a"}}
    mapping = read_flow({"steps": steps})
    listed = read_flow({"steps": [{"id": "b", "component": "/x"}, {"component": "/y", "id": "a"}]})
    assert [(s.id, s.index) for s in mapping.steps] == [("b", 0), ("a", 1)]
    assert flow_to_value(mapping) == flow_to_value(listed)
    assert flow_id(mapping) == flow_id(listed)
    assert steps == {"b": {"component": "/x"}, "a": {"component": "/y", "id": "a"}}


@pytest.mark.parametrize("schema", [{}, {"schema": None}, {"schema": "flow/v1"}, {"schema": FLOW_SCHEMA}])
def test_a_document_may_say_what_it_is_in_two_ways_or_not_at_all(schema: dict[str, Any]) -> None:
    assert flow_to_value(read_flow(schema)) == {"schema": FLOW_SCHEMA}


def test_an_empty_flow_has_defaults_for_everything() -> None:
    flow = read_flow({})
    assert (flow.name, flow.steps, flow.test, flow.examples, flow.metadata) == (None, (), None, (), {})
    assert (flow.schemas, flow.input_schema, flow.output_schema, flow.variables_schema) == ({}, None, None, None)
    assert flow.output.evaluate(RunState()) == Success(None)


def test_null_is_as_good_as_nothing() -> None:
    keys = ("name", "description", "version", "schemas", "steps", "output", "test", "examples", "metadata", "input")
    value = dict.fromkeys(keys) | {"steps": [step(input=None, onError=None, mustExecute=None, metadata=None)]}
    assert flow_to_value(read_flow(value)) == flow_to_value(read_flow({"steps": [step()]}))


@pytest.mark.parametrize(
    ("on_error", "action", "default", "max_retries"),
    [
        (None, OnErrorAction.FAIL, None, 3),
        ({"action": "fail"}, OnErrorAction.FAIL, None, 3),
        ({"action": "useDefault"}, OnErrorAction.USE_DEFAULT, None, 3),
        ({"action": "useDefault", "defaultValue": {"$step": 5}}, OnErrorAction.USE_DEFAULT, {"$step": 5}, 3),
        ({"action": "retry"}, OnErrorAction.RETRY, None, 3),
        ({"action": "retry", "maxRetries": 0}, OnErrorAction.RETRY, None, 0),
        ({"action": "skip"}, OnErrorAction.SKIP, None, 3),
    ],
)
def test_a_step_says_what_happens_when_it_fails(
    on_error: Any, action: OnErrorAction, default: Any, max_retries: int
) -> None:
    read = read_flow({"steps": [step(onError=on_error)]}).steps[0].on_error
    assert (read.action, read.default.evaluate(RunState()), read.max_retries) == (action, Success(default), max_retries)


def test_of_the_places_for_a_schema_the_newest_counts() -> None:
    def schema(title: str) -> dict[str, Any]:
        return {"title": title}

    places: list[tuple[str, dict[str, Any]]] = [
        ("input", {"input": schema("input")}),
        ("inputSchema", {"inputSchema": schema("inputSchema")}),
        ("input_schema", {"input_schema": schema("input_schema")}),
        ("schemas", {"schemas": {"properties": {"input": schema("schemas")}}}),
    ]
    value: dict[str, Any] = {}
    for title, fields in places:
        assert read_flow(fields).input_schema == schema(title)
        value = fields | value
        assert read_flow(value).input_schema == schema(title)
    assert read_flow({"outputSchema": schema("o")}).output_schema == schema("o")
    assert read_flow({"variables": schema("v")}).variables_schema == schema("v")
    both = read_flow({"variables": schema("v"), "schemas": {"properties": {"variables": schema("w")}}})
    assert both.variables_schema == schema("w")


def test_schemas_are_one_json_schema_with_known_parts() -> None:
    schemas = {
        "properties": {"steps": {"properties": {"a": {"type": "string"}}}, "more": {}, "output": {"type": "string"}},
        "$defs": {"T": {"type": "integer"}},
        "title": "dropped",
    }
    flow = read_flow({"schemas": schemas})
    assert flow.step_schemas == {"a": {"type": "string"}}
    assert flow.schemas == {
        "type": "object",
        "$defs": {"T": {"type": "integer"}},
        "properties": {
            "output": {"type": "string"},
            "steps": {"type": "object", "properties": {"a": {"type": "string"}}},
        },
    }
    assert list(flow.schemas) == ["type", "$defs", "properties"]


def test_a_flow_is_written_back_in_the_order_and_words_of_the_original() -> None:
    value = {
        "metadata": {"m": 1},
        "examples": [],
        "test": {"cases": [{"name": "one", "input": 1}]},
        "output": {"$input": ""},
        "steps": [
            {
                "unknown": 1,
                "metadata": {"z": 1, "a": 2},
                "mustExecute": False,
                "input": {"$step": "b", "path": "x", "ignored": 1},
                "onError": {"action": "retry", "maxRetries": 2, "ignored": 1},
                "component": "/x",
                "id": "a",
            },
            step(id="b", onError={"action": "fail"}, metadata={}),
        ],
        "version": "1",
        "description": "d",
        "name": "n",
        "unknown": {},
    }
    written = flow_to_value(read_flow(value))
    assert written == {
        "schema": FLOW_SCHEMA,
        "name": "n",
        "description": "d",
        "version": "1",
        "steps": [
            {
                "id": "a",
                "component": "/x",
                "onError": {"action": "retry", "maxRetries": 2},
                "input": {"$step": "b", "path": "$.x"},
                "mustExecute": False,
                "metadata": {"z": 1, "a": 2},
            },
            {"id": "b", "component": "/x", "onError": {"action": "fail"}},
        ],
        "output": {"$input": "$"},
        "test": {"cases": [{"name": "one", "input": 1}]},
        "examples": [],
        "metadata": {"m": 1},
    }
    order = ["schema", "name", "description", "version", "steps", "output", "test", "examples", "metadata"]
    assert list(written) == order
    assert list(written["steps"][0]) == ["id", "component", "onError", "input", "mustExecute", "metadata"]


def test_ids_of_flows_are_those_of_what_they_mean_not_of_how_they_are_written() -> None:
    text = """steps: [{id: a, component: /x, input: {$input: '$["n"]'}}]"""
    assert flow_id(read_flow_text(text)) == flow_id(
        read_flow({"steps": {"a": {"component": "/x", "input": {"$input": "n"}}}})
    )
    flow = read_flow({})
    # echo -n '{"schema":"https://stepflow.org/schemas/v1/flow.json"}' | sha256sum
    assert flow_id(flow) == flow_id(flow) == "de0834d01df72cf544ac307c9ff93cbeb0ffa65492f01980f2aff71d7068bc3a"


def test_test_cases_are_examples_too_unless_their_name_is_taken() -> None:
    flow = read_flow(
        {
            "examples": [{"name": "a", "input": 1, "description": "first"}],
            "test": {
                "cases": [
                    {"name": "a", "input": 2},
                    {"name": "b", "input": None, "output": {"outcome": "success", "result": 3}},
                    {"name": "c", "description": "third", "input": 4},
                ]
            },
        }
    )
    assert all_examples(flow) == [
        {"name": "a", "input": 1, "description": "first"},
        {"name": "b", "input": None},
        {"name": "c", "description": "third", "input": 4},
    ]
    assert all_examples(Flow()) == []


NO_SCHEMA = "`schema` can be `https://stepflow.org/schemas/v1/flow.json` or `flow/v1`, not `flow/v2`; or leave it out."


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([], ("$", "A flow is an object with `steps` and `output`.")),
        (None, ("$", "A flow is an object with `steps` and `output`.")),
        (
            {"schema": "flow/v2"},
            (
                "$.schema",
                NO_SCHEMA,
            ),
        ),
        ({"name": 5}, ("$.name", "`name` must be a text, not a number; write it in quotes.")),
        ({"version": 1.0}, ("$.version", "`version` must be a text, not a number; write it in quotes.")),
        ({"metadata": []}, ("$.metadata", "`metadata` must be an object, not a list.")),
        ({"steps": "a"}, ("$.steps", "`steps` must be a list, or a mapping of ids to steps, not `a`.")),
        ({"steps": [1]}, ("$.steps[0]", "A step is an object with a `component`, not a number.")),
        ({"steps": {"a": None}}, ("$.steps.a", "A step is an object with a `component`, not nothing.")),
        ({"steps": [{"component": "/x"}]}, ("$.steps[0]", "A step needs `id`.")),
        ({"steps": {"a": {}}}, ("$.steps.a", "A step needs `component`.")),
        ({"steps": [step(id=1)]}, ("$.steps[0].id", "`id` must be a text, not a number; write it in quotes.")),
        (
            {"steps": {"a": step(id="b")}},
            ("$.steps.a.id", "The id of this step is its key, 'a': leave `id` out."),
        ),
        (
            {"steps": [step(component=True)]},
            ("$.steps[0].component", "`component` must be a text, not `true`; write it in quotes."),
        ),
        (
            {"steps": [step(mustExecute="yes")]},
            ("$.steps[0].mustExecute", "`mustExecute` is true or false, not `yes`."),
        ),
        (
            {"steps": [step(onError="skip")]},
            ("$.steps[0].onError", "`onError` is an object with an `action`, not `skip`."),
        ),
        (
            {"steps": [step(onError={"action": "ignore"})]},
            ("$.steps[0].onError.action", "unknown variant `ignore`, expected one of `fail`, `useDefault`, `retry`"),
        ),
        (
            {"steps": [step(onError={})]},
            ("$.steps[0].onError.action", "`onError` needs an `action`: `fail`, `useDefault` or `retry`."),
        ),
        (
            {"steps": [step(onError={"action": "retry", "maxRetries": -1})]},
            ("$.steps[0].onError.maxRetries", "`maxRetries` is a whole number from 0, not a number."),
        ),
        (
            {"steps": [step(input={"$step": 1})]},
            ("$.steps[0].input.$step", "`$step` must be a text: the id of a step."),
        ),
        ({"output": {"$input": "$["}}, ("$.output.$input", "Unclosed bracket '[' in path.")),
        (
            {"input": "name"},
            ("$.input", "This must be a JSON Schema (an object such as `type: object`), not `name`."),
        ),
        ({"schemas": {"properties": []}}, ("$.schemas.properties", "`properties` must be an object, not a list.")),
        ({"test": []}, ("$.test", "`test` is an object with `cases`, not a list.")),
        ({"test": {"cases": {}}}, ("$.test.cases", "This must be a list, not an object.")),
        (
            {"test": {"cases": [{"input": 1}]}},
            ("$.test.cases[0]", "A test case is an object with a `name` (a text) and an `input`."),
        ),
        ({"test": {"cases": [{"name": "a"}]}}, ("$.test.cases[0]", "A test case needs an `input`.")),
        (
            {"examples": ["a"]},
            ("$.examples[0]", "An example is an object with a `name` (a text) and an `input`."),
        ),
    ],
)
def test_a_document_of_another_shape_is_refused_with_place_and_advice(value: Any, expected: tuple[str, str]) -> None:
    assert problems(value) == [expected]


def test_problems_have_the_line_and_column_of_the_text() -> None:
    text = "name: x\nsteps:\n  - id: a\n    component: /x\n    input:\n      v: {$input: '$x'}\n  - id: 5\n"
    with pytest.raises(FlowMalformed) as refused:
        read_flow_text(text)
    assert [problem.to_dict() for problem in refused.value.problems] == [
        {
            "path": "$.steps[0].input.v.$input",
            "message": "Invalid character 'x' in JSON path after $ or ']'. Expected '.' or '['.",
            "line": 6,
            "column": 19,
        },
        {
            "path": "$.steps[1].id",
            "message": "`id` must be a text, not a number; write it in quotes.",
            "line": 7,
            "column": 9,
        },
        {"path": "$.steps[1]", "message": "A step needs `component`.", "line": 7, "column": 5},
    ]
    assert str(refused.value).startswith("line 6, column 19, $.steps[0].input.v.$input: Invalid character")


def test_a_long_list_of_problems_is_shortened_in_the_message_only() -> None:
    with pytest.raises(FlowMalformed) as refused:
        read_flow({"steps": [None] * 8})
    assert len(refused.value.problems) == 8
    assert str(refused.value).endswith("; and 3 more")


def test_json_documents_have_lines_and_columns_too() -> None:
    with pytest.raises(FlowMalformed) as refused:
        read_flow_text('{\n "steps": [\n  {"id": "a", "component": 5}]}', ".json")
    [problem] = refused.value.problems
    assert (problem.path, problem.line, problem.column) == (("steps", 0, "component"), 3, 28)
    with pytest.raises(DocumentMalformed):
        read_flow_text("steps: []", ".json")


def test_of_two_steps_with_the_same_id_the_first_is_found() -> None:
    flow = read_flow({"steps": [step(component="/one"), step(component="/two")]})
    assert flow.by_id["a"].component == "/one"
    assert len(flow.steps) == 2


def test_ten_thousand_steps_are_no_problem() -> None:
    steps = [step(id=f"s{i}", input={"$step": f"s{i - 1}"} if i else 1) for i in range(10_000)]
    flow = read_flow({"steps": steps, "output": {"$step": "s9999"}})
    assert len(flow.steps) == 10_000
    assert len(flow_id(flow)) == 64
