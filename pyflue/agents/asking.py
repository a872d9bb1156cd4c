"""One turn: ask a model, once per run, with everything that can go wrong on the way to a provider.

A turn is a durable call. What the model answered is recorded with the messages it belongs to, before anything is done
about it. A provider that fails is asked again, later, as it wishes or with growing pauses; the attempts are recorded,
so a restart does not begin to count again. A stream that falls silent counts as failed.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from .. import codec
from ..clock import to_ms, whole_us
from ..codec import Raw
from ..engine import raised
from ..engine.calls import Call
from ..engine.live import LiveTurn
from ..engine.waits import pause
from ..errors import BudgetExceeded, ModelError, ModelFailed
from ..journal import Attached, EventType, NewStep, Step, StepStatus
from .content import Block, Message, ToolUse, Usage
from .models.port import Model, ModelReply, ModelRequest, StopReason, TextDelta
from .operations import Operation
from .redaction import LiveRedactor, redacted_block, restored_uses, secrets_in
from .silence import Silence

_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 60.0
#: No answer takes longer; a provider may show signs of life, and say nothing, for ever.
_LONGEST_TURN_S = 3600.0
#: A provider that asks for a longer pause than this has no use for the run.
_MOST_PATIENCE_S = 3600.0


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A turn that is recorded."""

    call: Call
    turn_id: str
    #: As the model said it: its tools get what it wrote, even if that holds secrets, which no record does.
    message: Message
    #: The message's.
    tool_uses: Sequence[ToolUse]
    #: The message's text, without secrets.
    text: str
    stop_reason: StopReason
    model: str


async def ask(
    operation: Operation,
    model: Model,
    request: ModelRequest,
    said: tuple[Block, ...],
    *,
    purpose: str = "agent",
    is_kept: bool = True,
    on_text: Callable[[str], None] | None = None,
    answer: Callable[[Asked], Any] | None = None,
) -> Asked:
    """What the model says to `said`, after the messages of `request`.

    Both are added to the session's conversation, unless it is not kept there (`is_kept`) or the model refused.
    `answer` says what the operation answers if this turn is its last; then both are recorded together.

    Raises:
        ModelError: it could not be asked, or not to the end. BudgetExceeded: before it is asked.
    """
    calls = operation.calls
    call = calls.begin("turn", "turn")
    record = calls.recorded(call, None)
    turn = _Turn(operation, call, model, request, said, purpose, is_kept, on_text, answer)
    if isinstance(record, Step):
        if record.status is StepStatus.COMPLETED:
            return turn.replayed(record)
        if record.status is StepStatus.FAILED and record.error is not None:
            raise raised.raise_again(record.error, call.key, ask)
        turn.failed = record.attempts
        await pause(calls, call, turn.failed, None)
    return await turn.run()


