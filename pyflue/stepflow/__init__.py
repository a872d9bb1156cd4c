"""Flows of Stepflow: run YAML flow documents, and write their components in Python.

`from pyflue.stepflow import StepflowStdioServer` for components, `FlowBuilder` for documents. In a project a YAML or
JSON file that is a flow document is a workflow like any other. The names below are the public ones; each is imported
when it is first used, so that component servers start fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .builder import FlowBuilder, Value
    from .client import StepflowClient, StepflowClientError
    from .dialect import stepflow_dialect
    from .executor import (
        ComponentInfo,
        Diagnostic,
        FlowError,
        FlowResult,
        FlowResultStatus,
        LogEntry,
        RestartPolicy,
        StepflowExecutor,
        ValidationResult,
    )
    from .runtime import StepflowRuntime
    from .sdk.context import BlobType, StepflowContext
    from .sdk.exceptions import (
        SkipStep,
        StepflowError,
        StepflowFailed,
        StepflowSkipped,
    )
    from .sdk.http import StepflowHttpServer
    from .sdk.server import StepflowServer
    from .sdk.stdio import StepflowStdioServer

__all__ = [
    "BlobType",
    "ComponentInfo",
    "Diagnostic",
    "FlowBuilder",
    "FlowError",
    "FlowResult",
    "FlowResultStatus",
    "LogEntry",
    "RestartPolicy",
    "SkipStep",
    "StepflowClient",
    "StepflowClientError",
    "StepflowContext",
    "StepflowError",
    "StepflowExecutor",
    "StepflowFailed",
    "StepflowHttpServer",
    "StepflowRuntime",
    "StepflowServer",
    "StepflowSkipped",
    "StepflowStdioServer",
    "ValidationResult",
    "Value",
    "stepflow_dialect",
]

_HOMES = {
    "builder": ("FlowBuilder", "Value"),
    "executor": (
        "ComponentInfo",
        "Diagnostic",
        "FlowError",
        "FlowResult",
        "FlowResultStatus",
        "LogEntry",
        "RestartPolicy",
        "StepflowExecutor",
        "ValidationResult",
    ),
    "client": ("StepflowClient", "StepflowClientError"),
    "runtime": ("StepflowRuntime",),
    "dialect": ("stepflow_dialect",),
    "sdk.context": ("BlobType", "StepflowContext"),
    "sdk.exceptions": ("SkipStep", "StepflowError", "StepflowFailed", "StepflowSkipped"),
    "sdk.http": ("StepflowHttpServer",),
    "sdk.server": ("StepflowServer",),
    "sdk.stdio": ("StepflowStdioServer",),
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
