"""Rules of runs: which runs there are, what belongs to which, and that a version of a flow is compiled once."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import httpx2
import jsonschema
import pytest

from pyflue.errors import PayloadInvalid
from pyflue.stepflow import StepflowRuntime
from pyflue.stepflow.app import create_app
from pyflue.stepflow.config import read_config
from pyflue.stepflow.document import flow_id, read_flow
from pyflue.stepflow.environments import environment_for
from pyflue.stepflow.memory_runs import MemoryBackend
from tests.engine.durable import ended, result_of
from tests.server.harness import client_of, in_process
from tests.stepflow.api.serving import Described
from tests.stepflow.plugins.doubles import SERVERS
from tests.support import journal_at, submission

from .flows import Functions
from .projects import catalog_of, flows_on, write
from .test_scheduler import step

API = "/api/v1"
INNER = {
    "name": "inner",
    "steps": [step("twice", "/parts/twice", input={"$input": "n"})],
    "output": {"$step": "twice"},
}
ROUND = {"steps": [], "output": {"result": {"$input": "n"}}}
#: Runs flows in each of the ways that there are.
OUTER = {
    "name": "outer",
    "steps": [
        step("each", "/map", input={"workflow": {"$literal": INNER}, "items": [{"n": 1}, {"n": 2}]}),
        step("rounds", "/iterate", input={"flow": {"$literal": ROUND}, "initial_input": {"n": 3}}),
        step("kept", "/put_blob", input={"data": {"$literal": INNER}, "blob_type": "flow"}),
        step("evaluated", "/eval", input={"flow_id": {"$step": "kept", "path": "blob_id"}, "input": {"n": 4}}),
        step("asked", "/parts/ask", input={"$literal": INNER}),
    ],
    "output": [
        {"$step": "each", "path": "successful"},
        {"$step": "rounds", "path": "result"},
        {"$step": "evaluated", "path": "result.result"},
        {"$step": "asked", "path": "values"},
    ],
}
PARTS = """
import asyncio
from typing import Any

from pyflue.stepflow import StepflowContext, StepflowServer

server = StepflowServer(include_builtins=False)


@server.component
def twice(n: int) -> int:
    return 2 * n


@server.component
async def ask(flow: Any, context: StepflowContext) -> Any:
    submitted = await context.submit_run(flow, [{"n": 5}, {"n": 6}])
    status = await context.get_run(submitted.run_id, wait=True, include_results=True)
    return {"run_id": submitted.run_id, "values": [item.result.result for item in status.results]}


@server.component
async def who(given: Any, context: StepflowContext) -> Any:
    return context.run_id


@server.component
async def hold(given: Any) -> Any:
    await asyncio.Event().wait()
"""
CONFIG = """
plugins: {builtin: {type: builtin}, parts: {type: python, server: "parts_of_runs:server"}}
routes:
  "/parts": {plugin: parts}
  "/{*component}": {plugin: builtin}
"""


@pytest.fixture(params=["project", "memory"])
async def client(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the API: of a project, and of a server without one. Both have the components of `PARTS`."""
    monkeypatch.delenv("PYFLUE_TOKEN", raising=False)
    (tmp_path / "parts_of_runs.py").write_text(PARTS)
    (tmp_path / "stepflow-config.yml").write_text(CONFIG)
    (tmp_path / "src" / "workflows").mkdir(parents=True)
    async with contextlib.AsyncExitStack() as stack:
        if request.param == "project":
            app = (await stack.enter_async_context(in_process(tmp_path))).app
        else:
            backend = MemoryBackend(
                environment_for(read_config(tmp_path / "stepflow-config.yml")), limit_bytes=1_000_000
            )
            stack.push_async_callback(backend.close)
            app = create_app(backend)
        client = await stack.enter_async_context(client_of(app, "http://localhost/"))
        client.event_hooks["response"].append(Described().check)
        yield client


