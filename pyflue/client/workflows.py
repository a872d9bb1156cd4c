"""`client.workflows`: a server's workflows, and the three ways to run one."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any
from urllib.parse import quote

from .. import codec
from ..codec import EMPTY_OBJECT
from ..errors import ServerAnswered, Unreachable
from .answers import error_of_run
from .connection import Connection
from .parts import key_header
from .sockets import WorkflowSocket, connect
from .streams import Cursor, fetch_run, follow, read
from .tags import checked_tags


class Workflows:
    """Find workflows and run them. A payload is any JSON value; pydantic models and dataclasses are dumped."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def list(self) -> list[dict[str, Any]]:
        """Every workflow of the server, broken ones included (those have an `error`)."""
        return (await self._connection.request("GET", "/workflows")).body["workflows"]

    async def get(self, name: str) -> dict[str, Any]:
        """One workflow with its payload and result schemas.

        Raises:
            WorkflowNotFound: the server has none of this name.
        """
        return (await self._connection.request("GET", _path(name))).body

    async def invoke(
        self,
        name: str,
        payload: Any = EMPTY_OBJECT,
        *,
        wait: bool = False,
        tags: Sequence[str] = (),
        deadline_s: float | None = None,
        idempotency_key: str | None = None,
    ) -> dict[str, Any]:
        """Start a run: `{"status": "accepted", "run_id": …}`, or with `wait` the finished one, with its `result`.

        `wait` has no limit of its own (`deadline_s` gives the run one): if the server answers before the run has
        ended, the client goes on waiting. A call that may have been lost can be repeated with the same
        `idempotency_key`; it finds the same run.

        Raises:
            WorkflowNotFound, WorkflowInvalid, PayloadInvalid, IdempotencyConflict: nothing was started.
            RunFailed, RunCancelled: (with `wait`) how the run `run_id` ended; `RunFailed.error` is its record's error.
                A `PyFlueError` with a status that the author raised comes as itself, or as `ServerAnswered` with its
                `type` and `status`.
            Unreachable: no answer; the run may have been started.
        """
        answer = await self._connection.request(
            "POST",
            _path(name),
            query={**_query(tags, deadline_s), "wait": "result" if wait else None},
            body=_body(payload),
            headers=key_header(idempotency_key),
            waits=wait,
        )
        if wait and answer.status == 202:
            return await self._wait(answer.body["run_id"])
        return answer.body

    async def stream(
        self,
        name: str,
        payload: Any = EMPTY_OBJECT,
        *,
        tags: Sequence[str] = (),
        deadline_s: float | None = None,
        idempotency_key: str | None = None,
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Start a run and yield its events through `run_end`, which holds how it ended.

        Once the first answer is here, a broken connection is taken up again from the last index, as with
        `runs.stream`. Leaving the loop early does not end the run.

        Raises:
            As `invoke` without `wait`; `Unreachable` also if the server could not be reached again in time.
        """
        cursor = Cursor()
        async with self._connection.stream(
            "POST",
            _path(name),
            query=_query(tags, deadline_s),
            body=_body(payload),
            headers=key_header(idempotency_key),
        ) as frames:
            run_id = frames.run_id
            if run_id is None:
                raise ServerAnswered("The answer does not name its run (X-Flue-Run-Id); is a proxy in between?")
            try:
                async with aclosing(read(frames, cursor)) as events:
                    async for event in events:
                        yield event
            except Unreachable:
                pass  # the run goes on, and so do we, below
        if not cursor.is_at_end:
            async with aclosing(follow(self._connection, run_id, cursor)) as events:
                async for event in events:
                    yield event

    def connect(self, name: str) -> AbstractAsyncContextManager[WorkflowSocket]:
        """A WebSocket for one run: `async with client.workflows.connect(name) as conn: await conn.run(payload)`.

        Raises (on entering):
            Unauthorized, Unreachable.
        """
        return connect(self._connection, _path(name))

    async def _wait(self, run_id: str) -> dict[str, Any]:
        record = await fetch_run(self._connection, run_id)
        # The events so far are of no interest here, only the one that will be last.
        async with aclosing(follow(self._connection, run_id, Cursor(_before_last(record)))) as events:
            async for _ in events:
                pass
        record = await fetch_run(self._connection, run_id)
        if record["status"] != "completed":
            raise error_of_run(record)
        return {"status": "completed", "run_id": run_id, "result": record["result"]}


def _before_last(record: dict[str, Any]) -> int:
    return max(record["last_index"] - 1, 0)


def _path(name: str) -> str:
    return f"/workflows/{quote(name, safe='')}"


def _body(payload: Any) -> codec.Raw:
    return codec.encode_value(payload, "The payload")


def _query(tags: Sequence[str], deadline_s: float | None) -> dict[str, Any]:
    return {"tags": ",".join(checked_tags(tags)) or None, "deadline_s": deadline_s}
