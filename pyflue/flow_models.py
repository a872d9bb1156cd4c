"""How flows reach models and agents: the stepflow room knows neither providers nor agents.

Beside `main.py`, because it joins rooms. `main.py` calls `for_project`; a flow that runs without a project uses `ask`
as it is. Every command of a project imports this, so nothing else is imported before its first use.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ModelError, PyFlueError
from .stepflow.project import Question, register

if TYPE_CHECKING:
    from .agents.content import Message
    from .agents.models.port import Model
    from .settings import ProviderSettings, Settings

#: Overrides the model of everything that asks one, as it does for agents.
_OVERRIDE = "PYFLUE_MODEL"
_KEY = "PYFLUE_FLOW_API_KEY"


async def ask(
    question: Question,
    *,
    providers: Mapping[str, ProviderSettings] | None = None,
    root: Path | None = None,
    override: str | None = None,
) -> str:
    """The text of a model's answer; `override` is a model that takes the place of every other one.

    Raises:
        ComponentFailed
    """
    from .agents.models.port import ModelRequest
    from .one_answer import one_answer
    from .stepflow.plugins.port import ComponentFailed

    request = ModelRequest(
        messages=_messages(question),
        system="\n\n".join(content for role, content in question.messages if role == "system"),
        max_tokens=question.max_tokens,
        temperature=question.temperature,
    )
    try:
        model = _model(question, override or os.environ.get(_OVERRIDE) or question.model, providers or {}, root)
        try:
            return await one_answer(model, request)
        finally:
            if question.api_key is not None:
                await model.close()
    except ModelError as error:
        # The model has been tried again already.
        raise ComponentFailed(str(error), is_retryable=False) from error


def for_project(settings: Settings, find_agent: Callable[[str], Any]) -> None:
    """Let the flows of this process use what a project has: its providers and its agents."""

    async def ask_here(question: Question) -> str:
        override = settings.agent.model_override
        return await ask(question, providers=settings.providers, root=settings.root, override=override)

    def agent(name: str) -> Any:
        try:
            return find_agent(name).agent
        except PyFlueError as error:
            from .stepflow.plugins.port import ComponentFailed

            raise ComponentFailed(str(error), is_retryable=False) from error

    register(asker=ask_here, agents=agent)


def _model(question: Question, name: str, providers: Mapping[str, ProviderSettings], root: Path | None) -> Model:
    from .agents.models.registry import find_model

    provider, _, model = name.partition("/")
    if question.api_key is None or provider == "scripted":
        return find_model(name, providers=providers, env=os.environ, root=root)
    from dataclasses import replace

    from .agents.models.openai import openai_model
    from .agents.models.settings import ModelSetup
    from .settings import ProviderSettings

    # Not by name: the key is for this one question, and is not kept with the models that are shared.
    known = providers.get(provider, ProviderSettings())
    return openai_model(
        ModelSetup(
            id=name,
            provider=provider,
            name=model,
            settings=replace(known, key_variable=_KEY),
            env={_KEY: question.api_key},
            root=root or Path(),
        )
    )


def _messages(question: Question) -> list[Message]:
    """The messages, so that user and assistant take turns; the user begins.

    Raises:
        ComponentFailed: the assistant begins, or nobody says anything.
    """
    from .agents.content import Message, Text
    from .stepflow.plugins.port import ComponentFailed

    messages: list[Message] = []
    for role, content in question.messages:
        if role == "system":
            continue
        block = Text(content)
        if messages and messages[-1].role == role:
            messages[-1] = Message(role=messages[-1].role, blocks=(*messages[-1].blocks, block))
        else:
            messages.append(Message(role="assistant" if role == "assistant" else "user", blocks=(block,)))
    if not messages or messages[0].role != "user":
        raise ComponentFailed("The messages have to begin with one of the user.", is_retryable=False)
    return messages
