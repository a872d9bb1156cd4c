"""Library calls of step classes: seconds per run, with whichever implementation is named.

Run as a script by `agentflow_library.py`, under our interpreter and under the one that holds stepflow-agent; imports
nothing of PyFlue unless that is the implementation. Each figure is the best of several rounds: a library call has no
waiting in it, so whatever makes a round slower is something else.

    python agentflow_calls.py agentflow
    python agentflow_calls.py pyflue.agentflow
"""

from __future__ import annotations

import argparse
import importlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass
class State:
    order_id: str
    amount: float
    order_found: bool = False
    policy_ok: bool = False
    response_text: str = ""


def workflows(flow: Any) -> dict[str, Callable[[], Any]]:
    """The calls to measure, by name."""

    @flow.workflow
    class Refund:
        state: State

        @flow.step
        def check_order(self) -> str:
            self.state.order_found = True
            return f"Order {self.state.order_id} located."

        @flow.step
        def verify_policy(self) -> str:
            self.state.policy_ok = self.state.order_found and self.state.amount <= 100.0
            return "checked"

        @flow.step
        def respond(self) -> str:
            self.state.response_text = f"Refund approved for {self.state.order_id}."
            return self.state.response_text

    @flow.workflow(retries=1, retry_on=(TimeoutError,))
    class Mixed:
        state: State

        @flow.step(routes={"small": "pay", "large": "refuse"})
        def decide(self) -> str:
            return "small" if self.state.amount < 100 else "large"

        @flow.step(requires_approval=True, routes={"done": flow.END})
        def pay(self, context: Any) -> str:
            if context.attempt == 1:
                raise TimeoutError
            return "done"

        @flow.step
        def refuse(self) -> str:
            return "refused"

    refund: Any = Refund()
    mixed: Any = Mixed()
    seen: list[object] = []

    def hook(event: object) -> None:
        seen.clear()

    def approve(request: object) -> bool:
        return True

    return {
        "three_steps": lambda: refund.run(State("ord_1", 42.5)),
        "three_steps_with_hook": lambda: refund.run(State("ord_1", 42.5), hooks=[hook]),
        "routes_retry_approval": lambda: mixed.run(State("ord_1", 42.5), approval_handler=approve),
    }


def seconds_per_call(call: Callable[[], Any], *, rounds: int, calls: int) -> float:
    if call().status.value != "succeeded":
        raise SystemExit("The workflow failed.")
    best = float("inf")
    for _ in range(rounds):
        started = time.perf_counter()
        for _ in range(calls):
            call()
        best = min(best, time.perf_counter() - started)
    return best / calls


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("implementation")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--calls", type=int, default=500)
    options = parser.parse_args()
    started = time.perf_counter()
    flow = importlib.import_module(options.implementation)
    first = workflows(flow)
    figures = {"import_ms": (time.perf_counter() - started) * 1000}
    for name, call in first.items():
        figures[f"{name}_us"] = seconds_per_call(call, rounds=options.rounds, calls=options.calls) * 1e6
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
