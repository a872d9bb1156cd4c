"""Code that is edited while runs are stopped: what is recorded is found again, and what no longer fits is said.

Each test begins a run with one version of a workflow, stops the engine while the run waits for the signal `go`, and
goes on with another version in a new engine on the same journal.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pyflue import codec
from pyflue.engine import FlueContext, Recovery
from pyflue.journal import ApprovalFilter, Event, Journal, Run, RunStatus
from tests.support import Functions, FunctionWorkflow, engine_on, journal_at, submission

Body = Callable[[FlueContext[Any]], Awaitable[Any]]


@dataclass
class World:
    """A journal, and a list of what steps have done."""

    journal: Journal
    done: list[str] = field(default_factory=list)

    def step(self, ctx: FlueContext[Any], name: str, *args: Any) -> Awaitable[str]:
        def work(*args: Any) -> str:
            self.done.append(name)
            return f"{name} is done"

        return ctx.step(name, work, *args)

    async def first(self, body: Body, **options: Any) -> str:
        """Begin a run, and stop when it waits."""
        workflow = FunctionWorkflow(body, "edited", **options)
        async with engine_on(self.journal, _source(workflow)) as engine, asyncio.timeout(10):
            handle = await engine.submit(submission(workflow, {}))
            await self.until(handle.run_id, RunStatus.WAITING)
            return handle.run_id

    async def then(self, run_id: str, body: Body, **options: Any) -> tuple[Run, list[Event]]:
        """Go on with other code; returns the run when it is final."""
        workflow = FunctionWorkflow(body, "edited", version="2", **options)
        async with engine_on(self.journal, _source(workflow)) as engine, asyncio.timeout(10):
            await engine.signal(run_id, "go", None)
            run = await engine.wait(run_id)
            return run, list(await self.journal.events(run_id))

    async def until(self, run_id: str, status: RunStatus) -> None:
        with self.journal.watch(run_id) as bell:
            while (run := await self.journal.run(run_id)) is None or run.status is not status:
                await bell.wait()


def _source(workflow: FunctionWorkflow) -> Functions:
    source = Functions()
    source.workflows[workflow.name] = workflow
    return source


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    journal = journal_at(tmp_path)
    yield World(journal)
    await journal.close()


def drifts(events: list[Event]) -> list[tuple[str, str]]:
    """What was said about changes, as (step, what)."""
    data = [codec.load(event.data) for event in events if event.type == "replay_drift"]
    return [(said["step"], said["what"]) for said in data]


def value(run: Run) -> Any:
    """A run's result, or the type of its error."""
    if run.status is RunStatus.COMPLETED:
        assert run.result is not None
        return codec.load(run.result)
    assert run.error is not None
    return codec.load(run.error)["type"]


def steps(world: World, *names: str) -> Body:
    """A workflow of steps in a row, `go` standing for the wait."""

    async def body(ctx: FlueContext[Any]) -> list[Any]:
        return [await (ctx.wait_for("go") if name == "go" else world.step(ctx, name)) for name in names]

    return body


@pytest.mark.parametrize(
    ("edited", "done_after", "said"),
    [
        (["a", "b", "go", "c"], ["a", "b", "c"], []),
        (["new", "a", "b", "go", "c"], ["a", "b", "new", "c"], [("a", "position")]),
        (["a", "new", "b", "go", "c"], ["a", "b", "new", "c"], [("b", "position")]),
        (["b", "go", "c"], ["a", "b", "c"], [("b", "position")]),
        (["a", "go", "c"], ["a", "b", "c"], [("go", "position")]),
        (["b", "a", "go", "c"], ["a", "b", "c"], [("b", "position"), ("a", "position"), ("go", "position")]),
        (["a", "renamed", "go", "c"], ["a", "b", "renamed", "c"], []),
        (["a", "b", "a", "go", "c"], ["a", "b", "a", "c"], [("go", "position")]),
    ],
    ids=["nothing", "inserted first", "inserted", "first removed", "removed", "moved", "renamed", "used once more"],
)
async def test_a_step_put_in_removed_moved_or_renamed_strands_no_run_and_repeats_no_step(
    world: World, edited: list[str], done_after: list[str], said: list[tuple[str, str]]
) -> None:
    run_id = await world.first(steps(world, "a", "b", "go", "c"))
    assert world.done == ["a", "b"]
    run, events = await world.then(run_id, steps(world, *edited))
    assert value(run) == [None if name == "go" else f"{name} is done" for name in edited]
    assert world.done == done_after
    assert drifts(events) == said


