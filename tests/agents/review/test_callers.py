"""Defects that a review of the routes about agents found, each as a caller saw it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import httpx2
import pytest

from tests.agent_project import write_agents
from tests.server.harness import in_process, write_project

_KEEPS = """
from pyflue.agents import create_agent
from pyflue.agents.models.scripted import ScriptedModel, ScriptedReply


def answer(request):
    said = request.messages[-1]
    if said.text.startswith("run "):
        return ScriptedReply(tool_calls=[("bash", {"command": said.text[4:]})])
    if said.text.startswith("task "):
        return ScriptedReply(tool_calls=[("task", {"prompt": said.text[5:]})])
    if said.text.startswith("say "):
        return said.text[4:]
    if said.text:
        return str(len(request.messages))
    return said.blocks[-1].content[0].text


agent = create_agent(
    lambda ctx: {
        "model": ScriptedModel(answer), "sandbox": "local", "policy": {"shell": True}, "persist": ctx.id != "forgets"
    }
)


def authorize(request):
    if request.instance_id == "breaks" and request.action == "read":
        raise KeyError("a bug")
"""
_RAISES = """
from pyflue.agents import create_agent, tool
from pyflue.agents.models.scripted import ScriptedModel, ScriptedReply


@tool
def look() -> str:
    "Look."
    raise ValueError("planted-4711")


class Model(ScriptedModel):
    async def stream(self, request):
        if request.messages[0].text == "part":
            raise ValueError("planted-4711")
        async for item in super().stream(request):
            yield item


def answer(request):
    if len(request.messages) > 1:
        return "done"
    return ScriptedReply(tool_calls=[("look", {}), ("task", {"prompt": "part"})])


agent = create_agent(lambda ctx: {"model": Model(answer)})
"""


@pytest.fixture
async def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[httpx2.AsyncClient]:
    monkeypatch.delenv("PYFLUE_TOKEN", raising=False)
    write_project(tmp_path)
    write_agents(tmp_path, {"keeps": _KEEPS, "raises": _RAISES})
    async with in_process(tmp_path) as here:
        yield here.client


async def said(client: httpx2.AsyncClient, instance: str, message: str) -> str:
    answer = await client.post(f"/agents/keeps/{instance}", json={"message": message})
    return answer.json()["result"]["text"]


async def test_the_same_idempotency_key_at_another_instance_is_another_request(client: httpx2.AsyncClient) -> None:
    async def hand_in(instance: str) -> str:
        headers = {"idempotency-key": "1"}
        answer = await client.post(f"/agents/keeps/{instance}/dispatch", json={"input": "x"}, headers=headers)
        assert answer.json()["stream_id"] == f"agent:keeps:{instance}"
        return answer.json()["dispatch_id"]

    first = await hand_in("alice")
    assert await hand_in("bob") != first
    assert await hand_in("alice") == first


async def test_an_instance_that_was_deleted_leaves_no_files_to_its_successor(client: httpx2.AsyncClient) -> None:
    await said(client, "one", "run echo private > note.txt")
    assert "private" in await said(client, "one", "run cat note.txt")
    answer = await client.delete("/agents/keeps/one", headers={"content-type": "application/json"})
    assert answer.status_code == 204
    assert "private" not in await said(client, "one", "run cat note.txt")


async def test_an_agent_that_does_not_persist_begins_anew_each_time(client: httpx2.AsyncClient) -> None:
    assert [await said(client, "goes-on", "x"), await said(client, "goes-on", "x")] == ["1", "3"]
    assert [await said(client, "forgets", "x"), await said(client, "forgets", "x")] == ["1", "1"]


async def test_a_hook_that_breaks_for_one_instance_hides_only_that_one(client: httpx2.AsyncClient) -> None:
    await said(client, "breaks", "x")
    await said(client, "works", "x")
    answer = await client.get("/agents/keeps/instances")
    assert [found["instance_id"] for found in answer.json()["instances"]] == ["works"]


async def test_a_caller_is_not_told_what_an_authors_exception_says_in_a_tool_or_a_task(
    client: httpx2.AsyncClient,
) -> None:
    headers = {"accept": "text/event-stream"}
    answer = await client.post("/agents/raises/one", json={"message": "x"}, headers=headers)
    assert answer.text.count("event: tool_end") == 2
    assert "planted-4711" not in answer.text


async def test_a_callers_pattern_does_not_stop_the_server(client: httpx2.AsyncClient) -> None:
    # The model answers with 41 characters, for which Python's own engine would need years.
    schema = {"type": "string", "pattern": "^(a+)+$"}
    body = {"message": f'say "{"a" * 40}!"', "schema": schema}
    answer = await client.post("/agents/keeps/one", json=body)
    assert (answer.status_code, answer.json()["error"]["details"]["type"]) == (500, "result_unavailable")
    fitting = await client.post("/agents/keeps/two", json={"message": 'say "aaa"', "schema": schema})
    assert fitting.json()["result"]["data"] == "aaa"
    refused = await client.post("/agents/keeps/one", json={"message": "x", "schema": {"pattern": "(?=a)"}})
    assert (refused.status_code, refused.json()["error"]["type"]) == (422, "payload_invalid")


async def test_with_a_session_the_conversations_of_its_tasks_are_forgotten(client: httpx2.AsyncClient) -> None:
    await said(client, "one", "task private")
    sessions = (await client.get("/agents/keeps/one/sessions")).json()["sessions"]
    assert sorted(found["task_of"] or "" for found in sessions) == ["", "default"]
    headers = {"content-type": "application/json"}
    assert (await client.delete("/agents/keeps/one/sessions/default", headers=headers)).status_code == 204
    assert (await client.get("/agents/keeps/one/sessions")).json() == {"sessions": []}
