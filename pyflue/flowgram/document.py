"""The graph as it was drawn: JSON into nodes, edges and levels.

`read_document` checks the shape and makes a `Document`; `validation.py` says what else is wrong with it, the scheduler
walks it. Nothing of the caller's JSON is ever changed: nodes hold references into it. Everything here is iterative, so
neither long chains nor deep nesting meet a recursion limit.

The names of JSON keys are FlowGram's (flowgram.ai, `packages/runtime/interface/src/schema`); they are known here and
in `report.py` only as far as the graph's structure goes.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from .exceptions import GraphMalformed

#: Nodes of the editor that are drawn and never run.
DRAWN_ONLY = frozenset({"comment", "group"})
#: The port that a node is left by when it fails.
ERROR_PORT = "error"
#: The variables of `globalVariable`.
GLOBAL = "global"
#: Where the variables of a loop's iteration are: `<loop id>_locals`.
LOCALS = "_locals"

#: Where a node is drawn if nothing says so.
_ORIGIN: Mapping[str, Any] = {"x": 0, "y": 0}

VARIABLE_TYPES = frozenset({"string", "integer", "number", "boolean", "object", "array", "map", "date-time", "null"})


class Edge:
    """One node may follow another, through a named port or the unnamed one."""

    __slots__ = ("port", "source", "target", "target_port")

    def __init__(self, source: Node, target: Node, port: str | None, target_port: str | None) -> None:
        self.source = source
        self.target = target
        self.port = port
        self.target_port = target_port

    @property
    def id(self) -> str:
        return f"{self.source.id}->{self.port or ''}->{self.target.id}->{self.target_port or ''}"


class Node:
    """A node of the graph. `data` is the caller's, and not to be changed."""

    __slots__ = (
        "_given",
        "_input_types",
        "_output_types",
        "data",
        "id",
        "incoming",
        "level",
        "outgoing",
        "owner",
        "parent",
        "position",
        "type",
    )

    def __init__(
        self,
        node_id: str,
        type_: str,
        data: Mapping[str, Any],
        *,
        parent: Node | None = None,
        owner: Node | None = None,
        position: Mapping[str, Any] = _ORIGIN,
    ) -> None:
        self.id = node_id
        self.type = type_
        self.data = data
        #: The loop that it is inside of, or else the graph itself, as a node of the type `root`.
        self.parent = parent
        #: The loop that it is inside of; None if it is in none.
        self.owner = owner
        #: Where it is drawn.
        self.position = position
        self.outgoing: list[Edge] = []
        self.incoming: list[Edge] = []
        #: The nodes inside of it, for loops.
        self.level: Level | None = None
        self._input_types: Mapping[str, Any] | None = None
        self._output_types: Mapping[str, Any] | None = None
        self._given: Mapping[str, Any] | None = None

    @property
    def name(self) -> str:
        """Its title, or else its id."""
        title = self.data.get("title")
        return title if isinstance(title, str) and title else self.id

    @property
    def declare(self) -> Mapping[str, Any]:
        """What its author declared: `inputs`, `inputsValues` and `outputs`."""
        return {name: self.data[name] for name in ("inputs", "inputsValues", "outputs") if name in self.data}

    @property
    def edges(self) -> Mapping[str, Sequence[Edge]]:
        return {"inputs": self.incoming, "outputs": self.outgoing}

    @property
    def ports(self) -> Mapping[str, Sequence[str]]:
        """The named ports that edges use."""
        return {
            "inputs": list(dict.fromkeys(edge.target_port for edge in self.incoming if edge.target_port)),
            "outputs": list(dict.fromkeys(edge.port for edge in self.outgoing if edge.port)),
        }

    @property
    def prev(self) -> Sequence[Node]:
        return list({edge.source.id: edge.source for edge in self.incoming}.values())

    @property
    def next(self) -> Sequence[Node]:
        return list({edge.target.id: edge.target for edge in self.outgoing}.values())

    @property
    def children(self) -> Sequence[Node]:
        return [] if self.level is None else list(self.level.nodes)

    @property
    def input_types(self) -> Mapping[str, Any]:
        """The declared inputs by name, each with its JSON schema."""
        if self._input_types is None:
            self._input_types = properties(self.data.get("inputs"))
        return self._input_types

    @property
    def output_types(self) -> Mapping[str, Any]:
        """The declared outputs by name, each with its JSON schema."""
        if self._output_types is None:
            self._output_types = properties(self.data.get("outputs"))
        return self._output_types

    @property
    def given_schema(self) -> Mapping[str, Any]:
        """For a start node the schema of the run's inputs; empty if there is none, or a broken one."""
        if self._given is None:
            schema = as_object(self.data.get("outputs"))
            self._given = schema if schema and is_sound(schema) else {}
        return self._given

    def __repr__(self) -> str:
        return f"<Node {self.id} ({self.type})>"


