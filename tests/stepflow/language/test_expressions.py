"""Value expressions: what they come to, and which steps they wait for."""

from __future__ import annotations

from typing import Any

import pytest

from pyflue.stepflow.exceptions import FlowMalformed
from pyflue.stepflow.expressions import Constant, compile_expression, rewritten
from pyflue.stepflow.outcome import Failed, Outcome, Skipped, Success

from .states import RunState, evaluate, needs

BROKEN = Failed(7, "broken")
DONE: dict[str, Outcome] = {
    "one": Success({"n": 1, "list": ["a"]}),
    "null": Success(None),
    "no": Success(False),
    "bad": BROKEN,
    "left": Skipped("why"),
}


def state(input_: Any = None, **more: Any) -> RunState:
    return RunState(input_, DONE, known={"later", "last"}, **more)


def step(step_id: str, path: str | None = None) -> dict[str, Any]:
    return {"$step": step_id} if path is None else {"$step": step_id, "path": path}


@pytest.mark.parametrize(
    "value", [None, True, 0, 2.5, "$step", [], {}, [1, {"a": [None]}], {"$other": 1, "a": {"$ref": "x"}}]
)
def test_plain_values_are_themselves(value: Any) -> None:
    assert evaluate(value) == Success(value)
    compiled = compile_expression(value)
    assert isinstance(compiled, Constant)
    assert compiled.evaluate(state()) is compiled.evaluate(state())
    assert compiled.needs(state()) == frozenset()


def test_a_literal_is_not_looked_into() -> None:
    inner = {"$step": 5, "$input": {"$if": 1}, "$from": "x"}
    assert evaluate({"$literal": inner}) == Success(inner)
    assert evaluate({"a": [{"$literal": inner}]}) == Success({"a": [inner]})
    assert evaluate({"$literal": None}) == Success(None)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"$coalesce": [], "$if": True, "then": "if"}, Success("if")),
        ({"$if": True, "then": 1, "$literal": "literal"}, Success("literal")),
        ({"$step": "one", "$coalesce": ["coalesce"]}, Success("coalesce")),
        ({"$input": "$", "$step": "no"}, Success(False)),
        ({"$variable": "v", "$input": "$"}, Success("the input")),
        ({"$from": "x", "$variable": "v"}, Success("of v")),
    ],
)
def test_of_several_special_keys_the_first_in_order_of_rank_wins(value: Any, expected: Outcome) -> None:
    assert evaluate(value, state("the input", variables={"v": "of v"})) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (step("one"), Success({"n": 1, "list": ["a"]})),
        (step("one", "n"), Success(1)),
        (step("one", "$.list[0]"), Success("a")),
        (step("one", "$"), Success({"n": 1, "list": ["a"]})),
        ({"$step": "one", "path": None}, Success({"n": 1, "list": ["a"]})),
        (step("one", "x.y"), Failed(1, "Path $.x.y not found")),
        (step("null", "$.any[3]"), Success(None)),
        (step("bad", "n"), BROKEN),
        (step("later"), Failed(500, "Step later not completed")),
        (step("nowhere"), Failed(404, "Unknown step: nowhere")),
        (step("left"), Skipped("why")),
        ({"$input": "$"}, Success({"name": "World"})),
        ({"$input": None}, Success({"name": "World"})),
        ({"$input": ""}, Success({"name": "World"})),
        ({"$input": "name"}, Success("World")),
        ({"$input": "nope"}, Failed(1, "Input path $.nope not found")),
    ],
)
def test_references_give_values_or_say_why_not(value: Any, expected: Outcome) -> None:
    assert evaluate(value, state({"name": "World"})) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"$variable": "v"}, Success({"a": [1]})),
        ({"$variable": "$.v.a[0]"}, Success(1)),
        ({"$variable": "v.a"}, Success([1])),
        ({"$variable": "dotted.name"}, Success("exact")),
        ({"$variable": "v", "default": 2}, Success({"a": [1]})),
        ({"$variable": "$.v.b", "default": 2}, Success(2)),
        ({"$variable": "$.v.b"}, Failed(1, "Undefined variable: v")),
        ({"$variable": "none"}, Failed(1, "Undefined variable: none")),
        ({"$variable": "none", "default": None}, Success(None)),
        ({"$variable": "none", "default": step("one", "n")}, Success(1)),
        ({"$variable": "none", "default": step("bad")}, BROKEN),
        ({"$variable": '$["dotted.name"]'}, Success("exact")),
    ],
)
def test_variables_have_values_and_defaults(value: Any, expected: Outcome) -> None:
    variables = {"v": {"a": [1]}, "dotted.name": "exact"}
    assert evaluate(value, state(variables=variables)) == expected


@pytest.mark.parametrize("condition", [True, 0, "", [], {}, "false", step("one"), {"a": None}])
def test_every_value_but_null_and_false_holds(condition: Any) -> None:
    assert evaluate({"$if": condition, "then": "then", "else": "else"}, state()) == Success("then")


