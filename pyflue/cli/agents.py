"""`pyflue agents`: the agents of the project, or those of a server: their instances, and talking to them."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncGenerator, Coroutine, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

import click

from .. import codec
from ..errors import InstanceNotFound, PyFlueError, SessionNotFound
from ..journal import follow as follow_journal
from .dispatches import cancel_dispatch, list_dispatches
from .events import FORMATS, EventJson, to_json
from .output import (
    local_time,
    one_line,
    paint,
    print_field,
    print_json,
    print_table,
    prints_aside,
    safe_json,
    say,
    shown,
)
from .params import AgentName, Words, json_option, read_value, server_option
from .project import PICKED_UP, ask_server, client_of, find_stream, open_for_reading, project_root, stream_of
from .questions import Approver, next_line
from .running import enqueue, refuse_in_memory
from .talking import Shower, Talk, raise_failure, see_through, talk_here, talk_there

if TYPE_CHECKING:
    from ..client import PyFlueClient

T = TypeVar("T")

_PAGE = 200
_MOST_INSTANCES = 20


@click.group()
def command() -> None:
    """List agents, talk to them, and look at what they did."""


@command.command("list")
@json_option
@server_option
@click.pass_context
def list_agents(ctx: click.Context, as_json: bool, server: str | None) -> None:
    """List the agents; those that cannot be used are listed with the reason."""
    if server is None:
        agents = _local_agents(ctx)
    else:
        agents = asyncio.run(ask_server(ctx, server, lambda client: client.agents.list()))
    if as_json:
        print_json({"agents": agents})
    elif agents:
        print_table(["NAME", "PATH", "DESCRIPTION"], [_row(agent) for agent in agents])
    else:
        say("no agents; put one into src/agents/")


@command.command("show")
@click.argument("name", type=AgentName())
@click.argument("instance_id", metavar="[ID]", required=False)
@json_option
@server_option
@click.pass_context
def show_agent(ctx: click.Context, name: str, instance_id: str | None, as_json: bool, server: str | None) -> None:
    """Show an agent and its newest instances, or one instance and its sessions."""
    if instance_id is not None:
        _show_instance(ctx, name, instance_id, as_json=as_json, server=server)
        return

    async def read() -> dict[str, Any]:
        from ..agents.instances import shown_instance

        file = _find_file(ctx, name)
        async with open_for_reading(ctx) as journal:
            found = await journal.streams(name, limit=_MOST_INSTANCES)
        return {
            "name": file["name"],
            "path": file["path"],
            "description": file["description"],
            "version": file["version"],
            "instances": [shown_instance(info) for info in found],
        }

    async def ask(client: PyFlueClient) -> dict[str, Any]:
        page = await client.agents.instances(name, limit=_MOST_INSTANCES)
        return {**await client.agents.get(name), "instances": page["instances"]}

    told = asyncio.run(read() if server is None else ask_server(ctx, server, ask))
    if as_json:
        print_json(told)
        return
    for field in ("name", "path", "version", "description"):
        print_field(field, shown(str(told[field] or ""), layout=True))
    if told["instances"]:
        rows = [[item["instance_id"], local_time(item["updated_at"])] for item in told["instances"]]
        print_table(["INSTANCE", "UPDATED"], rows)
    else:
        say("no instances")


@command.command("chat")
@click.argument("name", type=AgentName())
@click.argument("instance_id", metavar="[ID]", default="default")
@click.option("--session", default="default", show_default=True, help="The conversation.")
@json_option
@server_option
@click.pass_context
def chat(ctx: click.Context, name: str, instance_id: str, session: str, as_json: bool, server: str | None) -> None:
    """Talk to an agent, line by line.

    Its text comes as it is written. On a terminal you are asked about tools that need an approval; else they wait for
    `pyflue approvals`. Ctrl-C aborts an answer; a second one, or Ctrl-D, ends the chat. With --json each answer is a
    line of JSON.
    """

    out = sys.stdout

    async def talk() -> None:
        opening = talk_here(ctx, name, instance_id) if server is None else talk_there(ctx, server, name, instance_id)
        async with opening as partner:
            await _Chat(partner, session, out, as_json=as_json, server=server).go_on()

    if server is None:
        from ..engine import loops

        loops.run(talk())
    else:
        asyncio.run(talk())


@command.command("dispatch")
@click.argument("name", type=AgentName())
@click.argument("instance_id", metavar="ID")
@click.argument("input_", metavar="INPUT")
@click.option("--session", default="default", show_default=True, help="The conversation.")
@json_option
@server_option
@click.pass_context
def dispatch(
    ctx: click.Context, name: str, instance_id: str, input_: str, session: str, as_json: bool, server: str | None
) -> None:
    """Hand an agent some work and print the id it is known by.

    INPUT is what is said to the agent: the text itself, @file or - for stdin. A server drives it.
    """
    message = read_value(input_, "INPUT").decode(errors="replace")

    async def write() -> dict[str, Any]:
        return await _accept(ctx, name, instance_id, message, session)

    async def ask(client: PyFlueClient) -> dict[str, Any]:
        return await client.agent(name, instance_id).dispatch(message, session=session)

    receipt = asyncio.run(write() if server is None else ask_server(ctx, server, ask))
    if as_json:
        print_json(receipt)
    else:
        click.echo(receipt["dispatch_id"])
    say(f"queued: {PICKED_UP if server is None else f'{server} drives it.'}")


@command.command("history")
@click.argument("name", type=AgentName())
@click.argument("instance_id", metavar="ID")
@click.option("--session", default="default", show_default=True, help="The conversation.")
@json_option
@server_option
@click.pass_context
def history(ctx: click.Context, name: str, instance_id: str, session: str, as_json: bool, server: str | None) -> None:
    """Show what was said in a session of an instance."""

    async def read() -> list[dict[str, Any]]:
        from ..agents.instances import conversation_name, shown_entry

        found: list[dict[str, Any]] = []
        async with open_for_reading(ctx) as journal:
            stream_id = await find_stream(journal, name, instance_id)
            after = 0
            while entries := await journal.entries(stream_id, conversation_name(session), after=after, limit=_PAGE):
                after = entries[-1].position
                found += [shown_entry(entry) for entry in entries]
        if not found:
            raise SessionNotFound(session)
        return codec.load(codec.encode(found))

    async def ask(client: PyFlueClient) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        agent, after = client.agent(name, instance_id), 0
        while (page := await agent.history(session, after=after, limit=_PAGE))["entries"]:
            after = page["next_after"]
            found += page["entries"]
        return found

    entries = asyncio.run(read() if server is None else ask_server(ctx, server, ask))
    if as_json:
        print_json({"entries": entries})
        return
    for entry in entries:
        for line in _lines_of(entry["entry"]):
            click.echo(line)


@command.command("events")
@click.argument("name", type=AgentName())
@click.argument("instance_id", metavar="ID")
@click.option("--follow", "-f", is_flag=True, help="Go on with new events until Ctrl-C.")
@click.option("--after", type=click.IntRange(min=0), default=0, metavar="INDEX", help="Only events above this index.")
@click.option("--types", type=Words(), default=(), metavar="A,B", help="Only events of these types.")
@json_option
@server_option
@click.pass_context
def events(
    ctx: click.Context,
    name: str,
    instance_id: str,
    follow: bool,
    after: int,
    types: tuple[str, ...],
    as_json: bool,
    server: str | None,
) -> None:
    """Show the events of an instance: of all prompts and dispatches. With --json each is a line of JSON."""
    if server is None:
        pages = _from_journal(ctx, name, instance_id, after=after, follow=follow)
    else:
        pages = _from_server(client_of(ctx, server), name, instance_id, after=after, follow=follow)

    async def show() -> None:
        line_of = FORMATS["ndjson" if as_json else "pretty"]
        async with aclosing(pages):
            async for page in pages:
                if chosen := [event for event in page if not types or event["type"] in types]:
                    click.echo("\n".join(map(line_of, chosen)))

    asyncio.run(show())


command.add_command(list_dispatches)
command.add_command(cancel_dispatch)


# The files


def _local_agents(ctx: click.Context) -> list[dict[str, Any]]:
    from ..main import LazyAgents
    from ..settings import load_settings

    root = project_root(ctx)
    with prints_aside():
        entries = LazyAgents(load_settings(root)).catalog.entries()
    return [
        {
            "name": entry.name,
            "path": _relative(entry.path, root),
            "description": "" if entry.agent is None else entry.agent.description,
            "version": None if entry.agent is None else entry.agent.version,
            "error": None if entry.error is None else {"type": entry.error.type, "message": str(entry.error)},
        }
        for entry in entries
    ]


def _find_file(ctx: click.Context, name: str) -> dict[str, Any]:
    """
    Raises:
        AgentNotFound, AgentInvalid.
    """
    from ..main import LazyAgents
    from ..settings import load_settings

    root = project_root(ctx)
    with prints_aside():
        file = LazyAgents(load_settings(root)).catalog.find(name)
    return {
        "name": file.name,
        "path": _relative(file.path, root),
        "description": file.description,
        "version": file.version,
    }


def _row(agent: dict[str, Any]) -> list[str]:
    if agent.get("error"):
        return [agent["name"], agent["path"], f"broken: {agent['error']['message']}"]
    first_line, _, _ = agent["description"].strip().partition("\n")
    return [agent["name"], agent["path"], first_line]


def _relative(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


# Instances


def _show_instance(ctx: click.Context, name: str, instance_id: str, *, as_json: bool, server: str | None) -> None:
    async def read() -> dict[str, Any]:
        from ..agents.instances import shown_instance, shown_session

        async with open_for_reading(ctx) as journal:
            info = await journal.stream(stream_of(name, instance_id))
            if info is None:
                raise InstanceNotFound(name, instance_id)
            sessions = await journal.sessions(info.stream_id)
            return {**shown_instance(info), "sessions": [shown_session(found) for found in sessions]}

    async def ask(client: PyFlueClient) -> dict[str, Any]:
        return await client.agent(name, instance_id).get()

    told = asyncio.run(read() if server is None else ask_server(ctx, server, ask))
    if as_json:
        print_json(told)
        return
    print_field("agent", shown(told["agent"]))
    print_field("instance", shown(told["instance_id"]))
    print_field("events", f"{told['last_index']:,}")
    print_field("created", local_time(told["created_at"]))
    print_field("updated", local_time(told["updated_at"]))
    if told["sessions"]:
        rows = [
            [found["session"], str(found["entries"]), local_time(found["updated_at"])] for found in told["sessions"]
        ]
        print_table(["SESSION", "ENTRIES", "UPDATED"], rows)


async def _accept(ctx: click.Context, name: str, instance_id: str, message: str, session: str) -> dict[str, Any]:
    """Put a dispatch on the journal's queue, checked as if it were to start here."""
    import dataclasses

    from ..agents.instances import Instances, submission
    from ..agents.interactions import Interaction
    from ..main import open_project

    with prints_aside():
        project = open_project(project_root(ctx))
        try:
            refuse_in_memory(project.settings)
            # Not started: it only says what is to be submitted.
            instances = Instances(project.agents.catalog, project.journal, project.engine(adopts=False))
            file, stream_id = await instances.find(name, instance_id, action="dispatch", session=session)
            interaction = Interaction.of({"message": message, "session": session}, what=f"agent:{name}")
            interaction = dataclasses.replace(interaction, kind="dispatch")
            run_id = await enqueue(project.journal, submission(file, stream_id, interaction))
            run = await project.journal.run(run_id, values=False)
        finally:
            await project.journal.close()
    from ..clock import rfc3339

    return {
        "status": "accepted",
        "dispatch_id": run_id.rpartition(":")[2],
        "stream_id": stream_id,
        "accepted_at": None if run is None else rfc3339(run.created_at),
    }


