"""The contract of the model port. Every adapter passes it: two through their provider's own library, one by itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest

from pyflue.agents.content import Document, Image, Message, Text, Thinking, ToolResult, ToolUse, Usage, user
from pyflue.agents.models import (
    Model,
    ModelReply,
    ModelRequest,
    ProviderSettings,
    ScriptedModel,
    ScriptedReply,
    StopReason,
    StreamItem,
    TextDelta,
    ThinkingLevel,
    ToolSpec,
    close_all,
    find_model,
)
from pyflue.errors import ContextOverflow, ModelError, ModelFailed, ModelKeyMissing, ModelUnknown
from tests.provider_server import (
    Answer,
    ProviderServer,
    ToolCall,
    failing,
    held,
    html_page,
    not_found,
    overflow,
    overloaded,
    provider_server,
    rate_limited,
    say,
    unauthorized,
    use_tools,
)

NAMES = {"anthropic": "anthropic/claude-haiku-4-5", "openai": "openai/gpt-4.1"}
STORY = "Once upon a time there was a story that was long enough."
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
READ = ToolSpec(
    name="read",
    description="Read a file.",
    input_schema={"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
)


@dataclass
class Subject:
    """An adapter, and the server it talks to, if it does."""

    model: Model
    server: ProviderServer | None


Asking = Callable[[Sequence[Answer]], AbstractAsyncContextManager[Subject]]


@asynccontextmanager
async def _wired(name: str, answers: Sequence[Answer]) -> AsyncIterator[Subject]:
    async with provider_server(answers) as server:
        try:
            yield Subject(find_model(NAMES[name], providers=server.providers, env=server.env), server)
        finally:
            await close_all()


def _scripted(answer: Answer) -> ScriptedReply:
    """The same answer for the adapter that has no wire."""
    errors: dict[str | None, Any] = {
        None: None,
        "overflow": "context_overflow",
        "authentication": {"is_retryable": False, "status": answer.status},
        "rate_limit": {"is_retryable": True, "status": 429, "retry_after_s": 7.0},
        "server": {"is_retryable": True, "status": 500},
        "overloaded": {"is_retryable": True, "status": 529},
    }
    error = errors[answer.error]
    if answer.cut_after is not None:
        error = {"is_retryable": True, "message": "cut"}
    return ScriptedReply(
        text=answer.text,
        thinking=answer.thinking,
        tool_calls=[
            {"name": call.name, "input": call.input if call.raw is None else call.raw, "id": call.id or None}
            for call in answer.tool_calls
        ],
        stop_reason=answer.stop,
        usage=answer.usage,
        error=error,
    )


@asynccontextmanager
async def _unwired(answers: Sequence[Answer]) -> AsyncIterator[Subject]:
    yield Subject(ScriptedModel([_scripted(answer) for answer in answers]), None)


@pytest.fixture(params=["anthropic", "openai", "scripted"])
def asking(request: pytest.FixtureRequest) -> Asking:
    if request.param == "scripted":
        return _unwired
    return lambda answers: _wired(request.param, answers)


@pytest.fixture(params=["anthropic", "openai"])
def wired(request: pytest.FixtureRequest) -> Asking:
    return lambda answers: _wired(request.param, answers)


def asked(*messages: Message | str, **fields: Any) -> ModelRequest:
    return ModelRequest(messages=[user(one) if isinstance(one, str) else one for one in messages or ("Hi",)], **fields)


async def collect(model: Model, request: ModelRequest) -> list[StreamItem]:
    async with asyncio.timeout(20), contextlib.aclosing(model.stream(request)) as items:
        return [item async for item in items]


async def reply_of(model: Model, request: ModelRequest) -> ModelReply:
    reply = (await collect(model, request))[-1]
    assert isinstance(reply, ModelReply)
    return reply


def streamed(items: Sequence[StreamItem]) -> str:
    return "".join(item.text for item in items if isinstance(item, TextDelta))


def text_of(reply: ModelReply) -> str:
    return Message("assistant", reply.blocks).text


async def failure_of(model: Model, request: ModelRequest | None = None) -> ModelError:
    with pytest.raises(ModelError) as raised:
        await collect(model, request or asked())
    return raised.value


async def test_text_comes_in_pieces_and_then_whole(asking: Asking) -> None:
    usage = Usage(input_tokens=1200, output_tokens=30, cache_read_tokens=1000, cache_write_tokens=100)
    text = "The quick brown fox jumps over the lazy dog, again and again."
    async with asking([say(text, usage=usage)]) as subject:
        items = await collect(subject.model, asked())
    assert streamed(items) == text
    assert sum(isinstance(item, TextDelta) for item in items) > 1
    assert [isinstance(item, ModelReply) for item in items] == [False] * (len(items) - 1) + [True]
    reply = items[-1]
    assert isinstance(reply, ModelReply)
    assert reply == ModelReply(
        blocks=(Text(text),),
        stop_reason=StopReason.END,
        usage=usage,
        model=reply.model,
        request_id="req_0000" if subject.server else None,
    )
    assert reply.model in ("claude-haiku-4-5", "gpt-4.1", "scripted/code")


async def test_a_model_says_who_it_is(asking: Asking) -> None:
    async with asking([say("Hi")]) as subject:
        model = subject.model
        assert model.id.startswith(f"{model.provider}/")
        assert model.context_tokens in (None, 200_000, 1_000_000)
        assert model.has_schema_mode


async def test_a_tool_is_asked_for_and_its_result_leads_to_the_answer(asking: Asking) -> None:
    call = ToolCall(name="read", input={"path": "a.txt", "deep": {"ü": [1, None, 2.5]}}, id="call_7")
    async with asking([Answer(text="I look.", tool_calls=[call]), say("It says hello.")]) as subject:
        first = await reply_of(subject.model, asked("Read a.txt", tools=[READ]))
        assert (first.stop_reason, first.blocks) == (
            StopReason.TOOL_USE,
            (Text("I look."), ToolUse(id="call_7", name="read", input=call.input)),
        )
        result = ToolResult(tool_use_id="call_7", content=(Text("hello"),))
        conversation = (user("Read a.txt"), Message("assistant", first.blocks), Message("user", (result,)))
        second = await reply_of(subject.model, asked(*conversation, tools=[READ]))
        assert (second.stop_reason, text_of(second)) == (StopReason.END, "It says hello.")
        if subject.server:
            assert json.dumps(subject.server.requests[1].body).count("call_7") == 2


async def test_several_tools_are_asked_for_at_once(asking: Asking) -> None:
    answer = use_tools(("read", {"path": "a"}), ("read", {"path": "b"}), ("list", {}))
    async with asking([answer]) as subject:
        reply = await reply_of(subject.model, asked())
    uses = [block for block in reply.blocks if isinstance(block, ToolUse)]
    assert [(use.name, use.input) for use in uses] == [("read", {"path": "a"}), ("read", {"path": "b"}), ("list", {})]
    assert len({use.id for use in uses}) == 3


@pytest.mark.parametrize(
    "raw", ['{"path": "a.t', "[1, 2]", '"text"', '{"path": NaN}', '{"path": "\\ud800"}', "[" * 5000]
)
async def test_input_that_is_no_json_object_is_kept_as_malformed(asking: Asking, raw: str) -> None:
    async with asking([Answer(tool_calls=[ToolCall(name="read", id="call_1", raw=raw)])]) as subject:
        reply = await reply_of(subject.model, asked())
    assert reply.blocks == (ToolUse(id="call_1", name="read", input={}, malformed=raw),)
    assert reply.stop_reason is StopReason.TOOL_USE


async def test_thinking_is_kept_and_goes_back(asking: Asking) -> None:
    answer = Answer(text="42.", thinking="Six times seven, so 42.", tool_calls=[ToolCall(name="read", id="call_1")])
    async with asking([answer, say("Done.")]) as subject:
        first = await reply_of(subject.model, asked(thinking=ThinkingLevel.LOW))
        thinking = first.blocks[0]
        assert isinstance(thinking, Thinking)
        assert thinking.text == "Six times seven, so 42."
        assert streamed(await collect(subject.model, asked())) != thinking.text
        said = Message.from_dict(Message("assistant", first.blocks).to_dict())
        result = Message("user", (ToolResult(tool_use_id="call_1", content=(Text("ok"),)),))
        await reply_of(subject.model, asked(user("What is it?"), said, result))
        if subject.server:
            assert "Six times seven, so 42." in json.dumps(subject.server.requests[-1].body["messages"])


async def test_images_and_texts_arrive_in_their_order(wired: Asking) -> None:
    message = Message("user", (Text("What is"), Image(data=PNG), Text("and"), Image(url="https://example.org/a.png")))
    async with wired([say("A picture.")]) as subject:
        await reply_of(subject.model, asked(message))
        assert subject.server is not None
        content = subject.server.requests[0].body["messages"][-1]["content"]
    assert [part["type"].removesuffix("_url") for part in content] == ["text", "image", "text", "image"]
    assert "iVBORw0KGgo" in json.dumps(content[1])
    assert "https://example.org/a.png" in json.dumps(content[3])


@pytest.mark.parametrize(
    ("stop", "reason"),
    [("end", StopReason.END), ("max_tokens", StopReason.MAX_TOKENS), ("refusal", StopReason.REFUSAL)],
)
async def test_the_reason_for_stopping_is_told(asking: Asking, stop: str, reason: StopReason) -> None:
    async with asking([say("Well", stop=stop)]) as subject:
        assert (await reply_of(subject.model, asked())).stop_reason is reason


async def test_a_conversation_that_is_too_long_is_an_overflow(asking: Asking) -> None:
    async with asking([overflow()]) as subject:
        assert isinstance(await failure_of(subject.model), ContextOverflow)


@pytest.mark.parametrize(("answer", "status"), [(failing(500, "server"), 500), (overloaded(), 529)])
async def test_trouble_of_the_provider_is_worth_another_try(asking: Asking, answer: Answer, status: int) -> None:
    async with asking([answer]) as subject:
        error = await failure_of(subject.model)
    assert isinstance(error, ModelFailed)
    assert (error.is_retryable, error.provider_status, error.retry_after_s) == (True, status, None)


async def test_a_limit_says_when_to_come_back(asking: Asking) -> None:
    async with asking([rate_limited(retry_after="7")]) as subject:
        error = await failure_of(subject.model)
    assert isinstance(error, ModelFailed)
    assert (error.is_retryable, error.provider_status, error.retry_after_s) == (True, 429, 7.0)


async def test_a_key_that_is_not_accepted_is_not_worth_another_try(asking: Asking) -> None:
    async with asking([unauthorized()]) as subject:
        error = await failure_of(subject.model)
    assert isinstance(error, ModelFailed)
    assert (error.is_retryable, error.provider_status) == (False, 401)
    assert "sk-test" not in str(error)


async def test_a_model_that_does_not_exist_is_unknown(wired: Asking) -> None:
    async with wired([not_found()]) as subject:
        assert isinstance(await failure_of(subject.model), ModelUnknown)


async def test_an_attempt_is_one_request(wired: Asking) -> None:
    async with wired([failing(500, "server")]) as subject:
        await failure_of(subject.model)
        assert subject.server is not None
        assert len(subject.server.requests) == 1


async def test_a_stream_that_is_cut_is_a_failure_worth_another_try(asking: Asking) -> None:
    async with asking([say("A long story, that ends too early.", cut_after=4)]) as subject:
        error = await failure_of(subject.model)
    assert isinstance(error, ModelFailed)
    assert error.is_retryable


FAULTS = {
    "ended early": (say(STORY, end_after=3), True),
    "no events": (say(STORY, end_after=0), True),
    "cut before the first event": (say(STORY, cut_after=0), True),
    "overloaded in the middle": (say(STORY, error_after=3), True),
    "limit in the middle": (say(STORY, error_after=3, error_kind="rate_limit"), True),
    "wrong JSON": (say(STORY, wrong_json=True), True),
    "wrong shape": (say(STORY, wrong_shape=True), True),
    "HTML error page": (html_page(502), True),
    "HTML page instead of an answer": (html_page(200), False),
    "HTML page at a wrong address": (html_page(404), False),
    "bytes that are nothing": (Answer(raw=b"\xff\xfe\x00garbage\n\n"), True),
    "bytes in another encoding": (Answer(raw=b"no gzip", headers={"content-encoding": "gzip"}), True),
    "half an event": (Answer(raw=b"data: {"), True),
    "billing": (failing(402, "invalid", "Your credit balance is too low."), False),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_whatever_is_wrong_is_a_failure_of_the_model(wired: Asking, fault: str) -> None:
    answer, is_retryable = FAULTS[fault]
    async with wired([answer]) as subject:
        error = await failure_of(subject.model)
    assert isinstance(error, ModelFailed), error
    assert error.is_retryable is is_retryable
    assert "<html" not in str(error)


async def test_an_overflow_inside_of_a_stream_is_one_too(wired: Asking) -> None:
    async with wired([say(STORY, error_after=2, error_kind="overflow")]) as subject:
        assert isinstance(await failure_of(subject.model), ContextOverflow)


async def test_a_provider_that_cannot_be_reached_is_worth_another_try(wired: Asking) -> None:
    async with wired([say("Hi")]) as subject:
        server = subject.server
        assert server is not None
        name = subject.model.id
        dead = {key: _at_a_dead_port(settings) for key, settings in server.providers.items()}
        error = await failure_of(find_model(name, providers=dead, env=server.env))
    assert isinstance(error, ModelFailed)
    assert error.is_retryable


def _at_a_dead_port(settings: ProviderSettings) -> ProviderSettings:
    return replace(settings, base_url="http://127.0.0.1:9")


async def test_a_stream_that_is_silent_for_too_long_is_a_failure(wired: Asking) -> None:
    answer = held(say(STORY), after=3)
    async with wired([answer]) as subject:
        assert subject.server is not None
        hasty = {name: replace(settings, idle_timeout_s=0.2) for name, settings in subject.server.providers.items()}
        error = await failure_of(find_model(subject.model.id, providers=hasty, env=subject.server.env))
    assert isinstance(error, ModelFailed)
    assert error.is_retryable
    assert "silent" in str(error)


async def test_events_that_come_twice_break_nothing(wired: Asking) -> None:
    """Text that is sent twice cannot be told from text that is said twice; input of a tool becomes malformed."""
    answer = Answer(text="Hi.", tool_calls=[ToolCall(name="read", input={"path": "a"}, id="call_1")], duplicated=True)
    async with wired([answer]) as subject:
        items = await collect(subject.model, asked())
    reply = items[-1]
    assert isinstance(reply, ModelReply)
    assert streamed(items) == text_of(reply)
    [use] = [block for block in reply.blocks if isinstance(block, ToolUse)]
    assert (use.id, use.name, use.input, use.malformed is None) == ("call_1", "read", {}, False)


async def test_leaving_early_closes_the_connection(wired: Asking) -> None:
    async with wired([held(say("A long story that goes on."), after=5)]) as subject:
        assert subject.server is not None
        async with asyncio.timeout(10), contextlib.aclosing(subject.model.stream(asked())) as items:
            async for item in items:
                if isinstance(item, TextDelta):
                    break
        received = await subject.server.request()
        async with asyncio.timeout(10):
            await received.client_closed.wait()


@pytest.mark.parametrize("after", [0, 5])
async def test_cancelling_closes_the_connection(wired: Asking, after: int) -> None:
    async with wired([held(say("A long story that goes on."), after=after)]) as subject:
        assert subject.server is not None
        task = asyncio.ensure_future(collect(subject.model, asked()))
        received = await subject.server.request()
        async with asyncio.timeout(10):
            await received.is_held.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await received.client_closed.wait()


async def test_all_characters_survive(asking: Asking) -> None:
    text = "ünï 漢字 🎉👩‍👩‍👧 \x00\x07 \u2028 \r\n end"
    async with asking([say(text, piece_chars=1)]) as subject:
        items = await collect(subject.model, asked(text))
        reply = items[-1]
        assert isinstance(reply, ModelReply)
        assert (streamed(items), text_of(reply)) == (text, text)
        if subject.server:
            assert json.dumps(text) in json.dumps(subject.server.requests[0].body["messages"])


async def test_halves_of_characters_are_replaced_on_their_way_out(asking: Asking) -> None:
    async with asking([say("Fine.")]) as subject:
        reply = await reply_of(subject.model, asked("half \ud800 of one", system="s \udfff"))
        assert text_of(reply) == "Fine."
        if subject.server:
            assert "half \ufffd of one" in json.dumps(subject.server.requests[0].body, ensure_ascii=False)


async def test_a_huge_text_comes_through(asking: Asking) -> None:
    text = "lorem ipsum " * 100_000
    async with asking([say(text)]) as subject:
        items = await collect(subject.model, asked(text))
    assert streamed(items) == text


async def test_many_requests_at_once_do_not_mix(asking: Asking) -> None:
    def answer(body: Any) -> Answer:
        return say(f"You said {json.dumps(body['messages'][-1]['content'])}.")

    if asking is _unwired:
        model = ScriptedModel(lambda request: f"You said {request.messages[-1].text}.")
        replies = await asyncio.gather(*(reply_of(model, asked(f"number {n}!")) for n in range(50)))
    else:
        async with asking(answer) as subject:  # pyright: ignore[reportArgumentType]  (a function is a script too)
            replies = await asyncio.gather(*(reply_of(subject.model, asked(f"number {n}!")) for n in range(50)))
    assert all(f"number {n}!" in text_of(reply) for n, reply in enumerate(replies))


async def test_a_missing_key_is_named_when_the_model_is_asked(wired: Asking) -> None:
    async with wired([say("Hi")]) as subject:
        variable = f"{subject.model.provider.upper()}_API_KEY"
        error = await failure_of(find_model(subject.model.id, env={}))
    assert isinstance(error, ModelKeyMissing)
    assert error.details == {"model": subject.model.id, "variable": variable}
    assert "PYFLUE_MODEL=scripted/hello" in str(error)


async def test_a_closed_model_is_not_asked_any_more(wired: Asking) -> None:
    async with wired([say("Hi"), say("Hi")]) as subject:
        await reply_of(subject.model, asked())
        await subject.model.close()
        error = await failure_of(subject.model)
        assert subject.server is not None
        assert (type(error), len(subject.server.requests)) == (ModelFailed, 1)


async def test_an_output_schema_leads_to_json(asking: Asking) -> None:
    schema = {
        "type": "object",
        "properties": {"total": {"type": "integer", "minimum": 0}},
        "required": ["total"],
        "additionalProperties": False,
    }
    async with asking([say('{"total": 3}')]) as subject:
        reply = await reply_of(subject.model, asked(output_schema=schema))
        assert json.loads(text_of(reply)) == {"total": 3}
        if subject.server:
            body = subject.server.requests[0].body
            assert "json_schema" in json.dumps(body.get("output_config") or body.get("response_format"))


async def test_a_request_that_cannot_be_sent_is_not_worth_another_try(wired: Asking) -> None:
    tool = ToolSpec(name="odd", description="Odd.", input_schema={"type": "object", "default": object()})
    async with wired([say("Hi")]) as subject:
        error = await failure_of(subject.model, asked(tools=[tool]))
        assert subject.server is not None
        assert subject.server.requests == []
    assert isinstance(error, ModelFailed)
    assert not error.is_retryable


async def test_a_reply_that_does_not_end_is_given_up(wired: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    for home in ("anthropic", "openai"):
        monkeypatch.setattr(f"pyflue.agents.models.{home}.REPLY_LIMIT_CHARS", 1000)
    async with wired([say("x" * 1100)]) as subject:
        error = await failure_of(subject.model)
    assert isinstance(error, ModelFailed)
    assert (error.is_retryable, "does not end" in str(error)) == (False, True)


async def test_documents_arrive(wired: Asking) -> None:
    message = Message("user", (Document(mime_type="application/pdf", data=b"%PDF-1.7", name="a.pdf"), Text("Sum up.")))
    async with wired([say("Done.")]) as subject:
        await reply_of(subject.model, asked(message))
        assert subject.server is not None
        content = subject.server.requests[0].body["messages"][-1]["content"]
    assert [part["type"] for part in content] in (["document", "text"], ["file", "text"])
    assert "JVBERi0xLjc=" in json.dumps(content[0])
