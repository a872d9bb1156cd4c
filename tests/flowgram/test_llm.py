"""The llm node, against a server that speaks as OpenAI does."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import pyflue.flowgram as fg
from pyflue import graph_models
from pyflue.flowgram.asking import Question, register_asker
from pyflue.settings import load_settings
from tests.promises import promise
from tests.provider_server import failing, provider_server, rate_limited, say, unauthorized

from .graphs import Json, const, end, fields, graph, node, ref, start

INPUTS = {
    "modelName": "m1",
    "apiKey": "sk-secret-1",
    "apiHost": "",
    "temperature": 0.5,
    "prompt": "Say {{start.q}}",
    "systemPrompt": "Be brief.",
}


def asking(host: str, **changes: Any) -> Json:
    values = {name: value for name, value in {**INPUTS, "apiHost": host, **changes}.items() if value is not None}
    typed = {name: "number" if name == "temperature" else "string" for name in values}
    written = {
        name: {"type": "template", "content": value} if name == "prompt" else const(value)
        for name, value in values.items()
    }
    work = node("w", "llm", inputs=fields(**typed), inputsValues=written, outputs=fields(result="string"))
    return graph([start(q="string"), work, end({"a": ref("w", "result")}, a="string")], "start -> w -> end")


async def failure(made: Json) -> str:
    with pytest.raises(fg.NodeFailed) as failed:
        await fg.run(made, {"q": "x"})
    return failed.value.message


async def test_a_model_is_asked_with_its_prompts_and_temperature() -> None:
    fg.allow_hosts("127.0.0.1")
    async with provider_server([say("Hello."), say("")]) as server:
        made = asking(server.providers["openai"].base_url or "")
        assert await fg.run(made, {"q": "hello"}) == {"a": "Hello."}
        assert await fg.run(made, {"q": "nothing"}) == {"a": ""}
        body = server.requests[0].body
        assert (body["model"], body["temperature"]) == ("m1", 0.5)
        assert [(m["role"], m["content"]) for m in body["messages"]] == [("system", "Be brief."), ("user", "Say hello")]
        assert server.requests[0].headers["authorization"] == "Bearer sk-secret-1"


async def test_trouble_that_passes_is_tried_again_and_other_trouble_is_told() -> None:
    fg.allow_hosts("127.0.0.1")
    async with provider_server([rate_limited(retry_after="0"), say("After all."), unauthorized()]) as server:
        made = asking(server.providers["openai"].base_url or "")
        assert await fg.run(made, {"q": "x"}) == {"a": "After all."}
        assert "401" in await failure(made)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (
            asking("https://x.example", modelName=None, apiKey=None, temperature=None),
            "LLM node missing required inputs: 'modelName', 'apiKey', 'temperature'",
        ),
        (asking("", apiKey=None, prompt=None), "LLM node missing required inputs: 'apiKey', 'apiHost', 'prompt'"),
        (asking("ftp://x.example"), "Invalid API host - 'ftp://x.example'"),
        (asking("http://user@x.example"), "Invalid API host - 'http://user@x.example'"),
        (asking("http://x.example:no"), "Invalid API host - 'http://x.example:no'"),
    ],
)
async def test_what_is_missing_is_told(made: Json, message: str) -> None:
    assert await failure(made) == message


async def test_a_server_that_cannot_be_reached_is_told() -> None:
    assert "which is not public" in await failure(asking("http://127.0.0.1:1/v1"))
    fg.allow_hosts("127.0.0.1")
    assert await failure(asking("http://127.0.0.1:1/v1")) == 'Network error: unreachable api "http://127.0.0.1:1/v1"'


@promise("flowgram.network")
async def test_the_connection_to_a_model_goes_to_an_address_that_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    async with provider_server([say("never")]) as server:
        port = urlsplit(server.providers["openai"].base_url or "").port
        asked: list[str] = []

        async def answers(name: str, port: int, **more: Any) -> Any:
            asked.append(name)
            # Public for whoever asks first, ours from then on.
            address = "93.184.216.34" if len(asked) == 1 else "127.0.0.1"
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", answers)
        message = await failure(asking(f"http://rebinds.example:{port}/v1"))
        assert "The address of 'rebinds.example' is 127.0.0.1, which is not public" in message
        assert (asked, server.requests) == (["rebinds.example", "rebinds.example"], [])


async def test_a_model_that_sends_elsewhere_is_followed_to_public_addresses_only() -> None:
    async with provider_server(
        [failing(307, "overloaded", location="http://localhost:9/v1/chat/completions")]
    ) as server:
        url = server.providers["openai"].base_url or ""
        fg.allow_hosts(urlsplit(url).netloc)
        message = await failure(asking(url))
        assert "The address of 'localhost' is" in message
        assert len(server.requests) == 1


async def test_a_model_of_the_project_is_named_as_agents_do(tmp_path: Path) -> None:
    graph_models.for_project(load_settings(tmp_path))
    try:
        made = asking("", modelName="scripted/hello", apiKey=None, temperature=None)
        assert (await fg.run(made, {"q": "x"}))["a"]
        assert "no model provider" in await failure(asking("", modelName="nobody/x", apiKey=None))
    finally:
        register_asker(None)


async def test_whoever_is_registered_is_asked() -> None:
    asked: list[Question] = []

    async def ask(question: Question) -> str:
        asked.append(question)
        return "mine"

    register_asker(ask)
    try:
        assert await fg.run(asking("", modelName="any/model", apiKey=None, systemPrompt=None), {"q": "x"}) == {
            "a": "mine"
        }
    finally:
        register_asker(None)
    assert asked == [Question(model="any/model", prompt="Say x", temperature=0.5)]
