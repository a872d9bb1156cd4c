"""Models by name and in lists: who is asked, who is shared, who is closed."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pyflue.agents.content import Text, user
from pyflue.agents.models import (
    FallbackModel,
    Model,
    ModelReply,
    ModelRequest,
    ModelSetup,
    ProviderSettings,
    ScriptedModel,
    ScriptedReply,
    close_all,
    find_model,
    registry,
)
from pyflue.errors import ContextOverflow, ModelError, ModelFailed, ModelKeyMissing, ModelUnknown
from tests.provider_server import overloaded, provider_server, say

HI = ModelRequest(messages=[user("Hi")])
DOWN = ScriptedReply(error={"is_retryable": True, "retry_after_s": 9.0})
LIMITED = ScriptedReply(error={"is_retryable": True, "retry_after_s": 2.0, "status": 429})


def failing(error: Any, text: str = "") -> ScriptedModel:
    return ScriptedModel([ScriptedReply(text=text, error=error)], id="scripted/failing", context_tokens=500)


async def ask(model: Model) -> ModelReply:
    async with asyncio.timeout(20), contextlib.aclosing(model.stream(HI)) as items:
        reply = [item async for item in items][-1]
    assert isinstance(reply, ModelReply)
    return reply


@pytest.mark.parametrize(
    "error",
    [
        {"is_retryable": True},
        {"is_retryable": False, "status": 503},
        ModelKeyMissing("a/b", "A_KEY"),
        ModelUnknown("no such model"),
    ],
)
async def test_the_next_is_asked_when_one_cannot_answer(error: Any) -> None:
    model = FallbackModel([failing(error), ScriptedModel(["I can."], id="scripted/able"), ScriptedModel(["Me?"])])
    reply = await ask(model)
    assert (reply.blocks, reply.model) == ((Text("I can."),), "scripted/able")


@pytest.mark.parametrize("error", [{"is_retryable": False, "status": 401}, ContextOverflow("too long")])
async def test_what_is_wrong_with_the_request_is_not_asked_twice(error: Any) -> None:
    with pytest.raises(ModelError):
        await ask(FallbackModel([failing(error), ScriptedModel(["I can."])]))


async def test_who_has_spoken_is_not_replaced() -> None:
    with pytest.raises(ModelFailed):
        await ask(FallbackModel([failing({"is_retryable": True}, "We"), ScriptedModel(["I can."])]))


@pytest.mark.parametrize(
    ("replies", "retry_after_s"), [((DOWN, LIMITED), 2.0), ((LIMITED, ScriptedReply(error=ModelUnknown("x"))), 2.0)]
)
async def test_if_nobody_answers_the_failure_that_passes_first_is_told(
    replies: Sequence[ScriptedReply], retry_after_s: float
) -> None:
    with pytest.raises(ModelFailed) as raised:
        await ask(FallbackModel([ScriptedModel([reply]) for reply in replies]))
    assert raised.value.retry_after_s == retry_after_s


def test_a_list_is_as_able_as_its_weakest() -> None:
    models = [failing(None), ScriptedModel(["x"], has_schema_mode=False, context_tokens=200), ScriptedModel(["x"])]
    model = FallbackModel(models)
    assert (model.id, model.provider, model.context_tokens, model.has_schema_mode) == (
        "scripted/failing | scripted/code | scripted/code",
        "fallback",
        200,
        False,
    )
    with pytest.raises(ValueError, match="at least one model"):
        FallbackModel([])


async def test_a_list_of_names_goes_from_provider_to_provider() -> None:
    async with provider_server([overloaded(), say("Here I am.")]) as server:
        names = ["anthropic/claude-haiku-4-5", "openai/gpt-4.1"]
        try:
            reply = await ask(find_model(names, providers=server.providers, env=server.env))
        finally:
            await close_all()
        assert [request.provider for request in server.requests] == ["anthropic", "openai"]
    assert (reply.model, reply.blocks) == ("openai/gpt-4.1", (Text("Here I am."),))


@pytest.mark.parametrize("name", ["scripted/hello", "scripted:hello", " scripted/hello ", ["scripted/hello"]])
def test_a_model_is_known_by_provider_and_name(name: Any) -> None:
    assert find_model(name).id == "scripted/hello"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("claude-haiku-4-5", "Write provider/model"),
        ("", "Write provider/model"),
        ("../x", "Write provider/model"),
        ("scripted/", "Write provider/model"),
        ("nobody/x", r"no model provider 'nobody'. Known: anthropic, .*openai, scripted"),
        ([], "at least one"),
    ],
)
def test_names_that_are_none_are_explained(name: Any, said: str) -> None:
    with pytest.raises(ModelUnknown, match=said):
        find_model(name)


async def test_everybody_shares_a_model_until_all_are_closed() -> None:
    settings = {"openai": ProviderSettings(headers={"X": "1"})}
    env = {"OPENAI_API_KEY": "sk-1", "OTHER": "1"}
    model = find_model("openai/gpt-5", providers=settings, env=env)
    assert find_model("openai:gpt-5", providers=dict(settings), env={**env, "OTHER": "2"}) is model
    assert find_model("openai/gpt-5", providers=settings, env={"OPENAI_API_KEY": "sk-2"}) is not model
    assert find_model("openai/gpt-5", env=env) is not model
    await close_all()
    assert find_model("openai/gpt-5", providers=settings, env=env) is not model
    with pytest.raises(ModelFailed, match="closed"):
        await ask(model)
    await close_all()


def test_each_event_loop_has_its_own() -> None:
    async def find() -> Model:
        return find_model("openai/gpt-5", env={})

    assert asyncio.run(find()) is not asyncio.run(find())
    assert find_model("openai/gpt-5", env={}) is not find_model("openai/gpt-5", env={})


PLUGIN = """
from pyflue.agents.models import ScriptedModel

