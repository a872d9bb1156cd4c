"""`pyflue runs`: the runs in the journal, or those of a server."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .. import codec
from ..clock import rfc3339, to_us
from ..errors import RunFinished, RunNotFinished, RunNotFound
from ..journal import Journal, Run, RunFilter, RunStatus
from .output import error_lines, paint, print_json, print_table, prints_aside, say, shown
from .params import Duration, RunId, WorkflowName, json_option, server_option
from .project import (
    PICKED_UP,
    client_of,
    find_run,
    find_workflow,
    open_for_reading,
    open_for_writing,
    project_root,
    what_it_waits_for,
)
from .running import Ended, drive, drive_remote, enqueue, refuse_in_memory, report, report_accepted

if TYPE_CHECKING:
    from ..client import PyFlueClient

T = TypeVar("T")

#: How long `cancel` waits for the engine that owns the run.
_CANCEL_S = 3.0
#: As many runs as a server lists at a time.
_PAGE = 200
#: Where a list goes on; the same word here and from a server.
_CURSOR = re.compile(r"r([0-9a-f]{1,15})")
_COLOURS = {"completed": "green", "failed": "red", "cancelled": "yellow", "running": "blue", "waiting": "cyan"}


@click.group()
def command() -> None:
    """List, inspect, end, repeat and delete runs."""


@command.command("list")
@click.option("--workflow", "workflows", type=WorkflowName(), multiple=True, help="Only runs of this workflow.")
@click.option(
    "--status", "statuses", type=click.Choice([s.value for s in RunStatus]), multiple=True, help="Only in this status."
)
@click.option("--tag", "tags", multiple=True, help="Only runs with this tag.")
@click.option("--since", type=Duration(), metavar="TIME", help="Only runs accepted in the last 30m, 2h, 7d …")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="At most this many.")
@click.option("--before", metavar="CURSOR", help="Go on where a list ended: what it called `next`.")
@json_option
@server_option
@click.pass_context
def list_runs(
    ctx: click.Context,
    workflows: tuple[str, ...],
    statuses: tuple[str, ...],
    tags: tuple[str, ...],
    since: float | None,
    limit: int,
    before: str | None,
    as_json: bool,
    server: str | None,
) -> None:
    """List runs, newest first. Options that repeat widen the choice, except --tag: a run has all of the tags."""
    created_after = None if since is None else datetime.now(UTC) - timedelta(seconds=since)

    async def read() -> dict[str, Any]:
        where = RunFilter(
            workflows=workflows,
            statuses=[RunStatus(status) for status in statuses],
            tags=tags,
            created_after_us=None if created_after is None else to_us(created_after),
        )
        async with open_for_reading(ctx) as journal:
            page = await journal.runs(where, before=None if before is None else _from_cursor(before), limit=limit)
            following = None if page.next_before is None else f"r{page.next_before:x}"
            return {"runs": [run.to_dict(values=False) for run in page.runs], "next": following}

    async def ask(client: PyFlueClient) -> dict[str, Any]:
        runs: list[Any] = []
        cursor = before
        while True:
            page = await client.runs.list(
                workflow=workflows,
                status=statuses,
                tag=tags,
                created_after=None if created_after is None else rfc3339(created_after),
                limit=min(limit - len(runs), _PAGE),
                cursor=cursor,
            )
            runs += page["runs"]
            cursor = page["next"]
            if cursor is None or len(runs) >= limit:
                return {"runs": runs, "next": cursor}

    page = asyncio.run(read() if server is None else _ask(ctx, server, ask))
    if as_json:
        print_json(page)
    elif page["runs"]:
        print_table(["RUN", "STATUS", "CREATED", "TOOK", "TAGS"], [_row(run) for run in page["runs"]], whole=2)
        if page["next"] is not None:
            say(f"There are more; --before {page['next']} goes on from here.")
    else:
        say("no runs")


@command.command("show")
@click.argument("run_id", type=RunId())
@json_option
@server_option
@click.pass_context
def show_run(ctx: click.Context, run_id: str, as_json: bool, server: str | None) -> None:
    """Show a run's record: status, times, payload, result or error."""

    async def read() -> dict[str, Any]:
        async with open_for_reading(ctx) as journal:
            run = await find_run(journal, run_id, values=True)
            if (waits_for := await what_it_waits_for(journal, run)) is not None:
                say(waits_for)
            return run.to_dict()

    async def ask(client: PyFlueClient) -> dict[str, Any]:
        return await client.runs.get(run_id)

    record = asyncio.run(read() if server is None else _ask(ctx, server, ask))
    if as_json:
        print_json(record)
    else:
        # Through JSON once, so that stored values are values.
        _print_record(codec.load(codec.encode(record)))


