"""Variables: given, by default, required, secret."""

from __future__ import annotations

from typing import Any

import pytest

from pyflue.stepflow.document import Flow, read_flow
from pyflue.stepflow.exceptions import MissingVariable
from pyflue.stepflow.variables import redact, resolve_variables, secret_paths


def flow(properties: dict[str, Any], **more: Any) -> Flow:
    return read_flow({"schemas": {"properties": {"variables": {"type": "object", "properties": properties, **more}}}})


def test_variables_that_were_not_given_have_defaults_where_there_is_one() -> None:
    made = flow(
        {
            "given": {"type": "string", "default": "d"},
            "default": {"type": "number", "default": 0.7},
            "nothing": {"type": "string", "default": None},
            "text": {"type": "string"},
            "number": {"type": "number"},
            "integer": {"type": "integer"},
            "flag": {"type": "boolean"},
            "maybe": {"type": ["string", "null"]},
            "either": {"type": ["string", "integer"]},
            "object": {"type": "object"},
            "free": {},
            "anything": True,
        }
    )
    assert resolve_variables(made, {"given": "g", "undeclared": 1}) == {
        "given": "g",
        "default": 0.7,
        "nothing": None,
        "text": "",
        "number": 0,
        "integer": 0,
        "flag": False,
        "maybe": None,
        "undeclared": 1,
    }


def test_a_required_variable_must_be_given() -> None:
    made = flow({"a": {"type": "string"}, "b": {"type": "string", "default": "x"}}, required=["a", "b"])
    with pytest.raises(MissingVariable) as missing:
        resolve_variables(made, {"b": "y"})
    assert (str(missing.value), missing.value.name) == ("Missing required variable: a", "a")
    with pytest.raises(MissingVariable, match="Missing required variable: b"):
        resolve_variables(made, {"a": "y"})
    assert resolve_variables(made, {"a": None, "b": "y"}) == {"a": None, "b": "y"}


@pytest.mark.parametrize(
    "schema", [True, {}, {"properties": [1]}, {"required": "a"}, {"properties": {"a": 1}, "required": [1]}]
)
def test_a_schema_of_another_shape_declares_nothing(schema: Any) -> None:
    made = read_flow({"schemas": {"properties": {"variables": schema}}})
    assert resolve_variables(made, {"x": 1}) == {"x": 1}
    assert resolve_variables(Flow()) == {}


SECRETS = {
    "properties": {
        "key": {"type": "string", "is_secret": True},
        "open": {"type": "string", "is_secret": False},
        "db": {"properties": {"password": {"is_secret": True}, "host": {"type": "string"}}},
        "tokens": {"type": "array", "items": {"properties": {"value": {"is_secret": True}}}},
        "headers": {"additionalProperties": {"is_secret": True}},
    }
}


def test_secrets_are_found_in_the_schema_and_covered_in_values() -> None:
    paths = secret_paths(SECRETS)
    assert set(paths) == {("key",), ("db", "password"), ("tokens", "*", "value"), ("headers", "*")}
    value = {
        "key": "k",
        "open": "o",
        "db": {"password": {"nested": 1}, "host": "h"},
        "tokens": [{"value": 1, "name": "n"}, 5],
        "headers": {"a": "b"},
        "other": ["key"],
    }
    assert redact(value, paths) == {
        "key": "[REDACTED]",
        "open": "o",
        "db": {"password": "[REDACTED]", "host": "h"},
        "tokens": [{"value": "[REDACTED]", "name": "n"}, 5],
        "headers": {"a": "[REDACTED]"},
        "other": ["key"],
    }
    assert value["key"] == "k"


def test_a_value_may_be_secret_as_a_whole_or_not_at_all() -> None:
    assert redact({"a": 1}, secret_paths({"is_secret": True})) == "[REDACTED]"
    value = {"a": 1}
    assert redact(value, secret_paths({"properties": {"a": {}}})) is value
    assert secret_paths(True) == secret_paths(None) == ()
