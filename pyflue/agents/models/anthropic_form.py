"""A request in the form of Anthropic's Messages API.

Fields as in the installed `anthropic.types.message_create_params`. What other providers made and Claude does not know
(their thinking, their opaque blocks) is left out.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from typing import Any

from ..content import Block, Document, Image, Message, Opaque, Text, Thinking, ToolResult, ToolUse
from . import schemas
from .families import Claude, ThinkingForm
from .port import ModelRequest, ThinkingLevel

PROVIDER = "anthropic"
_CACHED = {"type": "ephemeral"}
_BUDGETS = {
    ThinkingLevel.MINIMAL: 1024,
    ThinkingLevel.LOW: 4096,
    ThinkingLevel.MEDIUM: 8192,
    ThinkingLevel.HIGH: 16_384,
    ThinkingLevel.XHIGH: 28_000,
}
_LEAST_BUDGET = 1024
_NOT_AN_ID = re.compile(r"[^a-zA-Z0-9_-]")
#: The API takes no message without content, and no text that is only white space.
_NOTHING = {"type": "text", "text": "(nothing)"}
#: Blocks that the API lets a cache end at.
_CACHEABLE = frozenset(("text", "image", "document", "tool_use", "tool_result"))


def params(name: str, family: Claude, request: ModelRequest, *, keep_thinking: bool = True) -> dict[str, Any]:
    """The keyword arguments of `messages.create`, but for `stream`."""
    max_tokens = request.max_tokens or family.max_tokens
    made: dict[str, Any] = {"model": name, "max_tokens": max_tokens}
    made["messages"] = messages(request.messages, keep_thinking=keep_thinking)
    config = _thinking(made, family, request.thinking, max_tokens)
    system: list[dict[str, Any]] = []
    if request.system.strip():
        system.append({"type": "text", "text": request.system, "cache_control": _CACHED})
    if request.output_schema is not None:
        if schemas.is_enforceable(request.output_schema):
            from anthropic import transform_schema

            config["format"] = {"type": "json_schema", "schema": transform_schema(dict(request.output_schema))}
        else:
            # Behind the breakpoint, so that the cached part is the same with and without it.
            system.append({"type": "text", "text": schemas.sentence(request.output_schema)})
    if system:
        made["system"] = system
    if request.tools:
        made["tools"] = [
            {"name": tool.name, "description": tool.description, "input_schema": dict(tool.input_schema)}
            for tool in request.tools
        ]
        made["tools"][-1]["cache_control"] = _CACHED
    if config:
        made["output_config"] = config
    return made


def messages(conversation: Iterable[Message], *, keep_thinking: bool = True) -> list[dict[str, Any]]:
    """The messages, with cache breakpoints on the last and the last but one of the user's.

    The last one makes this request's conversation readable for the next request; the one before finds what the
    request before has written. With the breakpoints on tools and system that is all four that the API allows.
    """
    made: list[dict[str, Any]] = [
        {"role": message.role, "content": _content(message.blocks, keep_thinking=keep_thinking) or [dict(_NOTHING)]}
        for message in conversation
    ]
    theirs = [message for message in made if message["role"] == "user"]
    for message in theirs[-2:]:
        last: dict[str, Any] = message["content"][-1]
        if last["type"] in _CACHEABLE:
            last["cache_control"] = _CACHED
    return made


def _content(blocks: Iterable[Block], *, keep_thinking: bool) -> list[Any]:
    # Results come first in a message: the API refuses anything between a tool use and its result.
    ordered = sorted(blocks, key=lambda block: not isinstance(block, ToolResult))
    return [made for block in ordered if (made := _block(block, keep_thinking=keep_thinking)) is not None]


def _block(block: Block, *, keep_thinking: bool) -> dict[str, Any] | None:
    match block:
        case Text():
            return {"type": "text", "text": block.text} if block.text.strip() else None
        case Thinking():
            if block.signature is None or not keep_thinking:
                return None
            return {"type": "thinking", "thinking": block.text, "signature": block.signature}
        case ToolUse():
            return {"type": "tool_use", "id": _id(block.id), "name": block.name, "input": dict(block.input)}
        case ToolResult():
            content = [made for part in block.content if (made := _block(part, keep_thinking=False)) is not None]
            result = {"type": "tool_result", "tool_use_id": _id(block.tool_use_id), "content": content}
            return {**result, "is_error": True} if block.is_error else result
        case Image():
            return {"type": "image", "source": _image_source(block)}
        case Document():
            return _document(block)
        case Opaque():
            if block.provider != PROVIDER:
                return None
            is_thinking = block.data.get("type") == "redacted_thinking"
            return None if is_thinking and not keep_thinking else dict(block.data)


def _image_source(image: Image) -> dict[str, Any]:
    if image.data is None:
        return {"type": "url", "url": image.url or ""}
    return {"type": "base64", "media_type": image.mime_type, "data": base64.b64encode(image.data).decode()}


def _document(document: Document) -> dict[str, Any]:
    if document.mime_type.startswith("text/"):
        source = {"type": "text", "media_type": "text/plain", "data": document.data.decode("utf-8", "replace")}
    else:
        data = base64.b64encode(document.data).decode()
        source = {"type": "base64", "media_type": document.mime_type, "data": data}
    made: dict[str, Any] = {"type": "document", "source": source}
    return made if document.name is None else {**made, "title": document.name}


def _id(use_id: str) -> str:
    """An id as the API takes it; those of other providers may hold dots and colons."""
    return _NOT_AN_ID.sub("_", use_id) or "_"


def _thinking(made: dict[str, Any], family: Claude, level: ThinkingLevel | None, max_tokens: int) -> dict[str, Any]:
    """Say how much to think; gives back the `output_config` that belongs to it."""
    form = family.thinking
    if form is ThinkingForm.NONE:
        return {}
    if form is ThinkingForm.BUDGET:
        # An answer needs room beside its thinking.
        budget = min(_BUDGETS.get(level or ThinkingLevel.OFF, 0), max_tokens - _LEAST_BUDGET)
        if budget >= _LEAST_BUDGET:
            made["thinking"] = {"type": "enabled", "budget_tokens": budget}
        return {}
    is_on = form is not ThinkingForm.ADAPTIVE if level is None else level is not ThinkingLevel.OFF
    if is_on or form is ThinkingForm.ALWAYS:
        # Newer models would leave the text out, and with it what they say between two tools.
        made["thinking"] = {"type": "adaptive", "display": "summarized"}
    elif form is ThinkingForm.DEFAULT_ON:
        made["thinking"] = {"type": "disabled"}
    elif form is ThinkingForm.BETWEEN_TOOLS:
        made["thinking"] = {"type": "between_tools"}
    if level is None or (level is ThinkingLevel.OFF and form is not ThinkingForm.ALWAYS):
        return {}
    return {"effort": _effort(family, level)}


def _effort(family: Claude, level: ThinkingLevel) -> str:
    if level in (ThinkingLevel.OFF, ThinkingLevel.MINIMAL):
        return "low"
    if level is ThinkingLevel.XHIGH and not family.has_xhigh:
        return "high"
    return level.value
