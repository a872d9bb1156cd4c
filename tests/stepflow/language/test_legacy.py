"""Documents of releases up to 0.8.0: `$from`, `onSkip`, `skipIf`, `onError: {action: skip}`."""

from __future__ import annotations

from typing import Any

import pytest

from pyflue.stepflow.document import OnErrorAction, flow_to_value, read_flow
from pyflue.stepflow.exceptions import FlowMalformed
from pyflue.stepflow.expressions import compile_expression
from pyflue.stepflow.outcome import Failed, Outcome, Skipped, Success

from .states import RunState, evaluate, needs


def state() -> RunState:
    steps: dict[str, Outcome] = {"a": Success({"x": 1}), "left": Skipped()}
    return RunState({"n": 2}, steps, known={"later"}, variables={"v": {"y": 3}})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"$from": {"workflow": "input"}}, Success({"n": 2})),
        ({"$from": {"workflow": "input"}, "path": "n"}, Success(2)),
        ({"$from": {"step": "a"}, "path": "$.x"}, Success(1)),
        ({"$from": {"step": "a"}, "path": "z"}, Failed(1, "Path $.z not found")),
        ({"$from": {"variable": "v"}, "path": "y"}, Success(3)),
        ({"$from": {"variable": "v"}}, Success({"y": 3})),
        ({"$from": {"variable": "w", "default": {"$step": "a"}}}, Success({"$step": "a"})),
        ({"$from": {"variable": "w"}}, Failed(1, "Undefined variable: w")),
        ({"$from": {"step": "left"}}, Skipped()),
        ({"$from": {"step": "left"}, "onSkip": {"action": "skip"}}, Skipped()),
        ({"$from": {"step": "left"}, "onSkip": {"action": "useDefault"}}, Success(None)),
        (
            {"$from": {"step": "left"}, "path": "q", "onSkip": {"action": "useDefault", "defaultValue": [1]}},
            Success([1]),
        ),
        ({"$from": {"step": "a"}, "onSkip": {"action": "useDefault", "defaultValue": [1]}}, Success({"x": 1})),
        # The bridge: newer references to skipped steps.
        ({"$coalesce": [{"$step": "left"}, 5]}, Success(5)),
        ({"$coalesce": [{"$from": {"step": "left"}}, 5]}, Success(5)),
        ({"a": {"$step": "left"}}, Skipped()),
        ({"$if": {"$step": "left"}, "then": 1, "else": 2}, Skipped()),
    ],
)
def test_older_references_and_what_they_do_about_skipped_steps(value: Any, expected: Outcome) -> None:
    assert evaluate(value, state(), legacy=True) == expected


def test_older_references_are_waited_for() -> None:
    assert needs({"a": {"$from": {"step": "later"}}}, state(), legacy=True) == {"later"}


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"$from": {"step": 1}}, "$.$from.step"),
        ({"$from": {"workflow": "output"}}, "$.$from.workflow"),
        ({"$from": {"variable": ""}}, "$.$from.variable"),
        ({"$from": {"step": "a"}, "onSkip": {"action": "run"}}, "$.onSkip"),
        ({"$from": {"step": "a"}, "onSkip": "skip"}, "$.onSkip"),
        ({"$from": {"step": "a"}, "path": "$["}, "$.path"),
        ({"$from": "somewhere"}, "$.$from"),
        ({"$from": {}}, "$.$from"),
    ],
)
def test_older_references_that_are_wrong_are_refused(value: Any, path: str) -> None:
    with pytest.raises(FlowMalformed) as refused:
        compile_expression(value, legacy=True)
    assert [problem.to_dict()["path"] for problem in refused.value.problems] == [path]


STEP = {"id": "a", "component": "/x"}


@pytest.mark.parametrize(
    "flow",
    [
        {"steps": [STEP], "output": {"$from": {"step": "a"}}},
        {"steps": [STEP | {"input": [{"a": {"$from": {"workflow": "input"}}}]}]},
        {"steps": [STEP | {"skipIf": {"$input": "x"}}]},
        {"steps": [STEP | {"onError": {"action": "skip"}}]},
        {"steps": [STEP | {"inputSchema": {}}]},
        {"steps": [STEP | {"outputSchema": {"type": "object"}}]},
        {"inputSchema": {"type": "object"}},
        {"outputSchema": {"type": "object"}},
        {"variables": {"type": "object"}},
    ],
)
def test_an_older_key_makes_an_older_document_and_it_stays_one(flow: dict[str, Any]) -> None:
    read = read_flow(flow)
    assert read.is_legacy
    written = flow_to_value(read)
    again = read_flow(written)
    assert again.is_legacy
    assert flow_to_value(again) == written


@pytest.mark.parametrize(
    "flow",
    [
        {},
        {"input": {"type": "object"}, "steps": {"a": {"component": "/x", "skip": True}}},
        {"steps": [STEP | {"skipIf": None, "inputSchema": None}], "variables": None},
        {"steps": [STEP | {"input": {"$literal": {"$from": {"step": "b"}}}}]},
        {"input_schema": {"type": "object"}},
    ],
)
def test_other_documents_are_not_older_ones(flow: dict[str, Any]) -> None:
    assert not read_flow(flow).is_legacy


def test_the_default_after_a_failure_is_an_expression_in_older_documents_only() -> None:
    step = STEP | {"onError": {"action": "useDefault", "defaultValue": {"$input": "n"}}}
    newer = read_flow({"steps": [step]})
    assert newer.steps[0].on_error.default.evaluate(state()) == Success({"$input": "n"})
    older = read_flow({"steps": [step], "inputSchema": {}})
    assert older.steps[0].on_error.default.evaluate(state()) == Success(2)
    assert flow_to_value(older)["steps"][0]["onError"] == {"action": "useDefault", "defaultValue": {"$input": "$.n"}}
    assert flow_to_value(newer)["steps"][0]["onError"] == {"action": "useDefault", "defaultValue": {"$input": "n"}}


def test_an_older_document_is_written_back_as_one() -> None:
    flow = read_flow(
        {
            "name": "old",
            "variables": {"type": "object", "properties": {"v": {"type": "string"}}},
            "inputSchema": {"type": "object"},
            "outputSchema": {"type": "string"},
            "schemas": {"$defs": {"T": {}}},
            "steps": [
                {
                    "metadata": {"m": 1},
                    "input": {"$from": {"workflow": "input"}, "path": "n"},
                    "skipIf": {"$from": {"step": "z"}, "onSkip": {"action": "skip"}},
                    "onError": {"action": "skip"},
                    "component": "/x",
                    "id": "a",
                    "outputSchema": {"type": "string"},
                }
            ],
            "output": {"$from": {"variable": "v", "default": 1}},
        }
    )
    assert flow.steps[0].on_error.action is OnErrorAction.SKIP
    assert flow_to_value(flow) == {
        "schema": "https://stepflow.org/schemas/v1/flow.json",
        "name": "old",
        "schemas": {"type": "object", "$defs": {"T": {}}},
        "inputSchema": {"type": "object"},
        "outputSchema": {"type": "string"},
        "variables": {"type": "object", "properties": {"v": {"type": "string"}}},
        "steps": [
            {
                "id": "a",
                "component": "/x",
                "outputSchema": {"type": "string"},
                "skipIf": {"$from": {"step": "z"}, "onSkip": {"action": "skip"}},
                "onError": {"action": "skip"},
                "input": {"$from": {"workflow": "input"}, "path": "$.n"},
                "metadata": {"m": 1},
            }
        ],
        "output": {"$from": {"variable": "v", "default": 1}},
    }