class Level:
    """The nodes that are drawn on one canvas: those of the graph, or those inside of a loop."""

    __slots__ = ("_plan", "nodes", "owner")

    def __init__(self, owner: Node | None) -> None:
        self.owner = owner
        self.nodes: list[Node] = []
        self._plan: Plan | None = None

    @property
    def entry_type(self) -> str:
        return "start" if self.owner is None else "block-start"

    @property
    def plan(self) -> Plan:
        """What the scheduler needs to know, found out once."""
        if self._plan is None:
            entry = next(node for node in self.nodes if node.type == self.entry_type)
            self._plan = Plan(entry)
        return self._plan


class Plan:
    """How many edges lead to each node that can be reached from the entry, from nodes that can be reached, too.

    An edge from a node that nothing leads to will never be taken, and nobody waits for it.
    """

    __slots__ = ("entry", "reachable", "waits_for")

    def __init__(self, entry: Node) -> None:
        self.entry = entry
        self.reachable: dict[str, Node] = {entry.id: entry}
        self.waits_for: dict[str, int] = {}
        found = [entry]
        while found:
            for edge in found.pop().outgoing:
                target = edge.target
                self.waits_for[target.id] = self.waits_for.get(target.id, 0) + 1
                if target.id not in self.reachable:
                    self.reachable[target.id] = target
                    found.append(target)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class Document:
    """A graph that has the right shape. `problems` is what `read_document` found on the way; `validation` adds more."""

    root: Level
    nodes: Mapping[str, Node]
    global_schema: Any
    problems: Sequence[str]

    @property
    def start(self) -> Node:
        return self.root.plan.entry


def read_schema(schema: Any) -> Any:
    """A graph as its user has it (a dict, JSON text, a `WorkflowSchema`) as plain JSON.

    Raises:
        ValueError: text that is not JSON; TypeError: something else.
    """
    if isinstance(schema, Mapping):
        return cast("Mapping[str, Any]", schema)
    if isinstance(schema, (str, bytes)):
        from .. import codec
        from ..errors import InvalidJson

        try:
            return codec.decode(schema.encode() if isinstance(schema, str) else schema, "The schema")
        except (InvalidJson, UnicodeEncodeError) as error:
            raise ValueError(f"schema must be valid JSON: {error}") from error
    dump = getattr(schema, "model_dump", None)
    if callable(dump) and not isinstance(schema, type):
        return dump()
    raise TypeError(f"schema must be WorkflowSchema | dict | str, got {type(schema).__name__}")


def read_document(schema: Any) -> Document:
    """Make a document of a graph's JSON.

    Raises:
        GraphMalformed: nodes or edges that are none.
    """
    value = read_schema(schema)
    reading = _Reading()
    if not isinstance(value, Mapping):
        raise GraphMalformed(["The schema must be an object with nodes and edges"])
    whole = cast("Mapping[str, Any]", value)
    root = reading.read(whole)
    if reading.malformed:
        raise GraphMalformed(reading.malformed)
    return Document(
        root=root, nodes=reading.nodes, global_schema=whole.get("globalVariable"), problems=reading.problems
    )


