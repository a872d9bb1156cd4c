"""Running a Python workflow: async, sync, and what its context and types see."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from typing import Any

import pytest

from pyflue.engine import FlueContext
from pyflue.engine.threads import run_in_own_thread
from tests.promises import promise

from .conftest import ProjectFolder, Recorded

Context = Callable[..., FlueContext[Any]]


async def test_an_async_run_gets_the_payload_and_returns_the_result(
    project: ProjectFolder, context: Context, recorded: Recorded
) -> None:
    project.write(
        "src/workflows/summarize.py",
        '''
        """Shortens text."""
        from pyflue import FlueContext

        async def run(ctx: FlueContext) -> dict:
            ctx.log.info("summarization started", audience=ctx.payload.get("audience", "general"))
            return {"summary": ctx.payload["text"][:3]}
        ''',
    )
    workflow = project.catalog().find("summarize")
    assert (workflow.kind, workflow.description, workflow.graph()) == ("python", "Shortens text.", None)
    assert (workflow.input_schema, workflow.output_schema) == ({}, {"type": "object"})
    assert await workflow.run(context(workflow.parse({"text": "abcdef"}))) == {"summary": "abc"}
    assert recorded.events == [
        ("log", {"level": "info", "message": "summarization started", "audience": "general"}),
    ]


async def test_a_sync_run_has_a_thread_of_its_own(project: ProjectFolder, context: Context) -> None:
    project.write(
        "workflows/sync.py",
        '''
        import threading

        def run(ctx):
            """Says where it is."""
            ctx.log.info("here")
            return [threading.current_thread().name, threading.current_thread().daemon]
        ''',
    )
    workflow = project.catalog().find("sync")
    assert workflow.description == "Says where it is."
    assert await workflow.run(context()) == ["pyflue run", True]


@promise("F33")
async def test_many_sync_runs_that_block_do_not_wait_for_one_another(project: ProjectFolder, context: Context) -> None:
    """F33: a sync run that blocks freezes neither the loop nor other runs."""
    project.write("workflows/meet.py", "def run(ctx):\n    return ctx.payload.wait(10)\n")
    workflow = project.catalog().find("meet")
    barrier = threading.Barrier(64)
    async with asyncio.timeout(10):
        places = await asyncio.gather(*(workflow.run(context(barrier)) for _ in range(64)))
    assert sorted(places) == list(range(64))


@pytest.mark.parametrize(
    "text",
    [
        "import functools\nasync def work(ctx, more): return more\nrun = functools.partial(work, more=7)\n",
        "async def work(ctx): return 7\ndef run(ctx): return work(ctx)\n",
        "class Work:\n    async def __call__(self, ctx): return 7\nrun = Work()\n",
        "class Work:\n    def __call__(self, ctx): return 7\nrun = Work()\n",
        "def run(ctx, more=7): return more\n",
        "async def run(*args): return 7\n",
        "run = lambda ctx: 7\n",
    ],
)
async def test_whatever_can_be_called_with_a_context_is_a_run(
    project: ProjectFolder, context: Context, text: str
) -> None:
    project.write("workflows/odd.py", text)
    assert await project.catalog().find("odd").run(context()) == 7


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError("x")])
async def test_what_a_sync_run_raises_is_raised_to_its_caller(
    project: ProjectFolder, context: Context, error: BaseException
) -> None:
    project.write("workflows/fails.py", "def run(ctx):\n    raise ctx.payload\n")
    workflow = project.catalog().find("fails")
    caught: BaseException | None = None
    try:
        await workflow.run(context(error))
    except BaseException as raised:
        caught = raised
    assert caught is error


async def test_a_call_in_its_own_thread_sees_the_context_variables_of_its_caller() -> None:
    variable = contextvars.ContextVar("variable", default="outside")
    variable.set("inside")
    assert await run_in_own_thread(variable.get) == "inside"


async def test_a_cancelled_caller_does_not_wait_for_the_thread() -> None:
    started, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        go_on.wait(10)
        ended.set()
        raise SystemExit(1)

    async with asyncio.timeout(5):
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(run_in_own_thread(work))
            await run_in_own_thread(started.wait, 5)
            task.cancel()
        assert task.cancelled()
        assert not ended.is_set()
        go_on.set()
        assert await run_in_own_thread(ended.wait, 5)


def test_a_thread_that_outlives_its_loop_ends_quietly() -> None:
    go_on, threads = threading.Event(), list[threading.Thread]()

    def work() -> None:
        threads.append(threading.current_thread())
        go_on.wait(10)

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await run_in_own_thread(work)

    asyncio.run(main())
    go_on.set()
    threads[0].join(5)
    assert not threads[0].is_alive()