async def got(client: httpx2.AsyncClient, path: str, **query: Any) -> Any:
    answer = await client.get(API + path, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def run(client: httpx2.AsyncClient, flow: Any, *inputs: Any, **fields: Any) -> Any:
    stored = await client.post(f"{API}/flows", json={"flow": flow})
    body = {"flowId": stored.json()["flowId"], "input": list(inputs), **fields}
    answer = await client.post(f"{API}/runs", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_flows_in_a_run_are_parts_of_it_and_the_run_is_its_own_root(client: httpx2.AsyncClient) -> None:
    ran = await run(client, OUTER, None)
    other = (await run(client, ROUND, {"n": 1}))["runId"]

    async def listed(**query: Any) -> list[str]:
        return [one["runId"] for one in (await got(client, "/runs", **query))["runs"]]

    assert ran["result"] == {"outcome": "success", "result": [2, 3, 8, [10, 12]]}
    run_id = ran["runId"]
    assert await listed() == [other, run_id]
    steps = (await got(client, f"/runs/{run_id}/steps"))["steps"]
    assert list(steps) == ["each", "rounds", "kept", "evaluated", "asked"]
    shown = await got(client, f"/runs/{run_id}")
    assert (shown["rootRunId"], "parentRunId" in shown, shown["flowLabel"]) == (run_id, False, None)
    for depth in ({}, {"maxDepth": 0}, {"maxDepth": 5}):
        assert await listed(rootRunId=run_id, **depth) == [run_id]
        assert await listed(parentRunId=run_id, **depth) == []
    assert await listed(maxDepth=0) == [other, run_id]
    assert await listed(rootRunId=run_id, flowName="inner") == []
    assert await listed(rootRunId=run_id, status="failed") == []
    assert await listed(rootRunId=run_id, offset=1) == []
    assert await listed(rootRunId="018f0000-0000-7000-8000-000000000000") == []
    assert await listed(flowLabel="production") == []


async def test_nothing_is_ever_paused(client: httpx2.AsyncClient) -> None:
    ran = await run(client, ROUND, {"n": 1})

    assert ran["status"] == "completed"
    assert (await got(client, "/runs", status="paused")) == {"runs": []}
    assert [one["runId"] for one in (await got(client, "/runs", status="completed"))["runs"]] == [ran["runId"]]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"rootRunId": "x"}, "Invalid run ID format: a run id is a UUID."),
        ({"parentRunId": "x"}, "Invalid run ID format: a run id is a UUID."),
        ({"maxDepth": "-1"}, "The query parameter `maxDepth` has to be a whole number, 0 or more."),
    ],
)
async def test_what_cannot_be_looked_for_is_refused(
    client: httpx2.AsyncClient, query: dict[str, str], message: str
) -> None:
    answer = await client.get(f"{API}/runs", params=query)

    assert (answer.status_code, answer.json()) == (400, {"code": 400, "message": message})


async def test_a_run_whose_steps_wait_for_one_another_has_failed_with_all_its_items(client: httpx2.AsyncClient) -> None:
    flow = {"steps": [step("a", "/noop", input=1), step("b", "/noop", input={"$step": "a"})], "output": {"$step": "b"}}
    # Such a document is not taken, so the circle comes as an override.
    circle = {"a": {"value": {"input": {"$if": {"$input": "$"}, "then": {"$step": "b"}, "else": 1}}}}
    told = {"code": 500, "message": "The flow cannot go on: steps 'a', 'b' wait for one another."}
    failed = {"outcome": "failed", "error": told}

    one = await run(client, flow, True, overrides=circle)
    several = await run(client, flow, True, True, overrides=circle)

    assert (one["status"], one["result"]) == ("failed", failed)
    assert (await got(client, f"/runs/{one['runId']}/steps")) == {"steps": {}}
    assert (await got(client, f"/runs/{several['runId']}/items"))["items"] == [
        {"itemIndex": index, "status": "failed", "result": failed} for index in range(2)
    ]
    assert (await run(client, flow, False, overrides=circle))["result"] == {"outcome": "success", "result": 1}


