"""Claude through Anthropic's own library: `anthropic/<model>`.

The library does the connection, the keys, the errors and the framing of server-sent events; the events are read here,
because the library drops the pings that show that a silent stream is alive, and because whatever is wrong in them has
to become an error of ours. Its own retries are off: an attempt is one request.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from ...errors import ModelError, ModelFailed, ModelKeyMissing, PyFlueError
from ..content import Block, Opaque, Text, Thinking, Usage
from . import anthropic_form, failures, families
from .failures import StreamBroken
from .parts import REPLY_LIMIT_CHARS, Joiner, clean, clean_json, count, mapping, tool_use
from .port import ModelReply, ModelRequest, Progress, StopReason, StreamItem, TextDelta
from .settings import ModelSetup

if TYPE_CHECKING:
    import anthropic
    from anthropic.types import RawMessageStreamEvent

KEY_VARIABLE = "ANTHROPIC_API_KEY"
_BASE_URL = "https://api.anthropic.com"
_STOP_REASONS = {
    "end_turn": StopReason.END,
    "stop_sequence": StopReason.END,
    "tool_use": StopReason.TOOL_USE,
    "max_tokens": StopReason.MAX_TOKENS,
    "model_context_window_exceeded": StopReason.MAX_TOKENS,
    "pause_turn": StopReason.PAUSE,
    "refusal": StopReason.REFUSAL,
}
#: Errors inside of a stream come without a status of their own; these are the ones they have outside.
_STATUS = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
_KEY_HEADERS = frozenset(("x-api-key", "authorization"))


def anthropic_model(setup: ModelSetup) -> AnthropicModel:
    """The factory of the entry point `anthropic`."""
    return AnthropicModel(setup)


class AnthropicModel:
    """One Claude model. Used in one event loop, because its connections belong to it."""

    provider = anthropic_form.PROVIDER

    def __init__(self, setup: ModelSetup) -> None:
        self.id = setup.id
        self._setup = setup
        self._family = families.claude(setup.name)
        self._base_url = setup.settings.base_url or setup.env.get("ANTHROPIC_BASE_URL") or _BASE_URL
        self._client: anthropic.AsyncAnthropic | None = None
        self._opening = asyncio.Lock()
        self._is_closed = False

    @property
    def context_tokens(self) -> int | None:
        return self._setup.settings.context_tokens or self._family.context_tokens

    @property
    def has_schema_mode(self) -> bool:
        return self._family.has_schema_mode

    async def stream(self, request: ModelRequest) -> AsyncGenerator[StreamItem]:
        client = await self._opened()
        try:
            events = await self._ask(client, request)
            try:
                headers = events.response.headers
                failures.check_content_type(headers.get("content-type", ""))
                reading = _Reading(self._setup.name)
                with failures.understanding():
                    async for event in events.raw_events(events.response):
                        if event.event == "error":
                            raise self._error_event(event.json())
                        for item in reading.take(event.event, event.data and event.json()):
                            yield item
                        if reading.is_over:
                            break
                yield reading.reply(headers.get("request-id"))
            finally:
                await events.close()
        except PyFlueError:
            raise
        except Exception as error:  # a library's code, and bytes of a stranger's: all become ours
            raise self._failure(error) from error

    async def close(self) -> None:
        self._is_closed = True
        async with self._opening:
            if self._client is not None:
                await self._client.close()

    async def _opened(self) -> anthropic.AsyncAnthropic:
        """The client. Importing the library takes a second, so that is done in a thread.

        Raises:
            ModelKeyMissing
        """
        if self._client is None:
            async with self._opening:
                if self._client is None and not self._is_closed:
                    self._client = await asyncio.to_thread(self._open, self._key())
        if self._client is None or self._is_closed:
            raise ModelFailed(f"{self.id}: the model has been closed.", is_retryable=False)
        return self._client

    def _key(self) -> str:
        settings = self._setup.settings
        variable = settings.key_variable or KEY_VARIABLE
        key = self._setup.env.get(variable, "").strip()
        if not key and not any(name.lower() in _KEY_HEADERS for name in settings.headers):
            raise ModelKeyMissing(self.id, variable)
        return key

    def _open(self, key: str) -> anthropic.AsyncAnthropic:
        import anthropic
        import httpx2

        settings = self._setup.settings
        headers: dict[str, Any] = dict(settings.headers)
        if not key and "authorization" not in map(str.lower, headers):
            headers["Authorization"] = anthropic.Omit()
        return anthropic.AsyncAnthropic(
            # Never None: then the library would look for keys in the process and in files of its own.
            api_key=key,
            base_url=self._base_url,
            default_headers=headers,
            max_retries=0,
            timeout=httpx2.Timeout(settings.timeout_s, read=settings.idle_timeout_s),
        )

    async def _ask(
        self, client: anthropic.AsyncAnthropic, request: ModelRequest
    ) -> anthropic.AsyncStream[RawMessageStreamEvent]:
        """Send the request. Thinking that the API does not take back is left out, the conversation goes on without it.

        Newer models tie their thinking to themselves and to everything before it, so it is refused after the model was
        changed or the conversation compacted. Such an answer costs nothing and comes before any work.
        """
        import anthropic

        params = anthropic_form.params(self._setup.name, self._family, request)
        try:
            return await _create(client, params)
        except anthropic.BadRequestError as error:
            said = str(error.body).lower()
            if "thinking" not in said or not ("signature" in said or "block" in said):
                raise
            without = anthropic_form.params(self._setup.name, self._family, request, keep_thinking=False)
            if without["messages"] == params["messages"]:
                raise
            return await _create(client, without)

    def _secrets(self) -> tuple[str, ...]:
        settings = self._setup.settings
        return (self._setup.env.get(settings.key_variable or KEY_VARIABLE, ""), *settings.headers.values())

    def _error_event(self, body: Any) -> ModelError:
        kind: Any = body.get("error", {}).get("type")
        return failures.from_status(self.id, _STATUS.get(kind, 500), {}, body, secrets=self._secrets())

    def _failure(self, error: Exception) -> ModelError:
        import anthropic
        import httpx2

        match error:
            case StreamBroken():
                return failures.broken(self.id, error.problem, is_retryable=error.is_retryable)
            case anthropic.APIStatusError():
                return failures.from_status(
                    self.id, error.status_code, error.response.headers, error.body, secrets=self._secrets()
                )
            case anthropic.APITimeoutError() | httpx2.TimeoutException():
                return failures.unreachable(self.id, self._base_url, "it was silent for too long")
            case anthropic.APIConnectionError() | httpx2.RequestError():
                problem = str(error.__cause__ or error).rstrip(".") or type(error).__name__
                return failures.unreachable(self.id, self._base_url, problem)
            case _:
                problem = f"{self.id} could not be asked: {type(error).__name__}: {error}"
                return ModelFailed(problem[:1000], is_retryable=False)


async def _create(
    client: anthropic.AsyncAnthropic, params: dict[str, Any]
) -> anthropic.AsyncStream[RawMessageStreamEvent]:
    try:
        return await client.messages.create(**params, stream=True)
    except UnicodeEncodeError:
        # Halves of characters that came in from somewhere; looking for them in every request would cost more.
        return await client.messages.create(**clean_json(params), stream=True)


class _Reading:
    """A message while it is streamed. Whatever comes twice counts once; what makes no sense ends it."""

    def __init__(self, name: str) -> None:
        self._model = name
        self._parts: dict[int, _Part] = {}
        self._usage: dict[str, Any] = {}
        self._stop_reason: str | None = None
        self._has_begun = False
        self._chars = 0
        self.is_over = False

    def take(self, kind: str | None, data: Any) -> list[StreamItem]:
        """What an event means for those who read along.

        Raises:
            StreamBroken, TypeError, KeyError and the like: it is not what the API promises.
        """
        match kind:
            case "message_start":
                self._begin(data["message"])
            case "content_block_start":
                return self._start(data["index"], data["content_block"])
            case "content_block_delta":
                return self._add(data["index"], data["delta"])
            case "content_block_stop":
                part = self._parts.get(data["index"])
                return _shown(part.end()) if part else []
            case "message_delta":
                self._stop_reason = data["delta"].get("stop_reason") or self._stop_reason
                self._count(data.get("usage"))
            case "message_stop":
                self.is_over = True
            case _:
                pass  # a ping, or something newer than this
        return [Progress()]

    def reply(self, request_id: str | None) -> ModelReply:
        """The whole message.

        Raises:
            StreamBroken: it is not whole.
        """
        if not self._has_begun:
            raise StreamBroken("holds no message")
        if not self.is_over or self._stop_reason is None:
            raise StreamBroken("ended in the middle")
        blocks = tuple(block for index in sorted(self._parts) for block in self._parts[index].blocks())
        return ModelReply(
            blocks=blocks,
            stop_reason=_STOP_REASONS.get(self._stop_reason, StopReason.END),
            usage=self._counted(),
            model=self._model,
            request_id=request_id,
        )

    def _begin(self, message: Mapping[str, Any]) -> None:
        if isinstance(message.get("model"), str):
            self._model = clean(message["model"])
        self._count(message.get("usage"))
        self._has_begun = True

    def _start(self, index: int, block: Mapping[str, Any]) -> list[StreamItem]:
        if index in self._parts:
            return []
        part = self._parts[index] = _Part(block)
        return _shown(part.begin())

    def _add(self, index: int, delta: Mapping[str, Any]) -> list[StreamItem]:
        part = self._parts.get(index)
        if part is None:
            raise StreamBroken("goes on with a block that has not begun")
        text, size = part.add(delta)
        self._chars += size
        if self._chars > REPLY_LIMIT_CHARS:
            raise StreamBroken("does not end", is_retryable=False)
        return _shown(text)

    def _count(self, usage: Any) -> None:
        """Numbers are totals so far; a later one, if there is one, is the better one."""
        named = mapping(usage) or {}
        self._usage.update({name: number for name, number in named.items() if number is not None})

    def _counted(self) -> Usage:
        read = count(self._usage.get("cache_read_input_tokens"))
        written = count(self._usage.get("cache_creation_input_tokens"))
        return Usage(
            input_tokens=count(self._usage.get("input_tokens")) + read + written,
            output_tokens=count(self._usage.get("output_tokens")),
            cache_read_tokens=read,
            cache_write_tokens=written,
        )


class _Part:
    """One block while it is streamed."""

    def __init__(self, start: Mapping[str, Any]) -> None:
        self._start = start
        self._kind = str(start["type"])
        self._text = Joiner()
        self._input: list[str] = []
        self._signature: list[str] = []
        self._is_over = False

    def begin(self) -> str:
        """Text that came with the start of the block."""
        if self._kind == "thinking":
            self._text.feed(self._start.get("thinking") or "")
            self._signature.append(self._start.get("signature") or "")
        return self._text.feed(self._start.get("text") or "") if self._kind == "text" else ""

    def add(self, delta: Mapping[str, Any]) -> tuple[str, int]:
        """Text that can be shown, and how large the piece was."""
        if self._is_over:
            return "", 0
        match delta["type"]:
            case "text_delta":
                shown = self._text.feed(delta["text"])
                return (shown if self._kind == "text" else ""), len(delta["text"])
            case "thinking_delta":
                self._text.feed(delta["thinking"])
                return "", len(delta["thinking"])
            case "signature_delta":
                self._signature.append(delta["signature"])
                return "", len(delta["signature"])
            case "input_json_delta":
                self._input.append(delta["partial_json"])
                return "", len(delta["partial_json"])
            case _:
                return "", 0  # citations, and what is newer than this

    def end(self) -> str:
        self._is_over = True
        rest = self._text.rest()
        return rest if self._kind == "text" else ""

    def blocks(self) -> list[Block]:
        """The block; none for an empty text."""
        text = self._text.text
        match self._kind:
            case "text":
                return [Text(text)] if text else []
            case "thinking":
                return [Thinking(text=text, signature=clean("".join(self._signature)) or None)]
            case "tool_use":
                raw = "".join(self._input)
                use = tool_use(self._start["id"], self._start["name"], raw)
                given = mapping(self._start.get("input"))
                return [replace(use, input=clean_json(given)) if given and not raw else use]
            case _:
                return [Opaque(provider=anthropic_form.PROVIDER, data=self._whole())]

    def _whole(self) -> dict[str, Any]:
        """A block of a kind that we have no word for, with what was streamed of it."""
        whole = clean_json(dict(self._start))
        if raw := "".join(self._input):
            whole["input"] = tool_use("-", "-", raw).input
        return whole


def _shown(text: str) -> list[StreamItem]:
    return [TextDelta(text)] if text else [Progress()]
