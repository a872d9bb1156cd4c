"""What adapters need to put a reply together: text without broken characters, inputs of tools, estimates of usage.

Everything that comes out of a stream is hostile. Text may hold halves of characters, which no journal and no other
provider takes; inputs of tools may be anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from ... import codec
from ...errors import InvalidJson
from ...ids import new_ulid
from ..content import Block, Document, Image, Text, Thinking, ToolResult, ToolUse, Usage
from .port import ModelRequest

#: A reply larger than this is not read to its end: no model writes it, so something has run wild.
REPLY_LIMIT_CHARS = 64 * 1024**2
#: How much of a tool's input that is not JSON is kept to be shown to the model.
_MALFORMED_CHARS = 16 * 1024
_CHARS_PER_TOKEN = 4
_TOKENS_PER_PICTURE = 1000


def clean(text: str) -> str:
    """The text with a replacement character in the place of each lone surrogate; pairs become the one they mean."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def mapping(value: object) -> Mapping[str, Any] | None:
    """A JSON object; None for any other value."""
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else None


def clean_json(value: Any) -> Any:
    """A JSON value in which every text is clean."""
    if isinstance(value, str):
        return clean(value)
    if (named := mapping(value)) is not None:
        return {clean(name): clean_json(item) for name, item in named.items()}
    if isinstance(value, (list, tuple)):
        return [clean_json(item) for item in cast("Sequence[Any]", value)]
    return value


class Joiner:
    """Joins pieces of a text. A character that was cut in two between pieces comes out whole with the second one."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._held = ""

    def feed(self, piece: str) -> str:
        """What can be shown now that this piece has come; maybe nothing."""
        if self._held:
            piece, self._held = self._held + piece, ""
        if "\ud800" <= piece[-1:] <= "\udbff":
            piece, self._held = piece[:-1], piece[-1]
        piece = clean(piece)
        self._pieces.append(piece)
        return piece

    def rest(self) -> str:
        """What was held back, when nothing more comes."""
        held, self._held = clean(self._held), ""
        self._pieces.append(held)
        return held

    @property
    def text(self) -> str:
        return "".join(self._pieces)


def tool_use(use_id: str, name: str, raw: str) -> ToolUse:
    """A request to run a tool, from the input as it was streamed. No input at all is an empty one."""
    use_id = clean(use_id) or f"call_{new_ulid()}"
    name, raw = clean(name), clean(raw)
    if not raw.strip():
        return ToolUse(id=use_id, name=name, input={})
    try:
        value = codec.decode(raw.encode(), "The tool's input")
    except InvalidJson:
        value = None
    given = mapping(value)
    if given is None:
        return ToolUse(id=use_id, name=name, input={}, malformed=raw[:_MALFORMED_CHARS])
    return ToolUse(id=use_id, name=name, input=given)


def count(value: Any) -> int:
    """A number of tokens as a provider reported it; whatever is not one counts as none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def estimated_usage(request: ModelRequest, blocks: Sequence[Block]) -> Usage:
    """Tokens by a rule of thumb, four characters each, for models that report none."""
    chars = len(request.system)
    for message in request.messages:
        chars += _chars(message.blocks)
    for tool in request.tools:
        chars += len(tool.name) + len(tool.description)
    return Usage(
        input_tokens=max(1, chars // _CHARS_PER_TOKEN), output_tokens=max(1, _chars(blocks) // _CHARS_PER_TOKEN)
    )


def _chars(blocks: Sequence[Block]) -> int:
    chars = 0
    for block in blocks:
        if isinstance(block, (Text, Thinking)):
            chars += len(block.text)
        elif isinstance(block, ToolUse):
            chars += len(block.name) + len(str(block.input))
        elif isinstance(block, ToolResult):
            chars += _chars(block.content)
        elif isinstance(block, (Image, Document)):
            chars += _TOKENS_PER_PICTURE * _CHARS_PER_TOKEN
    return chars
