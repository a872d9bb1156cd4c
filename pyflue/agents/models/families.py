"""What is known about models by their names: how much they take, and how they are told to think.

Small tables of families, longest prefix first; a model that is in none of them is asked in the way of the newest ones
and its context window is unknown. Claude's rows are from platform.claude.com ("Models overview",
"Thinking"), OpenAI's windows from the data of genai-prices, both as of November 2026.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, auto

from .port import ThinkingLevel


class ThinkingForm(Enum):
    """How a Claude model is told how much to think."""

    NONE = auto()  #: it cannot
    BUDGET = auto()  #: a number of tokens; off unless asked
    ADAPTIVE = auto()  #: an effort; off unless asked
    DEFAULT_ON = auto()  #: an effort; on unless told `disabled`
    BETWEEN_TOOLS = auto()  #: an effort; the least is `between_tools`
    ALWAYS = auto()  #: an effort; it cannot be switched off


@dataclass(frozen=True, slots=True, kw_only=True)
class Claude:
    """One family of Claude models."""

    thinking: ThinkingForm
    context_tokens: int | None = 200_000
    #: Tokens of a reply that are asked for if nobody says otherwise.
    max_tokens: int = 32_000
    #: Whether it knows an effort beyond high.

    has_xhigh: bool = True
    has_schema_mode: bool = True


_OLD = Claude(thinking=ThinkingForm.NONE, max_tokens=4096, has_xhigh=False, has_schema_mode=False)
_BUDGET = Claude(thinking=ThinkingForm.BUDGET, has_xhigh=False)
_ADAPTIVE = Claude(thinking=ThinkingForm.ADAPTIVE, context_tokens=1_000_000, max_tokens=64_000)
_FIVE = replace(_ADAPTIVE, thinking=ThinkingForm.DEFAULT_ON)
_ALWAYS = replace(_ADAPTIVE, thinking=ThinkingForm.ALWAYS)

_CLAUDE: dict[str, Claude] = {
    "claude-2": _OLD,
    "claude-3": _OLD,
    "claude-3-5": replace(_OLD, max_tokens=8192),
    "claude-3-7": replace(_BUDGET, has_schema_mode=False),
    "claude-opus-4": replace(_BUDGET, has_schema_mode=False),
    "claude-sonnet-4": replace(_BUDGET, has_schema_mode=False),
    "claude-opus-4-5": _BUDGET,
    "claude-sonnet-4-5": _BUDGET,
    "claude-haiku-4-5": _BUDGET,
    "claude-opus-4-6": replace(_ADAPTIVE, has_xhigh=False),
    "claude-sonnet-4-6": replace(_ADAPTIVE, has_xhigh=False),
    "claude-opus-4-7": _ADAPTIVE,
    "claude-opus-4-8": _ADAPTIVE,
    "claude-opus-5": _FIVE,
    "claude-sonnet-5": _FIVE,
    "claude-haiku-5": _FIVE,
    "claude-sonnet-5-5": replace(_FIVE, thinking=ThinkingForm.BETWEEN_TOOLS),
    "claude-opus-5-5": _ALWAYS,
    "claude-fable": _ALWAYS,
    "claude-mythos": _ALWAYS,
}
#: A model that is not in the table is newer than the table.
_UNKNOWN_CLAUDE = replace(_ALWAYS, context_tokens=None, max_tokens=32_000)

_OPENAI_CONTEXT: dict[str, int | None] = {
    "gpt-3.5": 16_385,
    "gpt-4": 8192,
    "gpt-4-turbo": 128_000,
    "gpt-4o": 128_000,
    "chatgpt-4o": 128_000,
    "gpt-4.1": 1_000_000,
    "gpt-5": 400_000,
    "gpt-5.3": 128_000,
    "gpt-5.3-codex": 400_000,
    "gpt-5.4": 1_050_000,
    "gpt-5.4-mini": 400_000,
    "gpt-5.4-nano": 400_000,
    "gpt-5.5": 1_000_000,
    "gpt-5.6": 1_050_000,
    "gpt-6": 1_050_000,
    "gpt-oss": 131_072,
    "o1": 200_000,
    "o1-mini": 128_000,
    "o1-preview": 128_000,
    "o3": 200_000,
    "o4-mini": 200_000,
}


def claude(name: str) -> Claude:
    """The family of a Claude model; cloud prefixes (`anthropic.claude-…`) and dates behind the name do not matter."""
    found = _longest(_CLAUDE, name[name.find("claude") :] if "claude" in name else name)
    return _CLAUDE[found] if found else _UNKNOWN_CLAUDE


def openai_context_tokens(name: str) -> int | None:
    """How much an OpenAI model takes; None for a name that is not one of theirs."""
    found = _longest(_OPENAI_CONTEXT, name)
    return _OPENAI_CONTEXT[found] if found else None


def reasoning_effort(name: str, level: ThinkingLevel) -> str | None:
    """OpenAI's word for a level; None for a model that does not reason. Unknown models get the plainest words."""
    if name.startswith(("gpt-3", "gpt-4", "chatgpt-4")):
        return None
    words = {level: level.value for level in ThinkingLevel} | {ThinkingLevel.OFF: "none"}
    if name.startswith(("o1", "o3", "o4")):
        words |= {ThinkingLevel.OFF: "low", ThinkingLevel.MINIMAL: "low", ThinkingLevel.XHIGH: "high"}
    elif name == "gpt-5" or name.startswith("gpt-5-"):
        words |= {ThinkingLevel.OFF: "minimal", ThinkingLevel.XHIGH: "high"}
    elif name.startswith("gpt-5.1"):
        words |= {ThinkingLevel.MINIMAL: "low", ThinkingLevel.XHIGH: "high"}
    else:
        words |= {ThinkingLevel.MINIMAL: "low"}
    return words[level]


def _longest(table: dict[str, Claude] | dict[str, int | None], name: str) -> str | None:
    fitting = [
        prefix for prefix in table if name == prefix or name.startswith((f"{prefix}-", f"{prefix}.", f"{prefix}@"))
    ]
    return max(fitting, key=len, default=None)
