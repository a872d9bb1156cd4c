"""Flows that never wait for anything, and flows of any size, leave the event loop to others."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from pyflue.errors import RunFinished
from pyflue.journal import Journal
from pyflue.stepflow.backend import NewRun, RunStatus, ulid_of
from pyflue.stepflow.outcome import Failed, Success
from pyflue.stepflow.runs import JournalBackend

from ..api.serving import flow, memory_backend
from ..running.flows import Functions, run, run_items
from ..running.projects import catalog_of, flows_on
from ..running.test_scheduler import step

AGAIN = {"steps": [step("a", "/builtin/noop", input={"$input": None})], "output": {"next": {"$step": "a"}}}
ONE = {"steps": [step("a", "/builtin/noop", input={"$input": None})], "output": {"$step": "a"}}


def endless(prefix: str = "/builtin") -> dict[str, Any]:
    again = {"steps": [step("a", f"{prefix}/noop", input={"$input": None})], "output": {"next": {"$step": "a"}}}
    given = {"flow": {"$literal": again}, "initial_input": 1, "max_iterations": 10**12}
    return {"name": "endless", "steps": [step("it", f"{prefix}/iterate", input=given)], "output": {"$step": "it"}}


async def turns_during(work: Any) -> tuple[Any, int]:
    """What some work gives, and how many turns another task had meanwhile."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counting = asyncio.ensure_future(count())
    try:
        return await work, turns
    finally:
        counting.cancel()


async def test_a_flow_that_repeats_itself_for_ever_can_be_cancelled() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await run(endless())


async def test_a_run_that_repeats_itself_for_ever_can_be_cancelled_over_the_api(tmp_path: Path) -> None:
    async with memory_backend(tmp_path) as backend:
        stored = await backend.store_flow(endless(""))
        assert stored.flow_id is not None
        run_id = await backend.submit(NewRun(flow_id=stored.flow_id, inputs=[1]))
        assert not await backend.wait(run_id, 0.05)
        assert (await backend.cancel(run_id)).status is RunStatus.CANCELLED


async def test_a_recorded_run_that_repeats_itself_for_ever_does_not_hold_up_the_records_of_others(
    tmp_path: Path,
    journal: Journal,
) -> None:
    async with flows_on(journal, catalog_of(tmp_path, {"f": ONE}), Functions()) as engine:
        backend = JournalBackend(engine, journal, folder=tmp_path, root=tmp_path, limit_bytes=1024)
        stored = await backend.store_flow(endless())
        assert stored.flow_id is not None
        run_id = await backend.submit(NewRun(flow_id=stored.flow_id, inputs=[1]))
        queue = journal._the_writer()._queue  # pyright: ignore  (how much waits for the disk is told to nobody)
        longest = 0
        while len(await journal.steps(f"workflow:stepflow.inline:{ulid_of(run_id)}", limit=2000)) < 2000:
            longest = max(longest, len(queue))
            await asyncio.sleep(0)
        async with asyncio.timeout(5):
            cancelled = await backend.cancel(run_id)

        assert longest < 400
        assert cancelled.status is RunStatus.CANCELLED
        with pytest.raises(RunFinished):
            await backend.cancel(run_id)


@pytest.mark.parametrize("limit", [1, 10, 3000])
async def test_thousands_of_items_leave_turns_to_others(limit: int) -> None:
    began = time.monotonic()
    outcomes, turns = await turns_during(run_items(ONE, list(range(3000)), max_concurrency=limit))
    took_s = time.monotonic() - began

    assert outcomes == [Success(number) for number in range(3000)]
    assert turns >= min(3, took_s / 0.05)


async def test_a_large_flow_is_read_beside_the_event_loop(tmp_path: Path) -> None:
    steps = [step(f"s{number}", "/noop", input=number) for number in range(3000)]
    async with memory_backend(tmp_path) as backend:
        stored, turns = await turns_during(backend.store_flow(flow(steps, {"$step": "s2999"})))

        assert stored.flow_id is not None
        assert turns > 10
        _, turns = await turns_during(backend.flow(stored.flow_id))
        assert turns > 1
        refused, turns = await turns_during(backend.store_flow(flow([*steps, steps[0]], None)))
        assert refused.flow_id is None
        assert turns > 10


async def test_values_that_grow_by_reference_fail_before_somebody_writes_them_down() -> None:
    steps = [step("s0", "/builtin/noop", input="x" * 100)]
    steps += [step(f"s{n}", "/builtin/noop", input=[{"$step": f"s{n - 1}"}] * 20) for n in range(1, 12)]

    outcome = await run({"steps": steps, "output": {"$step": "s11"}})

    problem = "The input of step 's5' cannot be passed on: it would have more than 67,108,864 bytes."
    assert outcome == Failed(500, problem)


async def test_results_of_a_map_that_share_a_large_value_fail_it() -> None:
    inner = {"steps": [], "output": {"$input": None}}
    given = {"workflow": {"$literal": inner}, "items": [{"$input": None}] * 80}

    outcome = await run(
        {"steps": [step("m", "/builtin/map", input=given)], "output": {"$step": "m", "path": "failed"}}, "x" * 1024**2
    )

    assert isinstance(outcome, Failed)
    assert "cannot be passed on: it would have more than" in outcome.message


async def test_values_that_grow_deeper_than_json_may_be_fail() -> None:
    deeper = {"steps": [step("a", "/builtin/noop", input={"$input": None})], "output": {"next": [{"$step": "a"}]}}
    given = {"flow": {"$literal": deeper}, "initial_input": 1}

    outcome = await run({"steps": [step("it", "/builtin/iterate", input=given)], "output": {"$step": "it"}})

    assert outcome == Failed(500, "The output cannot be passed on: it is nested deeper than 100 levels.")


async def test_steps_that_only_pass_values_on_find_out_how_deep_these_are() -> None:
    steps = [step(f"s{n}", "/builtin/noop", input=[{"$step": f"s{n - 1}"}] if n else 1) for n in range(120)]

    outcome = await run({"steps": steps, "output": {"$step": "s119"}})

    assert outcome == Failed(500, "The input of step 's101' cannot be passed on: it is nested deeper than 100 levels.")


async def test_a_value_that_is_used_often_is_passed_on_as_long_as_it_can_be_written_down() -> None:
    value = {"rows": [{"id": number} for number in range(100)]}

    outcome = await run(
        {"steps": [step("a", input=[{"$input": None}] * 20)], "output": {"$step": "a"}}, value, Functions()
    )

    assert outcome == Success([value] * 20)
