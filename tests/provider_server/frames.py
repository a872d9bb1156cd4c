"""Answers as the two APIs frame them.

Anthropic: docs.claude.com, "Streaming Messages": named events, each with a JSON object. OpenAI: API reference, "Chat
Completions, streaming": unnamed events, `[DONE]` at the end, usage in a last chunk without choices.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from .script import Answer, ToolCall

_ANTHROPIC_STOP = {
    "end": "end_turn",
    "tool_use": "tool_use",
    "max_tokens": "max_tokens",
    "pause": "pause_turn",
    "refusal": "refusal",
}
_OPENAI_STOP = {"end": "stop", "tool_use": "tool_calls", "max_tokens": "length", "refusal": "content_filter"}
_ANTHROPIC_ERRORS = {
    "authentication": ("authentication_error", "invalid x-api-key"),
    "not_found": ("not_found_error", "model: claude-nobody"),
    "overflow": ("invalid_request_error", "prompt is too long: 208310 tokens > 200000 maximum"),
    "rate_limit": ("rate_limit_error", "This request would exceed your organization's rate limit."),
    "server": ("api_error", "Internal server error"),
    "overloaded": ("overloaded_error", "Overloaded"),
    "invalid": ("invalid_request_error", "messages: at least one message is required"),
}
_OPENAI_ERRORS: dict[str, tuple[str, str | None, str]] = {
    "authentication": ("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    "not_found": ("invalid_request_error", "model_not_found", "The model `gpt-nobody` does not exist."),
    "overflow": (
        "invalid_request_error",
        "context_length_exceeded",
        "This model's maximum context length is 128000 tokens. However, your messages resulted in 140000 tokens.",
    ),
    "rate_limit": ("requests", "rate_limit_exceeded", "Rate limit reached for requests."),
    "server": ("server_error", None, "The server had an error while processing your request."),
    "overloaded": ("server_error", None, "The engine is currently overloaded, please try again later."),
    "invalid": ("invalid_request_error", None, "Invalid value for 'messages'."),
}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _pieces(text: str, size: int | None) -> Iterator[str]:
    size = size or max(8, -(-len(text) // 50))
    for start in range(0, len(text), size):
        yield text[start : start + size]


def _stop(answer: Answer) -> str:
    return answer.stop or ("tool_use" if answer.tool_calls else "end")


def _raw_input(call: ToolCall) -> str:
    return _json(call.input) if call.raw is None else call.raw


# Anthropic


def anthropic_error(kind: str, message: str | None, request_id: str) -> dict[str, Any]:
    word, text = _ANTHROPIC_ERRORS[kind]
    return {"type": "error", "error": {"type": word, "message": message or text}, "request_id": request_id}


def _anthropic_usage(answer: Answer) -> dict[str, Any]:
    usage = answer.usage
    return {
        "input_tokens": usage.input_tokens - usage.cache_read_tokens - usage.cache_write_tokens,
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cache_read_tokens,
        "output_tokens": usage.output_tokens,
        "service_tier": "standard",
    }


def anthropic_message(answer: Answer, body: Mapping[str, Any], number: int) -> dict[str, Any]:
    """A whole message, as it is answered without `stream`."""
    content: list[dict[str, Any]] = []
    if answer.thinking is not None:
        content.append({"type": "thinking", "thinking": answer.thinking, "signature": answer.signature})
    if answer.redacted is not None:
        content.append({"type": "redacted_thinking", "data": answer.redacted})
    if answer.text:
        content.append({"type": "text", "text": answer.text})
    for index, call in enumerate(answer.tool_calls):
        use_id = call.id or f"toolu_{number:02d}{index:02d}"
        content.append({"type": "tool_use", "id": use_id, "name": call.name, "input": dict(call.input)})
    return {
        "id": f"msg_{number:04d}",
        "type": "message",
        "role": "assistant",
        "model": answer.model or body["model"],
        "content": content,
        "stop_reason": _ANTHROPIC_STOP[_stop(answer)],
        "stop_sequence": None,
        "usage": _anthropic_usage(answer),
    }


def anthropic_frames(answer: Answer, body: Mapping[str, Any], number: int) -> list[bytes]:
    """The events of a streamed message."""
    return [
        f"event: {event['type']}\ndata: {_json(event)}\n\n".encode()
        for event in _anthropic_events(answer, body, number)
    ]


def anthropic_error_frame(kind: str) -> bytes:
    return f"event: error\ndata: {_json(anthropic_error(kind, None, 'req_stream'))}\n\n".encode()


def _anthropic_events(answer: Answer, body: Mapping[str, Any], number: int) -> Iterator[dict[str, Any]]:
    message = anthropic_message(answer, body, number)
    usage = message["usage"]
    begun = {**message, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
    yield {"type": "message_start", "message": begun}
    for index, block in enumerate(message["content"]):
        empty, deltas = _anthropic_block(answer, block, index, message)
        yield {"type": "content_block_start", "index": index, "content_block": empty}
        if index == 0:
            yield {"type": "ping"}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    delta = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    yield {"type": "message_delta", "delta": delta, "usage": usage}
    yield {"type": "message_stop"}


def _anthropic_block(
    answer: Answer, block: Mapping[str, Any], index: int, message: Mapping[str, Any]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A block as it begins, and the pieces that follow."""
    match block["type"]:
        case "text":
            pieces = _pieces(block["text"], answer.piece_chars)
            return {**block, "text": ""}, [{"type": "text_delta", "text": piece} for piece in pieces]
        case "thinking":
            pieces = _pieces(block["thinking"], answer.piece_chars)
            deltas = [{"type": "thinking_delta", "thinking": piece} for piece in pieces]
            signed = {"type": "signature_delta", "signature": block["signature"]}
            return {**block, "thinking": "", "signature": ""}, [*deltas, signed]
        case "tool_use":
            before = len(message["content"]) - len(answer.tool_calls)
            raw = _raw_input(answer.tool_calls[index - before])
            pieces = ["", *_pieces(raw, answer.piece_chars)]
            return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
        case _:
            return dict(block), []