async def test_a_flow_that_was_skipped_is_a_run_that_has_completed(client: httpx2.AsyncClient) -> None:
    older = {"steps": [step("a", "/noop", input=1, skipIf={"$input": "off"})], "output": {"$step": "a"}}
    skipped = {"outcome": "skipped", "reason": "skipIf"}

    ran = await run(client, older, {"off": True}, {"off": False})
    one = await run(client, older, {"off": True})

    assert (one["status"], one["result"], ran["status"]) == ("completed", skipped, "completed")
    assert (await got(client, f"/runs/{ran['runId']}/items"))["items"] == [
        {"itemIndex": 0, "status": "completed", "result": skipped},
        {"itemIndex": 1, "status": "completed", "result": {"outcome": "success", "result": 1}},
    ]
    assert (await got(client, f"/runs/{one['runId']}/steps"))["steps"]["a"] == {
        "stepIndex": 0,
        "stepId": "a",
        "component": "/noop",
        "status": "skipped",
        "result": skipped,
    }


async def test_of_a_run_on_its_way_the_steps_that_are_over_are_shown(client: httpx2.AsyncClient) -> None:
    first, bad = step("first", "/noop", input=1), step("bad", "/get_blob", input={"blob_id": "short"})
    held = step("held", "/parts/hold", input=[{"$step": "first"}, {"$if": {"$step": "bad"}, "then": 1}])
    later = step("later", "/noop", input={"$step": "held"})
    flow = {"steps": [first, bad, held, later], "output": {"$step": "later"}}
    run_id = (await run(client, flow, None, wait=False))["runId"]
    expected = {"first": "completed", "bad": "failed"}

    shown: dict[str, str] = {}
    async with asyncio.timeout(5):
        while shown != expected:
            await got(client, f"/runs/{run_id}", wait="true", timeoutSecs=0.02)
            steps = (await got(client, f"/runs/{run_id}/steps"))["steps"]
            shown = {name: one["status"] for name, one in steps.items()}
    items = (await got(client, f"/runs/{run_id}/items"))["items"]
    cancelled = await client.post(f"{API}/runs/{run_id}/cancel")

    assert items == [{"itemIndex": 0, "status": "running"}]
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")


async def test_a_blob_is_a_flow_if_it_can_be_one_whatever_it_was_stored_as(client: httpx2.AsyncClient) -> None:
    put = {
        "steps": [
            step("flow", "/put_blob", input={"data": {"$literal": ROUND}, "blob_type": "data"}),
            step("list", "/put_blob", input={"data": [1, 2], "blob_type": "data"}),
            step("bad", "/put_blob", input={"data": {"steps": 1}, "blob_type": "data"}),
            step("eval", "/eval", input={"flow_id": {"$step": "list", "path": "blob_id"}, "input": 1}),
        ],
        "output": [{"$step": name, "path": "blob_id"} for name in ("flow", "list", "bad")]
        + [{"$if": {"$step": "eval"}, "then": "a flow", "else": "none"}],
    }
    flow, values, bad, evaluated = (await run(client, put, None))["result"]["result"]

    assert evaluated == "none"
    answer = await client.post(f"{API}/runs", json={"flowId": flow, "input": [{"n": 1}]})
    assert answer.json()["result"] == {"outcome": "success", "result": {"result": 1}}
    for flow_id_ in (values, bad):
        for refused in (
            await client.get(f"{API}/flows/{flow_id_}"),
            await client.post(f"{API}/runs", json={"flowId": flow_id_, "input": [1]}),
        ):
            assert (refused.status_code, refused.json()["code"]) == (400, 400)


async def test_fields_that_there_are_not_have_no_effect_and_are_told(client: httpx2.AsyncClient) -> None:
    flow = {
        "name": "f",
        "description": "f",
        "colour": "red",
        "steps": [step("a", "/get_blob", input={"blob_id": "x"}, on_error={"action": "useDefault"}, skip=True)],
        "output": {"$if": {"$step": "a"}, "then": "not reached", "else": "failed"},
    }

    stored = (await client.post(f"{API}/flows", json={"flow": flow})).json()
    ran = await run(client, flow, None)

    assert ran["result"] == {"outcome": "success", "result": "failed"}
    told = [(one["level"], one["message"].get("key")) for one in stored["diagnostics"]["diagnostics"]]
    assert told == [("warning", "colour"), ("warning", "on_error"), ("warning", "skip")]


# A version of a flow is compiled once


