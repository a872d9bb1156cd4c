"""Making it happen: drives workflows and records what they do. Knows neither file kinds nor HTTP."""

from __future__ import annotations

from .context import BlockingContext, FlueContext, RequestInfo, calls_of, definition_of
from .embedded import EmbeddedEngine
from .port import NO_PATCH, NOT_GIVEN, Engine, RunHandle, Submission
from .quarantine import Quarantine
from .workflow import Graph, GraphEdge, GraphNode, Recovery, Workflow, WorkflowSource

__all__ = [
    "NOT_GIVEN",
    "NO_PATCH",
    "BlockingContext",
    "EmbeddedEngine",
    "Engine",
    "FlueContext",
    "Graph",
    "GraphEdge",
    "GraphNode",
    "Quarantine",
    "Recovery",
    "RequestInfo",
    "RunHandle",
    "Submission",
    "Workflow",
    "WorkflowSource",
    "calls_of",
    "definition_of",
]
