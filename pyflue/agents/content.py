"""What a conversation is made of: messages, and the blocks in them, whichever provider they came from.

Model adapters turn these into a provider's own form and back; the journal keeps them as JSON (`to_dict`, `from_dict`).
A block holds everything the provider needs to see again in the next request, signatures of its thinking included, so a
conversation that is read back from the journal is the one the model had. What only one provider knows and we do not is
kept whole in `Opaque`.

They are structs of msgspec and no dataclasses, as the journal's records are: a dozen are made for each turn, at a
quarter of the time. `msgspec.structs.replace` makes a changed one. What they hold was there before them and cannot lead
back to them, so the garbage collector need not look at them (`gc=False`).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import msgspec

Role: TypeAlias = Literal["user", "assistant"]


class Text(msgspec.Struct, frozen=True, gc=False):
    """Plain text."""

    text: str


class Thinking(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The model's thinking. `signature` is the provider's proof that it is unchanged; it goes back with the text."""

    text: str
    signature: str | None = None


class ToolUse(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The model's request to run a tool. `input` is hostile until the tool's schema has been checked."""

    id: str
    name: str
    input: Mapping[str, Any]
    #: What the provider sent, if that was not a JSON object: then there is nothing that could be run.
    malformed: str | None = None


class ToolResult(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What came of a tool use, as the model is told."""

    tool_use_id: str
    content: tuple[Text | Image | Document, ...]
    is_error: bool = False


class Image(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A picture: its bytes, or the address the provider shall fetch it from."""

    mime_type: str = "image/png"
    data: bytes | None = None
    url: str | None = None


class Document(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A document such as a PDF (`application/pdf`) or plain text (`text/plain`)."""

    mime_type: str
    data: bytes
    name: str | None = None


class Opaque(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A block of a kind that only `provider` knows (encrypted thinking, its own search results), kept as it came."""

    provider: str
    data: Mapping[str, Any]


Block: TypeAlias = Text | Thinking | ToolUse | ToolResult | Image | Document | Opaque


class Message(msgspec.Struct, frozen=True, gc=False):
    """One side's part of a conversation."""

    role: Role
    blocks: tuple[Block, ...]

    @property
    def text(self) -> str:
        """All of its text."""
        return "".join([block.text for block in self.blocks if isinstance(block, Text)])

    @property
    def tool_uses(self) -> Sequence[ToolUse]:
        return [block for block in self.blocks if isinstance(block, ToolUse)]

    def to_dict(self) -> dict[str, Any]:
        return {"role": self.role, "blocks": [block_to_dict(block) for block in self.blocks]}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Message:
        return cls(value["role"], tuple(block_from_dict(block) for block in value["blocks"]))


def user(text: str) -> Message:
    """A message of the user that is only text."""
    return Message("user", (Text(text),))


def block_to_dict(block: Block) -> dict[str, Any]:
    """A block as JSON; bytes are base64."""
    match block:
        case Text():
            return {"type": "text", "text": block.text}
        case Thinking():
            return {"type": "thinking", "text": block.text, "signature": block.signature}
        case ToolUse():
            shown: dict[str, Any] = {"type": "tool_use", "id": block.id, "name": block.name, "input": block.input}
            return shown if block.malformed is None else {**shown, "malformed": block.malformed}
        case ToolResult():
            return {
                "type": "tool_result",
                "tool_use_id": block.tool_use_id,
                "content": [block_to_dict(part) for part in block.content],
                "is_error": block.is_error,
            }
        case Image():
            data = None if block.data is None else base64.b64encode(block.data).decode()
            return {"type": "image", "mime_type": block.mime_type, "data": data, "url": block.url}
        case Document():
            data = base64.b64encode(block.data).decode()
            return {"type": "document", "mime_type": block.mime_type, "data": data, "name": block.name}
        case Opaque():
            return {"type": "opaque", "provider": block.provider, "data": block.data}


def block_from_dict(value: Mapping[str, Any]) -> Block:
    """The block that `block_to_dict` wrote."""
    match value["type"]:
        case "text":
            return Text(value["text"])
        case "thinking":
            return Thinking(text=value["text"], signature=value["signature"])
        case "tool_use":
            return ToolUse(id=value["id"], name=value["name"], input=value["input"], malformed=value.get("malformed"))
        case "tool_result":
            content = tuple(block_from_dict(part) for part in value["content"])
            return ToolResult(
                tool_use_id=value["tool_use_id"],
                content=content,  # pyright: ignore[reportArgumentType]  (written from the same three kinds)
                is_error=value["is_error"],
            )
        case "image":
            data = None if value["data"] is None else base64.b64decode(value["data"])
            return Image(mime_type=value["mime_type"], data=data, url=value["url"])
        case "document":
            return Document(mime_type=value["mime_type"], data=base64.b64decode(value["data"]), name=value["name"])
        case "opaque":
            return Opaque(provider=value["provider"], data=value["data"])
        case other:
            raise ValueError(f"There is no content block of type {other!r}.")


class Usage(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Tokens of one or more model calls. `input_tokens` counts all of the input, whether or not it came from a cache.

    `cost_usd` is None if the price of any part is not known; it is never 0 for that reason.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cost_usd: float | None = 0.0

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        is_priced = self.cost_usd is not None and other.cost_usd is not None
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cache_read_tokens=self.cache_read_tokens + other.cache_read_tokens,
            cache_write_tokens=self.cache_write_tokens + other.cache_write_tokens,
            cost_usd=(self.cost_usd or 0.0) + (other.cost_usd or 0.0) if is_priced else None,
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "cache_read_tokens": self.cache_read_tokens,
            "cache_write_tokens": self.cache_write_tokens,
            "total_tokens": self.total_tokens,
            "cost_usd": round(self.cost_usd, 9) if self.cost_usd else self.cost_usd,
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Usage:
        return cls(
            input_tokens=value["input_tokens"],
            output_tokens=value["output_tokens"],
            cache_read_tokens=value["cache_read_tokens"],
            cache_write_tokens=value["cache_write_tokens"],
            cost_usd=value["cost_usd"],
        )