class _Reading:
    """Reads the levels of a graph, each with its nodes and edges."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.malformed: list[str] = []
        self.problems: list[str] = []
        #: Above all nodes; it is none of them.
        self._top = Node("root", "root", {})

    def read(self, whole: Mapping[str, Any]) -> Level:
        root = self._top.level = Level(None)
        edges: list[tuple[Level, str, Any]] = []
        waiting: list[tuple[Level, str, Any, Any]] = [(root, "", whole.get("nodes", ()), whole.get("edges", ()))]
        while waiting:
            level, where, nodes, level_edges = waiting.pop()
            if not isinstance(nodes, (list, tuple)):
                self.malformed.append(f"{where}Schema.nodes must be an array")
                continue
            for item in cast("Sequence[Any]", nodes):
                node = self._node(level, where, item)
                if node is not None and (item.get("blocks") or node.type == "loop"):
                    inner = node.level = Level(node)
                    waiting.append((inner, f"In {node.id!r}: ", item.get("blocks") or (), item.get("edges") or ()))
                elif node is not None and item.get("edges"):
                    self.problems.append(f"Node {node.id!r} has edges, but no blocks")
            edges.append((level, where, level_edges if level_edges is not None else ()))
        for level, where, level_edges in edges:
            self._edges(level, where, level_edges)
        return root

    def _node(self, level: Level, where: str, item: Any) -> Node | None:
        if not isinstance(item, Mapping):
            self.malformed.append(f"{where}A node must be an object")
            return None
        fields = cast("Mapping[str, Any]", item)
        node_id, type_, data = fields.get("id"), fields.get("type"), fields.get("data")
        if not isinstance(node_id, str) or not node_id:
            self.malformed.append(f"{where}Node id is required")
            return None
        if not isinstance(type_, str) or not type_:
            self.malformed.append(f"{where}Node type is required (node id={node_id!r})")
            return None
        if data is None:
            data = {}
        if not isinstance(data, Mapping):
            self.malformed.append(f"{where}Node data must be an object (node id={node_id!r})")
            return None
        node = Node(
            node_id,
            type_,
            cast("Mapping[str, Any]", data),
            parent=level.owner or self._top,
            owner=level.owner,
            position=as_object(as_object(fields.get("meta")).get("position")) or _ORIGIN,
        )
        if node_id in self.nodes:
            self.problems.append(f"Node id {node_id!r} is used more than once")
        else:
            self.nodes[node_id] = node
        level.nodes.append(node)
        return node

    def _edges(self, level: Level, where: str, edges: Any) -> None:
        if not isinstance(edges, (list, tuple)):
            self.malformed.append(f"{where}Schema.edges must be an array")
            return
        here = {node.id: node for node in level.nodes}
        seen: set[tuple[Any, ...]] = set()
        for item in cast("Sequence[Any]", edges):
            if not isinstance(item, Mapping):
                self.malformed.append(f"{where}An edge must be an object")
                continue
            fields = cast("Mapping[str, Any]", item)
            source_id, target_id = fields.get("sourceNodeID"), fields.get("targetNodeID")
            if not (isinstance(source_id, str) and isinstance(target_id, str) and source_id and target_id):
                self.malformed.append(f"{where}An edge needs sourceNodeID and targetNodeID")
                continue
            source, target = here.get(source_id), here.get(target_id)
            if source is None or target is None:
                which, missing = ("source", source_id) if source is None else ("target", target_id)
                what = "is on another level" if missing in self.nodes else "does not exist"
                self.problems.append(f"{where}Edge {which} node {missing!r} {what}")
                continue
            port, target_port = _port(fields.get("sourcePortID")), _port(fields.get("targetPortID"))
            if (source_id, port, target_id) not in seen:  # one that was drawn twice is one
                seen.add((source_id, port, target_id))
                edge = Edge(source, target, port, target_port)
                source.outgoing.append(edge)
                target.incoming.append(edge)


def _port(value: Any) -> str | None:
    return None if value is None or value == "" else str(value)


def as_object(value: Any) -> Mapping[str, Any]:
    """A JSON object; an empty one in the place of anything else."""
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def as_list(value: Any) -> Sequence[Any]:
    """A JSON array; an empty one in the place of anything else."""
    return cast("Sequence[Any]", value) if isinstance(value, (list, tuple)) else ()


def properties(schema: Any) -> Mapping[str, Any]:
    """The properties of an object's JSON schema; none of one that is broken."""
    if not isinstance(schema, Mapping) or not is_sound(cast("Mapping[str, Any]", schema)):
        return {}
    found = cast("Mapping[str, Any]", schema)
    return cast("Mapping[str, Any]", found.get("properties") or {}) if found.get("type") == "object" else {}


def is_sound(schema: Mapping[str, Any]) -> bool:
    """Whether a JSON schema is one of the subset: each part has a type that there is."""
    waiting: list[Any] = [schema]
    while waiting:
        part = waiting.pop()
        if not isinstance(part, Mapping):
            return False
        fields = cast("Mapping[str, Any]", part)
        if fields.get("type") not in VARIABLE_TYPES:
            return False
        below = fields.get("properties")
        if below is not None:
            if not isinstance(below, Mapping):
                return False
            waiting.extend(cast("Mapping[str, Any]", below).values())
        for name in ("items", "additionalProperties"):
            inner = fields.get(name)
            if inner is not None and not isinstance(inner, bool):
                waiting.append(inner)
    return True


@functools.lru_cache(maxsize=256)
def read_text(text: str) -> Document:
    """The document of a graph's JSON text, kept: servers run the same few graphs again and again.

    Raises:
        ValueError, GraphMalformed
    """
    return read_document(text)
