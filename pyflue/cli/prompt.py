"""`pyflue prompt`: one prompt to an agent, here or on a server."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import click

from ..ids import new_ulid
from .output import print_json, say, shown
from .params import AgentName, json_option, read_value, server_option
from .talking import Shower, raise_failure, see_through, talk_here, talk_there


@click.command()
@click.argument("text")
@click.option("--agent", type=AgentName(), help="An agent of the project. [one made of the settings: agent.model]")
@click.option("--id", "instance_id", metavar="ID", help="The instance to talk to. [one for this prompt only]")
@click.option("--model", metavar="MODEL", help="The model to ask, whatever the agent says.")
@click.option("--session", default="default", show_default=True, help="The conversation.")
@click.option("--stream", is_flag=True, help="Show the text as it is written.")
@json_option
@server_option
@click.pass_context
def command(
    ctx: click.Context,
    text: str,
    agent: str | None,
    instance_id: str | None,
    model: str | None,
    session: str,
    stream: bool,
    as_json: bool,
    server: str | None,
) -> None:
    """Ask an agent something and print its answer.

    TEXT is the text itself, @file or - for stdin. The answer goes to stdout, everything else to stderr. Without --id
    nothing is remembered. Ctrl-C aborts it.
    """
    if server is not None and agent is None:
        raise click.UsageError("--server needs --agent: an agent of the server.")
    if server is not None and model is not None:
        raise click.UsageError("--model and --server exclude each other: the server chooses the model.")
    if stream and as_json:
        raise click.UsageError("--stream and --json exclude each other.")
    message = read_value(text, "TEXT").decode(errors="replace")
    is_terminal = sys.stdout.isatty()
    shower = Shower(session, sys.stdout, streams=stream)

    async def ask() -> Any:
        named = instance_id or f"prompt-{new_ulid().lower()}"
        options = {} if model is None else {"agent.model_override": model}
        if server is not None and agent is not None:
            opening = talk_there(ctx, server, agent, named)
        else:
            opening = talk_here(ctx, agent, named, options=options)
        async with opening as talk:
            record = await see_through(talk, message, session, shower)
            if instance_id is None and record["status"] == "completed":
                await talk.forget()
            elif instance_id is None:
                from ..agents.files import PLAIN_AGENT

                say(f"pyflue agents events {agent or PLAIN_AGENT} {named}")
            return record

    if server is None:
        from ..engine import loops

        record = loops.run(ask())
    else:
        record = asyncio.run(ask())
    if as_json:
        shown_record = {"dispatch_id": record["dispatch_id"], "status": record["status"]}
        if record["status"] == "completed":
            print_json({**shown_record, "result": record["result"]})
        else:
            print_json({**shown_record, "error": record["error"]})
    raise_failure(record)
    if not stream and not as_json:
        answer = str(record["result"]["text"])
        # As bytes: from a string click would take out what looks like a colour, and a pipe gets the text as it is.
        click.echo((shown(answer, layout=True) if is_terminal else answer).encode())
