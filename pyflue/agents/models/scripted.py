"""A model without a provider: `scripted/<name>`, which gives the answers it was given. For tests, demos and templates.

The *conversation* chooses the answer: the first turn of the assistant gets the first one, the n-th the n-th. There is
no counter in the process, so a run that goes on after a restart gets the answers it would have got, two sessions do not
disturb one another, and a request that is repeated is answered the same, failures included. What has been compacted
away no longer counts. A function gets the whole request and may be as clever as it likes.

    ScriptedModel(["Hello.", ScriptedReply(tool_calls=[("read", {"path": "a.txt"})]), {"total": 3}])
    ScriptedModel(lambda request: f"You said {request.messages[-1].text!r}.")

A dict is data, and is answered as JSON text, unless all of its keys are fields of `ScriptedReply`; `{"data": …}` is
always data. `scripted/answers.json` reads such a list from a file of the project, `scripted/hello` is a fixed greeting.
"""

from __future__ import annotations

import asyncio
import inspect
import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from ... import codec
from ...errors import ContextOverflow, InvalidJson, ModelFailed, ModelUnknown, PyFlueError
from ..content import Block, Text, Thinking, ToolUse, Usage
from .parts import clean, estimated_usage
from .port import ModelReply, ModelRequest, StopReason, StreamItem, TextDelta
from .settings import ModelSetup

PROVIDER = "scripted"
HELLO = (
    "Hello! I am the scripted model: I work offline, this sentence is all I ever say, and I have not read what you "
    "wrote. Choose a real model for a real answer."
)
_FILE_LIMIT_BYTES = 16 * 1024**2
#: A text is streamed in pieces of this length, but in no more than `_MOST_PIECES`.
_PIECE_CHARS = 32
_MOST_PIECES = 64


class ScriptedReply(msgspec.Struct, frozen=True, kw_only=True):
    """One answer, in as many of its parts as somebody wants to choose."""

    text: str = ""
    #: Data that is answered as JSON text, for `result=`.
    data: Any = None
    #: As (name, input), or {"name", "input", "id"}; ids are made up where there are none.
    tool_calls: Sequence[tuple[str, Any] | Mapping[str, Any]] = ()
    thinking: str | None = None
    #: None: the model waits for its tools, or has ended.
    stop_reason: StopReason | str | None = None
    #: None: estimated from the number of characters.
    usage: Usage | Mapping[str, int] | None = None
    #: Seconds before the answer begins.
    delay_s: float = 0.0
    #: Raised after `text` was streamed. A text is a failure that is not worth another try, but `context_overflow` is
    #: that; a mapping has `message`, `is_retryable`, `retry_after_s`, `status`.
    error: BaseException | str | Mapping[str, Any] | None = None


Answer: TypeAlias = str | Mapping[str, Any] | Sequence[Any] | ScriptedReply
Answers: TypeAlias = Sequence[Answer] | Callable[[ModelRequest], Answer | Awaitable[Answer]]

_FIELDS = frozenset(ScriptedReply.__struct_fields__)


