"""What tests of durable calls share: a project of functions, runs to their end, and restarts in the middle."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from pyflue import codec
from pyflue.engine import EmbeddedEngine, FlueContext
from pyflue.journal import Approval, ApprovalFilter, ApprovalState, Journal, Run, RunStatus
from tests.support import Functions, engine_on, submission

Context = FlueContext[Any]
Function = Callable[[Context], Awaitable[Any]]


async def run_once(journal: Journal, function: Function, *others: Function, payload: Any = None, **options: Any) -> Run:
    """The run of a function, once it is final."""
    functions = Functions(function, *others)
    async with engine_on(journal, functions, **options) as engine:
        return await run_on(engine, functions, function, payload)


async def run_on(engine: EmbeddedEngine, functions: Functions, function: Function, payload: Any = None) -> Run:
    """The run of a function on an engine, once it is final."""
    handle = await engine.submit(submission(functions.find(function.__name__), payload))
    return await ended(engine, handle.run_id)


async def ended(engine: EmbeddedEngine, run_id: str) -> Run:
    """A run, once it is final."""
    async with asyncio.timeout(10):
        return await engine.wait(run_id)


async def until(journal: Journal, run_id: str, status: RunStatus) -> Run:
    """A run, once it is in a status."""
    async with asyncio.timeout(10):
        with journal.watch(run_id) as bell:
            while (run := await journal.run(run_id)) is None or run.status is not status:
                await bell.wait()
            return run


async def asked(journal: Journal, run_id: str) -> Approval:
    """The open approval of a run, once it has asked."""
    async with asyncio.timeout(10):
        with journal.watch(run_id) as bell:
            while True:
                found = await journal.approvals(ApprovalFilter(states=[ApprovalState.OPEN], run_id=run_id))
                if found:
                    return found[0]
                await bell.wait()


def result_of(run: Run) -> Any:
    """A completed run's result."""
    assert run.status is RunStatus.COMPLETED, bytes(run.error or b"")
    return codec.load(run.result or codec.NULL)


def error_of(run: Run) -> dict[str, Any]:
    """A failed run's error."""
    assert run.status is RunStatus.FAILED, (run.status, bytes(run.result or b""))
    assert run.error is not None
    return codec.load(run.error)


async def types_of(journal: Journal, run_id: str) -> list[str]:
    """The types of a run's events."""
    return [event.type for event in await journal.events(run_id)]


async def data_of(journal: Journal, run_id: str, type_: str) -> list[dict[str, Any]]:
    """The data of a run's events of one type."""
    return [codec.load(event.data) for event in await journal.events(run_id, types=[type_])]


@asynccontextmanager
async def interrupted(journal: Journal, functions: Functions, name: str, payload: Any = None) -> AsyncIterator[str]:
    """A run whose engine stops at the end of the block; the id of the run."""
    async with engine_on(journal, functions) as engine:
        handle = await engine.submit(submission(functions.find(name), payload))
        yield handle.run_id


async def resume(journal: Journal, functions: Functions, run_id: str) -> Run:
    """A run, once another engine has driven it to its end."""
    async with engine_on(journal, functions) as engine:
        return await ended(engine, run_id)
