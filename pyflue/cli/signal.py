"""`pyflue signal`: tell a run something that it waits for, now or later."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import click

from ..settings import load_settings
from .output import print_json, say, shown
from .params import RunId, json_option, read_json, server_option
from .project import ask_server, find_run, open_for_writing, project_root, what_it_waits_for

if TYPE_CHECKING:
    from ..client import PyFlueClient

_OUTCOMES = {
    "delivered": "run {run_id} has it",
    "kept": "kept: the next wait of run {run_id} for {signal} takes it",
    "repeated": "run {run_id} had it before; nothing was changed",
}


@click.command()
@click.argument("run_id", type=RunId())
@click.argument("name")
@click.option(
    "--data",
    default="null",
    metavar="JSON",
    help="What the signal carries: JSON, @file to read a file, - stdin. [null]",
)
@click.option("--id", "signal_id", metavar="ID", help="Signals to a run with the same id are one.")
@json_option
@server_option
@click.pass_context
def command(
    ctx: click.Context, run_id: str, name: str, data: str, signal_id: str | None, as_json: bool, server: str | None
) -> None:
    """Send a signal to a run.

    Without --server it is written to the journal: an engine that runs takes it from there, or the next one to start. A
    signal that nothing waits for yet is kept.
    """
    value = read_json(data, "--data", f"The data of signal {name!r}")

    async def write() -> dict[str, Any]:
        from ..engine.answering import send_signal

        limits = load_settings(project_root(ctx)).limits
        async with open_for_writing(ctx) as journal:
            answer = await send_signal(journal, run_id, name, value, signal_id=signal_id, limits=limits)
            if (waits_for := await what_it_waits_for(journal, await find_run(journal, run_id))) is not None:
                say(waits_for)
            return {"status": answer.value, "run_id": run_id, "signal": name}

    async def ask(client: PyFlueClient) -> dict[str, Any]:
        return await client.runs.signal(run_id, name, value, signal_id=signal_id)

    sent = asyncio.run(write() if server is None else ask_server(ctx, server, ask))
    if as_json:
        print_json(sent)
    say(shown(_OUTCOMES[sent["status"]].format(**sent)))
