"""Models by name: `provider/model`, `provider:model`, or a list of them to fall back on.

A provider is a factory, found through the entry point group `pyflue.models`; ours come through the same door. A name
that no factory has, but that is configured with a `base_url`, is a server that speaks OpenAI's Chat Completions.
Models are kept for each event loop, so that everybody who asks for one uses the same connections.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TypeAlias
from weakref import WeakKeyDictionary

from ...errors import ModelUnknown
from .fallback import FallbackModel
from .port import Model
from .settings import ModelSetup, ProviderSettings

ENTRY_POINT_GROUP = "pyflue.models"
Factory: TypeAlias = Callable[[ModelSetup], Model]

#: Ours; a checkout that is not installed has no entry points. `pyproject.toml` holds the same lines.
_OURS = {
    "anthropic": "pyflue.agents.models.anthropic:anthropic_model",
    "openai": "pyflue.agents.models.openai:openai_model",
    "scripted": "pyflue.agents.models.scripted:scripted_model",
}
_NAME = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)[/:](.+)", re.DOTALL)
_DEFAULT_SETTINGS = ProviderSettings()

_open: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[object, Model]] = WeakKeyDictionary()


def find_model(
    name: str | Sequence[str],
    *,
    providers: Mapping[str, ProviderSettings] | None = None,
    env: Mapping[str, str] | None = None,
    root: Path | None = None,
) -> Model:
    """The model of this name; of a list, the first one that answers when it is asked.

    `providers` are the tables of `pyflue.toml`, `env` holds the keys (none if it is not given), `root` is the project
    folder, where `scripted/….json` looks for its file. Called inside of an event loop, it gives the same model for the
    same arguments until `close_all`. A missing key is found when the model is asked.

    Raises:
        ModelUnknown: no provider of this name, or a name that is none.
    """
    if not isinstance(name, str):
        if not name:
            raise ModelUnknown("An empty list names no model.", hint="Write at least one provider/model.")
        models = [find_model(one, providers=providers, env=env, root=root) for one in name]
        return models[0] if len(models) == 1 else FallbackModel(models)
    parsed = _NAME.fullmatch(name.strip())
    if parsed is None:
        raise ModelUnknown(
            f"{name[:200]!r} is not a model's name.",
            hint="Write provider/model, such as anthropic/claude-haiku-4-5 or scripted/hello.",
        )
    provider, rest = parsed.groups()
    settings = (providers or {}).get(provider)
    setup = ModelSetup(
        id=f"{provider}/{rest}",
        provider=provider,
        name=rest,
        settings=settings or _DEFAULT_SETTINGS,
        env=env or {},
        root=root or Path(),
    )
    factory = _factory(provider, settings, providers or {})
    if provider == "scripted":
        return factory(setup)  # nothing to share, and its file may have changed
    try:
        models_here = _open.setdefault(asyncio.get_running_loop(), {})
    except RuntimeError:
        return factory(setup)
    key = _key(setup)
    model = models_here.get(key)
    if model is None:
        model = models_here[key] = factory(setup)
    return model


async def close_all() -> None:
    """Close the models of the running event loop. Those who still have one cannot ask it any more."""
    models = _open.pop(asyncio.get_running_loop(), {})
    for model in models.values():
        await model.close()


def _factory(provider: str, settings: ProviderSettings | None, providers: Mapping[str, ProviderSettings]) -> Factory:
    target = _OURS.get(provider)
    if target is not None:
        module, _, attribute = target.partition(":")
        return getattr(import_module(module), attribute)
    plugged_in = _plugged_in(provider)
    if plugged_in is not None:
        return plugged_in
    if settings is not None and settings.base_url:
        from .openai import openai_model

        return openai_model
    known = ", ".join(sorted({*_OURS, *providers, *_entry_points()}))
    raise ModelUnknown(
        f"There is no model provider {provider[:200]!r}.",
        hint=f"Known: {known}. A server that speaks OpenAI's API needs [providers.{provider[:50]}] with a base_url.",
    )


def _plugged_in(provider: str) -> Factory | None:
    found = _entry_points().get(provider)
    if found is None:
        return None
    module, _, attribute = found.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except Exception as error:  # a plug-in's code
        problem = f"{type(error).__name__}: {error}"
        raise ModelUnknown(f"The model provider {provider!r} ({found}) cannot be loaded: {problem}") from error


@cache
def _entry_points() -> dict[str, str]:
    from importlib.metadata import entry_points

    return {point.name: point.value for point in entry_points(group=ENTRY_POINT_GROUP)}


def _key(setup: ModelSetup) -> object:
    """All that a model is made of: what it is called, how it is reached, and the variables it may have read."""
    settings = setup.settings
    prefix = f"{setup.provider.upper().replace('-', '_')}_"
    return (
        setup.id,
        settings.base_url,
        tuple(sorted(settings.headers.items())),
        settings.key_variable,
        settings.timeout_s,
        settings.idle_timeout_s,
        settings.context_tokens,
        setup.root,
        tuple(sorted((n, v) for n, v in setup.env.items() if n.startswith(prefix) or n == settings.key_variable)),
    )
