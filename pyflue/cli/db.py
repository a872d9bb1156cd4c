"""`pyflue db`: the journal file itself."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from ..clock import to_us
from ..errors import JournalUnreadable
from ..journal import Checked
from ..settings import load_settings
from .output import counted, print_json, say, shown
from .params import Duration, json_option
from .project import existing_journal, open_for_reading, open_for_writing, project_root

#: Runs deleted in one transaction: few enough not to hold up a running server.
_BATCH = 200
PROBLEMS_FOUND = 1


@click.group()
def command() -> None:
    """Check, copy and tidy the journal."""


@command.command("check")
@json_option
@click.pass_context
def check(ctx: click.Context, as_json: bool) -> None:
    """Read the whole journal and report what is broken. Exit code 1 if anything is; nothing is changed."""
    checked = asyncio.run(_check(ctx))
    if as_json:
        print_json(
            {
                "path": checked.path,
                "schema_version": checked.schema_version,
                "size_bytes": checked.size_bytes,
                "runs": checked.runs,
                "problems": list(checked.problems),
            }
        )
    else:
        for problem in checked.problems:
            click.echo(shown(problem))
        verdict = "sound" if not checked.problems else counted(len(checked.problems), "problem")
        click.echo(shown(f"{checked.path}: {counted(checked.runs, 'run')}, {checked.size_bytes:,} bytes, {verdict}"))
    if checked.problems:
        say("Put a backup in its place, or move the file away to start a new journal.")
        ctx.exit(PROBLEMS_FOUND)


@command.command("backup")
@click.argument("target", type=click.Path(dir_okay=False, path_type=Path))
@json_option
@click.pass_context
def backup(ctx: click.Context, target: Path, as_json: bool) -> None:
    """Write a consistent copy of the journal to a new file, also while a server is running."""
    if target.exists():
        raise click.BadParameter(f"{target} is there already; a backup never overwrites.", param_hint="TARGET")
    if not target.parent.is_dir():
        raise click.BadParameter(f"There is no folder {target.parent}.", param_hint="TARGET")
    existing_journal(ctx)

    async def copy() -> int:
        async with open_for_reading(ctx) as journal:
            return await journal.backup(target)

    size_bytes = asyncio.run(copy())
    if as_json:
        print_json({"path": str(target), "size_bytes": size_bytes})
    say(f"{target}: {size_bytes:,} bytes")


@command.command("gc")
@click.option(
    "--older-than", type=Duration(), required=True, metavar="TIME", help="Delete runs that ended longer ago: 12h, 30d."
)
@json_option
@click.pass_context
def collect(ctx: click.Context, older_than: float, as_json: bool) -> None:
    """Delete old finished runs with their events, and expired idempotency keys. Other runs are never touched."""
    existing_journal(ctx)
    before_us = to_us(datetime.now(UTC) - timedelta(seconds=older_than))

    async def delete() -> int:
        from ..agents.room import forget_files

        settings = load_settings(project_root(ctx))
        deleted = 0
        async with open_for_writing(ctx) as journal:
            while run_ids := await journal.delete_finished(before_us=before_us, limit=_BATCH):
                deleted += len(run_ids)
                for run_id in run_ids:
                    await forget_files(settings, run_id)
            await journal.forget_keys()
        return deleted

    deleted = asyncio.run(delete())
    if as_json:
        print_json({"deleted": deleted})
    say(f"{counted(deleted, 'run')} deleted")


async def _check(ctx: click.Context) -> Checked:
    path = existing_journal(ctx)
    try:
        async with open_for_reading(ctx) as journal:
            return await journal.check()
    except JournalUnreadable as error:
        if path is None or not os.access(path, os.R_OK):
            raise
        # What keeps the file from being opened is what the check has found.
        return Checked(
            path=str(path), schema_version=0, size_bytes=path.stat().st_size, runs=0, problems=(error.message,)
        )
