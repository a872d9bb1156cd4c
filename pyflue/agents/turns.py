"""The turn loop: ask the model, run the tools it asks for, tell it the results, until it has said its answer.

Called for each prompt, with everything chosen that has to be chosen. Each turn and each tool call is a durable call, so
the loop itself keeps nothing: when a run is replayed it goes through the same turns again, and finds them recorded.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from ..codec import Raw
from ..errors import ContextOverflow, ModelRefused, ResultUnavailable
from ..typed import Misfit
from . import compaction
from .answers import Wanted, problems_told
from .asking import Asked, ask
from .content import Block, Text
from .models.port import Model, ModelRequest, StopReason, ThinkingLevel
from .operations import Operation
from .tool_calls import run_tools
from .toolbox import Toolbox

#: How often a reply that was cut off is continued.
_MOST_CONTINUATIONS = 8
_CONTINUE = "Your answer was cut off. Continue exactly where it stopped, without repeating anything."


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one prompt is to be answered with."""

    model: Model
    toolbox: Toolbox
    system: str
    wanted: Wanted | None = None
    #: How often data that does not fit is sent back.
    repairs: int = 3
    thinking: ThinkingLevel | None = None
    max_tokens: int | None = None
    on_text: Callable[[str], None] | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """How a prompt ended."""

    text: str
    model: str
    data: Any = None
    data_raw: Raw | None = None

    @property
    def told(self) -> dict[str, Any]:
        """As the operation's record has it."""
        return {"text": self.text, "data": self.data_raw, "model": self.model}


async def converse(operation: Operation, plan: Plan, said: tuple[Block, ...]) -> Answer:
    """The model's answer to `said`.

    Raises:
        ModelError, BudgetExceeded, ResultUnavailable.
    """
    wanted = plan.wanted
    is_native = wanted is not None and plan.model.has_schema_mode
    if wanted is not None and not is_native:
        said = (*said, Text(wanted.instruction))
    texts: list[str] = []
    repairs = continuations = 0
    while True:
        answer = None if wanted is not None else functools.partial(_plain_answer, operation, texts)
        purpose = "repair" if repairs else "agent"
        asked = await _ask(operation, plan, said, purpose=purpose, answer=answer)
        if asked.tool_uses and asked.stop_reason is not StopReason.REFUSAL:
            texts.clear()
            said = await run_tools(operation, plan.toolbox, asked)
            continue
        match asked.stop_reason:
            case StopReason.REFUSAL:
                reason = asked.text or "It gave no reason."
                raise ModelRefused(f"Model {asked.model} would not answer: {reason[:1000]}")
            case StopReason.PAUSE:
                said = ()
                continue
            case StopReason.MAX_TOKENS if continuations < _MOST_CONTINUATIONS:
                continuations += 1
                texts.append(asked.text)
                said = (Text(_CONTINUE),)
                continue
            case _:
                pass
        # A secret may have been cut off with the reply.
        text = operation.redact("".join([*texts, asked.text]))
        texts.clear()
        if wanted is None:
            return Answer(text=text, model=asked.model)
        try:
            data, raw = wanted.parse(text, is_native=is_native)
        except Misfit as misfit:
            repairs += 1
            if repairs > plan.repairs:
                raise ResultUnavailable(repairs, misfit.problems, text) from misfit
            said = (Text(_repair(wanted, misfit, is_native=is_native)),)
            continue
        return Answer(text=text, model=asked.model, data=data, data_raw=raw)


def _plain_answer(operation: Operation, texts: Sequence[str], asked: Asked) -> dict[str, Any] | None:
    """What a prompt without `result=` answers with this turn; None if it is not the last one."""
    if asked.stop_reason is not StopReason.END or asked.tool_uses:
        return None
    return Answer(text=operation.redact("".join([*texts, asked.text])), model=asked.model).told


async def _ask(
    operation: Operation,
    plan: Plan,
    said: tuple[Block, ...],
    *,
    purpose: str,
    answer: Callable[[Asked], Any] | None,
) -> Asked:
    await compaction.compact_if_long(operation, plan.model, said)
    once = functools.partial(ask, operation, plan.model, purpose=purpose, on_text=plan.on_text, answer=answer)
    try:
        return await once(_request(operation, plan), said)
    except ContextOverflow:
        # The estimate was too low, or the model takes less than we know. Once shorter, once more.
        if not await compaction.compact(operation, plan.model, reason="overflow"):
            raise
    return await once(_request(operation, plan), said)


def _request(operation: Operation, plan: Plan) -> ModelRequest:
    messages: Sequence[Any] = operation.session.conversation.messages
    return ModelRequest(
        messages=messages,
        system=plan.system,
        tools=plan.toolbox.specs,
        max_tokens=plan.max_tokens,
        thinking=plan.thinking,
        output_schema=plan.wanted.provider_schema if plan.wanted is not None and plan.model.has_schema_mode else None,
    )


def _repair(wanted: Wanted, misfit: Misfit, *, is_native: bool) -> str:
    told = f"Your answer does not fit what was asked for:\n{problems_told(misfit.problems)}\n"
    return told + ("Answer again." if is_native else wanted.instruction)
