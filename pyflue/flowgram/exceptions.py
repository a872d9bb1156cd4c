"""What graphs raise.

FlowgramError
├── GraphInvalid                    the graph, or the inputs of a run, cannot be used; `errors` lists why
│   └── GraphMalformed              it does not even have the shape of a graph
├── NodeError                       a node cannot do its work (raised by executors; becomes NodeFailed)
│   └── NoAnswer                    nobody has answered; another try may end otherwise
├── NodeFailed                      a node failed, and with it the run
└── GraphCancelled                  the run was cancelled (raised to those who waited for it)

They are plain exceptions, because graphs also run without a project. Where they end a run of a project, `workflow.py`
turns them into `PyFlueError`s.
"""

from __future__ import annotations

from collections.abc import Sequence

_MOST_CHARS = 16 * 1024


class FlowgramError(Exception):
    """The base of all errors of graphs."""


class GraphInvalid(FlowgramError, ValueError):
    """A graph, or the inputs for it, that cannot be run."""

    def __init__(self, errors: Sequence[str]) -> None:
        super().__init__(list(errors))
        self.errors = list(errors)

    def __str__(self) -> str:
        return "; ".join(self.errors)


class GraphMalformed(GraphInvalid):
    """JSON that does not have the shape of a graph."""


class NodeError(FlowgramError):
    """A node cannot do its work."""


class NoAnswer(NodeError):
    """Nobody has answered a node's request; another try may end otherwise."""


class NodeFailed(FlowgramError):
    """A node failed, and the run with it. `__cause__` is what was raised."""

    def __init__(self, node_id: str, message: str) -> None:
        super().__init__(node_id, message)
        self.node_id = node_id
        self.message = message

    def __str__(self) -> str:
        return f"Node {self.node_id!r} failed: {self.message}"


class GraphCancelled(FlowgramError):
    """The run was cancelled before it came to an end."""


def text_of(error: BaseException) -> str:
    """What an exception says; never nothing, and never a whole book."""
    try:
        text = str(error)[: _MOST_CHARS + 1].strip()
    except Exception:  # noqa: BLE001  (the author's exception class may do anything)
        text = ""
    return cut(text) or type(error).__name__


def cut(text: str) -> str:
    """The beginning of a text that is too long for a message."""
    return text if len(text) <= _MOST_CHARS else f"{text[:_MOST_CHARS]}…"
