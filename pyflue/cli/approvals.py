"""`pyflue approvals`: what runs ask of people, and the answers; in the journal, or on a server."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from .. import codec
from ..clock import SystemClock
from ..errors import ApprovalNotFound
from ..settings import load_settings
from .output import local_time, paint, print_field, print_json, print_table, roughly, say, short_json, shown
from .params import AnyRunId, ApprovalId, WorkflowName, json_option, read_json, server_option
from .project import (
    ask_server,
    current_user,
    find_run,
    open_for_reading,
    open_for_writing,
    project_root,
    token_of,
    what_it_waits_for,
)

if TYPE_CHECKING:
    from ..client import PyFlueClient

#: The states of an approval, as `journal.ApprovalState` has them, which is too much to import for `--help`.
STATES = ("open", "approved", "rejected", "expired", "cancelled")
#: As many approvals as a server lists at a time.
_PAGE = 200
_COLOURS = {"open": "cyan", "approved": "green", "rejected": "red", "expired": "yellow", "cancelled": "yellow"}


@click.group()
def command() -> None:
    """List what runs ask of people, and approve or reject it."""


@command.command("list")
@click.option("--state", "states", type=click.Choice(STATES), multiple=True, help="Only in this state. [open]")
@click.option("--workflow", "workflows", type=WorkflowName(), multiple=True, help="Only of runs of this workflow.")
@click.option("--run", "run_id", type=AnyRunId(), help="Only of this run.")
@click.option("--name", help="Only of this name.")
@click.option("--limit", type=click.IntRange(1, _PAGE), default=50, show_default=True, help="At most this many.")
@click.option("--before", metavar="CURSOR", help="Go on where a list ended: what it called `next`.")
@json_option
@server_option
@click.pass_context
def list_approvals(
    ctx: click.Context,
    states: tuple[str, ...],
    workflows: tuple[str, ...],
    run_id: str | None,
    name: str | None,
    limit: int,
    before: str | None,
    as_json: bool,
    server: str | None,
) -> None:
    """List approvals, newest first: the open ones, or those of --state."""

    async def read() -> dict[str, Any]:
        from ..journal import ApprovalFilter, ApprovalState

        chosen = [ApprovalState(state) for state in states or ("open",)]
        where = ApprovalFilter(states=chosen, workflows=workflows, run_id=run_id, name=name)
        async with open_for_reading(ctx) as journal:
            found = await journal.approvals(where, before=before, limit=limit + 1)
        following = found[limit - 1].wait.wait_id if len(found) > limit else None
        return {"approvals": [approval.to_dict() for approval in found[:limit]], "next": following}

    async def ask(client: PyFlueClient) -> dict[str, Any]:
        return await client.approvals.list(
            state=states, workflow=workflows, run_id=run_id, name=name, limit=limit, cursor=before
        )

    page = asyncio.run(read() if server is None else ask_server(ctx, server, ask))
    if as_json:
        print_json(page)
    elif page["approvals"]:
        columns = ["APPROVAL", "WORKFLOW", "NAME", "STATE", "AGE", "DUE", "ASKED"]
        print_table(columns, [_row(approval) for approval in page["approvals"]], whole=3)
        if page["next"] is not None:
            say(f"There are more; --before {page['next']} goes on from here.")
    else:
        say("no approvals" if states else "no open approvals")


@command.command("show")
@click.argument("approval_id", type=ApprovalId())
@json_option
@server_option
@click.pass_context
def show_approval(ctx: click.Context, approval_id: str, as_json: bool, server: str | None) -> None:
    """Show an approval: what is asked, the shape of an answer with data, and the decision."""

    async def read() -> dict[str, Any]:
        async with open_for_reading(ctx) as journal:
            approval = await journal.approval(approval_id)
            if approval is None:
                raise ApprovalNotFound(approval_id)
            return approval.to_dict()

    async def ask(client: PyFlueClient) -> dict[str, Any]:
        return await client.approvals.get(approval_id)

    approval = asyncio.run(read() if server is None else ask_server(ctx, server, ask))
    if as_json:
        print_json(approval)
        return
    _print_approval(codec.load(codec.encode(approval)))
    if approval["state"] == "open":
        at_server = "" if server is None else f" --server {server}"
        for verb in ("approve", "reject"):
            say(shown(f"pyflue approvals {verb} {approval_id}{at_server}"))


@command.command("approve")
@click.argument("approval_id", type=ApprovalId())
@click.option("--data", metavar="JSON", help="Approve this instead of what is asked: JSON, @file, - for stdin.")
@click.option("--reason", help="Why, for people.")
@click.option("--by", help="Who decides. [the user of this system; a server with tokens: the name of the token]")
@json_option
@server_option
@click.pass_context
def approve(
    ctx: click.Context,
    approval_id: str,
    data: str | None,
    reason: str | None,
    by: str | None,
    as_json: bool,
    server: str | None,
) -> None:
    """Approve what a run asks, as it stands or with other data.

    Without --server the decision is written to the journal: an engine that runs takes it from there, or the next one to
    start.
    """
    given = {} if data is None else {"data": read_json(data, "--data", "The decision's data")}
    _decide(ctx, approval_id, True, given, reason=reason, by=by, as_json=as_json, server=server)


@command.command("reject")
@click.argument("approval_id", type=ApprovalId())
@click.option("--reason", help="Why, for people.")
@click.option("--by", help="Who decides. [the user of this system; a server with tokens: the name of the token]")
@json_option
@server_option
@click.pass_context
def reject(
    ctx: click.Context, approval_id: str, reason: str | None, by: str | None, as_json: bool, server: str | None
) -> None:
    """Reject what a run asks."""
    _decide(ctx, approval_id, False, {}, reason=reason, by=by, as_json=as_json, server=server)


def _decide(
    ctx: click.Context,
    approval_id: str,
    approved: bool,
    given: Mapping[str, Any],
    *,
    reason: str | None,
    by: str | None,
    as_json: bool,
    server: str | None,
) -> None:
    async def write() -> dict[str, Any]:
        from ..engine.answering import decide

        limits = load_settings(project_root(ctx)).limits
        async with open_for_writing(ctx) as journal:
            approval = await decide(
                journal,
                approval_id,
                approved=approved,
                by=by or current_user(),
                reason=reason,
                limits=limits,
                clock=SystemClock(),
                **given,
            )
            run = await find_run(journal, approval.wait.run_id)
            if (waits_for := await what_it_waits_for(journal, run)) is not None:
                say(waits_for)
            return approval.to_dict()

    async def ask(client: PyFlueClient) -> dict[str, Any]:
        # A server with tokens knows who asks, and lets nobody else be named.
        name = by or (None if token_of(ctx) else current_user())
        if approved:
            return await client.approvals.approve(approval_id, reason=reason, by=name, **given)
        return await client.approvals.reject(approval_id, reason=reason, by=name)

    approval = asyncio.run(write() if server is None else ask_server(ctx, server, ask))
    if as_json:
        print_json(approval)
    decision: Mapping[str, Any] = approval["decision"] or {}
    decided_by = decision.get("by")
    earlier = f" (by {decided_by}, before; nothing was changed)" if by is not None and decided_by != by else ""
    say(shown(f"{approval['name']} of run {approval['run_id']} is {approval['state']}{earlier}"))


def _row(approval: Mapping[str, Any]) -> list[str]:
    now = datetime.now(UTC)
    age = now - datetime.fromisoformat(approval["created_at"])
    due = None if approval["due_at"] is None else datetime.fromisoformat(approval["due_at"]) - now
    if due is None or approval["state"] != "open":
        due_in = ""
    else:
        due_in = f"in {roughly(due.total_seconds())}" if due.total_seconds() > 0 else "over"
    return [
        approval["approval_id"],
        approval["workflow"],
        approval["name"],
        approval["state"],
        roughly(age.total_seconds()),
        due_in,
        short_json(approval["request"]),
    ]


def _print_approval(approval: Mapping[str, Any]) -> None:
    for name in ("approval_id", "run_id"):
        print_field(name.removesuffix("_id"), shown(approval[name]))
    print_field("state", paint(approval["state"], fg=_COLOURS.get(approval["state"])))
    for name in ("workflow", "name", "step"):
        print_field(name, shown(approval[name]))
    for name in ("created_at", "due_at"):
        print_field(name.removesuffix("_at"), "" if approval[name] is None else local_time(approval[name]))
    for name in ("request", "schema", "decision"):
        if name == "request" or approval[name] is not None:
            click.echo(paint(name, bold=True))
            print_json(approval[name])
