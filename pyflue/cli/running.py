"""Driving one run from the command line to its end, in this process or on a server, and reporting how it ended.

Shared by `run` and `runs retry`, which differ only in how the run comes to be.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from .. import codec
from ..clock import SystemClock
from ..codec import Raw
from ..errors import Forbidden, PyFlueError, RunCancelled, RunFailed, RunFinished, RunStopped
from ..ids import new_run_id
from ..journal import Journal, NewRun, Outcome
from .errors import USAGE, Problem
from .events import EventJson, to_json
from .live import Show, reporter
from .output import error_lines, print_json, print_result, say

if TYPE_CHECKING:
    from ..client import PyFlueClient
    from ..engine import Engine, RunHandle, Submission
    from ..settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a run ended."""

    run_id: str
    status: str
    result: Raw | None
    error: Mapping[str, Any] | None


async def drive(engine: Engine, handle: RunHandle, workflow: str, *, stream: bool) -> Ended:
    """See a run in this process through to its end. Being cancelled (Ctrl-C) cancels the run."""
    say(f"run {handle.run_id}")
    try:
        with reporter(workflow, stream=stream) as show:
            async with asyncio.TaskGroup() as tasks:
                reading = None if show is None else tasks.create_task(_show_events(engine, handle.run_id, show))
                ended = await _outcome(engine, handle)
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
    stream: bool,
    repeat: Callable[[], Awaitable[Mapping[str, Any]]] | None = None,
) -> Ended:
    """See a run on a server through to its end. Being cancelled (Ctrl-C) cancels the run.

    `repeat` asks for the run's result as its caller, for a token that may start runs but not read their records.
    """
    run_id: str | None = None
    try:
        with reporter(workflow, stream=stream) as show:
            async with aclosing(events):
                async for event in events:
                    if run_id is None:
                        run_id = str(event["stream_id"])
                        say(f"run {run_id}")
                    if show is not None:
                        show(event)
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
        run_id=new_run_id(workflow.name),
        workflow=workflow.name,
        kind=workflow.kind,
        payload=submission.payload,
        workflow_version=workflow.version,
        tags=submission.tags,
        deadline_us=None if deadline_s is None else SystemClock().now_us() + int(deadline_s * 1_000_000),
        retried_from=submission.retried_from,
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
    failed.hint = f"pyflue logs {ended.run_id}"
    raise failed


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


async def _show_events(engine: Engine, run_id: str, show: Show) -> None:
    events: AsyncIterable[Any] = engine.events(run_id)
    async for event in events:
        show(to_json(event))
