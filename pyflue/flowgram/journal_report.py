"""The report of a run that the engine drives, made from what the journal holds of it.

The same shape as `report.py` makes of a run in a library: one snapshot per recorded step of a node, statuses from the
steps' states. What is not recorded is derived: a loop goes on while its iterations do, a node that had begun when its
run ended is canceled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, cast

from .. import codec
from ..journal import Event, EventType, Journal, Run, RunStatus, Step, StepStatus
from .document import Document, Node, as_object
from .masking import Secrets, secrets_of
from .report import Span, WorkflowStatus, now_ms
from .scheduler import segment

_STATUS = {
    RunStatus.QUEUED: WorkflowStatus.Pending,
    RunStatus.RUNNING: WorkflowStatus.Processing,
    RunStatus.WAITING: WorkflowStatus.Processing,
    RunStatus.COMPLETED: WorkflowStatus.Succeeded,
    RunStatus.FAILED: WorkflowStatus.Failed,
    RunStatus.CANCELLED: WorkflowStatus.Cancelled,
}
_STEP_STATUS = {
    StepStatus.COMPLETED: WorkflowStatus.Succeeded,
    StepStatus.FAILED: WorkflowStatus.Failed,
    StepStatus.EXPIRED: WorkflowStatus.Failed,
    StepStatus.CANCELLED: WorkflowStatus.Cancelled,
}
_LEVELS = {"info": "info", "warn": "warn", "error": "error"}
_PAGE = 1000


async def report_of(journal: Journal, run: Run, document: Document | None, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """A run's report. `document` is None if the graph is no graph."""
    writing = _Writing(run, document, inputs)
    if document is not None:
        for step in await _steps(journal, run.run_id):
            writing.add_step(step)
    for event in await _events(journal, run.run_id):
        writing.add_event(event)
    return await asyncio.to_thread(writing.done)  # loops may have left very many snapshots


async def _steps(journal: Journal, run_id: str) -> list[Step]:
    steps: list[Step] = []
    while page := await journal.steps(run_id, after=steps[-1].key if steps else None, limit=_PAGE):
        steps.extend(page)
        if len(page) < _PAGE:
            break
    return steps


async def _events(journal: Journal, run_id: str) -> list[Event]:
    events: list[Event] = []
    types = [EventType.STEP_START, EventType.LOG]
    while page := await journal.events(run_id, after=events[-1].index if events else 0, limit=_PAGE, types=types):
        events.extend(page)
        if len(page) < _PAGE:
            break
    return events


