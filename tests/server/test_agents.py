"""The routes about continuing agents, in process."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from pyflue import codec
from pyflue.journal import follow
from pyflue.server import schemas
from tests.agent_project import write_agents
from tests.server.harness import Address, InProcess, frames_of, in_process, on_a_socket

ECHO = "/agents/echo/one"


@pytest.fixture
def root(root: Path) -> Path:
    write_agents(root)
    return root


async def happened(here: InProcess, stream_id: str, kind: str) -> Any:
    """The data of a stream's first event of a type, once there is one."""
    async with asyncio.timeout(10), contextlib.aclosing(follow(here.app.services.journal, stream_id)) as events:
        async for event in events:
            if event.type == kind:
                return codec.load(event.data)
    raise AssertionError(f"{stream_id} has ended without {kind}")


def open_gate(root: Path) -> None:
    (root / "src" / "agents" / "open").touch()


def error_of(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["type"]


async def test_agents_are_listed_and_broken_files_hide_no_other(client: httpx2.AsyncClient) -> None:
    answer = (await client.get("/agents")).json()
    schemas.AgentList.model_validate(answer, strict=True)
    listed = {agent["name"]: agent for agent in answer["agents"]}
    assert sorted(listed) == ["asks", "broken", "echo", "guarded"]
    assert (listed["broken"]["error"]["type"], listed["broken"]["error"]["line"]) == ("agent_invalid", 2)
    assert listed["echo"] | {"version": "x"} == {
        "name": "echo",
        "path": "src/agents/echo.py",
        "description": "Says what it was told.",
        "version": "x",
        "error": None,
    }
    shown = await client.get("/agents/echo")
    schemas.AgentDetail.model_validate(shown.json(), strict=True)
    assert error_of(await client.get("/agents/broken")) == (503, "agent_invalid")
    assert error_of(await client.get("/agents/nobody")) == (404, "agent_not_found")
    assert error_of(await client.post("/agents/nobody/1", json={"message": "hi"})) == (404, "agent_not_found")


async def test_a_broken_file_shows_its_text_to_nobody_outside_of_dev(root: Path) -> None:
    async with in_process(root) as here:
        assert "broken.py" not in (await here.client.post("/agents/broken/1", json={"message": "hi"})).text
    async with in_process(root, dev=True) as here:
        assert "broken.py:2" in (await here.client.post("/agents/broken/1", json={"message": "hi"})).text


async def test_a_prompt_is_answered_and_sessions_go_on(client: httpx2.AsyncClient) -> None:
    first = await client.post(ECHO, json={"message": "hi"})
    answer = first.json()
    schemas.Prompted.model_validate(answer, strict=True)
    dispatch_id = answer["dispatch_id"]
    assert (first.status_code, first.headers["x-flue-dispatch-id"]) == (200, dispatch_id)
    assert answer["result"] | {"usage": None} == {
        "text": "You said 'hi'.",
        "data": None,
        "usage": None,
        "model": "scripted/echo",
        "turns": 1,
        "operation_id": f"{dispatch_id}/prompt",
        "session": "default",
    }
    texts = [
        (await client.post(ECHO, json={"message": "count", "session": session})).json()["result"]["text"]
        for session in ("default", "other", "other")
    ]
    assert texts == ["3", "1", "3"]
    other = await client.post("/agents/echo/two", json={"message": "count"})
    assert other.json()["result"]["text"] == "1"


async def test_data_of_a_schema_is_answered(client: httpx2.AsyncClient) -> None:
    schema = {"type": "object", "properties": {"amount": {"type": "integer"}}, "required": ["amount"]}
    answer = await client.post(ECHO, json={"message": "how much?", "schema": schema})
    assert answer.json()["result"]["data"] == {"amount": 3}


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"prompt": "hi"}, "$.prompt"),
        ({"message": "hi", "kind": "dispatch"}, "$.kind"),
        ({"message": "  "}, "$.message"),
        ({"message": "hi", "session": "a/b"}, "$.session"),
        ({"message": "hi", "images": [{"data": "!"}]}, "$.images[0]"),
        ({"message": "hi", "schema": {"type": 3}}, "$.schema"),
        (["hi"], "$"),
    ],
)
async def test_what_cannot_be_a_prompt_is_refused_by_its_path(client: httpx2.AsyncClient, body: Any, path: str) -> None:
    answer = await client.post(ECHO, json=body)
    assert error_of(answer) == (422, "payload_invalid")
    assert path in [problem["path"] for problem in answer.json()["error"]["details"]]
    assert error_of(await client.get(ECHO)) == (404, "instance_not_found")


