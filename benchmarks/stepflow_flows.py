"""The flows that stepflow benchmarks run, and the load on a server that has them: ours, or stepflow-server 0.13.0.

Both answer `POST /api/v1/flows` and `POST /api/v1/runs`. A figure is the wall time of one run asked for over one
connection (median), or the runs per second over eight. Components are reached at `/python/add_one`, `/python/pause`,
`/builtin/create_messages`, `/builtin/noop` and `/builtin/map`.

    python -m benchmarks.stepflow_flows http://127.0.0.1:7840
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2

from . import load

CHAIN = 20
PAUSES = 100
PAUSE_S = 0.2
ITEMS = 1000
_CALLERS = 8
#: How the beginning of an answer says that the run went well: theirs, ours.
_SUCCEEDED = ('"status":2', '"outcome":"success"')


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A flow, what it is given, and how often it is run in one round."""

    flow: Mapping[str, Any]
    input: Any
    expected: Any
    runs: int
    runs_at_8: int
    request: Mapping[str, Any] = field(default_factory=dict[str, Any])


def chain(component: str, length: int = CHAIN) -> dict[str, Any]:
    """Steps that each need the one before: `n` is handed through."""
    steps: list[dict[str, Any]] = []
    for number in range(length):
        before: dict[str, Any] = {"$step": f"s{number - 1}", "path": "n"} if number else {"$input": "n"}
        steps.append({"id": f"s{number}", "component": component, "input": {"n": before}})
    return {"name": "chain", "steps": steps, "output": {"$step": f"s{length - 1}"}}


def message_chain(length: int = CHAIN) -> dict[str, Any]:
    """A chain of a built-in component that does a little work."""
    steps: list[dict[str, Any]] = []
    for number in range(length):
        path = "messages[0].content"
        before: dict[str, Any] = {"$step": f"s{number - 1}", "path": f"$.{path}"} if number else {"$input": "text"}
        steps.append({"id": f"s{number}", "component": "/builtin/create_messages", "input": {"user_prompt": before}})
    return {"name": "messages", "steps": steps, "output": {"$step": f"s{length - 1}"}}


def fan_out(width: int = PAUSES) -> dict[str, Any]:
    """Steps that need nothing of one another, and sleep."""
    steps = [
        {"id": f"s{number}", "component": "/python/pause", "input": {"seconds": PAUSE_S, "n": number}}
        for number in range(width)
    ]
    return {"name": "fan_out", "steps": steps, "output": [{"$step": step["id"], "path": "n"} for step in steps]}


def mapped(component: str) -> dict[str, Any]:
    """A map whose flow has one step."""
    inner = {
        "name": "item",
        "steps": [{"id": "one", "component": component, "input": {"n": {"$input": "n"}}}],
        "output": {"$step": "one", "path": "n"},
    }
    step = {
        "id": "all",
        "component": "/builtin/map",
        "input": {"workflow": {"$literal": inner}, "items": {"$input": "items"}},
    }
    return {"name": "map", "steps": [step], "output": {"$step": "all", "path": "successful"}}


def cases(*, with_ours: bool = False) -> dict[str, Case]:
    """What is measured, by name; `with_ours` also what only our SDK has.

    That is components that never wait (`/python/add_one_at_once`), and components in the server's process (`/here/…`).
    """
    items = {"items": [{"n": number} for number in range(ITEMS)]}
    message = {"messages": [{"role": "user", "content": "hello"}]}
    here = {
        name: Case(flow=chain(f"/here/{component}"), input={"n": 0}, expected={"n": CHAIN}, runs=300, runs_at_8=1600)
        for name, component in (
            ("here_chain_20", "add_one"),
            ("here_at_once_chain_20", "add_one_at_once"),
            ("here_async_chain_20", "add_one_async"),
        )
    }
    waitless = {
        "python_at_once_chain_20": Case(
            flow=chain("/python/add_one_at_once"), input={"n": 0}, expected={"n": CHAIN}, runs=50, runs_at_8=160
        )
    }
    return {
        "python_chain_20": Case(
            flow=chain("/python/add_one"), input={"n": 0}, expected={"n": CHAIN}, runs=50, runs_at_8=160
        ),
        **(waitless if with_ours else {}),
        "noop_chain_20": Case(flow=chain("/builtin/noop"), input={"n": 0}, expected={"n": 0}, runs=300, runs_at_8=1600),
        "noop_1": Case(flow=chain("/builtin/noop", 1), input={"n": 0}, expected={"n": 0}, runs=1000, runs_at_8=5000),
        "messages_chain_20": Case(
            flow=message_chain(), input={"text": "hello"}, expected=message, runs=300, runs_at_8=1600
        ),
        "fan_out_100": Case(
            flow=fan_out(),
            input={},
            expected=list(range(PAUSES)),
            runs=5,
            runs_at_8=16,
            request={"maxConcurrency": PAUSES},
        ),
        "map_1000_noop": Case(flow=mapped("/builtin/noop"), input=items, expected=ITEMS, runs=10, runs_at_8=16),
        "map_1000_python": Case(flow=mapped("/python/add_one"), input=items, expected=ITEMS, runs=3, runs_at_8=8),
        **(here if with_ours else {}),
    }


def measure(origin: str, only: Sequence[str] = (), *, with_ours: bool = False) -> dict[str, float]:
    """`<case>.p50_ms` of one caller and `<case>.per_second` of eight."""
    figures: dict[str, float] = {}
    for name, case in cases(with_ours=with_ours).items():
        if only and name not in only:
            continue
        body = _request(origin, case)
        url = f"{origin}/api/v1/runs"
        host, port, request = load.post(url, body)
        _once(url, body, case)  # worker processes are started by the first run
        one = asyncio.run(
            load.measure(load.Plan(host=host, port=port, request=request, connections=1, requests=case.runs))
        )
        eight = asyncio.run(
            load.measure(
                load.Plan(host=host, port=port, request=request, connections=_CALLERS, requests=case.runs_at_8)
            )
        )
        for series in (one, eight):
            if set(series.statuses) != {"200"} or not any(mark in series.sample for mark in _SUCCEEDED):
                raise SystemExit(f"{name}: {series.statuses} {series.sample}")
        figures[f"{name}.p50_ms"] = one.p50_ms
        figures[f"{name}.per_second"] = eight.per_second
    return figures


def _request(origin: str, case: Case) -> bytes:
    stored = httpx2.post(f"{origin}/api/v1/flows", json={"flow": case.flow}).json()
    if "flowId" not in stored:
        raise SystemExit(f"The flow was not stored: {stored}")
    asked = {"flowId": stored["flowId"], "input": [case.input], "wait": True, **case.request}
    return json.dumps(asked, separators=(",", ":")).encode()


def _once(url: str, body: bytes, case: Case) -> None:
    answer = httpx2.post(url, content=body, headers={"content-type": "application/json"}, timeout=120)
    if _output(answer.json()) != case.expected:
        raise SystemExit(f"Not what was expected: {answer.status_code} {answer.text[:1000]}")


def _output(answer: Any) -> Any:
    """The output in either server's answer: ours is that of the earlier versions, `{"result": {"result": …}}`."""
    if "results" in answer and "result" not in answer:
        return answer["results"][0].get("output")
    return answer["result"].get("result")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stepflow_flows")
    parser.add_argument("origin")
    parser.add_argument("--only", type=lambda text: text.split(","), default=())
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    measured: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        for name, value in measure(options.origin, options.only).items():
            measured.setdefault(name, []).append(value)
    for name, values in measured.items():
        print(f"{name:36} {statistics.median(values):12,.2f}")


if __name__ == "__main__":
    main()
