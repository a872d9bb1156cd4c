"""Diagnostics: what is found in a flow, how bad it is, where it stands, and both written forms."""

from __future__ import annotations

from typing import Any

import pytest

from pyflue.stepflow.document import FLOW_SCHEMA, read_flow, read_flow_text
from pyflue.stepflow.exceptions import place_text
from pyflue.stepflow.validation import Diagnostic, Diagnostics, Kind, Level, diagnose, diagnose_config

NAMED: dict[str, Any] = {"name": "n", "description": "d"}


def found(**fields: Any) -> list[tuple[str, str, str]]:
    """Level and kind, place, text of everything that people see of a flow with a name."""
    shown = diagnose(read_flow(NAMED | fields)).shown
    return [(f"{d.level.value} {d.kind.value}", place_text(d.path), d.text) for d in shown]


def step(step_id: str = "a", **fields: Any) -> dict[str, Any]:
    return {"id": step_id, "component": "/x", "mustExecute": True, **fields}


def test_a_flow_without_faults_has_no_diagnostics() -> None:
    fields = {"input": {"type": "object"}, "steps": [step(input={"$input": "q"})], "output": {"$step": "a"}}
    assert diagnose(read_flow(NAMED | fields)) == Diagnostics()


def test_a_flow_should_have_a_name_and_a_description() -> None:
    assert [str(d) for d in diagnose(read_flow({})).diagnostics] == [
        "warning: $.name: Workflow has no name",
        "warning: $.description: Workflow has no description",
    ]
    assert [d.kind for d in diagnose(read_flow({"name": " ", "description": ""})).diagnostics] == [
        Kind.MISSING_FLOW_NAME
    ]


def test_ids_of_steps_are_unique_and_not_empty() -> None:
    assert found(steps=[step(), step(), step(" ")]) == [
        ("fatal duplicateStepId", "$.steps[1].id", "Duplicate step ID: 'a'"),
        ("fatal emptyStepId", "$.steps[2].id", "Step ID cannot be empty"),
    ]


UNDEFINED = "fatal undefinedStepReference"


@pytest.mark.parametrize(
    ("input_", "place"),
    [
        ({"$step": "late"}, "$.steps[0].input"),
        ({"$step": "nowhere"}, "$.steps[0].input"),
        ({"x": [1, {"$step": "late"}]}, "$.steps[0].input.x[1]"),
        ({"$if": {"$step": "late"}, "then": 1}, "$.steps[0].input.$if"),
        ({"$if": 1, "then": {"a": {"$step": "late"}}}, "$.steps[0].input.then.a"),
        ({"$if": 1, "then": 1, "else": {"$step": "late"}}, "$.steps[0].input.else"),
        ({"$coalesce": [1, {"$step": "late"}]}, "$.steps[0].input.$coalesce[1]"),
        ({"$from": {"step": "late"}}, "$.steps[0].input"),
    ],
)
def test_a_step_refers_to_earlier_steps_only_in_whatever_branch(input_: Any, place: str) -> None:
    step_id = "nowhere" if "nowhere" in str(input_) else "late"
    later = "" if step_id == "nowhere" else ". It comes later in the document: move it up."
    expected = (UNDEFINED, place, f"Step 'a' references undefined step '{step_id}'{later}")
    assert found(steps=[step(input=input_), step("late")]) == [expected]


@pytest.mark.parametrize(
    ("input_", "advice"),
    [
        ({"$step": "frist"}, "Did you mean `first`?"),
        (
            {"workflow": {"steps": {"inner": {"component": "/x"}}, "output": {"$step": "inner"}}},
            "It is a step of an inner flow: put that flow in a `$literal`.",
        ),
        (
            {"workflow": {"steps": [{"id": "inner"}, "no step"], "output": [{"$step": "inner"}]}},
            "It is a step of an inner flow: put that flow in a `$literal`.",
        ),
    ],
)
def test_a_reference_to_no_step_is_told_with_what_may_be_meant(input_: Any, advice: str) -> None:
    [(kind, _, text)] = found(steps=[step("first"), step(input=input_)])
    assert (kind, text.partition(". ")[2]) == (UNDEFINED, advice)


