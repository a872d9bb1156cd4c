"""The language on random documents: what must hold for all of them."""

from __future__ import annotations

import functools
import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyflue import codec
from pyflue.stepflow.document import FLOW_SCHEMA, Flow, flow_id, flow_to_value, read_flow
from pyflue.stepflow.exceptions import DocumentMalformed, PathInvalid
from pyflue.stepflow.expressions import compile_expression, rewritten
from pyflue.stepflow.outcome import Failed, Outcome, Skipped, Success
from pyflue.stepflow.overrides import apply_overrides, merge_patch
from pyflue.stepflow.paths import WHOLE, read_path, spell
from pyflue.stepflow.validation import diagnose
from pyflue.stepflow.yaml_reader import read_document, read_yaml

from .states import RunState


def with_time(examples: int) -> settings:
    """Random documents take their time on a busy machine."""
    return settings(max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow])


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
NAMES = st.sampled_from(["a", "b", "c", "a.b", "x y", "", "$", "on", "1"]) | TEXTS
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
JSON: st.SearchStrategy[Any] = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=8
)

STEPS = ("a", "b", "c", "d", "nowhere")


@st.composite
def paths(draw: st.DrawFn) -> str:
    parts = draw(st.lists(st.sampled_from(["a", "x", "a.b", "x y"]) | st.integers(0, 2), max_size=3))
    if parts and draw(st.booleans()) and isinstance(parts[0], str):
        return parts[0]
    return spell(tuple(parts))


@functools.cache
def expressions(legacy: bool = False) -> st.SearchStrategy[Any]:
    leaves = (
        st.sampled_from([None, False, True, 0, "", "text", {"$step": "d"}, {"$input": "$"}])
        | st.builds(lambda step, path: {"$step": step, "path": path}, st.sampled_from(STEPS), paths())
        | st.builds(lambda path: {"$input": path}, paths())
        | st.builds(lambda name: {"$variable": name}, st.sampled_from(["v", "w", "$.v.a"]))
        | st.builds(lambda value: {"$literal": value}, JSON)
    )
    if legacy:
        on_skip = st.sampled_from([{"action": "skip"}, {"action": "useDefault", "defaultValue": 1}])
        leaves |= st.builds(
            lambda step, skip: {"$from": {"step": step}, "onSkip": skip}, st.sampled_from(STEPS), on_skip
        )
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["k", "l", "m n"]), inner, max_size=3)
            | st.builds(lambda c, t, e: {"$if": c, "then": t, "else": e}, inner, inner, inner)
            | st.builds(lambda c, t: {"$if": c, "then": t}, inner, inner)
            | st.builds(lambda entries: {"$coalesce": entries}, st.lists(inner, max_size=3))
            | st.builds(lambda name, d: {"$variable": name, "default": d}, st.sampled_from(["v", "w", "$.v.z"]), inner)
        ),
        max_leaves=8,
    )


OUTCOMES: st.SearchStrategy[Outcome] = st.one_of(
    st.builds(
        Success, st.sampled_from([None, False, True, 0, {"a": {"x": [1, None]}, "a.b": 2, "x": "y"}, [1, {"a": 2}]])
    ),
    st.just(Failed(9, "failed")),
    st.just(Skipped("skipped")),
)


def can_be_spelled(name: str) -> bool:
    """Names that could end a quotation of both kinds cannot be written; they cannot come out of a path either."""
    return "]" not in name or not ({"'", '"'} & set(name))


@with_time(80)
@given(st.lists(TEXTS.filter(can_be_spelled) | st.integers(0, 10**9), max_size=6))
def test_paths_are_read_back_as_they_were_spelled(parts: list[str | int]) -> None:
    text = spell(tuple(parts))
    path = read_path(text)
    assert (path.parts, path.text) == (tuple(parts), text)


@with_time(80)
@given(st.text("$.[]'\" ab01-", max_size=14))
def test_every_text_is_a_path_with_one_spelling_or_refused(text: str) -> None:
    try:
        path = read_path(text)
    except PathInvalid:
        return
    again = read_path(path.text)
    assert (again, again.text, again.shown) == (path, path.text, path.shown)
    assert (path.parts == ()) == (path is WHOLE)


