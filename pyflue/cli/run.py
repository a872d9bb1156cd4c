"""`pyflue run`: one run of a workflow, in this process, on a server, or left to a server of this project."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import click

from .. import codec
from ..errors import TooLarge
from .output import prints_aside
from .params import Duration, Tags, WorkflowName, decode_value, json_option, read_value, server_option
from .project import PICKED_UP, client_of, find_workflow, project_root
from .running import Ended, drive, drive_remote, enqueue, refuse_in_memory, report, report_accepted

if TYPE_CHECKING:
    from ..client import PyFlueClient
    from ..engine import Submission
    from ..main import Project


@dataclass(frozen=True, slots=True, kw_only=True)
class _Order:
    """What was asked for."""

    name: str
    payload: bytes
    tags: tuple[str, ...]
    deadline_s: float | None


@click.command()
@click.argument("name", type=WorkflowName())
@click.option(
    "--payload", default="{}", metavar="JSON", help="The input: JSON, @file to read a file, - to read stdin. [{}]"
)
@click.option("--tags", type=Tags(), default=(), metavar="A,B", help="Tags of the run.")
@click.option("--deadline", type=Duration(), metavar="TIME", help="End the run as failed after this time (90, 10m).")
@click.option("--stream", is_flag=True, help="Show events as they happen, on stderr.")
@click.option("--detach", is_flag=True, help="Only accept the run and print its id; a server drives it.")
@json_option
@server_option
@click.pass_context
def command(
    ctx: click.Context,
    name: str,
    payload: str,
    tags: tuple[str, ...],
    deadline: float | None,
    stream: bool,
    detach: bool,
    as_json: bool,
    server: str | None,
) -> None:
    """Run a workflow here and print its result.

    The result goes to stdout: text as it is, everything else as indented JSON (--json: with run id and status). Ctrl-C
    cancels the run. A failed run ends with exit code 1.
    """
    if stream and detach:
        raise click.UsageError("--stream and --detach exclude each other: `pyflue logs --follow` shows a detached run.")
    order = _Order(name=name, payload=read_value(payload, "--payload"), tags=tags, deadline_s=deadline)
    if detach:
        if server is None:
            run_id = asyncio.run(_accept(project_root(ctx), order))
            report_accepted(run_id, as_json=as_json, waits_for=PICKED_UP)
        else:
            run_id = asyncio.run(_send(client_of(ctx, server), order))
            report_accepted(run_id, as_json=as_json, waits_for=f"{server} drives it.")
        return
    if server is None:
        from ..engine import loops

        ended = loops.run(_run_here(project_root(ctx), order, stream=stream))
    else:
        ended = asyncio.run(_run_there(client_of(ctx, server), order, server, stream=stream))
    report(ended, as_json=as_json)


async def _run_here(root: Path, order: _Order, *, stream: bool) -> Ended:
    from ..main import open_project

    with prints_aside():
        project = open_project(root)
        try:
            submission = _submission(project, order)
            async with project.engine(adopts=False) as engine:
                handle = await engine.submit(submission)
                return await drive(engine, handle, order.name, journal=project.journal, stream=stream)
        finally:
            await project.journal.close()


async def _run_there(client: PyFlueClient, order: _Order, server: str, *, stream: bool) -> Ended:
    # How deep a payload may be is the server's decision.
    workflows, payload = client.workflows, decode_value(order.payload, "--payload", "The payload")
    # The same call again, with the same key, finds the same run: so its caller gets the result without `runs.get`.
    asked: dict[str, Any] = {"tags": order.tags, "deadline_s": order.deadline_s, "idempotency_key": uuid4().hex}
    async with client:
        return await drive_remote(
            client,
            workflows.stream(order.name, payload, **asked),
            order.name,
            server=server,
            stream=stream,
            repeat=lambda: workflows.invoke(order.name, payload, wait=True, **asked),
        )


async def _send(client: PyFlueClient, order: _Order) -> str:
    async with client:
        answer = await client.workflows.invoke(
            order.name,
            decode_value(order.payload, "--payload", "The payload"),
            tags=order.tags,
            deadline_s=order.deadline_s,
        )
        return answer["run_id"]


async def _accept(root: Path, order: _Order) -> str:
    """Put the run on the journal's queue, checked as if it were to start here."""
    from ..main import open_project

    with prints_aside():
        project = open_project(root)
        try:
            refuse_in_memory(project.settings)
            return await enqueue(project.journal, _submission(project, order))
        finally:
            await project.journal.close()


def _submission(project: Project, order: _Order) -> Submission:
    """
    Raises:
        WorkflowNotFound, WorkflowInvalid, InvalidJson, TooLarge, PayloadInvalid
    """
    from ..engine import Submission

    limits = project.settings.limits
    workflow = find_workflow(project.catalog, order.name)
    if len(order.payload) > limits.payload_bytes:
        raise TooLarge("The payload", len(order.payload), limits.payload_bytes, "limits.payload_bytes")
    payload = decode_value(order.payload, "--payload", "The payload", max_depth=limits.json_depth)
    return Submission(
        workflow=workflow,
        payload=codec.compact(order.payload, payload),
        parsed=workflow.parse(payload),
        tags=order.tags,
        deadline_s=order.deadline_s,
    )