def test_references_in_defaults_conditions_of_skipping_and_the_output_are_checked_too() -> None:
    schemas = {"properties": {"variables": {"properties": {"v": {}}}}}
    variable = {"$variable": "v", "default": {"$step": "x"}}
    assert found(schemas=schemas, steps=[step(input=variable)], output=[{"$step": "y"}]) == [
        (UNDEFINED, "$.steps[0].input.default", "Step 'a' references undefined step 'x'"),
        (UNDEFINED, "$.output[0]", "Step 'workflow_output' references undefined step 'y'"),
    ]
    on_error = {"action": "useDefault", "defaultValue": {"$step": "y"}}
    assert found(steps=[step(skipIf={"$step": "x"}, onError=on_error)]) == [
        (UNDEFINED, "$.steps[0].skipIf", "Step 'a' references undefined step 'x'"),
        (UNDEFINED, "$.steps[0].onError.defaultValue", "Step 'a' references undefined step 'y'"),
    ]
    # In newer documents that default is no expression.
    assert found(steps=[step(onError=on_error)]) == []


def test_a_step_does_not_refer_to_itself() -> None:
    expected = ("fatal selfReference", "$.steps[0].input.v", "Step 'a' cannot reference itself")
    assert found(steps=[step(input={"v": {"$step": "a"}})]) == [expected]


def test_paths_that_cannot_be_checked_are_noted_and_not_shown() -> None:
    fields = {
        "schemas": {"properties": {"variables": {"properties": {"v": {}}}}},
        "steps": [
            step(input={"$input": "q"}),
            step("b", input=[{"$step": "a", "path": "p.q"}, {"$variable": "$.v.w"}]),
        ],
    }
    diagnostics = diagnose(read_flow(NAMED | fields))
    assert diagnostics.shown == ()
    assert [(d.kind, d.is_ignored, d.fields) for d in diagnostics.diagnostics] == [
        (kind, True, {"stepId": step_id, "field": field, "reason": reason})
        for kind, step_id, field, reason in [
            (Kind.UNVALIDATED_FIELD_ACCESS, "workflow_input", "$.q", "no input schema available"),
            (Kind.UNVALIDATED_FIELD_ACCESS, "a", "$.p.q", "no output schema available"),
            (
                Kind.UNVALIDATED_FIELD_ACCESS,
                "variable_v",
                "$.v.w",
                "variable field type validation not yet implemented",
            ),
        ]
    ]


def test_variables_should_be_declared() -> None:
    steps = [step(input=[{"$variable": "v"}, {"$variable": "w"}])]
    text = "Workflow has no variable schema defined - variable references cannot be validated"
    assert found(steps=steps) == [("warning missingVariableSchema", "$.steps[0].input[0]", text)]
    schemas = {"properties": {"variables": {"properties": {"v": {}, "dotted.name": {}}}}}
    assert found(
        schemas=schemas,
        steps=[step(input=[{"$variable": "$.v"}, {"$variable": "w"}, {"$variable": "w", "default": 1}])],
        output=[{"$from": {"variable": "x"}}, {"$variable": "dotted.name"}, {"$variable": "u.v"}],
    ) == [
        (
            "error undefinedRequiredVariable",
            "$.steps[0].input[1]",
            "Undefined required variable 'w' referenced in step 'a'",
        ),
        ("error undefinedVariable", "$.steps[0].input[2]", "Undefined variable 'w' referenced in step 'a'"),
        (
            "error undefinedRequiredVariable",
            "$.output[0]",
            "Undefined required variable 'x' referenced in step 'workflow_output'",
        ),
        (
            "error undefinedRequiredVariable",
            "$.output[2]",
            "Undefined required variable 'u' referenced in step 'workflow_output'",
        ),
    ]


def test_a_component_starts_with_a_slash() -> None:
    text = "Invalid component 'x' in step 'a': Component path must start with '/'"
    assert found(steps=[step(component="x")]) == [("error invalidComponent", "$.steps[0].component", text)]


def test_a_step_that_nobody_refers_to_is_pointed_out_unless_it_must_run() -> None:
    steps = [step(mustExecute=False), step("b", input={"$if": 0, "then": {"$step": "c"}}), step("c", mustExecute=None)]
    text = "Step 'a' is not referenced by any other step or workflow output"
    assert ("warning unreachableStep", "$.steps[0]", text) in found(steps=steps)
    assert found(steps=[step(mustExecute=False)], output={"$step": "a"}) == []


