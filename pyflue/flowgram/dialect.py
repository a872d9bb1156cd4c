"""The door of the dialect: which files are graphs. What a graph is made of is imported when there is one.

Called by discovery on every JSON file, in commands that have nothing to do with graphs, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..engine import Workflow
from ..workflows import Dialect, Source

KIND = "flowgram"
#: The reserved name of graphs that come with a request.
INLINE = "flowgram.inline"
#: How much of a file is looked at to see whether it is a graph.
_LOOK_BYTES = 1024 * 1024
_NODES = re.compile(r'"nodes"\s*:\s*\[')
_EDGES = re.compile(r'"edges"\s*:\s*\[')


def flowgram_dialect() -> Dialect:
    """The dialect of graphs."""
    return Dialect(kind=KIND, loader=GraphLoader(), routes=_routes, reserved={INLINE: _inline})


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
    from .workflow import inline_workflow

    return inline_workflow()


def _routes(services: Any) -> Sequence[Any]:
    from .http import routes

    return routes(services)
