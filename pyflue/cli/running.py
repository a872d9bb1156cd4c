"""Driving one run from the command line to its end, in this process or on a server, and reporting how it ended.

Shared by `run`, `runs retry` and `runs fork`, which differ only in how the run comes to be.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from .. import codec
from ..clock import SystemClock
from ..codec import Raw
from ..errors import Forbidden, PyFlueError, RunCancelled, RunFailed, RunFinished, RunStopped
from ..journal import EventType, Journal, NewRun, Outcome, RunStatus
from .errors import USAGE, Problem
from .events import EventJson, to_json
from .live import Reporter, reporter
from .output import error_lines, print_json, print_result, say, shown
from .waits import WaitJson, is_worth_telling, lines_about

if TYPE_CHECKING:
    from ..client import PyFlueClient
    from ..engine import Engine, RunHandle, Submission
    from ..settings import Settings


#: How long a run may wait for something before the person at the terminal is told.
_TELL_AFTER_S = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a run ended."""

    run_id: str
    status: str
    result: Raw | None
    error: Mapping[str, Any] | None


async def drive(engine: Engine, handle: RunHandle, workflow: str, *, journal: Journal, stream: bool) -> Ended:
    """See a run in this process through to its end. Being cancelled (Ctrl-C) cancels the run."""
    say(f"run {handle.run_id}")
    try:
        with reporter(workflow, stream=stream) as report_to:
            async with asyncio.TaskGroup() as tasks:
                reading = None
                if report_to.wants_events:
                    reading = tasks.create_task(_show_events(engine, handle.run_id, report_to))
                telling = tasks.create_task(tell_waits(journal, handle.run_id, report_to))
                ended = await _outcome(engine, handle)
                telling.cancel()
                if reading is not None and isinstance(ended, PyFlueError):
                    reading.cancel()  # its record could not be written, so its events have no end
    except asyncio.CancelledError:
        with contextlib.suppress(RunFinished):
            await engine.cancel(handle.run_id)
            say(f"run {handle.run_id} cancelled")
        raise
    if isinstance(ended, PyFlueError):
        raise ended
    error = None if ended.error is None else codec.load(ended.error)
    return Ended(run_id=handle.run_id, status=ended.status.value, result=ended.result, error=error)


async def drive_remote(
    client: PyFlueClient,
    events: AsyncGenerator[EventJson, None],
    workflow: str,
    *,
    server: str,
    stream: bool,
    repeat: Callable[[], Awaitable[Mapping[str, Any]]] | None = None,
) -> Ended:
    """See a run on a server through to its end. Being cancelled (Ctrl-C) cancels the run.

    `repeat` asks for the run's result as its caller, for a token that may start runs but not read their records.
    """
    run_id: str | None = None
    told: set[str] = set()
    try:
        with reporter(workflow, stream=stream) as report_to:
            async with aclosing(events):
                async for event in events:
                    if run_id is None:
                        run_id = str(event["stream_id"])
                        say(f"run {run_id}")
                    report_to.show(event)
                    if event["type"] == EventType.RUN_WAITING:
                        _tell(report_to, run_id, _untold(event["data"].get("waits", ()), told), server=server)
    except asyncio.CancelledError:
        if run_id is not None:
            try:
                await client.runs.cancel(run_id)
                say(f"run {run_id} cancelled")
            except RunFinished:
                pass
            except Forbidden as error:
                say(f"run {run_id} goes on: {error.message}")
        raise
    try:
        record = await client.runs.get(str(run_id))
    except Forbidden:
        if repeat is None:
            raise
        return await _as_caller(str(run_id), repeat)
    result = None if record["status"] != "completed" else Raw(codec.encode(record["result"]))
    return Ended(run_id=str(run_id), status=record["status"], result=result, error=record["error"])


async def _as_caller(run_id: str, repeat: Callable[[], Awaitable[Mapping[str, Any]]]) -> Ended:
    """How a run ended, as the server tells it to whoever started the run."""
    try:
        result = (await repeat())["result"]
    except RunCancelled:
        return Ended(run_id=run_id, status="cancelled", result=None, error=None)
    except PyFlueError as error:
        if error.run_id != run_id:
            raise  # not the run failed but the question
        said = {**error.to_dict(), "message": error.message.removeprefix(f"Run {run_id} failed: ")}
        told = {**said, **error.error} if isinstance(error, RunFailed) else said
        return Ended(run_id=run_id, status="failed", result=None, error=told)
    return Ended(run_id=run_id, status="completed", result=Raw(codec.encode(result)), error=None)