@contextlib.contextmanager
def compiled() -> Iterator[list[str]]:
    """The names of the flows that are compiled meanwhile, in this thread and in new ones; one for each time."""
    names: list[str] = []

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code is read_flow.__code__:
            names.append(frame.f_locals["value"].get("name", ""))

    before = sys.getprofile(), threading.getprofile()
    threading.setprofile(note)
    sys.setprofile(note)
    try:
        yield names
    finally:
        sys.setprofile(before[0])
        threading.setprofile(before[1])


async def test_a_stored_flow_is_not_compiled_again_for_its_runs(client: httpx2.AsyncClient) -> None:
    flow = {"name": "of one version", "steps": [step("t", "/parts/twice", input={"$input": "n"})]}
    flow["output"] = {"$step": "t"}
    with compiled() as first:
        assert (await run(client, flow, {"n": 1}))["result"]["result"] == 2
    with compiled() as later:
        for number in range(3):
            assert (await run(client, flow, {"n": number}))["result"]["result"] == 2 * number
        await run(client, flow, *({"n": number} for number in range(20)))
    with compiled() as changed:
        assert (await run(client, {**flow, "output": [{"$step": "t"}]}, {"n": 1}))["result"]["result"] == [2]

    assert set(first) == set(changed) == {"of one version"}
    assert later == []


async def test_inner_flows_are_compiled_once_for_all_their_items_and_stored_ones_once_for_all(
    client: httpx2.AsyncClient,
) -> None:
    rounds = {"name": "rounds", "steps": [], "output": {"next": {"$input": "$"}}}
    inner = {**INNER, "name": "kept"}
    flow_ = {
        "name": "outer",
        "steps": [
            step("each", "/map", input={"workflow": {"$literal": INNER}, "items": [{"n": n} for n in range(30)]}),
            step(
                "rounds",
                "/iterate",
                input={"flow": {"$literal": rounds}, "initial_input": 1, "max_iterations": 30},
            ),
            *(
                step(f"e{number}", "/eval", input={"flow_id": {"$input": "kept"}, "input": {"n": number}})
                for number in range(5)
            ),
        ],
        "output": [{"$step": "each", "path": "successful"}, {"$step": "rounds", "path": "terminated"}]
        + [{"$step": f"e{number}", "path": "$.result.result"} for number in range(5)],
    }
    kept = (await client.post(f"{API}/flows", json={"flow": inner})).json()["flowId"]
    await run(client, flow_, {"kept": kept})
    with compiled() as names:
        ran = await run(client, flow_, {"kept": kept})

    assert ran["result"] == {"outcome": "success", "result": [30, True, 0, 2, 4, 6, 8]}
    assert sorted(names) == ["inner", "rounds"]


async def test_a_flow_in_a_file_is_compiled_when_it_is_found_and_again_when_it_was_changed(tmp_path: Path) -> None:
    flow_ = {"name": "v1", "steps": [step("a", input={"$input": "n"})], "output": {"$step": "a"}}
    journal = journal_at(tmp_path)
    catalog = catalog_of(tmp_path, {"f": flow_})
    try:
        async with flows_on(journal, catalog, Functions()) as engine:

            async def result(given: int) -> Any:
                handle = await engine.submit(submission(catalog.find("f"), {"n": given}))
                return result_of(await ended(engine, handle.run_id))

            first = catalog.find("f")
            with compiled() as names:
                assert [await result(number) for number in range(3)] == [0, 1, 2]
                assert catalog.find("f") is first
            assert names == []
            write(tmp_path, "f", {**flow_, "name": "v2", "output": [{"$step": "a"}]})
            with compiled() as names:
                catalog.refresh()
                assert [await result(number) for number in range(3)] == [[0], [1], [2]]
            assert names == ["v2"]
            assert catalog.find("f").version != first.version
    finally:
        await journal.close()


def test_the_same_flow_in_any_form_is_the_same_version() -> None:
    written = {"schema": "flow/v1", "steps": {"a": {"component": "/x", "input": {"$input": "n"}}}}
    stored = {
        "schema": "https://stepflow.org/schemas/v1/flow.json",
        "steps": [{"id": "a", "component": "/x", "input": {"$input": "$.n"}}],
    }

    assert flow_id(read_flow(written)) == flow_id(read_flow(stored))


# Documents


NAME = {"type": "string", "minLength": 2}
PERSON = {"type": "object", "properties": {"name": {"$ref": "#/schemas/$defs/Name"}}, "required": ["name"]}


