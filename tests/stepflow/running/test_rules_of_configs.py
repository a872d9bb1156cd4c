"""Rules of runs, blobs, built-in components, mocks, overrides and findings, as programs and commands see them:
sections 5 to 10 of the rules of flows, as far as no test beside this one shows them."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pyflue.agents.models import close_all
from pyflue.cli import main
from pyflue.stepflow import FlowResult, StepflowClientError, StepflowContext, StepflowRuntime, StepflowServer
from pyflue.stepflow.outcome import Success
from tests.provider_server import provider_server, say

from .test_openai import ask, asker, asking  # noqa: F401  (a fixture)

Json = dict[str, Any]


def step(id_: str, component: str, given: Any = None, **fields: Any) -> Json:
    return {"id": id_, "component": component, "input": given, **fields}


def flow(*steps: Json, output: Any, **fields: Any) -> Json:
    return {"name": "sample", "description": "A sample.", "steps": list(steps), "output": output, **fields}


def one(component: str, given: Any) -> Json:
    """A flow with one step, whose input is no expression."""
    return flow(step("s", component, {"$literal": given}), output={"$step": "s"})


class Meeting:
    """Components in this process that wait for one another."""

    def __init__(self) -> None:
        self.server = StepflowServer(include_builtins=False)
        self.server.component(self.meet, name="meet")
        self.server.component(self.turn, name="turn")
        self.server.component(self.submit, name="submit")
        self.size = 1
        self.now = self.most = self.calls = 0
        self._met: asyncio.Condition | None = None
        self._ended: list[int] = []

    async def meet(self, value: Any) -> Any:
        """Wait until so many are here as there may be, and so on with the next ones."""
        met = self._met = self._met or asyncio.Condition()
        self.now += 1
        self.most = max(self.most, self.now)
        number, self.calls = self.calls, self.calls + 1
        try:
            async with asyncio.timeout(10), met:
                met.notify_all()
                await met.wait_for(lambda: self.calls >= (number // self.size + 1) * self.size)
        finally:
            self.now -= 1
        return value

    async def turn(self, given: Json) -> Any:
        """End after all that have a higher number."""
        met = self._met = self._met or asyncio.Condition()
        async with asyncio.timeout(10), met:
            await met.wait_for(lambda: len(self._ended) == given["of"] - 1 - given["number"])
            self._ended.append(given["number"])
            met.notify_all()
        return given["number"]

    async def submit(self, inputs: list[Any], context: StepflowContext) -> Any:
        """A batch that says nothing of how many may go on at once."""
        return await context.evaluate_run(MEET, inputs)


MEET = flow(step("m", "/here/meet", {"$input": "$"}), output={"$step": "m"})


@pytest.fixture
def meeting() -> Meeting:
    return Meeting()


@pytest.fixture
async def runtime(meeting: Meeting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StepflowRuntime]:
    monkeypatch.chdir(tmp_path)
    async with await StepflowRuntime.start_async(port=0, servers={"here": meeting.server}) as started:
        yield started


# How much goes on at once


@pytest.mark.parametrize(("given", "most"), [(None, 10), (1, 1), (4, 4), (20, 20)])
async def test_a_run_does_ten_steps_at_once_over_all_its_items_or_as_many_as_are_asked_for(
    runtime: StepflowRuntime, meeting: Meeting, given: int | None, most: int
) -> None:
    meeting.size = most
    stored = await runtime.client.store_flow(MEET)
    assert stored.flow_id is not None

    started = await runtime.client.create_run(stored.flow_id, list(range(20)), max_concurrency=given)

    assert started.status == "completed"
    assert meeting.most == most


@pytest.mark.parametrize("kind", ["map", "submitted"])
async def test_the_items_of_a_map_or_of_a_batch_of_a_component_all_go_on_at_once(
    runtime: StepflowRuntime, meeting: Meeting, kind: str
) -> None:
    meeting.size = 25
    items = list(range(25))
    mapped = one("/map", {"workflow": MEET, "items": items})

    result = await runtime.run(mapped if kind == "map" else one("/here/submit", items), None)

    values = [found["result"] for found in result.output["results"]] if kind == "map" else result.output["value"]
    assert (values, meeting.most) == (items, 25)


async def test_results_are_in_the_order_of_their_inputs_whichever_is_ready_first(runtime: StepflowRuntime) -> None:
    turns = [{"number": number, "of": 8} for number in range(8)]
    inner = flow(step("t", "/here/turn", {"$input": "$"}), output={"$step": "t"})

    assert (await runtime.run(inner, turns)).output == {"value": list(range(8))}


COUNTING = """\
import asyncio
import os
from pathlib import Path

