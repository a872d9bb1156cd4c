"""What the harness costs beside a model: per turn, per tool call, and with 500 sessions at once on a model of 50 ms.

The model is scripted, the journal is the SQLite file with an fsync per commit. Run in a process of its own, with its
memory settled as `pyflue serve` does it.

No session ever pauses: each prompts again as soon as it has its answer. Of the *crowd*, whose sessions come one after
the other over two seconds, the prompts count that were made while all of them were open. The *herd* begins in the same
instant, so that its answers keep arriving together, and all of its prompts count, the first ones as well.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
from collections.abc import Sequence
from typing import Any, TypeAlias

from pyflue import codec
from pyflue.engine import Engine, Submission, Workflow
from pyflue.main import open_project
from pyflue.memory import settle_memory

from .in_process import check_completed
from .servers import fresh_project

_WORKFLOW = "agent_turns"
_TOOL_CALLS = 10
_PROMPTS_OF_MANY = 40
#: When each prompt began, and how many milliseconds it took besides the model's time.
_Prompts: TypeAlias = Sequence[tuple[float, float]]


async def measure(
    *, prompts: int, sessions: int, delay_s: float, spread_s: float, writer_process: bool
) -> dict[str, float]:
    """The figures `agents.…`, in milliseconds; `agents_writer_process.…` if the journal's writer has a process."""
    prefix = "agents_writer_process" if writer_process else "agents"
    with fresh_project() as folder:
        project = open_project(folder, options={"journal.writer_process": writer_process}, serves=True)
        try:
            async with project.engine(adopts=True) as engine:
                workflow = project.catalog.find(_WORKFLOW)
                await _prompts(engine, workflow, prompts=10, delay_s=0.0)  # what is imported at first use
                settle_memory()
                alone = _took(await _prompts(engine, workflow, prompts=prompts, delay_s=0.0))
                with_tools = _took(
                    await _prompts(engine, workflow, prompts=prompts // 4, delay_s=0.0, tool_calls=_TOOL_CALLS)
                )
                many = functools.partial(_many, engine, workflow, sessions, prompts=_PROMPTS_OF_MANY, delay_s=delay_s)
                crowd = _while_all_are_open(await many(spread_s=spread_s))
                herd = [ms for one in await many(spread_s=0.0) for ms in _took(one)]
        finally:
            await project.journal.close()
    per_turn = _quantile(alone, 0.5)
    return {
        f"{prefix}.turn.p50_ms": per_turn,
        f"{prefix}.turn.p99_ms": _quantile(alone, 0.99),
        f"{prefix}.tool_call.p50_ms": (_quantile(with_tools, 0.5) - 2 * per_turn) / _TOOL_CALLS,
        f"{prefix}.crowd.sessions": sessions,
        f"{prefix}.crowd.p50_ms": _quantile(crowd, 0.5),
        f"{prefix}.crowd.p99_ms": _quantile(crowd, 0.99),
        f"{prefix}.herd.p50_ms": _quantile(herd, 0.5),
        f"{prefix}.herd.p99_ms": _quantile(herd, 0.99),
    }


async def _many(
    engine: Engine, workflow: Workflow, sessions: int, *, prompts: int, delay_s: float, spread_s: float
) -> Sequence[_Prompts]:
    """The prompts of many sessions, which begin one after the other over so many seconds."""

    async def one(number: int) -> _Prompts:
        await asyncio.sleep(spread_s * number / sessions)
        return await _prompts(engine, workflow, prompts=prompts, delay_s=delay_s)

    return await asyncio.gather(*(one(number) for number in range(sessions)))


def _while_all_are_open(many: Sequence[_Prompts]) -> Sequence[float]:
    """How long those prompts took that began when every session had begun and none had made its last prompt."""
    first = max(one[0][0] for one in many)
    last = min(one[-1][0] for one in many)
    if last <= first:
        raise SystemExit("The first sessions had ended before the last one came: more prompts, or a smaller --spread.")
    return [ms for one in many for began, ms in one if first <= began <= last]


def _took(prompts: _Prompts) -> Sequence[float]:
    return [ms for _, ms in prompts]


async def _prompts(
    engine: Engine, workflow: Workflow, *, prompts: int, delay_s: float, tool_calls: int = 0
) -> _Prompts:
    """The prompts of one run."""
    payload: dict[str, Any] = {"prompts": prompts, "delay_s": delay_s, "tool_calls": tool_calls}
    raw = codec.encode_value(payload, "The payload")
    handle = await engine.submit(Submission(workflow=workflow, payload=raw, parsed=payload))
    ended = await handle.outcome()
    check_completed(ended)
    told: list[float] = codec.load(ended.result or codec.NULL)
    return list(zip(told[::2], told[1::2], strict=True))


def _quantile(values: Sequence[float], share: float) -> float:
    return round(sorted(values)[min(int(len(values) * share), len(values) - 1)], 3)


def main() -> None:
    import uvloop

    parser = argparse.ArgumentParser(prog="python -m benchmarks.agents")
    parser.add_argument("--prompts", type=int, default=400)
    parser.add_argument("--sessions", type=int, default=500)
    parser.add_argument("--delay", type=float, default=0.05, help="seconds that the model takes in the crowd (0.05)")
    parser.add_argument("--spread", type=float, default=2.0, help="seconds over which the crowd comes (2)")
    parser.add_argument("--writer-process", action="store_true", help="with journal.writer_process")
    options = parser.parse_args()
    figures = uvloop.run(
        measure(
            prompts=options.prompts,
            sessions=options.sessions,
            delay_s=options.delay,
            spread_s=options.spread,
            writer_process=options.writer_process,
        )
    )
    print(codec.encode(figures).decode())


if __name__ == "__main__":
    main()
