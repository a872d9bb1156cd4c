"""Write components in Python: `from pyflue.stepflow import StepflowStdioServer`.

A component server is started for each runtime, so it must start fast: nothing here imports the engine, the journal, the
server or the agents, and the names below are imported when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .components import ComponentEntry
    from .context import (
        BatchDetails,
        BatchOutput,
        BlobType,
        FlowOutcome,
        ItemCounts,
        ItemResult,
        ResultOrder,
        RunStatus,
        StepflowContext,
    )
    from .exceptions import (
        BlobNotFoundError,
        CodeCompilationError,
        ComponentNotFoundError,
        ErrorCode,
        InputValidationError,
        ServerNotInitializedError,
        SkipStep,
        StepflowComponentError,
        StepflowError,
        StepflowExecutionError,
        StepflowFailed,
        StepflowProtocolError,
        StepflowRuntimeError,
        StepflowSkipped,
        StepflowValidationError,
        StepflowValueError,
    )
    from .http import StepflowHttpServer
    from .server import StepflowServer
    from .stdio import StepflowStdioServer

__all__ = [
    "BatchDetails",
    "BatchOutput",
    "BlobNotFoundError",
    "BlobType",
    "CodeCompilationError",
    "ComponentEntry",
    "ComponentNotFoundError",
    "ErrorCode",
    "FlowOutcome",
    "InputValidationError",
    "ItemCounts",
    "ItemResult",
    "ResultOrder",
    "RunStatus",
    "ServerNotInitializedError",
    "SkipStep",
    "StepflowComponentError",
    "StepflowContext",
    "StepflowError",
    "StepflowExecutionError",
    "StepflowFailed",
    "StepflowHttpServer",
    "StepflowProtocolError",
    "StepflowRuntimeError",
    "StepflowServer",
    "StepflowSkipped",
    "StepflowStdioServer",
    "StepflowValidationError",
    "StepflowValueError",
]

_HOMES = {
    "components": ("ComponentEntry",),
    "context": (
        "BatchDetails",
        "BatchOutput",
        "BlobType",
        "FlowOutcome",
        "ItemCounts",
        "ItemResult",
        "ResultOrder",
        "RunStatus",
        "StepflowContext",
    ),
    "exceptions": (
        "BlobNotFoundError",
        "CodeCompilationError",
        "ComponentNotFoundError",
        "ErrorCode",
        "InputValidationError",
        "ServerNotInitializedError",
        "SkipStep",
        "StepflowComponentError",
        "StepflowError",
        "StepflowExecutionError",
        "StepflowFailed",
        "StepflowProtocolError",
        "StepflowRuntimeError",
        "StepflowSkipped",
        "StepflowValidationError",
        "StepflowValueError",
    ),
    "http": ("StepflowHttpServer",),
    "server": ("StepflowServer",),
    "stdio": ("StepflowStdioServer",),
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
