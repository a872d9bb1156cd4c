"""`pyflue logs`: a run's events, straight from the journal or from a server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from ..clock import to_us
from ..journal import follow as follow_journal
from .events import FORMATS, LEVELS, EventJson, Selection, to_json
from .output import print_json, say, shown
from .params import Duration, RunId, Words, server_option
from .project import client_of, find_run, open_for_reading, what_it_waits_for

if TYPE_CHECKING:
    from ..client import PyFlueClient

_PAGE = 500


@click.command()
@click.argument("run_id", type=RunId())
@click.option("--follow", "-f", is_flag=True, help="Go on with new events until the run ends.")
@click.option("--after", type=click.IntRange(min=0), default=0, metavar="INDEX", help="Only events above this index.")
@click.option("--since", type=Duration(), metavar="TIME", help="Only events of the last 30s, 10m, 2h …")
@click.option("--types", type=Words(), default=(), metavar="A,B", help="Only events of these types.")
@click.option(
    "--level",
    type=click.Choice(LEVELS),
    default=LEVELS[0],
    help="Only log lines from this level upwards; a failed run's end is an error, other events are information.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["pretty", "json", "ndjson"]),
    default="pretty",
    show_default=True,
    help="Lines to read, one JSON document, or one JSON object per line.",
)
@server_option
@click.pass_context
def command(
    ctx: click.Context,
    run_id: str,
    follow: bool,
    after: int,
    since: float | None,
    types: tuple[str, ...],
    level: str,
    form: str,
    server: str | None,
) -> None:
    """Show the events of a run.

    Reads the project's journal, so it works beside a running server and without one; --server asks a server.
    """
    if follow and form == "json":
        raise click.UsageError("--format json is one document, which --follow never completes; use --format ndjson.")
    from_time = None if since is None else datetime.now(UTC) - timedelta(seconds=since)
    selection = Selection(types=types, level=level, since=from_time)
    if server is None:
        pages = _from_journal(ctx, run_id, after=after, since=from_time, follow=follow)
    else:
        pages = _from_server(client_of(ctx, server), run_id, after=after, follow=follow)
    asyncio.run(_show(pages, selection, form))


async def _show(pages: AsyncGenerator[Sequence[EventJson], None], selection: Selection, form: str) -> None:
    collected: list[EventJson] = []
    async with aclosing(pages):
        async for page in pages:
            chosen = [event for event in page if selection.takes(event)]
            if form == "json":
                collected += chosen
            elif chosen:
                click.echo("\n".join(map(FORMATS[form], chosen)))
    if form == "json":
        print_json({"events": collected})


async def _from_journal(
    ctx: click.Context, run_id: str, *, after: int, since: datetime | None, follow: bool
) -> AsyncGenerator[Sequence[EventJson], None]:
    async with open_for_reading(ctx) as journal:
        run = await find_run(journal, run_id)
        if since is not None:
            after = max(after, await journal.first_event_since(run_id, to_us(since)))
        if follow and not run.is_final:
            if (waits_for := await what_it_waits_for(journal, run)) is not None:
                say(waits_for)
            async for event in follow_journal(journal, run_id, after=min(after, run.last_index)):
                yield [to_json(event)]
            return
        while events := await journal.events(run_id, after=after, limit=_PAGE):
            after = events[-1].index
            yield [to_json(event) for event in events]


async def _from_server(
    client: PyFlueClient, run_id: str, *, after: int, follow: bool
) -> AsyncGenerator[Sequence[EventJson], None]:
    async with client:
        if follow:
            events = client.runs.stream(
                run_id, after=after, on_broken=lambda error: say(f"reconnecting: {shown(error.message)}")
            )
            async with aclosing(events):
                async for event in events:
                    yield [event]
            return
        while page := (await client.runs.events(run_id, after=after, limit=_PAGE))["events"]:
            after = page[-1]["index"]
            yield page
