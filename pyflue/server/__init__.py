"""PyFlue over HTTP, server-sent events and WebSocket: an ASGI application, and how to listen with it.

`listen`, `serve` and `bind` are imported when they are first used: mounting the application needs no uvicorn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .app import PyFlueApp, build_app
from .services import Services

if TYPE_CHECKING:
    from .listening import bind, listen, serve

__all__ = ["PyFlueApp", "Services", "bind", "build_app", "listen", "serve"]


def __getattr__(name: str) -> object:
    if name in {"bind", "listen", "serve"}:
        from . import listening

        return getattr(listening, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
