"""Where an agent's files and shell are: one port, and the sandboxes behind it.

`port.py` is the port, `factory.py` makes one by name or by a factory of the user's. Names are imported when they are
first used: bashkit costs nothing to those who do not need it.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .factory import SandboxFactory, isolated, local, make_sandbox, virtual
    from .limits import SandboxLimits
    from .policy import SandboxPolicy
    from .port import WORKSPACE, CommandResult, FileChange, FileInfo, Match, Sandbox

__all__ = [
    "WORKSPACE",
    "CommandResult",
    "FileChange",
    "FileInfo",
    "Match",
    "Sandbox",
    "SandboxFactory",
    "SandboxLimits",
    "SandboxPolicy",
    "isolated",
    "local",
    "make_sandbox",
    "virtual",
]

_HOMES = {
    "WORKSPACE": "port",
    "CommandResult": "port",
    "FileChange": "port",
    "FileInfo": "port",
    "Match": "port",
    "Sandbox": "port",
    "SandboxFactory": "factory",
    "SandboxLimits": "limits",
    "SandboxPolicy": "policy",
    "isolated": "factory",
    "local": "factory",
    "make_sandbox": "factory",
    "virtual": "factory",
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


class _Package(ModuleType):
    """Three of the names are those of modules in here, too; importing them must not put those in the place of these."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in _HOMES or not isinstance(value, ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
