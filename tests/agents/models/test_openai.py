"""What is particular to Chat Completions: compatible servers, strict schemas, results with pictures, odd streams."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Any

import pytest

from pyflue.agents.content import Document, Image, Message, Opaque, Text, Thinking, ToolResult, ToolUse, user
from pyflue.agents.models import (
    ModelReply,
    ModelRequest,
    ProviderSettings,
    StopReason,
    StreamItem,
    TextDelta,
    ThinkingLevel,
    ToolSpec,
    close_all,
    find_model,
)
from pyflue.agents.models.openai_form import params
from pyflue.errors import ModelFailed, ModelKeyMissing, ModelUnknown
from tests.provider_server import Answer, ProviderServer, failing, provider_server, say

TOOL = ToolSpec(name="read", description="Read.", input_schema={"type": "object", "properties": {}})


async def ask(server: ProviderServer, request: ModelRequest, name: str = "local/llama") -> list[StreamItem]:
    provider = name.partition("/")[0]
    settings = {provider: ProviderSettings(base_url=server.openai_url)}
    env = server.env if provider == "openai" else {"OPENAI_API_KEY": "sk-not-for-you"}
    model = find_model(name, providers=settings, env=env)
    try:
        async with contextlib.aclosing(model.stream(request)) as items:
            return [item async for item in items]
    finally:
        await close_all()


def reply_in(items: list[StreamItem]) -> ModelReply:
    assert isinstance(items[-1], ModelReply)
    return items[-1]


def chunks(*data: dict[str, Any]) -> Answer:
    whole = [{"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "llama", **one} for one in data]
    return Answer(raw="".join(f"data: {json.dumps(one)}\n\n" for one in whole).encode() + b"data: [DONE]\n\n")


def choice(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}


def call(index: int, arguments: str, **fields: Any) -> dict[str, Any]:
    name = fields.pop("name", None)
    function = {"arguments": arguments, **({"name": name} if name else {})}
    return choice({"tool_calls": [{"index": index, "function": function, **fields}]})


async def test_a_request_has_the_form_of_chat_completions() -> None:
    conversation = (
        user("One"),
        Message(
            "assistant", (Thinking(text="hm", signature="Claude's"), ToolUse(id="t" * 50, name="read", input={"ü": 1}))
        ),
        Message(
            "user",
            (
                ToolResult(tool_use_id="t" * 50, content=(Text("see"), Image(data=b"\x89PNG")), is_error=True),
                Document(mime_type="application/pdf", data=b"%PDF", name="a.pdf"),
                Document(mime_type="text/plain", data=b"plain", name="b.txt"),
            ),
        ),
    )
    request = ModelRequest(messages=conversation, system="S", tools=[TOOL], max_tokens=9, thinking=ThinkingLevel.XHIGH)
    async with provider_server([say("Yes.")]) as server:
        await ask(server, request, "openai/o4-mini")
        body = server.requests[0].body
        assert server.requests[0].headers["authorization"] == "Bearer sk-test-0123456789"
    use_id = body["messages"][2]["tool_calls"][0]["id"]
    assert len(use_id) == 40
    assert body == {
        "model": "o4-mini",
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 9,
        "reasoning_effort": "high",
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "read",
                    "description": "Read.",
                    "parameters": {"type": "object", "properties": {}},
                },
            }
        ],
        "messages": [
            {"role": "system", "content": "S"},
            {"role": "user", "content": "One"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": use_id, "type": "function", "function": {"name": "read", "arguments": '{"ü":1}'}}
                ],
            },
            {"role": "tool", "tool_call_id": use_id, "content": "Error: see\n(see the attachment below)"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": f"Attachment of tool call {use_id}:"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw=="}},
                    {
                        "type": "file",
                        "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERg=="},
                    },
                    {"type": "text", "text": "b.txt:\nplain"},
                ],
            },
        ],
    }


def test_openai_itself_is_asked_in_its_own_words() -> None:
    made = params("gpt-5", ModelRequest(messages=[user("Hi")], max_tokens=9), provider="openai", is_compatible=False)
    assert made == {
        "model": "gpt-5",
        "messages": [{"role": "user", "content": "Hi"}],
        "max_completion_tokens": 9,
    }


@pytest.mark.parametrize(
    ("name", "level", "effort"),
    [
        ("gpt-4.1", "high", None),
        ("o3", "off", "low"),
        ("gpt-5", "off", "minimal"),
        ("gpt-5-mini", "minimal", "minimal"),
        ("gpt-5.1", "off", "none"),
        ("gpt-6-sol", "xhigh", "xhigh"),
        ("qwen3", "minimal", "low"),
    ],
)
def test_thinking_levels_are_efforts_of_the_family(name: str, level: str, effort: str | None) -> None:
    request = ModelRequest(messages=[user("Hi")], thinking=ThinkingLevel(level))
    assert params(name, request, provider="openai", is_compatible=False).get("reasoning_effort") == effort


@pytest.mark.parametrize(
    ("schema", "strict"),
    [
        (
            {
                "type": "object",
                "properties": {"a": {"type": "string"}},
                "required": ["a"],
                "additionalProperties": False,
            },
            True,
        ),
        ({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": False}, False),
        ({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}, False),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, False),
        ({"$ref": "#/$defs/N", "$defs": {"N": {"type": "object", "properties": {"n": {"$ref": "#/$defs/N"}}}}}, False),
    ],
)
def test_a_schema_is_strict_only_if_it_may_be(schema: dict[str, Any], strict: bool) -> None:
    request = ModelRequest(messages=[user("Hi")], output_schema=schema)
    made = params("gpt-5", request, provider="openai", is_compatible=False)
    assert made["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": schema, "strict": strict},
    }


def test_a_schema_of_no_object_is_told_in_words() -> None:
    request = ModelRequest(
        messages=[user("Hi")], system="S", output_schema={"type": "array", "items": {"type": "integer"}}
    )
    made = params("gpt-5", request, provider="openai", is_compatible=False)
    assert "response_format" not in made
    assert made["messages"][0]["content"].startswith("S\n\nYour last message must be one JSON value")


async def test_a_compatible_server_needs_no_key_and_gets_nobody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_ADMIN_KEY"):
        monkeypatch.setenv(name, "secret-of-the-process")
    async with provider_server([say("Hello from here.")]) as server:
        reply = reply_in(await ask(server, ModelRequest(messages=[user("Hi")])))
        headers = server.requests[0].headers
    assert (reply.blocks, reply.model) == ((Text("Hello from here."),), "llama")
    assert "authorization" not in headers
    assert "secret-of-the-process" not in str(headers)


async def test_headers_of_the_settings_are_sent_in_the_place_of_ours() -> None:
    async with provider_server([say("Hi")]) as server:
        headers = {"authorization": "Bearer gate", "X-Team": "red"}
        settings = {"openai": ProviderSettings(base_url=server.openai_url, headers=headers)}
        model = find_model("openai/gpt-5", providers=settings, env={"OPENAI_API_KEY": "sk-mine"})
        try:
            async with contextlib.aclosing(model.stream(ModelRequest(messages=[user("Hi")]))) as items:
                reply_in([item async for item in items])
        finally:
            await close_all()
        seen = server.requests[0].headers
        assert (seen["authorization"], seen["x-team"]) == ("Bearer gate", "red")


async def test_a_configured_key_variable_must_be_set() -> None:
    settings = {"router": ProviderSettings(base_url="http://127.0.0.1:9/v1", key_variable="ROUTER_KEY")}
    model = find_model("router/x/y:free", providers=settings, env={})
    assert (model.id, model.provider, model.context_tokens) == ("router/x/y:free", "router", None)
    with pytest.raises(ModelKeyMissing, match="ROUTER_KEY"):
        await anext(model.stream(ModelRequest(messages=[user("Hi")])))


async def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    model = find_model("openai/gpt-5", env={"OPENAI_API_KEY": "sk-x"})
    with pytest.raises(ModelUnknown, match=r"pip install 'pyflue\[openai\]'"):
        await anext(model.stream(ModelRequest(messages=[user("Hi")])))


async def test_reasoning_of_a_compatible_server_goes_back_to_it() -> None:
    details = [{"type": "reasoning.encrypted", "data": "ZW5j"}]
    answer = chunks(
        choice({"role": "assistant", "reasoning": "Hm, ", "reasoning_content": "Hm, "}),
        choice({"reasoning": "yes.", "reasoning_details": details}),
        choice({"content": "Yes."}),
        choice({}, "stop"),
    )
    async with provider_server([answer, say("Done.")]) as server:
        reply = reply_in(await ask(server, ModelRequest(messages=[user("Hi")])))
        assert reply.blocks == (
            Opaque(provider="local", data={"reasoning_details": details}),
            Thinking(text="Hm, yes."),
            Text("Yes."),
        )
        said = Message("assistant", reply.blocks)
        await ask(server, ModelRequest(messages=[user("Hi"), said, user("And?")]))
        assert server.requests[1].body["messages"][1] == {
            "role": "assistant",
            "content": "Yes.",
            "reasoning_details": details,
        }


async def test_tokens_are_estimated_if_nobody_counts_them() -> None:
    async with provider_server([chunks(choice({"content": "x" * 400}), choice({}, "stop"))]) as server:
        usage = reply_in(await ask(server, ModelRequest(messages=[user("y" * 800)]))).usage
    assert (usage.input_tokens, usage.output_tokens) == (200, 100)


async def test_tool_calls_that_share_an_index_or_have_no_id_are_told_apart() -> None:
    answer = chunks(
        call(0, '{"a":1}', id="one", name="read"),
        call(0, '{"b":', id="two", name="list"),
        call(0, "2}"),
        call(1, "", name="stop"),
        choice({}, "stop"),
    )
    async with provider_server([answer]) as server:
        reply = reply_in(await ask(server, ModelRequest(messages=[user("Hi")])))
    uses = [block for block in reply.blocks if isinstance(block, ToolUse)]
    assert [(use.id, use.name, use.input) for use in uses[:2]] == [("one", "read", {"a": 1}), ("two", "list", {"b": 2})]
    assert (uses[2].name, uses[2].input, uses[2].id.startswith("call_")) == ("stop", {}, True)
    assert reply.stop_reason is StopReason.TOOL_USE


async def test_a_refusal_is_text_and_a_reason() -> None:
    async with provider_server([chunks(choice({"refusal": "I will not."}), choice({}, "stop"))]) as server:
        reply = reply_in(await ask(server, ModelRequest(messages=[user("Hi")])))
    assert (reply.stop_reason, reply.blocks) == (StopReason.REFUSAL, (Text("I will not."),))


@pytest.mark.parametrize(
    ("body", "status", "is_retryable"),
    [
        ({"code": 502, "message": "upstream"}, 502, True),
        ({"code": "invalid_api_key", "message": "no"}, 401, False),
        ({"message": "who knows"}, 500, True),
        ({"code": "insufficient_quota", "message": "empty"}, 429, False),
    ],
)
async def test_errors_in_a_stream_are_known_by_their_code(
    body: dict[str, Any], status: int, is_retryable: bool
) -> None:
    async with provider_server([chunks(choice({"content": "We"}), {"error": body})]) as server:
        with pytest.raises(ModelFailed) as raised:
            await ask(server, ModelRequest(messages=[user("Hi")]))
    assert (raised.value.provider_status, raised.value.is_retryable) == (status, is_retryable)


async def test_a_used_up_quota_is_not_worth_another_try() -> None:
    answer = failing(429, "rate_limit", "You exceeded your current quota: insufficient_quota", retry_after="1")
    async with provider_server([answer]) as server:
        with pytest.raises(ModelFailed) as raised:
            await ask(server, ModelRequest(messages=[user("Hi")]))
    assert not raised.value.is_retryable


def test_windows_are_those_of_the_family() -> None:
    names = ("gpt-4o-mini", "gpt-5.4", "gpt-5.4-mini", "o4-mini", "llama-3")
    windows = [find_model(f"openai/{name}", env={}).context_tokens for name in names]
    assert windows == [128_000, 1_050_000, 400_000, 200_000, None]


async def test_half_a_character_at_the_end_is_replaced() -> None:
    async with provider_server([chunks(choice({"content": "a\ud83c"}), choice({}, "stop"))]) as server:
        items = await ask(server, ModelRequest(messages=[user("Hi")]))
    assert [item.text for item in items if isinstance(item, TextDelta)] == ["a", "\ufffd"]
    assert reply_in(items).blocks == (Text("a\ufffd"),)