async def test_ids_methods_and_media_types_are_checked(client: httpx2.AsyncClient) -> None:
    assert error_of(await client.post("/agents/echo/a%20b", json={"message": "hi"})) == (400, "invalid_request")
    assert error_of(await client.post("/agents/echo/instances", json={"message": "hi"})) == (400, "invalid_request")
    assert error_of(await client.put(ECHO, json={})) == (405, "method_not_allowed")
    assert error_of(await client.post(ECHO, content="hi", headers={"content-type": "text/plain"}))[0] == 415
    assert error_of(await client.post(f"{ECHO}?wait=result", json={"message": "hi"})) == (400, "invalid_query")


async def test_a_failure_is_answered_with_its_status_and_the_dispatch_id(client: httpx2.AsyncClient) -> None:
    failed = await client.post(ECHO, json={"message": "fail"})
    error = failed.json()["error"]
    schemas.ErrorEnvelope.model_validate(failed.json(), strict=True)
    assert error_of(failed) == (502, "model_failed")
    assert "on fire" in error["message"]
    record = (await client.get(f"{ECHO}/dispatches/{error['dispatch_id']}")).json()
    schemas.DispatchRecord.model_validate(record, strict=True)
    assert (record["status"], record["error"]["type"], record["kind"]) == ("failed", "model_failed", "prompt")


async def test_a_run_of_an_agent_is_no_run_to_callers(client: httpx2.AsyncClient) -> None:
    answer = (await client.post(ECHO, json={"message": "hi"})).json()
    run_id = f"{answer['stream_id']}:{answer['dispatch_id']}"
    assert (await client.get("/runs")).json()["runs"] == []
    for method, path in (
        ("GET", ""),
        ("DELETE", ""),
        ("GET", "/events"),
        ("GET", "/stream"),
        ("GET", "/steps"),
        ("GET", "/blobs/x"),
        ("POST", "/cancel"),
        ("POST", "/retry"),
        ("POST", "/signals/x"),
    ):
        assert error_of(await client.request(method, f"/runs/{run_id}{path}")) == (404, "run_not_found"), path
    assert error_of(await client.post(f"/runs/{run_id}/fork", json={"from_step": "x"})) == (404, "run_not_found")


async def test_a_busy_session_is_409_and_dispatches_wait_for_their_turn(root: Path, here: InProcess) -> None:
    first = asyncio.ensure_future(here.client.post(ECHO, json={"message": "gate"}))
    await happened(here, "agent:echo:one", "turn_request")
    assert error_of(await here.client.post(ECHO, json={"message": "hi"})) == (409, "session_busy")
    assert (await here.client.post(ECHO, json={"message": "hi", "session": "b"})).status_code == 200
    receipt = (await here.client.post(f"{ECHO}/dispatch", json={"input": {"n": [1]}})).json()
    waiting = (await here.client.get(f"{ECHO}/dispatches/{receipt['dispatch_id']}")).json()
    assert (waiting["status"], waiting["result"]) == ("queued", None)
    assert error_of(await here.client.delete(ECHO)) == (409, "instance_busy")
    assert error_of(await here.client.delete(f"{ECHO}/sessions/default")) == (409, "instance_busy")
    open_gate(root)
    assert (await first).json()["result"]["text"] == "You said 'gate'."
    done = (await here.client.get(f"{ECHO}/dispatches/{receipt['dispatch_id']}?wait=result")).json()
    assert (done["status"], done["result"]["text"]) == ("completed", """You said '{"n":[1]}'.""")


