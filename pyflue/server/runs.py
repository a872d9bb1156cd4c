"""The routes about runs: lists, one run, its events, and what can be done to it."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

from starlette.types import Scope

from .. import codec, ids
from ..engine import NO_PATCH
from ..errors import InvalidQuery, RouteNotFound, RunNotFinished, RunNotFound
from ..journal import Run, RunFilter, RunStatus
from .answers import Answer, BytesAnswer, NoContent, json_answer, run_id_header
from .body import RequestHeaders, check_media_type, idempotency_key
from .query import Query
from .reader import find_run
from .services import Services
from .sse import EventStream

if TYPE_CHECKING:
    from .inputs import Fork

_LIST = frozenset(
    {
        "workflow",
        "status",
        "tag",
        "kind",
        "parent_run_id",
        "created_after",
        "created_before",
        "finished_after",
        "error",
        "limit",
        "before",
    }
)
_EVENTS = frozenset({"after", "limit", "types"})
_STREAM = frozenset({"after"})
_STEPS = frozenset({"after", "limit"})
_NONE: frozenset[str] = frozenset()

_DEFAULT_RUNS = 50
_MOST_RUNS = 200
_DEFAULT_EVENTS = 1000
_DEFAULT_STEPS = 100
_MOST_STEPS = 1000
#: A page of events ends early rather than hold more than this.
_EVENTS_BYTES = 4 * 1024**2
_HIGHEST_INDEX = 10**15 - 1
_CURSOR = re.compile(r"r([0-9a-f]{1,15})")


class RunRoutes:
    """Handlers; each takes the request's scope and headers (some the body, too) and returns what answers it."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._journal = services.journal
        self._engine = services.engine
        self._depth = services.settings.limits.json_depth

    async def list(self, scope: Scope, headers: RequestHeaders) -> Answer:
        query = Query(scope["query_string"], _LIST)
        before = query.text("before")
        page = await self._journal.runs(
            RunFilter(
                workflows=query.items("workflow"),
                statuses=_statuses(query),
                tags=query.items("tag"),
                kind=query.text("kind"),
                parent_run_id=query.text("parent_run_id"),
                created_after_us=query.time_us("created_after"),
                created_before_us=query.time_us("created_before"),
                finished_after_us=query.time_us("finished_after"),
                error_text=query.text("error"),
            ),
            before=None if before is None else _from_cursor(before),
            limit=query.number("limit", lowest=1, highest=_MOST_RUNS) or _DEFAULT_RUNS,
        )
        runs = [run.to_dict(values=False) for run in page.runs]
        return json_answer(200, {"runs": runs, "next": None if page.next_before is None else f"r{page.next_before:x}"})

    async def get(self, scope: Scope, headers: RequestHeaders) -> Answer:
        Query(scope["query_string"], _NONE)
        run = await find_run(self._journal, _run_id(scope))
        return json_answer(200, await self._record(run), run_id=run.run_id)

    async def steps(self, scope: Scope, headers: RequestHeaders) -> Answer:
        query = Query(scope["query_string"], _STEPS)
        after = query.text("after")
        limit = query.number("limit", lowest=1, highest=_MOST_STEPS) or _DEFAULT_STEPS
        run = await find_run(self._journal, _run_id(scope), values=False)
        steps = await self._journal.steps(run.run_id, after=after, limit=limit, limit_bytes=_EVENTS_BYTES)
        next_after = steps[-1].key if steps else after
        shown = {"steps": [step.to_dict() for step in steps], "next_after": next_after}
        return json_answer(200, shown, run_id=run.run_id)

    async def events(self, scope: Scope, headers: RequestHeaders) -> Answer:
        query = Query(scope["query_string"], _EVENTS)
        after = query.number("after", lowest=0, highest=_HIGHEST_INDEX) or 0
        limit = query.number("limit", lowest=1, highest=_DEFAULT_EVENTS) or _DEFAULT_EVENTS
        types = query.items("types")
        run = await find_run(self._journal, _run_id(scope), values=False)
        events = await self._journal.events(
            run.run_id, after=after, limit=limit, types=types, limit_bytes=_EVENTS_BYTES
        )
        next_after = events[-1].index if events else after
        shown = {"events": [event.to_dict() for event in events], "next_after": next_after}
        return json_answer(200, shown, run_id=run.run_id)

    async def stream(self, scope: Scope, headers: RequestHeaders) -> Answer | EventStream:
        query = Query(scope["query_string"], _STREAM)
        after = query.number("after", lowest=0, highest=_HIGHEST_INDEX)
        if after is None:
            after = last_event_id(headers)
        run = await find_run(self._journal, _run_id(scope), values=False)
        if run.is_final and after == run.last_index:
            # An ended stream makes a browser's EventSource connect again, for ever; this tells it not to.
            return NoContent([run_id_header(run.run_id)])
        return EventStream(self._services, run.run_id, after=after)

    async def blob(self, scope: Scope, headers: RequestHeaders) -> Answer:
        Query(scope["query_string"], _NONE)
        run = await find_run(self._journal, _run_id(scope), values=False)
        data = await self._journal.blob(run.run_id, scope["path_params"]["digest"])
        if data is None:
            raise RouteNotFound(scope["path"])
        return BytesAnswer(data)

    async def cancel(self, scope: Scope, headers: RequestHeaders) -> Answer:
        check_media_type(headers)
        Query(scope["query_string"], _NONE)
        run = await self._engine.cancel(_run_id(scope))
        return json_answer(200 if run.is_final else 202, await self._record(run), run_id=run.run_id)

    async def retry(self, scope: Scope, headers: RequestHeaders) -> Answer:
        check_media_type(headers)
        Query(scope["query_string"], _NONE)
        handle = await self._engine.retry(_run_id(scope), idempotency_key=idempotency_key(headers))
        return json_answer(202, {"status": "accepted", "run_id": handle.run_id}, run_id=handle.run_id)

    async def fork(self, scope: Scope, headers: RequestHeaders, body: bytes) -> Answer:
        Query(scope["query_string"], _NONE)
        fork = await asyncio.to_thread(self._read_fork, body)
        handle = await self._engine.fork(
            _run_id(scope),
            from_step=fork.from_step,
            payload_patch=fork.payload_patch if fork.gives("payload_patch") else NO_PATCH,
            idempotency_key=idempotency_key(headers),
        )
        return json_answer(202, {"status": "accepted", "run_id": handle.run_id}, run_id=handle.run_id)

    async def signal(self, scope: Scope, headers: RequestHeaders, body: bytes) -> Answer:
        Query(scope["query_string"], _NONE)
        run_id, name = _run_id(scope), scope["path_params"]["name"]
        data = codec.decode(body, f"The data of signal {name!r}", max_depth=self._depth) if body else None
        signal_id = headers.get(b"signal-id")
        answer = await self._engine.signal(
            run_id, name, data, signal_id=None if signal_id is None else signal_id.decode("latin-1")
        )
        return json_answer(202, {"status": answer.value, "run_id": run_id, "signal": name}, run_id=run_id)

    async def delete(self, scope: Scope, headers: RequestHeaders) -> Answer:
        from ..agents.room import forget_files

        check_media_type(headers)
        Query(scope["query_string"], _NONE)
        run_id = _run_id(scope)
        status = await self._journal.delete(run_id)
        if status is None:
            raise RunNotFound(run_id)
        if not status.is_final:
            raise RunNotFinished(run_id, status, "deleted")
        await forget_files(self._services.settings, run_id)
        return NoContent([run_id_header(run_id)])

    async def _record(self, run: Run) -> dict[str, Any]:
        """The run as JSON, with what it waits for."""
        waits = await self._journal.open_waits(run.run_id) if run.status is RunStatus.WAITING else ()
        return {**run.to_dict(), "waiting_for": [wait.to_dict() for wait in waits]}

    def _read_fork(self, body: bytes) -> Fork:
        from .inputs import Fork, read_input

        return read_input(Fork, body, self._depth)


def _run_id(scope: Scope) -> str:
    """
    Raises:
        RunNotFound: it is the id of an interaction with an agent, which is a run to the engine only.
    """
    run_id: str = scope["path_params"]["run_id"]
    if ids.is_interaction(run_id):
        raise RunNotFound(run_id)
    return run_id


def _statuses(query: Query) -> list[RunStatus]:
    statuses: list[RunStatus] = []
    for value in query.items("status"):
        try:
            statuses.append(RunStatus(value))
        except ValueError:
            raise InvalidQuery("status", value, f"some of {', '.join(RunStatus)}") from None
    return statuses


def _from_cursor(text: str) -> int:
    match = _CURSOR.fullmatch(text)
    if match is None:
        raise InvalidQuery("before", text, "the `next` of an earlier page")
    return int(match[1], 16)


def last_event_id(headers: RequestHeaders) -> int:
    text = headers.get(b"last-event-id", b"").decode("latin-1")
    if not text:
        return 0
    if not text.isascii() or not text.isdigit() or len(text) > len(str(_HIGHEST_INDEX)):
        raise InvalidQuery("Last-Event-ID", text, "the id of an event of the stream")
    return int(text)