class _Turn:
    """The attempts at one turn."""

    def __init__(
        self,
        operation: Operation,
        call: Call,
        model: Model,
        request: ModelRequest,
        said: tuple[Block, ...],
        purpose: str,
        is_kept: bool,
        on_text: Callable[[str], None] | None,
        answer: Callable[[Asked], Any] | None,
    ) -> None:
        self._answer = answer
        self._operation = operation
        self._calls = operation.calls
        self._call = call
        self._model = model
        self._request = request
        secrets = operation.secrets
        if secrets:
            said = tuple(redacted_block(block, secrets) for block in said)
        self._said = Message("user", said) if said else None
        self._purpose = purpose
        self._is_kept = is_kept
        self._on_text = on_text
        self._turn_id = _turn_id(operation, call)
        self._started_us = self._calls.clock.now_us()
        self._started_index = self._calls.index
        self.failed = 0

    def replayed(self, record: Step) -> Asked:
        value = codec.load(record.value or codec.NULL)
        usage = Usage.from_dict(value["usage"])
        self._operation.meter.add(usage, seconds=value["seconds"])
        stop_reason = StopReason(value["stop_reason"])
        conversation = self._operation.session.conversation
        conversation.replay(self._call.key)
        message = Message.from_dict(value["message"]) if "message" in value else conversation.messages[-1]
        text = message.text
        if self._on_text is not None:
            self._on_text(text)
        if hidden := value.get("secrets"):
            # The tools get what the model wrote: its names for secrets are in the record only.
            known = self._operation.secrets
            message = restored_uses(message, {name: known[name] for name in hidden if name in known})
        return self._asked(message, text, stop_reason, value["model"])

    async def run(self) -> Asked:
        calls, operation = self._calls, self._operation
        retries = operation.session.settings.model_retries
        while True:
            attempt = self.failed + 1
            with operation.meter.asking():
                calls.announce(
                    EventType.TURN_REQUEST,
                    {
                        **operation.about,
                        "turn_id": self._turn_id,
                        "step": self._call.key,
                        "attempt": attempt,
                        "purpose": self._purpose,
                        "model": self._model.id,
                    },
                )
                await calls.settle()
                began = calls.clock.monotonic()
                try:
                    reply = await self._ask(attempt)
                except BudgetExceeded as error:
                    operation.meter.add(Usage(), turns=0, seconds=calls.clock.monotonic() - began)
                    await self._fail(error)  # it took that long; the next time it may not
                    raise
                except ModelError as error:
                    seconds = calls.clock.monotonic() - began
                    operation.meter.add(Usage(), turns=0, seconds=seconds)
                    delay_s = _delay_after(attempt, error) if attempt <= retries else None
                    if delay_s is None:
                        await self._fail(error)
                        raise
                    await self._note_failure(error, delay_s)
                    self.failed = attempt
                    await pause(calls, self._call, attempt, delay_s)
                    continue
            return await self._complete(reply, calls.clock.monotonic() - began)

    async def _ask(self, attempt: int) -> ModelReply:
        """One attempt."""
        calls, operation = self._calls, self._operation
        left_s = operation.meter.seconds_left()
        if calls.live is not None and self._purpose != "compaction":
            shown = calls.live.turn(calls.stream_id, self._turn_id, attempt, operation.about)
        else:
            shown = contextlib.nullcontext()
        with shown as live:
            if left_s is None:
                return await self._read(live)
            limit = asyncio.timeout(left_s)
            try:
                async with limit:
                    return await self._read(live)
            except TimeoutError:
                if not limit.expired():
                    raise
                raise operation.meter.out_of_time() from None

    async def _read(self, live: LiveTurn | None) -> ModelReply:
        idle_s = self._operation.session.settings.idle_timeout_s
        messages = self._request.messages
        # A list of its own in any case: the conversation's grows.
        messages = list(messages) if self._said is None else _joined(messages, self._said)
        request = ModelRequest(
            messages=messages,
            system=self._request.system,
            tools=self._request.tools,
            max_tokens=self._request.max_tokens,
            thinking=self._request.thinking,
            output_schema=self._request.output_schema,
        )
        secrets = self._operation.secrets
        redactor = LiveRedactor(secrets) if secrets else None
        reply: ModelReply | None = None
        silence = Silence(idle_s, max(_LONGEST_TURN_S, idle_s))
        stream = self._model.stream(request)
        try:
            with silence:
                async for item in stream:
                    silence.heard()
                    if isinstance(item, TextDelta):
                        self._show(live, item.text if redactor is None else redactor.add(item.text))
                    elif isinstance(item, ModelReply):
                        reply = item
                        if redactor is not None:
                            self._show(live, redactor.end())
        except TimeoutError:
            if not silence.is_over:
                raise
            if silence.is_endless:
                raise ModelFailed(f"Model {self._model.id} came to no end.", is_retryable=False) from None
            raise ModelFailed(
                f"Model {self._model.id} sent nothing for {idle_s:g} s.",
                is_retryable=True,
                hint="The limit is agent.idle_timeout_s.",
            ) from None
        finally:
            close = getattr(stream, "aclose", None)
            if close is not None:
                await close()
        if reply is None:
            raise ModelFailed(f"Model {self._model.id} broke its answer off.", is_retryable=True)
        return reply

    def _show(self, live: LiveTurn | None, text: str) -> None:
        if not text:
            return  # all of it is held back
        if live is not None:
            live.add(text)
        if self._on_text is not None:
            self._on_text(text)

    async def _complete(self, reply: ModelReply, seconds: float) -> Asked:
        operation, calls = self._operation, self._calls
        session = operation.session
        usage = session.priced(reply.usage, self._model, reply.model)
        operation.meter.add(usage, seconds=seconds)
        message = said = Message("assistant", tuple(reply.blocks))
        if secrets := operation.secrets:
            message = Message("assistant", tuple(redacted_block(block, secrets) for block in reply.blocks))
        text = operation.redact(message.text)
        value: dict[str, Any] = {
            "model": reply.model,
            "stop_reason": reply.stop_reason,
            "usage": usage.to_dict(),
            "seconds": whole_us(seconds),
        }
        if reply.request_id is not None:
            value["request_id"] = reply.request_id
        asked = self._asked(said, text, reply.stop_reason, reply.model)
        if secrets and (hidden := secrets_in([use.input for use in asked.tool_uses], secrets)):
            value["secrets"] = [*hidden]
        is_kept = self._is_kept and reply.stop_reason is not StopReason.REFUSAL
        # Of an empty answer what was said is kept: the next turn builds on it.
        kept = [part for part in (self._said, message) if part is not None and part.blocks] if is_kept else []
        if not is_kept or not reply.blocks:
            value["message"] = message.to_dict()
        entries = session.conversation.entries(*kept, turn_id=self._turn_id)
        step = self._step(StepStatus.COMPLETED, value=Raw(codec.encode(value)))
        told = {
            **operation.about,
            "turn_id": self._turn_id,
            "step": self._call.key,
            "attempt": self.failed + 1,
            "purpose": self._purpose,
            "model": reply.model,
            "stop_reason": reply.stop_reason,
            "usage": value["usage"],
            "duration_ms": to_ms(seconds),
            "text": text,
            "tool_calls": [{"tool_call_id": use.id, "tool": use.name} for use in asked.tool_uses],
        }
        events = [calls.event(EventType.TURN, told)]
        also = None
        if self._answer is not None and (answered := self._answer(asked)) is not None:
            closed = operation.close(answered)
            if closed is not None:
                also = closed[0]
                events.append(closed[1])
        usage_raw = Raw(codec.encode(session.run_usage.to_dict()))
        attached = Attached(entries=entries, usage=usage_raw, also=also)
        # Before the record is waited for: whoever is aborted meanwhile leaves a conversation that has what is recorded.
        session.conversation.add(*kept)
        await calls.record(step, *events, attached=attached)
        return asked

    def _asked(self, message: Message, text: str, stop_reason: StopReason, model: str) -> Asked:
        return Asked(
            call=self._call,
            turn_id=self._turn_id,
            message=message,
            tool_uses=message.tool_uses,
            text=text,
            stop_reason=stop_reason,
            model=model,
        )

    async def _fail(self, error: ModelError | BudgetExceeded) -> None:
        record = raised.record_of(error, self._calls.root)
        error_told = raised.shown(record)
        told = {**self._operation.about, "turn_id": self._turn_id, "step": self._call.key, "error": error_told}
        await self._calls.record(self._step(StepStatus.FAILED, error=record), self._calls.event(EventType.ERROR, told))

    async def _note_failure(self, error: ModelError, delay_s: float) -> None:
        record = raised.record_of(error, self._calls.root)
        told = {
            **self._operation.about,
            "step": self._call.key,
            "name": "turn",
            "turn_id": self._turn_id,
            "attempt": self.failed + 1,
            "error": raised.shown(record),
            "delay_s": whole_us(delay_s),
        }
        step = self._step(StepStatus.RETRYING, error=record)
        await self._calls.record(step, self._calls.event(EventType.STEP_RETRY, told))

    def _step(self, status: StepStatus, *, value: Raw | None = None, error: Raw | None = None) -> NewStep:
        return NewStep(
            key=self._call.key,
            kind="turn",
            name="turn",
            position=self._call.position,
            status=status,
            value=value,
            error=error,
            attempts=self.failed + 1,
            started_us=self._started_us,
            started_index=self._started_index,
        )


def _turn_id(operation: Operation, call: Call) -> str:
    """The turn's id: the operation's, and which of its turns it is."""
    return operation.operation_id + call.key.removeprefix(operation.call.key)


def _joined(messages: Sequence[Message], said: Message) -> Sequence[Message]:
    if messages and messages[-1].role == said.role:
        return [*messages[:-1], Message(said.role, (*messages[-1].blocks, *said.blocks))]
    return [*messages, said]


def _delay_after(attempt: int, error: ModelError) -> float | None:
    """How long to wait before the next attempt; None: there is no use in one."""
    if not isinstance(error, ModelFailed) or not error.is_retryable:
        return None
    if error.retry_after_s is not None:
        return error.retry_after_s if error.retry_after_s <= _MOST_PATIENCE_S else None
    pause_s = min(_FIRST_PAUSE_S * 2 ** (attempt - 1), _LONGEST_PAUSE_S)
    return pause_s * random.uniform(0.75, 1.0)  # noqa: S311  (spreads attempts, no secret)