@pytest.mark.parametrize(
    ("input_schema", "fitting", "problem"),
    [
        ({"$ref": "#/schemas/$defs/Person"}, {"name": "Ada"}, ({"name": "A"}, "$.name", "'A' is too short")),
        ({"$ref": "#/$defs/Person"}, {"name": "Ada"}, ({}, "$", "'name' is a required property")),
        ({"properties": {"default": {"$ref": "#/schemas/$defs/Name"}}}, {}, ({"default": 1}, "$.default", "1 is not")),
        ({"items": {"$ref": "#/schemas/$defs/Person/properties/name"}}, ["Ada"], (["A"], "$[0]", "'A' is too short")),
        (
            {
                "$defs": {"Name": {"type": "integer"}},
                "prefixItems": [{"$ref": "#/$defs/Name"}, {"$ref": "#/schemas/$defs/Name"}],
            },
            [1, "Ada"],
            ([1, 1], "$[1]", "1 is not of type 'string'"),
        ),
        ({"enum": [{"$ref": "#/schemas/$defs/Name"}]}, {"$ref": "#/schemas/$defs/Name"}, (1, "$", "1 is not one of")),
    ],
)
def test_the_schema_of_the_input_may_refer_to_definitions_of_the_flow(
    tmp_path: Path, input_schema: Any, fitting: Any, problem: tuple[Any, str, str]
) -> None:
    schemas = {"$defs": {"Name": NAME, "Person": PERSON}, "properties": {"input": input_schema}}
    workflow = catalog_of(tmp_path, {"f": {"schemas": schemas, "steps": [], "output": {"$input": "$"}}}).find("f")
    given, path, message = problem

    assert workflow.parse(fitting) == fitting
    with pytest.raises(PayloadInvalid) as invalid:
        workflow.parse(given)
    [found] = invalid.value.details
    assert (found["path"], found["message"][: len(message)]) == (path, message)
    jsonschema.Draft202012Validator.check_schema(dict(workflow.input_schema))


def test_a_schema_that_refers_to_nothing_is_published_as_it_stands(tmp_path: Path) -> None:
    properties = {"input": {"type": "integer"}, "output": {"$ref": "#/schemas/$defs/Name"}}
    flow = {"schemas": {"$defs": {"Name": NAME}, "properties": properties}, "steps": []}

    workflow = catalog_of(tmp_path, {"f": flow}).find("f")

    assert workflow.input_schema == {"type": "integer"}
    assert workflow.output_schema == {"$ref": "#/$defs/Name", "$defs": {"Name": NAME}}


@pytest.mark.parametrize(
    ("given", "expected"),
    [({"a.b": 1, "a": {"b": 2}}, [1, 2, 1]), ({"a": {"b": 2}}, [2, 2, 2]), ({"a.b": 1}, [1, None, 1])],
    ids=["both", "nested", "exact"],
)
async def test_a_bare_name_means_the_same_before_and_after_a_flow_was_stored(
    client: httpx2.AsyncClient, tmp_path: Path, given: Any, expected: list[Any]
) -> None:
    missing = {"$if": {"$input": "$.a.b"}, "then": {"$input": "$.a.b"}}
    flow = {
        "name": "named",
        "steps": [step("whole", "/noop", input={"$input": "$"})],
        "output": [{"$input": "a.b"}, missing, {"$step": "whole", "path": "a.b"}],
    }
    ran = await run(client, flow, given)
    stored = (await got(client, f"/runs/{ran['runId']}/flow"))["flow"]

    assert ran["result"] == {"outcome": "success", "result": expected}
    assert (await run(client, stored, given))["result"] == ran["result"]
    async with StepflowRuntime.start() as runtime:
        assert (await runtime.run(flow, given)).output == {"value": expected}


