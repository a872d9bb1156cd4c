"""Overrides: steps changed for one run."""

from __future__ import annotations

from typing import Any

import pytest

from pyflue.stepflow.document import OnErrorAction, flow_to_value, read_flow
from pyflue.stepflow.exceptions import OverridesInvalid
from pyflue.stepflow.outcome import Success
from pyflue.stepflow.overrides import apply_overrides, json_patch

from .states import RunState

FLOW = read_flow(
    {
        "name": "f",
        "steps": {
            "a": {"component": "/x", "input": {"n": 1, "ref": {"$input": "q"}, "list": [1, 2]}, "metadata": {"m": 1}},
            "b": {"component": "/y", "onError": {"action": "retry"}},
        },
        "output": {"$step": "a"},
    }
)


def step(overrides: Any, step_id: str = "a") -> dict[str, Any]:
    written = flow_to_value(apply_overrides(FLOW, overrides))
    return next(step for step in written["steps"] if step["id"] == step_id)


@pytest.mark.parametrize("overrides", [None, {}, {"steps": {}}, {"steps": None}])
def test_without_overrides_the_flow_is_the_same(overrides: Any) -> None:
    assert apply_overrides(FLOW, overrides) is FLOW


@pytest.mark.parametrize(
    "overrides",
    [
        {"steps": {"a": {"$type": "merge_patch", "value": {"component": "/z"}}}},
        {"steps": {"a": {"value": {"component": "/z"}}}},
        {"a": {"value": {"component": "/z"}}},
        {"a": {"$type": "json_patch", "value": [{"op": "replace", "path": "/component", "value": "/z"}]}},
    ],
)
def test_overrides_may_be_written_with_and_without_steps(overrides: Any) -> None:
    before = flow_to_value(FLOW)
    assert step(overrides) == before["steps"][0] | {"component": "/z"}
    assert step(overrides, "b") == before["steps"][1]
    assert flow_to_value(FLOW) == before


def test_a_step_may_be_called_steps() -> None:
    flow = read_flow({"steps": {"steps": {"component": "/x"}}})
    for overrides in ({"steps": {"value": {"component": "/z"}}}, {"steps": {"steps": {"value": {"component": "/z"}}}}):
        assert apply_overrides(flow, overrides).steps[0].component == "/z"


def test_a_merge_patch_changes_adds_and_removes() -> None:
    patch = {
        "input": {"n": None, "new": {"$input": "x"}, "list": [3]},
        "metadata": None,
        "mustExecute": True,
        "onError": {"action": "useDefault", "defaultValue": 5},
    }
    flow = apply_overrides(FLOW, {"a": {"value": patch}})
    changed = flow.by_id["a"]
    assert changed.input.evaluate(RunState({"q": 1, "x": 2})) == Success({"ref": 1, "list": [3], "new": 2})
    assert (changed.metadata, changed.must_execute, changed.on_error.action) == ({}, True, OnErrorAction.USE_DEFAULT)
    assert changed.on_error.default.evaluate(RunState()) == Success(5)
    assert FLOW.by_id["a"].must_execute is False


def test_a_patch_into_a_reference_leaves_it_a_reference() -> None:
    flow = apply_overrides(FLOW, {"a": {"value": {"input": {"ref": {"a": 1}}}}})
    outcome = flow.by_id["a"].input.evaluate(RunState({"q": "v"}))
    assert outcome == Success({"n": 1, "ref": "v", "list": [1, 2]})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"nope": {"value": {}}}, "Step 'nope' not found in workflow"),
        ({"a": {"value": {}}, "nope": {"value": {}}}, "Step 'nope' not found in workflow"),
        ({"steps": {"nope": {"value": {}}}}, "Step 'nope' not found in workflow"),
        (
            {"a": {"$type": "jsonnet", "value": {}}},
            "Unsupported override type: jsonnet. Use merge_patch or json_patch.",
        ),
        ({"a": {"component": "/z"}}, "The override of step 'a' needs a `value`: what is to be changed."),
        ({"a": 5}, "The override of step 'a' needs a `value`: what is to be changed."),
        ([], "Overrides are an object of step ids, each with a `value`."),
        (
            {"a": {"value": {"component": None}}},
            "The overrides do not fit the flow: $.steps[0]: A step needs `component`.",
        ),
        (
            {"a": {"value": "x"}},
            "The overrides do not fit the flow: $.steps[0]: A step is an object with a `component`, not `x`.",
        ),
        (
            {"a": {"value": {"input": {"$step": 5}}}},
            "The overrides do not fit the flow: $.steps[0].input.$step: `$step` must be a text: the id of a step.",
        ),
        (
            {"a": {"$type": "json_patch", "value": [{"op": "remove", "path": "/input/x"}]}},
            "The override of step 'a' cannot be applied: /input/x is not in the step.",
        ),
    ],
)
def test_overrides_that_do_not_fit_are_refused(overrides: Any, message: str) -> None:
    with pytest.raises(OverridesInvalid) as refused:
        apply_overrides(FLOW, overrides)
    assert str(refused.value) == message


