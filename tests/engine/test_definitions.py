"""Definitions that come with a request."""

from __future__ import annotations

from typing import Any

import pytest

from pyflue import codec
from pyflue.engine import Submission, definition_of
from pyflue.engine.replaying import replay
from pyflue.errors import IdempotencyConflict, TooLarge
from pyflue.journal import Journal
from pyflue.settings import Limits
from tests.support import Functions, engine_on, raw, submission

from .durable import Context, asked, ended, error_of, result_of

GRAPH = {"nodes": [{"id": "start"}], "edges": []}
#: What is too large for a row.
LARGE = {"nodes": ["x" * 5000]}


async def inline(ctx: Context) -> Any:
    """Does what it was sent."""
    definition = await definition_of(ctx)
    said = await ctx.step("say", say, ctx.payload)
    return [said, definition, await definition_of(ctx)]


async def patient(ctx: Context) -> Any:
    decision = await ctx.approve("go on")
    return [decision.approved, await definition_of(ctx)]


async def broken(ctx: Context) -> Any:
    await ctx.step("say", say, ctx.payload)
    raise ConnectionError(str(await definition_of(ctx)))


async def say(what: Any) -> Any:
    return what


functions = Functions(inline, patient, broken)


def asking(name: str, payload: Any = None, definition: Any = GRAPH, **fields: Any) -> Submission:
    return submission(functions.find(name), payload, definition=raw(definition), **fields)


@pytest.mark.parametrize("definition", [GRAPH, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("eager", [True, False])
async def test_a_run_reads_the_definition_that_came_with_it(journal: Journal, definition: Any, eager: bool) -> None:
    async with engine_on(journal, functions) as engine:
        handle = await engine.submit(asking("inline", 1, definition), eager=eager)
        await handle.accepted()
        run = await ended(engine, handle.run_id)
    assert result_of(run) == [1, definition, definition]
    assert codec.load(run.payload or codec.NULL) == 1


async def test_a_run_without_a_definition_reads_none(journal: Journal) -> None:
    async with engine_on(journal, functions) as engine:
        handle = await engine.submit(submission(functions.find("inline"), 1), eager=True)
        await handle.accepted()
        assert result_of(await ended(engine, handle.run_id)) == [1, None, None]


@pytest.mark.parametrize("definition", [GRAPH, LARGE], ids=["small", "large"])
async def test_a_run_reads_its_definition_in_another_engine_and_after_a_wait(journal: Journal, definition: Any) -> None:
    async with engine_on(journal, functions) as engine:
        run_id = (await engine.submit(asking("patient", definition=definition))).run_id
        approval = await asked(journal, run_id)
    async with engine_on(journal, functions) as engine:
        await engine.decide(approval.wait.wait_id or "", approved=True, by="Ada")
        assert result_of(await ended(engine, run_id)) == [True, definition]


async def test_a_queued_run_reads_its_definition(journal: Journal) -> None:
    async with engine_on(journal, functions, adopts=True, limits=Limits(running=1)) as engine:
        handles = [await engine.submit(asking("inline", number)) for number in range(4)]
        results = [result_of(await ended(engine, handle.run_id)) for handle in handles]
    assert results == [[number, GRAPH, GRAPH] for number in range(4)]


@pytest.mark.parametrize("definition", [GRAPH, LARGE], ids=["small", "large"])
async def test_retries_and_forks_take_the_definition_over_and_outlive_the_run(
    journal: Journal, definition: Any
) -> None:
    async with engine_on(journal, functions) as engine:
        first = await ended(engine, (await engine.submit(asking("broken", 1, definition))).run_id)
        retried = await engine.retry(first.run_id)
        await ended(engine, retried.run_id)
        await journal.delete(first.run_id)
        forked = await engine.fork(retried.run_id, from_step="say", payload_patch=2)
        last = await ended(engine, forked.run_id)
    assert error_of(last)["message"] == str(definition)
    assert codec.load(last.payload or codec.NULL) == 2
    assert await journal.definition(first.run_id) is None
    assert await journal.definition(retried.run_id) == await journal.definition(last.run_id) == raw(definition)


async def test_a_replay_reads_the_definition(journal: Journal) -> None:
    async with engine_on(journal, functions) as engine:
        handle = await engine.submit(asking("inline", 1))
        await ended(engine, handle.run_id)
    assert (await replay(journal, functions, handle.run_id)).is_same


async def test_another_definition_is_another_request(journal: Journal) -> None:
    async with engine_on(journal, functions) as engine:
        first = await engine.submit(asking("inline", 1, {"a": 1, "b": 2}, idempotency_key="k"))
        same = await engine.submit(asking("inline", 1, {"b": 2, "a": 1}, idempotency_key="k"))
        with pytest.raises(IdempotencyConflict):
            await engine.submit(asking("inline", 1, {"a": 1, "b": 3}, idempotency_key="k"))
        with pytest.raises(IdempotencyConflict):
            await engine.submit(submission(functions.find("inline"), 1, idempotency_key="k"))
    assert (same.run_id, same.is_repeat) == (first.run_id, True)


async def test_a_definition_is_as_large_as_a_payload_may_be(journal: Journal) -> None:
    async with engine_on(journal, functions, limits=Limits(payload_bytes=1000)) as engine:
        with pytest.raises(TooLarge, match=r"The definition .*limits\.payload_bytes"):
            await engine.submit(asking("inline", 1, LARGE))