@pytest.mark.parametrize(
    "condition", [False, None, step("bad"), step("no"), step("null"), step("nowhere"), {"a": step("bad")}]
)
def test_null_false_and_failures_do_not_hold(condition: Any) -> None:
    assert evaluate({"$if": condition, "then": step("bad"), "else": "else"}, state()) == Success("else")
    assert evaluate({"$if": condition, "then": step("bad")}, state()) == Success(None)


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([], Success(None)),
        ([None, step("null")], Success(None)),
        ([None, False, 1], Success(False)),
        ([step("null"), step("one", "n"), step("bad")], Success(1)),
        ([step("null"), step("bad"), 1], BROKEN),
        ([step("one", "nope"), 1], Failed(1, "Path $.nope not found")),
        ([step("left"), step("no")], Success(False)),
        ([step("left")], Success(None)),
    ],
)
def test_coalesce_takes_the_first_that_is_not_null_and_stops_at_a_failure(
    entries: list[Any], expected: Outcome
) -> None:
    assert evaluate({"$coalesce": entries}, state()) == expected


def test_the_first_failure_in_the_order_of_the_document_is_that_of_the_whole() -> None:
    other = {"$input": "nope"}
    assert evaluate({"z": [1, step("bad")], "a": other}, state({})) == BROKEN
    assert evaluate([other, step("bad")], state({})) == Failed(1, "Input path $.nope not found")
    assert evaluate([1, step("left"), step("bad")], state()) == Skipped("why")


def test_objects_keep_the_order_of_their_keys() -> None:
    outcome = evaluate({"z": step("one", "n"), "a": {"$input": "$"}, "m": 3}, state("in"))
    assert isinstance(outcome, Success)
    assert list(outcome.value.items()) == [("z", 1), ("a", "in"), ("m", 3)]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (step("later", "x"), {"later"}),
        (step("one"), set()),
        (step("nowhere"), set()),
        ([step("later"), {"a": step("last")}, step("one"), step("nowhere")], {"later", "last"}),
        # Only the condition, then only the branch that is taken.
        ({"$if": step("later"), "then": step("last"), "else": 1}, {"later"}),
        ({"$if": step("one"), "then": step("last"), "else": step("later")}, {"last"}),
        ({"$if": step("bad"), "then": step("last"), "else": step("later")}, {"later"}),
        ({"$if": step("no"), "then": step("last")}, set()),
        ({"$if": True, "then": step("last"), "else": step("later")}, {"last"}),
        # Entry by entry, to the first that can be used or has failed.
        ({"$coalesce": [step("later"), step("last")]}, {"later"}),
        ({"$coalesce": [step("null"), step("last"), step("later")]}, {"last"}),
        ({"$coalesce": [step("one"), step("last")]}, set()),
        ({"$coalesce": [step("bad"), step("last")]}, set()),
        ({"$coalesce": [step("left"), step("last")]}, {"last"}),
        ({"$coalesce": [None, step("later")]}, {"later"}),
        # The default of a variable, if it is what is used.
        ({"$variable": "none", "default": step("later")}, {"later"}),
        ({"$variable": "v", "default": step("later")}, set()),
        ({"$variable": "$.v.x", "default": step("later")}, {"later"}),
        # Lazy ones inside of others.
        ([{"$if": step("later"), "then": step("last")}, step("last")], {"later", "last"}),
        (
            {"a": {"$coalesce": [step("null"), {"$if": step("no"), "then": step("later"), "else": [step("last")]}]}},
            {"last"},
        ),
        ({"$literal": step("later")}, set()),
        ({"$input": "x"}, set()),
    ],
)
def test_only_what_is_really_needed_is_waited_for(value: Any, expected: set[str]) -> None:
    assert needs(value, state(variables={"v": {}})) == expected


@pytest.mark.parametrize(
    "value",
    [
        pytest.param([{"$if": step(f"s{n}"), "then": step(f"t{n}")} for n in range(1000)], id="each its own condition"),
        pytest.param({f"k{n}": {"$if": step("s0"), "then": step(f"t{n}")} for n in range(1000)}, id="one condition"),
        pytest.param({"$if": step("s0"), "then": [step(f"t{n}") for n in range(1000)]}, id="a large branch"),
        pytest.param({"$coalesce": [step(f"null{n}") for n in range(1000)]}, id="one after the other"),
    ],
)
def test_a_thousand_branches_are_not_all_looked_at_again_after_each_step(value: Any) -> None:
    expression = compile_expression(value)
    run = RunState(known=set(expression.references))
    asked: dict[str, None] = {}
    while missing := expression.needs(run):
        asked |= dict.fromkeys(sorted(missing))
        done = next(step_id for step_id in asked if step_id not in dict.keys(run.steps))
        assert not missing & dict.keys(run.steps)
        run.steps[done] = Success(None if done.startswith("null") else done)

    assert set(asked) == expression.references
    assert run.steps.looks < 20 * len(asked)