def large() -> st.SearchStrategy[Any]:
    """Expressions with so many parts that what is known of them is remembered."""
    steps = st.builds(lambda step: {"$step": step}, st.sampled_from(STEPS))
    branches = st.builds(lambda a, b, c: {"$if": a, "then": b, "else": c}, steps, expressions(), expressions())
    many = st.lists(branches, min_size=17, max_size=20)
    return many | st.builds(lambda entries: {"$coalesce": entries}, many)


@with_time(200)
@given(
    expressions(legacy=True) | large(),
    st.dictionaries(st.sampled_from(STEPS[:-1]), OUTCOMES),
    JSON,
    st.data(),
)
def test_nothing_is_looked_at_that_was_not_waited_for(
    value: Any, outcomes: dict[str, Outcome], input_: Any, data: st.DataObject
) -> None:
    expression = compile_expression(value, legacy=True)
    everything = {step: outcomes.get(step, Success({"x": step})) for step in STEPS[:-1]}
    state = RunState(input_, {}, known=set(everything), variables={"v": {"a": 1}})
    waited_for: set[str] = set()
    while missing := expression.needs(state):
        assert missing <= expression.references
        assert not missing & set(state.steps)
        assert missing <= state.known
        assert expression.is_lazy or missing == (expression.references & state.known) - set(state.steps)
        waited_for |= missing
        done = data.draw(st.sets(st.sampled_from(sorted(missing)), min_size=1))
        state.steps |= {step: everything[step] for step in done}
    state.steps.seen.clear()
    outcome = expression.evaluate(state)
    assert state.steps.seen <= waited_for | {"nowhere"}
    # With everything finished it comes to the same.
    assert outcome == expression.evaluate(RunState(input_, everything, variables={"v": {"a": 1}}))
    # What was needed is enough: no reference failed for want of a step.
    if isinstance(outcome, Failed):
        assert "not completed" not in outcome.message


@with_time(80)
@given(expressions(legacy=True))
def test_what_is_written_back_means_the_same(value: Any) -> None:
    written = rewritten(value)
    assert rewritten(written) == written
    state = RunState(
        {"a": {"x": 1}, "a.b": 2, "x": [3]},
        {s: Success({"a": {"b": 1}, "x": [2]}) for s in STEPS[:-1]},
        variables={"v": 1},
    )
    before, after = compile_expression(value, legacy=True), compile_expression(written, legacy=True)
    assert before.evaluate(state) == after.evaluate(state)
    assert before.references == after.references


METADATA = st.dictionaries(NAMES, SCALARS, max_size=2)
ON_ERRORS = st.sampled_from(
    [None, {"action": "fail"}, {"action": "useDefault", "defaultValue": {"$input": "a"}}, {"action": "retry"}]
)
SCHEMAS = st.sampled_from([{"type": "object"}, True])


@functools.cache
def flow_values(legacy: bool = False) -> st.SearchStrategy[dict[str, Any]]:
    needed: dict[str, st.SearchStrategy[Any]] = {"component": st.just("/x"), "input": expressions(legacy)}
    optional: dict[str, st.SearchStrategy[Any]] = {
        "onError": ON_ERRORS,
        "mustExecute": st.booleans(),
        "metadata": METADATA,
    }
    if legacy:
        optional["skipIf"] = expressions(legacy)
    steps = st.dictionaries(st.sampled_from(STEPS[:-1]), st.fixed_dictionaries(needed, optional=optional), max_size=3)
    listed = steps.map(lambda found: [step | {"id": key} for key, step in found.items()])
    return st.fixed_dictionaries(
        {"output": expressions(legacy), "unknown": st.just(1), "steps": steps | listed},
        optional={
            "schema": st.sampled_from(["flow/v1", FLOW_SCHEMA]),
            "name": TEXTS,
            "version": TEXTS,
            "input": SCHEMAS,
            "metadata": METADATA,
        },
    )


