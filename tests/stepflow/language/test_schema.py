"""The JSON Schema that editors use: it accepts what is read, and points out what has no effect."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import jsonschema
import pytest

from pyflue import codec
from pyflue.stepflow import document
from pyflue.stepflow.document import flow_to_value, read_flow
from pyflue.stepflow.yaml_reader import read_yaml

from .test_documents import HELLO

SCHEMA: dict[str, Any] = codec.load((files("pyflue.stepflow") / "schemas" / "flow.json").read_bytes())


def accepts(value: Any) -> bool:
    return jsonschema.Draft7Validator(SCHEMA).is_valid(value)


def test_it_is_a_json_schema() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)


def test_it_knows_the_keys_that_are_read() -> None:
    assert set(SCHEMA["properties"]) == {*document.FLOW_KEYS, "$schema"}
    assert set(SCHEMA["definitions"]["step"]["properties"]) == set(document.STEP_KEYS)
    assert set(SCHEMA["definitions"]["onError"]["properties"]) == set(document.ON_ERROR_KEYS)


STEP = {"id": "a", "component": "/x"}

FLOWS: list[dict[str, Any]] = [
    {},
    read_yaml(HELLO),
    {"steps": [STEP | {"onError": {"action": "useDefault", "defaultValue": {"any": 1}}, "mustExecute": True}]},
    {"steps": [STEP | {"onError": {"action": "retry", "maxRetries": 2}, "input": None, "metadata": {"a": 1}}]},
    {
        "output": [
            {"$step": "a", "path": "x"},
            {"$input": None},
            {"$variable": "v", "default": {"$literal": {"$if": 1}}},
        ]
    },
    {"output": {"$if": {"$coalesce": [1, None]}, "then": {"a": {"$ref": "x"}}, "else": "b"}},
    {"schemas": {"type": "object", "$defs": {"T": {}}, "properties": {"steps": {"properties": {"a": True}}}}},
    {"test": {"cases": [{"name": "c", "input": 1, "output": {"outcome": "success", "result": 2}}]}},
    {"examples": [{"name": "e", "input": None, "description": "d"}]},
    {
        "inputSchema": {},
        "steps": [STEP | {"skipIf": {"$from": {"step": "a"}, "path": "x", "onSkip": {"action": "skip"}}}],
        "variables": {},
    },
]


@pytest.mark.parametrize("flow", FLOWS)
def test_flows_that_are_read_are_accepted(flow: dict[str, Any]) -> None:
    assert accepts(flow)
    assert accepts(flow_to_value(read_flow(flow)))


@pytest.mark.parametrize(
    "flow",
    [
        [],
        {"schema": "flow/v2"},
        {"steps": [{"component": "/x"}]},
        {"steps": [{"id": "a"}]},
        {"steps": {"a": {"component": "x"}}},
        {"steps": [STEP | {"on_error": {}}]},
        {"steps": [STEP | {"onError": {"action": "ignore"}}]},
        {"output": {"$step": 1}},
        {"output": {"$if": 1}},
        {"output": {"$input": "a", "path": "b"}},
        {"name": 1},
        {"outputs": 1},
        {"test": {"cases": [{"name": "a"}]}},
    ],
)
def test_flows_that_are_wrong_are_pointed_out(flow: Any) -> None:
    assert not accepts(flow)
