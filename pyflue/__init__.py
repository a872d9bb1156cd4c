"""PyFlue: a workflow is a file, a run is its journal.

The names below are the public ones. Each is imported when it is first used, so `import pyflue` costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.4.0"

if TYPE_CHECKING:
    from .client import PyFlueClient
    from .engine.context import BlockingContext, FlueContext
    from .engine.retrying import RetryPolicy
    from .engine.waits import Decision
    from .errors import PyFlueError
    from .main import create_app

__all__ = [
    "BlockingContext",
    "Decision",
    "FlueContext",
    "PyFlueClient",
    "PyFlueError",
    "RetryPolicy",
    "create_app",
]

_HOMES = {
    "BlockingContext": "pyflue.engine.context",
    "Decision": "pyflue.engine.waits",
    "FlueContext": "pyflue.engine.context",
    "PyFlueClient": "pyflue.client",
    "PyFlueError": "pyflue.errors",
    "RetryPolicy": "pyflue.engine.retrying",
    "create_app": "pyflue.main",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