def test_a_patch_nested_by_the_thousand_is_refused() -> None:
    patch: Any = {}
    for _ in range(5000):
        patch = {"input": patch}
    with pytest.raises(OverridesInvalid, match="deeper than 100 levels"):
        apply_overrides(FLOW, {"a": {"value": patch}})


@pytest.mark.parametrize(
    ("operations", "expected"),
    [
        ([{"op": "add", "path": "/new", "value": 1}], {"a": {"b": [1, 2]}, "c~/": 3, "new": 1}),
        ([{"op": "add", "path": "/a/b/1", "value": 9}], {"a": {"b": [1, 9, 2]}, "c~/": 3}),
        ([{"op": "add", "path": "/a/b/-", "value": 9}], {"a": {"b": [1, 2, 9]}, "c~/": 3}),
        ([{"op": "add", "path": "", "value": 9}], 9),
        ([{"op": "remove", "path": "/a/b/0"}], {"a": {"b": [2]}, "c~/": 3}),
        ([{"op": "remove", "path": "/c~0~1"}], {"a": {"b": [1, 2]}}),
        ([{"op": "replace", "path": "/a/b/0", "value": {}}], {"a": {"b": [{}, 2]}, "c~/": 3}),
        ([{"op": "replace", "path": "", "value": None}], None),
        ([{"op": "move", "from": "/a/b", "path": "/b"}], {"a": {}, "c~/": 3, "b": [1, 2]}),
        ([{"op": "move", "from": "/a/b/0", "path": "/a/b/1"}], {"a": {"b": [2, 1]}, "c~/": 3}),
        ([{"op": "copy", "from": "/a/b", "path": "/a/d"}], {"a": {"b": [1, 2], "d": [1, 2]}, "c~/": 3}),
        ([{"op": "test", "path": "/a/b", "value": [1, 2]}], {"a": {"b": [1, 2]}, "c~/": 3}),
    ],
)
def test_json_patches_do_what_rfc_6902_says(operations: list[Any], expected: Any) -> None:
    target = {"a": {"b": [1, 2]}, "c~/": 3}
    assert json_patch(target, operations) == expected
    assert target == {"a": {"b": [1, 2]}, "c~/": 3}


@pytest.mark.parametrize(
    ("operations", "message"),
    [
        ({}, "A JSON patch is a list of operations."),
        ([1], "An operation is an object with `op` and `path`."),
        (
            [{"op": "rename", "path": "/a"}],
            "There is no operation `rename`: use add, remove, replace, move, copy or test.",
        ),
        ([{"op": "add", "path": "/x"}], "The operation `add` needs a `value`."),
        ([{"op": "add", "path": "x", "value": 1}], "`path` must be a JSON pointer such as `/input/name`."),
        ([{"op": "add", "value": 1}], "`path` must be a JSON pointer such as `/input/name`."),
        ([{"op": "move", "path": "/x"}], "`from` must be a JSON pointer such as `/input/name`."),
        ([{"op": "add", "path": "/x/y", "value": 1}], "/x is not in the step."),
        ([{"op": "add", "path": "/n/y", "value": 1}], "/n/y is not in the step."),
        ([{"op": "add", "path": "/a/3", "value": 1}], "/a/3 is not in the step: the list has 2 items."),
        ([{"op": "remove", "path": "/a/2"}], "/a/2 is not in the step: the list has 2 items."),
        ([{"op": "remove", "path": "/a/01"}], "/a/01 is not in the step: '01' is no index of a list."),
        ([{"op": "remove", "path": ""}], "A step cannot be removed by an override."),
        ([{"op": "replace", "path": "/q", "value": 1}], "/q is not in the step."),
        ([{"op": "move", "from": "/a", "path": "/a/0"}], "/a cannot be moved into itself."),
        ([{"op": "test", "path": "/n", "value": True}], "The value at /n is not the one of the `test`."),
        ([{"op": "test", "path": "/a", "value": [1, {"b": 3}]}], "The value at /a is not the one of the `test`."),
    ],
)
def test_json_patches_that_cannot_be_applied_are_refused(operations: Any, message: str) -> None:
    with pytest.raises(OverridesInvalid) as refused:
        json_patch({"a": [1, {"b": 2}], "n": 1}, operations)
    assert str(refused.value) == message


def test_a_patch_cannot_double_itself_without_end() -> None:
    doubling = [{"op": "add", "path": "/x", "value": [1, 1]}] + [{"op": "copy", "from": "/x", "path": "/x/-"}] * 60
    with pytest.raises(OverridesInvalid, match="copies more than 100,000 values"):
        json_patch({}, doubling)
