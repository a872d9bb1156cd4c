"""What a replay must not change: values given to steps, lines that were said, and what a run is shown to wait for."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from pyflue import codec
from pyflue.engine import EmbeddedEngine, FlueContext
from pyflue.errors import WaitTimedOut
from pyflue.journal import Journal, RunStatus
from tests.support import Functions, engine_on, journal_at, submission


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    journal = journal_at(tmp_path)
    yield journal
    await journal.close()


async def until_waiting_at(journal: Journal, run_id: str, key: str) -> None:
    """Return when a run waits, for this and nothing else."""
    with journal.watch(run_id) as bell:
        while True:
            run = await journal.run(run_id)
            keys = [wait.key for wait in await journal.open_waits(run_id)]
            if run is not None and run.status is RunStatus.WAITING and keys == [key]:
                return
            await bell.wait()


async def resume(journal: Journal, functions: Functions, name: str) -> tuple[EmbeddedEngine, str]:
    """Let a run begin, stop its engine while it waits for `go`, and go on in another one to its end."""
    async with engine_on(journal, functions) as engine, asyncio.timeout(10):
        handle = await engine.submit(submission(functions.find(name), {}))
        await until_waiting_at(journal, handle.run_id, "go")
    async with engine_on(journal, functions) as engine, asyncio.timeout(10):
        await engine.signal(handle.run_id, "go", None)
        assert (await engine.wait(handle.run_id)).status is RunStatus.COMPLETED
        return engine, handle.run_id


@pytest.mark.parametrize("kind", ["uuid", "random", "now"])
async def test_a_value_is_on_disk_before_a_step_shows_it_to_the_outside_world(journal: Journal, kind: str) -> None:
    """Or a step that is killed would be done again with another idempotency key."""

    async def keyed(ctx: FlueContext[Any]) -> list[Any]:
        async def branch(number: int) -> list[Any]:
            value = {"uuid": ctx.uuid, "random": ctx.random, "now": lambda: ctx.now().isoformat()}[kind]()

            async def charge(value: Any) -> bool:
                history = await journal.history(ctx.id)
                on_disk = [codec.load(step.value) for step in history.steps if step.kind == kind and step.value]
                return str(value)[:20] in [str(known)[:20] for known in on_disk]

            return [await ctx.step("charge", charge, value) for _ in range(2)]

        return await asyncio.gather(*[branch(number) for number in range(20)])

    functions = Functions(keyed)
    async with engine_on(journal, functions) as engine, asyncio.timeout(10):
        outcome = await (await engine.submit(submission(functions.find("keyed"), {}))).outcome()
    assert outcome.result is not None
    assert codec.load(outcome.result) == [[True, True]] * 20


async def test_a_value_of_a_blocking_workflow_is_on_disk_before_its_steps_too(journal: Journal) -> None:
    async def keyed(ctx: FlueContext[Any]) -> Any:
        async def charge(key: str) -> bool:
            history = await journal.history(ctx.id)
            return key in [codec.load(step.value) for step in history.steps if step.value is not None]

        def run(blocking: Any) -> bool:
            return blocking.step("charge", charge, blocking.uuid())

        return await ctx.in_thread(run)

    functions = Functions(keyed)
    async with engine_on(journal, functions) as engine, asyncio.timeout(10):
        outcome = await (await engine.submit(submission(functions.find("keyed"), {}))).outcome()
    assert outcome.result is not None
    assert codec.load(outcome.result) is True


async def test_a_line_of_a_new_step_is_not_taken_for_the_same_line_of_a_recorded_one(journal: Journal) -> None:
    async def chatty(ctx: FlueContext[Any]) -> None:
        async def work() -> None:
            ctx.log.info("working")
            ctx.progress(0.5)
            ctx.emit("mine", None)

        await ctx.step("one", work)
        ctx.log.info("between")
        await ctx.wait_for("go")
        await ctx.step("two", work)
        ctx.log.info("working")

    functions = Functions(chatty)
    _, run_id = await resume(journal, functions, "chatty")
    said = Counter(
        (event.type, event.step) for event in await journal.events(run_id, types=["log", "progress", "mine"])
    )
    assert said == Counter(
        {
            ("log", "one/attempt-1"): 1,
            ("progress", "one/attempt-1"): 1,
            ("mine", "one/attempt-1"): 1,
            ("log", "two/attempt-1"): 1,
            ("progress", "two/attempt-1"): 1,
            ("mine", "two/attempt-1"): 1,
            ("log", None): 2,
        }
    )


async def test_a_run_that_gave_a_wait_up_by_itself_is_waiting_again_at_the_next_one(journal: Journal) -> None:
    async def impatient(ctx: FlueContext[Any]) -> str:
        for _ in range(2):
            try:
                async with asyncio.timeout(0.05):
                    await ctx.wait_for("nobody")
            except TimeoutError:
                await ctx.step("shrug", asyncio.sleep, 0)
        return await ctx.wait_for("go")

    functions = Functions(impatient)
    async with engine_on(journal, functions) as engine, asyncio.timeout(10):
        handle = await engine.submit(submission(functions.find("impatient"), {}))
        await until_waiting_at(journal, handle.run_id, "go")
        assert engine.stats()["running"] == 0
        await engine.signal(handle.run_id, "go", "gone")
        outcome = await handle.outcome()
        assert outcome.result is not None
        assert codec.load(outcome.result) == "gone"
        assert engine.stats()["running"] == 0


async def test_a_child_that_its_parent_gives_up_is_cancelled_whatever_becomes_of_the_parents_engine(
    journal: Journal,
) -> None:
    async def slow(ctx: FlueContext[Any]) -> None:
        await ctx.wait_for("nobody")

    async def parent(ctx: FlueContext[Any]) -> str:
        with contextlib.suppress(WaitTimedOut):
            await ctx.call("slow", timeout_s=0.05)
        await ctx.wait_for("go")
        return "done"

    functions = Functions(parent, slow)
    async with engine_on(journal, functions) as engine, asyncio.timeout(10):
        handle = await engine.submit(submission(functions.find("parent"), {}))
        await until_waiting_at(journal, handle.run_id, "slow")
        (wait,) = await journal.open_waits(handle.run_id)
        child = wait.name
    # Both are parked and nobody's now: the time comes while no engine has the parent in memory.
    assert await journal.expire(handle.run_id, "slow", fence=None) is not None
    run = await journal.run(child)
    assert run is not None
    assert run.status is RunStatus.CANCELLED
