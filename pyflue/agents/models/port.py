"""The model port: one request to a model, and its reply as it arrives.

The turn loop asks; an adapter (`anthropic.py`, `openai.py`, `scripted.py`) answers in the words of `content.py`. An
adapter does one attempt: when to try again, how long a stream may be silent and what a turn costs is the turn loop's
business. Adapters import their provider's library when they are first used.

`tests/contracts/test_models.py` is the exact contract; every adapter passes it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from enum import StrEnum
from typing import Any, Protocol, TypeAlias

import msgspec

from ..content import Block, Message, Usage


class ThinkingLevel(StrEnum):
    """How much a model shall think before it answers; providers map it to what they have."""

    OFF = "off"
    MINIMAL = "minimal"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    XHIGH = "xhigh"


class StopReason(StrEnum):
    """Why a model stopped."""

    END = "end"  #: it has said what it had to say
    TOOL_USE = "tool_use"  #: it waits for the results of its tool uses
    MAX_TOKENS = "max_tokens"  #: it was cut off; it can be asked to go on
    PAUSE = "pause"  #: the provider asks to be called again with what it has said so far
    REFUSAL = "refusal"  #: it, or a filter of the provider's, will not answer


class ToolSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A tool as the model is told of it. `input_schema` is a JSON Schema of an object."""

    name: str
    description: str
    input_schema: Mapping[str, Any]


class ModelRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a model needs for one turn."""

    #: Messages alternate between user and assistant, and begin with the user's.
    messages: Sequence[Message]
    system: str = ""
    tools: Sequence[ToolSpec] = ()
    #: Most tokens of the reply; None takes the adapter's choice for the model.
    max_tokens: int | None = None
    thinking: ThinkingLevel | None = None
    #: For adapters that speak Chat Completions; others have models that choose for themselves.
    temperature: float | None = None
    #: JSON Schema that the text of the reply has to fit, for adapters whose `has_schema_mode` is true.
    output_schema: Mapping[str, Any] | None = None


class TextDelta(msgspec.Struct, frozen=True, gc=False):
    """The next piece of the reply's text."""

    text: str


class Progress(msgspec.Struct, frozen=True):
    """Something else arrived (thinking, a tool's input): the stream is alive."""


class ModelReply(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The whole reply; always the last item of a stream."""

    blocks: tuple[Block, ...]
    stop_reason: StopReason
    #: Tokens of this call; `cost_usd` is left to the turn loop.
    usage: Usage
    #: The model that answered, in the provider's words.
    model: str
    #: The provider's id of the request, for its support.
    request_id: str | None = None


StreamItem: TypeAlias = TextDelta | Progress | ModelReply


class Model(Protocol):
    """A model that can be asked."""

    @property
    def id(self) -> str:
        """As agents name it: `anthropic/claude-haiku-4-5`."""
        ...

    @property
    def provider(self) -> str:
        """The first part of the id."""
        ...

    @property
    def context_tokens(self) -> int | None:
        """How many tokens of input and output the model takes at most, if that is known."""
        ...

    @property
    def has_schema_mode(self) -> bool:
        """Whether `ModelRequest.output_schema` is honoured by the provider itself."""
        ...

    def stream(self, request: ModelRequest) -> AsyncGenerator[StreamItem]:
        """Ask the model. The last item, and only that, is a `ModelReply`; closing it early closes the connection.

        Texts of all `TextDelta`s together are the reply's text.

        Raises:
            ModelKeyMissing: there is no key for the provider.
            ContextOverflow: the conversation is longer than the model takes.
            ModelFailed: everything else that went wrong; it says whether it is worth another try, and when.
        """
        ...

    async def close(self) -> None:
        """Close connections. Later calls fail."""
        ...
