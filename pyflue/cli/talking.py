"""Talking to an agent's instance from the command line, in this process or on a server; the commands see no difference.

Each message is a generator of events as JSON objects, text as it is written among them; what came of it is asked for
afterwards. Used by `agents chat` and `prompt`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol, TextIO

import click

from .. import codec, ids
from ..errors import DispatchFinished, DispatchNotFound, Forbidden, InstanceNotFound, PyFlueError, RunFinished
from ..journal import EventType
from .events import EventJson, to_json
from .output import paint, prints_aside, say, short_json, shown, took
from .project import client_of, current_user, project_root, token_of

if TYPE_CHECKING:
    from ..agents.files import AgentFile
    from ..client import PyFlueClient
    from ..engine import EmbeddedEngine
    from ..main import Project
    from .questions import Approver


class Talk(Protocol):
    """One instance of an agent, to talk to."""

    def ask(self, message: str, session: str) -> AsyncGenerator[EventJson, None]:
        """Say something, and yield the events of that through `interaction_end`.

        Raises:
            SessionBusy, AgentNotFound, …: nothing was said.
        """
        ...

    async def record(self) -> Mapping[str, Any]:
        """What came of the last message: `dispatch_id`, `status`, `result`, `error`."""
        ...

    async def decide(self, approval_id: str, *, approved: bool, reason: str | None) -> None:
        """Approve or reject what an answer waits for.

        Raises:
            ApprovalNotFound, ApprovalClosed, Forbidden.
        """
        ...

    async def abort(self) -> bool:
        """End what was said last, if it goes on; whether it did."""
        ...

    async def forget(self) -> None:
        """Delete the instance."""
        ...


@asynccontextmanager
async def talk_here(
    ctx: click.Context, name: str | None, instance_id: str, *, options: Mapping[str, Any] | None = None
) -> AsyncGenerator[Talk, None]:
    """An instance of an agent of this project, driven by this process and only as far as it asks itself.

    Without a name it is one of the agent that the settings make.

    Raises:
        AgentNotFound, AgentInvalid: before anything is said.
    """
    from ..main import open_project

    with prints_aside():
        project = open_project(project_root(ctx), options=options)
        try:
            if name is not None:
                await asyncio.to_thread(project.agents.find, name)
            async with project.engine(adopts=False) as engine:
                yield _Here(project, engine, name, instance_id)
        finally:
            await project.journal.close()


@asynccontextmanager
async def talk_there(ctx: click.Context, server: str, name: str, instance_id: str) -> AsyncGenerator[Talk, None]:
    """An instance of an agent of a server."""
    async with client_of(ctx, server) as client:
        # A server with tokens knows who asks, and lets nobody else be named.
        yield _There(client, name, instance_id, None if token_of(ctx) else current_user())


class _Here:
    def __init__(self, project: Project, engine: EmbeddedEngine, name: str | None, instance_id: str) -> None:
        self._project = project
        self._engine = engine
        self._name = name
        self._instance_id = instance_id
        self._run_id: str | None = None

    async def ask(self, message: str, session: str) -> AsyncGenerator[EventJson, None]:
        from ..agents.interactions import Interaction
        from ..engine.live import LiveReader

        instances = self._project.instances(self._engine)
        file, stream_id = await self._find(session)
        interaction = Interaction.of({"message": message, "session": session}, what=f"agent:{file.name}")
        run_id = self._run_id = (await instances.submit(file, stream_id, interaction)).run_id
        journal, live = self._project.journal, self._engine.live
        prefix, reader, after = run_id.rpartition(":")[2] + "/", LiveReader(live, stream_id), 0
        with journal.watch(run_id) as bell, live.watch(stream_id, bell.ring):
            while True:
                events = await journal.events(run_id, after=after)
                for event in events:
                    after = event.index
                    told = to_json(event)
                    if event.type == EventType.TURN_REQUEST:
                        reader.announce(told["data"].get("turn_id", ""))
                    yield told
                    if event.type == EventType.INTERACTION_END:
                        return
                if not events:
                    deltas = [d for d in reader.read() if str(d.about.get("operation_id")).startswith(prefix)]
                    for delta in deltas:
                        yield delta.to_dict()
                    if not deltas:
                        await bell.wait()

    async def _find(self, session: str) -> tuple[AgentFile, str]:
        from ..agents.files import PLAIN_AGENT

        if self._name is None:
            return self._project.agents.find(PLAIN_AGENT), ids.agent_stream(PLAIN_AGENT, self._instance_id)
        instances = self._project.instances(self._engine)
        return await instances.find(self._name, self._instance_id, action="prompt", session=session)

    async def record(self) -> Mapping[str, Any]:
        from ..agents.instances import shown_dispatch

        run = None if self._run_id is None else await self._project.journal.run(self._run_id)
        if run is None:
            raise DispatchNotFound(self._run_id or "")
        return codec.load(codec.encode(shown_dispatch(run)))

    async def decide(self, approval_id: str, *, approved: bool, reason: str | None) -> None:
        await self._engine.decide(approval_id, approved=approved, by=current_user(), reason=reason)

    async def abort(self) -> bool:
        if self._run_id is None:
            return False
        try:
            await self._engine.cancel(self._run_id)
        except RunFinished:
            return False
        return True

    async def forget(self) -> None:
        from ..agents.room import forget_files

        if self._run_id is not None:
            stream_id = ids.stream_of(self._run_id)
            if await self._project.journal.delete_stream(stream_id):
                await forget_files(self._project.settings, stream_id)


class _There:
    def __init__(self, client: PyFlueClient, name: str, instance_id: str, user: str | None) -> None:
        self._agent = client.agent(name, instance_id)
        self._approvals = client.approvals
        self._user = user
        self._dispatch_id: str | None = None
        self._end: EventJson | None = None

    async def ask(self, message: str, session: str) -> AsyncGenerator[EventJson, None]:
        self._dispatch_id = self._end = None
        async with aclosing(self._agent.stream(message, session=session)) as events:
            async for event in events:
                if "index" in event:
                    self._dispatch_id = event["interaction_id"]
                    self._end = event
                yield event

    async def record(self) -> Mapping[str, Any]:
        dispatch_id = str(self._dispatch_id)
        try:
            return await self._agent.dispatch_status(dispatch_id)
        except Forbidden:
            # A token that may talk but not read: what the last event says is all there is.
            data: Mapping[str, Any] = {} if self._end is None else self._end["data"]
            known = {"status": data.get("status"), "result": data.get("result"), "error": data.get("error")}
            return {"dispatch_id": dispatch_id, **known}

    async def decide(self, approval_id: str, *, approved: bool, reason: str | None) -> None:
        decide = self._approvals.approve if approved else self._approvals.reject
        await decide(approval_id, reason=reason, by=self._user)

    async def abort(self) -> bool:
        if self._dispatch_id is None:
            return False
        try:
            await self._agent.cancel(self._dispatch_id)
        except DispatchFinished:
            return False
        return True

    async def forget(self) -> None:
        with contextlib.suppress(InstanceNotFound, Forbidden):
            await self._agent.delete()


class Shower:
    """Shows one answer while it is given: text as it comes, notes about tools and tasks on stderr.

    Text of tasks' own sessions is not shown.
    """

    def __init__(self, session: str, out: TextIO, *, streams: bool) -> None:
        """`out` is stdout as the command found it: what agents print goes elsewhere."""
        self._session = session
        self._out = out
        self._streams = streams
        self._is_terminal = out.isatty()
        #: The turn whose text is on the screen, the attempt, and how much of it is.
        self._turn: tuple[str, int] | None = None
        self._length = 0
        self._is_in_line = False

    def show(self, event: EventJson) -> None:
        """Show an event."""
        data = event["data"]
        if event["type"] == EventType.TEXT_DELTA:
            self._text(data, data["offset"], data["text"])
        elif event["type"] == EventType.TURN:
            self._text(data, 0, str(data.get("text", "")))
            self.end_line()
        elif (note := _note(event)) is not None:
            self.end_line()
            say(paint(note, dim=True))

    def end_line(self) -> None:
        """Let what comes next begin on a line of its own."""
        if self._is_in_line:
            click.echo(file=self._out)
            self._is_in_line = False

    def _text(self, data: Mapping[str, Any], offset: int, text: str) -> None:
        if not self._streams or data.get("session") != self._session or data.get("purpose", "agent") != "agent":
            return
        turn = (str(data.get("turn_id")), int(data.get("attempt", 1)))
        if turn != self._turn:
            if self._turn is not None and self._turn[0] == turn[0]:
                self.end_line()
                say(paint("the model begins again", dim=True))
            self._turn, self._length = turn, 0
        new = text[max(self._length - offset, 0) :]
        if new:
            self._length = offset + len(text)
            click.echo(shown(new, layout=True) if self._is_terminal else new, file=self._out, nl=False)
            self._is_in_line = True


def _note(event: EventJson) -> str | None:
    """What a person wants to know of an event besides text, on one line."""
    data = event["data"]
    match event["type"]:
        case EventType.TOOL_START:
            return f"· {shown(str(data.get('tool', '')))} {short_json(data.get('arguments', ''))}"
        case EventType.TOOL_END if data.get("is_error"):
            return f"· {shown(str(data.get('tool', '')))} failed"
        case EventType.TASK_START:
            return f"· task {shown(str(data.get('agent') or ''))}".rstrip()
        case EventType.COMPACTION_START:
            return "· the conversation is summarised"
        case EventType.STEP_RETRY if data.get("name") == "turn":
            return f"· the model failed; again in {took(float(data.get('delay_s') or 0))}"
        case EventType.APPROVAL_REQUESTED:
            approval_id = shown(str(data.get("approval_id", "")))
            return f"· waits for an approval: pyflue approvals approve {approval_id}"
        case _:
            return None


async def see_through(
    talk: Talk, message: str, session: str, shower: Shower, *, approver: Approver | None = None
) -> Mapping[str, Any]:
    """Say something, show the answer as it comes, and return what came of it. Being cancelled (Ctrl-C) aborts it.

    `approver` asks about the approvals that it waits for; without one they are only told of.
    """
    try:
        async with aclosing(talk.ask(message, session)) as events, approver or contextlib.nullcontext():
            async for event in events:
                if approver is None or not approver.takes(event):
                    shower.show(event)
        shower.end_line()
        return await talk.record()
    except asyncio.CancelledError:
        shower.end_line()
        try:
            if await talk.abort():
                say("aborted")
        except PyFlueError as error:
            say(f"the agent goes on: {shown(error.message)}")
        raise


def raise_failure(record: Mapping[str, Any]) -> None:
    """
    Raises:
        DispatchFailed and what else it failed with, DispatchCancelled: it did not complete.
    """
    if record["status"] != "completed":
        from ..client.answers import error_of_dispatch

        raise error_of_dispatch({**record, "error": record.get("error") or {}})
