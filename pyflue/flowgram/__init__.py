"""Graphs drawn in the FlowGram editor: `import pyflue.flowgram as fg`.

As a library: `await fg.run(schema, inputs)`, `fg.start`, `fg.run_sync`, `fg.validate`, `fg.register_executor`. In a
project a JSON file with `nodes` and `edges` is a workflow like any other. The names below are the public ones; each is
imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import __version__

if TYPE_CHECKING:
    from .app import ServerConfig, create_app
    from .dialect import flowgram_dialect
    from .exceptions import FlowgramError, GraphCancelled, GraphInvalid, GraphMalformed, NodeError, NodeFailed
    from .executing import ExecutionContext, ExecutionResult, INodeExecutor
    from .library import (
        FlowGramNode,
        SchemaInput,
        Task,
        WorkflowApplication,
        WorkflowInputs,
        WorkflowOutputs,
        register_executor,
        reset,
        run,
        run_sync,
        start,
        validate,
    )
    from .models import InvokeParams, IReport, WorkflowSchema
    from .network import allow_hosts
    from .report import WorkflowStatus
    from .validation import ValidationResult

__all__ = [
    "ExecutionContext",
    "ExecutionResult",
    "FlowGramNode",
    "FlowgramError",
    "GraphCancelled",
    "GraphInvalid",
    "GraphMalformed",
    "INodeExecutor",
    "IReport",
    "InvokeParams",
    "NodeError",
    "NodeFailed",
    "SchemaInput",
    "ServerConfig",
    "Task",
    "ValidationResult",
    "WorkflowApplication",
    "WorkflowInputs",
    "WorkflowOutputs",
    "WorkflowSchema",
    "WorkflowStatus",
    "__version__",
    "allow_hosts",
    "create_app",
    "flowgram_dialect",
    "register_executor",
    "reset",
    "run",
    "run_sync",
    "start",
    "validate",
]

_HOMES = {
    "app": ("ServerConfig", "create_app"),
    "dialect": ("flowgram_dialect",),
    "exceptions": ("FlowgramError", "GraphCancelled", "GraphInvalid", "GraphMalformed", "NodeError", "NodeFailed"),
    "executing": ("ExecutionContext", "ExecutionResult", "INodeExecutor"),
    "library": (
        "FlowGramNode",
        "SchemaInput",
        "Task",
        "WorkflowApplication",
        "WorkflowInputs",
        "WorkflowOutputs",
        "register_executor",
        "reset",
        "run",
        "run_sync",
        "start",
        "validate",
    ),
    "models": ("IReport", "InvokeParams", "WorkflowSchema"),
    "network": ("allow_hosts",),
    "report": ("WorkflowStatus",),
    "validation": ("ValidationResult",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(f".{home}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
