"""What the engine needs to know of a workflow, whatever kind of file it came from.

Loaders (in `workflows/` and the dialects) make these; the engine and the server use them and never ask for the kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from .context import FlueContext


class Recovery(StrEnum):
    """What becomes of a run that lost its engine while it was running, when it is taken up again.

    One that was waiting then is resumed, whatever this says.
    """

    RESUME = "resume"  #: its code runs again, and recorded calls give back what they gave
    RESTART = "restart"  #: what it recorded is forgotten, and it begins anew
    FAIL = "fail"  #: it fails with `interrupted`


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphNode:
    """A unit of work that the file declares."""

    id: str
    label: str
    kind: str = "step"


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphEdge:
    """One node may follow another; `label` says when."""

    source: str
    target: str
    label: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """The order of work as far as the file declares it."""

    nodes: Sequence[GraphNode]
    edges: Sequence[GraphEdge]


class Workflow(Protocol):
    """One loaded version of a workflow file. A run keeps the version it started with, also when the file changes."""

    @property
    def name(self) -> str:
        """The dotted name, from the file's place below its workflow folder."""
        ...

    @property
    def kind(self) -> str:
        """The dialect: `python`, `agentflow`, `stepflow`, `flowgram` or a plug-in's own."""
        ...

    @property
    def path(self) -> Path: ...

    @property
    def version(self) -> str:
        """A hash of the source the workflow was loaded from."""
        ...

    @property
    def description(self) -> str:
        """What the workflow does, in its author's words; may be empty."""
        ...

    @property
    def input_schema(self) -> Mapping[str, Any]:
        """JSON Schema (2020-12) of the payload; `{}` allows anything."""
        ...

    @property
    def output_schema(self) -> Mapping[str, Any]:
        """JSON Schema (2020-12) of the result; `{}` promises nothing."""
        ...

    @property
    def recovery(self) -> Recovery:
        """What becomes of its runs when they were interrupted by a crash or a stop."""
        ...

    @property
    def is_strict(self) -> bool:
        """Whether a run fails if the code has changed around its recorded calls; else that is an event."""
        ...

    def parse(self, payload: Any) -> Any:
        """The payload as `ctx.payload` will hold it. Called on the event loop, and again at recovery: keep it pure.

        Raises:
            PayloadInvalid: with the path of each problem.
        """
        ...

    def graph(self) -> Graph | None:
        """The declared graph, or None for code."""
        ...

    async def run(self, ctx: FlueContext[Any]) -> Any:
        """Do the work and return the result: a JSON value, or something `codec.encode_value` makes one of."""
        ...


class WorkflowSource(Protocol):
    """Where the engine finds the workflow of a run it takes over (the catalog)."""

    def find(self, name: str) -> Workflow:
        """The current version of a workflow.

        Raises:
            WorkflowNotFound: no file has this name.
            WorkflowInvalid: the file is there but cannot be used.
        """
        ...

    def refresh(self) -> bool:
        """Look for files that are new or have changed; whether there are any. Blocks."""
        ...
