"""Graphs for tests, written down briefly: nodes, edges, values and types as the editor saves them."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pyflue.flowgram as fg

Json = dict[str, Any]


def node(node_id: str, type_: str, **data: Any) -> Json:
    return {"id": node_id, "type": type_, "meta": {"position": {"x": 0, "y": 0}}, "data": data}


def edge(source: str, target: str, port: str | None = None) -> Json:
    made = {"sourceNodeID": source, "targetNodeID": target}
    return made if port is None else {**made, "sourcePortID": port}


def edges(*lines: str) -> list[Json]:
    """`a -> b -> c` or `a.port -> b`, one or more to a line."""
    made: list[Json] = []
    for line in lines:
        parts = [part.strip() for part in line.split("->")]
        for left, right in itertools.pairwise(parts):
            source, _, port = left.partition(".")
            made.append(edge(source, right.partition(".")[0], port or None))
    return made


def typed(type_: str, **more: Any) -> Json:
    return {"type": type_, **more}


def fields(**types: str | Json) -> Json:
    """The schema of an object."""
    return {
        "type": "object",
        "properties": {name: typed(t) if isinstance(t, str) else t for name, t in types.items()},
    }


def ref(*path: str) -> Json:
    return {"type": "ref", "content": list(path)}


def const(value: Any) -> Json:
    return {"type": "constant", "content": value}


def template(text: str) -> Json:
    return {"type": "template", "content": text}


def start(**types: str | Json) -> Json:
    return node("start", "start", outputs=fields(**types))


def end(values: Json | None = None, **types: str | Json) -> Json:
    return node("end", "end", inputs=fields(**types), inputsValues=values or {})


def graph(nodes: list[Json], *lines: str, **more: Any) -> Json:
    return {"nodes": nodes, "edges": edges(*lines), **more}


def loop(
    over: Json, body: list[Json], *lines: str, node_id: str = "loop", collect: Json | None = None, **data: Any
) -> Json:
    made = node(node_id, "loop", loopFor=over, loopOutputs=collect or {}, **data)
    return {**made, "blocks": body, "edges": edges(*lines)}


def log_node(node_id: str, **data: Any) -> Json:
    """A node of the type `log`, which tests register."""
    return node(node_id, "log", **data)


class Log(fg.INodeExecutor):
    """Notes each execution; waits, fails or gives something if its node's data says so."""

    type = "log"

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.inputs: list[Json] = []
        self.started: dict[str, asyncio.Event] = {}
        self.release: dict[str, asyncio.Event] = {}
        self.cancelled: list[str] = []
        self.failures_left: dict[str, int] = {}

    async def execute(self, ctx: fg.ExecutionContext) -> fg.ExecutionResult:
        name = ctx.node.id
        self.seen.append(name)
        self.inputs.append(ctx.inputs)
        self.started.setdefault(name, asyncio.Event()).set()
        try:
            if name in self.release:
                await self.release[name].wait()
            for _ in range(ctx.node.data.get("turns", 0)):
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.cancelled.append(name)
            raise
        if self.failures_left.get(name, 0) > 0:
            self.failures_left[name] -= 1
            raise RuntimeError(f"{name} broke")
        return fg.ExecutionResult(outputs=ctx.node.data.get("gives", {}), branch=ctx.node.data.get("takes"))


def messages(task: fg.Task) -> list[tuple[str | None, str]]:
    return [(message.nodeID, message.message) for message in task.report().messages]


def statuses(task: fg.Task) -> dict[str, str]:
    return {name: str(report.status.value) for name, report in task.report().reports.items()}
