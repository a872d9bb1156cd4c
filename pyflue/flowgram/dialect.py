"""The door of the dialect: which files are graphs. What a graph is made of is imported when there is one.

Called by discovery on every JSON file, in commands that have nothing to do with graphs, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..engine import Workflow
from ..workflows import Dialect, Source, TokenScope

KIND = "flowgram"
#: The reserved name of graphs that come with a request.
INLINE = "flowgram.inline"
#: Procedures of the API that change nothing.
READING = frozenset({"info", "task.report", "task.result", "task.validate"})
#: How much of a file is looked at to see whether it is a graph.
_LOOK_BYTES = 1024 * 1024
_NODES = re.compile(r'"nodes"\s*:\s*\[')
_EDGES = re.compile(r'"edges"\s*:\s*\[')


def flowgram_dialect() -> Dialect:
    """The dialect of graphs."""
    return Dialect(
        kind=KIND,
        loader=GraphLoader(),
        routes=_routes,
        scope_of=scope_of,
        operations=_operations,
        reserved={INLINE: _inline},
    )


def scope_of(method: str, path: str) -> TokenScope | None:
    """The scope that a request of FlowGram's API needs; whoever may only look starts and ends nothing."""
    path = path.removeprefix("/api")
    if path.startswith("/trpc/"):
        # A batch is what its strongest procedure is, and what nobody knows is taken for a strong one.
        names = {procedure_of(name) for name in path.removeprefix("/trpc/").split(",")}
        return "read" if names <= READING else "run"
    if path in ("/task/run", "/task/cancel"):
        return "run"
    return "read" if path in ("/info", "/task/report", "/task/result", "/task/validate") else None


def procedure_of(text: str) -> str:
    """A tRPC procedure as it is called: with dots or slashes, in the middle and around."""
    return text.strip("/").replace("/", ".")


class GraphLoader:
    """Makes workflows of JSON files with `nodes` and `edges`."""

    def claims(self, path: Path) -> bool:
        if path.suffix != ".json":
            return False
        with path.open("rb") as file:
            data = file.read(_LOOK_BYTES)
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            # Broken, or longer than what was read: it is meant to be a graph if it looks like one.
            text = data.decode("utf-8", "replace")
            return bool(_NODES.search(text) and _EDGES.search(text))
        return isinstance(value, dict) and "nodes" in value and "edges" in value

    def load(self, source: Source) -> Workflow:
        from .workflow import load_graph

        return load_graph(source)


def _inline() -> Workflow:
    from .configured import load_executors
    from .workflow import inline_workflow

    load_executors()
    return inline_workflow()


def _operations() -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
    from .openapi import operations

    return operations()


def _routes(services: Any) -> Sequence[Any]:
    from .http import routes

    return routes(services)
