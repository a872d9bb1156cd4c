"""The scripted model: answers by the conversation, from a list, a function or a file."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from pyflue.agents.content import Message, Text, Thinking, ToolUse, Usage, user
from pyflue.agents.models import (
    Model,
    ModelReply,
    ModelRequest,
    ScriptedModel,
    ScriptedReply,
    StopReason,
    TextDelta,
    find_model,
)
from pyflue.errors import ContextOverflow, ModelFailed, ModelUnknown


def request(*texts: str, **fields: Any) -> ModelRequest:
    """A conversation of texts, the user's first."""
    roles = ("user", "assistant")
    messages = [Message(roles[index % 2], (Text(text),)) for index, text in enumerate(texts)]  # pyright: ignore[reportArgumentType]
    return ModelRequest(messages=messages, **fields)


async def reply_of(model: Model, asked: ModelRequest) -> ModelReply:
    reply = [item async for item in model.stream(asked)][-1]
    assert isinstance(reply, ModelReply)
    return reply


async def text_of(model: Model, asked: ModelRequest) -> str:
    return Message("assistant", (await reply_of(model, asked)).blocks).text


async def test_the_turn_of_the_conversation_chooses_the_answer() -> None:
    model = ScriptedModel(["first", "second"])
    again = ScriptedModel(["first", "second"])
    for one in (model, model, again):
        assert await text_of(one, request("Hi")) == "first"
        assert await text_of(one, request("Hi", "first", "And?")) == "second"


async def test_a_script_that_has_come_to_its_end_says_so() -> None:
    model = ScriptedModel(["only"])
    with pytest.raises(ModelFailed, match=r"scripted/code has 1 answers, and the conversation has come to turn 2\."):
        await text_of(model, request("Hi", "only", "And?"))


async def test_an_answer_has_every_part_that_a_reply_has() -> None:
    usage = Usage(input_tokens=1000, output_tokens=7)
    answer = ScriptedReply(
        text="I look.",
        thinking="Where?",
        tool_calls=[("read", {"path": "a"}), {"name": "read", "input": {}, "id": "mine"}, ("read", "no object")],
        usage=usage,
    )
    reply = await reply_of(ScriptedModel([answer]), request("Hi"))
    made = [block.id for block in reply.blocks if isinstance(block, ToolUse)]
    assert reply == ModelReply(
        blocks=(
            Thinking(text="Where?"),
            Text("I look."),
            ToolUse(id=made[0], name="read", input={"path": "a"}),
            ToolUse(id="mine", name="read", input={}),
            ToolUse(id=made[2], name="read", input={}, malformed="no object"),
        ),
        stop_reason=StopReason.TOOL_USE,
        usage=usage,
        model="scripted/code",
    )


async def test_ids_are_the_same_after_a_restart_and_differ_between_conversations() -> None:
    def ids(reply: ModelReply) -> list[str]:
        return [block.id for block in reply.blocks if isinstance(block, ToolUse)]

    answers = [ScriptedReply(tool_calls=[("a", {}), ("a", {})])] * 2
    first = ids(await reply_of(ScriptedModel(answers), request("Hi")))
    assert first == ids(await reply_of(ScriptedModel(answers), request("Hi")))
    second = ids(await reply_of(ScriptedModel(answers), request("Hi", "…", "And?")))
    other = ids(await reply_of(ScriptedModel(answers), request("Hello")))
    assert len({*first, *second, *other}) == 6


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ({"total": 3, "text": "x"}, '{"total":3,"text":"x"}'),
        ({"data": {"text": "x"}}, '{"text":"x"}'),
        ({"text": "x"}, "x"),
        ({}, "{}"),
        ([1, 2], "[1,2]"),
        ("half \ud800", "half \ufffd"),
    ],
)
async def test_data_is_answered_as_json(answer: Any, text: str) -> None:
    assert await text_of(ScriptedModel([answer]), request("Hi")) == text


async def test_a_function_gets_the_request() -> None:
    async def later(asked: ModelRequest) -> str:
        await asyncio.sleep(0)
        return f"{asked.system}: {asked.messages[-1].text}"

    assert await text_of(ScriptedModel(later), request("Hi", system="S")) == "S: Hi"
    assert await text_of(ScriptedModel(lambda asked: {"n": len(asked.messages)}), request("Hi")) == '{"n":1}'


