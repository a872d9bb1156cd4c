"""What came of a call to an MCP server's tool, as a model is told.

The server is hostile: everything has a largest size.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ... import codec
from ...errors import McpFailed, NotSerializable, PyFlueError
from ..content import Document, Image, Text
from ..tools import Content

if TYPE_CHECKING:
    from mcp.types import CallToolResult

#: Most text of one result; the rest is cut off.
_TEXT_CHARACTERS = 256 * 1024
_BINARY_BYTES = 5 * 1024 * 1024
_MOST_BLOCKS = 64
_IMAGES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
_DOCUMENTS = frozenset({"application/pdf"})


def content_of(result: CallToolResult, redact: Callable[[str], str]) -> list[Content]:
    """The content of a result, redacted.

    Raises:
        McpFailed: with what the tool says of its failure.
    """
    reading = _Reading(redact)
    structured = _structured(result.structured_content)
    for block in result.content[:_MOST_BLOCKS]:
        # Servers say structured content as text, too, for clients that do not know it.
        if not (structured is not None and block.type == "text" and _is_same(block.text, result.structured_content)):
            reading.add(block)
    if len(result.content) > _MOST_BLOCKS:
        reading.note(f"{len(result.content) - _MOST_BLOCKS:,} more parts of the result were left out")
    if structured is not None:
        reading.text(f"Structured content:\n{structured}")
    if reading.characters_over:
        reading.note(f"{reading.characters_over:,} more characters of text were left out")
    if result.is_error:
        said = "\n".join(each.text for each in reading.content if isinstance(each, Text)).strip()
        raise McpFailed(said or "The tool failed and did not say why.")
    return reading.content


class _Reading:
    """The content so far, and how much room is left."""

    def __init__(self, redact: Callable[[str], str]) -> None:
        self.content: list[Content] = []
        self.characters_over = 0
        self._redact = redact
        self._characters_left = _TEXT_CHARACTERS
        self._bytes_left = _BINARY_BYTES

    def add(self, block: Any) -> None:
        match block.type:
            case "text":
                self.text(block.text)
            case "image":
                self._binary(block.data, block.mime_type, "image")
            case "audio":
                self._binary(block.data, block.mime_type, "audio")
            case "resource_link":
                self.text(f"Resource {block.uri}: {block.title or block.name}")
            case _:
                resource = block.resource
                text = getattr(resource, "text", None)
                if isinstance(text, str):
                    self.text(f"Resource {resource.uri}:\n{text}")
                else:
                    self._binary(resource.blob, resource.mime_type or "", f"resource {resource.uri}")

    def text(self, text: str) -> None:
        clean = self._redact(text.encode(errors="replace").decode())
        kept = clean[: self._characters_left]
        self._characters_left -= len(kept)
        self.characters_over += len(clean) - len(kept)
        if kept:
            self.content.append(Text(kept))

    def note(self, text: str) -> None:
        """Something that we say, and not the tool."""
        self.content.append(Text(f"[{self._redact(text)}]"))

    def _binary(self, encoded: str, mime_type: str, what: str) -> None:
        kind = mime_type.partition(";")[0].strip().lower()
        if kind not in _IMAGES | _DOCUMENTS:
            self.note(f"{what[:200]} of type {kind[:100] or 'unknown'} left out: models cannot read it")
            return
        if len(encoded) // 4 * 3 > self._bytes_left:
            self.note(f"{what[:200]} left out: the result is larger than {_BINARY_BYTES:,} bytes")
            return
        try:
            data = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            self.note(f"{what[:200]} left out: it is not base64")
            return
        self._bytes_left -= len(data)
        self.content.append(
            Image(mime_type=kind, data=data) if kind in _IMAGES else Document(mime_type=kind, data=data)
        )


def _structured(value: Any) -> str | None:
    if value is None:
        return None
    try:
        return bytes(codec.encode_value(value, "The structured content")).decode()
    except NotSerializable as error:
        return f"[left out: {error}]"


def _is_same(text: str, value: Any) -> bool:
    try:
        return len(text) <= _TEXT_CHARACTERS and codec.decode(text.encode(errors="replace"), "A text") == value
    except PyFlueError:
        return False