async def test_a_dispatch_is_accepted_once_per_key(client: httpx2.AsyncClient) -> None:
    async def send(text: str) -> httpx2.Response:
        return await client.post(f"{ECHO}/dispatch", json={"input": text}, headers={"idempotency-key": "k"})

    first = await send("a")
    assert first.status_code == 202
    receipt = first.json()
    schemas.Receipt.model_validate(receipt, strict=True)
    assert (await send("a")).json() == receipt
    assert error_of(await send("b")) == (422, "idempotency_conflict")
    await client.get(f"{ECHO}/dispatches/{receipt['dispatch_id']}?wait=result")
    listed = (await client.get(f"{ECHO}/dispatches")).json()
    schemas.DispatchList.model_validate(listed, strict=True)
    assert [item["dispatch_id"] for item in listed["dispatches"]] == [receipt["dispatch_id"]]


async def test_lists_go_on_where_a_page_ended(client: httpx2.AsyncClient) -> None:
    ids = [(await client.post(ECHO, json={"message": str(n)})).json()["dispatch_id"] for n in range(3)]
    for instance in ("two", "three"):
        await client.post(f"/agents/echo/{instance}", json={"message": "hi"})
    seen: list[str] = []
    for path, key, name, expected in (
        (f"{ECHO}/dispatches", "dispatches", "dispatch_id", ids[::-1]),
        ("/agents/echo/instances", "instances", "instance_id", ["three", "two", "one"]),
    ):
        seen, cursor = [], ""
        while True:
            page = (await client.get(f"{path}?limit=2{cursor}")).json()
            seen += [item[name] for item in page[key]]
            if page["next"] is None:
                break
            cursor = f"&before={page['next']}"
        assert seen == expected


async def test_a_dispatch_that_cannot_be_is_refused(client: httpx2.AsyncClient) -> None:
    for body in ({}, {"input": " "}, {"message": "hi"}, {"input": "a", "images": []}, {"input": "a", "session": 3}):
        assert error_of(await client.post(f"{ECHO}/dispatch", json=body)) == (422, "payload_invalid")
    assert error_of(await client.get(f"{ECHO}/dispatches/x")) == (404, "dispatch_not_found")


async def test_what_is_under_way_is_aborted_or_cancelled(here: InProcess) -> None:
    prompt = asyncio.ensure_future(here.client.post(ECHO, json={"message": "gate"}))
    await happened(here, "agent:echo:one", "turn_request")
    aborted = await here.client.post(f"{ECHO}/sessions/default/abort")
    answer = await prompt
    assert error_of(answer) == (409, "dispatch_cancelled")
    assert aborted.json() == {"aborted": True, "dispatch_id": answer.json()["error"]["dispatch_id"]}
    nothing = await here.client.post(f"{ECHO}/sessions/default/abort")
    assert nothing.json() == {"aborted": False, "dispatch_id": None}
    sent = (await here.client.post(f"{ECHO}/dispatch", json={"input": "gate"})).json()
    path = f"{ECHO}/dispatches/{sent['dispatch_id']}/cancel"
    cancelled = await here.client.post(path)
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
    assert error_of(await here.client.post(path)) == (409, "dispatch_finished")


