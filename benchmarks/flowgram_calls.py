"""Graph calls, timed in whatever environment this file is run in: `flowgram_runtime` or `pyflue.flowgram`.

    python flowgram_calls.py <module>

Prints seconds per call as JSON. Imports nothing of this package: the other environment does not have it.
"""

from __future__ import annotations

import asyncio
import importlib
import itertools
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

ROUNDS = 5


def node(node_id: str, type_: str, **data: Any) -> dict[str, Any]:
    return {"id": node_id, "type": type_, "meta": {"position": {"x": 0, "y": 0}}, "data": data}


def edge(source: str, target: str) -> dict[str, str]:
    return {"sourceNodeID": source, "targetNodeID": target}


def fields(**types: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {k: {"type": t} if isinstance(t, str) else t for k, t in types.items()}}


def ref(*path: str) -> dict[str, Any]:
    return {"type": "ref", "content": list(path)}


NUMBERS = {"type": "array", "items": {"type": "integer"}}

ECHO = {
    "nodes": [
        node("s", "start", outputs=fields(msg="string")),
        node("e", "end", inputs=fields(echo="string"), inputsValues={"echo": ref("s", "msg")}),
    ],
    "edges": [edge("s", "e")],
}
LOOP = {
    "nodes": [
        node("s", "start", outputs=fields(xs=NUMBERS)),
        {
            **node("l", "loop", loopFor=ref("s", "xs"), loopOutputs={"o": ref("l_locals", "item")}),
            "blocks": [node("bs", "block-start"), node("be", "block-end")],
            "edges": [edge("bs", "be")],
        },
        node("e", "end", inputs=fields(o=NUMBERS), inputsValues={"o": ref("l", "o")}),
    ],
    "edges": [edge("s", "l"), edge("l", "e")],
}


def chain(length: int) -> dict[str, Any]:
    """Nodes one after the other, without work of their own."""
    names = [f"c{number}" for number in range(length)]
    line = ["s", *names, "e"]
    return {
        "nodes": [
            node("s", "start", outputs=fields(a="integer")),
            *(node(name, "condition", conditions=[]) for name in names),
            node("e", "end", inputs=fields(a="integer"), inputsValues={"a": ref("s", "a")}),
        ],
        "edges": [edge(one, other) for one, other in itertools.pairwise(line)],
    }


async def seconds(call: Callable[[], Awaitable[Any]], expected: Any, times: int) -> float:
    """The best of some rounds, for one call."""
    assert await call() == expected
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(times):
            await call()
        best = min(best, (time.perf_counter() - began) / times)
    return best


async def main(module: str) -> dict[str, float]:
    fg = importlib.import_module(module)
    items = list(range(1000))
    long = chain(900)
    return {
        "echo": await seconds(lambda: fg.run(ECHO, {"msg": "hi"}), {"echo": "hi"}, 300),
        "loop_1000": await seconds(lambda: fg.run(LOOP, {"xs": items}), {"o": items}, 3),
        "chain_900": await seconds(lambda: fg.run(long, {"a": 1}), {"a": 1}, 3),
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1]))))
