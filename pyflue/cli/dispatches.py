"""`pyflue agents dispatches` and `cancel`: what was asked of an instance, and the end of it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from .. import codec, ids
from ..errors import DispatchFinished, DispatchNotFound, RunFinished
from ..journal import Journal, Run, RunStatus
from .output import error_lines, local_time, paint, print_field, print_json, print_table, say, shown, took, used
from .params import AgentName, json_option, server_option
from .project import ask_server, end_run, find_stream, open_for_reading, open_for_writing, what_it_waits_for

if TYPE_CHECKING:
    from ..client import PyFlueClient

#: As many as a server lists at a time.
_PAGE = 200
#: Where a list goes on; the same word here and from a server.
_CURSOR = re.compile(r"a([0-9a-f]{1,15})")
_COLOURS = {"completed": "green", "failed": "red", "cancelled": "yellow", "running": "blue", "waiting": "cyan"}


@click.command("dispatches")
@click.argument("name", type=AgentName())
@click.argument("instance_id", metavar="ID")
@click.argument("dispatch_id", metavar="[DISPATCH_ID]", required=False)
@click.option("--limit", type=click.IntRange(1, _PAGE), default=20, show_default=True, help="At most this many.")
@click.option("--before", metavar="CURSOR", help="Go on where a list ended: what it called `next`.")
@json_option
@server_option
@click.pass_context
def list_dispatches(
    ctx: click.Context,
    name: str,
    instance_id: str,
    dispatch_id: str | None,
    limit: int,
    before: str | None,
    as_json: bool,
    server: str | None,
) -> None:
    """List what was asked of an instance, prompts and dispatches, newest first; or show one with its result."""
    if dispatch_id is not None:
        _show(ctx, name, instance_id, dispatch_id, as_json=as_json, server=server)
        return

    async def read() -> dict[str, Any]:
        from ..agents.instances import shown_dispatch

        async with open_for_reading(ctx) as journal:
            stream_id = await find_stream(journal, name, instance_id)
            page = await journal.interactions(stream_id, before=_from_cursor(before), limit=limit)
        following = None if page.next_before is None else f"a{page.next_before:x}"
        return {"dispatches": [shown_dispatch(run, values=False) for run in page.runs], "next": following}

    async def ask(client: PyFlueClient) -> dict[str, Any]:
        return await client.agent(name, instance_id).dispatches(limit=limit, cursor=before)

    page = asyncio.run(read() if server is None else ask_server(ctx, server, ask))
    if as_json:
        print_json(page)
    elif page["dispatches"]:
        rows = [_row(dispatch) for dispatch in codec.load(codec.encode(page["dispatches"]))]
        print_table(["DISPATCH", "STATUS", "CREATED", "TOOK", "ERROR"], rows, whole=2)
        if page["next"] is not None:
            say(f"There are more; --before {page['next']} goes on from here.")
    else:
        say("no dispatches")


@click.command("cancel")
@click.argument("name", type=AgentName())
@click.argument("instance_id", metavar="ID")
@click.argument("dispatch_id", metavar="DISPATCH_ID")
@json_option
@server_option
@click.pass_context
def cancel_dispatch(
    ctx: click.Context, name: str, instance_id: str, dispatch_id: str, as_json: bool, server: str | None
) -> None:
    """End a prompt or dispatch of an instance.

    Without --server the request is written to the journal and honoured by the engine that owns it: now, or when one is
    started.
    """

    async def write() -> dict[str, Any]:
        from ..agents.instances import shown_dispatch

        async with open_for_writing(ctx) as journal:
            run = await _find(journal, name, instance_id, dispatch_id)
            try:
                run = await end_run(journal, run.run_id)
            except RunFinished:
                run = await _find(journal, name, instance_id, dispatch_id)
                raise DispatchFinished(dispatch_id, run.status.value) from None
            if (waits_for := await what_it_waits_for(journal, run)) is not None:
                say(waits_for)
            return shown_dispatch(await _find(journal, name, instance_id, dispatch_id))

    async def ask(client: PyFlueClient) -> dict[str, Any]:
        return await client.agent(name, instance_id).cancel(dispatch_id)

    record = asyncio.run(write() if server is None else ask_server(ctx, server, ask))
    if as_json:
        print_json(record)
    if record["status"] == RunStatus.CANCELLED:
        say(f"dispatch {shown(dispatch_id)} is cancelled")
    else:
        say(
            f"cancelling dispatch {shown(dispatch_id)} was requested; it is {record['status']} until its engine has "
            "ended it"
        )


def _show(
    ctx: click.Context, name: str, instance_id: str, dispatch_id: str, *, as_json: bool, server: str | None
) -> None:
    async def read() -> dict[str, Any]:
        from ..agents.instances import shown_dispatch

        async with open_for_reading(ctx) as journal:
            run = await _find(journal, name, instance_id, dispatch_id)
            if (waits_for := await what_it_waits_for(journal, run)) is not None:
                say(waits_for)
            return shown_dispatch(run)

    async def ask(client: PyFlueClient) -> dict[str, Any]:
        return await client.agent(name, instance_id).dispatch_status(dispatch_id)

    record = asyncio.run(read() if server is None else ask_server(ctx, server, ask))
    if as_json:
        print_json(record)
        return
    told: dict[str, Any] = codec.load(codec.encode(record))
    for field in ("dispatch_id", "session", "kind"):
        print_field(field.removesuffix("_id"), shown(str(told[field] or "")))
    print_field("status", paint(told["status"], fg=_COLOURS.get(told["status"])))
    for field in ("created_at", "started_at", "finished_at"):
        print_field(field.removesuffix("_at"), "" if told[field] is None else local_time(told[field]))
    print_field("used", used(told["usage"]))
    if told["error"] is not None:
        print_field("error", shown("\n".join(error_lines(told["error"])), layout=True))
    if told["result"] is not None:
        click.echo(shown(str(told["result"].get("text", "")), layout=True))


async def _find(journal: Journal, name: str, instance_id: str, dispatch_id: str) -> Run:
    """
    Raises:
        InstanceNotFound, DispatchNotFound
    """
    run_id = f"{await find_stream(journal, name, instance_id)}:{dispatch_id}"
    run = await journal.run(run_id) if ids.is_interaction(run_id) else None
    if run is None:
        raise DispatchNotFound(dispatch_id)
    return run


def _from_cursor(word: str | None) -> int | None:
    if word is None:
        return None
    found = _CURSOR.fullmatch(word)
    if found is None:
        raise click.BadParameter(f"{word!r} is not what a list called its `next`.", param_hint="'--before'")
    return int(found[1], 16)


def _row(dispatch: Mapping[str, Any]) -> list[str]:
    started, finished = dispatch["started_at"], dispatch["finished_at"]
    seconds = None
    if started is not None and finished is not None:
        seconds = (datetime.fromisoformat(finished) - datetime.fromisoformat(started)).total_seconds()
    error = dispatch["error"]
    return [
        dispatch["dispatch_id"],
        dispatch["status"],
        local_time(dispatch["created_at"]),
        "" if seconds is None else took(seconds),
        "" if error is None else error_lines(error)[0],
    ]
