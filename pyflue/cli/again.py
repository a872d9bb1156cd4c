"""`pyflue runs retry`, `fork` and `replay`: what can be done with a run that was recorded before.

Retry and fork make a new run and see it through as `pyflue run` does, or leave it to a server. Replay makes nothing: it
compares the workflow as it is now with what the run has recorded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from ..settings import load_settings
from .output import print_json, prints_aside, shown
from .params import RunId, json_option, read_json, server_option
from .project import PICKED_UP, ask_server, find_run, open_for_reading, project_root
from .running import Ended, drive, drive_remote, enqueue, refuse_in_memory, report, report_accepted

if TYPE_CHECKING:
    from ..client import PyFlueClient
    from ..engine import Submission
    from ..engine.replaying import Replayed
    from ..main import Project

DIFFERS = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Again:
    """A new run out of an old one: what to submit here, and how to ask a server for it."""

    run_id: str
    here: Callable[[Project], Awaitable[Submission]]
    there: Callable[[PyFlueClient], Awaitable[dict[str, Any]]]


@click.command("retry")
@click.argument("run_id", type=RunId())
@click.option("--stream", is_flag=True, help="Show events as they happen, on stderr.")
@click.option("--detach", is_flag=True, help="Only accept the new run and print its id; a server drives it.")
@json_option
@server_option
@click.pass_context
def retry_run(ctx: click.Context, run_id: str, stream: bool, detach: bool, as_json: bool, server: str | None) -> None:
    """Start a new run that goes on where one failed or was cancelled, and print its result as `pyflue run` does.

    It takes over what was recorded before the step began that failed last.
    """

    async def here(project: Project) -> Submission:
        from ..engine.forking import retry_of

        return await retry_of(project.journal, project.catalog, run_id)

    again = _Again(run_id=run_id, here=here, there=lambda client: client.runs.retry(run_id))
    _start(ctx, again, stream=stream, detach=detach, as_json=as_json, server=server)


@click.command("fork")
@click.argument("run_id", type=RunId())
@click.option(
    "--from", "from_step", required=True, metavar="STEP", help="The step to begin with; `runs steps` lists them."
)
@click.option("--payload-patch", metavar="JSON", help="A JSON merge patch of the payload: JSON, @file, - for stdin.")
@click.option("--stream", is_flag=True, help="Show events as they happen, on stderr.")
@click.option("--detach", is_flag=True, help="Only accept the new run and print its id; a server drives it.")
@json_option
@server_option
@click.pass_context
def fork_run(
    ctx: click.Context,
    run_id: str,
    from_step: str,
    payload_patch: str | None,
    stream: bool,
    detach: bool,
    as_json: bool,
    server: str | None,
) -> None:
    """Start a new run from a step of one that has ended, and print its result as `pyflue run` does.

    It takes over what was recorded before that step began.
    """
    patch = {} if payload_patch is None else {"payload_patch": read_json(payload_patch, "--payload-patch", "The patch")}

    async def here(project: Project) -> Submission:
        from ..engine.forking import fork_of

        return await fork_of(
            project.journal, project.catalog, run_id, from_step=from_step, limits=project.settings.limits, **patch
        )

    again = _Again(run_id=run_id, here=here, there=lambda client: client.runs.fork(run_id, from_step, **patch))
    _start(ctx, again, stream=stream, detach=detach, as_json=as_json, server=server)


@click.command("replay")
@click.argument("run_id", type=RunId())
@json_option
@click.pass_context
def replay_run(ctx: click.Context, run_id: str, as_json: bool) -> None:
    """Run a workflow against what a run that has ended recorded, and say where they first differ (exit code 1).

    Nothing is written, and no step is carried out. Code outside of steps does run.
    """
    from ..engine import loops
    from ..engine.replaying import replay
    from ..main import LazyAgents, open_catalog

    settings = load_settings(project_root(ctx))

    async def compare() -> Replayed:
        async with open_for_reading(ctx) as journal:
            await find_run(journal, run_id)
            agents = LazyAgents(settings)
            with prints_aside():
                catalog = open_catalog(settings)
                try:
                    return await replay(
                        journal, catalog, run_id, limits=settings.limits, root=settings.root, agents=agents
                    )
                finally:
                    await agents.close()

    replayed = loops.run(compare())
    if as_json:
        print_json(
            {
                "is_same": replayed.is_same,
                "divergence": replayed.divergence,
                "step": replayed.step,
                "calls": replayed.calls,
            }
        )
    elif replayed.is_same:
        click.echo(f"same: {replayed.calls:,} recorded call{'' if replayed.calls == 1 else 's'}")
    else:
        where = "" if replayed.step is None else f" at {replayed.step}"
        click.echo(shown(f"differs{where}: {replayed.divergence}"))
    if not replayed.is_same:
        ctx.exit(DIFFERS)


def _start(ctx: click.Context, again: _Again, *, stream: bool, detach: bool, as_json: bool, server: str | None) -> None:
    if stream and detach:
        raise click.UsageError("--stream and --detach exclude each other: `pyflue logs --follow` shows a detached run.")
    if detach and server is None:
        report_accepted(asyncio.run(_enqueue(ctx, again)), as_json=as_json, waits_for=PICKED_UP)
    elif detach:
        accepted = asyncio.run(ask_server(ctx, str(server), again.there))
        report_accepted(accepted["run_id"], as_json=as_json, waits_for=f"{server} drives it.")
    elif server is None:
        from ..engine import loops

        report(loops.run(_drive_here(ctx, again, stream=stream)), as_json=as_json)
    else:
        ended = asyncio.run(ask_server(ctx, server, lambda client: _drive_there(client, again, server, stream=stream)))
        report(ended, as_json=as_json)


async def _drive_here(ctx: click.Context, again: _Again, *, stream: bool) -> Ended:
    from ..main import open_project

    with prints_aside():
        project = open_project(project_root(ctx))
        try:
            submission = await again.here(project)
            async with project.engine(adopts=False) as engine:
                handle = await engine.submit(submission)
                return await drive(engine, handle, submission.workflow.name, journal=project.journal, stream=stream)
        finally:
            await project.journal.close()


async def _drive_there(client: PyFlueClient, again: _Again, server: str, *, stream: bool) -> Ended:
    workflow = (await client.runs.get(again.run_id))["workflow"]
    events = client.runs.stream((await again.there(client))["run_id"])
    return await drive_remote(client, events, workflow, server=server, stream=stream)


async def _enqueue(ctx: click.Context, again: _Again) -> str:
    from ..main import open_project

    with prints_aside():
        project = open_project(project_root(ctx))
        try:
            refuse_in_memory(project.settings)
            return await enqueue(project.journal, await again.here(project))
        finally:
            await project.journal.close()
