"""What the harness costs beside a model: per turn, per tool call, and with 500 sessions at once on a model of 50 ms.

The model is scripted, the journal is the SQLite file with an fsync per commit. Run in a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from typing import Any

from pyflue import codec
from pyflue.engine import Engine, Submission, Workflow
from pyflue.main import open_project

from .in_process import check_completed
from .servers import fresh_project

_WORKFLOW = "agent_turns"
_TOOL_CALLS = 10


async def measure(*, prompts: int, sessions: int, delay_s: float) -> dict[str, float]:
    """The figures `agents.…`, in milliseconds."""
    with fresh_project() as folder:
        project = open_project(folder)
        try:
            async with project.engine(adopts=True) as engine:
                workflow = project.catalog.find(_WORKFLOW)
                await _took(engine, workflow, prompts=10, delay_s=0.0)  # what is imported at first use
                alone = await _took(engine, workflow, prompts=prompts, delay_s=0.0)
                with_tools = await _took(engine, workflow, prompts=prompts // 4, delay_s=0.0, tool_calls=_TOOL_CALLS)
                crowd = await asyncio.gather(
                    *(_took(engine, workflow, prompts=prompts // 10, delay_s=delay_s) for _ in range(sessions))
                )
        finally:
            await project.journal.close()
    per_turn = _quantile(alone, 0.5)
    # The first prompts of a crowd meet the start of all the others.
    together = [ms for one in crowd for ms in one[len(one) // 4 :]]
    return {
        "agents.turn.p50_ms": per_turn,
        "agents.turn.p99_ms": _quantile(alone, 0.99),
        "agents.tool_call.p50_ms": (_quantile(with_tools, 0.5) - 2 * per_turn) / _TOOL_CALLS,
        "agents.crowd.sessions": sessions,
        "agents.crowd.p50_ms": _quantile(together, 0.5),
        "agents.crowd.p99_ms": _quantile(together, 0.99),
    }


async def _took(
    engine: Engine, workflow: Workflow, *, prompts: int, delay_s: float, tool_calls: int = 0
) -> Sequence[float]:
    """How long each prompt of one run took, besides the model's time."""
    payload: dict[str, Any] = {"prompts": prompts, "delay_s": delay_s, "tool_calls": tool_calls}
    raw = codec.encode_value(payload, "The payload")
    handle = await engine.submit(Submission(workflow=workflow, payload=raw, parsed=payload))
    ended = await handle.outcome()
    check_completed(ended)
    return codec.load(ended.result or codec.NULL)


def _quantile(values: Sequence[float], share: float) -> float:
    return round(sorted(values)[min(int(len(values) * share), len(values) - 1)], 3)


def main() -> None:
    import uvloop

    parser = argparse.ArgumentParser(prog="python -m benchmarks.agents")
    parser.add_argument("--prompts", type=int, default=400)
    parser.add_argument("--sessions", type=int, default=500)
    parser.add_argument("--delay", type=float, default=0.05, help="seconds that the model takes in the crowd (0.05)")
    options = parser.parse_args()
    figures = uvloop.run(measure(prompts=options.prompts, sessions=options.sessions, delay_s=options.delay))
    print(codec.encode(figures).decode())


if __name__ == "__main__":
    main()