async def test_an_instance_has_sessions_with_histories_and_can_be_deleted(client: httpx2.AsyncClient) -> None:
    dispatch_id = (await client.post(ECHO, json={"message": "hi"})).json()["dispatch_id"]
    instance = (await client.get(ECHO)).json()
    schemas.InstanceDetail.model_validate(instance, strict=True)
    assert (instance["agent"], instance["instance_id"], instance["stream_id"]) == ("echo", "one", "agent:echo:one")
    sessions = (await client.get(f"{ECHO}/sessions")).json()
    schemas.SessionList.model_validate(sessions, strict=True)
    assert [(item["session"], item["task_of"], item["entries"]) for item in sessions["sessions"]] == [
        ("default", None, 2)
    ]
    history = (await client.get(f"{ECHO}/sessions/default/history")).json()
    schemas.History.model_validate(history, strict=True)
    assert [(item["position"], item["dispatch_id"], item["entry"]["role"]) for item in history["entries"]] == [
        (1, dispatch_id, "user"),
        (2, dispatch_id, "assistant"),
    ]
    rest = (await client.get(f"{ECHO}/sessions/default/history?after=1&limit=5")).json()
    assert ([item["position"] for item in rest["entries"]], rest["next_after"]) == ([2], 2)
    assert error_of(await client.get(f"{ECHO}/sessions/none/history")) == (404, "session_not_found")
    assert (await client.delete(f"{ECHO}/sessions/default")).status_code == 204
    assert error_of(await client.delete(f"{ECHO}/sessions/default")) == (404, "session_not_found")
    assert (await client.delete(ECHO)).status_code == 204
    for path in ("", "/events", "/stream", "/sessions", "/dispatches", "/blobs/sha256:x"):
        assert error_of(await client.get(f"{ECHO}{path}")) == (404, "instance_not_found"), path
    assert error_of(await client.delete(ECHO)) == (404, "instance_not_found")


async def test_who_may_do_what_is_the_agents_files_decision(client: httpx2.AsyncClient) -> None:
    async def ask(method: str, path: str, user: str, **options: Any) -> int:
        return (await client.request(method, f"/agents/guarded{path}", headers={"x-user": user}, **options)).status_code

    assert await ask("POST", "/ada", "bob", json={"message": "hi"}) == 403
    assert await ask("POST", "/ada/dispatch", "bob", json={"nonsense": 1}) == 403
    assert await ask("POST", "/ada", "ada", json={"message": "hi"}) == 200
    assert await ask("POST", "/bob", "bob", json={"message": "hi"}) == 200
    for method, path in (
        ("GET", ""),
        ("GET", "/events"),
        ("GET", "/stream"),
        ("GET", "/sessions"),
        ("GET", "/sessions/default/history"),
        ("GET", "/dispatches"),
        ("GET", "/dispatches/x"),
        ("POST", "/dispatches/x/cancel"),
        ("POST", "/sessions/default/abort"),
        ("DELETE", "/sessions/default"),
        ("DELETE", ""),
    ):
        assert await ask(method, f"/ada{path}", "bob") == 403, (method, path)
    assert await ask("GET", "/ada", "reader") == 200
    assert await ask("DELETE", "/ada", "reader") == 403
    listed = (await client.get("/agents/guarded/instances", headers={"x-user": "bob"})).json()
    assert [item["instance_id"] for item in listed["instances"]] == ["bob"]
    refused = await client.get("/agents/guarded/ada", headers={"x-user": "bob"})
    assert refused.json()["error"] == {
        "type": "forbidden",
        "message": "Agent 'guarded' does not allow this caller to read 'ada'.",
    }


async def test_an_approval_of_an_agent_is_decided_like_any_other(here: InProcess) -> None:
    sent = (await here.client.post("/agents/asks/a/dispatch", json={"input": "pay"})).json()
    await happened(here, "agent:asks:a", "interaction_waiting")
    path = f"/agents/asks/a/dispatches/{sent['dispatch_id']}"
    waiting = (await here.client.get(path)).json()
    schemas.DispatchRecord.model_validate(waiting, strict=True)
    (approval,) = (await here.client.get("/approvals")).json()["approvals"]
    assert approval["approval_id"] == waiting["waiting_for"][0]["approval_id"]
    decided = await here.client.post(f"/approvals/{approval['approval_id']}", json={"approved": True})
    assert decided.status_code == 200
    done = (await here.client.get(f"{path}?wait=result")).json()
    assert (done["status"], done["result"]["text"]) == ("completed", "It is paid.")


