"""`client.runs`: runs of a server, whatever started them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any
from urllib.parse import quote

from .. import codec
from ..errors import PyFlueError
from .connection import Connection
from .parts import NOT_GIVEN, body_of, joined, key_header
from .streams import Cursor, follow, run_path


class Runs:
    """Look at runs, follow them, send them signals, end them, start them again."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def get(self, run_id: str) -> dict[str, Any]:
        """The run's record: status, payload, result or error, times, and what it is `waiting_for`.

        Raises:
            RunNotFound: the server has no such run.
        """
        return (await self._connection.request("GET", run_path(run_id))).body

    async def list(
        self,
        *,
        workflow: str | Sequence[str] | None = None,
        status: str | Sequence[str] | None = None,
        tag: str | Sequence[str] | None = None,
        kind: str | None = None,
        parent_run_id: str | None = None,
        created_after: str | None = None,
        created_before: str | None = None,
        finished_after: str | None = None,
        error: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> dict[str, Any]:
        """A page of runs, newest first: `{"runs": [...], "next": cursor or None}`; pass `next` on as `cursor`.

        A run is listed if it has one of the workflows, one of the statuses, all of the tags and `error` in its error's
        text. Times are RFC 3339. The records come without payload and result.
        """
        query = {
            "workflow": joined(workflow),
            "status": joined(status),
            "tag": joined(tag),
            "kind": kind,
            "parent_run_id": parent_run_id,
            "created_after": created_after,
            "created_before": created_before,
            "finished_after": finished_after,
            "error": error,
            "limit": limit,
            "before": cursor,
        }
        return (await self._connection.request("GET", "/runs", query=query)).body

    async def events(
        self, run_id: str, *, after: int = 0, limit: int | None = None, types: Sequence[str] = ()
    ) -> dict[str, Any]:
        """The run's events above an index, as far as there are any: `{"events": [...], "next_after": index}`.

        Raises:
            RunNotFound: the server has no such run.
        """
        query = {"after": after, "limit": limit, "types": ",".join(types) or None}
        return (await self._connection.request("GET", run_path(run_id) + "/events", query=query)).body

    async def steps(self, run_id: str, *, after: str | None = None, limit: int | None = None) -> dict[str, Any]:
        """What the run has recorded of its durable calls: `{"steps": [...], "next_after": key}`; pass on as `after`.

        Steps, sleeps, signals, approvals and children in the order of the records; what it still waits for comes last.

        Raises:
            RunNotFound: the server has no such run.
        """
        query = {"after": after, "limit": limit}
        return (await self._connection.request("GET", run_path(run_id) + "/steps", query=query)).body

    def stream(
        self, run_id: str, *, after: int = 0, on_broken: Callable[[PyFlueError], None] | None = None
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the run's events above an index, then new ones as they happen, through `run_end`.

        A broken connection is taken up again from the last index, a restart of the server included; no event is
        repeated or left out. `on_broken` is called when that begins. Leaving the loop early closes the stream (at once
        under `contextlib.aclosing`).

        Raises:
            RunNotFound: the server has no such run.
            Unreachable: nobody is there, or the server could not be reached again in time.
        """
        return follow(self._connection, run_id, Cursor(after), is_first=True, on_broken=on_broken)

    async def cancel(self, run_id: str) -> dict[str, Any]:
        """End the run. Returns its record: final, or still ending with `cancel_requested_at` set.

        Raises:
            RunNotFound, RunFinished.
        """
        return (await self._connection.request("POST", run_path(run_id) + "/cancel")).body

    async def signal(self, run_id: str, name: str, data: Any = None, *, signal_id: str | None = None) -> dict[str, Any]:
        """Send a signal: `{"status": …, "run_id", "signal"}` with `delivered`, or `kept` for the run's next wait.

        A call that may have been lost can be repeated with the same `signal_id`; then it is `repeated`, and the run
        has had the signal once.

        Raises:
            RunNotFound, RunFinished.
            SignalInvalid: the name cannot be one, or the data does not fit what the run waits for.
            SignalConflict: the id came before with another name or other data.
        """
        answer = await self._connection.request(
            "POST",
            f"{run_path(run_id)}/signals/{quote(name, safe='')}",
            body=codec.encode_value(data, "The signal's data"),
            headers={} if signal_id is None else {"Signal-Id": signal_id},
        )
        return answer.body

    async def retry(self, run_id: str, *, idempotency_key: str | None = None) -> dict[str, Any]:
        """Start a new run like this failed or cancelled one: `{"status": "accepted", "run_id": the new one}`.

        It takes over what was recorded before the step began that failed last, and goes on from there.

        Raises:
            RunNotFound, RunNotFinished, RunFinished, IdempotencyConflict.
        """
        headers = key_header(idempotency_key)
        return (await self._connection.request("POST", run_path(run_id) + "/retry", headers=headers)).body

    async def fork(
        self,
        run_id: str,
        from_step: str,
        *,
        payload_patch: Any = NOT_GIVEN,
        idempotency_key: str | None = None,
    ) -> dict[str, Any]:
        """Start a new run from a step of one that has ended: `{"status": "accepted", "run_id": the new one}`.

        `from_step` is a step's key, or its name if only one has that. The new run takes over what was recorded before.
        `payload_patch` is a JSON merge patch (RFC 7396) of the payload.

        Raises:
            RunNotFound, RunNotFinished, StepNotFound, PayloadInvalid, IdempotencyConflict.
        """
        body = body_of("The fork", from_step=from_step, payload_patch=payload_patch)
        headers = key_header(idempotency_key)
        return (await self._connection.request("POST", run_path(run_id) + "/fork", body=body, headers=headers)).body

    async def delete(self, run_id: str) -> None:
        """Delete a finished run with its events.

        Raises:
            RunNotFound, RunNotFinished.
        """
        await self._connection.request("DELETE", run_path(run_id))
