"""A request in the form of OpenAI's Chat Completions, which many servers speak.

Fields as in the installed `openai.types.chat.completion_create_params`. OpenAI itself is asked in its newest words, a
compatible server in the oldest ones that mean the same.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from typing import Any

from ... import codec
from ..content import Block, Document, Image, Message, Opaque, Text, Thinking, ToolResult, ToolUse
from . import families, schemas
from .port import ModelRequest

#: OpenAI takes no longer ids of tool calls.
_ID_CHARS = 40


def params(name: str, request: ModelRequest, *, provider: str, is_compatible: bool) -> dict[str, Any]:
    """The keyword arguments of `chat.completions.create`, but for `stream`."""
    system = request.system
    made: dict[str, Any] = {"model": name}
    if request.output_schema is not None:
        if schemas.has_object_root(request.output_schema):
            made["response_format"] = {
                "type": "json_schema",
                "json_schema": {
                    "name": "answer",
                    "schema": dict(request.output_schema),
                    "strict": schemas.is_enforceable(request.output_schema, strict=True),
                },
            }
        else:
            system = f"{system}\n\n{schemas.sentence(request.output_schema)}".strip()
    made["messages"] = messages(request.messages, system, provider=provider, is_compatible=is_compatible)
    if request.tools:
        made["tools"] = [
            {
                "type": "function",
                "function": {
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": dict(tool.input_schema),
                },
            }
            for tool in request.tools
        ]
    if request.max_tokens is not None:
        made["max_tokens" if is_compatible else "max_completion_tokens"] = request.max_tokens
    if request.temperature is not None:
        made["temperature"] = request.temperature
    effort = request.thinking and families.reasoning_effort(name, request.thinking)
    if effort:
        made["reasoning_effort"] = effort
    return made


def messages(
    conversation: Iterable[Message], system: str, *, provider: str, is_compatible: bool
) -> list[dict[str, Any]]:
    """The messages, one tool result in each `tool` message, as this API has it."""
    made: list[dict[str, Any]] = [{"role": "system", "content": system}] if system.strip() else []
    for message in conversation:
        if message.role == "assistant":
            made.append(_assistant(message.blocks, provider, is_compatible))
        else:
            made.extend(_user(message.blocks))
    return made


def _assistant(blocks: Iterable[Block], provider: str, is_compatible: bool) -> dict[str, Any]:
    text: list[str] = []
    thinking: list[str] = []
    calls: list[dict[str, Any]] = []
    made: dict[str, Any] = {"role": "assistant"}
    for block in blocks:
        match block:
            case Text():
                text.append(block.text)
            case Thinking(signature=None):
                thinking.append(block.text)
            case ToolUse():
                arguments = bytes(codec.encode_loose(block.input)).decode()
                function = {"name": block.name, "arguments": arguments}
                calls.append({"id": _id(block.id), "type": "function", "function": function})
            case Opaque() if block.provider == provider:
                made.update(block.data)
            case _:
                pass  # another provider's thinking
    made["content"] = "".join(text) or (None if calls else "")
    if calls:
        made["tool_calls"] = calls
    if thinking and is_compatible and "reasoning_details" not in made:
        made["reasoning_content"] = "".join(thinking)
    return made


def _user(blocks: Iterable[Block]) -> Iterable[dict[str, Any]]:
    """Tool results, each in a message of its own, then one message with all the rest.

    A result is text here. Its pictures and documents come after the results, with a word on where they belong.
    """
    parts: list[dict[str, Any]] = []
    for block in blocks:
        if isinstance(block, ToolResult):
            said: list[str] = []
            for part in block.content:
                if isinstance(part, Text):
                    said.append(part.text)
                elif (shown := _part(part)) is not None:
                    said.append("(see the attachment below)")
                    parts.append({"type": "text", "text": f"Attachment of tool call {_id(block.tool_use_id)}:"})
                    parts.append(shown)
            content = "\n".join(said)
            yield {
                "role": "tool",
                "tool_call_id": _id(block.tool_use_id),
                "content": f"Error: {content}" if block.is_error else content,
            }
        elif (shown := _part(block)) is not None:
            parts.append(shown)
    if parts and all(part["type"] == "text" for part in parts):
        yield {"role": "user", "content": "\n".join(part["text"] for part in parts)}
    elif parts:
        yield {"role": "user", "content": parts}


def _part(block: Block) -> dict[str, Any] | None:
    match block:
        case Text():
            return {"type": "text", "text": block.text} if block.text else None
        case Image():
            return {
                "type": "image_url",
                "image_url": {"url": block.url or _data_url(block.mime_type, block.data or b"")},
            }
        case Document() if block.mime_type.startswith("text/"):
            named = f"{block.name}:\n" if block.name else ""
            return {"type": "text", "text": named + block.data.decode("utf-8", "replace")}
        case Document():
            file = {"filename": block.name or "document", "file_data": _data_url(block.mime_type, block.data)}
            return {"type": "file", "file": file}
        case _:
            return None


def _data_url(mime_type: str, data: bytes) -> str:
    return f"data:{mime_type};base64,{base64.b64encode(data).decode()}"


def _id(use_id: str) -> str:
    if len(use_id) <= _ID_CHARS:
        return use_id
    return use_id[:8] + hashlib.sha256(use_id.encode("utf-8", "replace")).hexdigest()[: _ID_CHARS - 8]
