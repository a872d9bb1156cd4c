"""Retry, fork and replay: new runs out of old ones, and old ones against today's code."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pyflue.engine.forking import merge_patch
from pyflue.engine.replaying import Replayed, replay
from pyflue.errors import RunFinished, RunNotFinished, RunNotFound, StepNotFound
from pyflue.journal import Journal, RunStatus, StepStatus
from tests.support import Functions, engine_on, submission

from .durable import Context, asked, ended, error_of, result_of, run_on, run_once, until

done: list[str] = []
is_broken = [True]


@pytest.fixture(autouse=True)
def _fresh() -> None:
    done.clear()
    is_broken[0] = True


async def note(what: str) -> str:
    done.append(what)
    return what


async def deliver() -> str:
    done.append("deliver")
    if is_broken[0]:
        raise ConnectionError("the carrier is closed")
    return "delivered"


async def child(ctx: Context) -> Any:
    return await ctx.step("inner", note, "child")


async def order(ctx: Context) -> Any:
    """One of each kind of call."""
    reserved = await ctx.step("reserve", note, f"reserve {ctx.payload['item']}")
    at = ctx.now()
    decision = await ctx.approve("release", {"item": ctx.payload["item"]})
    paid = await ctx.wait_for("paid")
    await ctx.sleep(0.001)
    called = await ctx.call("child")
    started = await ctx.start("child")
    delivered = await ctx.step("deliver", deliver)
    return [reserved, at.isoformat(), decision.by, paid, called, started, delivered]


functions = Functions(order, child)


async def drive_order(engine: Any, journal: Journal) -> Any:
    handle = await engine.submit(submission(functions.find("order"), {"item": "tea"}))
    await engine.signal(handle.run_id, "paid", "in full")
    await engine.decide((await asked(journal, handle.run_id)).wait.wait_id or "", approved=True, by="ada")
    return await ended(engine, handle.run_id)


async def test_a_retry_takes_over_what_was_done_and_goes_on_where_it_failed(journal: Journal) -> None:
    async with engine_on(journal, functions) as engine:
        failed = await drive_order(engine, journal)
        assert error_of(failed)["message"] == "the carrier is closed"
        before = list(done)
        is_broken[0] = False
        handle = await engine.retry(failed.run_id)
        run = await ended(engine, handle.run_id)
    assert sorted(before) == ["child", "child", "deliver", "reserve tea"]
    assert done[len(before) :] == ["deliver"]
    assert run.retried_from == failed.run_id
    assert result_of(run)[0] == "reserve tea"
    assert result_of(run)[2:5] == ["ada", "in full", "child"]
    assert result_of(run)[-1] == "delivered"
    kept = {step.key: step for step in await journal.steps(run.run_id)}
    assert kept["reserve"].recorded_index < 0 < kept["deliver"].recorded_index


@pytest.mark.parametrize(
    ("step", "again"),
    [
        ("reserve", ["reserve tea", "child", "child", "deliver"]),
        ("release", ["child", "child", "deliver"]),
        ("paid", ["child", "child", "deliver"]),
        ("sleep", ["child", "child", "deliver"]),
        ("child", ["child", "child", "deliver"]),
        ("child#2", ["child", "deliver"]),
        ("deliver", ["deliver"]),
    ],
)
async def test_a_fork_begins_at_any_kind_of_call(journal: Journal, step: str, again: list[str]) -> None:
    is_broken[0] = False
    async with engine_on(journal, functions) as engine:
        first = await drive_order(engine, journal)
        done.clear()
        handle = await engine.fork(first.run_id, from_step=step)
        if step in ("reserve", "release"):
            await engine.decide((await asked(journal, handle.run_id)).wait.wait_id or "", approved=True, by="bob")
        if step in ("reserve", "release", "paid"):
            await engine.signal(handle.run_id, "paid", "again")
        run = await ended(engine, handle.run_id)
        async with asyncio.timeout(5):
            while len(done) < len(again):
                await asyncio.sleep(0)
    assert sorted(done) == sorted(again)
    assert (run.forked_from, run.status) == (first.run_id, RunStatus.COMPLETED)
    is_decided_anew = step in ("reserve", "release")
    assert result_of(run)[2] == ("bob" if is_decided_anew else "ada")
    assert (result_of(run)[1] == result_of(first)[1]) == (step != "reserve")


async def test_a_fork_may_change_the_payload(journal: Journal) -> None:
    async def greet(ctx: Context) -> Any:
        first = await ctx.step("first", note, ctx.payload["name"])
        return [first, await ctx.step("second", note, ctx.payload["name"]), sorted(ctx.payload)]

    own = Functions(greet)
    async with engine_on(journal, own) as engine:
        first = await run_on(engine, own, greet, {"name": "Ada", "old": 1})
        patch = {"name": "Bob", "old": None, "new": 2}
        handle = await engine.fork(first.run_id, from_step="second", payload_patch=patch)
        run = await ended(engine, handle.run_id)
    assert result_of(run) == ["Ada", "Bob", ["name", "new"]]


async def test_forks_of_forks_keep_the_order_of_what_was_recorded(journal: Journal) -> None:
    async def chain(ctx: Context) -> Any:
        return [await ctx.step(name, note, name) for name in ("a", "b", "c", "d")]

    own = Functions(chain)
    async with engine_on(journal, own) as engine:
        run = await run_on(engine, own, chain)
        for step, again in (("d", ["d"]), ("c", ["c", "d"]), ("b", ["b", "c", "d"])):
            done.clear()
            handle = await engine.fork(run.run_id, from_step=step)
            run = await ended(engine, handle.run_id)
            assert done == again
            assert result_of(run) == ["a", "b", "c", "d"]


async def test_what_cannot_be_forked_or_retried_says_why(journal: Journal) -> None:
    is_broken[0] = False
    async with engine_on(journal, functions) as engine:
        handle = await engine.submit(submission(functions.find("order"), {"item": "tea"}))
        await until(journal, handle.run_id, RunStatus.WAITING)
        with pytest.raises(RunNotFinished, match="cannot be forked yet"):
            await engine.fork(handle.run_id, from_step="reserve")
        await engine.signal(handle.run_id, "paid", 1)
        await engine.decide((await asked(journal, handle.run_id)).wait.wait_id or "", approved=True, by="ada")
        await ended(engine, handle.run_id)
        with pytest.raises(StepNotFound, match=r"has no step 'nothing'\. It has: reserve, "):
            await engine.fork(handle.run_id, from_step="nothing")
        with pytest.raises(RunFinished):
            await engine.retry(handle.run_id)
        with pytest.raises(RunNotFound):
            await engine.fork("workflow:order:01KAJ5V3W8Y3N5QZ6E4T9R2M1B", from_step="reserve")


async def test_failed_records_are_never_taken_over(journal: Journal) -> None:
    async def stubborn(ctx: Context) -> Any:
        try:
            await ctx.step("deliver", deliver)
        except ConnectionError:
            await ctx.step("fallback", note, "fallback")
        raise RuntimeError("failed all the same") if is_broken[0] else KeyError("never mind")

    own = Functions(stubborn)
    async with engine_on(journal, own) as engine:
        first = await run_on(engine, own, stubborn)
        run = await ended(engine, (await engine.retry(first.run_id)).run_id)
    # The run lived with the failed step, and failed later: only what failed is done again.
    assert done == ["deliver", "fallback", "deliver"]
    assert {step.key: step.status for step in await journal.steps(run.run_id)} == {
        "deliver": StepStatus.FAILED,
        "fallback": StepStatus.COMPLETED,
    }


async def test_a_replay_says_whether_todays_code_does_what_was_recorded(journal: Journal) -> None:
    is_broken[0] = False
    async with engine_on(journal, functions) as engine:
        run = await drive_order(engine, journal)
    effects = list(done)

    assert await replay(journal, functions, run.run_id) == Replayed(is_same=True, calls=8)
    assert done == effects

    async def order_with_more(ctx: Context) -> Any:
        await ctx.step("reserve", note, "reserve tea")
        await ctx.step("insure", note, "insure")

    async def order_with_less(ctx: Context) -> Any:
        return await ctx.step("reserve", note, "reserve tea")

    async def order_with_another_kind(ctx: Context) -> Any:
        await ctx.wait_for("reserve")

    async def order_with_another_input(ctx: Context) -> Any:
        await ctx.step("reserve", note, "reserve coffee")

    async def order_that_fails(ctx: Context) -> Any:
        raise ValueError("broken now")

    found = {
        changed.__name__: (await replay(journal, _renamed(changed), run.run_id))
        for changed in (order_with_more, order_with_less, order_with_another_kind, order_with_another_input,
                        order_that_fails)
    }  # fmt: skip
    assert done == effects
    assert {name: (result.is_same, result.step) for name, result in found.items()} == {
        "order_with_more": (False, "insure"),
        "order_with_less": (False, "ctx.now"),
        "order_with_another_kind": (False, "reserve"),
        "order_with_another_input": (False, "reserve"),
        "order_that_fails": (False, "reserve"),
    }


async def test_a_run_that_was_stopped_replays_up_to_where_it_was(journal: Journal) -> None:
    async with engine_on(journal, functions) as engine:
        failed = await drive_order(engine, journal)
        handle = await engine.submit(submission(functions.find("order"), {"item": "tea"}))
        await until(journal, handle.run_id, RunStatus.WAITING)
        await engine.cancel(handle.run_id)

    assert await replay(journal, functions, failed.run_id) == Replayed(is_same=True, calls=8)
    assert await replay(journal, functions, handle.run_id) == Replayed(is_same=True, calls=2, step="release")


def _renamed(function: Any) -> Functions:
    own = Functions(function)
    own.workflows["order"] = own.workflows[function.__name__]
    return own


@pytest.mark.parametrize(
    ("value", "patch", "merged"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        (["a", "b"], ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_a_merge_patch_does_what_rfc_7396_says(value: Any, patch: Any, merged: Any) -> None:
    assert merge_patch(value, patch) == merged


async def test_a_run_without_failed_steps_is_retried_with_all_it_has(journal: Journal) -> None:
    async def work(ctx: Context) -> Any:
        first = await ctx.step("first", note, "first")
        if is_broken[0]:
            raise RuntimeError("outside of a step")
        return first

    own = Functions(work)
    first = await run_once(journal, work)
    is_broken[0] = False
    async with engine_on(journal, own) as engine:
        run = await ended(engine, (await engine.retry(first.run_id)).run_id)
    assert (result_of(run), done) == ("first", ["first"])