async def test_what_yaml_could_take_for_times_and_truth_values_are_texts_and_have_the_ids_of_texts(
    tmp_path: Path,
) -> None:
    text = """
        steps:
          kept:
            component: /put_blob
            input:
              blob_type: data
              data: {at: 2024-01-01 00:00:00+00:00, day: 2024-01-01, yes: no, on: off, n: 1.0, big: 1e16}
        output: {$step: kept, path: blob_id}
    """
    (tmp_path / "f.yaml").write_text(textwrap.dedent(text))
    kept = '{"at":"2024-01-01 00:00:00+00:00","day":"2024-01-01","yes":"no","on":"off","n":1.0,"big":1e16}'
    async with StepflowRuntime.start() as runtime:
        result = await runtime.run(tmp_path / "f.yaml", None)

    assert result.output == {"value": hashlib.sha256(kept.encode()).hexdigest()}


async def test_a_runtime_and_a_client_find_the_same_in_a_document(tmp_path: Path) -> None:
    fine = {"name": "f", "description": "f", "steps": [], "output": 1}
    (tmp_path / "later.json").write_text(
        '{"name": "l", "description": "l", "steps": [{"id": "a", "component": "/noop"}]}'
    )
    documents: list[tuple[Any, bool, list[str]]] = [
        (fine, True, []),
        ({**fine, "skip": True, "name": None}, True, ["warning", "warning"]),
        ({**fine, "output": {"$step": "nowhere"}}, False, ["fatal"]),
        ({**fine, "steps": 1}, False, ["fatal"]),
        ({**fine, "schema": "flow/v9"}, False, ["fatal"]),
        (tmp_path / "later.json", True, ["warning"]),
    ]
    async with await StepflowRuntime.start_async(port=0) as runtime, asyncio.timeout(20):
        for document, is_valid, levels in documents:
            found = await runtime.validate(document)
            assert found == await runtime.client.validate(document)
            assert (found.valid, [one.level for one in found.diagnostics]) == (is_valid, levels), found
        with pytest.raises(FileNotFoundError):
            await runtime.validate(tmp_path / "nowhere.yaml")
        assert await runtime.client.list_runs() == []


# Decisions


async def test_tools_see_the_environment_of_the_runtime_and_components_only_what_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OF_THE_RUNTIME", "seen")
    (tmp_path / "c.py").write_text(
        "import os\nfrom pyflue.stepflow import StepflowStdioServer\n\nserver = StepflowStdioServer()\n\n\n"
        "@server.component\ndef variable(given: dict[str, str]) -> str:\n"
        "    return os.environ.get(given['name'], 'unset')\n\n\nserver.run()\n"
    )
    config = {
        "plugins": {
            "tools": {"type": "mcp", "command": sys.executable, "args": [str(SERVERS / "tools.py")]},
            "mine": {"type": "stepflow", "transport": "stdio", "command": sys.executable, "args": ["c.py"]},
        },
        "routes": {"/tools": {"plugin": "tools"}, "/mine": {"plugin": "mine"}},
    }
    (tmp_path / "stepflow-config.yml").write_text(json.dumps(config))
    given = {"name": "OF_THE_RUNTIME"}
    flow = {
        "steps": [step("tool", "/tools/variable", input=given), step("component", "/mine/variable", input=given)],
        "output": [{"$step": "tool", "path": "$[0].text"}, {"$step": "component"}],
    }
    async with StepflowRuntime.start(tmp_path / "stepflow-config.yml") as runtime, asyncio.timeout(30):
        result = await runtime.run(flow, None)

    assert result.output == {"value": ["seen", "unset"]}


def test_flows_are_served_on_a_port_of_their_own(tmp_path: Path) -> None:
    """7837, where clients look; not 7840, which the original's server has by default."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("STEPFLOW_", "PYFLUE_"))}
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # whoever has it: it is taken
            stack.enter_context(socket.create_server(("127.0.0.1", 7837)))
        command = [sys.executable, "-m", "pyflue", "flow", "serve"]
        done = subprocess.run(command, cwd=tmp_path, env=ours, capture_output=True, text=True, timeout=20, check=False)

    assert done.returncode == 2
    assert "127.0.0.1:7837" in done.stderr
    assert "in use" in done.stderr


async def test_components_know_a_run_by_the_id_that_the_api_has_for_it(client: httpx2.AsyncClient) -> None:
    flow = {"steps": [step("who", "/parts/who", input={})], "output": {"$step": "who"}}
    ran = await run(client, flow, None)
    assert ran["result"] == {"outcome": "success", "result": ran["runId"]}
