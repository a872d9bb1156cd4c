"""The flowgram kind of workflow: a JSON file with `nodes` and `edges`.

Made by the loader in `dialect.py`, when a graph is first asked for. A file becomes a `GraphWorkflow`, which the
engine runs like every other; `durable.py` makes its nodes steps. `InlineWorkflow` is the workflow of graphs that come
with a request (`/task/run`): the graph is the run's definition, so it is stored with the run's first record, no file is
needed to take the run up again, and nobody who looks at the run sees the keys that are written into the graph.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from weakref import WeakKeyDictionary

from .. import codec
from ..engine import FlueContext, Graph, GraphEdge, GraphNode, Recovery, definition_of
from ..errors import PayloadInvalid, PyFlueError, SettingsInvalid, WorkflowInvalid
from ..typed import misfits
from ..workflows import Finding, Source
from .configured import load_executors
from .dialect import INLINE, KIND
from .document import DRAWN_ONLY, Document, read_document, read_text
from .durable import DurableKeeper
from .exceptions import GraphInvalid, NodeFailed
from .library import WorkflowApplication
from .masking import secrets_of
from .scheduler import GraphRun
from .validation import check_document, check_inputs, json_schema

_LIMIT_BYTES = 32 * 1024**2
#: What was found wrong with graphs, and with which types of node that was.
_checked: WeakKeyDictionary[Document, tuple[frozenset[str], Sequence[str]]] = WeakKeyDictionary()
#: Texts of graphs up to this length are kept when they have been read.
_KEPT_CHARS = 256 * 1024
#: What is read and checked in a few milliseconds.
_QUICK_CHARS = 64 * 1024
_QUICK_NODES = 500


@dataclass(frozen=True, slots=True, kw_only=True, weakref_slot=True, eq=False)
class GraphWorkflow:
    """One version of a graph's file."""

    name: str
    path: Path
    version: str
    description: str
    document: Document
    input_schema: Mapping[str, Any]
    output_schema: Mapping[str, Any]
    #: What its author should look at.
    findings: Sequence[Finding] = ()
    kind: str = KIND
    recovery: Recovery = Recovery.RESUME
    is_strict: bool = False

    def parse(self, payload: Any) -> Any:
        if not check_inputs(self.document, payload):
            return payload
        problems = misfits(payload, {"type": "object", **self.input_schema})
        raise PayloadInvalid(self.name, problems or [{"path": "$", "message": "it does not fit the start node."}])

    def graph(self) -> Graph | None:
        return graph_of(self.document)

    async def run(self, ctx: FlueContext[Any]) -> Any:
        return await run_durably(self.document, ctx.payload, ctx)


@dataclass(frozen=True, slots=True, kw_only=True)
class InlinePayload:
    """The inputs of a graph that came with a request, and the graph while it is at hand."""

    inputs: Mapping[str, Any]
    document: Document | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InlineWorkflow:
    """The workflow of graphs that come with a request. An invalid one is accepted, and fails with what is wrong."""

    name: str = INLINE
    path: Path = field(default_factory=lambda: Path(INLINE))
    version: str = "1"
    description: str = "A graph that comes with its request."
    kind: str = KIND
    recovery: Recovery = Recovery.RESUME
    is_strict: bool = False
    input_schema: Mapping[str, Any] = field(
        default_factory=lambda: {
            "type": "object",
            "properties": {"inputs": {"type": "object"}},
            "additionalProperties": False,
        }
    )
    output_schema: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def parse(self, payload: Any) -> InlinePayload:
        if not _is_inline(payload):
            problems = misfits(payload, self.input_schema)
            raise PayloadInvalid(self.name, problems or [{"path": "$", "message": "it must hold inputs."}])
        return InlinePayload(inputs=payload.get("inputs", {}))

    def graph(self) -> Graph | None:
        return None

    async def run(self, ctx: FlueContext[Any]) -> Any:
        payload: InlinePayload = ctx.payload
        document = payload.document
        if document is None:
            document = await asyncio.to_thread(_defined, await definition_of(ctx))
        types = WorkflowApplication.instance().executors.types
        if len(document.nodes) > _QUICK_NODES:
            await asyncio.to_thread(_errors_in, document, types)
        errors = _errors_in(document, types) or check_inputs(document, payload.inputs)
        if errors:
            raise _unusable(errors)
        return await run_durably(document, payload.inputs, ctx)


def _defined(definition: Any) -> Document:
    """The graph that came with a request.

    Raises:
        PyFlueError: none did.
    """
    if definition is None:
        raise _unusable([f"no graph came with the request; {INLINE} runs those of POST /task/run"])
    try:
        return document_of(definition)
    except GraphInvalid as error:
        raise _unusable(error.errors) from error
    except (ValueError, TypeError) as error:
        raise _unusable([str(error)]) from error


def _unusable(errors: Sequence[str]) -> PyFlueError:
    text = f"The graph cannot be run: {'; '.join(errors)}"
    return PyFlueError(text, type="graph_invalid", details={"errors": list(errors)})


async def run_durably(document: Document, inputs: Mapping[str, Any], ctx: FlueContext[Any]) -> dict[str, Any]:
    """Run a graph as a run of the engine.

    Raises:
        PyFlueError: a node failed; `node_failed`, with its id.
    """
    secrets = secrets_of(document, inputs)
    executors = WorkflowApplication.instance().executors
    try:
        return await GraphRun(document, inputs, executors=executors, keeper=DurableKeeper(ctx, secrets)).execute()
    except NodeFailed as error:
        text = secrets.text(error.message)
        raise PyFlueError(
            f"Node {error.node_id!r} failed: {text}",
            type="node_failed",
            details={"node": error.node_id, "message": text},
        ) from None