@pytest.mark.parametrize("edited", [["new", "a", "b", "go"], ["b", "a", "go"]], ids=["inserted", "moved"])
async def test_a_strict_workflow_fails_where_it_has_drifted(world: World, edited: list[str]) -> None:
    run_id = await world.first(steps(world, "a", "b", "go"))
    run, events = await world.then(run_id, steps(world, *edited), is_strict=True)
    assert value(run) == "replay_drift"
    assert drifts(events) == []
    assert [name for name in world.done if name != "new"] == ["a", "b"]


def _as_step(world: World, ctx: FlueContext[Any]) -> Awaitable[Any]:
    return world.step(ctx, "it")


def _as_sleep(world: World, ctx: FlueContext[Any]) -> Awaitable[Any]:
    return ctx.sleep(0.01, name="it")


def _as_approval(world: World, ctx: FlueContext[Any]) -> Awaitable[Any]:
    return ctx.approve("it", {})


def _as_signal(world: World, ctx: FlueContext[Any]) -> Awaitable[Any]:
    return ctx.wait_for("it")


@pytest.mark.parametrize("was", [_as_step, _as_sleep], ids=["step", "sleep"])
@pytest.mark.parametrize(
    "becomes", [_as_step, _as_sleep, _as_approval, _as_signal], ids=["step", "sleep", "approval", "signal"]
)
async def test_a_call_of_another_kind_ends_the_run_even_if_its_code_catches_that(
    world: World, was: Any, becomes: Any
) -> None:
    async def before(ctx: FlueContext[Any]) -> str:
        await was(world, ctx)
        await ctx.wait_for("go")
        return "the end"

    async def after(ctx: FlueContext[Any]) -> str:
        try:
            await becomes(world, ctx)
        except Exception:
            world.done.append("caught")
        await ctx.wait_for("go")
        await world.step(ctx, "later")
        return "the end"

    run_id = await world.first(before)
    run, events = await world.then(run_id, after)
    if was is becomes:
        assert value(run) == "the end"
    else:
        assert value(run) == "replay_mismatch"
        assert "later" not in world.done
        assert events[-1].type == "run_end"
        # The record stays as it was, for whoever wants to see what happened.
        history = await world.journal.history(run_id)
        assert [record.key for record in (*history.steps, *history.waits)].count("it") == 1
    assert world.done.count("it") == (1 if was is _as_step else 0)


async def test_an_open_wait_that_became_a_step_is_a_mismatch_too(world: World) -> None:
    async def before(ctx: FlueContext[Any]) -> None:
        await asyncio.gather(ctx.wait_for("it"), ctx.wait_for("go"))

    async def after(ctx: FlueContext[Any]) -> None:
        await ctx.wait_for("go")
        await world.step(ctx, "it")

    run_id = await world.first(before)
    run, _ = await world.then(run_id, after)
    assert (value(run), world.done) == ("replay_mismatch", [])


async def test_other_arguments_are_said_and_the_recorded_value_counts(world: World) -> None:
    def with_argument(argument: int) -> Body:
        async def body(ctx: FlueContext[Any]) -> list[Any]:
            value = await world.step(ctx, "a", argument)
            await ctx.wait_for("go")
            return [value, await world.step(ctx, "b", argument)]

        return body

    run_id = await world.first(with_argument(1))
    run, events = await world.then(run_id, with_argument(2))
    assert value(run) == ["a is done", "b is done"]
    assert drifts(events) == [("a", "input")]
    assert world.done == ["a", "b"]


async def test_each_branch_tells_its_own_drift_once(world: World) -> None:
    def branches(*names: str) -> Body:
        async def body(ctx: FlueContext[Any]) -> Any:
            async def branch(number: int) -> list[Any]:
                await asyncio.sleep(0.001 * (3 - number))
                return [await world.step(ctx, f"{name}{number}") for name in names]

            values = await asyncio.gather(*[branch(number) for number in range(3)])
            await ctx.wait_for("go")
            return values

        return body

    run_id = await world.first(branches("a", "b", "c"))
    run, events = await world.then(run_id, branches("new", "a", "b", "c"))
    assert value(run) == [[f"{name}{number} is done" for name in ("new", "a", "b", "c")] for number in range(3)]
    assert sorted(what for _, what in drifts(events)) == ["position"] * 3
    assert sorted(world.done) == sorted(f"{name}{number}" for name in ("a", "b", "c", "new") for number in range(3))


