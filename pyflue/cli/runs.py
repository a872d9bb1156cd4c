"""`pyflue runs`: the runs in the journal, or those of a server."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from .. import codec
from ..clock import rfc3339, to_us
from ..errors import RunNotFinished, RunNotFound
from ..journal import RunFilter, RunStatus, StepStatus
from ..settings import load_settings
from .again import fork_run, replay_run, retry_run
from .output import (
    error_lines,
    local_time,
    one_line,
    paint,
    print_field,
    print_json,
    print_table,
    say,
    short_json,
    shown,
    took,
    used,
)
from .params import Duration, RunId, WorkflowName, json_option, server_option
from .project import (
    ask_server,
    end_run,
    find_run,
    open_for_reading,
    open_for_writing,
    project_root,
    record_of,
    what_it_waits_for,
)
from .waits import answered_by, describe

if TYPE_CHECKING:
    from ..client import PyFlueClient

#: As many runs as a server lists at a time.
_PAGE = 200
#: Where a list goes on; the same word here and from a server.
_CURSOR = re.compile(r"r([0-9a-f]{1,15})")
#: Kinds of steps whose value is an answer with what it used.
_OPERATIONS = frozenset({"prompt", "skill", "task"})
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

    page = asyncio.run(read() if server is None else ask_server(ctx, server, ask))
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
            # What a waiting run waits for is part of its record.
            if run.status is not RunStatus.WAITING and (waits_for := await what_it_waits_for(journal, run)) is not None:
                say(waits_for)
            return await record_of(journal, run)

    async def ask(client: PyFlueClient) -> dict[str, Any]:
        return await client.runs.get(run_id)

    record = asyncio.run(read() if server is None else ask_server(ctx, server, ask))
    if as_json:
        print_json(record)
    else:
        # Through JSON once, so that stored values are values.
        _print_record(codec.load(codec.encode(record)), server=server)


@command.command("steps")
@click.argument("run_id", type=RunId())
@json_option
@server_option
@click.pass_context
def list_steps(ctx: click.Context, run_id: str, as_json: bool, server: str | None) -> None:
    """List what a run has recorded of its steps, sleeps, signals, approvals and children, in the order of the records.

    What it still waits for comes last.
    """

    async def read() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        async with open_for_reading(ctx) as journal:
            await find_run(journal, run_id)
            after = None
            while steps := await journal.steps(run_id, after=after, limit=_PAGE):
                after = steps[-1].key
                found += [step.to_dict() for step in steps]
        return found

    async def ask(client: PyFlueClient) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        after = None
        while (page := await client.runs.steps(run_id, after=after, limit=_PAGE))["steps"]:
            after = page["next_after"]
            found += page["steps"]
        return found

    steps = asyncio.run(read() if server is None else ask_server(ctx, server, ask))
    if as_json:
        print_json({"steps": steps})
    elif steps:
        rows = [_step_row(codec.load(codec.encode(step))) for step in steps]
        print_table(["STEP", "KIND", "STATUS", "ATTEMPTS", "TOOK", "VALUE"], rows, whole=3)
    else:
        say("no steps")


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
            run = await end_run(journal, run_id)
            if (waits_for := await what_it_waits_for(journal, run)) is not None:
                say(waits_for)
            return await record_of(journal, run)

    async def ask(client: PyFlueClient) -> dict[str, Any]:
        return await client.runs.cancel(run_id)

    record = asyncio.run(write() if server is None else ask_server(ctx, server, ask))
    if as_json:
        print_json(record)
    if record["status"] == RunStatus.CANCELLED:
        say(f"run {run_id} is cancelled")
    else:
        say(f"cancelling run {run_id} was requested; it is {record['status']} until its engine has ended it")


@command.command("delete")
@click.argument("run_id", type=RunId())
@server_option
@click.pass_context
def delete_run(ctx: click.Context, run_id: str, server: str | None) -> None:
    """Delete a finished run with everything that was recorded of it."""

    async def write() -> None:
        from ..agents.room import forget_files

        async with open_for_writing(ctx) as journal:
            status = await journal.delete(run_id)
            if status is None:
                raise RunNotFound(run_id)
            if not status.is_final:
                run = await find_run(journal, run_id)
                if (waits_for := await what_it_waits_for(journal, run)) is not None:
                    say(waits_for)
                raise RunNotFinished(run_id, status.value, "deleted")
            await forget_files(load_settings(project_root(ctx)), run_id)

    async def ask(client: PyFlueClient) -> None:
        await client.runs.delete(run_id)

    asyncio.run(write() if server is None else ask_server(ctx, server, ask))
    say(f"run {run_id} is deleted")


command.add_command(retry_run)
command.add_command(fork_run)
command.add_command(replay_run)


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


def _took(record: Mapping[str, Any]) -> str:
    """How long a run or a step took, if it has ended."""
    if record["started_at"] is None or record["finished_at"] is None:
        return ""
    return took(
        (datetime.fromisoformat(record["finished_at"]) - datetime.fromisoformat(record["started_at"])).total_seconds()
    )


def _step_row(step: Mapping[str, Any]) -> list[str]:
    came_of_it = ""
    if step["error"] is not None:
        came_of_it = shown(error_lines(step["error"])[0])
    elif step["status"] == StepStatus.COMPLETED:
        came_of_it = _came_of(step["kind"], step["value"])
    return [step["step"], step["kind"], step["status"], str(step["attempts"]), _took(step), came_of_it]


def _came_of(kind: str, value: Any) -> str:
    """What a step gave; of an agent's work what it said and used, not how that is kept."""
    if isinstance(value, dict):
        kept: dict[str, Any] = value  # pyright: ignore[reportUnknownVariableType]
        if kind == "tool" and "content" in kept:
            told = "\n".join(str(block.get("text", f"[{block.get('type')}]")) for block in kept["content"])
            return f"{'failed: ' if kept.get('is_error') else ''}{one_line(told)}"
        if kind == "turn" and "usage" in kept:
            return ", ".join(filter(None, (shown(str(kept.get("model"))), used(kept["usage"]))))
        if kind in _OPERATIONS and isinstance(kept.get("answer"), dict):
            answer = kept["answer"]
            return short_json(answer["data"]) if answer.get("data") is not None else one_line(str(answer.get("text")))
    return short_json(value)


def _print_record(record: Mapping[str, Any], *, server: str | None) -> None:
    print_field("run", shown(record["run_id"]))
    print_field("status", paint(record["status"], fg=_COLOURS.get(record["status"])))
    for name in ("created_at", "started_at", "finished_at", "deadline_at", "cancel_requested_at"):
        if record[name] is not None:
            print_field(name.removesuffix("_at").replace("_", " "), local_time(record[name]))
    print_field("took", _took(record))
    print_field("used", used(record.get("usage")))
    print_field("tags", shown(", ".join(record["tags"])))
    for name in ("attempt", "parent_run_id", "retried_from", "forked_from", "workflow_version"):
        print_field(name.replace("_", " "), shown(str(record[name] or "")))
    for wait in record["waiting_for"]:
        print_field("waits for", describe(wait))
        print_field("", answered_by(record["run_id"], wait, server=server) or "")
    for name in ("payload", "result"):
        if name == "payload" or record["status"] == RunStatus.COMPLETED:
            click.echo(paint(name, bold=True))
            print_json(record[name])
    if record["error"] is not None:
        click.echo(paint("error", bold=True))
        click.echo("\n".join(error_lines(record["error"])))
