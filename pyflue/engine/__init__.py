"""Making it happen: drives workflows and records what they do. Knows neither file kinds nor HTTP."""

from __future__ import annotations

from .context import FlueContext, RequestInfo
from .port import Engine, RunHandle, Submission
from .workflow import Graph, GraphEdge, GraphNode, Workflow, WorkflowSource

__all__ = [
    "Engine",
    "FlueContext",
    "Graph",
    "GraphEdge",
    "GraphNode",
    "RequestInfo",
    "RunHandle",
    "Submission",
    "Workflow",
    "WorkflowSource",
]