def test_references_of_all_branches_and_laziness_are_known_before() -> None:
    lazy = compile_expression([{"$if": step("a"), "then": step("b"), "else": {"$coalesce": [step("c")]}}, step("d")])
    assert (lazy.references, lazy.is_lazy) == ({"a", "b", "c", "d"}, True)
    strict = compile_expression({"x": [step("a")], "y": step("b"), "z": {"$if": True, "then": {"$input": "q"}}})
    assert (strict.references, strict.is_lazy) == ({"a", "b"}, False)


NO_LIST = "`$coalesce` needs a list: the first entry that is not null is taken."
NO_NAME = "`$variable` must start with the name of a variable, such as `name` or `$.name.field`."
NO_FROM = (
    "`$from` is not read here: write `$step`, `$input` or `$variable` for a reference, or put the object into "
    "`$literal` to keep it as it is."
)
NO_CHARACTER = "Invalid character 'x' in JSON path after $ or ']'. Expected '.' or '['."


@pytest.mark.parametrize(
    ("value", "path", "message"),
    [
        ({"$if": True}, "$", "`$if` needs a `then`: the value for when the condition holds."),
        ({"a": {"$coalesce": 1}}, "$.a.$coalesce", NO_LIST),
        ([{"$step": 1}], "$[0].$step", "`$step` must be a text: the id of a step."),
        ({"$input": 5}, "$.$input", "A path is a text such as `$.field` or `$[0]`, not a number."),
        ({"$step": "a", "path": "$x"}, "$.path", NO_CHARACTER),
        ({"$variable": "$[0]"}, "$.$variable", NO_NAME),
        ({"$variable": None}, "$.$variable", NO_NAME),
        ({"$variable": "$["}, "$.$variable", "Unclosed bracket '[' in path."),
        (
            {"$from": {"step": "a"}},
            "$.$from",
            NO_FROM,
        ),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(value: Any, path: str, message: str) -> None:
    with pytest.raises(FlowMalformed) as refused:
        compile_expression(value)
    assert [problem.to_dict() for problem in refused.value.problems] == [{"path": path, "message": message}]


def test_all_problems_are_listed() -> None:
    value = {"a": {"$step": 1}, "b": [{"$if": {"$input": "$["}}, {"$if": {"$input": "$["}, "then": {"$step": None}}]}
    with pytest.raises(FlowMalformed) as refused:
        compile_expression(value, path=("steps", 0, "input"))
    assert [problem.path for problem in refused.value.problems] == [
        ("steps", 0, "input", "a", "$step"),
        ("steps", 0, "input", "b", 0),
        ("steps", 0, "input", "b", 1, "$if", "$input"),
        ("steps", 0, "input", "b", 1, "then", "$step"),
    ]


def nested(levels: int, kind: str) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"$if": True, "then": value} if kind == "if" else [value] if kind == "list" else {"k": value}
    return value


@pytest.mark.parametrize("kind", ["if", "list", "object"])
def test_a_hundred_levels_are_read_and_not_one_more(kind: str) -> None:
    compile_expression(nested(100, kind)).evaluate(state())
    with pytest.raises(FlowMalformed) as refused:
        compile_expression(nested(101, kind), path=("output",))
    [problem] = refused.value.problems
    assert problem.message == "This is nested deeper than 100 levels: make it flatter."
    assert len(problem.path) == 101


def test_expressions_nested_by_the_thousand_meet_no_recursion_limit() -> None:
    with pytest.raises(FlowMalformed, match="deeper than 100 levels"):
        compile_expression(nested(50_000, "list"))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"$step": "a", "path": "x", "more": 1}, {"$step": "a", "path": "$.x"}),
        ({"$step": "a", "path": ""}, {"$step": "a"}),
        ({"more": 1, "$input": ""}, {"$input": "$"}),
        ({"$variable": "v", "default": {"$input": "x"}}, {"$variable": "$.v", "default": {"$input": "$.x"}}),
        (
            {"else": {"$input": "b"}, "then": {"$input": "a"}, "$if": 1},
            {"$if": 1, "then": {"$input": "$.a"}, "else": {"$input": "$.b"}},
        ),
        ({"$coalesce": [{"$input": "a"}], "x": 1}, {"$coalesce": [{"$input": "$.a"}]}),
        ({"$literal": {"$input": "a"}, "x": 1}, {"$literal": {"$input": "a"}}),
        ({"b": [{"$input": "a"}], "a": None}, {"b": [{"$input": "$.a"}], "a": None}),
    ],
)
def test_expressions_are_written_back_in_one_form(value: Any, expected: Any) -> None:
    written = rewritten(value)
    assert written == expected
    assert list(written) == list(expected)
