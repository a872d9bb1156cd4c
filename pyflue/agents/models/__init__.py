"""Models: the port, the adapters behind it, and how they are found by name. Everything is imported at first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .fallback import FallbackModel
    from .port import (
        Model,
        ModelReply,
        ModelRequest,
        Progress,
        StopReason,
        StreamItem,
        TextDelta,
        ThinkingLevel,
        ToolSpec,
    )
    from .pricing import load_prices, price
    from .registry import close_all, find_model
    from .scripted import ScriptedModel, ScriptedReply
    from .settings import ModelSetup, ProviderSettings

__all__ = [
    "FallbackModel",
    "Model",
    "ModelReply",
    "ModelRequest",
    "ModelSetup",
    "Progress",
    "ProviderSettings",
    "ScriptedModel",
    "ScriptedReply",
    "StopReason",
    "StreamItem",
    "TextDelta",
    "ThinkingLevel",
    "ToolSpec",
    "close_all",
    "find_model",
    "load_prices",
    "price",
]

_HOMES = {
    "FallbackModel": "fallback",
    "ModelSetup": "settings",
    "ProviderSettings": "settings",
    "ScriptedModel": "scripted",
    "ScriptedReply": "scripted",
    "close_all": "registry",
    "find_model": "registry",
    "load_prices": "pricing",
    "price": "pricing",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_HOMES.get(name, 'port')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
