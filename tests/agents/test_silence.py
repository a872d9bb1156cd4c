"""The limit to how long a stream may say nothing; on an event loop whose time is virtual."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyflue.agents import create_agent
from pyflue.agents.models.port import ModelRequest, StreamItem, TextDelta
from pyflue.agents.models.scripted import ScriptedModel
from pyflue.agents.silence import Silence
from pyflue.journal import RunStatus
from tests.engine.durable import Context, ended, error_of, result_of
from tests.promises import promise
from tests.simulation.loop import World

from .agent_runs import Spoken, Stage


@dataclass(frozen=True, slots=True)
class Heard:
    """What came of listening to a stream."""

    pieces: int
    ended: str
    at: float
    is_over: bool
    #: Cancellations of the task that are still to be obeyed.
    cancelling: int


Listening = Callable[[asyncio.Queue[bool], list[int]], Coroutine[Any, Any, bool]]


def in_time(work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run something in virtual time."""
    world = World(random.Random(0))
    try:
        return world.run_until_complete(work())
    finally:
        world.end()
        assert world.problems == []


async def listen(listening: Listening, arrivals: Sequence[float], ends: bool, cancel_at: float | None) -> Heard:
    """Listen to a stream whose pieces arrive at some times, and which then ends or is silent."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[bool] = asyncio.Queue()
    for number, at in enumerate(arrivals):
        loop.call_at(at, queue.put_nowait, not (ends and number == len(arrivals) - 1))
    pieces: list[int] = []
    is_over = False

    async def outer() -> None:
        nonlocal is_over
        is_over = await listening(queue, pieces)

    task = asyncio.ensure_future(outer())
    if cancel_at is not None:
        loop.call_at(cancel_at, task.cancel)
    await asyncio.wait([task])
    kind = "cancelled" if task.cancelled() else type(task.exception()).__name__
    return Heard(len(pieces), kind, loop.time(), is_over, task.cancelling())


def listening_with(idle_s: float, longest_s: float) -> Listening:
    async def listening(queue: asyncio.Queue[bool], pieces: list[int]) -> bool:
        silence = Silence(idle_s, longest_s)
        with silence:
            while await queue.get():
                silence.heard()
                pieces.append(1)
        return silence.is_over

    return listening


def listening_by_asyncio(idle_s: float, longest_s: float) -> Listening:
    async def listening(queue: asyncio.Queue[bool], pieces: list[int]) -> bool:
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + longest_s
        limit = asyncio.timeout(min(idle_s, longest_s))
        async with limit:
            while await queue.get():
                limit.reschedule(min(loop.time() + idle_s, ends_at))
                pieces.append(1)
        return limit.expired()

    return listening


@given(
    gaps=st.lists(st.integers(1, 13).filter(lambda gap: gap != 10), max_size=20),
    ends=st.booleans(),
    cancel_at=st.none() | st.integers(0, 120).map(lambda at: at + 0.5),
)
@settings(deadline=None, max_examples=300)
def test_it_is_a_timeout_that_is_put_off_by_every_piece(gaps: list[int], ends: bool, cancel_at: float | None) -> None:
    arrivals = list(accumulate(gaps))
    one, other = (
        in_time(lambda make=make: listen(make(10, 90.25), arrivals, ends, cancel_at))
        for make in (listening_with, listening_by_asyncio)
    )
    assert one == other


def test_a_stream_that_goes_silent_is_a_timeout_and_leaves_its_task_as_it_was() -> None:
    async def work() -> tuple[bool, bool, float, int]:
        silence = Silence(10, 100)
        with pytest.raises(TimeoutError), silence:
            await asyncio.sleep(8)
            silence.heard()
            await asyncio.sleep(1000)
        task = asyncio.current_task()
        assert task is not None
        told = silence.is_over, silence.is_endless, asyncio.get_running_loop().time()
        await asyncio.sleep(1000)  # nothing comes after it
        return *told, task.cancelling()

    assert in_time(work) == (True, False, 18, 0)


def test_whether_it_was_silent_or_came_to_no_end_is_told_apart() -> None:
    async def work(gap_s: float) -> tuple[float, bool]:
        silence = Silence(10, 100)
        loop = asyncio.get_running_loop()
        try:
            with silence:
                while True:
                    await asyncio.sleep(gap_s)
                    silence.heard()
        except TimeoutError:
            return loop.time(), silence.is_endless

    assert in_time(lambda: work(30)) == (10, False)
    assert in_time(lambda: work(9)) == (100, True)


@pytest.mark.parametrize("comes_first", ["piece", "limit"])
def test_a_stream_that_ends_in_the_last_moment_has_ended_or_not_but_nothing_is_left(comes_first: str) -> None:
    async def work() -> tuple[str, bool, int]:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        piece: asyncio.Future[str] = loop.create_future()

        def arrive() -> None:
            if not piece.done():
                piece.set_result("the end")

        if comes_first == "piece":
            loop.call_at(10 - 1e-9, arrive)
        else:
            loop.call_at(10 + 1e-9, arrive)
        silence = Silence(10, 100)
        try:
            with silence:
                said = await piece
        except TimeoutError:
            said = "silent"
        await asyncio.sleep(50)
        return said, silence.is_over, task.cancelling()

    assert in_time(work) == (("the end", False, 0) if comes_first == "piece" else ("silent", True, 0))


@pytest.mark.parametrize("is_cancelled_first", [True, False])
def test_a_task_that_is_cancelled_when_its_stream_falls_silent_is_cancelled(is_cancelled_first: bool) -> None:
    """Both in one turn of the loop, before the task hears of either."""

    async def work() -> tuple[bool, bool, int]:
        loop = asyncio.get_running_loop()
        entered = asyncio.Event()
        silences: list[Silence] = []

        async def listen() -> None:
            silences.append(Silence(10, 100))
            with silences[0]:
                entered.set()
                await asyncio.sleep(1000)

        def cancel() -> None:
            # Whichever comes second, the first has not been heard of yet.
            assert silences[0].is_over is not is_cancelled_first
            task.cancel()

        task = asyncio.ensure_future(listen())
        await entered.wait()
        if is_cancelled_first:
            # The limit's own timer comes next: nothing lets the task run in between.
            loop.call_at(10, lambda: (cancel(), silences[0]._look()))  # pyright: ignore[reportPrivateUsage]
            silences[0]._timer.cancel()  # pyright: ignore[reportPrivateUsage]
        else:
            silences[0]._timer.cancel()  # pyright: ignore[reportPrivateUsage]
            loop.call_at(10, lambda: (silences[0]._look(), cancel()))  # pyright: ignore[reportPrivateUsage]
        await asyncio.wait([task])
        return task.cancelled(), silences[0].is_over, task.cancelling()

    assert in_time(work) == (True, True, 1)


def test_a_task_that_was_cancelled_before_hears_of_silence_as_of_a_timeout() -> None:
    """As with `asyncio.timeout`: what was cancelled before it was entered is not its business."""

    async def work() -> tuple[str, int]:
        async def clean_up() -> str:
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                try:
                    with Silence(10, 100):
                        await asyncio.sleep(1000)
                except TimeoutError:
                    return "silent"
            return "not silent"

        task = asyncio.ensure_future(clean_up())
        await asyncio.sleep(1)
        task.cancel()
        return await task, task.cancelling()

    assert in_time(work) == ("silent", 1)


@pytest.mark.parametrize("what", ["its own error", "an end", "its own timeout"])
def test_what_a_stream_makes_of_its_end_is_passed_on(what: str) -> None:
    async def work() -> tuple[str, bool, int]:
        task = asyncio.current_task()
        assert task is not None
        silence = Silence(10, 100)
        said = "ended"
        try:
            with silence:
                if what == "its own timeout":
                    raise TimeoutError("of the library")
                try:
                    await asyncio.sleep(1000)
                except asyncio.CancelledError:
                    if what == "its own error":
                        raise ValueError("closed") from None
        except (ValueError, TimeoutError) as error:
            said = str(error)
        return said, silence.is_over, task.cancelling()

    expected = {
        "its own error": ("closed", True, 0),
        "an end": ("ended", True, 0),
        "its own timeout": ("of the library", False, 0),
    }
    assert in_time(work) == expected[what]


# In runs


class Chatty(ScriptedModel):
    """Says something again and again, and comes to no end."""

    def __init__(self) -> None:
        super().__init__(())
        self.count = 0

    async def stream(self, request: ModelRequest) -> AsyncGenerator[StreamItem]:
        self.count += 1
        while True:
            yield TextDelta(".")
            await asyncio.sleep(0.005)


async def test_a_model_that_comes_to_no_end_fails_and_is_not_asked_again(
    stage: Stage, hasty: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyflue.agents.asking._LONGEST_TURN_S", 0.1)
    stage.set(agent={"idle_timeout_s": 0.1, "model_retries": 3})
    model = Chatty()

    async def work(ctx: Context) -> None:
        await (await (await ctx.init(create_agent(lambda: {"model": model}))).session()).prompt("Go")

    assert error_of(await stage.run(work))["message"] == "Model scripted/code came to no end."
    assert model.count == 1


async def test_a_model_that_falls_silent_is_asked_again_and_its_answer_counts(stage: Stage, hasty: None) -> None:
    stage.set(agent={"idle_timeout_s": 0.05})
    silent, whole = Spoken("Half"), Spoken("Whole")
    whole.speak_all()
    models = iter([silent, whole])

    class InTurn(ScriptedModel):
        def stream(self, request: ModelRequest) -> Any:
            return next(models).stream(request)

    async def work(ctx: Context) -> Any:
        session = await (await ctx.init(create_agent(lambda: {"model": InTurn([])}))).session()
        return [(await session.prompt("Go")).text, [message.text for message in await session.history()]]

    run = await stage.run(work)
    assert result_of(run) == ["Whole", ["Go", "Whole"]]
    assert silent.is_closed
    (retry,) = await stage.told(run.run_id, "step_retry")
    assert retry["error"]["type"] == "model_failed"


@promise("agents.cancel")
async def test_a_run_that_is_cancelled_while_its_model_falls_silent_is_cancelled(stage: Stage) -> None:
    """Whichever of the two comes first, it does not fail."""
    stage.set(agent={"idle_timeout_s": 0.03, "model_retries": 100})
    asked = asyncio.Event()

    class Silent(ScriptedModel):
        async def stream(self, request: ModelRequest) -> AsyncGenerator[StreamItem]:
            asked.set()
            await asyncio.sleep(3600)
            yield TextDelta("never")

    async def work(ctx: Context) -> None:
        agent = create_agent(lambda: {"model": Silent(())})
        await (await (await ctx.init(agent)).session()).prompt("Go")

    async with stage.engine(work) as engine:
        for _ in range(5):
            asked.clear()
            run_id = await stage.submit(engine, work)
            async with asyncio.timeout(10):
                await asked.wait()
            await asyncio.sleep(0.03)  # the limit: what is to be met is the moment
            await engine.cancel(run_id)
            assert (await ended(engine, run_id)).status is RunStatus.CANCELLED
