"""Chat Completions through OpenAI's own library: `openai/<model>`, and every provider that speaks the same.

A provider with a `base_url` is a compatible server (Ollama, vLLM, OpenRouter): it needs no key unless it is configured
with a variable for one, and what it says of its reasoning beyond the API is kept and sent back to it. The library is an
extra, `pyflue[openai]`. Its own retries are off: an attempt is one request.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import TYPE_CHECKING, Any

from ...errors import ModelError, ModelFailed, ModelKeyMissing, ModelUnknown, PyFlueError
from ..content import Block, Opaque, Text, Thinking, Usage
from . import failures, families, openai_form
from .failures import StreamBroken
from .parts import REPLY_LIMIT_CHARS, Joiner, clean, clean_json, count, estimated_usage, mapping, tool_use
from .port import ModelReply, ModelRequest, Progress, StopReason, StreamItem, TextDelta
from .settings import ModelSetup

if TYPE_CHECKING:
    import httpx2
    import openai
    from openai.types.chat import ChatCompletionChunk

PROVIDER = "openai"
KEY_VARIABLE = "OPENAI_API_KEY"
_BASE_URL = "https://api.openai.com/v1"
_STOP_REASONS = {
    "stop": StopReason.END,
    "tool_calls": StopReason.TOOL_USE,
    "function_call": StopReason.TOOL_USE,
    "length": StopReason.MAX_TOKENS,
    "content_filter": StopReason.REFUSAL,
}
#: Errors inside of a stream may come with a word where others have a status.
_STATUS = {
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "invalid_api_key": 401,
    "context_length_exceeded": 400,
    "invalid_request_error": 400,
    "model_not_found": 404,
}
#: Names under which servers put the model's reasoning; it is the same text where both are used.
_REASONING = ("reasoning_content", "reasoning")


def openai_model(setup: ModelSetup, *, http_client: httpx2.AsyncClient | None = None) -> OpenAIModel:
    """The factory of the entry point `openai`, and of every provider that is nothing but a `base_url`.

    `http_client` is used for its requests, and closed with it.
    """
    return OpenAIModel(setup, http_client)


class OpenAIModel:
    """One model behind Chat Completions. Used in one event loop, because its connections belong to it."""

    def __init__(self, setup: ModelSetup, http_client: httpx2.AsyncClient | None = None) -> None:
        self._http_client = http_client
        self.id = setup.id
        self.provider = setup.provider
        self._setup = setup
        named = setup.env.get("OPENAI_BASE_URL") if setup.provider == PROVIDER else None
        self._base_url = setup.settings.base_url or named or _BASE_URL
        self._is_compatible = self._base_url.rstrip("/") != _BASE_URL
        self._client: openai.AsyncOpenAI | None = None
        self._opening = asyncio.Lock()
        self._is_closed = False

    @property
    def context_tokens(self) -> int | None:
        return self._setup.settings.context_tokens or families.openai_context_tokens(self._setup.name)

    @property
    def has_schema_mode(self) -> bool:
        return True

    async def stream(self, request: ModelRequest) -> AsyncGenerator[StreamItem]:
        client = await self._opened()
        try:
            params = openai_form.params(
                self._setup.name, request, provider=self.provider, is_compatible=self._is_compatible
            )
            if not self._key() and not self._has_own_authorization():
                import openai

                # Per request, because only there the library takes it for meant.
                params["extra_headers"] = {"Authorization": openai.Omit()}
            chunks = await _create(client, params)
            try:
                failures.check_content_type(chunks.response.headers.get("content-type", ""))
                reading = _Reading(self._setup.name, self.provider)
                with failures.understanding():
                    async for chunk in chunks:
                        for item in reading.take(chunk):
                            yield item
                for item in reading.end():
                    yield item
                yield reading.reply(request, chunks.response.headers.get("x-request-id"))
            finally:
                await chunks.close()
        except PyFlueError:
            raise
        except Exception as error:  # a library's code, and bytes of a stranger's: all become ours
            raise self._failure(error) from error

    async def close(self) -> None:
        self._is_closed = True
        async with self._opening:
            if self._client is not None:
                await self._client.close()
            elif self._http_client is not None:
                await self._http_client.aclose()

    async def _opened(self) -> openai.AsyncOpenAI:
        """The client. Importing the library takes half a second, so that is done in a thread.

        Raises:
            ModelKeyMissing, ModelUnknown
        """
        if self._client is None:
            async with self._opening:
                if self._client is None and not self._is_closed:
                    self._client = await asyncio.to_thread(self._open, self._key())
        if self._client is None or self._is_closed:
            raise ModelFailed(f"{self.id}: the model has been closed.", is_retryable=False)
        return self._client

    def _key_variable(self) -> str | None:
        """OpenAI's own key goes to other servers only under the name `openai`, where somebody has asked for it."""
        return self._setup.settings.key_variable or (KEY_VARIABLE if self.provider == PROVIDER else None)

    def _key(self) -> str:
        settings = self._setup.settings
        variable = self._key_variable()
        key = self._setup.env.get(variable, "").strip() if variable else ""
        needs_key = settings.key_variable is not None or not self._is_compatible
        if not key and needs_key and not self._has_own_authorization():
            raise ModelKeyMissing(self.id, variable or KEY_VARIABLE)
        return key

    def _has_own_authorization(self) -> bool:
        return "authorization" in map(str.lower, self._setup.settings.headers)

    def _open(self, key: str) -> openai.AsyncOpenAI:
        try:
            import openai
        except ImportError as error:
            raise ModelUnknown(
                f"Model {self.id} needs the package openai, which is not installed.",
                hint="Install it: pip install 'pyflue[openai]'.",
            ) from error
        import httpx2

        settings = self._setup.settings
        headers: dict[str, Any] = {}
        if self._is_compatible:
            # The library would take these from the process, and they are nobody else's business.
            headers |= {"OpenAI-Organization": openai.Omit(), "OpenAI-Project": openai.Omit()}
        return openai.AsyncOpenAI(
            # Never None: then the library would look for a key in the process.
            api_key=key or "none",
            base_url=self._base_url,
            default_headers={**headers, **settings.headers},
            max_retries=0,
            timeout=httpx2.Timeout(settings.timeout_s, read=settings.idle_timeout_s),
            http_client=self._http_client,
        )

    def _secrets(self) -> tuple[str, ...]:
        variable = self._key_variable()
        return (self._setup.env.get(variable, "") if variable else "", *self._setup.settings.headers.values())

    def _failure(self, error: Exception) -> ModelError:
        import httpx2
        import openai

        match error:
            case StreamBroken():
                return failures.broken(self.id, error.problem, is_retryable=error.is_retryable)
            case openai.APIStatusError():
                return failures.from_status(
                    self.id, error.status_code, error.response.headers, error.body, secrets=self._secrets()
                )
            case openai.APITimeoutError() | httpx2.TimeoutException():
                return failures.unreachable(self.id, self._base_url, "it was silent for too long")
            case openai.APIConnectionError() | httpx2.RequestError():
                problem = str(error.__cause__ or error).rstrip(".") or type(error).__name__
                return failures.unreachable(self.id, self._base_url, problem)
            case openai.APIError():
                return failures.from_status(self.id, _status(error.body), {}, error.body, secrets=self._secrets())
            case _:
                problem = f"{self.id} could not be asked: {type(error).__name__}: {error}"
                return ModelFailed(problem[:1000], is_retryable=False)