@pytest.mark.parametrize(
    ("fields", "place", "text"),
    [
        (
            {"steps": [step(on_error={})]},
            "$.steps[0].on_error",
            "`on_error` is not a field of a step and has no effect. Did you mean `onError`?",
        ),
        (
            {"steps": [step(inptu=1)]},
            "$.steps[0].inptu",
            "`inptu` is not a field of a step and has no effect. Did you mean `input`?",
        ),
        ({"steps": [step(foo=1)]}, "$.steps[0].foo", "`foo` is not a field of a step and has no effect."),
        (
            {"steps": [step(skip=True)]},
            "$.steps[0].skip",
            "`skip` is not a field of a step and has no effect. Write `$if` where the step's value is used.",
        ),
        (
            {"steps": [step(onError={"action": "retry", "max_retries": 1})]},
            "$.steps[0].onError.max_retries",
            "`max_retries` is not a field of `onError` and has no effect. Did you mean `maxRetries`?",
        ),
        ({"outputs": 1}, "$.outputs", "`outputs` is not a field of a flow and has no effect. Did you mean `output`?"),
        (
            {"test": {"case": []}},
            "$.test.case",
            "`case` is not a field of `test` and has no effect. Did you mean `cases`?",
        ),
        (
            {"test": {"cases": [{"name": "a", "input": 1, "expect": 1}]}},
            "$.test.cases[0].expect",
            "`expect` is not a field of a test case and has no effect.",
        ),
        (
            {"examples": [{"name": "a", "input": 1, "Description": ""}]},
            "$.examples[0].Description",
            "`Description` is not a field of an example and has no effect. Did you mean `description`?",
        ),
        (
            {"output": {"$input": "x", "path": "y"}},
            "$.output.path",
            "`path` has no effect beside `$input`. Write the path as the value of `$input`.",
        ),
        (
            {"output": {"$if": 1, "then": 2, "els": 3}},
            "$.output.els",
            "`els` has no effect beside `$if`. Did you mean `else`?",
        ),
        (
            {"output": {"a": {"$literal": 1, "$input": "x"}}},
            "$.output.a.$input",
            "`$input` has no effect beside `$literal`. Use one of them.",
        ),
        (
            {"output": [{"$steps": "a"}]},
            "$.output[0].$steps",
            "`$steps` is an ordinary key, not an expression. Did you mean `$step`?",
        ),
    ],
)
def test_keys_without_effect_are_pointed_out(fields: dict[str, Any], place: str, text: str) -> None:
    [(kind, at, said)] = found(**fields)
    assert kind.startswith("warning ")
    assert (at, said) == (place, text)


def test_keys_of_data_are_nobodys_business() -> None:
    output = {"$schema": "s", "$ref": "r", "on_error": 1, "l": {"$literal": {"$steps": 1, "$step": 2, "path": 3}}}
    assert found(output=output, metadata={"x": 1}, steps=[step(metadata={"y": 1}, input={"component": 1})]) == []


def test_flows_in_literals_are_looked_at_as_flows() -> None:
    inner = {"schema": FLOW_SCHEMA, "name": "i", "description": "d", "output": {"$step": "nope"}}
    text = "Step 'workflow_output' references undefined step 'nope'"
    assert found(steps=[step(input={"flow": {"$literal": {"deep": [inner]}}})]) == [
        (UNDEFINED, "$.steps[0].input.flow.$literal.deep[0].output", text)
    ]
    outer = inner | {"output": None, "steps": [step(input={"$literal": inner})]}
    assert found(steps=[step(input={"$literal": outer})]) == [
        (UNDEFINED, "$.steps[0].input.$literal.steps[0].input.$literal.output", text)
    ]
    [(kind, place, said)] = found(steps=[step(input={"$literal": {"schema": FLOW_SCHEMA, "steps": 5}})])
    assert (kind, place) == ("error invalidSubflowLiteral", "$.steps[0].input.$literal")
    assert said.startswith("Invalid subflow literal: Failed to parse subflow: $.steps: `steps` must be a list")
    # Only the full schema says that it is a flow.
    assert found(steps=[step(input={"$literal": inner | {"schema": "flow/v1"}})]) == []


WRONG: dict[str, Any] = {"output": {"$step": "nope"}}


@pytest.mark.parametrize(
    ("component", "input_", "place"),
    [
        ("/map", {"workflow": {"$literal": WRONG}, "items": []}, "workflow.$literal"),
        ("/builtin/iterate", {"flow": {"$literal": WRONG}, "initial_input": 1}, "flow.$literal"),
        ("/map", {"$literal": {"workflow": WRONG, "items": []}}, "$literal.workflow"),
        ("/map", {"workflow": {"$if": True, "then": {"$literal": WRONG}}}, "workflow.then.$literal"),
        ("/map", {"workflow": {"$if": True, "then": 1, "else": {"$literal": WRONG}}}, "workflow.else.$literal"),
        ("/map", {"workflow": {"$coalesce": [None, {"$literal": WRONG}]}}, "workflow.$coalesce[1].$literal"),
    ],
)
def test_a_flow_in_a_literal_is_known_by_its_place_in_the_input_of_a_built_in_component(
    component: str, input_: Any, place: str
) -> None:
    text = "Step 'workflow_output' references undefined step 'nope'"
    assert found(steps=[step(component=component, input=input_)]) == [
        (UNDEFINED, f"$.steps[0].input.{place}.output", text)
    ]


