"""What is particular to Claude: caching, thinking, documents, opaque blocks, halves of characters in a stream."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from typing import Any

import pytest

from pyflue.agents.content import Document, Message, Opaque, Text, Thinking, ToolResult, ToolUse, Usage, user
from pyflue.agents.models import (
    ModelReply,
    ModelRequest,
    Progress,
    ProviderSettings,
    StopReason,
    StreamItem,
    TextDelta,
    ThinkingLevel,
    ToolSpec,
    close_all,
    find_model,
)
from pyflue.agents.models.anthropic_form import params
from pyflue.agents.models.families import claude
from pyflue.errors import ModelFailed
from tests.provider_server import Answer, ProviderServer, failing, provider_server, say

HAIKU = "anthropic/claude-haiku-4-5"
CACHED = {"type": "ephemeral"}
TOOL = ToolSpec(name="read", description="Read.", input_schema={"type": "object", "properties": {}})


async def ask(server: ProviderServer, request: ModelRequest, name: str = HAIKU, **settings: Any) -> list[StreamItem]:
    providers = {"anthropic": ProviderSettings(base_url=server.anthropic_url, **settings)}
    model = find_model(name, providers=providers, env=server.env)
    try:
        async with contextlib.aclosing(model.stream(request)) as items:
            return [item async for item in items]
    finally:
        await close_all()


async def sent(name: str, request: ModelRequest) -> dict[str, Any]:
    """The body that the API gets."""
    async with provider_server([say("Yes.")]) as server:
        await ask(server, request, name)
        return server.requests[0].body


def events(*data: dict[str, Any]) -> Answer:
    """Raw events, with characters as JSON escapes."""
    return Answer(raw="".join(f"event: {one['type']}\ndata: {json.dumps(one)}\n\n" for one in data).encode())


START = {"type": "message_start", "message": {"model": "claude-x", "usage": {"input_tokens": 3, "output_tokens": 1}}}
END: Sequence[dict[str, Any]] = (
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}},
    {"type": "message_stop"},
)


def delta(index: int, **fields: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": fields}


def begin(index: int, **fields: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": fields}


async def test_a_request_is_cached_up_to_its_end_and_up_to_the_end_of_the_one_before() -> None:
    conversation = (
        user("One"),
        Message("assistant", (ToolUse(id="t.1", name="read", input={"a": 1}),)),
        Message("user", (Text("also"), ToolResult(tool_use_id="t.1", content=(Text("r"),), is_error=True))),
        Message("assistant", (Thinking(text="hm", signature="sig"), Text("Two"))),
        user("Three"),
    )
    body = await sent(HAIKU, ModelRequest(messages=conversation, system="Be brief.", tools=[TOOL, TOOL]))
    assert body == {
        "model": "claude-haiku-4-5",
        "max_tokens": 32_000,
        "stream": True,
        "system": [{"type": "text", "text": "Be brief.", "cache_control": CACHED}],
        "tools": [
            {"name": "read", "description": "Read.", "input_schema": {"type": "object", "properties": {}}},
            {
                "name": "read",
                "description": "Read.",
                "input_schema": {"type": "object", "properties": {}},
                "cache_control": CACHED,
            },
        ],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "One"}]},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "t_1", "name": "read", "input": {"a": 1}}]},
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "t_1",
                        "content": [{"type": "text", "text": "r"}],
                        "is_error": True,
                    },
                    {"type": "text", "text": "also", "cache_control": CACHED},
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "sig"},
                    {"type": "text", "text": "Two"},
                ],
            },
            {"role": "user", "content": [{"type": "text", "text": "Three", "cache_control": CACHED}]},
        ],
    }


@pytest.mark.parametrize(
    ("name", "level", "thinking", "config"),
    [
        ("claude-haiku-4-5", None, None, None),
        ("claude-haiku-4-5", ThinkingLevel.OFF, None, None),
        ("claude-haiku-4-5", ThinkingLevel.HIGH, {"type": "enabled", "budget_tokens": 16_384}, None),
        ("claude-3-5-haiku-latest", ThinkingLevel.HIGH, None, None),
        ("claude-opus-4-6", None, None, None),
        ("claude-opus-4-6", ThinkingLevel.OFF, None, None),
        ("claude-opus-4-6", ThinkingLevel.XHIGH, {"type": "adaptive", "display": "summarized"}, {"effort": "high"}),
        ("claude-opus-4-8", ThinkingLevel.XHIGH, {"type": "adaptive", "display": "summarized"}, {"effort": "xhigh"}),
        ("claude-sonnet-5", None, {"type": "adaptive", "display": "summarized"}, None),
        ("claude-sonnet-5", ThinkingLevel.OFF, {"type": "disabled"}, None),
        ("claude-sonnet-5-5", ThinkingLevel.OFF, {"type": "between_tools"}, None),
        ("claude-opus-5-5", ThinkingLevel.OFF, {"type": "adaptive", "display": "summarized"}, {"effort": "low"}),
        ("claude-next-9", ThinkingLevel.MEDIUM, {"type": "adaptive", "display": "summarized"}, {"effort": "medium"}),
    ],
)
def test_thinking_is_asked_for_in_the_words_of_each_family(
    name: str, level: ThinkingLevel | None, thinking: Any, config: Any
) -> None:
    made = params(name, claude(name), ModelRequest(messages=[user("Hi")], thinking=level))
    assert (made.get("thinking"), made.get("output_config")) == (thinking, config)


def test_a_small_reply_leaves_no_room_for_thinking() -> None:
    request = ModelRequest(messages=[user("Hi")], thinking=ThinkingLevel.HIGH, max_tokens=1500)
    assert "thinking" not in params("claude-haiku-4-5", claude("claude-haiku-4-5"), request)
    roomy = ModelRequest(messages=[user("Hi")], thinking=ThinkingLevel.HIGH, max_tokens=5000)
    made = params("claude-haiku-4-5", claude("claude-haiku-4-5"), roomy)
    assert made["thinking"] == {"type": "enabled", "budget_tokens": 5000 - 1024}


async def test_signed_and_redacted_thinking_goes_back_as_it_came() -> None:
    answer = Answer(thinking="Let me see.", signature="c2ln", redacted="ZW5j", text="Yes.")
    async with provider_server([answer, say("Done.")]) as server:
        reply = (await ask(server, ModelRequest(messages=[user("Hi")])))[-1]
        assert isinstance(reply, ModelReply)
        assert reply.blocks == (
            Thinking(text="Let me see.", signature="c2ln"),
            Opaque(provider="anthropic", data={"type": "redacted_thinking", "data": "ZW5j"}),
            Text("Yes."),
        )
        said = Message.from_dict(Message("assistant", reply.blocks).to_dict())
        await ask(server, ModelRequest(messages=[user("Hi"), said, user("And?")]))
        assert server.requests[1].body["messages"][1]["content"] == [
            {"type": "thinking", "thinking": "Let me see.", "signature": "c2ln"},
            {"type": "redacted_thinking", "data": "ZW5j"},
            {"type": "text", "text": "Yes."},
        ]


async def test_thinking_that_the_api_refuses_is_left_out_once() -> None:
    said = Message("assistant", (Thinking(text="old", signature="of another model"), Text("Yes.")))
    refused = failing(400, "invalid", "messages.1.content.0: Invalid `signature` in `thinking` block")
    async with provider_server([refused, say("Done."), refused, refused]) as server:
        request = ModelRequest(messages=[user("Hi"), said, user("And?")])
        reply = (await ask(server, request))[-1]
        assert isinstance(reply, ModelReply)
        assert [one.body["messages"][1]["content"][0]["type"] for one in server.requests] == ["thinking", "text"]
        with pytest.raises(ModelFailed) as raised:
            await ask(server, request)
        assert (raised.value.provider_status, len(server.requests)) == (400, 4)
        with pytest.raises(ModelFailed):
            await ask(server, ModelRequest(messages=[user("no thinking here")]))
        assert len(server.requests) == 5


async def test_blocks_of_other_providers_stay_at_home() -> None:
    foreign = (Thinking(text="unsigned"), Opaque(provider="openrouter", data={"reasoning_details": []}), Text(" "))
    body = await sent(HAIKU, ModelRequest(messages=[user(""), Message("assistant", foreign), user("Hi")]))
    nothing = {"type": "text", "text": "(nothing)"}
    assert body["messages"][:2] == [
        {"role": "user", "content": [{**nothing, "cache_control": CACHED}]},
        {"role": "assistant", "content": [nothing]},
    ]


async def test_documents_are_sent_as_what_they_are() -> None:
    blocks = (
        Document(mime_type="application/pdf", data=b"%PDF", name="a.pdf"),
        Document(mime_type="text/markdown", data="# Ü\n".encode() + b"\xff"),
        Text("Compare."),
    )
    body = await sent(HAIKU, ModelRequest(messages=[Message("user", blocks)]))
    pdf = {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="}
    text = {"type": "text", "media_type": "text/plain", "data": "# Ü\n\ufffd"}
    assert body["messages"][0]["content"][:2] == [
        {"type": "document", "source": pdf, "title": "a.pdf"},
        {"type": "document", "source": text},
    ]


async def test_a_schema_that_claude_cannot_enforce_is_told_behind_the_cached_part() -> None:
    schema = {"type": "object", "additionalProperties": {"type": "integer"}}
    body = await sent(HAIKU, ModelRequest(messages=[user("Hi")], system="S", output_schema=schema))
    assert "output_config" not in body
    assert [block.get("cache_control") for block in body["system"]] == [CACHED, None]
    assert '"additionalProperties":{"type":"integer"}' in body["system"][1]["text"]


async def test_a_character_cut_in_two_comes_whole_and_a_lone_half_is_replaced() -> None:
    answer = events(
        START,
        begin(0, type="text", text=""),
        delta(0, type="text_delta", text="a\ud83c"),
        delta(0, type="text_delta", text="\udf89b"),
        delta(0, type="text_delta", text="\udc00c\ud83c"),
        {"type": "content_block_stop", "index": 0},
        *END,
    )
    async with provider_server([answer]) as server:
        items = await ask(server, ModelRequest(messages=[user("Hi")]))
    texts = [item.text for item in items if isinstance(item, TextDelta)]
    assert texts == ["a", "🎉b", "\ufffdc", "\ufffd"]
    assert items[-1] == ModelReply(
        blocks=(Text("a🎉b\ufffdc\ufffd"),),
        stop_reason=StopReason.END,
        usage=Usage(input_tokens=3, output_tokens=9),
        model="claude-x",
        request_id="req_0000",
    )


async def test_pings_show_that_a_silent_stream_is_alive() -> None:
    ping = {"type": "ping"}
    async with provider_server([events(START, ping, ping, ping, *END)]) as server:
        items = await ask(server, ModelRequest(messages=[user("Hi")]))
    assert items[:-1] == [Progress()] * 6


async def test_blocks_that_are_new_to_us_are_kept_whole() -> None:
    answer = events(
        START,
        begin(0, type="server_tool_use", id="srv_1", name="web_search", input={}),
        delta(0, type="input_json_delta", partial_json='{"query":'),
        delta(0, type="input_json_delta", partial_json='"x"}'),
        begin(1, type="web_search_tool_result", tool_use_id="srv_1", content=[{"url": "u", "half": "\ud800"}]),
        begin(2, type="tool_use", id="t1", name="read", input={"path": "at once"}),
        begin(3, type="text", text=""),
        delta(3, type="citations_delta", citation={}),
        {"type": "message_delta", "delta": {"stop_reason": "pause_turn"}, "usage": {"output_tokens": 9}},
        {"type": "message_stop"},
    )
    async with provider_server([answer]) as server:
        reply = (await ask(server, ModelRequest(messages=[user("Hi")])))[-1]
    assert isinstance(reply, ModelReply)
    found = {"type": "server_tool_use", "id": "srv_1", "name": "web_search", "input": {"query": "x"}}
    result = {"type": "web_search_tool_result", "tool_use_id": "srv_1", "content": [{"url": "u", "half": "\ufffd"}]}
    assert (reply.stop_reason, reply.blocks) == (
        StopReason.PAUSE,
        (
            Opaque(provider="anthropic", data=found),
            Opaque(provider="anthropic", data=result),
            ToolUse(id="t1", name="read", input={"path": "at once"}),
        ),
    )


async def test_a_gateway_gets_its_headers_and_needs_no_key_beside_them() -> None:
    async with provider_server([say("Hi"), failing(403, "invalid", "no entry for gate-secret")]) as server:
        headers = {"Authorization": "Bearer gate-secret", "X-Team": "red"}
        providers = {"anthropic": ProviderSettings(base_url=server.anthropic_url, headers=headers)}
        model = find_model(HAIKU, providers=providers, env={})
        request = ModelRequest(messages=[user("Hi")])
        try:
            async with contextlib.aclosing(model.stream(request)) as items:
                assert isinstance([item async for item in items][-1], ModelReply)
            seen = server.requests[0].headers
            assert (seen["authorization"], seen["x-team"], "x-api-key" in seen) == ("Bearer gate-secret", "red", False)
            with pytest.raises(ModelFailed) as raised:
                await ask(server, request, headers={"x-api-key": "gate-secret"})
            assert "gate-secret" not in str(raised.value)
        finally:
            await close_all()


async def test_the_address_may_come_from_the_variable_and_the_key_from_a_named_one() -> None:
    async with provider_server([say("Hi")]) as server:
        env = {"ANTHROPIC_BASE_URL": server.anthropic_url, "OTHER_KEY": "sk-other"}
        model = find_model(HAIKU, providers={"anthropic": ProviderSettings(key_variable="OTHER_KEY")}, env=env)
        try:
            async with contextlib.aclosing(model.stream(ModelRequest(messages=[user("Hi")]))) as items:
                assert isinstance([item async for item in items][-1], ModelReply)
        finally:
            await close_all()
        assert server.requests[0].headers["authorization"] == "Bearer sk-other"


def test_windows_are_those_of_the_family() -> None:
    names = (
        "claude-haiku-4-5-20251001",
        "claude-opus-4-6",
        "claude-sonnet-5-5",
        "claude-3-opus-latest",
        "claude-next-9",
    )
    models = [find_model(f"anthropic/{name}", env={}) for name in names]
    assert [model.context_tokens for model in models] == [200_000, 1_000_000, 1_000_000, 200_000, None]
    assert [model.has_schema_mode for model in models] == [True, True, True, False, True]
    settings = {"anthropic": ProviderSettings(context_tokens=5)}
    assert find_model("anthropic/claude-next-9", providers=settings, env={}).context_tokens == 5
