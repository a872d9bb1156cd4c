"""The routes about continuing agents: talking to an instance, handing it work, and what came of it.

A prompt or a dispatch is a run to the engine, and none to callers: it is known by its dispatch id, on the stream of its
instance.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.types import Scope

from .. import codec, ids
from ..codec import NULL
from ..engine import RunHandle
from ..errors import (
    AgentInvalid,
    DispatchFinished,
    InstanceBusy,
    InvalidQuery,
    RouteNotFound,
    RunFinished,
    SessionNotFound,
)
from ..journal import Outcome, Run, RunStatus
from .answers import Answer, BytesAnswer, NoContent, dispatch_id_header, json_answer
from .asking import Asked, Asking
from .body import RequestHeaders, check_media_type, idempotency_key
from .errors import error_of_run
from .query import Query
from .reader import find_instance
from .runs import last_event_id
from .services import Services
from .sse import EventStream
from .starting import freeze_request

if TYPE_CHECKING:
    from ..agents import AgentEntry, AgentFile

_NONE: frozenset[str] = frozenset()
_LIST = frozenset({"limit", "before"})
_WAIT = frozenset({"wait"})
_EVENTS = frozenset({"after", "limit", "types"})
_STREAM = frozenset({"after"})
_HISTORY = frozenset({"after", "limit"})

_DEFAULT_ITEMS = 50
_MOST_ITEMS = 200
_DEFAULT_EVENTS = 1000
_DEFAULT_ENTRIES = 100
_MOST_ENTRIES = 1000
_HIGHEST_INDEX = 10**15 - 1
#: A page of events ends early rather than hold more than this.
_PAGE_BYTES = 4 * 1024**2
_CURSOR = re.compile(r"a([0-9a-f]{1,15})")


class AgentRoutes:
    """Handlers; each takes the request's scope and headers (some the body, too) and returns what answers it."""

    def __init__(self, services: Services, asking: Asking) -> None:
        self._services = services
        self._journal = services.journal
        self._engine = services.engine
        self._root = services.settings.root
        self._depth = services.settings.limits.json_depth
        self._asking = asking

    # The files

    async def list(self, scope: Scope, headers: RequestHeaders) -> Answer:
        Query(scope["query_string"], _NONE)
        catalog = (await self._asking.instances()).catalog
        entries = await asyncio.to_thread(catalog.entries)
        diagnostics = catalog.diagnostics()
        return json_answer(
            200,
            {
                "agents": [self._summary(entry) for entry in entries],
                "diagnostics": [
                    {"path": item.path, "line": item.line, "message": item.message} for item in diagnostics
                ],
            },
        )

    async def get(self, scope: Scope, headers: RequestHeaders) -> Answer:
        Query(scope["query_string"], _NONE)
        file = await self._file(scope)
        return json_answer(
            200,
            {
                "name": file.name,
                "path": self._relative(file.path),
                "description": file.description,
                "version": file.version,
            },
        )

    async def instances(self, scope: Scope, headers: RequestHeaders) -> Answer:
        from ..agents.instances import shown_instance

        query = Query(scope["query_string"], _LIST)
        before, limit = _page(query)
        name = scope["path_params"]["name"]
        await self._file(scope)
        # One more than asked for, to know whether there are more.
        found = await self._journal.streams(name, before=before, limit=limit + 1)
        request = freeze_request(scope, headers)
        listed = [shown_instance(info) for info in found[:limit] if await self._may_read(info.stream_id, request)]
        following = _cursor(found[limit - 1].seq) if len(found) > limit else None
        return json_answer(200, {"instances": listed, "next": following})

    # Talking

    async def prompt(self, scope: Scope, headers: RequestHeaders, body: bytes) -> Answer | EventStream:
        Query(scope["query_string"], _NONE)
        streams = b"text/event-stream" in headers.get(b"accept", b"")
        handle = await self._submit("prompt", scope, headers, body)
        if streams:
            return EventStream(self._services, handle.run_id, for_caller=True)
        outcome = await self._services.patience.outcome(handle)
        if outcome is None:
            return await self._accepted(handle)
        return self._finished(handle.run_id, outcome)

    async def dispatch(self, scope: Scope, headers: RequestHeaders, body: bytes) -> Answer:
        Query(scope["query_string"], _NONE)
        return await self._accepted(await self._submit("dispatch", scope, headers, body))

    async def abort(self, scope: Scope, headers: RequestHeaders) -> Answer:
        check_media_type(headers)
        Query(scope["query_string"], _NONE)
        session = scope["path_params"]["session"]
        stream_id = await self._find(scope, headers, "abort", session=session)
        await find_instance(self._journal, stream_id)
        active = await (await self._asking.instances()).active(stream_id, session)
        dispatch_id = None if active is None else ids.split_interaction_id(active.run_id)
        is_aborted = active is not None
        if active is not None:
            try:
                await self._engine.cancel(active.run_id)
            except RunFinished:
                is_aborted = False  # it was faster
        return json_answer(200, {"aborted": is_aborted, "dispatch_id": dispatch_id and dispatch_id[1]})

    # Dispatches

    async def dispatches(self, scope: Scope, headers: RequestHeaders) -> Answer:
        from ..agents.instances import shown_dispatch

        query = Query(scope["query_string"], _LIST)
        before, limit = _page(query)
        stream_id = await self._find(scope, headers, "read")
        await find_instance(self._journal, stream_id)
        page = await self._journal.interactions(stream_id, before=before, limit=limit)
        shown = [shown_dispatch(run, values=False) for run in page.runs]
        following = None if page.next_before is None else _cursor(page.next_before)
        return json_answer(200, {"dispatches": shown, "next": following})

    async def get_dispatch(self, scope: Scope, headers: RequestHeaders) -> Answer:
        query = Query(scope["query_string"], _WAIT)
        waits = query.choice("wait", ("result",)) is not None
        run = await self._dispatch(scope, headers, "read")
        if waits and not run.is_final:
            # It may still go on then, in which case that is what it is.
            await self._services.patience.bounded(self._engine.wait(run.run_id))
            run = await self._dispatch(scope, headers, "read")
        return await self._shown(run, 200)

    async def cancel_dispatch(self, scope: Scope, headers: RequestHeaders) -> Answer:
        check_media_type(headers)
        Query(scope["query_string"], _NONE)
        run = await self._dispatch(scope, headers, "abort")
        try:
            run = await self._engine.cancel(run.run_id)
        except RunFinished:
            run = await self._dispatch(scope, headers, "abort")
            raise DispatchFinished(scope["path_params"]["dispatch_id"], run.status.value) from None
        return await self._shown(run, 200 if run.is_final else 202)

    # The instance

    async def instance(self, scope: Scope, headers: RequestHeaders) -> Answer:
        from ..agents.instances import shown_instance, shown_session

        Query(scope["query_string"], _NONE)
        stream_id = await self._find(scope, headers, "read")
        info = await find_instance(self._journal, stream_id)
        sessions = [shown_session(found) for found in await self._journal.sessions(stream_id)]
        return json_answer(200, {**shown_instance(info), "sessions": sessions})

    async def delete(self, scope: Scope, headers: RequestHeaders) -> Answer:
        from ..agents.room import forget_files

        check_media_type(headers)
        Query(scope["query_string"], _NONE)
        stream_id = await self._find(scope, headers, "delete")
        await find_instance(self._journal, stream_id)
        if await self._journal.delete_stream(stream_id) is False:
            raise InstanceBusy(scope["path_params"]["name"], scope["path_params"]["instance_id"])
        await forget_files(self._services.settings, stream_id)
        return NoContent()

    async def events(self, scope: Scope, headers: RequestHeaders) -> Answer:
        query = Query(scope["query_string"], _EVENTS)
        after = query.number("after", lowest=0, highest=_HIGHEST_INDEX) or 0
        limit = query.number("limit", lowest=1, highest=_DEFAULT_EVENTS) or _DEFAULT_EVENTS
        types = query.items("types")
        stream_id = await self._find(scope, headers, "read")
        await find_instance(self._journal, stream_id)
        events = await self._journal.events(stream_id, after=after, limit=limit, types=types, limit_bytes=_PAGE_BYTES)
        next_after = events[-1].index if events else after
        return json_answer(200, {"events": [event.to_dict() for event in events], "next_after": next_after})

    async def stream(self, scope: Scope, headers: RequestHeaders) -> EventStream:
        query = Query(scope["query_string"], _STREAM)
        after = query.number("after", lowest=0, highest=_HIGHEST_INDEX)
        if after is None:
            after = last_event_id(headers)
        stream_id = await self._find(scope, headers, "read")
        await find_instance(self._journal, stream_id)
        return EventStream(self._services, stream_id, after=after)

    async def blob(self, scope: Scope, headers: RequestHeaders) -> Answer:
        Query(scope["query_string"], _NONE)
        stream_id = await self._find(scope, headers, "read")
        await find_instance(self._journal, stream_id)
        digest = scope["path_params"]["digest"]
        # Contents of files are kept in the same place, under names of another kind.
        data = await self._journal.blob(stream_id, digest) if digest.startswith("sha256:") else None
        if data is None:
            raise RouteNotFound(scope["path"])
        return BytesAnswer(data)

    async def sessions(self, scope: Scope, headers: RequestHeaders) -> Answer:
        from ..agents.instances import shown_session

        Query(scope["query_string"], _NONE)
        stream_id = await self._find(scope, headers, "read")
        await find_instance(self._journal, stream_id)
        sessions = [shown_session(found) for found in await self._journal.sessions(stream_id)]
        return json_answer(200, {"sessions": sessions})

    async def history(self, scope: Scope, headers: RequestHeaders) -> Answer:
        from ..agents.instances import shown_entry

        query = Query(scope["query_string"], _HISTORY)
        after = query.number("after", lowest=0, highest=_HIGHEST_INDEX) or 0
        limit = query.number("limit", lowest=1, highest=_MOST_ENTRIES) or _DEFAULT_ENTRIES
        session = scope["path_params"]["session"]
        stream_id = await self._find(scope, headers, "read", session=session)
        await find_instance(self._journal, stream_id)
        instances = await self._asking.instances()
        entries = await instances.history(stream_id, session, after=after, limit=limit)
        if not entries and not await instances.has_session(stream_id, session):
            raise SessionNotFound(session)
        next_after = entries[-1].position if entries else after
        return json_answer(200, {"entries": [shown_entry(entry) for entry in entries], "next_after": next_after})

    async def delete_session(self, scope: Scope, headers: RequestHeaders) -> Answer:
        check_media_type(headers)
        Query(scope["query_string"], _NONE)
        session = scope["path_params"]["session"]
        stream_id = await self._find(scope, headers, "delete", session=session)
        await find_instance(self._journal, stream_id)
        instances = await self._asking.instances()
        if await instances.active(stream_id, session) is not None:
            raise InstanceBusy(scope["path_params"]["name"], scope["path_params"]["instance_id"])
        if not await instances.delete_session(stream_id, session):
            raise SessionNotFound(session)
        return NoContent()

    # What these have in common

    async def _file(self, scope: Scope) -> AgentFile:
        name = scope["path_params"]["name"]
        catalog = (await self._asking.instances()).catalog
        try:
            return await asyncio.to_thread(catalog.find, name)
        except AgentInvalid as error:
            raise self._asking.hidden(name, error) from None

    async def _find(self, scope: Scope, headers: RequestHeaders, action: str, *, session: str | None = None) -> str:
        """The stream of the request's instance, with which its caller may do this."""
        name, instance_id = scope["path_params"]["name"], scope["path_params"]["instance_id"]
        request = freeze_request(scope, headers)
        _, stream_id = await self._asking.find(name, instance_id, action=action, session=session, request=request)
        return stream_id

    async def _may_read(self, stream_id: str, request: codec.Raw) -> bool:
        name, instance_id = ids.parse_agent_stream(stream_id) or ("", "")
        try:
            await self._asking.find(name, instance_id, action="read", request=request)
        except Exception:  # noqa: BLE001  (the file's hook: whatever it raises is a no)
            return False
        return True

    async def _submit(self, action: str, scope: Scope, headers: RequestHeaders, body: bytes) -> RunHandle:
        what = "The message" if action == "prompt" else "The dispatch"
        value: Any = codec.decode(body, what, max_depth=self._depth) if body else {}
        return await self._asking.submit(
            scope["path_params"]["name"],
            scope["path_params"]["instance_id"],
            Asked(action=action, value=value),
            request=freeze_request(scope, headers),
            idempotency_key=idempotency_key(headers),
        )

    async def _accepted(self, handle: RunHandle) -> Answer:
        receipt = await (await self._asking.instances()).receipt(handle)
        body = codec.encode(receipt.to_dict())
        return Answer(202, body, (dispatch_id_header(receipt.dispatch_id),))

    def _finished(self, run_id: str, outcome: Outcome) -> Answer:
        error = error_of_run(run_id, outcome.status, outcome.error, dev=self._services.dev)
        if error is not None:
            raise error
        stream_id, dispatch_id = ids.split_interaction_id(run_id) or ("", run_id)
        told = {
            "status": RunStatus.COMPLETED.value,
            "dispatch_id": dispatch_id,
            "stream_id": stream_id,
            "result": NULL if outcome.result is None else outcome.result,
        }
        return Answer(200, codec.encode(told), (dispatch_id_header(dispatch_id),))

    async def _dispatch(self, scope: Scope, headers: RequestHeaders, action: str) -> Run:
        stream_id = await self._find(scope, headers, action)
        return await (await self._asking.instances()).dispatch(stream_id, scope["path_params"]["dispatch_id"])

    async def _shown(self, run: Run, status: int) -> Answer:
        from ..agents.instances import shown_dispatch

        waits = await self._journal.open_waits(run.run_id) if run.status is RunStatus.WAITING else ()
        shown = {**shown_dispatch(run), "waiting_for": [wait.to_dict() for wait in waits]}
        return Answer(status, codec.encode(shown), (dispatch_id_header(run.run_id.rpartition(":")[2]),))

    def _summary(self, entry: AgentEntry) -> dict[str, Any]:
        file, error = entry.agent, entry.error
        details: dict[str, Any] = {} if error is None else error.details or {}
        return {
            "name": entry.name,
            "path": self._relative(entry.path),
            "description": "" if file is None else file.description,
            "version": None if file is None else file.version,
            "error": None
            if error is None
            else {"type": error.type, "message": str(error), "line": details.get("line")},
        }

    def _relative(self, path: Path) -> str:
        return str(path.relative_to(self._root)) if path.is_relative_to(self._root) else str(path)


def _page(query: Query) -> tuple[int | None, int]:
    text = query.text("before")
    before = None
    if text is not None:
        match = _CURSOR.fullmatch(text)
        if match is None:
            raise InvalidQuery("before", text, "the `next` of an earlier page")
        before = int(match[1], 16)
    return before, query.number("limit", lowest=1, highest=_MOST_ITEMS) or _DEFAULT_ITEMS


def _cursor(seq: int) -> str:
    return f"a{seq:x}"
