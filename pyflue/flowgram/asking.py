"""The door from llm nodes to models: who asks them is registered here, so that graphs know no provider.

`main.py` registers the project's own models. Until somebody does, those of the agents room are asked, which is found by
its name when the first llm node runs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import TypeAlias

_DEFAULT = "pyflue.graph_models:ask"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What an llm node asks."""

    #: In the words of the server at `api_host`; `provider/model` without one.
    model: str
    prompt: str
    system_prompt: str = ""
    temperature: float | None = None
    #: An OpenAI-compatible API; None stands for the provider that the model's name begins with.
    api_host: str | None = None
    api_key: str = field(default="", repr=False)


class Unreachable(Exception):
    """The model's server cannot be reached."""


class ModelRefused(Exception):
    """The model, or its server, did not answer the question; the text says why."""


#: Raises `Unreachable` and `ModelRefused`.
Asker: TypeAlias = Callable[[Question], Awaitable[str]]

_registered: Asker | None = None


def register_asker(asker: Asker | None) -> None:
    """Let llm nodes of this process ask through `asker`; None goes back to the default."""
    global _registered
    _registered = asker


def asker() -> Asker:
    """Who asks models."""
    if _registered is not None:
        return _registered
    module, _, name = _DEFAULT.partition(":")
    return getattr(import_module(module), name)
