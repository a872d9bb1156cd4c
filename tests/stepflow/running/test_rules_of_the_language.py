"""Rules of documents, expressions, failures and built-in components, as programs that run flows see them: sections 1
to 7 of the rules of flows, as far as no test beside this one shows them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from pyflue.stepflow import FlowResult, SkipStep, StepflowRuntime, StepflowServer
from pyflue.stepflow.outcome import Success
from tests.provider_server import Answer, provider_server

from .test_openai import ask, asker, asking  # noqa: F401  (a fixture)
from .test_rules_of_configs import flow, one, step

Json = dict[str, Any]

CONFIG: Json = {
    "plugins": {
        "builtin": {"type": "builtin"},
        "mock": {"type": "mock", "components": {"/off": {"behaviors": {"x": {"outcome": "skipped"}}}}},
    },
    "routes": {"/mock": {"plugin": "mock"}, "/{*component}": {"plugin": "builtin"}},
    "retry": {"backoff": {"type": "constant", "delayMs": 1}},
}


class Parts:
    """Components in this process."""

    def __init__(self) -> None:
        self.server = StepflowServer(include_builtins=False)
        self.server.component(self.fail, name="fail")
        self.server.component(self.skip, name="skip")
        self.server.component(self.note, name="note")
        self.attempts = 0
        self.called: list[str] = []
        self._others_wait = asyncio.Event()
        self._goes_on = asyncio.Event()

    async def fail(self, given: Any) -> Any:
        self.attempts += 1
        raise ValueError(f"no, for the {self.attempts}. time")

    async def skip(self, given: Any) -> Any:
        raise SkipStep("nothing to do")

    async def note(self, given: Json) -> Any:
        """`first` ends when other steps have to wait for it or `second`, and that one when the next step has begun."""
        name = given["name"]
        self.called.append(name)
        async with asyncio.timeout(10):
            if name == "first":
                await self._others_wait.wait()
            elif name == "second":
                self._others_wait.set()
                await self._goes_on.wait()
            else:
                self._goes_on.set()
        return name


@pytest.fixture
def parts() -> Parts:
    return Parts()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "c.json"
    path.write_text(json.dumps(CONFIG))
    return path


@pytest.fixture
async def runtime(parts: Parts, config: Path) -> AsyncIterator[StepflowRuntime]:
    async with await StepflowRuntime.start_async(config, servers={"here": parts.server}) as started:
        yield started


@pytest.fixture
async def served(parts: Parts, config: Path) -> AsyncIterator[StepflowRuntime]:
    """One that can be asked about the steps of its runs, too."""
    async with await StepflowRuntime.start_async(config, port=0, servers={"here": parts.server}) as started:
        yield started


def value(result: FlowResult) -> Any:
    assert result.is_success, result
    return result.output["value"]


async def ran(runtime: StepflowRuntime, document: Json, given: Any = None, **more: Any) -> tuple[Any, dict[str, str]]:
    """The outcome of a run, and its steps that are over with what became of them."""
    stored = await runtime.client.store_flow(document)
    assert stored.flow_id is not None, stored
    started = await runtime.client.create_run(stored.flow_id, given, **more)
    steps = await runtime.client.get_run_steps(started.run_id)
    return started.outcome, {name: found.status.value for name, found in steps.items()}


# Documents


async def test_a_step_without_an_input_is_given_null_and_a_flow_without_an_output_gives_it(
    runtime: StepflowRuntime,
) -> None:
    steps = [{"id": "s", "component": "/noop"}]

    assert value(await runtime.run({"steps": steps, "output": [{"$step": "s"}]}, 5)) == [None]
    assert value(await runtime.run({"steps": steps}, 5)) is None


async def test_fields_have_their_names_in_camel_case_only(served: StepflowRuntime) -> None:
    document = flow(
        step("unseen", "/noop", must_execute=True),
        step("bad", "/here/fail", onError={"action": "useDefault", "default_value": 1}),
        step("worse", "/here/fail", on_error={"action": "useDefault", "defaultValue": 1}),
        output=[{"$step": "bad"}, {"$if": {"$step": "worse"}, "then": "default", "else": "failed"}],
    )

    outcome, steps = await ran(served, document)

    assert outcome == Success([None, "failed"])
    assert steps == {"bad": "completed", "worse": "failed"}


async def test_schemas_of_steps_and_of_the_output_are_for_readers(runtime: StepflowRuntime) -> None:
    text = {"type": "string"}
    older = flow(step("s", "/noop", 5, inputSchema=text, outputSchema=text), output=[{"$step": "s"}], outputSchema=text)
    properties = {"steps": {"properties": {"s": text}}, "output": text}
    newer = flow(step("s", "/noop", 5), output=[{"$step": "s"}], schemas={"properties": properties})

    assert value(await runtime.run(older, None)) == [5]
    assert value(await runtime.run(newer, None)) == [5]


# Expressions


@pytest.mark.parametrize(
    ("given", "expected", "steps"),
    [({}, "of the step", {"s": "completed"}), ({"v": "given"}, "given", {})],
    ids=["default", "given"],
)
async def test_a_step_that_the_default_of_a_variable_refers_to_runs_if_it_is_used(
    served: StepflowRuntime, given: Json, expected: str, steps: Json
) -> None:
    document = flow(step("s", "/noop", "of the step"), output={"$variable": "v", "default": {"$step": "s"}})

    assert await ran(served, document, variables=given) == (Success(expected), steps)


@pytest.mark.parametrize(
    ("reference", "given", "expected"),
    [
        ({"$variable": "$.v.x", "default": "inline"}, {"v": {"x": "given"}}, "given"),
        ({"$variable": "$.v.x", "default": "inline"}, {}, "of the schema"),
        ({"$variable": "$.v.x", "default": "inline"}, {"v": {"y": 1}}, "inline"),
        ({"$variable": "$.v.y", "default": "inline"}, {}, "inline"),
        ({"$variable": "$.v.x[0]"}, {"v": {"y": 1}}, None),
    ],
)
async def test_the_inline_default_is_for_a_variable_that_has_a_value_without_the_wanted_part(
    runtime: StepflowRuntime, reference: Json, given: Json, expected: str | None
) -> None:
    declared = {"properties": {"variables": {"properties": {"v": {"default": {"x": "of the schema"}}}}}}
    result = await runtime.run(flow(output=[reference], schemas=declared), None, variables=given)

    if expected is None:
        assert result == FlowResult.failed(1, "Undefined variable: v")
    else:
        assert value(result) == [expected]


async def test_a_reference_to_no_step_fails_what_refers_to_it_when_it_is_looked_at(runtime: StepflowRuntime) -> None:
    # Such a document is not taken, so the reference comes as an override.
    lost = {"a": {"value": {"input": {"$if": {"$input": "$"}, "then": {"$step": "nowhere"}, "else": 1}}}}
    on_error = {"action": "useDefault", "defaultValue": "default"}
    document = flow(
        step("a", "/noop", onError=on_error),
        step("b", "/noop", {"$step": "a"}, onError=on_error),
        output={"$step": "b"},
    )

    assert value(await runtime.run(document, False, lost)) == 1
    assert await runtime.run(document, True, lost) == FlowResult.failed(404, "Unknown step: nowhere")
    asked = {**document, "output": {"$if": {"$step": "b"}, "then": 1, "else": "failed"}}
    assert value(await runtime.run(asked, True, lost)) == "failed"


# Failures and skipping


@pytest.mark.parametrize(
    ("on_error", "attempts"),
    [
        ({"action": "retry", "maxRetries": 0}, 1),
        ({"action": "retry", "maxRetries": 2}, 3),
        ({"action": "retry", "maxRetries": None}, 4),
        ({"action": "retry"}, 4),
        ({"action": "fail"}, 1),
        (None, 1),
    ],
)
async def test_a_step_is_tried_once_more_than_it_may_be_tried_again_and_the_last_error_stands(
    runtime: StepflowRuntime, parts: Parts, on_error: Any, attempts: int
) -> None:
    result = await runtime.run(flow(step("s", "/here/fail", onError=on_error), output={"$step": "s"}), None)

    assert parts.attempts == attempts
    assert result.error is not None
    assert result.error.code == 500
    assert result.error.message.endswith(f"no, for the {attempts}. time")


@pytest.mark.parametrize(
    ("default", "expected"),
    [
        ({"$input": "n"}, 7),
        ([{"$step": "before"}, {"$literal": {"$input": "n"}}], ["done", {"$input": "n"}]),
        (None, None),
    ],
)
async def test_in_older_documents_the_default_after_a_failure_is_evaluated(
    runtime: StepflowRuntime, default: Any, expected: Any
) -> None:
    on_error = {"action": "useDefault", "defaultValue": default}
    steps = [step("before", "/noop", "done"), step("bad", "/here/fail", {"$step": "before"}, onError=on_error)]
    newer = flow(*steps, output=[{"$step": "bad"}])

    assert value(await runtime.run({**newer, "outputSchema": {}}, {"n": 7})) == [expected]
    assert value(await runtime.run(newer, {"n": 7})) == [default]


@pytest.mark.parametrize(
    ("condition", "is_skipped"),
    [
        *((held, True) for held in (True, 1, -0.5, "no", [], {})),
        *((not_held, False) for not_held in (False, 0, 0.0, "", None)),
    ],
)
async def test_a_condition_of_skipping_holds_unless_it_is_false_or_zero_or_an_empty_text(
    runtime: StepflowRuntime, condition: Any, is_skipped: bool
) -> None:
    document = flow(step("s", "/noop", "done", skipIf={"$input": "off"}), output={"$step": "s"})
    result = await runtime.run(document, {"off": condition})

    assert result == (FlowResult.skipped("skipIf") if is_skipped else FlowResult.success({"value": "done"}))


@pytest.mark.parametrize("condition", [{"$input": "nothing"}, {"$step": "bad"}, {"$step": "off"}])
async def test_a_condition_of_skipping_that_failed_or_was_skipped_does_not_hold(
    runtime: StepflowRuntime, condition: Json
) -> None:
    document = flow(
        step("bad", "/here/fail"),
        step("off", "/noop", skipIf=True),
        step("s", "/noop", "done", skipIf=condition),
        output={"$step": "s"},
    )

    assert value(await runtime.run(document, {})) == "done"


async def test_the_default_for_a_skipped_step_is_no_expression_and_its_path_is_not_looked_at(
    served: StepflowRuntime,
) -> None:
    def instead(**on_skip: Any) -> Json:
        return {"$from": {"step": "off"}, "path": "a.b", "onSkip": {"action": "useDefault", **on_skip}}

    document = flow(
        step("off", "/noop", 1, skipIf=True),
        step("used", "/noop", [instead(defaultValue={"$input": "$"}), instead()]),
        step("lost", "/noop", {"$from": {"step": "off"}}),
        output={"used": {"$step": "used"}, "lost": {"$coalesce": [{"$step": "lost"}, "passed over"]}},
    )

    outcome, steps = await ran(served, document, 5)

    assert outcome == Success({"used": [{"$input": "$"}, None], "lost": "passed over"})
    assert steps == {"off": "skipped", "used": "completed", "lost": "skipped"}


async def test_a_component_can_say_in_a_document_of_any_age_that_there_is_nothing_to_do(
    runtime: StepflowRuntime,
) -> None:
    newer = flow(step("s", "/here/skip"), step("after", "/noop", {"$step": "s"}), output={"$step": "after"})
    instead = {**newer, "output": {"$coalesce": [{"$step": "after"}, "passed over"]}}

    for document in (newer, {**newer, "outputSchema": {}}):
        assert await runtime.run(document, None) == FlowResult.skipped("nothing to do")
    assert value(await runtime.run(instead, None)) == "passed over"


async def test_an_outcome_has_a_reason_and_a_failure_data_only_if_there_are_any(runtime: StepflowRuntime) -> None:
    inner = flow(
        step("off", "/mock/off", "x"),
        output={"$if": {"$input": "fails"}, "then": {"$input": "nothing"}, "else": {"$step": "off"}},
    )
    mapped = one("/map", {"workflow": inner, "items": [{"fails": True}, {"fails": False}]})

    assert (await runtime.run(mapped, None)).output["results"] == [
        {"outcome": "failed", "error": {"code": 1, "message": "Input path $.nothing not found"}},
        {"outcome": "skipped"},
    ]


async def test_a_step_of_an_early_item_goes_before_those_of_later_ones_that_have_waited_longer(
    served: StepflowRuntime, parts: Parts
) -> None:
    def note(name: str, **after: Any) -> Json:
        return step(name, "/here/note", {"name": name, **after})

    document = flow(
        note("first"),
        note("last_of_the_early_item", after={"$step": "first"}),
        *(note(name) for name in ("second", "third", "fourth")),
        output={
            "$if": {"$input": "$"},
            "then": {"$step": "last_of_the_early_item"},
            "else": [{"$step": name} for name in ("second", "third", "fourth")],
        },
    )
    stored = await served.client.store_flow(document)
    assert stored.flow_id is not None

    await served.client.create_run(stored.flow_id, [True, False], max_concurrency=2)

    assert parts.called == ["first", "second", "last_of_the_early_item", "third", "fourth"]


# Blobs and built-in components


@pytest.mark.parametrize(
    ("component", "given", "why"),
    [
        ("/put_blob", {"blob_type": "data"}, "field 'data': it is missing"),
        ("/put_blob", {"data": None}, "field 'blob_type': it is missing"),
        ("/get_blob", {}, "field 'blob_id': it is missing"),
        *(
            (component, given | {name: blob_id}, f"field '{name}': '{blob_id}' is not a blob id")
            for component, name, given in (("/get_blob", "blob_id", {}), ("/eval", "flow_id", {"input": 1}))
            for blob_id in ("", "a" * 63, "a" * 65, "g" * 64, "a" * 63 + " ")
        ),
        ("/get_blob", {"blob_id": "a" * 64}, f"field 'blob_id': There is no blob {'a' * 64}"),
        ("/map", {"items": []}, "field 'workflow': it is missing"),
        ("/map", {"workflow": {}}, "field 'items': it is missing"),
        ("/iterate", {"initial_input": 1}, "field 'flow': it is missing"),
        ("/eval", {"input": 1}, "field 'flow_id': it is missing"),
        ("/load_file", {}, "field 'path': it is missing"),
        ("/openai", {}, "field 'messages': it is missing"),
    ],
)
async def test_a_built_in_component_says_what_it_lacks(
    runtime: StepflowRuntime, component: str, given: Json, why: str
) -> None:
    result = await runtime.run(one(component, given), None)

    assert result.error is not None
    assert result.error.code == 500
    assert result.error.message.startswith(f'step "s" failed: Invalid input for {component}: {why}')


INNER = {"output": {"result": {"$input": "$"}}}


@pytest.mark.parametrize(
    ("component", "given", "wrong"),
    [
        ("/create_messages", {"user_prompt": "Hi", "system_instructions": None}, {"userPrompt": "Hi"}),
        ("/put_blob", {"data": None, "blob_type": "data"}, {"data": 1, "blob_type": "text"}),
        ("/map", {"workflow": INNER, "items": [1], "max_concurrency": None}, {"flow": INNER, "items": [1]}),
        ("/iterate", {"flow": INNER, "initial_input": 1, "max_iterations": 3}, {"flow": INNER, "initialInput": 1}),
        ("/load_file", {"path": "c.json", "format": None}, {"path": "c.json", "format": "xml"}),
        ("/sleep", {"duration_ms": 0, "passthrough": [1]}, {"durationMs": 0}),
        ("/noop", [1], None),
    ],
)
async def test_what_is_listed_of_a_built_in_component_says_what_it_takes_and_gives(
    runtime: StepflowRuntime, component: str, given: Any, wrong: Any
) -> None:
    [listed] = [found for found in await runtime.list_components() if found.path == component]
    assert listed.input_schema is not None
    assert listed.output_schema is not None
    result = await runtime.run({**one(component, given), "output": [{"$step": "s"}]}, None)

    jsonschema.validate(given, listed.input_schema)
    jsonschema.validate(value(result)[0], listed.output_schema)
    if wrong is not None:
        assert not jsonschema.Draft202012Validator(listed.input_schema).is_valid(wrong)
        assert (await runtime.run(one(component, wrong), None)).is_failed


async def test_what_else_is_built_in_lists_what_it_needs(runtime: StepflowRuntime) -> None:
    found = {one.path: one for one in await runtime.list_components()}

    needed = {path: (found[path].input_schema or {})["required"] for path in ("/eval", "/get_blob", "/openai")}
    assert needed == {"/eval": ["flow_id", "input"], "/get_blob": ["blob_id"], "/openai": ["messages"]}
    given = {path: list((found[path].output_schema or {})["properties"]) for path in needed}
    assert given == {"/eval": ["result", "run_id"], "/get_blob": ["data"], "/openai": ["response"]}


async def test_null_is_a_value_that_can_be_kept(runtime: StepflowRuntime) -> None:
    document = flow(
        step("put", "/put_blob", {"data": None, "blob_type": "data"}),
        step("got", "/get_blob", {"blob_id": {"$step": "put", "path": "blob_id"}}),
        output={"$step": "got"},
    )

    assert await runtime.run(document, None) == FlowResult.success({"data": None})


def choices(*deltas: tuple[int, str | None]) -> Answer:
    """A completion of several choices, whose pieces come one after the other."""

    def chunk(index: int, content: str | None, finish_reason: str | None = None) -> bytes:
        choice = {"index": index, "delta": {"content": content}, "finish_reason": finish_reason}
        whole = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
        return f"data: {json.dumps(whole)}\n\n".encode()

    ends = [chunk(index, None, "stop") for index in sorted({index for index, _ in deltas}, reverse=True)]
    return Answer(raw=b"".join([*(chunk(*delta) for delta in deltas), *ends, b"data: [DONE]\n\n"]))


@pytest.mark.usefixtures("asker")
@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (choices((1, "the sec"), (0, "the "), (2, "the third"), (0, "first"), (1, "ond")), "the first"),
        (choices((0, None), (1, "the second")), ""),
        (choices((0, None)), ""),
    ],
)
async def test_of_several_choices_of_a_model_the_first_is_the_response_and_one_without_content_is_empty(
    answer: Answer, expected: str
) -> None:
    async with provider_server([answer]) as server:
        asking(server)
        assert await ask(api_key="k") == Success(expected)