async def _from_journal(
    ctx: click.Context, name: str, instance_id: str, *, after: int, follow: bool
) -> AsyncGenerator[Sequence[EventJson], None]:
    async with open_for_reading(ctx) as journal:
        stream_id = await find_stream(journal, name, instance_id)
        if follow:
            async for event in follow_journal(journal, stream_id, after=after):
                yield [to_json(event)]
            return
        while found := await journal.events(stream_id, after=after, limit=_PAGE):
            after = found[-1].index
            yield [to_json(event) for event in found]


async def _from_server(
    client: PyFlueClient, name: str, instance_id: str, *, after: int, follow: bool
) -> AsyncGenerator[Sequence[EventJson], None]:
    async with client:
        agent = client.agent(name, instance_id)
        if follow:
            following = agent.follow(after, on_broken=lambda error: say(f"reconnecting: {shown(error.message)}"))
            async with aclosing(following) as found:
                async for event in found:
                    if "index" in event:
                        yield [event]
            return
        while page := (await agent.events(after=after, limit=_PAGE))["events"]:
            after = page[-1]["index"]
            yield page


def _lines_of(entry: dict[str, Any]) -> list[str]:
    """An entry of a conversation to read."""
    if entry.get("type") == "compaction":
        return [paint("summary", bold=True), shown(str(entry.get("summary", "")), layout=True)]
    lines: list[str] = []
    for block in entry.get("blocks", ()):
        if block.get("type") == "text":
            lines.append(shown(str(block.get("text", "")), layout=True))
        elif block.get("type") == "tool_use":
            arguments = codec.encode(block.get("input")).decode()
            lines.append(paint(shown(f"· {block.get('name')} {arguments}"), dim=True))
        elif block.get("type") == "tool_result":
            told = "\n".join(str(part["text"]) for part in block.get("content", ()) if part.get("type") == "text")
            failed = "failed: " if block.get("is_error") else ""
            lines.append(paint(f"· {block.get('type')} {failed}{one_line(told)}", dim=True))
        else:
            lines.append(paint(f"· {shown(str(block.get('type')))}", dim=True))
    return [paint(shown(str(entry.get("role", ""))), bold=True), *lines]