async def test_a_prompt_that_takes_too_long_is_202_and_goes_on(root: Path) -> None:
    async with in_process(root, server__wait_s=0.2) as here:
        answer = await here.client.post(ECHO, json={"message": "gate"})
        assert answer.status_code == 202
        open_gate(root)
        async with asyncio.timeout(10):
            done: dict[str, Any] = {"status": ""}
            while done["status"] != "completed":
                path = f"{ECHO}/dispatches/{answer.json()['dispatch_id']}?wait=result"
                done = (await here.client.get(path)).json()
    assert done["result"]["text"] == "You said 'gate'."


TOKENS = {"runner": ("run-token-0123456789", "run"), "reader": ("read-token-0123456789", "read")}


async def test_each_route_needs_its_scope(root: Path) -> None:
    (root / "pyflue.toml").write_text(
        "[server.tokens]\n" + "".join(f'{n} = {{ token = "{t}", scopes = ["{s}"] }}\n' for n, (t, s) in TOKENS.items()),
        encoding="utf-8",
    )
    async with in_process(root) as here:

        async def ask(name: str, method: str, path: str) -> int:
            headers = {"authorization": f"Bearer {TOKENS[name][0]}"}
            body = {"message": "hi"} if path == ECHO and method == "POST" else None
            return (await here.client.request(method, path, headers=headers, json=body)).status_code

        assert await ask("runner", "POST", ECHO) == 200
        assert await ask("reader", "POST", ECHO) == 403
        assert await ask("reader", "GET", ECHO) == 200
        assert await ask("runner", "GET", ECHO) == 403
        assert await ask("runner", "DELETE", ECHO) == 403
        assert await ask("runner", "DELETE", f"{ECHO}/sessions/default") == 403
        assert await ask("runner", "POST", f"{ECHO}/sessions/default/abort") == 200


async def test_a_file_can_give_each_token_an_instance_of_its_own(root: Path) -> None:
    source = (
        "from pyflue import create_agent\n"
        "agent = create_agent(lambda ctx: {'model': 'scripted/hello'})\n"
        "def authorize(asked):\n"
        "    return asked.request.token_name == asked.instance_id\n"
    )
    (root / "src" / "agents" / "own.py").write_text(source, encoding="utf-8")
    tokens = {name: f"{name}-token-0123456789" for name in ("ada", "bob")}
    (root / "pyflue.toml").write_text(
        "[server.tokens]\n" + "".join(f'{n} = {{ token = "{t}", scopes = ["run"] }}\n' for n, t in tokens.items()),
        encoding="utf-8",
    )
    async with in_process(root) as here:

        async def ask(caller: str, instance_id: str) -> int:
            headers = {"authorization": f"Bearer {tokens[caller]}"}
            path = f"/agents/own/{instance_id}"
            return (await here.client.post(path, json={"message": "hi"}, headers=headers)).status_code

        assert [await ask("ada", "ada"), await ask("ada", "bob"), await ask("bob", "bob")] == [200, 403, 200]


# Streams


@pytest.fixture
async def server(root: Path) -> AsyncGenerator[Address, None]:
    async with on_a_socket(root) as server:
        yield server