def refuse_in_memory(settings: Settings) -> None:
    """
    Raises:
        Problem: the journal ends with this process, so nobody could take the run up.
    """
    if settings.journal_url == "memory:":
        raise Problem(
            "--detach needs a journal that outlives this command; journal.url is memory:.",
            hint="Keep the journal in a file (the default), or run it without --detach.",
            exit_code=USAGE,
        )


async def enqueue(journal: Journal, submission: Submission) -> str:
    """Record a run that an engine of this project will take up; returns its id once that is on disk."""
    workflow, deadline_s = submission.workflow, submission.deadline_s
    new = NewRun(
        run_id=submission.new_run_id(),
        workflow=workflow.name,
        kind=workflow.kind,
        payload=submission.payload,
        workflow_version=workflow.version,
        tags=submission.tags,
        deadline_us=None if deadline_s is None else SystemClock().now_us() + int(deadline_s * 1_000_000),
        request=submission.request,
        retried_from=submission.retried_from,
        forked_from=submission.forked_from,
        copies=submission.copies,
        definition=submission.definition,
        lane=submission.lane,
    )
    return (await journal.accept(new)).run_id


def report(ended: Ended, *, as_json: bool) -> None:
    """Print the result; a run that did not complete ends the command with exit code 1.

    Raises:
        RunFailed, RunCancelled
    """
    if ended.status == "completed":
        if as_json:
            print_json({"run_id": ended.run_id, "status": ended.status, "result": ended.result})
        else:
            print_result(ended.result)
        return
    if as_json:
        print_json({"run_id": ended.run_id, "status": ended.status, "error": ended.error})
    if ended.status == "cancelled":
        raise RunCancelled(ended.run_id)
    error = ended.error or {}
    for line in error_lines(error)[1:]:
        say(line)
    failed = RunFailed(ended.run_id, error)
    failed.hint = f"{_advice(error)}pyflue logs {ended.run_id}"
    raise failed


def _advice(error: Mapping[str, Any]) -> str:
    """What to tell whoever has to mend it, before the command that shows the rest."""
    if str(error.get("message")).startswith("'coroutine' object "):
        return "An `await` is missing there. "
    # A traceback says where; an error of ours has none.
    return f"Raised at {shown(str(error['where']))}. " if error.get("where") and not error.get("traceback") else ""


def report_accepted(run_id: str, *, as_json: bool, waits_for: str) -> None:
    """Print the id of a run that somebody else will drive."""
    if as_json:
        print_json({"status": "accepted", "run_id": run_id})
    else:
        click.echo(run_id)
    say(f"queued: {waits_for}")


async def _outcome(engine: Engine, handle: RunHandle) -> Outcome | PyFlueError:
    """How the run ended, or why that will not be known."""
    try:
        return await handle.outcome()
    except RunStopped:
        # Another engine has taken the run over (this process was stopped for a while); its outcome is ours.
        run = await engine.wait(handle.run_id)
        return Outcome(status=run.status, result=run.result, error=run.error)
    except PyFlueError as error:  # returned, because a task group would wrap it
        return error


async def _show_events(engine: Engine, run_id: str, report_to: Reporter) -> None:
    events: AsyncIterable[Any] = engine.events(run_id)
    async for event in events:
        report_to.show(to_json(event))


async def tell_waits(journal: Journal, run_id: str, report_to: Reporter) -> None:
    """Say what a run waits for, each thing once, whenever it waits for longer than a moment."""
    told: set[str] = set()
    with journal.watch(run_id) as bell:
        while True:
            # What is over by then is nobody's business; and a busy run is not looked at after each of its commits.
            await asyncio.sleep(_TELL_AFTER_S)
            run = await journal.run(run_id, values=False)
            if run is not None and run.status is RunStatus.WAITING:
                waits = [wait.to_dict() for wait in await journal.open_waits(run_id)]
                _tell(report_to, run_id, _untold(waits, told))
            await bell.wait()


def _untold(waits: Iterable[WaitJson], told: set[str]) -> list[WaitJson]:
    """Those waits that are worth telling and were not told before; then they are."""
    news = [wait for wait in waits if wait["step"] not in told and is_worth_telling(wait)]
    told.update(wait["step"] for wait in news)
    return news


def _tell(report_to: Reporter, run_id: str, waits: list[WaitJson], *, server: str | None = None) -> None:
    for line in lines_about(run_id, waits, server=server):
        report_to.say(line)
