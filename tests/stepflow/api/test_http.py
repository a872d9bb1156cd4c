"""The HTTP API: requests as clients of Stepflow send them, and what is answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
import pytest

from pyflue import __version__
from tests.server.harness import client_of

from .serving import BROKEN, ECHO, ENDLESS, KINDS, LIMIT_BYTES, Described, Json, flow, serving, step

API = "/api/v1"
NO_RUN = "018f0000-0000-7000-8000-000000000000"
NO_FLOW = "0" * 64


@pytest.fixture(params=KINDS)
async def client(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[httpx2.AsyncClient]:
    monkeypatch.delenv("PYFLUE_TOKEN", raising=False)
    async with serving(request.param, tmp_path) as app, client_of(app, "http://localhost/") as client:
        # Whatever a test asks for: the answer is as the OpenAPI document says.
        client.event_hooks["response"].append(Described().check)
        yield client


async def stored(client: httpx2.AsyncClient, document: Json) -> str:
    answer = await client.post(f"{API}/flows", json={"flow": document})
    assert answer.status_code == 200, answer.text
    return answer.json()["flowId"]


async def started(client: httpx2.AsyncClient, document: Json, *inputs: Any, **fields: Any) -> Json:
    body = {"flowId": await stored(client, document), "input": list(inputs), **fields}
    answer = await client.post(f"{API}/runs", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def got(client: httpx2.AsyncClient, path: str, **query: Any) -> Json:
    answer = await client.get(API + path, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def refused(answer: httpx2.Response, status: int, message: str) -> None:
    assert (answer.status_code, answer.json()) == (status, {"code": status, "message": message})


# About the server


async def test_health_says_that_the_server_is_well_and_which_version_it_has(client: httpx2.AsyncClient) -> None:
    health = await got(client, "/health")
    assert health == {"status": "healthy", "version": __version__, "timestamp": health["timestamp"]}


async def test_components_are_listed_by_their_paths_with_schemas_unless_those_are_not_wanted(
    client: httpx2.AsyncClient,
) -> None:
    full = (await got(client, "/components"))["components"]
    paths = [component["component"] for component in full]
    assert paths == sorted(paths)
    assert {"/create_messages", "/eval", "/iterate", "/load_file", "/map", "/noop", "/openai"} <= set(paths)
    messages = full[paths.index("/create_messages")]
    assert messages["inputSchema"]["required"] == ["user_prompt"]

    bare = (await got(client, "/components", includeSchemas="false"))["components"]
    assert [component["component"] for component in bare] == paths
    assert not any("inputSchema" in component or "outputSchema" in component for component in bare)


async def test_the_api_describes_itself(client: httpx2.AsyncClient) -> None:
    described = await got(client, "/openapi.json")
    assert described["openapi"] == "3.1.0"
    assert set(described["paths"]["/api/v1/runs"]) == {"get", "post"}


@pytest.mark.parametrize("kind", KINDS)
async def test_paths_and_methods_that_there_are_not_are_answered_in_the_form_of_the_api(
    kind: str, tmp_path: Path
) -> None:
    async with serving(kind, tmp_path) as app, client_of(app, "http://localhost/") as client:
        for path in ("/api/v1/nowhere", "/api/v1/runs/1/2/3", "/api/v1"):
            told = f"There is nothing at {path!r}. GET /api/v1/openapi.json lists what there is."
            answer = await client.get(path)
            assert (answer.status_code, answer.json()) == (404, {"code": 404, "message": told})
        answer = await client.put("/api/v1/runs")
        assert (answer.status_code, answer.json()) == (405, {"code": 405, "message": "Method Not Allowed"})
        assert answer.headers["allow"] == "GET, HEAD, POST"


async def test_what_is_not_below_the_api_is_answered_in_the_form_of_the_project(tmp_path: Path) -> None:
    async with serving("project", tmp_path) as app, client_of(app, "http://localhost/") as client:
        answer = await client.get("/api/v2/runs")
        assert (answer.status_code, answer.json()["error"]["type"]) == (404, "not_found")


# Flows


async def test_a_changed_config_is_looked_at_when_a_flow_is_stored_again(tmp_path: Path) -> None:
    config = tmp_path / "stepflow-config.yml"
    lost = {"flow": flow([step("a", "/mine/x")], {"$step": "a"})}
    async with serving("project", tmp_path) as app, client_of(app, "http://localhost/") as client:

        async def errors() -> int:
            return (await client.post(f"{API}/flows", json=lost)).json()["diagnostics"]["numError"]

        assert await errors() == 1
        config.write_text('plugins: {m: {type: mock, components: {/x: {}}}}\nroutes: {"/mine": {plugin: m}}\n')
        assert await errors() == 0
        config.write_text("plugins: 5\n")  # for runs to tell
        assert await errors() == 0


async def test_a_flow_is_stored_and_given_back_with_the_examples_that_it_offers(client: httpx2.AsyncClient) -> None:
    document = {
        **ECHO,
        "examples": [{"name": "one", "input": {"value": 1}}],
        "test": {"cases": [{"name": "two", "input": {"value": 2}}]},
    }
    answer = (await client.post(f"{API}/flows", json={"flow": document})).json()
    assert {key: answer[key] for key in ("stored",)} == {"stored": True}
    assert (answer["diagnostics"]["numFatal"], answer["diagnostics"]["numError"]) == (0, 0)

    view = await got(client, f"/flows/{answer['flowId']}")
    assert view["flowId"] == answer["flowId"]
    assert view["flow"]["steps"] == [
        {"id": "echo", "component": "/noop", "input": {"value": {"$input": "$.value"}}},
    ]
    assert [(example["name"], example["input"]) for example in view["allExamples"]] == [
        ("one", {"value": 1}),
        ("two", {"value": 2}),
    ]


async def test_the_same_flow_has_the_same_id_whoever_stores_it(client: httpx2.AsyncClient) -> None:
    mapping = {**ECHO, "steps": {"echo": {"component": "/noop", "input": {"value": {"$input": "$.value"}}}}}
    assert await stored(client, ECHO) == await stored(client, mapping)


async def test_a_flow_with_a_fatal_finding_gets_no_id(client: httpx2.AsyncClient) -> None:
    twice = flow([step("a", "/noop"), step("a", "/noop")], {"$step": "a"})
    answer = (await client.post(f"{API}/flows", json={"flow": twice})).json()
    assert "flowId" not in answer
    assert answer["stored"] is False
    fatal = [found for found in answer["diagnostics"]["diagnostics"] if found["level"] == "fatal"]
    assert [found["message"]["type"] for found in fatal] == ["duplicateStepId"]


async def test_a_flow_whose_component_leads_nowhere_is_stored_with_an_error(client: httpx2.AsyncClient) -> None:
    lost = flow([step("a", "/nowhere/x")], {"$step": "a"})
    for _ in range(2):  # the second time it is known
        answer = (await client.post(f"{API}/flows", json={"flow": lost})).json()
        assert (answer["stored"], answer["diagnostics"]["numError"]) == (True, 1)
        [error] = [found for found in answer["diagnostics"]["diagnostics"] if found["level"] == "error"]
        problem = "there is no built-in component '/nowhere/x'"
        assert error["message"] == {
            "type": "invalidComponent",
            "stepId": "a",
            "component": "/nowhere/x",
            "error": problem,
        }


async def test_a_dry_run_looks_a_flow_over_and_keeps_nothing(client: httpx2.AsyncClient) -> None:
    answer = (await client.post(f"{API}/flows", json={"flow": ECHO, "dryRun": True})).json()
    assert answer["stored"] is False
    refused(await client.get(f"{API}/flows/{answer['flowId']}"), 404, f"Workflow '{answer['flowId']}' not found")


async def test_what_is_no_flow_is_refused_with_the_place_of_each_problem(client: httpx2.AsyncClient) -> None:
    answer = await client.post(f"{API}/flows", json={"flow": flow([step("a", "/noop", {"$input": "$.a["})], None)})
    assert answer.status_code == 400
    body = answer.json()
    assert body["code"] == 400
    assert body["message"].startswith("Invalid flow: $.steps[0].input")
    assert [layer["error"].split(":")[0] for layer in body["stack"]] == ["$.steps[0].input.$input"]


async def test_deleting_a_flow_is_accepted_and_keeps_it(client: httpx2.AsyncClient) -> None:
    flow_id = await stored(client, ECHO)
    answer = await client.delete(f"{API}/flows/{flow_id}")
    assert (answer.status_code, answer.content) == (200, b"")
    assert (await got(client, f"/flows/{flow_id}"))["flowId"] == flow_id


# Runs


async def test_a_run_is_answered_with_its_result(client: httpx2.AsyncClient) -> None:
    answer = await started(client, ECHO, {"value": [1, 2.5, None]})
    assert answer == {
        "runId": answer["runId"],
        "itemCount": 1,
        "result": {"outcome": "success", "result": [1, 2.5, None]},
        "status": "completed",
        "debug": False,
    }
    assert UUID(answer["runId"]).version == 7


async def test_a_flow_that_fails_is_a_run_that_failed_and_not_an_error_of_the_server(
    client: httpx2.AsyncClient,
) -> None:
    answer = await started(client, ECHO, {})
    assert (answer["status"], answer["result"]) == (
        "failed",
        {"outcome": "failed", "error": {"code": 1, "message": "Input path $.value not found"}},
    )
    broken = await started(client, BROKEN, None)
    assert broken["result"]["error"]["code"] == 500
    assert broken["result"]["error"]["message"].startswith('step "look" failed')


async def test_a_batch_has_an_item_for_each_input_and_its_results_by_index(client: httpx2.AsyncClient) -> None:
    answer = await started(client, ECHO, {"value": "a"}, {}, {"value": "c"}, maxConcurrency=2)
    assert answer == {"runId": answer["runId"], "itemCount": 3, "status": "failed", "debug": False}
    items = await got(client, f"/runs/{answer['runId']}/items")
    missing = {"outcome": "failed", "error": {"code": 1, "message": "Input path $.value not found"}}
    assert items == {
        "itemCount": 3,
        "items": [
            {"itemIndex": 0, "status": "completed", "result": {"outcome": "success", "result": "a"}},
            {"itemIndex": 1, "status": "failed", "result": missing},
            {"itemIndex": 2, "status": "completed", "result": {"outcome": "success", "result": "c"}},
        ],
    }
    counts = (await got(client, f"/runs/{answer['runId']}"))["items"]
    assert counts == {"total": 3, "completed": 2, "running": 0, "failed": 1, "cancelled": 0}


async def test_an_input_that_is_a_list_is_wrapped_in_another(client: httpx2.AsyncClient) -> None:
    document = flow([], {"$input": "$"})
    assert (await started(client, document, [1, 2]))["result"] == {"outcome": "success", "result": [1, 2]}


async def test_a_run_tells_what_it_was_given_and_how_it_went(client: httpx2.AsyncClient) -> None:
    overrides = {"echo": {"value": {"input": {"value": "other"}}}}
    answer = await started(client, ECHO, {"value": 1}, overrides=overrides)
    assert answer["result"] == {"outcome": "success", "result": "other"}
    run = await got(client, f"/runs/{answer['runId']}")
    assert run == {
        "runId": answer["runId"],
        "flowId": await stored(client, ECHO),
        "flowName": "sample",
        "flowLabel": None,
        "status": "completed",
        "items": {"total": 1, "completed": 1, "running": 0, "failed": 0, "cancelled": 0},
        "debugMode": False,
        "createdAt": run["createdAt"],
        "completedAt": run["completedAt"],
        "rootRunId": answer["runId"],
        "inputs": [{"value": 1}],
        "overrides": overrides,
    }
    steps = await got(client, f"/runs/{answer['runId']}/steps")
    assert steps == {
        "steps": {
            "echo": {
                "stepIndex": 0,
                "stepId": "echo",
                "component": "/noop",
                "status": "completed",
                "result": {"outcome": "success", "result": {"value": "other"}},
            }
        }
    }
    kept = await got(client, f"/runs/{answer['runId']}/flow")
    assert kept == {"flowId": run["flowId"], "flow": (await got(client, f"/flows/{run['flowId']}"))["flow"]}


async def test_a_run_id_without_hyphens_is_the_same_one(client: httpx2.AsyncClient) -> None:
    run_id = (await started(client, ECHO, {"value": 1}))["runId"]
    assert (await got(client, f"/runs/{run_id.replace('-', '')}"))["runId"] == run_id


async def test_variables_reach_the_flow_and_secret_ones_are_not_shown(client: httpx2.AsyncClient) -> None:
    variables = {"type": "object", "properties": {"place": {"type": "string"}, "key": {"is_secret": True}}}
    document = flow([], {"$variable": "place"}, schemas={"type": "object", "properties": {"variables": variables}})
    answer = await started(client, document, None, variables={"place": "here", "key": "hush"})
    assert answer["result"] == {"outcome": "success", "result": "here"}
    shown = await got(client, f"/runs/{answer['runId']}")
    assert shown["variables"] == {"place": "here", "key": "[REDACTED]"}


async def test_a_run_that_is_not_waited_for_is_answered_at_once_and_asked_about_later(
    client: httpx2.AsyncClient,
) -> None:
    answer = await started(client, ECHO, {"value": 1}, wait=False)
    assert answer == {"runId": answer["runId"], "itemCount": 1, "status": "running", "debug": False}
    run = await got(client, f"/runs/{answer['runId']}", wait="true", timeoutSecs=10)
    assert run["status"] == "completed"


async def test_waiting_ends_with_its_time_and_the_run_goes_on(client: httpx2.AsyncClient) -> None:
    answer = await started(client, ENDLESS, None, timeoutSecs=0.05)
    assert answer == {"runId": answer["runId"], "itemCount": 1, "status": "running", "debug": False}
    assert (await got(client, f"/runs/{answer['runId']}", wait="true", timeoutSecs=0.05))["status"] == "running"
    items = await got(client, f"/runs/{answer['runId']}/items")
    assert items == {"itemCount": 1, "items": [{"itemIndex": 0, "status": "running"}]}
    await client.post(f"{API}/runs/{answer['runId']}/cancel")


async def test_a_run_can_be_cancelled_once_and_deleted_afterwards(client: httpx2.AsyncClient) -> None:
    run_id = (await started(client, ENDLESS, None, wait=False))["runId"]
    still = await client.delete(f"{API}/runs/{run_id}")
    refused(still, 409, f"Execution '{run_id}' is still running and cannot be deleted")

    cancelled = await client.post(f"{API}/runs/{run_id}/cancel")
    assert cancelled.status_code == 200
    assert cancelled.json()["runId"] == run_id
    run = await got(client, f"/runs/{run_id}", wait="true", timeoutSecs=10)
    assert (run["status"], run["items"]["cancelled"]) == ("cancelled", 1)
    again = await client.post(f"{API}/runs/{run_id}/cancel")
    refused(again, 409, f"Run '{run_id}' cannot be cancelled (status: cancelled)")

    answer = await client.delete(f"{API}/runs/{run_id}")
    assert (answer.status_code, answer.content) == (200, b"")
    refused(await client.get(f"{API}/runs/{run_id}"), 404, "Execution not found")


async def test_runs_are_listed_newest_first_and_can_be_narrowed_down(client: httpx2.AsyncClient) -> None:
    first = (await started(client, ECHO, {"value": 1}))["runId"]
    second = (await started(client, ECHO, {}))["runId"]
    third = (await started(client, BROKEN, None))["runId"]

    async def listed(**query: Any) -> list[str]:
        return [run["runId"] for run in (await got(client, "/runs", **query))["runs"]]

    assert await listed() == [third, second, first]
    assert await listed(status="completed") == [first]
    assert await listed(status="failed") == [third, second]
    assert await listed(flowName="broken") == [third]
    assert await listed(flowId=await stored(client, ECHO)) == [second, first]
    assert await listed(limit=1, offset=1) == [second]
    assert await listed(rootRunId=first) == [first]
    assert await listed(parentRunId=first) == []


async def test_requests_with_the_same_idempotency_key_start_one_run(client: httpx2.AsyncClient) -> None:
    body: Json = {"flowId": await stored(client, ECHO), "input": [{"value": 1}]}
    key = {"Idempotency-Key": "order-1"}
    first = await client.post(f"{API}/runs", json=body, headers=key)
    again = await client.post(f"{API}/runs", json=body, headers=key)
    assert first.json()["runId"] == again.json()["runId"]
    other = await client.post(f"{API}/runs", json={**body, "input": [{"value": 2}]}, headers=key)
    assert (other.status_code, other.json()["code"]) == (409, 409)


async def test_two_who_wait_do_not_hold_one_another_up(client: httpx2.AsyncClient) -> None:
    async with asyncio.timeout(20):
        endless = asyncio.create_task(started(client, ENDLESS, None, timeoutSecs=0.5))
        assert (await started(client, ECHO, {"value": 1}))["status"] == "completed"
        assert not endless.done()
        run_id = (await endless)["runId"]
    await client.post(f"{API}/runs/{run_id}/cancel")


# What is refused


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"input": [1]}, "The field `flowId` is missing."),
        ({"flowId": "abc", "input": [1]}, "A flow id has 64 characters out of 0-9 and a-f."),
        (
            {"flowId": NO_FLOW, "input": {"a": 1}},
            "The field `input` has to be a list with one value for each item: `[value]` for a single run.",
        ),
        ({"flowId": NO_FLOW, "input": []}, "The list `input` has 0 values; 1 to 10,000 are taken."),
        ({"flowId": NO_FLOW, "input": [1], "overrides": []}, "The field `overrides` has to be an object."),
        ({"flowId": NO_FLOW, "input": [1], "variables": 1}, "The field `variables` has to be an object."),
        ({"flowId": NO_FLOW, "input": [1], "wait": "yes"}, "The field `wait` has to be true or false."),
        (
            {"flowId": NO_FLOW, "input": [1], "maxConcurrency": 0},
            "The field `maxConcurrency` has to be a whole number, 1 or more.",
        ),
        (
            {"flowId": NO_FLOW, "input": [1], "timeoutSecs": -1},
            "`timeoutSecs` has to be a number from 0 to 3600.",
        ),
        ({"flowId": NO_FLOW, "input": [1], "debug": True}, "Debug mode is not offered: leave `debug` out."),
        ([], "The body has to be a JSON object."),
    ],
)
async def test_a_run_that_is_asked_for_wrongly_is_refused_with_the_reason(
    client: httpx2.AsyncClient, body: Any, message: str
) -> None:
    refused(await client.post(f"{API}/runs", json=body), 400, message)


async def test_a_null_is_as_good_as_nothing(client: httpx2.AsyncClient) -> None:
    nothing = dict.fromkeys(("overrides", "variables", "maxConcurrency", "debug", "wait", "timeoutSecs"))
    assert (await started(client, ECHO, {"value": 1}, **nothing))["status"] == "completed"


async def test_what_is_not_there_is_not_found(client: httpx2.AsyncClient) -> None:
    for path in (f"/runs/{NO_RUN}", f"/runs/{NO_RUN}/items", f"/runs/{NO_RUN}/steps", f"/runs/{NO_RUN}/flow"):
        refused(await client.get(API + path), 404, "Execution not found")
    refused(await client.post(f"{API}/runs/{NO_RUN}/cancel"), 404, "Execution not found")
    refused(await client.delete(f"{API}/runs/{NO_RUN}"), 404, "Execution not found")
    refused(await client.get(f"{API}/flows/{NO_FLOW}"), 404, f"Workflow '{NO_FLOW}' not found")
    run = await client.post(f"{API}/runs", json={"flowId": NO_FLOW, "input": [1]})
    refused(run, 404, f"Workflow '{NO_FLOW}' not found")
    waiting = await client.get(f"{API}/runs/{NO_RUN}", params={"wait": "true"})
    refused(waiting, 404, "Execution not found")


async def test_ids_of_another_form_are_refused(client: httpx2.AsyncClient) -> None:
    for text in ("abc", "{018f0000-0000-7000-8000-000000000000}", "0" * 64):
        refused(await client.get(f"{API}/runs/{text}"), 400, "Invalid run ID format: a run id is a UUID.")
    refused(await client.get(f"{API}/flows/ABC"), 400, "A flow id has 64 characters out of 0-9 and a-f.")


async def test_query_parameters_of_another_form_are_refused(client: httpx2.AsyncClient) -> None:
    for query, message in (
        ({"status": "done"}, "has to be one of running, completed, failed, cancelled, paused."),
        ({"limit": "-1"}, "has to be a whole number, 0 or more."),
        ({"offset": "x"}, "has to be a whole number, 0 or more."),
    ):
        [name] = query
        refused(await client.get(f"{API}/runs", params=query), 400, f"The query parameter `{name}` {message}")


async def test_overrides_and_variables_that_do_not_fit_are_refused(client: httpx2.AsyncClient) -> None:
    flow_id = await stored(client, ECHO)
    body: Json = {"flowId": flow_id, "input": [{"value": 1}]}
    overrides = await client.post(f"{API}/runs", json={**body, "overrides": {"steps": {"nobody": {"value": {}}}}})
    refused(overrides, 400, "Step 'nobody' not found in workflow")

    variables = {"type": "object", "properties": {"key": {"type": "string"}}, "required": ["key"]}
    document = flow([], {"$variable": "key"}, schemas={"type": "object", "properties": {"variables": variables}})
    missing = await client.post(f"{API}/runs", json={"flowId": await stored(client, document), "input": [1]})
    refused(missing, 400, "Missing required variable: key")


async def test_only_json_is_taken(client: httpx2.AsyncClient) -> None:
    for headers in ({"content-type": "text/plain"}, {"content-type": "application/x-www-form-urlencoded"}):
        answer = await client.post(f"{API}/runs", content=b"{}", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (415, 415)
    undeclared = await client.post(f"{API}/flows", content=b"{}")
    told = "The body has no declared type: send application/json."
    assert (undeclared.status_code, undeclared.json()["message"]) == (415, told)
    packed = {"content-type": "application/json", "content-encoding": "gzip"}
    assert (await client.post(f"{API}/flows", content=b"{}", headers=packed)).status_code == 415
    cancel = await client.post(f"{API}/runs/{NO_RUN}/cancel", content=b"a=1", headers={"content-type": "text/plain"})
    assert cancel.status_code == 415


async def test_a_body_that_is_broken_or_too_large_is_refused(client: httpx2.AsyncClient) -> None:
    headers = {"content-type": "application/json"}
    for content in (b"{", b'{"flow": NaN}', b"\xff", b"[" * 5000):
        answer = await client.post(f"{API}/flows", content=content, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (400, 400), content[:10]
    empty = await client.post(f"{API}/flows", content=b"", headers=headers)
    refused(empty, 400, "The body is missing: send a JSON object.")
    large = await client.post(f"{API}/flows", content=b'"' + b"x" * LIMIT_BYTES + b'"', headers=headers)
    assert (large.status_code, large.json()["code"]) == (413, 413)
