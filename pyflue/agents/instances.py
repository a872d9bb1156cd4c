"""Continuing agents: their instances, and what can be asked of them.

An instance is an agent's name and an id of the caller's choice; it is there from its first interaction on. Servers,
commands and `init_agent` come here. Who may talk to an instance is asked of the agent's file before anything is done.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from .. import codec, ids
from ..clock import rfc3339
from ..codec import EMPTY_OBJECT, Raw
from ..engine import Engine, RequestInfo, RunHandle, Submission
from ..engine.threads import run_in_own_thread
from ..errors import AccessRefused, AgentNotFound, DispatchNotFound, InstanceNotFound, InvalidRequest
from ..journal import Entry, Journal, Page, Run, RunStatus, SessionInfo, StreamInfo
from .files import AgentCatalog, AgentFile, AgentRequest
from .interactions import AgentWorkflow, Interaction

#: The harness key of the one harness that an interaction makes.
_HARNESS = "agent"
#: A task's session is named after the session and the operation that it is for.
_OF_TASK = re.compile(r"(.+?):[0-7][0-9A-HJKMNP-TV-Z]{25}/.*", re.DOTALL)
#: What stands in the place of an id in the path of the list of instances.
_NO_INSTANCE_ID = "instances"


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What is handed out for a dispatch: it is in the journal, and will be done."""

    dispatch_id: str
    stream_id: str
    accepted_at: datetime
    is_repeat: bool = False

    def to_dict(self) -> dict[str, Any]:
        return {
            "status": "accepted",
            "dispatch_id": self.dispatch_id,
            "stream_id": self.stream_id,
            "accepted_at": rfc3339(self.accepted_at),
        }


class Instances:
    """The continuing agents of a project."""

    def __init__(self, catalog: AgentCatalog, journal: Journal, engine: Engine) -> None:
        self.catalog = catalog
        self._journal = journal
        self._engine = engine

    async def find(
        self,
        name: str,
        instance_id: str,
        *,
        action: str,
        session: str | None = None,
        request: RequestInfo | None = None,
    ) -> tuple[AgentFile, str]:
        """An agent whose instance the caller may do this with, and the instance's stream.

        Raises:
            AgentNotFound; AgentInvalid: the file cannot be used; InvalidRequest: no id of an instance; AccessRefused.
        """
        file = await run_in_own_thread(self.catalog.find, name)
        try:
            stream_id = ids.agent_stream(name, instance_id)
        except ValueError:
            raise InvalidRequest(
                f"{instance_id[:200]!r} is no id of an instance: 1 to 128 letters, digits and . _ ~ @ + = - are."
            ) from None
        if instance_id == _NO_INSTANCE_ID:
            raise InvalidRequest(f"{instance_id!r} is no id of an instance: it names the list of them.")
        asked = AgentRequest(agent=name, instance_id=instance_id, session=session, action=action, request=request)
        if not await file.allows(asked):
            raise AccessRefused(name, instance_id, action)
        return file, stream_id

    async def submit(
        self,
        file: AgentFile,
        stream_id: str,
        interaction: Interaction,
        *,
        request: Raw | None = None,
        idempotency_key: str | None = None,
    ) -> RunHandle:
        """Accept an interaction. A dispatch waits for its turn in the session; a prompt wants it free.

        Raises:
            SessionBusy: for a prompt; EngineStopping; IdempotencyConflict; TooLarge; JournalFull; JournalBusy.
        """
        return await self._engine.submit(
            submission(file, stream_id, interaction, request=request, idempotency_key=idempotency_key)
        )

    async def receipt(self, handle: RunHandle) -> Receipt:
        """The receipt of a dispatch that was accepted."""
        run = await self._journal.run(handle.run_id, values=False)
        if run is None:
            raise DispatchNotFound(handle.run_id)
        split = ids.split_interaction_id(handle.run_id)
        stream_id, dispatch_id = split or (handle.run_id, handle.run_id)
        return Receipt(
            dispatch_id=dispatch_id, stream_id=stream_id, accepted_at=run.created_at, is_repeat=handle.is_repeat
        )

    async def dispatch(self, stream_id: str, dispatch_id: str) -> Run:
        """An interaction of an instance, with what came of it.

        Raises:
            DispatchNotFound
        """
        run = await self._journal.run(f"{stream_id}:{dispatch_id}")
        if run is None or not ids.is_interaction(run.run_id):
            raise DispatchNotFound(dispatch_id)
        return run

    async def instances(self, name: str, *, before: int | None = None, limit: int = 50) -> Sequence[StreamInfo]:
        """The instances of an agent, those created last first."""
        if name not in self.catalog.names():
            raise AgentNotFound(name, self.catalog.names())
        return await self._journal.streams(name, before=before, limit=limit)

    async def instance(self, stream_id: str) -> StreamInfo:
        """One instance.

        Raises:
            InstanceNotFound: nobody has talked to it.
        """
        found = await self._journal.stream(stream_id)
        if found is None:
            name, instance_id = ids.parse_agent_stream(stream_id) or ("", stream_id)
            raise InstanceNotFound(name, instance_id)
        return found

    async def interactions(self, stream_id: str, *, before: int | None = None, limit: int = 50) -> Page:
        """What was asked of an instance, newest first."""
        return await self._journal.interactions(stream_id, before=before, limit=limit)

    async def sessions(self, stream_id: str) -> Sequence[SessionInfo]:
        """The sessions of an instance."""
        return await self._journal.sessions(stream_id)

    async def history(self, stream_id: str, session: str, *, after: int = 0, limit: int = 100) -> Sequence[Entry]:
        """The conversation of a session, oldest first."""
        return await self._journal.entries(stream_id, conversation_name(session), after=after, limit=limit)

    async def has_session(self, stream_id: str, session: str) -> bool:
        """Whether a session has a conversation."""
        return any(session_name(found.session) == session for found in await self.sessions(stream_id))

    async def active(self, stream_id: str, session: str) -> Run | None:
        """The interaction that is under way in a session, or waits there for something; not one that waits its turn."""
        begun = [run for run in await self._journal.unfinished() if ids.stream_of(run.run_id) == stream_id]
        # One that was woken is queued for a moment.
        page = await self._journal.interactions(stream_id)
        begun += [run for run in page.runs if run.status is RunStatus.QUEUED and run.attempt]
        for run in begun:
            whole = await self._journal.run(run.run_id)
            if whole is not None and whole.payload is not None and codec.load(whole.payload)["session"] == session:
                return whole
        return None

    async def delete_session(self, stream_id: str, session: str) -> bool:
        """Forget a session's conversation, and those of its tasks; whether there was one."""
        for found in await self.sessions(stream_id):
            task = _OF_TASK.fullmatch(session_name(found.session))
            if task is not None and task[1] == session:
                await self._journal.delete_session(stream_id, found.session)
        return await self._journal.delete_session(stream_id, conversation_name(session)) > 0


