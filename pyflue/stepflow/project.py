"""How flows reach what the project has: models, workflows and agents. The room knows none of them itself.

`main.py` registers who knows (`pyflue/flow_models.py`); without a project there is a plain asker of models, and no
workflows or agents.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a step asks a model."""

    model: str
    #: `(role, content)`, roles `system`, `user` and `assistant`.
    messages: Sequence[tuple[str, str]]
    max_tokens: int | None = None
    temperature: float | None = None
    #: None: the provider's own.
    api_key: str | None = None


Asker: TypeAlias = Callable[[Question], Awaitable[str]]
#: Finds an agent of the project by its name; what it gives is for `ctx.init`.
AgentFinder: TypeAlias = Callable[[str], Any]

_asker: Asker | None = None
_agents: AgentFinder | None = None


def register(*, asker: Asker | None = None, agents: AgentFinder | None = None) -> None:
    """Say who asks models, and who knows the project's agents."""
    global _asker, _agents
    _asker = asker or _asker
    _agents = agents or _agents


async def ask(question: Question) -> str:
    """The text of a model's answer.

    Raises:
        ComponentFailed: there was none.
    """
    asker = _asker
    if asker is None:
        from importlib import import_module

        # Not imported by name: this room knows no provider.
        asker = import_module("pyflue.flow_models").ask
    return await asker(question)


def agent(name: str) -> Any:
    """An agent of the project.

    Raises:
        ComponentFailed: there is no project, or it has no agent of this name.
    """
    if _agents is None:
        from .plugins.port import ComponentFailed

        raise ComponentFailed("There is no project here, so there are no agents.", is_retryable=False)
    return _agents(name)