@command.command("cancel")
@click.argument("run_id", type=RunId())
@json_option
@server_option
@click.pass_context
def cancel_run(ctx: click.Context, run_id: str, as_json: bool, server: str | None) -> None:
    """End a run that still goes on.

    Without --server the request is written to the journal and honoured by the engine that owns the run: now, or when
    one is started.
    """

    async def write() -> dict[str, Any]:
        async with open_for_writing(ctx) as journal:
            run = await _cancel(journal, run_id)
            if (waits_for := await what_it_waits_for(journal, run)) is not None:
                say(waits_for)
            return run.to_dict()

    async def ask(client: PyFlueClient) -> dict[str, Any]:
        return await client.runs.cancel(run_id)

    record = asyncio.run(write() if server is None else _ask(ctx, server, ask))
    if as_json:
        print_json(record)
    if record["status"] == RunStatus.CANCELLED:
        say(f"run {run_id} is cancelled")
    else:
        say(f"cancelling run {run_id} was requested; it is {record['status']} until its engine has ended it")


@command.command("retry")
@click.argument("run_id", type=RunId())
@click.option("--stream", is_flag=True, help="Show events as they happen, on stderr.")
@click.option("--detach", is_flag=True, help="Only accept the new run and print its id; a server drives it.")
@json_option
@server_option
@click.pass_context
def retry_run(ctx: click.Context, run_id: str, stream: bool, detach: bool, as_json: bool, server: str | None) -> None:
    """Start a new run like one that failed or was cancelled, and print its result as `pyflue run` does."""
    if detach:
        if server is None:
            new_id, driver = asyncio.run(_enqueue_retry(ctx, run_id)), PICKED_UP
        else:
            new_id, driver = (
                asyncio.run(_ask(ctx, server, lambda client: _start_retry(client, run_id))),
                f"{server} drives it.",
            )
        report_accepted(new_id, as_json=as_json, waits_for=driver)
        return
    if server is None:
        from ..engine import loops

        ended = loops.run(_retry_here(ctx, run_id, stream=stream))
    else:
        ended = asyncio.run(_ask(ctx, server, lambda client: _retry_there(client, run_id, stream=stream)))
    report(ended, as_json=as_json)


@command.command("delete")
@click.argument("run_id", type=RunId())
@server_option
@click.pass_context
def delete_run(ctx: click.Context, run_id: str, server: str | None) -> None:
    """Delete a finished run with everything that was recorded of it."""

    async def write() -> None:
        async with open_for_writing(ctx) as journal:
            status = await journal.delete(run_id)
            if status is None:
                raise RunNotFound(run_id)
            if not status.is_final:
                run = await find_run(journal, run_id)
                if (waits_for := await what_it_waits_for(journal, run)) is not None:
                    say(waits_for)
                raise RunNotFinished(run_id, status.value, "deleted")

    async def ask(client: PyFlueClient) -> None:
        await client.runs.delete(run_id)

    asyncio.run(write() if server is None else _ask(ctx, server, ask))
    say(f"run {run_id} is deleted")


async def _ask(ctx: click.Context, server: str, question: Callable[[PyFlueClient], Awaitable[T]]) -> T:
    async with client_of(ctx, server) as client:
        return await question(client)


async def _cancel(journal: Journal, run_id: str) -> Run:
    """Ask for the end of a run and give its engine a moment; returns the run as it is then."""
    answer = await journal.cancel(run_id)
    if answer is None:
        raise RunNotFound(run_id)
    if answer.was_final:
        raise RunFinished(run_id, answer.run.status.value)
    run = answer.run
    try:
        with journal.watch(run_id) as bell:
            async with asyncio.timeout(_CANCEL_S):
                while not run.is_final:
                    await bell.wait()
                    run = await find_run(journal, run_id)
    except TimeoutError:
        pass  # its engine is slow, or none is running
    return run


