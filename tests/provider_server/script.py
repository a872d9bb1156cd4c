"""What the server is told to answer: a list, or a function of the request."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from pyflue.agents.content import Usage


class Gate:
    """An event that threads and event loops can wait for together: the server runs in a thread of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._event = threading.Event()
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    @property
    def is_open(self) -> bool:
        return self._event.is_set()

    def open(self) -> None:
        with self._lock:
            self._event.set()
            waiting, self._waiting = self._waiting, []
        for loop, event in waiting:
            if not loop.is_closed():
                loop.call_soon_threadsafe(event.set)

    async def wait(self) -> None:
        event = asyncio.Event()
        with self._lock:
            if self._event.is_set():
                return
            self._waiting.append((asyncio.get_running_loop(), event))
        await event.wait()


@dataclass(frozen=True, kw_only=True)
class ToolCall:
    """A tool call of an answer. `raw` is sent in the place of the input's JSON: broken, duplicated, no object."""

    name: str
    input: Mapping[str, Any] = field(default_factory=dict)
    id: str = ""
    raw: str | None = None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer. Each fault is a field, so that faults can be combined."""

    text: str = ""
    thinking: str | None = None
    signature: str = "c2lnbmF0dXJl"
    redacted: str | None = None
    tool_calls: Sequence[ToolCall] = ()
    #: `end`, `tool_use`, `max_tokens`, `pause`, `refusal`; None: what follows from the tool calls.
    stop: str | None = None
    #: As ours: `input_tokens` counts cached ones too.
    usage: Usage = field(default_factory=lambda: Usage(input_tokens=10, output_tokens=5))
    model: str | None = None
    #: Characters of text in one event; None: few events even for a long text.
    piece_chars: int | None = None

    #: Answer with this status and an error of this kind (`authentication`, `not_found`, `overflow`, `rate_limit`,
    #: `server`, `overloaded`, `invalid`) instead.
    status: int = 200
    error: str | None = None
    message: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    #: Answer with a page of HTML.
    html: bool = False

    #: Send this many events, then break the connection.
    cut_after: int | None = None
    #: Send this many events, then end the answer in good order.
    end_after: int | None = None
    #: Send this many events, then an error event of the kind `error_kind`.
    error_after: int | None = None
    error_kind: str = "overloaded"
    #: Send this many events (0: not even the headers), then wait for `gate`, which is opened by the test.
    hold_after: int | None = None
    gate: Gate = field(default_factory=Gate)
    #: Send each event twice.
    duplicated: bool = False
    #: Send an event that is not JSON, or is JSON of another shape, in the middle.
    wrong_json: bool = False
    wrong_shape: bool = False
    #: Bytes sent in the place of all events.
    raw: bytes | None = None


class Script:
    """The answers, by the number of the request, by the turn of its conversation, or by a function of it."""

    def __init__(
        self,
        answers: Sequence[Answer | str] | Callable[[Mapping[str, Any]], Answer | str],
        *,
        by: str = "request",
    ) -> None:
        self._answers = answers
        self._by = by

    def answer(self, number: int, body: Mapping[str, Any]) -> Answer:
        """The answer to the request of this number, from 0; past the end of a list, the last one again."""
        if callable(self._answers):
            answer = self._answers(body)
        else:
            if self._by == "conversation":
                number = sum(message["role"] == "assistant" for message in body["messages"])
            answer = self._answers[min(number, len(self._answers) - 1)]
        return say(answer) if isinstance(answer, str) else answer

    @classmethod
    def from_json(cls, value: Any) -> Script:
        """A script as a file has it: a list of answers, or `{"by": "conversation", "answers": […]}`."""
        by = "request"
        if isinstance(value, dict):
            by, value = value.get("by", by), value["answers"]
        return cls([one if isinstance(one, str) else _from_json(one) for one in value], by=by)


def _from_json(value: Mapping[str, Any]) -> Answer:
    known = {item.name for item in fields(Answer)} - {"gate", "raw"}
    if unknown := set(value) - known:
        raise ValueError(f"An answer has no {sorted(unknown)}; it has {sorted(known)}.")
    made = dict(value)
    if "usage" in made:
        made["usage"] = Usage(**made["usage"])
    made["tool_calls"] = [ToolCall(**call) for call in made.get("tool_calls", ())]
    return Answer(**made)


def say(text: str, **fields_: Any) -> Answer:
    """An answer that is text."""
    return Answer(text=text, **fields_)


def use_tools(*calls: tuple[str, Mapping[str, Any]], **fields_: Any) -> Answer:
    """An answer that asks for tools, as (name, input)."""
    return Answer(tool_calls=[ToolCall(name=name, input=given) for name, given in calls], **fields_)


def failing(status: int, error: str, message: str | None = None, **headers: str) -> Answer:
    """An error; underscores in names of headers are hyphens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status=status, error=error, message=message, headers=named)


def unauthorized() -> Answer:
    return failing(401, "authentication")


def not_found() -> Answer:
    return failing(404, "not_found")


def overflow() -> Answer:
    return failing(400, "overflow")


def rate_limited(**headers: str) -> Answer:
    return failing(429, "rate_limit", **headers)


def overloaded() -> Answer:
    return failing(529, "overloaded")


def html_page(status: int = 502) -> Answer:
    return Answer(status=status, html=True)


def held(answer: Answer, *, after: int = 0) -> Answer:
    """The answer, which stops after some events until its `gate` is opened."""
    return replace(answer, hold_after=after, gate=Gate())