def test_flows_inside_of_inner_flows_are_looked_at_too() -> None:
    def mapping(flow: Any) -> dict[str, Any]:
        return step(component="/map", input={"workflow": {"$literal": flow}, "items": [1]})

    [(kind, place, _)] = found(steps=[mapping({"schema": "flow/v1", "steps": [mapping(WRONG)]})])
    inner = "steps[0].input.workflow.$literal"
    assert (kind, place) == (UNDEFINED, f"$.{inner}.{inner}.output")


def test_what_stands_in_the_place_of_a_flow_and_is_none_is_pointed_out() -> None:
    [(kind, place, said)] = found(steps=[step(component="/map", input={"workflow": {"$literal": {"steps": 5}}})])
    assert (kind, place) == ("error invalidSubflowLiteral", "$.steps[0].input.workflow.$literal")
    assert said.startswith("Invalid subflow literal: Failed to parse subflow: $.steps: `steps` must be a list")
    [(kind, _, _)] = found(steps=[step(component="/map", input={"workflow": {"$literal": "text"}})])
    assert kind == "error invalidSubflowLiteral"


@pytest.mark.parametrize(
    ("component", "input_"),
    [
        ("/mine/map", {"workflow": {"$literal": WRONG}}),
        ("/map", {"items": {"$literal": WRONG}}),
        ("/map", {"workflow": {"$input": "flow"}}),
        ("/iterate", {"$input": "$"}),
        ("/map", ["workflow"]),
    ],
)
def test_other_literals_are_nobodys_business(component: str, input_: Any) -> None:
    assert found(steps=[step(component=component, input=input_)]) == []


def test_a_mistake_in_an_inner_flow_has_line_and_column() -> None:
    text = """\
name: n
description: d
steps:
  each:
    component: /map
    mustExecute: true
    input:
      items: [1]
      workflow:
        $literal:
          steps:
            one: {component: /noop, on_eror: {}}
          output: {$step: two}
"""
    [undefined, unused, unknown] = diagnose(read_flow_text(text)).shown
    assert (undefined.kind, undefined.line, undefined.column) == (Kind.UNDEFINED_STEP_REFERENCE, 13, 19)
    assert (unused.kind, unused.line) == (Kind.UNREACHABLE_STEP, 12)
    assert (unknown.kind, unknown.line, unknown.column) == (Kind.UNKNOWN_KEY, 12, 37)


TEXT = """\
name: n
steps:
  a:
    component: /x
    on_error: {action: fail}
    input: {$step: b}
"""


def test_both_written_forms_have_line_and_column() -> None:
    diagnostics = diagnose(read_flow_text(TEXT))
    assert (diagnostics.num_fatal, diagnostics.num_error, diagnostics.num_warning) == (1, 0, 3)
    assert (diagnostics.has_fatal, diagnostics.has_errors) == (True, True)
    base = diagnostics.to_base()
    assert (base["numFatal"], base["numError"], base["numWarning"]) == (1, 0, 3)
    assert base["diagnostics"][:2] == [
        {
            "message": {"type": "missingFlowDescription"},
            "level": "warning",
            "text": "Workflow has no description defined",
            "path": [{"String": "description"}],
            "ignore": False,
            "line": 1,
            "column": 1,
        },
        {
            "message": {"type": "undefinedStepReference", "fromStep": "a", "referencedStep": "b"},
            "level": "fatal",
            "text": "Step 'a' references undefined step 'b'",
            "path": [{"String": "steps"}, {"String": "a"}, {"String": "input"}],
            "ignore": False,
            "line": 6,
            "column": 12,
        },
    ]
    newer = diagnostics.to_next()
    assert (newer["numFatal"], newer["numError"], newer["numWarning"]) == (1, 0, 3)
    assert newer["diagnostics"][1] == {
        "kind": "undefinedStepReference",
        "code": 3003,
        "level": 1,
        "formatted": "Step 'a' references undefined step 'b'",
        "data": {"from_step": "a", "referenced_step": "b"},
        "path": "$.steps.a.input",
        "line": 6,
        "column": 12,
    }
    assert (newer["diagnostics"][3]["code"], newer["diagnostics"][3]["line"], newer["diagnostics"][3]["column"]) == (
        1900,
        5,
        5,
    )
    assert str(diagnostics.diagnostics[3]).startswith("warning: line 5, column 5: `on_error` is not a field")