def model(setup):
    return ScriptedModel([f"{setup.name} for {setup.env['NAME']}"], id=setup.id)
"""


async def test_a_provider_can_be_plugged_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plugged_models.py").write_text(PLUGIN, encoding="utf-8")
    info = tmp_path / "plugged-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged\nVersion: 1\n", encoding="utf-8")
    points = "[pyflue.models]\nmine = plugged_models:model\nbroken = plugged_models:gone\n"
    (info / "entry_points.txt").write_text(points, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry._entry_points.cache_clear()
    try:
        reply = await ask(find_model("mine/parrot", env={"NAME": "you"}))
        assert (reply.model, reply.blocks) == ("mine/parrot", (Text("parrot for you"),))
        with pytest.raises(ModelUnknown, match=r"'broken' .* cannot be loaded: AttributeError"):
            find_model("broken/x")
    finally:
        registry._entry_points.cache_clear()
        await close_all()


def test_our_own_providers_are_entry_points_too() -> None:
    import tomllib

    root = Path(__file__).parents[3]
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["entry-points"][registry.ENTRY_POINT_GROUP] == registry._OURS


def test_secrets_are_not_shown() -> None:
    settings = ProviderSettings(headers={"Authorization": "secret"})
    setup = ModelSetup(id="a/b", provider="a", name="b", settings=settings, env={"A_KEY": "secret"}, root=Path())
    assert "secret" not in repr(settings) + repr(setup)


def test_no_library_of_a_provider_is_imported_before_its_first_use() -> None:
    code = """
import asyncio, sys
from pyflue.agents import models
from pyflue.agents.content import user
heavy = {"anthropic", "openai", "genai_prices", "httpx2", "pydantic"}
for name in models.__all__:
    getattr(models, name)
async def main():
    for name in ("anthropic/claude-haiku-4-5", "openai/gpt-5", "scripted/hello"):
        model = models.find_model(name, env={})
    async for item in model.stream(models.ModelRequest(messages=[user("Hi")])):
        pass
asyncio.run(main())
print(heavy & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("set()\n", "")