ANTHROPIC_WRONG_JSON = b'event: content_block_delta\ndata: {"type": "content_block_delta", "index": 0, "delta"\n\n'
ANTHROPIC_WRONG_SHAPE = (
    b'event: content_block_delta\ndata: {"type": "content_block_delta", "index": [], "delta": 5}\n\n'
)


# OpenAI


def openai_error(kind: str, message: str | None) -> dict[str, Any]:
    word, code, text = _OPENAI_ERRORS[kind]
    return {"error": {"message": message or text, "type": word, "param": None, "code": code}}


def _openai_usage(answer: Answer) -> dict[str, Any]:
    usage = answer.usage
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cache_read_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def _openai_calls(answer: Answer, number: int) -> list[dict[str, Any]]:
    return [
        {
            "id": call.id or f"call_{number:02d}{index:02d}",
            "type": "function",
            "function": {"name": call.name, "arguments": _raw_input(call)},
        }
        for index, call in enumerate(answer.tool_calls)
    ]


def openai_completion(answer: Answer, body: Mapping[str, Any], number: int) -> dict[str, Any]:
    """A whole completion, as it is answered without `stream`."""
    message: dict[str, Any] = {"role": "assistant", "content": answer.text or None, "refusal": None}
    if answer.thinking is not None:
        message["reasoning_content"] = answer.thinking
    if answer.tool_calls:
        message["tool_calls"] = _openai_calls(answer, number)
    return {
        "id": f"chatcmpl-{number:04d}",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": answer.model or body["model"],
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": _OPENAI_STOP[_stop(answer)]}],
        "usage": _openai_usage(answer),
    }


def openai_frames(answer: Answer, body: Mapping[str, Any], number: int) -> list[bytes]:
    """The events of a streamed completion."""
    base = {
        "id": f"chatcmpl-{number:04d}",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": answer.model or body["model"],
        "system_fingerprint": "fp_test",
    }
    counts = (body.get("stream_options") or {}).get("include_usage", False)
    frames: list[bytes] = []

    def chunk(delta: dict[str, Any], finish_reason: str | None = None) -> None:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        made = {**base, "choices": [choice], **({"usage": None} if counts else {})}
        frames.append(f"data: {_json(made)}\n\n".encode())

    chunk({"role": "assistant", "content": "", "refusal": None})
    for piece in _pieces(answer.thinking or "", answer.piece_chars):
        chunk({"reasoning_content": piece})
    for piece in _pieces(answer.text, answer.piece_chars):
        chunk({"content": piece})
    for index, call in enumerate(_openai_calls(answer, number)):
        named = {**call["function"], "arguments": ""}
        chunk({"tool_calls": [{"index": index, **call, "function": named}]})
        for piece in _pieces(call["function"]["arguments"], answer.piece_chars):
            chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    chunk({}, _OPENAI_STOP[_stop(answer)])
    if counts:
        frames.append(f"data: {_json({**base, 'choices': [], 'usage': _openai_usage(answer)})}\n\n".encode())
    frames.append(b"data: [DONE]\n\n")
    return frames


def openai_error_frame(kind: str) -> bytes:
    return f"data: {_json(openai_error(kind, None))}\n\n".encode()


OPENAI_WRONG_JSON = b'data: {"id": "chatcmpl-1", "choices": [{"index": 0, "delta"\n\n'
OPENAI_WRONG_SHAPE = b'data: {"id": 7, "object": [], "choices": [{"index": 0, "delta": 5}]}\n\n'
