"""Step classes: workflows as plain Python classes with `@workflow` and `@step`.

A library of its own: it needs no project, no journal and no event loop. The same classes, put into a file of
`src/workflows/`, are durable workflows: `dialect.py` is how PyFlue finds them, and nothing here imports it. The names
below are those of stepflow-agent 0.1.0, whose files move here by changing one import. Each is imported when it is
first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

#: The version of stepflow-agent whose names and behaviour these are.
__version__ = "0.1.0"

if TYPE_CHECKING:
    from .decorators import step, workflow
    from .definitions import END
    from .exceptions import (
        AgentFlowError,
        ApprovalRequiredError,
        ApprovalResumeError,
        ChildWorkflowExecutionError,
        HookExecutionError,
        RouteResolutionError,
        StateValidationError,
        StepExecutionError,
        WorkflowDefinitionError,
        WorkflowExecutionError,
    )
    from .graph import WorkflowGraph, WorkflowGraphEdge, WorkflowGraphNode, export_workflow_graph
    from .hooks import (
        StepFinishedEvent,
        StepStartedEvent,
        WorkflowEvent,
        WorkflowFinishedEvent,
        WorkflowHook,
        WorkflowStartedEvent,
    )
    from .models import (
        ApprovalDecision,
        ApprovalPause,
        ApprovalRequest,
        RouteDecision,
        RunContext,
        StepResult,
        WorkflowResult,
    )
    from .retry import RetryPolicy

_NAMES = {
    "decorators": ("step", "workflow"),
    "exceptions": (
        "AgentFlowError",
        "ApprovalRequiredError",
        "ApprovalResumeError",
        "ChildWorkflowExecutionError",
        "HookExecutionError",
        "RouteResolutionError",
        "StateValidationError",
        "StepExecutionError",
        "WorkflowDefinitionError",
        "WorkflowExecutionError",
    ),
    "graph": ("WorkflowGraph", "WorkflowGraphEdge", "WorkflowGraphNode", "export_workflow_graph"),
    "hooks": (
        "StepFinishedEvent",
        "StepStartedEvent",
        "WorkflowEvent",
        "WorkflowFinishedEvent",
        "WorkflowHook",
        "WorkflowStartedEvent",
    ),
    "definitions": ("END",),
    "models": (
        "ApprovalDecision",
        "ApprovalPause",
        "ApprovalRequest",
        "RouteDecision",
        "RunContext",
        "StepResult",
        "WorkflowResult",
    ),
    "retry": ("RetryPolicy",),
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [
    "END",
    "AgentFlowError",
    "ApprovalDecision",
    "ApprovalPause",
    "ApprovalRequest",
    "ApprovalRequiredError",
    "ApprovalResumeError",
    "ChildWorkflowExecutionError",
    "HookExecutionError",
    "RetryPolicy",
    "RouteDecision",
    "RouteResolutionError",
    "RunContext",
    "StateValidationError",
    "StepExecutionError",
    "StepFinishedEvent",
    "StepResult",
    "StepStartedEvent",
    "WorkflowDefinitionError",
    "WorkflowEvent",
    "WorkflowExecutionError",
    "WorkflowFinishedEvent",
    "WorkflowGraph",
    "WorkflowGraphEdge",
    "WorkflowGraphNode",
    "WorkflowHook",
    "WorkflowResult",
    "WorkflowStartedEvent",
    "__version__",
    "export_workflow_graph",
    "step",
    "workflow",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