async def _create(client: openai.AsyncOpenAI, params: dict[str, Any]) -> openai.AsyncStream[ChatCompletionChunk]:
    options: dict[str, Any] = {"stream_options": {"include_usage": True}}
    try:
        return await client.chat.completions.create(**params, **options, stream=True)
    except UnicodeEncodeError:
        # Halves of characters that came in from somewhere; looking for them in every request would cost more.
        return await client.chat.completions.create(**clean_json(params), **options, stream=True)


def _status(body: object) -> int:
    """The status of an error inside of a stream; servers' own troubles if it has none."""
    named = mapping(body) or {}
    for word in (named.get("code"), named.get("type")):
        if isinstance(word, int) and 400 <= word <= 599:
            return word
        if isinstance(word, str) and word in _STATUS:
            return _STATUS[word]
    return 500


class _Call:
    """A tool call while it is streamed."""

    def __init__(self, call_id: str) -> None:
        self.id = call_id
        self.name = ""
        self.arguments: list[str] = []


class _Reading:
    """A completion while it is streamed."""

    def __init__(self, name: str, provider: str) -> None:
        self._model = name
        self._provider = provider
        self._text = Joiner()
        self._thinking = Joiner()
        self._details: list[Any] = []
        self._calls: list[_Call] = []
        #: The call that an index stands for just now; some servers give every call the same one.
        self._current: dict[int, _Call] = {}
        self._is_refusal = False
        self._finish_reason: str | None = None
        self._usage: Usage | None = None
        self._chars = 0

    def take(self, chunk: ChatCompletionChunk) -> list[StreamItem]:
        """What a chunk means for those who read along.

        Raises:
            StreamBroken, TypeError, AttributeError and the like: it is not what the API promises.
        """
        if chunk.usage is not None:
            self._usage = _usage(chunk.usage)
        if isinstance(chunk.model, str) and chunk.model:  # pyright: ignore[reportUnnecessaryIsInstance]  (not checked by the library)
            self._model = clean(chunk.model)
        items: list[StreamItem] = []
        for choice in chunk.choices or ():
            # What comes after the end is a chunk that came twice.
            if choice.index == 0 and self._finish_reason is None:
                items.extend(self._add(choice.delta))
                self._finish_reason = choice.finish_reason
        return items or [Progress()]

    def end(self) -> list[StreamItem]:
        """What was held back of the text, when the stream has ended."""
        self._thinking.rest()
        rest = self._text.rest()
        return [TextDelta(rest)] if rest else []

    def reply(self, request: ModelRequest, request_id: str | None) -> ModelReply:
        """The whole completion.

        Raises:
            StreamBroken: it is not whole.
        """
        if self._finish_reason is None:
            raise StreamBroken("ended in the middle")
        blocks: list[Block] = []
        if self._details:
            blocks.append(Opaque(provider=self._provider, data={"reasoning_details": clean_json(self._details)}))
        if self._thinking.text:
            blocks.append(Thinking(text=self._thinking.text))
        if self._text.text:
            blocks.append(Text(self._text.text))
        blocks.extend(tool_use(call.id, call.name, "".join(call.arguments)) for call in self._calls)
        stop_reason = _STOP_REASONS.get(self._finish_reason, StopReason.END)
        if self._is_refusal:
            stop_reason = StopReason.REFUSAL
        elif self._calls and stop_reason is StopReason.END:
            stop_reason = StopReason.TOOL_USE
        return ModelReply(
            blocks=tuple(blocks),
            stop_reason=stop_reason,
            usage=self._usage or estimated_usage(request, blocks),
            model=self._model,
            request_id=request_id,
        )

    def _add(self, delta: Any) -> list[StreamItem]:
        items: list[StreamItem] = []
        extra: Mapping[str, Any] = delta.model_extra or {}
        for name in _REASONING:
            if reasoning := extra.get(name):
                self._sized(self._thinking.feed(reasoning))
                break
        if details := extra.get("reasoning_details"):
            self._details.extend(details)
        for text in (delta.content, delta.refusal):
            if text:
                shown = self._sized(self._text.feed(text))
                items.extend([TextDelta(shown)] if shown else [])
        self._is_refusal = self._is_refusal or bool(delta.refusal)
        for call in delta.tool_calls or ():
            self._add_call(call)
        return items

    def _add_call(self, piece: Any) -> None:
        call = self._current.get(piece.index)
        if call is None or (piece.id and call.id and piece.id != call.id):
            call = self._current[piece.index] = _Call(piece.id or "")
            self._calls.append(call)
        if piece.function is not None:
            call.name = call.name or piece.function.name or ""
            call.arguments.append(self._sized(piece.function.arguments or ""))

    def _sized(self, text: str) -> str:
        self._chars += len(text)
        if self._chars > REPLY_LIMIT_CHARS:
            raise StreamBroken("does not end", is_retryable=False)
        return text


def _usage(usage: Any) -> Usage:
    """What was counted; `prompt_tokens` holds the cached ones already."""
    details = usage.prompt_tokens_details
    return Usage(
        input_tokens=count(usage.prompt_tokens),
        output_tokens=count(usage.completion_tokens),
        cache_read_tokens=count(getattr(details, "cached_tokens", None)),
        cache_write_tokens=count(getattr(details, "cache_write_tokens", None)),
    )
