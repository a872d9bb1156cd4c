"""How llm nodes of graphs reach models: the flowgram room knows no provider, and the agents room knows no graphs.

Beside `main.py`, because it joins two rooms. `main.py` calls `for_project`, which also hands a project's settings to
its graphs; a graph that runs without a project uses `ask` as it is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import ModelError, ModelFailed
from .flowgram import configured
from .flowgram.asking import ModelRefused, Question, Unreachable, register_asker

if TYPE_CHECKING:
    from .agents.models.port import Model
    from .settings import ProviderSettings, Settings

_PROVIDER = "graph-api"
_KEY = "PYFLUE_GRAPH_API_KEY"


async def ask(
    question: Question, *, providers: Mapping[str, ProviderSettings] | None = None, root: Path | None = None
) -> str:
    """The text of a model's answer.

    Raises:
        Unreachable, ModelRefused.
    """
    from .agents.content import user
    from .agents.models.port import ModelRequest
    from .one_answer import one_answer

    request = ModelRequest(
        messages=[user(question.prompt)], system=question.system_prompt, temperature=question.temperature
    )
    try:
        model = await _model(question, providers or {}, root)
        try:
            return await one_answer(model, request, is_final=lambda error: _refused_address(error) is not None)
        finally:
            if question.api_host is not None:
                await model.close()
    except ModelFailed as error:
        if (refused := _refused_address(error)) is not None:
            raise ModelRefused(refused) from error
        if error.provider_status is None and error.is_retryable:
            raise Unreachable(str(error)) from error
        raise ModelRefused(str(error)) from error
    except ModelError as error:
        raise ModelRefused(str(error)) from error


def for_project(settings: Settings) -> None:
    """Let the graphs of this process use what a project has: its providers, its allowed hosts, its executors."""

    async def ask_here(question: Question) -> str:
        return await ask(question, providers=settings.providers, root=settings.root)

    register_asker(ask_here)
    graphs = settings.flowgram
    configured.configure(settings.root, hosts=graphs.allowed_hosts, executors=graphs.executors)


def load_executors() -> None:
    """Import the modules with a project's executors. Blocks.

    Raises:
        SettingsInvalid: that is not possible.
    """
    configured.load_executors()


async def _model(question: Question, providers: Mapping[str, ProviderSettings], root: Path | None) -> Model:
    from .agents.models.registry import find_model
    from .settings import ProviderSettings

    if question.api_host is None:
        return find_model(question.model, providers=providers, env=os.environ, root=root)
    from .agents.models.openai import openai_model
    from .agents.models.settings import ModelSetup
    from .flowgram.network import guarded_client

    # The address comes from a graph, and is checked where the connection is made.
    http_client = await guarded_client(follow_redirects=True)
    # Not by name: a graph's key is for this one question, and is not kept with the models that are shared.
    return openai_model(
        ModelSetup(
            id=f"{_PROVIDER}/{question.model}",
            provider=_PROVIDER,
            name=question.model,
            settings=ProviderSettings(base_url=question.api_host, key_variable=_KEY),
            env={_KEY: question.api_key},
            root=root or Path(),
        ),
        http_client=http_client,
    )


def _refused_address(error: BaseException) -> str | None:
    """Why graphs may not go to where a model was to be asked, if that is what went wrong."""
    from .flowgram.network import AddressRefused

    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, AddressRefused):
        cause = cause.__cause__
    return None if cause is None else str(cause)