def submission(
    file: AgentFile,
    stream_id: str,
    interaction: Interaction,
    *,
    request: Raw | None = None,
    idempotency_key: str | None = None,
) -> Submission:
    """An interaction as an engine is asked for it."""
    return Submission(
        workflow=AgentWorkflow(file),
        payload=interaction.to_raw(),
        parsed=interaction,
        request=request,
        idempotency_key=idempotency_key,
        stream_id=stream_id,
        lane=f"{stream_id}/{interaction.session}",
        needs_free_lane=interaction.kind == "prompt",
    )


def conversation_name(session: str) -> str:
    """What a session of an instance is called in the journal."""
    return f"{_HARNESS}/{session}"


def session_name(conversation: str) -> str:
    """The session whose conversation this is."""
    return conversation.removeprefix(f"{_HARNESS}/")


def shown_dispatch(run: Run, *, values: bool = True) -> dict[str, Any]:
    """An interaction as JSON; `values=False` leaves out what it was asked and what it answered, as lists do."""
    _, dispatch_id = ids.split_interaction_id(run.run_id) or ("", run.run_id)
    shown: dict[str, Any] = {
        "dispatch_id": dispatch_id,
        "stream_id": ids.stream_of(run.run_id),
        "status": run.status.value,
        "error": run.error,
        "usage": run.usage,
        "created_at": rfc3339(run.created_at),
        "started_at": None if run.started_at is None else rfc3339(run.started_at),
        "finished_at": None if run.finished_at is None else rfc3339(run.finished_at),
    }
    if values:
        payload: dict[str, Any] = codec.load(run.payload or EMPTY_OBJECT)
        shown |= {"session": payload.get("session"), "kind": payload.get("kind"), "result": run.result}
    return shown


def shown_instance(info: StreamInfo) -> dict[str, Any]:
    """An instance as JSON."""
    name, instance_id = ids.parse_agent_stream(info.stream_id) or ("", info.stream_id)
    return {
        "agent": name,
        "instance_id": instance_id,
        "stream_id": info.stream_id,
        "last_index": info.last_index,
        "created_at": rfc3339(info.created_at),
        "updated_at": rfc3339(info.updated_at),
    }


def shown_session(found: SessionInfo) -> dict[str, Any]:
    """A session of an instance as JSON."""
    name = session_name(found.session)
    task = _OF_TASK.fullmatch(name)
    return {
        "session": name,
        "task_of": None if task is None else task[1],
        "entries": found.entries,
        "created_at": rfc3339(found.created_at),
        "updated_at": rfc3339(found.updated_at),
    }


def shown_entry(entry: Entry) -> dict[str, Any]:
    """An entry of a conversation as JSON."""
    _, dispatch_id = ids.split_interaction_id(entry.run_id) or ("", entry.run_id)
    return {"position": entry.position, "dispatch_id": dispatch_id, "at": rfc3339(entry.at), "entry": entry.entry}
