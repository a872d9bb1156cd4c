"""How llm nodes of graphs reach models: the flowgram room knows no provider, and the agents room knows no graphs.

Beside `main.py`, because it joins two rooms. `for_project` is called by `main.py`; a graph that runs without a project
uses `ask` as it is. Imported when the first llm node runs.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import ModelError, ModelFailed
from .flowgram.asking import ModelRefused, Question, Unreachable, register_asker

if TYPE_CHECKING:
    from .agents.models.port import Model
    from .settings import ProviderSettings, Settings

_PROVIDER = "graph-api"
_KEY = "PYFLUE_GRAPH_API_KEY"
#: As many as the client libraries of models make by default.
_RETRIES = 2


async def ask(
    question: Question, *, providers: Mapping[str, ProviderSettings] | None = None, root: Path | None = None
) -> str:
    """The text of a model's answer.

    Raises:
        Unreachable, ModelRefused.
    """
    from .agents.content import user
    from .agents.models.port import ModelReply, ModelRequest

    request = ModelRequest(
        messages=[user(question.prompt)], system=question.system_prompt, temperature=question.temperature
    )
    attempt = 0
    while True:
        try:
            model = _model(question, providers or {}, root)
            try:
                async for item in model.stream(request):
                    if isinstance(item, ModelReply):
                        return "".join(getattr(block, "text", "") for block in item.blocks if _is_text(block))
                return ""
            finally:
                if question.api_host is not None:
                    await model.close()
        except ModelFailed as error:
            if error.is_retryable and attempt < _RETRIES:
                await asyncio.sleep(error.retry_after_s if error.retry_after_s is not None else 0.5 * 2**attempt)
                attempt += 1
            elif error.provider_status is None and error.is_retryable:
                raise Unreachable(str(error)) from error
            else:
                raise ModelRefused(str(error)) from error
        except ModelError as error:
            raise ModelRefused(str(error)) from error


def for_project(settings: Settings) -> None:
    """Let llm nodes of this process use a project's providers."""

    async def ask_here(question: Question) -> str:
        return await ask(question, providers=settings.providers, root=settings.root)

    register_asker(ask_here)


def _model(question: Question, providers: Mapping[str, ProviderSettings], root: Path | None) -> Model:
    from .agents.models.registry import find_model
    from .settings import ProviderSettings

    if question.api_host is None:
        return find_model(question.model, providers=providers, env=os.environ, root=root)
    from .agents.models.openai import openai_model
    from .agents.models.settings import ModelSetup

    # Not by name: a graph's key is for this one question, and is not kept with the models that are shared.
    return openai_model(
        ModelSetup(
            id=f"{_PROVIDER}/{question.model}",
            provider=_PROVIDER,
            name=question.model,
            settings=ProviderSettings(base_url=question.api_host, key_variable=_KEY),
            env={_KEY: question.api_key},
            root=root or Path(),
        )
    )


def _is_text(block: object) -> bool:
    from .agents.content import Text

    return isinstance(block, Text)
