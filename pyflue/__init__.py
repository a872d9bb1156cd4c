"""PyFlue: a workflow is a file, a run is its journal.

The names below are the public ones. Each is imported when it is first used, so `import pyflue` costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.5.0"

if TYPE_CHECKING:
    from .agents import (
        AgentCreateContext,
        AgentProfile,
        Budget,
        Harness,
        Reply,
        Session,
        ToolContext,
        create_agent,
        define_agent_profile,
        define_command,
        define_tool,
        tool,
    )
    from .client import PyFlueClient
    from .engine.context import BlockingContext, FlueContext
    from .engine.retrying import RetryPolicy
    from .engine.waits import Decision
    from .errors import PyFlueError
    from .main import create_app, init_agent

__all__ = [
    "AgentCreateContext",
    "AgentProfile",
    "BlockingContext",
    "Budget",
    "Decision",
    "FlueContext",
    "Harness",
    "PyFlueClient",
    "PyFlueError",
    "Reply",
    "RetryPolicy",
    "Session",
    "ToolContext",
    "create_agent",
    "create_app",
    "define_agent_profile",
    "define_command",
    "define_tool",
    "init_agent",
    "tool",
]

_HOMES = {
    "AgentCreateContext": "pyflue.agents.definitions",
    "AgentProfile": "pyflue.agents.profiles",
    "Budget": "pyflue.agents.budget",
    "Harness": "pyflue.agents.harness",
    "Reply": "pyflue.agents.answers",
    "Session": "pyflue.agents.session",
    "ToolContext": "pyflue.agents.tools",
    "create_agent": "pyflue.agents.definitions",
    "define_agent_profile": "pyflue.agents.profiles",
    "define_command": "pyflue.agents.commands",
    "define_tool": "pyflue.agents.tools",
    "init_agent": "pyflue.main",
    "tool": "pyflue.agents.tools",
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