from pyflue.stepflow import StepflowStdioServer

server = StepflowStdioServer()
barrier = asyncio.Barrier(int(os.environ["MEET"]))
counted = {"now": 0, "most": 0}


@server.component
async def meet(value: int) -> int:
    counted["now"] += 1
    counted["most"] = max(counted["most"], counted["now"])
    Path("most").write_text(str(counted["most"]))
    async with asyncio.timeout(10):
        await barrier.wait()
    counted["now"] -= 1
    return value


server.run()
"""


def cli(*arguments: str) -> Result:
    result = CliRunner().invoke(main, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.mark.parametrize("is_project", [False, True])
@pytest.mark.parametrize(("options", "most"), [([], 10), (["--max-concurrent", "4"], 4)])
def test_flow_run_does_as_many_steps_at_once_as_it_is_told_with_a_project_and_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], most: int, is_project: bool
) -> None:
    if is_project:
        (tmp_path / "pyflue.toml").touch()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "counting.py").write_text(COUNTING)
    entry = {"type": "stepflow", "transport": "stdio", "command": sys.executable, "args": ["counting.py"]}
    config = {
        "plugins": {"here": {**entry, "env": {"MEET": str(most)}}},
        "routes": {"/here": [{"plugin": "here"}]},
    }
    (tmp_path / "stepflow-config.yml").write_text(json.dumps(config))
    (tmp_path / "meet.json").write_text(json.dumps(MEET))
    (tmp_path / "inputs.jsonl").write_text("".join(f"{number}\n" for number in range(20)))

    answer = cli("flow", "run", "meet.json", "--inputs", "inputs.jsonl", *options)

    assert answer.exit_code == 0, answer.stderr
    assert [json.loads(line)["result"] for line in answer.stdout.splitlines()] == list(range(20))
    assert (tmp_path / "most").read_text() == str(most)


# Blobs

BLOBS = """\
from pyflue.stepflow import StepflowContext, StepflowStdioServer

server = StepflowStdioServer()


@server.component
async def put(value: dict, context: StepflowContext) -> str:
    return await context.put_blob(value)


@server.component
async def get(blob_id: str, context: StepflowContext) -> dict:
    return await context.get_blob(blob_id)


@server.component
async def keep(value: dict, context: StepflowContext) -> str:
    return await context.put_blob(value, "flow")