# The chat


class _Chat:
    """Lines in, answers out, until the end of the input or a Ctrl-C while nothing is being answered."""

    def __init__(self, talk: Talk, session: str, out: TextIO, *, as_json: bool, server: str | None) -> None:
        self._talk = talk
        self._server = server
        self._session = session
        self._out = out
        self._as_json = as_json
        self._is_terminal = sys.stdin.isatty() and out.isatty()
        self._under_way: asyncio.Future[Any] | None = None

    async def go_on(self) -> None:
        loop = asyncio.get_running_loop()
        # Ctrl-C ends what is under way: an answer, or the wait for the next line and with it the chat.
        loop.add_signal_handler(signal.SIGINT, self._interrupt)
        try:
            while (line := await self._ended(self._next())) is not None:
                if line.strip():
                    await self._ended(self._answer(line))
        finally:
            loop.remove_signal_handler(signal.SIGINT)
            if self._is_terminal:
                click.echo(file=self._out)

    async def _next(self) -> str | None:
        if self._is_terminal:
            click.echo(paint("> ", bold=True), file=self._out, nl=False)
        return await next_line()

    def _interrupt(self) -> None:
        if self._under_way is not None:
            self._under_way.cancel()

    async def _ended(self, work: Coroutine[Any, Any, T]) -> T | None:
        """What `work` returns; None if Ctrl-C has ended it."""
        under_way = self._under_way = asyncio.ensure_future(work)
        try:
            return await under_way
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return None

    async def _answer(self, line: str) -> None:
        shower = Shower(self._session, self._out, streams=not self._as_json)
        try:
            record = await self._record(line, shower)
            if self._as_json:
                told = {name: record.get(name) for name in ("dispatch_id", "status", "result", "error")}
                click.echo(safe_json(codec.encode(told)), file=self._out)
            raise_failure(record)
        except PyFlueError as error:
            say(f"{paint('error:', fg='red', bold=True)} {shown(error.message)}")
            if error.hint:
                say(f"{paint('hint:', fg='cyan')} {shown(error.hint)}")

    async def _record(self, line: str, shower: Shower) -> Mapping[str, Any]:
        """What came of it, after it was shown as it came."""
        if not self._is_terminal:
            # Nobody is there who could be asked: what comes in is for the agent.
            return await see_through(self._talk, line, self._session, shower)
        approver = Approver(self._talk.decide, self._out, server=self._server, before=shower.end_line)
        return await see_through(self._talk, line, self._session, shower, approver=approver)
