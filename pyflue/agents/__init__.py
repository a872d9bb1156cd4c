"""Agents: model work in sessions, with tools and a sandbox.

The names below are what other rooms and authors use. Each is imported when it is first used: importing this package
costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .answers import Reply
    from .budget import Budget
    from .commands import PyFlueCommand, define_command
    from .content import Document, Image, Message, Usage
    from .definitions import (
        AgentCreateContext,
        AgentRuntimeConfig,
        CreatedAgent,
        Definition,
        create_agent,
        is_created_agent,
        resolve_agent,
    )
    from .files import AgentCatalog, AgentEntry, AgentFile, AgentRequest
    from .harness import Harness
    from .operations import OperationAborted
    from .profiles import (
        AgentProfile,
        CompactionConfig,
        define_agent_profile,
        extend_agent_profile,
        profile_to_role,
        role_to_profile,
    )
    from .roles import Role, load_roles
    from .session import Session
    from .skills import Skill, load_skill, load_skills
    from .tools import ToolContext, ToolDefinition, create_tools, define_tool, tool

__all__ = [
    "AgentCatalog",
    "AgentCreateContext",
    "AgentEntry",
    "AgentFile",
    "AgentProfile",
    "AgentRequest",
    "AgentRuntimeConfig",
    "Budget",
    "CompactionConfig",
    "CreatedAgent",
    "Definition",
    "Document",
    "Harness",
    "Image",
    "Message",
    "OperationAborted",
    "PyFlueCommand",
    "Reply",
    "Role",
    "Session",
    "Skill",
    "ToolContext",
    "ToolDefinition",
    "Usage",
    "create_agent",
    "create_tools",
    "define_agent_profile",
    "define_command",
    "define_tool",
    "extend_agent_profile",
    "is_created_agent",
    "load_roles",
    "load_skill",
    "load_skills",
    "profile_to_role",
    "resolve_agent",
    "role_to_profile",
    "tool",
]

_HOMES = {
    "AgentCatalog": "files",
    "AgentCreateContext": "definitions",
    "AgentEntry": "files",
    "AgentFile": "files",
    "AgentProfile": "profiles",
    "AgentRequest": "files",
    "AgentRuntimeConfig": "definitions",
    "Budget": "budget",
    "CompactionConfig": "profiles",
    "CreatedAgent": "definitions",
    "Definition": "definitions",
    "Document": "content",
    "Harness": "harness",
    "Image": "content",
    "Message": "content",
    "OperationAborted": "operations",
    "PyFlueCommand": "commands",
    "Reply": "answers",
    "Role": "roles",
    "Session": "session",
    "Skill": "skills",
    "ToolContext": "tools",
    "ToolDefinition": "tools",
    "Usage": "content",
    "create_agent": "definitions",
    "create_tools": "tools",
    "define_agent_profile": "profiles",
    "define_command": "commands",
    "define_tool": "tools",
    "extend_agent_profile": "profiles",
    "is_created_agent": "definitions",
    "load_roles": "roles",
    "load_skill": "skills",
    "load_skills": "skills",
    "profile_to_role": "profiles",
    "resolve_agent": "definitions",
    "role_to_profile": "profiles",
    "tool": "tools",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
