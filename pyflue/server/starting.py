"""`POST /workflows/<name>`: from a request to a run, and the three ways to observe it.

This is the hottest route, so it takes the ASGI messages as they are: the headers are read once, what comes back is
composed from JSON that is already written, and nothing is validated that the workflow does not ask for. `app.py`
calls `answer`; the WebSocket route shares `find_workflow` and `parse_payload`.
"""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.types import Receive, Scope

from .. import codec
from ..codec import EMPTY_OBJECT, NULL, Raw
from ..engine import Submission, Workflow
from ..errors import WorkflowInvalid
from ..journal import Outcome
from ..logs import logger
from .answers import Answer, run_id_header
from .body import RequestHeaders, idempotency_key, read_body
from .errors import error_of_run
from .query import Query
from .security import TOKEN_NAME
from .services import Services
from .sse import EventStream

_log = logger("pyflue.server")

#: Headers whose values are secrets; `ctx.req` and the journal never see them.
_CREDENTIALS = frozenset(
    {
        b"authorization",
        b"cookie",
        b"proxy-authorization",
        b"x-amz-security-token",
        b"x-api-key",
        b"x-auth-token",
        b"x-csrf-token",
        b"x-forwarded-access-token",
    }
)
_PARAMETERS = frozenset({"wait", "tags", "deadline_s"})
#: The query of most requests, which needs no parser.
_WAITING = b"wait=result"
#: A deadline further away than this is a mistake.
LONGEST_DEADLINE_S = 10 * 365 * 86400.0


class WorkflowFinder:
    """Finds workflows by name without ever loading a file on the event loop."""

    def __init__(self, services: Services) -> None:
        self._catalog = services.catalog
        self._dev = services.dev
        self._loaded: set[str] = set()

    async def find(self, name: str) -> Workflow:
        """The current version of a workflow.

        Raises:
            WorkflowNotFound, WorkflowInvalid.
        """
        try:
            if name in self._loaded:
                return self._catalog.find(name)  # a look-up: only the first one may have to import the file
            workflow = await asyncio.to_thread(self._catalog.find, name)
        except WorkflowInvalid as error:
            raise error if self._dev else _without_source(name, error) from None
        self._loaded.add(name)
        return workflow


class RunStarter:
    """Starts runs and answers as the caller wants to observe them."""

    def __init__(self, services: Services, finder: WorkflowFinder) -> None:
        self._services = services
        self._finder = finder
        self._engine = services.engine
        self._limits = services.settings.limits
        self._patience = services.patience

    async def answer(self, name: str, scope: Scope, headers: RequestHeaders, receive: Receive) -> Answer | EventStream:
        """Start a run and answer 202, its result, or its events.

        Raises:
            WorkflowNotFound, WorkflowInvalid, InvalidJson, PayloadInvalid, and what `engine.submit` raises.
        """
        workflow = await self._finder.find(name)
        waits, tags, deadline_s = False, (), None
        if scope["query_string"] == _WAITING:
            waits = True
        elif scope["query_string"]:
            query = Query(scope["query_string"], _PARAMETERS)
            waits = query.choice("wait", ("result",)) is not None
            tags = query.items("tags")
            deadline_s = query.seconds("deadline_s", most=LONGEST_DEADLINE_S)
        streams = b"text/event-stream" in headers.get(b"accept", b"")
        body = await read_body(receive, headers, self._limits.payload_bytes)
        payload, parsed = parse_payload(workflow, body, self._limits.json_depth)
        handle = await self._engine.submit(
            Submission(
                workflow=workflow,
                payload=payload,
                parsed=parsed,
                tags=tags,
                deadline_s=deadline_s,
                idempotency_key=idempotency_key(headers),
                request=freeze_request(scope, headers),
            ),
            eager=waits and not streams,
        )
        if streams:
            return EventStream(self._services, handle.run_id, for_caller=True)
        outcome = await self._patience.outcome(handle) if waits else None
        return _accepted(handle.run_id) if outcome is None else self._finished(handle.run_id, outcome)

    def _finished(self, run_id: str, outcome: Outcome) -> Answer:
        error = error_of_run(run_id, outcome.status, outcome.error, dev=self._services.dev)
        if error is not None:
            raise error
        result = NULL if outcome.result is None else outcome.result
        body = b"".join((b'{"status":"completed","run_id":', codec.encode(run_id), b',"result":', result, b"}"))
        return Answer(200, body, (run_id_header(run_id),))


def _without_source(name: str, error: WorkflowInvalid) -> WorkflowInvalid:
    """What a caller outside of `dev` learns of a broken file: not its text, nor where it lies on this machine."""
    _log.warning("workflow_invalid", workflow=name, problem=str(error))
    return WorkflowInvalid(f"Workflow {name!r}", "its file cannot be loaded; the server's log says why.")


def _accepted(run_id: str) -> Answer:
    body = b"".join((b'{"status":"accepted","run_id":', codec.encode(run_id), b"}"))
    return Answer(202, body, (run_id_header(run_id),))


def parse_payload(workflow: Workflow, body: bytes, max_depth: int) -> tuple[Raw, Any]:
    """The payload as it is stored, and as the workflow's type makes of it. No body is `{}`.

    Raises:
        InvalidJson, TooDeep, PayloadInvalid.
    """
    if not body:
        return EMPTY_OBJECT, workflow.parse({})
    value = codec.decode(body, "The payload", max_depth=max_depth)
    return codec.compact(body, value), workflow.parse(value)


def freeze_request(scope: Scope, headers: RequestHeaders) -> Raw:
    """The request as the run keeps it: method, URL, headers without credentials, and who called."""
    path = scope.get("raw_path") or scope["path"].encode()
    query = scope["query_string"]
    url = b"%b://%b%b" % (scope["scheme"].encode(), headers.get(b"host", b""), path)
    client = scope["client"]
    return Raw(
        codec.encode(
            {
                "method": scope.get("method", "GET"),
                "url": (url + b"?" + query if query else url).decode("latin-1"),
                "headers": {
                    name.decode("latin-1"): value.decode("latin-1")
                    for name, value in headers.items()
                    if name not in _CREDENTIALS
                },
                "client": f"{client[0]}:{client[1]}" if client else None,
                "token_name": scope.get(TOKEN_NAME),
            }
        )
    )
