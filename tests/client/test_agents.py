"""`client.agents` and `client.agent` against a real server."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, field_validator

from pyflue import PyFlueClient
from pyflue.errors import (
    AgentNotFound,
    DispatchCancelled,
    Forbidden,
    InstanceNotFound,
    ModelFailed,
    PayloadInvalid,
    ResultUnavailable,
    SessionBusy,
)
from tests.agent_project import write_agents
from tests.client.client_server import Proxy, a_client, serving


class Bill(BaseModel):
    amount: int


class Strict(BaseModel):
    amount: int

    @field_validator("amount")
    @classmethod
    def even(cls, amount: int) -> int:
        if amount % 2:
            raise ValueError("odd")
        return amount


@pytest.fixture
def root(root: Path) -> Path:
    write_agents(root)
    return root


def open_gate(root: Path) -> None:
    (root / "src" / "agents" / "open").touch()


async def begun(client: PyFlueClient, name: str = "echo", instance_id: str = "one") -> None:
    """Return when a model is being asked."""
    async with asyncio.timeout(10):
        while True:
            try:
                async with aclosing(client.agent(name, instance_id).follow()) as events:
                    async for event in events:
                        if event["type"] == "text_delta":
                            return
            except InstanceNotFound:
                await asyncio.sleep(0.01)


async def test_agents_and_instances_are_listed(client: PyFlueClient) -> None:
    assert [agent["name"] for agent in await client.agents.list()] == ["asks", "broken", "echo", "guarded"]
    assert (await client.agents.get("echo"))["description"] == "Says what it was told."
    with pytest.raises(AgentNotFound):
        await client.agents.get("nobody")
    await client.agent("echo", "one").prompt("hi")
    (instance,) = (await client.agents.instances("echo"))["instances"]
    assert instance["instance_id"] == "one"


async def test_a_prompt_is_answered_and_remembered(client: PyFlueClient) -> None:
    agent = client.agent("echo", "one")
    reply = await agent.prompt("hi")
    assert (reply.text, reply.data, reply.session, reply.turns) == ("You said 'hi'.", None, "default", 1)
    assert reply.operation_id == f"{reply.dispatch_id}/prompt"
    assert (await agent.prompt("count")).text == "3"
    assert (await agent.dispatch_status(reply.dispatch_id))["result"]["text"] == reply.text
    assert [item["session"] for item in await agent.sessions()] == ["default"]
    page = await agent.history(limit=3)
    assert ([entry["position"] for entry in page["entries"]], page["next_after"]) == ([1, 2, 3], 3)
    events = (await agent.events(types=["interaction_end"]))["events"]
    assert [event["data"]["status"] for event in events] == ["completed", "completed"]
    await agent.delete_session()
    assert (await agent.prompt("count")).text == "1"
    await agent.delete()
    with pytest.raises(InstanceNotFound):
        await agent.get()


async def test_data_comes_as_its_type(client: PyFlueClient) -> None:
    agent = client.agent("echo")
    assert (await agent.prompt("how much?", result=Bill)).data == Bill(amount=3)
    assert (await agent.prompt("how much?", result={"type": "object"})).data == {"amount": 3}
    with pytest.raises(ResultUnavailable) as refused:
        await agent.prompt("how much?", result=Strict)
    assert (await agent.dispatch_status(str(refused.value.dispatch_id)))["status"] == "completed"


async def test_failures_come_as_what_they_are(client: PyFlueClient) -> None:
    with pytest.raises(ModelFailed) as failed:
        await client.agent("echo").prompt("fail")
    assert failed.value.status == 502
    assert (await client.agent("echo").dispatch_status(str(failed.value.dispatch_id)))["status"] == "failed"
    with pytest.raises(PayloadInvalid):
        await client.agent("echo").prompt(" ")
    with pytest.raises(Forbidden, match="does not allow this caller to prompt 'x'"):
        await client.agent("guarded", "x").prompt("hi")


async def test_an_answer_that_takes_longer_than_the_server_waits_is_waited_for(root: Path) -> None:
    async with serving(root, wait_s=0.1) as url, a_client(url) as client, asyncio.timeout(20):
        asking = asyncio.ensure_future(client.agent("echo", "one").prompt("gate"))
        await begun(client)
        with pytest.raises(SessionBusy):
            await client.agent("echo", "one").prompt("hi")
        open_gate(root)
        assert (await asking).text == "so far, You said 'gate'." or (await asking).text == "You said 'gate'."
        failing = await client.agent("echo", "one").dispatch("fail")
        done = await client.agent("echo", "one").dispatch_status(failing["dispatch_id"], wait=True)
        assert (done["status"], done["error"]["type"]) == ("failed", "model_failed")


async def test_a_prompt_is_streamed_with_its_text(root: Path, client: PyFlueClient) -> None:
    types: list[str] = []
    async with asyncio.timeout(20), aclosing(client.agent("echo", "one").stream("gate")) as events:
        async for event in events:
            types.append(event["type"])
            if event["type"] == "text_delta":
                open_gate(root)
    assert types[0] == "interaction_accepted"
    assert "text_delta" in types
    assert types[-1] == "interaction_end"


async def test_a_stream_that_breaks_is_taken_up_again(root: Path, server: str) -> None:
    open_gate(root)
    async with a_client(server) as direct:
        await direct.agent("echo", "one").prompt("before")
    proxy = Proxy(server, lambda connection: 1500 if connection < 2 else None)
    async with (
        proxy.running() as url,
        a_client(url) as client,
        asyncio.timeout(20),
        aclosing(client.agent("echo", "one").stream("hi")) as events,
    ):
        stored = [event async for event in events if "index" in event]
    assert proxy.connections > 1
    assert [event["type"] for event in stored] == [
        "interaction_accepted",
        "interaction_start",
        "operation_start",
        "turn_request",
        "turn",
        "operation",
        "interaction_end",
    ]
    assert [event["index"] for event in stored] == list(range(8, 15))


async def test_a_dispatch_is_followed_aborted_and_cancelled(client: PyFlueClient) -> None:
    agent = client.agent("echo", "one")
    first = await agent.dispatch({"gate": 1}, idempotency_key="k")
    assert await agent.dispatch({"gate": 1}, idempotency_key="k") == first
    done = await agent.dispatch_status(first["dispatch_id"], wait=True)
    assert done["result"]["text"] == """You said '{"gate":1}'."""
    held = await agent.dispatch("gate")
    waiting = await agent.dispatch("later")
    async with asyncio.timeout(10), aclosing(agent.follow(first_after(done))) as events:
        async for event in events:
            if event["type"] == "text_delta":
                break
    assert (await agent.cancel(waiting["dispatch_id"]))["status"] == "cancelled"
    assert await agent.abort() == {"aborted": True, "dispatch_id": held["dispatch_id"]}
    listed = (await agent.dispatches())["dispatches"]
    assert [item["status"] for item in listed] == ["cancelled", "cancelled", "completed"]


def first_after(record: dict[str, Any]) -> int:
    return 0 if record["finished_at"] is None else 1


async def test_one_socket_carries_several_prompts(client: PyFlueClient) -> None:
    seen: list[dict[str, Any]] = []
    async with asyncio.timeout(20), client.agent("echo", "one").connect() as talk:
        assert (await talk.prompt("hi", on_event=seen.append)).text == "You said 'hi'."
        assert seen[-1]["type"] == "interaction_end"
        with pytest.raises(ModelFailed) as failed:
            await talk.prompt("fail")
        assert failed.value.dispatch_id is not None
        with pytest.raises(PayloadInvalid):
            await talk.prompt("")
        assert (await talk.prompt("how much?", result=Bill, session="b")).data == Bill(amount=3)

        def abort(event: dict[str, Any]) -> None:
            if event["type"] == "text_delta":
                tasks.create_task(talk.abort())

        async with asyncio.TaskGroup() as tasks:
            with pytest.raises(DispatchCancelled):
                await talk.prompt("gate", on_event=abort)
        assert (await talk.prompt("hi")).text == "You said 'hi'."