server.run()
"""
VALUE = {"b": 1.0, "a": [1e16, 1e-7, 2, "ü\u2028"], "nested": {"z": None, "y": True}}
TEXT = '{"b":1.0,"a":[1e16,1e-7,2,"ü\u2028"],"nested":{"z":null,"y":true}}'


@pytest.fixture
async def blobs(tmp_path: Path) -> AsyncIterator[StepflowRuntime]:
    (tmp_path / "blobs.py").write_text(BLOBS)
    entry = {"type": "stepflow", "transport": "stdio", "command": "python", "args": ["blobs.py"]}
    config = {
        "plugins": {"mine": entry, "builtin": {"type": "builtin"}},
        "routes": {"/mine": [{"plugin": "mine"}], "/{*component}": [{"plugin": "builtin"}]},
    }
    (tmp_path / "c.yml").write_text(json.dumps(config))
    async with await StepflowRuntime.start_async(tmp_path / "c.yml", port=0) as started:
        yield started


async def test_a_blob_has_the_same_id_whoever_puts_it_and_is_there_for_all(blobs: StepflowRuntime) -> None:
    document = flow(
        step("mine", "/mine/put", {"$input": "$"}),
        step("built_in", "/put_blob", {"data": {"$input": "$"}, "blob_type": "data"}),
        step("got_mine", "/get_blob", {"blob_id": {"$step": "mine"}}),
        step("got_built_in", "/mine/get", {"$step": "built_in", "path": "blob_id"}),
        output=[{"$step": "mine"}, {"$step": "built_in"}, {"$step": "got_mine"}, {"$step": "got_built_in"}],
    )

    result = await blobs.run(document, VALUE)

    blob_id = hashlib.sha256(TEXT.encode()).hexdigest()
    assert result.output == {"value": [blob_id, {"blob_id": blob_id}, {"data": VALUE}, VALUE]}


@pytest.mark.parametrize("component", ["/mine/keep", "/put_blob"])
async def test_a_flow_that_a_component_keeps_can_be_run_by_its_id(blobs: StepflowRuntime, component: str) -> None:
    kept = {"name": "kept", "output": {"got": {"$input": "$"}}}
    given = kept if component == "/mine/keep" else {"data": kept, "blob_type": "flow"}
    stored = (await blobs.run(one(component, given), None)).output
    blob_id = stored["value" if component == "/mine/keep" else "blob_id"]

    evaluated = await blobs.run(one("/eval", {"flow_id": blob_id, "input": 5}), None)
    started = await blobs.client.create_run(blob_id, 6)
    found = await blobs.client.get_flow(blob_id)

    assert evaluated.output["result"] == {"outcome": "success", "result": {"got": 5}}
    assert started.outcome == Success({"got": 6})
    assert found.flow["name"] == "kept"


@pytest.mark.parametrize(
    ("component", "given"), [("/mine/keep", {"steps": 5}), ("/put_blob", {"data": {"steps": 5}, "blob_type": "flow"})]
)
async def test_what_is_no_flow_cannot_be_kept_as_one(blobs: StepflowRuntime, component: str, given: Any) -> None:
    result = await blobs.run(one(component, given), None)
    assert result.error is not None
    assert result.error.code == 500
    assert "`steps` must be a list" in result.error.message


async def test_a_blob_that_is_no_flow_is_not_taken_for_one(runtime: StepflowRuntime) -> None:
    stored = await runtime.run(one("/put_blob", {"data": {"steps": 5}, "blob_type": "data"}), None)
    blob_id = stored.output["blob_id"]

    evaluated = await runtime.run(one("/eval", {"flow_id": blob_id, "input": 1}), None)
    with pytest.raises(StepflowClientError) as looked_at:
        await runtime.client.get_flow(blob_id)
    with pytest.raises(StepflowClientError) as started:
        await runtime.client.create_run(blob_id, 1)
    with pytest.raises(StepflowClientError) as unknown:
        await runtime.client.get_flow("0" * 64)

    assert evaluated.error is not None
    assert evaluated.error.code == 500
    assert "`steps` must be a list" in evaluated.error.message
    assert [error.value.status_code for error in (looked_at, started, unknown)] == [400, 400, 404]


# Built-in components


async def test_iterate_looks_at_the_result_first_and_goes_a_thousand_rounds_at_most(runtime: StepflowRuntime) -> None:
    both = {"output": {"result": "done", "next": "more"}}
    endless = {"output": {"next": {"$input": "$"}}}
    nothing = {"output": {"result": None}}
    outputs = [
        (await runtime.run(one("/iterate", {"flow": inner, "initial_input": 7}), None)).output
        for inner in (both, endless, nothing)
    ]
    assert outputs == [
        {"result": "done", "iterations": 1, "terminated": False},
        {"result": 7, "iterations": 1000, "terminated": True},
        {"result": None, "iterations": 1, "terminated": False},
    ]


async def test_iterate_may_be_given_no_round_at_all_and_not_less(runtime: StepflowRuntime) -> None:
    endless = {"flow": {"output": {"next": 1}}, "initial_input": "as it was"}
    none = await runtime.run(one("/iterate", {**endless, "max_iterations": 0}), None)
    less = await runtime.run(one("/iterate", {**endless, "max_iterations": -1}), None)
    assert none.output == {"result": "as it was", "iterations": 0, "terminated": True}
    assert less.error is not None
    assert "field 'max_iterations': it is a number of rounds, 0 or more" in less.error.message


async def test_an_inner_flow_that_is_skipped_is_an_outcome_and_neither_a_success_nor_a_failure(
    runtime: StepflowRuntime,
) -> None:
    older = {"steps": [{**step("o", "/noop"), "skipIf": True}], "output": {"$from": {"step": "o"}}}
    mapped = await runtime.run(one("/map", {"workflow": older, "items": [1]}), None)
    rounds = flow(
        step("r", "/iterate", {"$literal": {"flow": older, "initial_input": 1}}),
        output={"$coalesce": [{"$step": "r"}, "passed over"]},
    )
    [outcome] = mapped.output["results"]
    assert outcome["outcome"] == "skipped"
    assert (mapped.output["successful"], mapped.output["failed"]) == (0, 0)
    assert (await runtime.run(rounds, None)).output == {"value": "passed over"}


async def test_an_inner_flow_that_is_not_protected_is_evaluated_by_the_outer_one(runtime: StepflowRuntime) -> None:
    inner = {"output": {"$input": "n"}}
    items = [{"n": 1}, {"n": 2}]

    async def mapped(workflow: Any) -> list[Any]:
        document = flow(step("m", "/map", {"workflow": workflow, "items": items}), output={"$step": "m"})
        result = await runtime.run(document, {"n": "of the outer flow"})
        return [found["result"] for found in result.output["results"]]

    assert await mapped({"$literal": inner}) == [1, 2]
    assert await mapped(inner) == ["of the outer flow"] * 2


@pytest.mark.parametrize(
    ("component", "given", "why"),
    [
        ("/map", {"workflow": {"output": 1}, "items": {}}, "field 'items': it has to be a list, and is an object"),
        ("/map", {"workflow": {"steps": 1}, "items": []}, "field 'workflow': it is not a flow"),
        ("/map", {"workflow": {}, "items": [1], "max_concurrency": 0}, "field 'max_concurrency'"),
        ("/iterate", {"flow": [], "initial_input": 1}, "field 'flow': it has to be an object, and is a list"),
        ("/iterate", {"flow": {}}, "field 'initial_input': it is missing"),
        ("/eval", {"flow_id": "abc", "input": 1}, "field 'flow_id'"),
        ("/eval", {"flow_id": "0" * 64}, "field 'input': it is missing"),
        ("/sleep", {"duration_ms": -1}, "field 'duration_ms'"),
        ("/sleep", {}, "field 'duration_ms': it is missing"),
        ("/load_file", {"path": "none.txt"}, "field 'path': 'none.txt' cannot be read: No such file or directory"),
    ],
)
async def test_a_built_in_component_says_which_field_is_wrong(
    runtime: StepflowRuntime, component: str, given: Any, why: str
) -> None:
    result = await runtime.run(one(component, given), None)

    assert result.error is not None
    assert result.error.code == 500
    assert result.error.message.startswith(f'step "s" failed: Invalid input for {component}: ')
    assert why in result.error.message
    assert result.error.details is not None
    stack = result.error.details["stack"]
    assert stack[0] == {
        "error": 'step "s" failed',
        "attachments": [f"Component: {component}", "Component execution failed for step 's'"],
    }


async def test_sleep_has_nothing_to_pass_through_unless_it_is_given_something(runtime: StepflowRuntime) -> None:
    assert (await runtime.run(one("/sleep", {"duration_ms": 0}), None)).output == {"duration_ms": 0}


async def test_files_are_looked_for_in_the_working_directory_of_the_config(tmp_path: Path) -> None:
    files = tmp_path / "config" / "files"
    files.mkdir(parents=True)
    contents = {"a.json": "[1]", "b.yml": "- 1", "c.yaml": "- 1", "d.md": "[1]", "e.JSON": "[1]"}
    for name, text in contents.items():
        (files / name).write_text(text)
    config = {
        "workingDirectory": "files",
        "plugins": {"builtin": {"type": "builtin"}},
        "routes": {"/{*component}": {"plugin": "builtin"}},
    }
    (tmp_path / "config" / "c.yml").write_text(json.dumps(config))
    inner = flow(step("l", "/load_file", {"path": {"$input": "$"}}), output={"$step": "l"})

    async with await StepflowRuntime.start_async(tmp_path / "config" / "c.yml") as runtime:
        result = await runtime.run(inner, list(contents))

    kinds = {"a.json": "json", "b.yml": "yaml", "c.yaml": "yaml", "d.md": "text", "e.JSON": "json"}
    assert result.output == {
        "value": [
            {
                "data": contents[name] if kind == "text" else [1],
                "metadata": {"resolved_path": str(files / name), "size_bytes": 3, "format": kind},
            }
            for name, kind in kinds.items()
        ]
    }


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.json", b'{"a": }', "the file cannot be read as json: "),
        ("a.yaml", b"a: [1", "the file cannot be read as yaml: "),
        ("a.txt", b"\xff", "the file cannot be read as text: it is not UTF-8."),
        ("large.txt", b"x" * (16 * 1024**2 + 1), "'large.txt' cannot be read: it is larger than 16,777,216 bytes."),
    ],
)
async def test_a_file_that_is_not_what_it_is_read_as_fails_the_step(
    runtime: StepflowRuntime, tmp_path: Path, name: str, content: bytes, why: str
) -> None:
    (tmp_path / name).write_bytes(content)
    result = await runtime.run(one("/load_file", {"path": name}), None)
    assert result.error is not None
    assert result.error.code == 500
    assert why in result.error.message


@pytest.mark.usefixtures("asker")
async def test_the_key_of_the_model_comes_from_the_environment_unless_the_step_has_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-environment")
    async with provider_server([say("one"), say("two")]) as server:
        asking(server)
        await ask()
        await ask(api_key="sk-of-the-step")
        await close_all()
        keys = [request.headers["authorization"] for request in server.requests]
    assert keys == ["Bearer sk-of-the-environment", "Bearer sk-of-the-step"]


# Mocks

MOCKS = """
plugins:
  builtin: {type: builtin}
  mock:
    type: mock
    components:
      /look:
        behaviors:
          {n: 1}: {outcome: success, result: fine}
          {n: 2}: {outcome: failed, error: {code: 8, message: too many, data: {most: 1}}}
          {n: 3}: {error: it broke}