@with_time(80)
@given(flow_values() | flow_values(legacy=True))
def test_a_flow_that_is_written_back_is_the_same_flow(value: dict[str, Any]) -> None:
    text = codec.encode(value)
    flow = read_flow(value)
    written = flow_to_value(flow)
    again = read_flow(codec.load(codec.encode(written)))
    assert codec.encode(flow_to_value(again)) == codec.encode(written)
    assert flow_id(again) == flow_id(flow)
    assert (again.is_legacy, len(again.steps)) == (flow.is_legacy, len(flow.steps))
    assert [d.level for d in diagnose(again).diagnostics if d.code >= 2000] == [
        d.level for d in diagnose(flow).diagnostics if d.code >= 2000
    ]
    assert codec.encode(value) == text  # nothing of the document was changed


@with_time(80)
@given(JSON)
def test_json_is_yaml_with_the_same_meaning(value: Any) -> None:
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=2)):
        assert same(read_document(text, ".json").value, value)
        if value is None or not isinstance(value, str):
            assert same(read_yaml(text), value)
    text = json.dumps({"k": value})
    assert same(read_yaml(text)["k"], value)


PRINTABLE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E) | st.sampled_from("éß漢😀"), max_size=8)
PLAIN_JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | PRINTABLE,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(PRINTABLE, inner, max_size=4),
    max_leaves=8,
)


@with_time(80)
@given(PLAIN_JSON)
def test_the_yaml_reader_itself_reads_json_as_json(value: Any) -> None:
    text = json.dumps([value], ensure_ascii=False)
    assert same(read_yaml(f"# yaml\n{text}"), [value])
    assert same(read_yaml(f"- {json.dumps(value, ensure_ascii=False)}"), [value])


@with_time(80)
@given(st.text("{}[]:,-?&*!|>'\"%@# \nab1~<", max_size=30))
def test_every_text_is_a_document_or_refused_with_its_place(text: str) -> None:
    for suffix in (".yaml", ".json"):
        try:
            document = read_document(text, suffix)
        except DocumentMalformed as error:
            place = (error.line, error.column)
        else:
            codec.encode(document.value)
            place = document.marks.position(())
        assert place >= (1, 1)


def same(one: Any, other: Any) -> bool:
    """Equal, with types and the order of keys."""
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


def rfc_7396(target: Any, patch: Any) -> Any:
    """Word by word from the RFC."""
    if isinstance(patch, dict):
        if not isinstance(target, dict):
            target = {}
        for name, value in patch.items():
            if value is None:
                if name in target:
                    del target[name]
            else:
                target[name] = rfc_7396(target.get(name), value)
        return target
    return patch


@with_time(80)
@given(JSON, JSON)
def test_merge_patches_do_what_rfc_7396_says(target: Any, patch: Any) -> None:
    before = codec.encode(target)
    expected = rfc_7396(codec.load(before), patch)
    assert same(merge_patch(target, patch), expected)
    assert codec.encode(target) == before


@with_time(80)
@given(
    flow_values(), st.dictionaries(st.sampled_from(["input", "metadata"]), st.dictionaries(NAMES, SCALARS), max_size=2)
)
def test_overrides_change_the_steps_they_name_and_no_others(value: dict[str, Any], patch: dict[str, Any]) -> None:
    flow = read_flow(value)
    if not flow.steps:
        return
    written = flow_to_value(flow)
    target = flow.steps[0].id
    try:
        changed: Flow = apply_overrides(flow, {target: {"value": patch}})
    except ValueError:
        return  # the patch hit a reference where it hurts
    expected = rfc_7396(codec.load(codec.encode(written["steps"][0])), patch)
    after = flow_to_value(changed)
    assert after["steps"][1:] == written["steps"][1:]
    assert after["steps"][0] == flow_to_value(read_flow({"steps": [expected]}))["steps"][0]
    assert codec.encode(flow_to_value(flow)) == codec.encode(written)
