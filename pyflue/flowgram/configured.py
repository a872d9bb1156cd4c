"""What the settings of a project say to the graphs of this process: where they may go, and who runs their nodes.

`graph_models.for_project` puts it here when a project is opened; `network.py` and the dialect look. Modules with
executors are imported when a graph is first loaded, or when a server starts: commands without graphs import nothing.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ..errors import SettingsInvalid
from ..settings import FILE_NAME

if TYPE_CHECKING:
    from .executing import Executors

_SETTING = "flowgram.executors"

#: Hosts that are not public and may be reached all the same.
allowed_hosts: frozenset[str] = frozenset()
_root: Path | None = None
_executors: tuple[str, ...] = ()
#: The executors that those of the project were added to.
_filled: Executors | None = None
_lock = threading.Lock()


def configure(root: Path | None = None, *, hosts: Sequence[str] = (), executors: Sequence[str] = ()) -> None:
    """Take over the settings of a project; without any, forget those of the last one."""
    global allowed_hosts, _root, _executors, _filled
    with _lock:
        allowed_hosts = frozenset(host.strip().lower() for host in hosts if host.strip())
        _root, _executors, _filled = root, tuple(executors), None


def load_executors() -> None:
    """Register the executors that the project names, unless that is done. Imports its modules: call it in a thread.

    Raises:
        SettingsInvalid: one of them is not there, or is none.
    """
    global _filled
    if not _executors:
        return
    from .library import WorkflowApplication

    with _lock:
        registered = WorkflowApplication.instance().executors
        if registered is _filled:
            return
        if _root is not None:
            from ..workflows.project_code import append_to_sys_path

            append_to_sys_path(_root)
        for entry in _executors:
            _load(entry, registered)
        _filled = registered


def _load(entry: str, registered: Executors) -> None:
    module_name, _, name = entry.partition(":")
    before = registered.types
    try:
        module = import_module(module_name)
    except Exception as error:
        # The project's own code.
        problem = f"module {module_name!r} cannot be imported: {type(error).__name__}: {error}"
        raise SettingsInvalid(_SETTING, FILE_NAME, problem) from error
    found = [getattr(module, name, None)] if name else _classes_in(module)
    if not found and registered.types == before:
        problem = f"module {module_name!r} has no class with a `type` and an `async execute(ctx)` of its own."
        raise SettingsInvalid(_SETTING, FILE_NAME, problem)
    for executor in found:
        try:
            registered.register(executor() if inspect.isclass(executor) else executor)
        except Exception as error:
            # Likewise.
            raise SettingsInvalid(_SETTING, FILE_NAME, f"{entry!r}: {type(error).__name__}: {error}") from error


def _classes_in(module: ModuleType) -> list[Any]:
    """The executors that a module defines itself."""
    items: list[Any] = list(vars(module).values())
    return [
        item
        for item in items
        if inspect.isclass(item)
        and item.__module__ == module.__name__
        and isinstance(getattr(item, "type", None), str)
        and getattr(item, "type", "")
        and callable(getattr(item, "execute", None))
    ]