async def test_the_events_of_a_prompt_come_with_its_text_and_end_with_it(root: Path, server: Address) -> None:
    async with asyncio.timeout(20), server.client() as client:
        text = ""
        async with client.stream(
            "POST", ECHO, json={"message": "gate"}, headers={"accept": "text/event-stream"}
        ) as answer:
            dispatch_id = answer.headers["x-flue-dispatch-id"]
            other = await client.post(ECHO, json={"message": "hi", "session": "b"})
            async for chunk in answer.aiter_text():
                text += chunk
                if "text_delta" in chunk and "so far" in chunk:
                    open_gate(root)
    assert other.status_code == 200
    frames = frames_of(text)
    live = [frame for frame in frames if frame["event"] == "text_delta"]
    stored = [codec.load(frame["data"].encode()) for frame in frames if "id" in frame]
    assert {event["interaction_id"] for event in stored} == {dispatch_id}
    assert [event["type"] for event in stored] == [
        "interaction_accepted",
        "interaction_start",
        "operation_start",
        "turn_request",
        "turn",
        "operation",
        "interaction_end",
    ]
    assert all("id" not in frame for frame in live)
    assert codec.load(live[0]["data"].encode())["data"]["offset"] == 0
    said = "".join(codec.load(frame["data"].encode())["data"]["text"] for frame in live)
    assert said == ("so far, You said 'gate'.")[: len(said)]


async def test_a_prompt_that_fails_adds_an_error_frame(client: httpx2.AsyncClient) -> None:
    answer = await client.post(ECHO, json={"message": "fail"}, headers={"accept": "text/event-stream"})
    *_, end, error = frames_of(answer.text)
    assert (end["event"], error["event"], "id" in error) == ("interaction_end", "error", False)
    told = codec.load(error["data"].encode())["error"]
    assert (told["type"], told["dispatch_id"]) == ("model_failed", answer.headers["x-flue-dispatch-id"])


async def test_the_stream_of_an_instance_goes_on_and_is_resumed_by_index(server: Address) -> None:
    async with asyncio.timeout(20), server.client() as client:
        await client.post(ECHO, json={"message": "a"})
        seen: list[int] = []
        for headers in ({}, {"last-event-id": "3"}):
            text, indexes = "", list[int]()
            async with client.stream("GET", f"{ECHO}/stream", headers=headers) as answer:
                assert answer.headers["content-type"].startswith("text/event-stream")
                asked = False
                async for chunk in answer.aiter_text():
                    text += chunk
                    indexes = [int(frame["id"]) for frame in frames_of(text[: text.rfind("\n\n") + 2]) if "id" in frame]
                    if not asked:
                        asked = True
                        await client.post(ECHO, json={"message": "b"})
                    if indexes and indexes[-1] >= 14:
                        break
            seen.append(indexes[0])
            assert indexes == list(range(indexes[0], indexes[-1] + 1))
        assert seen == [1, 4]
        page = (await client.get(f"{ECHO}/events?after=2&limit=2")).json()
        assert ([event["index"] for event in page["events"]], page["next_after"]) == ([3, 4], 4)
        schemas.EventList.model_validate(page, strict=True)
        ends = (await client.get(f"{ECHO}/events?types=interaction_end")).json()["events"]
        assert {event["type"] for event in ends} == {"interaction_end"}
        beyond = await client.get(f"{ECHO}/stream?after=1000000")
        assert frames_of(beyond.text)[0]["event"] == "error"


async def test_an_exception_of_the_agents_own_code_is_told_in_dev_only(root: Path) -> None:
    write_agents(root, {"bad": "from pyflue.agents import create_agent\nagent = create_agent(lambda ctx: 1 / 0)\n"})
    for dev in (False, True):
        async with in_process(root, dev=dev) as here:
            answer = await here.client.post("/agents/bad/1", json={"message": "hi"})
            assert error_of(answer) == (500, "dispatch_failed")
            assert ("division by zero" in answer.text) is dev
            streamed = await here.client.post(
                "/agents/bad/1", json={"message": "hi"}, headers={"accept": "text/event-stream"}
            )
            assert ("division by zero" in streamed.text) is dev


def test_a_server_of_a_project_without_agents_imports_nothing_of_them(root: Path) -> None:
    for path in (root / "src" / "agents").iterdir():
        path.unlink()
    script = """
import asyncio, sys
from pyflue import create_app
async def main():
    async with create_app(sys.argv[1]).running():
        print(sorted(name for name in sys.modules if name.startswith("pyflue.agents")))
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", script, str(root)], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