async def _retry_here(ctx: click.Context, run_id: str, *, stream: bool) -> Ended:
    from ..main import open_project

    with prints_aside():
        project = open_project(project_root(ctx))
        try:
            run = await find_run(project.journal, run_id)
            async with project.engine(adopts=False) as engine:
                return await drive(engine, await engine.retry(run_id), run.workflow, stream=stream)
        finally:
            await project.journal.close()


async def _enqueue_retry(ctx: click.Context, run_id: str) -> str:
    from ..engine import Submission
    from ..main import open_project

    project = open_project(project_root(ctx))
    try:
        refuse_in_memory(project.settings)
        run = await find_run(project.journal, run_id, values=True)
        if not run.is_final:
            raise RunNotFinished(run_id, run.status.value, "retried")
        if run.status is RunStatus.COMPLETED or run.payload is None:
            raise RunFinished(run_id, run.status.value)
        with prints_aside():
            workflow = find_workflow(project.catalog, run.workflow)
        submission = Submission(
            workflow=workflow,
            payload=run.payload,
            parsed=workflow.parse(codec.load(run.payload)),
            tags=run.tags,
            retried_from=run_id,
        )
        return await enqueue(project.journal, submission)
    finally:
        await project.journal.close()


async def _start_retry(client: PyFlueClient, run_id: str) -> str:
    return (await client.runs.retry(run_id))["run_id"]


async def _retry_there(client: PyFlueClient, run_id: str, *, stream: bool) -> Ended:
    workflow = (await client.runs.get(run_id))["workflow"]
    events = client.runs.stream(await _start_retry(client, run_id))
    return await drive_remote(client, events, workflow, stream=stream)


def _from_cursor(word: str) -> int:
    found = _CURSOR.fullmatch(word)
    if found is None:
        raise click.BadParameter(f"{word!r} is not what a list called its `next`.", param_hint="'--before'")
    return int(found[1], 16)


def _row(run: Mapping[str, Any]) -> list[str]:
    return [run["run_id"], run["status"], _short(run["created_at"]), _took(run), ", ".join(run["tags"])]


def _short(at: str) -> str:
    """A local time without its year; of another year only the date."""
    local = datetime.fromisoformat(at).astimezone()
    is_of_this_year = local.year == datetime.now(UTC).astimezone().year
    return local.strftime("%m-%d %H:%M:%S" if is_of_this_year else "%Y-%m-%d")


def _local(at: str) -> str:
    return datetime.fromisoformat(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _took(run: Mapping[str, Any]) -> str:
    if run["started_at"] is None or run["finished_at"] is None:
        return ""
    took = datetime.fromisoformat(run["finished_at"]) - datetime.fromisoformat(run["started_at"])
    seconds = max(took.total_seconds(), 0.0)
    return (
        f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s" if seconds < 120 else str(took).split(".")[0]
    )


def _print_record(record: Mapping[str, Any]) -> None:
    _print_field("run", shown(record["run_id"]))
    _print_field("status", paint(record["status"], fg=_COLOURS.get(record["status"])))
    for name in ("created_at", "started_at", "finished_at", "deadline_at", "cancel_requested_at"):
        if record[name] is not None:
            _print_field(name.removesuffix("_at").replace("_", " "), _local(record[name]))
    _print_field("took", _took(record))
    _print_field("tags", shown(", ".join(record["tags"])))
    for name in ("attempt", "parent_run_id", "retried_from", "forked_from", "workflow_version"):
        _print_field(name.replace("_", " "), shown(str(record[name] or "")))
    for name in ("payload", "result"):
        if name == "payload" or record["status"] == RunStatus.COMPLETED:
            click.echo(paint(name, bold=True))
            print_json(record[name])
    if record["error"] is not None:
        click.echo(paint("error", bold=True))
        click.echo("\n".join(error_lines(record["error"])))


def _print_field(name: str, value: str) -> None:
    if value:
        click.echo(f"{paint(f'{name:<16}', bold=True)}  {value}")