class ScriptedModel:
    """A model that follows a script. Costs nothing and needs nothing; can be shared by everybody."""

    provider = PROVIDER

    def __init__(
        self,
        answers: Answers,
        *,
        id: str = "scripted/code",  # noqa: A002  (the port's word)
        delay_s: float = 0.0,
        context_tokens: int | None = None,
        has_schema_mode: bool = True,
    ) -> None:
        self._answers = answers
        self._delay_s = delay_s
        self.id = id
        self.context_tokens = context_tokens
        self.has_schema_mode = has_schema_mode

    async def stream(self, request: ModelRequest) -> AsyncGenerator[StreamItem]:
        turn = [message.role for message in request.messages].count("assistant")
        reply = await self._answer(request, turn)
        if delay_s := reply.delay_s or self._delay_s:
            await asyncio.sleep(delay_s)
        text = clean(reply.text)
        if reply.data is not None:
            text += bytes(codec.encode_value(reply.data, f"Answer {turn + 1} of {self.id}")).decode()
        if text:
            size = max(_PIECE_CHARS, -(-len(text) // _MOST_PIECES))
            for start in range(0, len(text), size):
                yield TextDelta(text[start : start + size])
        if reply.error is not None:
            raise self._error(reply.error)
        yield self._reply(request, turn, reply, text)

    async def close(self) -> None:
        """Nothing to close."""

    async def _answer(self, request: ModelRequest, turn: int) -> ScriptedReply:
        if not callable(self._answers):
            if turn >= len(self._answers):
                message = (
                    f"{self.id} has {len(self._answers)} answers, and the conversation has come to turn {turn + 1}."
                )
                raise ModelFailed(message, is_retryable=False, hint="Add an answer to the script.")
            return _as_reply(self._answers[turn])
        try:
            answer = self._answers(request)
            if isinstance(answer, ScriptedReply):
                return answer
            return _as_reply(await answer if inspect.isawaitable(answer) else answer)
        except PyFlueError:
            raise
        except Exception as error:  # the author's function
            message = f"{self.id}: its function failed: {type(error).__name__}: {error}"
            raise ModelFailed(message, is_retryable=False) from error

    def _reply(self, request: ModelRequest, turn: int, reply: ScriptedReply, text: str) -> ModelReply:
        blocks: list[Block] = []
        if reply.thinking is not None:
            blocks.append(Thinking(text=clean(reply.thinking)))
        if text:
            blocks.append(Text(text))
        for number, call in enumerate(reply.tool_calls, 1):
            blocks.append(_tool_use(call, request, turn, number))
        stop_reason = StopReason.TOOL_USE if reply.tool_calls else StopReason.END
        if reply.stop_reason is not None:
            stop_reason = StopReason(reply.stop_reason)
        usage = reply.usage
        if usage is None:
            usage = estimated_usage(request, blocks)
        elif not isinstance(usage, Usage):
            usage = Usage(**usage)
        return ModelReply(blocks=tuple(blocks), stop_reason=stop_reason, usage=usage, model=self.id)

    def _error(self, error: BaseException | str | Mapping[str, Any]) -> BaseException:
        if isinstance(error, BaseException):
            return error
        if error == "context_overflow":
            return ContextOverflow(f"{self.id}: the conversation is longer than the model takes, says its script.")
        if isinstance(error, str):
            return ModelFailed(error, is_retryable=False)
        return ModelFailed(
            str(error.get("message", "The script says that the model fails.")),
            is_retryable=bool(error.get("is_retryable", False)),
            retry_after_s=error.get("retry_after_s"),
            provider_status=error.get("status"),
        )


def scripted_model(setup: ModelSetup) -> ScriptedModel:
    """The factory of the entry point `scripted`.

    Raises:
        ModelUnknown: no script of this name, or one that cannot be used.
    """
    if setup.name == "hello":
        return ScriptedModel(lambda _request: HELLO, id=setup.id)
    if not setup.name.endswith(".json"):
        raise ModelUnknown(
            f"There is no scripted model {setup.name[:200]!r}.",
            hint="Name scripted/hello, or a .json file of the project: scripted/answers.json.",
        )
    return ScriptedModel(_read(setup), id=setup.id)


def _read(setup: ModelSetup) -> Sequence[Answer]:
    root = setup.root.resolve()
    file = (root / setup.name).resolve()
    if not file.is_relative_to(root):
        raise ModelUnknown(f"Model {setup.id[:200]}: the file is outside of the project.")
    try:
        answers = _load(file)
        if isinstance(answers, Mapping):
            answers = answers["answers"]  # pyright: ignore[reportUnknownVariableType]  (any JSON)
        if not isinstance(answers, list) or not answers:
            raise ValueError("a list of answers is wanted, or an object with the list under 'answers'")
        return [_as_reply(answer) for answer in answers]  # pyright: ignore[reportUnknownVariableType]  (any JSON)
    except (OSError, InvalidJson, ValueError, TypeError, KeyError) as error:
        raise ModelUnknown(f"Model {setup.id[:200]}: {file.name} cannot be used: {error}") from error


def _load(file: Path) -> Any:
    with file.open("rb") as opened:
        data = opened.read(_FILE_LIMIT_BYTES + 1)
    if len(data) > _FILE_LIMIT_BYTES:
        raise ValueError(f"it is larger than {_FILE_LIMIT_BYTES:,} bytes")
    return codec.decode(data, file.name)


def _as_reply(answer: Any) -> ScriptedReply:
    if isinstance(answer, ScriptedReply):
        return answer
    if isinstance(answer, str):
        return ScriptedReply(text=answer)
    if isinstance(answer, Mapping) and answer and _FIELDS.issuperset(answer):  # pyright: ignore[reportUnknownArgumentType]  (any JSON)
        return ScriptedReply(**answer)  # pyright: ignore[reportUnknownArgumentType]
    return ScriptedReply(data=answer)


def _tool_use(call: tuple[str, Any] | Mapping[str, Any], request: ModelRequest, turn: int, number: int) -> ToolUse:
    if isinstance(call, Mapping):
        name, given, use_id = call["name"], call.get("input", {}), call.get("id")
    else:
        (name, given), use_id = call, None
    if use_id is None:
        # Two conversations of one run should not have the same ids; the same conversation should, after a restart.
        seed = zlib.crc32(f"{request.system}\n{request.messages[0].text}".encode("utf-8", "replace"))
        use_id = f"call_{seed:08x}_{turn + 1}_{number}"
    if isinstance(given, Mapping):
        return ToolUse(id=use_id, name=name, input=dict(given))  # pyright: ignore[reportUnknownArgumentType]  (any JSON)
    return ToolUse(id=use_id, name=name, input={}, malformed=str(given))