def load_graph(source: Source) -> GraphWorkflow:
    """Make a workflow of a graph's file.

    Raises:
        WorkflowInvalid: it is none, or one that cannot be run.
    """
    from ..workflows.modules import shown

    where = shown(source)
    try:
        data = source.path.read_bytes()
    except OSError as error:
        raise WorkflowInvalid(where, f"it cannot be read: {error.strerror}.") from error
    if len(data) > _LIMIT_BYTES:
        raise WorkflowInvalid(where, f"it is larger than {_LIMIT_BYTES:,} bytes.")
    value, text = _decoded(where, data)
    try:
        load_executors()
    except SettingsInvalid as error:
        raise WorkflowInvalid(where, str(error)) from error
    try:
        document = read_document(value)
        errors, warnings = check_document(document, WorkflowApplication.instance().executors.types)
    except GraphInvalid as error:
        document, errors, warnings = None, error.errors, []
    if errors or document is None:
        problem = "; ".join(errors)
        raise WorkflowInvalid(where, f"{problem}.", line=_line_of(errors[0], text), details={"errors": errors})
    return GraphWorkflow(
        name=source.name,
        path=source.path,
        version=hashlib.sha256(data).hexdigest(),
        description=_description(value, document),
        document=document,
        input_schema=_schema(document.start.data.get("outputs")),
        output_schema=_schema(next(n for n in document.root.nodes if n.type == "end").data.get("inputs")),
        findings=[Finding(message=f"{warning}.", line=_line_of(warning, text)) for warning in warnings],
    )


def document_of(schema: Any) -> Document:
    """The document of a graph; texts that come again are not read again.

    Raises:
        GraphMalformed, ValueError, TypeError.
    """
    return read_text(schema) if isinstance(schema, str) and len(schema) <= _KEPT_CHARS else read_document(schema)


async def read_graph(text: str) -> Document:
    """As `document_of`; a long text is read in a thread, so that others on the event loop go on.

    Raises:
        GraphMalformed, ValueError.
    """
    return document_of(text) if len(text) <= _QUICK_CHARS else await asyncio.to_thread(document_of, text)


def _errors_in(document: Document, types: frozenset[str]) -> Sequence[str]:
    """What is wrong with a graph; asked again and again for one that many requests bring."""
    known = _checked.get(document)
    if known is None or known[0] != types:
        known = _checked[document] = (types, tuple(check_document(document, types)[0]))
    return known[1]


def graph_of(document: Document) -> Graph:
    """A graph as the catalog and the command line show it; bodies of loops included."""
    nodes: list[GraphNode] = []
    edges: list[GraphEdge] = []
    levels = [document.root]
    for level in levels:
        for node in level.nodes:
            if node.type in DRAWN_ONLY:
                continue
            nodes.append(GraphNode(id=node.id, label=node.name, kind=node.type))
            edges.extend(GraphEdge(source=node.id, target=e.target.id, label=e.port or "") for e in node.outgoing)
            if node.level is not None:
                levels.append(node.level)
                edges.append(GraphEdge(source=node.id, target=node.level.plan.entry.id, label="each item"))
    return Graph(nodes=nodes, edges=edges)


def _is_inline(payload: Any) -> bool:
    if not isinstance(payload, Mapping) or not payload.keys() <= {"inputs"}:  # pyright: ignore[reportUnknownMemberType]
        return False
    return isinstance(cast("Mapping[str, Any]", payload).get("inputs", {}), Mapping)


def _decoded(where: str, data: bytes) -> tuple[Any, str]:
    try:
        text = data.decode("utf-8-sig")
        return codec.decode(text.encode(), "The file"), text
    except UnicodeDecodeError as error:
        raise WorkflowInvalid(where, "it is not UTF-8.") from error
    except PyFlueError as error:
        line = None
        try:
            json.loads(data)
        except json.JSONDecodeError as found:
            line = found.lineno  # the quick reader does not count lines
        except (ValueError, RecursionError):
            pass
        raise WorkflowInvalid(where, str(error), line=line) from error


def _line_of(error: str, text: str) -> int | None:
    """Where the first thing is written that an error names."""
    for found in re.finditer(r"'([^']+)'|\(node ([^)]+)\)", error):
        name = json.dumps(found[1] or found[2], ensure_ascii=False)
        place = re.search(rf'"(?:id|sourceNodeID|targetNodeID)"\s*:\s*{re.escape(name)}', text)
        if place is not None:
            return text.count("\n", 0, place.start()) + 1
    return None


def _description(value: Mapping[str, Any], document: Document) -> str:
    for found in (value.get("description"), value.get("title"), document.start.data.get("description")):
        if isinstance(found, str) and found.strip():
            return found.strip()
    return ""


def _schema(schema: Any) -> Mapping[str, Any]:
    return json_schema(cast("Mapping[str, Any]", schema)) if isinstance(schema, Mapping) else {}


@functools.cache
def inline_workflow() -> InlineWorkflow:
    """The workflow of graphs that come with a request."""
    return InlineWorkflow()
