"""`ctx.step`: done once, recorded, tried again, and the same when the run is replayed."""

from __future__ import annotations

import asyncio
import enum
import functools
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import BaseModel

from pyflue import RetryPolicy, codec
from pyflue.errors import PyFlueError, StepFailed
from pyflue.journal import Journal, RunStatus, StepStatus
from tests.support import Functions, engine_on, submission

from .durable import (
    Context,
    data_of,
    ended,
    error_of,
    interrupted,
    result_of,
    resume,
    run_once,
    types_of,
    until,
)


async def double(number: int) -> int:
    return number * 2


def halve(number: int) -> float:
    return number / 2


class Declined(Exception):
    """An error as authors write them: with arguments of its own."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(code, why)
        self.code = code


class Unmakeable(Exception):
    """An error that cannot be made of its arguments."""

    def __new__(cls, *, secret: object) -> Unmakeable:
        return super().__new__(cls)

    def __init__(self, *, secret: object) -> None:
        super().__init__("nobody can make me again")


async def test_async_and_sync_functions_are_steps_with_events_and_records(journal: Journal) -> None:
    threads: list[str] = []

    def where() -> str:
        threads.append(threading.current_thread().name)
        return "here"

    async def work(ctx: Context) -> Any:
        doubled = await ctx.step("double", double, ctx.payload)
        return [doubled, await ctx.step("halve", halve, number=doubled), await ctx.step("where", where)]

    run = await run_once(journal, work, payload=4)

    assert result_of(run) == [8, 4.0, "here"]
    assert threads != [threading.current_thread().name]
    assert await types_of(journal, run.run_id) == [
        "run_start", "step_start", "step_end", "step_start", "step_end", "step_start", "step_end", "run_end",
    ]  # fmt: skip
    first, *_ = await data_of(journal, run.run_id, "step_start")
    assert first == {"step": "double", "name": "double", "kind": "step", "attempt": 1}
    first, *_ = await data_of(journal, run.run_id, "step_end")
    assert first.pop("duration_ms") >= 0
    assert first == {"step": "double", "name": "double", "kind": "step", "status": "completed", "attempts": 1}
    recorded = [(step.key, step.status, bytes(step.value or b"")) for step in await journal.steps(run.run_id)]
    assert recorded == [
        ("double", StepStatus.COMPLETED, b"8"),
        ("halve", StepStatus.COMPLETED, b"4.0"),
        ("where", StepStatus.COMPLETED, b'"here"'),
    ]


async def test_the_first_step_does_not_wait_until_the_writer_looks_by_itself(
    monkeypatch: pytest.MonkeyPatch, journal: Journal
) -> None:
    async def work(ctx: Context) -> Any:
        return await ctx.step("double", double, 4)

    monkeypatch.setattr("pyflue.journal.writer._POLL_S", 60.0)
    functions = Functions(work)
    async with asyncio.timeout(10), engine_on(journal, functions) as engine:
        for _ in range(2):  # the first time it may be about to look in any case
            handle = await engine.submit(submission(functions.find("work")), eager=True)
            assert codec.load((await handle.outcome()).result or codec.NULL) == 8


async def test_a_step_that_finished_is_not_done_again_after_a_restart(journal: Journal) -> None:
    done: list[str] = []
    gate = asyncio.Event()

    async def note(what: str) -> str:
        done.append(what)
        return what

    async def work(ctx: Context) -> Any:
        first = await ctx.step("first", note, "one")
        await ctx.step("held", gate.wait)
        return [first, await ctx.step("last", note, "three"), ctx.attempt]

    functions = Functions(work)
    async with interrupted(journal, functions, "work") as run_id:
        async with asyncio.timeout(5):
            while len(await data_of(journal, run_id, "step_start")) < 2:
                await asyncio.sleep(0)
    gate.set()
    run = await resume(journal, functions, run_id)

    assert result_of(run) == ["one", "three", 2]
    assert done == ["one", "three"]


async def test_a_value_is_what_json_gives_back_the_first_time_too(journal: Journal) -> None:
    class Colour(enum.StrEnum):
        RED = "red"

    values: dict[str, Any] = {"pair": (1, 2), "colour": Colour.RED, "nested": {"deep": (3,)}}
    kept: list[Any] = []

    async def make() -> dict[str, Any]:
        kept.append(values)
        return values

    async def work(ctx: Context) -> Any:
        value = await ctx.step("make", make)
        assert value is not kept[0]
        return [type(value["pair"]).__name__, type(value["colour"]).__name__, value]

    run = await run_once(journal, work)

    assert result_of(run) == ["list", "str", {"pair": [1, 2], "colour": "red", "nested": {"deep": [3]}}]


class Order(BaseModel):
    number: int
    lines: list[str] = []


@dataclass
class Receipt:
    order: Order
    total: float


def make_receipt() -> Receipt:
    return Receipt(Order(number=7, lines=["tea"]), 2.5)


def make_pair() -> tuple[int, str]:
    return (1, "one")


def make_wrong() -> Order:
    return {"number": "seven"}  # type: ignore[return-value]


async def test_typed_results_are_made_again_from_the_annotation(journal: Journal) -> None:
    seen: list[Any] = []
    gate = asyncio.Event()

    async def work(ctx: Context) -> Any:
        seen.append((await ctx.step("receipt", make_receipt), await ctx.step("pair", make_pair)))
        await ctx.step("held", gate.wait)
        return seen[-1][0].order.number

    functions = Functions(work)
    async with interrupted(journal, functions, "work") as run_id:
        async with asyncio.timeout(5):
            while len(await data_of(journal, run_id, "step_start")) < 3:
                await asyncio.sleep(0)
    gate.set()
    run = await resume(journal, functions, run_id)

    assert result_of(run) == 7
    assert seen == [(Receipt(Order(number=7, lines=["tea"]), 2.5), (1, "one"))] * 2


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"when": object()}, "a value of type object at $.when"),
        ([1, float("nan")], "the number nan at $[1]"),
        ({1: "one"}, "a dict key of type int at $"),
    ],
)
async def test_a_value_json_cannot_hold_fails_the_step_at_once_and_names_its_path(
    journal: Journal, value: Any, problem: str
) -> None:
    tries: list[int] = []

    async def make() -> Any:
        tries.append(1)
        return value

    async def work(ctx: Context) -> Any:
        return await ctx.step("make", make, retry=5)

    error = error_of(await run_once(journal, work))

    assert (error["type"], len(tries)) == ("not_serializable", 1)
    assert error["message"].startswith(f"The result of step 'make' cannot be stored: {problem}")


async def test_a_value_that_does_not_fit_the_annotation_is_refused_with_the_step_named(journal: Journal) -> None:
    async def work(ctx: Context) -> Any:
        return await ctx.step("make", make_wrong)

    error = error_of(await run_once(journal, work))

    assert error["type"] == "result_invalid"
    assert "result of step 'make'" in error["message"]
    assert error["details"][0]["path"] == "$.number"


async def test_a_step_is_tried_again_as_its_policy_says_and_each_failure_is_an_event(journal: Journal) -> None:
    tries: list[int] = []

    async def flaky() -> int:
        tries.append(1)
        if len(tries) < 3:
            raise ConnectionError("not yet")
        return len(tries)

    async def work(ctx: Context) -> Any:
        return await ctx.step("flaky", flaky, retry=RetryPolicy(max_attempts=5, delay_s=0.001, jitter=0))

    run = await run_once(journal, work)

    assert result_of(run) == 3
    assert await types_of(journal, run.run_id) == [
        "run_start", "step_start", "step_retry", "step_start", "step_retry", "step_start", "step_end", "run_end",
    ]  # fmt: skip
    first, second = await data_of(journal, run.run_id, "step_retry")
    assert first == {
        "step": "flaky",
        "name": "flaky",
        "attempt": 1,
        "error": {"type": "exception", "message": "not yet", "exception": "ConnectionError"},
        "delay_s": 0.001,
    }
    assert (second["attempt"], second["delay_s"]) == (2, 0.002)
    (step,) = await journal.steps(run.run_id)
    assert (step.status, step.attempts) == (StepStatus.COMPLETED, 3)


async def test_what_is_given_up_on_is_not_tried_again(journal: Journal) -> None:
    tries: list[str] = []

    def fail(error: str) -> None:
        tries.append(error)
        raise {"declined": Declined(3, "no money"), "value": ValueError("odd")}[error]

    async def work(ctx: Context) -> Any:
        policy = RetryPolicy(delay_s=0, retry_on=(Declined, ValueError), give_up_on=(Declined,))
        for name in ("declined", "value"):
            with pytest.raises((Declined, ValueError)):
                await ctx.step(name, fail, name, retry=policy)

    run = await run_once(journal, work)

    assert run.status is RunStatus.COMPLETED
    assert tries == ["declined", "value", "value", "value"]


async def test_failed_attempts_count_across_restarts_and_the_pause_goes_on(journal: Journal) -> None:
    tries: list[int] = []

    async def flaky() -> int:
        tries.append(1)
        raise ConnectionError(f"attempt {len(tries)}")

    async def work(ctx: Context) -> Any:
        return await ctx.step("flaky", flaky, retry=RetryPolicy(max_attempts=2, delay_s=1.5, jitter=0))

    functions = Functions(work)
    async with interrupted(journal, functions, "work") as run_id:
        await until(journal, run_id, RunStatus.WAITING)
    run = await resume(journal, functions, run_id)

    assert error_of(run)["message"] == "attempt 2"
    assert len(tries) == 2
    (wait,) = (await journal.history(run_id)).waits
    assert (wait.key, wait.kind) == ("flaky/pause-1", "timer")


async def test_an_error_is_raised_again_as_its_own_type_when_the_run_is_replayed(journal: Journal) -> None:
    tries: list[int] = []
    seen: list[Any] = []
    gate = asyncio.Event()

    def fail() -> None:
        tries.append(1)
        raise Declined(402, "no money")

    def author_error() -> None:
        raise PyFlueError("The quota is used up.", type="quota", status=429, details={"limit": 3})

    async def work(ctx: Context) -> Any:
        try:
            await ctx.step("charge", fail)
        except Declined as error:
            seen.append((error.code, error.args))
        try:
            await ctx.step("quota", author_error)
        except PyFlueError as error:
            seen.append((error.type, error.status, error.details, str(error)))
        await ctx.step("held", gate.wait)

    functions = Functions(work)
    async with interrupted(journal, functions, "work") as run_id:
        async with asyncio.timeout(5):
            while len(await data_of(journal, run_id, "step_start")) < 3:
                await asyncio.sleep(0)
    gate.set()
    await resume(journal, functions, run_id)

    once = [(402, (402, "no money")), ("quota", 429, {"limit": 3}, "The quota is used up.")]
    assert seen == once * 2
    assert len(tries) == 1


async def test_an_error_that_cannot_be_made_again_comes_as_step_failed(journal: Journal) -> None:
    seen: list[str] = []
    gate = asyncio.Event()

    def fail() -> None:
        raise Unmakeable(secret=1)

    async def work(ctx: Context) -> Any:
        try:
            await ctx.step("fail", fail)
        except (Unmakeable, StepFailed) as error:
            seen.append(f"{type(error).__name__}: {error}")
        await ctx.step("held", gate.wait)

    functions = Functions(work)
    async with interrupted(journal, functions, "work") as run_id:
        async with asyncio.timeout(5):
            while len(await data_of(journal, run_id, "step_start")) < 2:
                await asyncio.sleep(0)
    gate.set()
    await resume(journal, functions, run_id)

    assert seen[0] == "Unmakeable: nobody can make me again"
    assert seen[1].startswith("StepFailed: Step 'fail' failed: ")
    assert seen[1].endswith("Unmakeable: nobody can make me again")


async def test_a_step_that_takes_too_long_is_ended_and_may_be_tried_again(journal: Journal) -> None:
    tries: list[int] = []

    async def slow() -> str:
        tries.append(1)
        if len(tries) == 1:
            await asyncio.Event().wait()
        return "quick"

    async def work(ctx: Context) -> Any:
        policy = RetryPolicy(max_attempts=2, delay_s=0)
        return await ctx.step("slow", slow, timeout_s=0.02, retry=policy)

    run = await run_once(journal, work)

    assert result_of(run) == "quick"
    (retry,) = await data_of(journal, run.run_id, "step_retry")
    assert retry["error"]["type"] == "step_timed_out"


async def test_a_timeout_of_the_functions_own_is_not_ours(journal: Journal) -> None:
    async def own() -> None:
        raise TimeoutError("the function's own")

    async def work(ctx: Context) -> Any:
        await ctx.step("own", own, timeout_s=5)

    assert error_of(await run_once(journal, work))["message"] == "the function's own"


async def test_the_step_id_is_the_same_in_each_attempt_and_differs_between_steps(journal: Journal) -> None:
    ids: list[str] = []

    async def work(ctx: Context) -> Any:
        async def note() -> str:
            ids.append(ctx.step_id)
            if len(ids) == 1:
                raise ValueError("once more")
            return ctx.step_id

        policy = RetryPolicy(delay_s=0)
        return [await ctx.step("pay", note, retry=policy), await ctx.step("zahlen für Öl", note)]

    run = await run_once(journal, work)

    first, second = result_of(run)
    assert ids == [first, first, second]
    assert first == f"{run.run_id}/pay"
    assert second.startswith(f"{run.run_id}/")
    assert second.isascii()


async def test_the_same_name_is_counted_and_a_key_takes_the_place_of_counting(journal: Journal) -> None:
    async def work(ctx: Context) -> Any:
        for number in range(3):
            await ctx.step("charge", double, number)
        await ctx.step("charge", double, 9, key="order/7")
        await ctx.step("a/b#c@(d", double, 1)

    run = await run_once(journal, work)

    keys = [step.key for step in await journal.steps(run.run_id)]
    assert keys == ["charge", "charge#2", "charge#3", "@order%2F7", "a%2Fb%23c@(d"]


async def test_a_key_that_is_used_twice_fails_with_a_hint(journal: Journal) -> None:
    async def work(ctx: Context) -> Any:
        await ctx.step("charge", double, 1, key="x")
        await ctx.step("charge", double, 1, key="x")

    error = error_of(await run_once(journal, work))

    assert error["type"] == "call_misplaced"
    assert "Give each durable call a key of its own" in error["message"]


def generate() -> Iterator[int]:
    yield 1


async def generate_async() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize("function", [generate, generate_async, 7, None])
async def test_what_cannot_be_a_step_is_refused_where_it_is_called(journal: Journal, function: Any) -> None:
    async def work(ctx: Context) -> Any:
        await ctx.step("odd", function)

    error = error_of(await run_once(journal, work))

    assert error["exception"] == "TypeError"
    assert error["message"].startswith("ctx.step('odd', …): a ")


@pytest.mark.parametrize("name", ["", "x" * 129, "line\nbreak", "\ud800", 7])
async def test_a_name_that_cannot_be_one_is_refused(journal: Journal, name: Any) -> None:
    async def work(ctx: Context) -> Any:
        await ctx.step(name, double, 1)

    error = error_of(await run_once(journal, work))

    assert error["exception"] == "ValueError"
    assert "cannot name a durable call" in error["message"]


class Callables:
    async def method(self, number: int) -> int:
        return number + 1

    def __call__(self, number: int) -> int:
        return number + 2


async def test_methods_partials_lambdas_and_objects_can_be_steps(journal: Journal) -> None:
    async def work(ctx: Context) -> Any:
        one = Callables()
        return [
            await ctx.step("method", one.method, 1),
            await ctx.step("object", one, 1),
            await ctx.step("partial", functools.partial(double, 5)),
            await ctx.step("lambda", lambda: 9),
            await ctx.step("lambda of async", lambda: double(6)),
        ]

    assert result_of(await run_once(journal, work)) == [2, 3, 10, 9, 12]


async def test_steps_inside_of_steps_belong_to_the_attempt(journal: Journal) -> None:
    tries: list[int] = []
    inner: list[int] = []

    async def work(ctx: Context) -> Any:
        async def note(number: int) -> int:
            inner.append(number)
            return number

        async def outer() -> int:
            tries.append(1)
            value = await ctx.step("inner", note, len(tries))
            if len(tries) == 1:
                raise ValueError("once more")
            return value

        return await ctx.step("outer", outer, retry=RetryPolicy(delay_s=0))

    run = await run_once(journal, work)

    assert result_of(run) == 2
    keys = [step.key for step in await journal.steps(run.run_id)]
    assert keys == ["outer/attempt-1/inner", "outer/attempt-2/inner", "outer"]


async def test_a_durable_call_from_outside_of_its_run_is_refused(journal: Journal) -> None:
    contexts: list[Context] = []

    async def lend(ctx: Context) -> Any:
        contexts.append(ctx)
        await ctx.wait_for("end")

    async def borrow(ctx: Context) -> Any:
        await contexts[0].step("stolen", double, 1)

    functions = Functions(lend, borrow)
    async with engine_on(journal, functions) as engine:
        lender = await engine.submit(submission(functions.find("lend")))
        await until(journal, lender.run_id, RunStatus.WAITING)
        borrower = await engine.submit(submission(functions.find("borrow")))
        error = error_of(await ended(engine, borrower.run_id))
        with pytest.raises(PyFlueError, match="was called from outside of run"):
            contexts[0].step("outside", double, 1)
        await engine.signal(lender.run_id, "end", None)
        assert (await ended(engine, lender.run_id)).status is RunStatus.COMPLETED
    assert error["type"] == "call_misplaced"


async def test_a_subtask_that_calls_sys_exit_fails_its_run_and_not_the_process(journal: Journal) -> None:
    async def leave() -> None:
        raise SystemExit(3)

    async def work(ctx: Context) -> Any:
        async with asyncio.TaskGroup() as group:
            group.create_task(leave())

    error = error_of(await run_once(journal, work))

    assert error["message"] == "A task of the workflow ended with sys.exit()."


async def test_durable_calls_that_are_left_behind_end_with_their_run_and_other_tasks_do_not(journal: Journal) -> None:
    left: list[asyncio.Task[Any]] = []

    async def work(ctx: Context) -> Any:
        # The second one might be the keep-alive of a client that other runs share.
        left.extend(asyncio.create_task(one) for one in (ctx.wait_for("never"), asyncio.Event().wait()))
        async with asyncio.timeout(5):
            while not await journal.open_waits(ctx.id):
                await asyncio.sleep(0)
        return "done"

    assert result_of(await run_once(journal, work)) == "done"
    async with asyncio.timeout(5):
        await asyncio.wait(left[:1])
    assert (left[0].cancelled(), left[1].done()) == (True, False)
    left[1].cancel()


async def test_now_random_and_uuid_are_the_same_when_the_run_is_replayed(journal: Journal) -> None:
    seen: list[Any] = []
    gate = asyncio.Event()

    async def work(ctx: Context) -> Any:
        seen.append((ctx.now(), ctx.random(), ctx.random(), ctx.uuid()))
        await ctx.step("held", gate.wait)
        seen.append((ctx.now(),))

    functions = Functions(work)
    async with interrupted(journal, functions, "work") as run_id:
        async with asyncio.timeout(5):
            while not await data_of(journal, run_id, "step_start"):
                await asyncio.sleep(0)
    gate.set()
    await resume(journal, functions, run_id)

    first, again, later = seen
    assert first == again
    assert first[1] != first[2]
    assert later[0] > first[0]
    assert first[0].tzinfo is not None


async def test_logs_progress_and_emitted_events_are_not_repeated_when_the_run_is_replayed(journal: Journal) -> None:
    gate = asyncio.Event()

    async def work(ctx: Context) -> Any:
        for number in range(2):
            ctx.log.info("working", number=number)
            ctx.log.info("the same each time")
        ctx.progress(0.5, "half")
        ctx.emit("big", {"text": "x" * 300_000})
        ctx.log.info(f"attempt {ctx.attempt}")
        await ctx.step("held", gate.wait)
        ctx.log.info("the same each time")

    functions = Functions(work)
    async with interrupted(journal, functions, "work") as run_id:
        async with asyncio.timeout(5):
            while not await data_of(journal, run_id, "step_start"):
                await asyncio.sleep(0)
    gate.set()
    run = await resume(journal, functions, run_id)

    assert run.status is RunStatus.COMPLETED
    messages = [data["message"] for data in await data_of(journal, run_id, "log")]
    assert messages == [
        "working", "the same each time", "working", "the same each time", "attempt 1", "attempt 2",
        "the same each time",
    ]  # fmt: skip
    assert len(await data_of(journal, run_id, "progress")) == len(await data_of(journal, run_id, "big")) == 1


async def test_what_is_said_inside_of_a_step_names_the_attempt(journal: Journal) -> None:
    async def work(ctx: Context) -> Any:
        def charge() -> None:
            ctx.log.info("charging")
            ctx.emit("charged")

        ctx.log.info("outside")
        await ctx.step("charge", charge)

    run = await run_once(journal, work)

    said = {event.type: event.to_dict().get("step") for event in await journal.events(run.run_id, after=2)}
    assert said["log"] == said["charged"] == "charge/attempt-1"
    assert "step" not in (await journal.events(run.run_id, types=["log"]))[0].to_dict()