class _Writing:
    """A report while it is put together."""

    def __init__(self, run: Run, document: Document | None, inputs: Mapping[str, Any]) -> None:
        self._run = run
        self._document = document
        self._inputs = inputs
        self._nodes = {} if document is None else {segment(node_id): node for node_id, node in document.nodes.items()}
        self._spans: dict[str, Span] = {}
        self._snapshots: dict[str, list[dict[str, Any]]] = {}
        self._keys: set[str] = set()
        self._messages: list[dict[str, Any]] = []
        self._open = WorkflowStatus.Cancelled if run.is_final else WorkflowStatus.Processing

    def add_step(self, step: Step) -> None:
        """Show what is recorded of a node."""
        path, _, last = step.key.rpartition("/")
        node = self._nodes.get(last.removeprefix("@"))
        if node is None:
            return
        self._keys.add(step.key)
        status = _STEP_STATUS.get(step.status, self._open)
        start = _ms(step.started_at)
        end = _ms(step.finished_at) if status.is_terminated else None
        self._mark(node, status, start, end)
        self._mark_loops(path, start)
        record: Any = codec.load(step.value) if step.value is not None else None
        error = codec.load(step.error).get("message") if step.error is not None else None
        shown: Mapping[str, Any] = as_object(record)
        if "outputs" not in shown:
            shown = {"inputs": {}, "outputs": as_object(record), "branch": None}
        self._add_snapshot(step.key, node, shown, error)
        if status is WorkflowStatus.Failed:
            self._say(node.id, "error", str(error or "It took too long."), end or start)

    def add_event(self, event: Event) -> None:
        """Show a node that has begun, or what a node has said."""
        data = codec.load(event.data)
        at = _ms(event.at)
        if event.type == EventType.LOG:
            node_id = data.get("node")
            level = _LEVELS.get(str(data.get("level")), "info")
            self._say(node_id if isinstance(node_id, str) else None, level, str(data.get("message")), at)
            return
        key = str(data.get("step"))
        path, _, last = key.rpartition("/")
        node = self._nodes.get(last)
        if key not in self._keys and node is not None:
            self._keys.add(key)
            self._mark(node, self._open, at, _ms(self._run.finished_at) if self._run.is_final else None)
            self._mark_loops(path, at)
            self._add_snapshot(key, node, {"inputs": {}, "outputs": {}, "branch": None}, None)

    def done(self) -> dict[str, Any]:
        """The report."""
        run = self._run
        self._add_failure()
        span = Span(_STATUS[run.status], _ms(run.started_at or run.created_at), None)
        if run.finished_at is not None:
            span.end_ms = _ms(run.finished_at)
        outputs: Any = codec.load(run.result) if run.status is RunStatus.COMPLETED and run.result is not None else {}
        secrets = Secrets() if self._document is None else secrets_of(self._document, self._inputs)
        return secrets.mask(
            {
                "id": run.run_id,
                "inputs": self._inputs,
                "outputs": outputs,
                "workflowStatus": span.to_dict(),
                "reports": {
                    node_id: {"id": node_id, **span.to_dict(), "snapshots": self._snapshots.get(node_id, [])}
                    for node_id, span in self._spans.items()
                },
                "messages": sorted(self._messages, key=lambda one: one["timestamp"]),
            }
        )

    def _add_failure(self) -> None:
        """Show why the run failed, where no step says it."""
        run = self._run
        if run.status is not RunStatus.FAILED or run.error is None:
            return
        error = codec.load(run.error)
        details = error.get("details")
        at = _ms(run.finished_at) if run.finished_at is not None else now_ms()
        if error.get("type") == "graph_invalid" and isinstance(details, dict):
            for text in cast("Mapping[str, Sequence[str]]", details).get("errors", ()):
                self._say(None, "error", text, at)
            return
        fields = as_object(details)
        node = None if self._document is None else self._document.nodes.get(str(fields.get("node")))
        if error.get("type") != "node_failed" or node is None:
            self._say(None, "error", str(error.get("message")), at)
            return
        text = str(fields.get("message"))
        span = self._spans.get(node.id)
        if span is None or span.status is not WorkflowStatus.Failed:
            self._mark(node, WorkflowStatus.Failed, at, at)
            self._add_snapshot(f"{node.id}/failed", node, {"inputs": {}, "outputs": {}, "branch": None}, text)
            self._say(node.id, "error", text, at)
        loop = node.owner
        while loop is not None:
            self._mark(loop, WorkflowStatus.Failed, self._spans[loop.id].start_ms if loop.id in self._spans else at, at)
            text = "Loop block execute error"
            self._add_snapshot(f"{loop.id}/failed", loop, {"inputs": {}, "outputs": {}, "branch": None}, text)
            self._say(loop.id, "error", text, at)
            loop = loop.owner

    def _mark(self, node: Node, status: WorkflowStatus, start_ms: int, end_ms: int | None) -> None:
        span = self._spans.get(node.id)
        if span is None:
            self._spans[node.id] = Span(status, start_ms, end_ms)
        else:
            span.start_ms = min(span.start_ms, start_ms)
            span.status = status
            span.end_ms = end_ms

    def _mark_loops(self, path: str, start_ms: int) -> None:
        """Show the loops that a step is inside of; those that have ended have a later step of their own."""
        for part in path.split("/") if path else ():
            loop = self._nodes.get(part.rpartition("[")[0])
            if loop is not None and loop.id not in self._spans:
                end = _ms(self._run.finished_at) if self._run.is_final else None
                self._spans[loop.id] = Span(self._open, start_ms, end)

    def _add_snapshot(self, key: str, node: Node, shown: Mapping[str, Any], error: Any) -> None:
        snapshot = {
            "id": key,
            "nodeID": node.id,
            "inputs": shown["inputs"],
            "outputs": shown["outputs"],
            "data": node.data,
            "branch": shown["branch"],
            "error": error,
        }
        self._snapshots.setdefault(node.id, []).append(snapshot)

    def _say(self, node_id: str | None, type_: str, text: str, at_ms: int) -> None:
        number = len(self._messages) + 1
        self._messages.append(
            {"id": f"message-{number}", "nodeID": node_id, "type": type_, "message": text, "timestamp": at_ms}
        )


def _ms(at: datetime | None) -> int:
    return 0 if at is None else int(at.timestamp() * 1000)
