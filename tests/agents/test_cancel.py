"""Cancelling runs in the middle of model work: soon over, with nothing left behind."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from pyflue.agents import create_agent, tool
from pyflue.journal import RunStatus
from tests.engine.durable import Context
from tests.promises import promise

from .agent_runs import Asked, Spoken, Stage, calls, dense

SOON_S = 2.0


def processes_with(word: str) -> list[str]:
    """The command lines of running processes that hold a word."""
    found: list[str] = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if word in line:
            found.append(line)
    return found


async def cancelled(stage: Stage, engine: Any, run_id: str) -> None:
    """Cancel a run, which has to be final soon."""
    began = time.monotonic()
    run = await engine.cancel(run_id)
    run = await engine.wait(run_id)
    assert time.monotonic() - began < SOON_S
    assert run.status is RunStatus.CANCELLED
    await dense(stage.journal, run)


@promise("agents.cancel")
async def test_a_cancel_in_the_middle_of_an_answer_closes_the_model(stage: Stage) -> None:
    model = Spoken("Once ", "upon")

    async def work(ctx: Context) -> None:
        await (await (await ctx.init(create_agent(lambda: {"model": model}))).session()).prompt("Go")

    async with stage.engine(work) as engine, asyncio.timeout(10):
        run_id = await stage.submit(engine, work)
        await model.speak()
        await cancelled(stage, engine, run_id)
        assert engine.live.turns(run_id) == ()
    assert model.is_closed
    assert await stage.conversation(run_id) == []


@promise("agents.cancel", "F37")
@pytest.mark.parametrize("how", ["tool", "session", "harness"])
async def test_a_cancel_in_the_middle_of_a_long_command_leaves_no_process(stage: Stage, how: str) -> None:
    seconds = {"tool": "600.125", "session": "600.25", "harness": "600.5"}[how]
    command = f"sleep {seconds} & sleep {seconds}"
    model = Asked([calls(("bash", {"command": command}))])

    async def work(ctx: Context) -> None:
        harness = await ctx.init(model.agent(sandbox="local", policy={"shell": True}))
        session = await harness.session()
        match how:
            case "tool":
                await session.prompt("Go")
            case "session":
                await session.shell(command, timeout_s=1000)
            case _:
                await harness.shell(command, timeout_s=1000)

    async with stage.engine(work) as engine, asyncio.timeout(20):
        run_id = await stage.submit(engine, work)
        while not processes_with(f"sleep {seconds}"):
            await asyncio.sleep(0.01)
        await cancelled(stage, engine, run_id)
        while processes_with(f"sleep {seconds}"):
            await asyncio.sleep(0.01)


@promise("agents.cancel")
async def test_a_cancel_in_the_middle_of_a_virtual_command_is_soon_over(stage: Stage) -> None:
    model = Asked([calls(("bash", {"command": "sleep 600"}))])

    async def work(ctx: Context) -> None:
        await (await (await ctx.init(model.agent())).session()).prompt("Go")

    async with stage.engine(work) as engine, asyncio.timeout(10):
        run_id = await stage.submit(engine, work)
        await stage.until(run_id, "tool_start")
        await cancelled(stage, engine, run_id)


async def test_a_cancel_in_the_middle_of_a_tool_cancels_the_tool(stage: Stage) -> None:
    begun = asyncio.Event()
    ends: list[str] = []

    @tool
    async def wait() -> None:
        """Wait."""
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ends.append("ended")

    model = Asked([calls(("wait", {}))])

    async def work(ctx: Context) -> None:
        await (await (await ctx.init(model.agent(tools=[wait]))).session()).prompt("Go")

    async with stage.engine(work) as engine, asyncio.timeout(10):
        run_id = await stage.submit(engine, work)
        await begun.wait()
        await cancelled(stage, engine, run_id)
    assert ends == ["ended"]
    assert model.count == 1


async def test_a_cancel_while_a_person_is_asked_ends_the_question(stage: Stage) -> None:
    @tool(requires_approval=True)
    def pay() -> None:
        """Pay."""

    model = Asked([calls(("pay", {}))])

    async def work(ctx: Context) -> None:
        await (await (await ctx.init(model.agent(tools=[pay]))).session()).prompt("Go")

    async with stage.engine(work) as engine, asyncio.timeout(10):
        run_id = await stage.submit(engine, work)
        await stage.approval(run_id)
        await cancelled(stage, engine, run_id)
    (wait,) = (await stage.journal.history(run_id)).waits
    assert wait.state == "cancelled"


async def test_a_cancel_of_tasks_side_by_side_closes_all_of_their_models(stage: Stage) -> None:
    spoken = [Spoken("One", "more"), Spoken("Two", "more")]

    async def work(ctx: Context) -> None:
        session = await (await ctx.init(Asked([]).agent())).session()
        await asyncio.gather(*(session.task("Go", model=model) for model in spoken))

    async with stage.engine(work) as engine, asyncio.timeout(10):
        run_id = await stage.submit(engine, work)
        await spoken[0].speak()
        spoken[1].gates[0].set()
        await cancelled(stage, engine, run_id)
    assert spoken[0].is_closed


async def test_an_engine_that_stops_in_the_middle_of_an_answer_hands_the_run_back(stage: Stage) -> None:
    model = Spoken("Once ", "upon")
    agent = create_agent(lambda: {"model": model})

    async def work(ctx: Context) -> Any:
        return (await (await (await ctx.init(agent)).session()).prompt("Go")).text

    async with stage.interrupted(work) as run_id:
        async with asyncio.timeout(5):
            await model.speak()
    assert model.is_closed
    assert not (await stage.journal.run(run_id)).is_final  # type: ignore[union-attr]
    model.speak_all()
    run = await stage.resume(run_id, work)
    assert run.status is RunStatus.COMPLETED


async def test_an_operation_that_its_workflow_cancels_ends_in_the_record_too(stage: Stage) -> None:
    slow = Spoken("Once ", "upon")
    model = Asked(["Fine."])

    async def work(ctx: Context) -> Any:
        session = await (await ctx.init(model.agent())).session()
        working = asyncio.ensure_future(session.task("Go", model=slow))
        await slow.speak()
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
        return (await session.prompt("And now?")).text

    run = await stage.run(work)
    assert run.status is RunStatus.COMPLETED, bytes(run.error or b"")
    assert slow.is_closed
    assert (await stage.types(run.run_id))[1:6] == [
        "operation_start", "task_start", "turn_request", "task_end", "operation",
    ]  # fmt: skip
    (task_end,) = await stage.told(run.run_id, "task_end")
    first, second = await stage.told(run.run_id, "operation")
    assert [told["error"]["type"] for told in (task_end, first)] == ["aborted", "aborted"]
    assert second["is_error"] is False
