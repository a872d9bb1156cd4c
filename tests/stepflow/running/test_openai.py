"""`/openai`: a chat model as a component, against a server that speaks as OpenAI does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pyflue import flow_models
from pyflue.stepflow import project
from pyflue.stepflow.outcome import Failed, Success
from pyflue.stepflow.project import Question
from tests.provider_server import provider_server, rate_limited, say, unauthorized

from .flows import run

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Say hello"},
]


@pytest.fixture(autouse=True)
def asker(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("PYFLUE_MODEL", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    earlier = project._asker  # pyright: ignore[reportPrivateUsage]  (one for the process, put back below)
    project._asker = None  # pyright: ignore[reportPrivateUsage]
    yield
    project._asker = earlier  # pyright: ignore[reportPrivateUsage]


def asking(server: Any) -> None:
    """Let flows ask a server."""

    async def ask(question: Question) -> str:
        return await flow_models.ask(question, providers=server.providers)

    project.register(asker=ask)


async def ask(**given: Any) -> Any:
    flow = {
        "steps": [{"id": "s", "component": "/builtin/openai", "input": {"messages": MESSAGES, **given}}],
        "output": {"$step": "s", "path": "response"},
    }
    return await run(flow)


async def test_messages_go_to_the_model_of_the_original_with_the_key_of_the_step() -> None:
    async with provider_server([say("Hello."), say("")]) as server:
        asking(server)
        first = await ask(api_key="sk-of-this-step", max_tokens=50, temperature=0.25)
        empty = await ask(api_key="sk-of-this-step")
        request = server.requests[0]

    assert (first, empty) == (Success("Hello."), Success(""))
    assert (request.body["model"], request.body["temperature"]) == ("gpt-3.5-turbo", 0.25)
    assert 50 in (request.body.get("max_tokens"), request.body.get("max_completion_tokens"))
    assert [(m["role"], m["content"]) for m in request.body["messages"]] == [
        ("system", "Be brief."),
        ("user", "Say hello"),
    ]
    assert request.headers["authorization"] == "Bearer sk-of-this-step"


async def test_trouble_that_passes_is_tried_again_and_other_trouble_is_the_failure_of_the_step() -> None:
    async with provider_server([rate_limited(retry_after="0"), say("After all."), unauthorized()]) as server:
        asking(server)
        assert await ask(api_key="k") == Success("After all.")
        refused = await ask(api_key="sk-planted-secret")

    assert isinstance(refused, Failed)
    assert "401" in refused.message
    assert "sk-planted-secret" not in str(refused)


async def test_without_a_key_the_failure_names_the_variable_and_the_way_without_a_provider() -> None:
    outcome = await ask()

    assert isinstance(outcome, Failed)
    assert "OPENAI_API_KEY" in outcome.message


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        ([{"role": "robot", "content": "x"}], "it has to be one of system, user, assistant, and is 'robot'"),
        ([{"role": "assistant", "content": "x"}], "have to begin with one of the user"),
        ([], "have to begin with one of the user"),
        ([{"role": "user"}], "field 'content': it is missing"),
        ("hello", "it has to be a list, and is a text"),
    ],
)
async def test_messages_that_are_none(messages: Any, why: str) -> None:
    outcome = await ask(messages=messages, api_key="k")

    assert isinstance(outcome, Failed)
    assert why in outcome.message