async def test_a_function_that_fails_is_a_failure_of_the_model() -> None:
    def broken(_asked: ModelRequest) -> str:
        raise LookupError("no such thing")

    with pytest.raises(ModelFailed, match="scripted/code: its function failed: LookupError: no such thing") as raised:
        await text_of(ScriptedModel(broken), request("Hi"))
    assert not raised.value.is_retryable

    def overflows(_asked: ModelRequest) -> str:
        raise ContextOverflow("too long")

    with pytest.raises(ContextOverflow):
        await text_of(ScriptedModel(overflows), request("Hi"))


async def test_an_error_comes_after_the_text() -> None:
    failure = ScriptedReply(
        text="We", error={"message": "cut", "is_retryable": True, "retry_after_s": 2, "status": 529}
    )
    items = ScriptedModel([failure]).stream(request("Hi"))
    assert await anext(items) == TextDelta("We")
    with pytest.raises(ModelFailed, match="cut") as raised:
        await anext(items)
    error = raised.value
    assert (error.is_retryable, error.retry_after_s, error.provider_status) == (True, 2, 529)
    for given in ("plain", KeyError("mine")):
        with pytest.raises((ModelFailed, KeyError), match=r"plain|mine"):
            await text_of(ScriptedModel([ScriptedReply(error=given)]), request("Hi"))


async def test_usage_is_estimated_from_characters() -> None:
    reply = await reply_of(ScriptedModel(["x" * 40]), request("y" * 400, system="z" * 40))
    assert (reply.usage.input_tokens, reply.usage.output_tokens) == (110, 10)


async def test_a_delay_comes_before_the_answer() -> None:
    started = time.monotonic()
    assert await text_of(ScriptedModel(["late"], delay_s=0.02), request("Hi")) == "late"
    assert time.monotonic() - started >= 0.02


async def test_a_long_text_comes_in_a_bounded_number_of_pieces() -> None:
    items = [item async for item in ScriptedModel(["x" * 1_000_000]).stream(request("Hi"))]
    assert sum(isinstance(item, TextDelta) for item in items) == 64


async def test_hello_says_that_it_is_scripted() -> None:
    model = find_model("scripted/hello")
    first = await text_of(model, request("Hi"))
    assert "scripted model" in first
    assert await text_of(model, request("Hi", first, "And?")) == first


async def test_a_script_is_read_from_a_file_of_the_project(tmp_path: Path) -> None:
    answers = ["Hello.", {"tool_calls": [{"name": "read", "input": {}}], "stop_reason": "max_tokens"}, {"total": 3}]
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "a.json").write_text(json.dumps({"answers": answers}), encoding="utf-8")
    model = find_model("scripted/scripts/a.json", root=tmp_path)
    assert model.id == "scripted/scripts/a.json"
    assert await text_of(model, request("Hi")) == "Hello."
    assert (await reply_of(model, request("Hi", "…", "And?"))).stop_reason is StopReason.MAX_TOKENS
    assert await text_of(model, request("1", "2", "3", "4", "5")) == '{"total":3}'
    (tmp_path / "scripts" / "a.json").write_text('["Changed."]', encoding="utf-8")
    assert await text_of(find_model("scripted/scripts/a.json", root=tmp_path), request("Hi")) == "Changed."


@pytest.mark.parametrize("content", ["{", "[]", "{}", '"text"', '{"answers": 3}', "[NaN]"])
def test_a_file_that_is_no_script_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_text(content, encoding="utf-8")
    with pytest.raises(ModelUnknown, match=r"scripted/a\.json: a\.json cannot be used"):
        find_model("scripted/a.json", root=tmp_path)


@pytest.mark.parametrize(
    "name", ["scripted/nobody", "scripted/gone.json", "scripted/../a.json", "scripted//etc/a.json"]
)
def test_a_script_that_is_not_there_or_not_in_the_project_is_unknown(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.json").write_text('["Hi"]', encoding="utf-8")
    (tmp_path / "project").mkdir()
    with pytest.raises(ModelUnknown):
        find_model(name, root=tmp_path / "project")


def test_a_link_does_not_lead_out_of_the_project(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('["Hi"]', encoding="utf-8")
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "b.json").symlink_to(tmp_path / "a.json")
    with pytest.raises(ModelUnknown, match="outside of the project"):
        find_model("scripted/b.json", root=tmp_path / "project")


async def test_a_turn_costs_next_to_nothing() -> None:
    model = ScriptedModel(lambda _asked: "Yes.")
    asked = ModelRequest(messages=[user("Hi")] * 20)
    started = time.perf_counter()
    for _ in range(200):
        await reply_of(model, asked)
    assert (time.perf_counter() - started) / 200 < 0.001
