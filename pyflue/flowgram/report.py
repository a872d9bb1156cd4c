"""Reports: what became of a run, node by node, in FlowGram's own words.

Fields as in flowgram.ai, `packages/runtime/interface/src/runtime`: `IReport`, `Snapshot`, `StatusData`, times in epoch
milliseconds. `ReportRecorder` collects while a graph runs as a library; for runs of a project `journal_report.py` makes
the same of the journal. Secrets are masked when a report is made.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from .document import Node
from .executing import Call, ExecutionResult
from .masking import Secrets


class WorkflowStatus(StrEnum):
    """Where a run, or a node, is in its life."""

    Pending = "pending"
    Processing = "processing"
    Succeeded = "succeeded"
    Failed = "failed"
    Cancelled = "canceled"

    @property
    def is_terminated(self) -> bool:
        return self not in (WorkflowStatus.Pending, WorkflowStatus.Processing)


#: The groups that the editor reads messages in, by their type.
_GROUPS = {"log": "log", "info": "info", "debug": "debug", "error": "error", "warn": "warning", "warning": "warning"}


def now_ms() -> int:
    """The wall time in milliseconds."""
    return time.time_ns() // 1_000_000


class Span:
    """The status of a run or a node, and since when."""

    __slots__ = ("end_ms", "start_ms", "status")

    def __init__(
        self, status: WorkflowStatus = WorkflowStatus.Pending, start_ms: int = 0, end_ms: int | None = None
    ) -> None:
        self.status = status
        self.start_ms = start_ms
        self.end_ms = end_ms

    def begin(self) -> None:
        self.status = WorkflowStatus.Processing
        self.end_ms = None
        if not self.start_ms:
            self.start_ms = now_ms()

    def finish(self, status: WorkflowStatus) -> None:
        self.status = status
        self.end_ms = now_ms()

    def to_dict(self) -> dict[str, Any]:
        end = self.end_ms if self.end_ms is not None else now_ms()
        return {
            "status": self.status.value,
            "terminated": self.status.is_terminated,
            "startTime": self.start_ms,
            "endTime": self.end_ms,
            "timeCost": max(0, end - self.start_ms) if self.start_ms else 0,
        }


class Taken:
    """One execution of a node, as far as it has come."""

    __slots__ = ("branch", "error", "id", "inputs", "node", "outputs", "span")

    def __init__(self, node: Node, span: Span) -> None:
        self.node = node
        self.span = span
        self.id = uuid.uuid4().hex
        self.inputs: Mapping[str, Any] = {}
        self.outputs: Mapping[str, Any] = {}
        self.branch: str | None = None
        self.error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "nodeID": self.node.id,
            "inputs": self.inputs,
            "outputs": self.outputs,
            "data": self.node.data,
            "branch": self.branch,
            "error": self.error,
        }


def message(node_id: str | None, type_: str, text: str, at_ms: int) -> dict[str, Any]:
    """A message of a report."""
    return {"id": uuid.uuid4().hex, "nodeID": node_id, "type": type_, "message": text, "timestamp": at_ms}


def grouped(messages: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Messages as the upstream editor reads them: by type."""
    groups: dict[str, list[Mapping[str, Any]]] = {"log": [], "info": [], "debug": [], "error": [], "warning": []}
    for one in messages:
        group = _GROUPS.get(str(one["type"]), "log")
        groups[group].append({**one, "type": group})
    return groups


class ReportRecorder:
    """Collects what nodes do. Implements `scheduler.Recorder`."""

    def __init__(self, report_id: str) -> None:
        self.id = report_id
        self.span = Span()
        self._nodes: dict[str, tuple[Span, list[Taken]]] = {}
        self.messages: list[dict[str, Any]] = []

    def begin(self, node: Node) -> Taken:
        known = self._nodes.get(node.id)
        if known is None:
            known = self._nodes[node.id] = (Span(), [])
        span, taken = known
        span.begin()
        entry = Taken(node, span)
        taken.append(entry)
        return entry

    def end(self, entry: Taken, call: Call, result: ExecutionResult) -> None:
        entry.inputs = call.inputs if result.shown_inputs is None else result.shown_inputs
        entry.outputs = result.outputs
        entry.branch = result.branch
        entry.span.finish(WorkflowStatus.Succeeded)

    def fail(self, entry: Taken, call: Call, message: str) -> None:
        entry.inputs = call.inputs
        entry.error = message
        entry.span.finish(WorkflowStatus.Failed)
        self.say(call.node.id, "error", message)

    def cancel(self, entry: Taken, call: Call) -> None:
        entry.inputs = call.inputs
        if entry.span.status is not WorkflowStatus.Cancelled:
            entry.span.finish(WorkflowStatus.Cancelled)

    def cancel_all(self) -> None:
        """The run is cancelled, and with it all that goes on in it."""
        for span in (self.span, *(span for span, _ in self._nodes.values())):
            if span.status is WorkflowStatus.Processing:
                span.finish(WorkflowStatus.Cancelled)

    def warn(self, node: Node, message: str) -> None:
        self.say(node.id, "warn", message)

    def log(self, node: Node, text: str) -> None:
        self.say(node.id, "info", text)

    def say(self, node_id: str | None, type_: str, text: str) -> None:
        """Add a message."""
        self.messages.append(message(node_id, type_, text, now_ms()))

    def to_dict(self, inputs: Mapping[str, Any], outputs: Mapping[str, Any], secrets: Secrets) -> dict[str, Any]:
        """The report as it is now."""
        for _, taken in self._nodes.values():
            for entry in taken:
                secrets.learn(entry.inputs)
        return secrets.mask(
            {
                "id": self.id,
                "inputs": inputs,
                "outputs": outputs,
                "workflowStatus": self.span.to_dict(),
                "reports": {
                    node_id: {"id": node_id, **span.to_dict(), "snapshots": [entry.to_dict() for entry in taken]}
                    for node_id, (span, taken) in self._nodes.items()
                },
                "messages": self.messages,
            }
        )
