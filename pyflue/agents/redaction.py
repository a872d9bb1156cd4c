"""Takes the values of secrets out of what is recorded, told to a model, and shown while it is written.

What a call is granted (`secrets=[…]`) counts from then on. Each value is replaced by its name, `[secret TOKEN]`. Where
values overlap, all of them go, so that no rest of one is left. Text that arrives in pieces comes out as it would as a
whole. Without secrets nothing here costs anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from msgspec.structs import replace

from .. import codec
from ..engine.context import RunLog, Written
from .content import Block, Message, Text, Thinking, ToolUse


def redacted(value: Any, secrets: Mapping[str, str]) -> Any:
    """Text, or the texts in a JSON value, without the values of secrets that they may show."""

    def without(text: str) -> str:
        spans = _spans(text, secrets)
        return _without(text, spans, len(text)) if spans else text

    return _with_texts(value, without) if secrets else value


def restored(value: Any, secrets: Mapping[str, str]) -> Any:
    """A JSON value with the values of secrets in the place of their names: what `redacted` was given."""

    def with_values(text: str) -> str:
        for name, secret in secrets.items():
            text = text.replace(_shown(name), secret)
        return text

    return _with_texts(value, with_values) if secrets else value


def secrets_in(value: Any, secrets: Mapping[str, str]) -> Mapping[str, str]:
    """Those secrets whose names stand in a JSON value once it is redacted."""
    if not secrets:
        return {}
    names = {name for text in _texts(value) for _, _, name in _merged(_spans(text, secrets))}
    return {name: secrets[name] for name in secrets if name in names}


def redacted_block(block: Block, secrets: Mapping[str, str]) -> Block:
    """What a model or a person said, as it is recorded. Thinking that is signed stays: the provider takes no other."""
    if not secrets:
        return block
    if isinstance(block, Text):
        return Text(redacted(block.text, secrets))
    if isinstance(block, ToolUse):
        return replace(block, input=redacted(block.input, secrets), malformed=redacted(block.malformed, secrets))
    if isinstance(block, Thinking) and block.signature is None:
        return replace(block, text=redacted(block.text, secrets))
    return block


def restored_uses(message: Message, secrets: Mapping[str, str]) -> Message:
    """A message with the tool uses that the model wrote."""
    blocks = [
        replace(block, input=restored(block.input, secrets)) if isinstance(block, ToolUse) else block
        for block in message.blocks
    ]
    return Message(message.role, tuple(blocks))


class LiveRedactor:
    """Text that arrives in pieces, without the values of secrets: also those that are cut by the end of a piece.

    As much as could be the beginning of a value is held back until it is known not to be one.
    """

    def __init__(self, secrets: Mapping[str, str]) -> None:
        self._secrets = {name: secret for name, secret in secrets.items() if secret}
        self._longest = max(map(len, self._secrets.values()), default=0)
        self._firsts = frozenset(secret[0] for secret in self._secrets.values())
        self._held = ""

    def add(self, text: str) -> str:
        """What can be shown now that this has arrived."""
        text = self._held + text
        spans = _merged(_spans(text, self._secrets))
        end = self._first_beginning(text)
        for start, stop, _ in spans:
            if start < end < stop:
                end = start  # a value that begins inside of this one may yet come to its end
        self._held = text[end:]
        return _without(text, [span for span in spans if span[1] <= end], end)

    def end(self) -> str:
        """What was held back, when nothing more comes."""
        held, self._held = self._held, ""
        return redacted(held, self._secrets)

    def _first_beginning(self, text: str) -> int:
        """Where a value may begin whose end has not arrived."""
        for at in range(max(len(text) - self._longest + 1, 0), len(text)):
            if text[at] in self._firsts:
                tail = text[at:]
                if any(len(secret) > len(tail) and secret.startswith(tail) for secret in self._secrets.values()):
                    return at
        return len(text)


class RedactedLog:
    """The log of a run as a tool has it that may be given secrets."""

    def __init__(self, log: RunLog, secrets: Mapping[str, str]) -> None:
        self._log = log
        self._secrets = secrets

    def info(self, message: str, /, **fields: Any) -> Written:
        return self._log.info(redacted(str(message), self._secrets), **self._told(fields))

    def warn(self, message: str, /, **fields: Any) -> Written:
        return self._log.warn(redacted(str(message), self._secrets), **self._told(fields))

    def error(self, message: str, /, **fields: Any) -> Written:
        return self._log.error(redacted(str(message), self._secrets), **self._told(fields))

    def _told(self, fields: dict[str, Any]) -> dict[str, Any]:
        # Fields may be anything; what is recorded of them is JSON.
        return redacted(codec.load(codec.encode_loose(fields)), self._secrets)


_Span = tuple[int, int, str]


def _spans(text: str, secrets: Mapping[str, str]) -> list[_Span]:
    """Where values stand, with their names, those that overlap others as well."""
    spans: list[_Span] = []
    for name, secret in secrets.items():
        at = text.find(secret) if secret else -1
        while at >= 0:
            spans.append((at, at + len(secret), name))
            at = text.find(secret, at + 1)
    return spans


def _merged(spans: Sequence[_Span]) -> list[_Span]:
    """The same places without overlaps, in order; each has the name of the longest value in it."""
    merged: list[_Span] = []
    longest = 0
    for start, stop, name in sorted(spans):
        if merged and start < merged[-1][1]:
            begin, end, known = merged[-1]
            if stop - start > longest:
                longest, known = stop - start, name
            merged[-1] = (begin, max(stop, end), known)
        else:
            merged.append((start, stop, name))
            longest = stop - start
    return merged


def _without(text: str, spans: Sequence[_Span], end: int) -> str:
    """The text up to `end` with names in the place of values."""
    parts: list[str] = []
    at = 0
    for start, stop, name in _merged(spans):
        parts += (text[at:start], _shown(name))
        at = stop
    return "".join([*parts, text[at:end]])


def _shown(name: str) -> str:
    return f"[secret {name}]"


def _with_texts(value: Any, change: Callable[[str], str]) -> Any:
    """A JSON value with its texts changed, the names of fields as well."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        fields = cast("Mapping[str, Any]", value)
        return {change(name): _with_texts(each, change) for name, each in fields.items()}
    if isinstance(value, list):
        return [_with_texts(each, change) for each in cast("list[Any]", value)]
    return value


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        fields = cast("Mapping[str, Any]", value)
        return [text for name, each in fields.items() for text in (name, *_texts(each))]
    if isinstance(value, list):
        return [text for each in cast("list[Any]", value) for text in _texts(each)]
    return []
