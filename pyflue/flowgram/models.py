"""The shapes that users of graphs handle as objects: schemas they hand in, reports they get. Imported late."""
# ruff: noqa: N815  (the fields are FlowGram's)

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from .report import WorkflowStatus


class _Open(BaseModel):
    """Unknown fields are kept."""

    model_config = ConfigDict(extra="allow")


class NodeSchema(_Open):
    """A node as it is drawn."""

    id: str
    type: str
    meta: dict[str, Any] = Field(default_factory=dict)
    data: dict[str, Any] = Field(default_factory=dict)
    blocks: list[NodeSchema] | None = None
    edges: list[EdgeSchema] | None = None


class EdgeSchema(_Open):
    """An edge as it is drawn."""

    sourceNodeID: str
    targetNodeID: str
    sourcePortID: str | None = None
    targetPortID: str | None = None


class WorkflowSchema(_Open):
    """A graph as it is drawn."""

    nodes: list[NodeSchema] = Field(default_factory=list[NodeSchema])
    edges: list[EdgeSchema] = Field(default_factory=list[EdgeSchema])
    groups: list[dict[str, Any]] | None = None
    globalVariable: dict[str, Any] | None = None


class StatusData(_Open):
    """The status of a run or a node; times are epoch milliseconds."""

    status: WorkflowStatus
    terminated: bool
    startTime: int
    endTime: int | None
    timeCost: int


class Snapshot(_Open):
    """One execution of a node."""

    id: str
    nodeID: str
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    data: dict[str, Any]
    branch: str | None = None
    error: str | None = None


class NodeReport(StatusData):
    """What became of a node."""

    id: str
    snapshots: list[Snapshot]


class Message(_Open):
    """Something a run has to say."""

    id: str
    nodeID: str | None = None
    type: str
    message: str
    timestamp: int


class IReport(_Open):
    """What became of a run."""

    id: str
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    workflowStatus: StatusData
    reports: dict[str, NodeReport]
    messages: list[Message]


class InvokeParams(_Open):
    """A graph, and the inputs to run it with."""

    model_config = ConfigDict(extra="allow", arbitrary_types_allowed=True)

    schema_: Any = Field(alias="schema")
    inputs: dict[str, Any] = Field(default_factory=dict)