routes:
  "/mock/{*component}": [{plugin: mock}]
  "/{*component}": [{plugin: builtin}]
"""
LOOK = flow(step("s", "/mock/look", {"$input": "$"}), output={"$step": "s"})
TOO_MANY = {"code": 8, "message": "too many", "data": {"most": 1}}


#: The same as JSON, where the keys of a mapping are texts.
MOCKS_AS_JSON: Json = {
    "plugins": {
        "builtin": {"type": "builtin"},
        "mock": {
            "type": "mock",
            "components": {
                "/look": {
                    "behaviors": {
                        '{"n": 1}': {"outcome": "success", "result": "fine"},
                        '{"n": 2}': {"outcome": "failed", "error": TOO_MANY},
                        '{"n": 3}': {"error": "it broke"},
                    }
                }
            },
        },
    },
    "routes": {"/mock/{*component}": [{"plugin": "mock"}], "/{*component}": [{"plugin": "builtin"}]},
}


@pytest.fixture(params=["yaml", "json"])
async def mocked(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[StepflowRuntime]:
    path = tmp_path / f"config.{request.param}"
    path.write_text(MOCKS if request.param == "yaml" else json.dumps(MOCKS_AS_JSON))
    async with await StepflowRuntime.start_async(path) as started:
        yield started


async def test_a_failure_of_a_mock_has_the_code_that_was_written_wherever_it_comes_out(mocked: StepflowRuntime) -> None:
    alone = await mocked.run(LOOK, {"n": 2})
    assert alone == FlowResult.failed(8, "too many", {"most": 1})
    repeated = await mocked.run(one("/iterate", {"flow": LOOK, "initial_input": {"n": 2}}), None)
    assert repeated == alone
    listed = await mocked.run(one("/map", {"workflow": LOOK, "items": [{"n": 1}, {"n": 2}]}), None)
    assert listed.output == {
        "results": [{"outcome": "success", "result": "fine"}, {"outcome": "failed", "error": TOO_MANY}],
        "successful": 1,
        "failed": 1,
    }


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"n": 3}, "it broke"),
        ({"n": 1, "m": [None, "ä"]}, 'No behavior defined for /look on {"n":1,"m":[null,"ä"]}'),
        ({"n": 1.0}, 'No behavior defined for /look on {"n":1.0}'),
    ],
)
async def test_a_mock_that_breaks_or_knows_no_answer_fails_its_step_as_any_component(
    mocked: StepflowRuntime, given: Any, problem: str
) -> None:
    result = await mocked.run(LOOK, given)
    stack = [
        {
            "error": 'step "s" failed',
            "attachments": ["Component: /look", "Component execution failed for step 's'"],
        },
        {"error": problem, "attachments": ["error executing user-defined function", problem]},
    ]
    assert result == FlowResult.failed(500, f'step "s" failed: {problem}', {"stack": stack})


async def test_a_mock_does_not_have_other_components(mocked: StepflowRuntime) -> None:
    result = await mocked.run(one("/mock/other", 1), None)
    assert result.error is not None
    assert (result.error.code, result.error.message) == (
        500,
        "step \"s\" failed: Mock 'mock' has no component '/other'.",
    )


# Overrides

CHANGED = flow(
    step("a", "/noop", {"n": 1, "m": 2}, onError={"action": "useDefault", "defaultValue": "default"}),
    step("unseen", "/put_blob", {"data": 1, "blob_type": "data"}),
    output={"$step": "a"},
)


@pytest.mark.parametrize(
    ("patch", "expected"),
    [
        ({"input": {"n": None}}, FlowResult.success({"m": 2})),
        ({"input": {"n": {"$input": "$"}}}, FlowResult.success({"n": 5, "m": 2})),
        ({"input": "whole"}, FlowResult.success({"value": "whole"})),
        ({"component": "/load_file", "input": {"path": "none"}}, FlowResult.success({"value": "default"})),
        (
            {"component": "/create_messages", "input": {"n": None, "m": None, "user_prompt": "Hi"}},
            FlowResult.success({"messages": [{"role": "user", "content": "Hi"}]}),
        ),
        ({"id": "other"}, FlowResult.failed(404, "Unknown step: a")),
    ],
)
async def test_every_field_of_a_step_can_be_changed_for_a_run(
    runtime: StepflowRuntime, patch: Mapping[str, Any], expected: FlowResult
) -> None:
    assert await runtime.run(CHANGED, 5, {"a": {"value": patch}}) == expected
    assert await runtime.run(CHANGED, 5, {"steps": {"a": {"$type": "merge_patch", "value": patch}}}) == expected
    assert await runtime.run(CHANGED, 5) == FlowResult.success({"n": 1, "m": 2})


async def test_a_step_that_has_lost_its_default_by_an_override_fails(runtime: StepflowRuntime) -> None:
    patch = {"component": "/get_blob", "input": {"blob_id": "0" * 64}, "onError": None}
    result = await runtime.run(CHANGED, 5, {"a": {"value": patch}})
    assert result.error is not None
    assert result.error.message.startswith('step "a" failed: ')


async def test_a_step_that_nobody_needs_runs_if_an_override_says_that_it_must(runtime: StepflowRuntime) -> None:
    stored = await runtime.client.store_flow(CHANGED)
    assert stored.flow_id is not None
    seen: list[list[str]] = []
    for overrides in (None, {"unseen": {"value": {"mustExecute": True}}}):
        started = await runtime.client.create_run(stored.flow_id, 5, overrides=overrides)
        steps = await runtime.client.get_run_steps(started.run_id)
        seen.append([name for name, one in steps.items() if one.status == "completed"])
    assert seen == [["a"], ["a", "unseen"]]


async def test_nothing_runs_if_one_of_several_overrides_names_no_step(
    runtime: StepflowRuntime, meeting: Meeting
) -> None:
    overrides = {"m": {"value": {"input": 1}}, "nowhere": {"value": {}}}
    assert await runtime.run(MEET, [1, 2], overrides) == FlowResult.failed(400, "Step 'nowhere' not found in workflow")
    assert meeting.calls == 0


# Findings

DECLARED = {"properties": {"variables": {"type": "object", "properties": {"v": {"type": "string"}}}}}
SUBFLOW = {"schema": "https://stepflow.org/schemas/v1/flow.json", "steps": 5}
FAULTS: list[tuple[Json, list[tuple[str, int]]]] = [
    (flow(output=1, name=None), [("warning", 1001)]),
    (flow(output=1, description=None), [("warning", 1002)]),
    (flow(output={"$variable": "v"}), [("warning", 1004)]),
    (flow(step("a", "/noop"), output=1), [("warning", 1000)]),
    (flow(output=1, outptu=2), [("warning", 1900)]),
    (flow(output={"$input": "x", "path": "y"}), [("warning", 1901)]),
    (flow(output={"$inptu": "x"}), [("warning", 1902)]),
    (flow(step("a", "/noop", {"$literal": SUBFLOW}), output={"$step": "a"}), [("error", 2003)]),
    (flow(output={"$variable": "w", "default": 1}, schemas=DECLARED), [("error", 2004)]),
    (flow(output={"$variable": "w"}, schemas=DECLARED), [("error", 2005)]),
    (flow(step("a", "noop"), output={"$step": "a"}), [("error", 2500)]),
    (flow(step("a", "/noop"), step("a", "/noop"), output={"$step": "a"}), [("fatal", 3000)]),
    (flow(step("", "/noop", mustExecute=True), output=1), [("fatal", 3001)]),
    (flow(step("a", "/noop", {"$step": "a"}), output={"$step": "a"}), [("fatal", 3002)]),
    (flow(output={"$step": "a"}), [("fatal", 3003)]),
    (flow(output={"$input": "x"}), []),  # a path that cannot be checked is not shown
]


@pytest.mark.parametrize(("document", "found"), FAULTS)
async def test_what_is_found_says_whether_a_flow_is_run_here_and_kept_there(
    runtime: StepflowRuntime, tmp_path: Path, document: Json, found: list[tuple[str, int]]
) -> None:
    (tmp_path / "flow.json").write_text(json.dumps(document))
    levels = {level for level, _ in found}

    validated = await asyncio.to_thread(cli, "flow", "validate", "flow.json", "--json")
    told = json.loads(validated.stdout)["diagnostics"]
    ran = await asyncio.to_thread(cli, "flow", "run", "flow.json", "--input-json", '{"x": 1}')
    stored = await runtime.client.store_flow(document)

    # A step that is wrong may be one that nobody refers to, besides.
    assert set(found) <= {(one["level"], one["code"]) for one in told}
    assert {one["level"] for one in told if one["level"] != "warning"} == levels - {"warning"}
    assert bool(ran.stdout) is not bool(levels & {"fatal", "error"})
    assert (stored.flow_id is None) is ("fatal" in levels)
    counted = stored.diagnostics
    assert (bool(counted["numFatal"]), bool(counted["numError"])) == ("fatal" in levels, "error" in levels)


@pytest.mark.parametrize(
    ("config", "codes"),
    [
        ({}, [1200, 1201]),
        ({"plugins": {"a": {"type": "builtin"}}}, [1201]),
        ({"plugins": {"a": {"type": "builtin"}, "b": {"type": "builtin"}}, "routes": {"/x": {"plugin": "a"}}}, [1202]),
        ({"plugins": {"a": {"type": "builtin"}}, "routes": {"/x": {"plugin": "a"}}}, []),
    ],
)
def test_what_a_config_lacks_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Json, codes: list[int]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flow.json").write_text(json.dumps(flow(output=1)))
    (tmp_path / "c.yml").write_text(json.dumps(config))

    answer = cli("flow", "validate", "flow.json", "--config", "c.yml", "--json")

    told = json.loads(answer.stdout)["diagnostics"]
    assert (answer.exit_code, [(one["level"], one["code"]) for one in told]) == (
        0,
        [("warning", code) for code in codes],
    )


# Commands


async def test_submitting_a_batch_with_a_failed_item_ends_with_exit_code_1(
    runtime: StepflowRuntime, tmp_path: Path
) -> None:
    (tmp_path / "flow.json").write_text(json.dumps(flow(output={"$input": "x"})))
    (tmp_path / "inputs.jsonl").write_text('{"x": 1}\n{}\n')

    answer = await asyncio.to_thread(
        cli, "flow", "submit", "flow.json", "--inputs", "inputs.jsonl", "--url", runtime.url
    )

    assert answer.exit_code == 1
    assert [json.loads(line)["outcome"] for line in answer.stdout.splitlines()] == ["success", "failed"]


@pytest.mark.parametrize("name", ["stepflow-config.yml", "stepflow-config.yaml", "stepflow_config.yml"])
@pytest.mark.parametrize("place", ["beside", "current"])
def test_a_config_is_found_by_each_of_its_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "look.json").write_text(json.dumps(LOOK))
    (tmp_path / ("flows" if place == "beside" else ".") / name).write_text(MOCKS)

    answer = cli("flow", "run", "flows/look.json", "--input-json", '{"n": 1}')

    assert json.loads(answer.stdout) == {"outcome": "success", "result": "fine"}