def test_a_flow_that_was_no_text_has_places_without_lines() -> None:
    [diagnostic] = diagnose(read_flow(NAMED | {"steps": [step(component="x")]})).diagnostics
    assert diagnostic.to_base() == {
        "message": {
            "type": "invalidComponent",
            "stepId": "a",
            "component": "x",
            "error": "Component path must start with '/'",
        },
        "level": "error",
        "text": "Invalid component 'x' in step 'a': Component path must start with '/'",
        "path": [{"String": "steps"}, {"Index": 0}, {"String": "component"}],
        "ignore": False,
    }


def test_what_is_ignored_is_marked_in_both_forms() -> None:
    [diagnostic] = diagnose(read_flow(NAMED | {"output": {"$input": "a"}})).diagnostics
    assert (diagnostic.to_base()["ignore"], diagnostic.to_next()["experimental"]) == (True, True)


def test_numbers_say_how_bad_a_kind_is() -> None:
    assert {kind: (kind.code, kind.level) for kind in Kind} == {
        Kind.UNREACHABLE_STEP: (1000, Level.WARNING),
        Kind.MISSING_FLOW_NAME: (1001, Level.WARNING),
        Kind.MISSING_FLOW_DESCRIPTION: (1002, Level.WARNING),
        Kind.UNVALIDATED_FIELD_ACCESS: (1003, Level.WARNING),
        Kind.MISSING_VARIABLE_SCHEMA: (1004, Level.WARNING),
        Kind.NO_PLUGINS_CONFIGURED: (1200, Level.WARNING),
        Kind.NO_ROUTING_RULES_CONFIGURED: (1201, Level.WARNING),
        Kind.UNUSED_PLUGIN: (1202, Level.WARNING),
        Kind.UNKNOWN_KEY: (1900, Level.WARNING),
        Kind.IGNORED_KEY: (1901, Level.WARNING),
        Kind.MISSPELT_EXPRESSION: (1902, Level.WARNING),
        Kind.UNROUTED_COMPONENT: (1910, Level.WARNING),
        Kind.INVALID_SUBFLOW_LITERAL: (2003, Level.ERROR),
        Kind.UNDEFINED_VARIABLE: (2004, Level.ERROR),
        Kind.UNDEFINED_REQUIRED_VARIABLE: (2005, Level.ERROR),
        Kind.INVALID_ROUTE_REFERENCE: (2200, Level.ERROR),
        Kind.INVALID_COMPONENT: (2500, Level.ERROR),
        Kind.DUPLICATE_STEP_ID: (3000, Level.FATAL),
        Kind.EMPTY_STEP_ID: (3001, Level.FATAL),
        Kind.SELF_REFERENCE: (3002, Level.FATAL),
        Kind.UNDEFINED_STEP_REFERENCE: (3003, Level.FATAL),
    }
    assert [level.number for level in Level] == [1, 2, 3]


def test_a_config_has_plugins_that_its_routes_name() -> None:
    assert [d.kind for d in diagnose_config([], {}).diagnostics] == [
        Kind.NO_PLUGINS_CONFIGURED,
        Kind.NO_ROUTING_RULES_CONFIGURED,
    ]
    assert [d.kind for d in diagnose_config(["a"], {}).diagnostics] == [Kind.NO_ROUTING_RULES_CONFIGURED]
    assert diagnose_config(["a", "b"], {"/x/{*component}": ["a", "c"]}).diagnostics == (
        Diagnostic(
            kind=Kind.INVALID_ROUTE_REFERENCE,
            path=("routes", "/x/{*component}", 1),
            fields={"routePath": "/x/{*component}", "ruleIndex": 1, "plugin": "c"},
        ),
        Diagnostic(kind=Kind.UNUSED_PLUGIN, path=("plugins", "b"), fields={"plugin": "b"}),
    )
    text = "Routing rule 2 for path '/x/{*component}' references unknown plugin 'c'"
    assert diagnose_config(["a"], {"/x/{*component}": ["a", "c"]}).diagnostics[0].text == text
    assert diagnose_config(["a"], {"/x": ["a"]}) == Diagnostics()