async def test_a_changed_version_is_noted_in_the_runs_log(world: World) -> None:
    run_id = await world.first(steps(world, "a", "go"))
    _, events = await world.then(run_id, steps(world, "a", "go"))
    (said,) = [codec.load(event.data) for event in events if event.type == "log"]
    assert (said["accepted_version"], said["workflow_version"]) == ("1", "2")


@pytest.mark.parametrize("recovery", list(Recovery))
async def test_a_run_that_was_waiting_is_resumed_whatever_its_workflow_says_of_interruptions(
    world: World, recovery: Recovery
) -> None:
    body = steps(world, "a", "go", "b")
    run_id = await world.first(body, recovery=recovery)
    run, _ = await world.then(run_id, body, recovery=recovery)
    assert (value(run), world.done, run.attempt) == (["a is done", None, "b is done"], ["a", "b"], 2)


async def test_a_question_that_changed_is_asked_again(world: World) -> None:
    """A decision counts for exactly the request it was made on."""

    def asking(amount: int) -> Body:
        async def body(ctx: FlueContext[Any]) -> list[Any]:
            decision = await ctx.approve("pay", {"amount": amount})
            await ctx.wait_for("go")
            return [decision.approved, decision.data]

        return body

    async def first() -> str:
        workflow = FunctionWorkflow(asking(1), "edited")
        async with engine_on(world.journal, _source(workflow)) as engine, asyncio.timeout(10):
            handle = await engine.submit(submission(workflow, {}))
            await world.until(handle.run_id, RunStatus.WAITING)
            (asked,) = await world.journal.approvals(ApprovalFilter())
            await engine.decide(str(asked.wait.wait_id), approved=True, by="ann")
            with world.journal.watch(handle.run_id) as bell:
                while "go" not in [wait.key for wait in await world.journal.open_waits(handle.run_id)]:
                    await bell.wait()
            return handle.run_id

    run_id = await first()
    workflow = FunctionWorkflow(asking(1000), "edited", version="2")
    async with engine_on(world.journal, _source(workflow)) as engine, asyncio.timeout(10):
        await engine.signal(run_id, "go", None)
        with world.journal.watch(run_id) as bell:
            while not (open_ones := [w for w in await world.journal.open_waits(run_id) if w.key == "pay"]):
                await bell.wait()
        await engine.decide(str(open_ones[0].wait_id), approved=False, by="bob")
        run = await engine.wait(run_id)
    assert value(run) == [False, None]
    assert drifts(list(await world.journal.events(run_id))) == [("pay", "request")]


async def test_calls_that_changed_places_get_the_results_of_their_inputs(world: World) -> None:
    def work_off(*items: str) -> Body:
        async def body(ctx: FlueContext[Any]) -> list[Any]:
            async def do(item: str) -> str:
                world.done.append(item)
                return f"{item} is done"

            results = [await ctx.step("do", do, item) for item in items]
            await ctx.wait_for("go")
            return results

        return body

    run_id = await world.first(work_off("x", "y", "z"))
    run, events = await world.then(run_id, work_off("y", "z", "x", "new"))
    assert value(run) == ["y is done", "z is done", "x is done", "new is done"]
    assert world.done == ["x", "y", "z", "new"]
    drifts = [codec.load(event.data) for event in events if event.type == "replay_drift"]
    assert {drift["step"] for drift in drifts if drift["what"] == "order"} == {"do", "do#2"}


@pytest.mark.parametrize("names", [("a", "renamed", "go", "c"), ("a", "new", "b", "go", "c")])
async def test_a_strict_workflow_does_nothing_new_where_something_else_was_recorded(
    world: World, names: tuple[str, ...]
) -> None:
    run_id = await world.first(steps(world, "a", "b", "go", "c"), is_strict=True)
    run, _ = await world.then(run_id, steps(world, *names), is_strict=True)
    assert value(run) == "replay_drift"
    assert world.done == ["a", "b"]
