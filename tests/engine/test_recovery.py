"""What becomes of runs that were interrupted while they were running, as their workflow says."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from pyflue.engine import Recovery
from pyflue.journal import Journal, RunFilter, RunStatus
from tests.support import Functions, FunctionWorkflow, engine_on

from .durable import Context, data_of, ended, error_of, interrupted, result_of


@pytest.mark.parametrize("recovery", list(Recovery))
async def test_an_interrupted_run_is_resumed_begun_anew_or_failed(journal: Journal, recovery: Recovery) -> None:
    done: list[str] = []
    gate = asyncio.Event()

    async def note(what: str) -> str:
        done.append(what)
        return what

    async def child(ctx: Context) -> Any:
        await ctx.wait_for("never")

    async def work(ctx: Context) -> Any:
        await ctx.step("first", note, "first")
        await ctx.start("child")
        await ctx.step("held", gate.wait)
        return await ctx.step("last", note, "last")

    functions = Functions(work, child)
    workflow = functions.workflows["work"]
    assert isinstance(workflow, FunctionWorkflow)
    functions.workflows["work"] = replace(workflow, recovery=recovery)
    async with interrupted(journal, functions, "work") as run_id:
        async with asyncio.timeout(5):
            while not [d for d in await data_of(journal, run_id, "step_start") if d["step"] == "held"]:
                await asyncio.sleep(0)
    gate.set()
    async with engine_on(journal, functions) as engine:
        run = await ended(engine, run_id)
        children = (await journal.runs(RunFilter(parent_run_id=run_id))).runs
        match recovery:
            case Recovery.RESUME:
                assert (result_of(run), done, len(children)) == ("last", ["first", "last"], 1)
            case Recovery.RESTART:
                assert (result_of(run), done, len(children)) == ("last", ["first", "first", "last"], 2)
                assert (await ended(engine, children[1].run_id)).status is RunStatus.CANCELLED
            case Recovery.FAIL:
                assert (error_of(run)["type"], done) == ("interrupted", ["first"])
        for below in children:
            if not (await journal.run(below.run_id)).is_final:  # type: ignore[union-attr]
                await engine.cancel(below.run_id)
