"""`client.approvals`: what runs of a server ask of people, and the answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from .connection import Connection
from .parts import NOT_GIVEN, body_of, joined


class Approvals:
    """Look at approvals and decide them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def list(
        self,
        *,
        state: str | Sequence[str] | None = None,
        workflow: str | Sequence[str] | None = None,
        run_id: str | None = None,
        name: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> dict[str, Any]:
        """A page of approvals, newest first: `{"approvals": [...], "next": cursor or None}`.

        Without `state` only the open ones; the others are `approved`, `rejected`, `expired` and `cancelled`.
        """
        query = {
            "state": joined(state),
            "workflow": joined(workflow),
            "run_id": run_id,
            "name": name,
            "limit": limit,
            "before": cursor,
        }
        return (await self._connection.request("GET", "/approvals", query=query)).body

    async def get(self, approval_id: str) -> dict[str, Any]:
        """One approval: what is asked (`request`, `schema`), its `state`, and the `decision` if there is one.

        Raises:
            ApprovalNotFound: the server has no such approval.
        """
        return (await self._connection.request("GET", _path(approval_id))).body

    async def approve(
        self, approval_id: str, *, data: Any = NOT_GIVEN, reason: str | None = None, by: str | None = None
    ) -> dict[str, Any]:
        """Approve what is asked, or `data` instead of it; returns the approval. The same once more changes nothing.

        `by` is who approves; a server with tokens takes the token's name and no other.

        Raises:
            ApprovalNotFound; DecisionInvalid: `data` does not fit the approval's schema.
            ApprovalClosed: it was decided otherwise, has expired or is cancelled; `details` is the approval.
        """
        return await self._decide(approval_id, approved=True, data=data, reason=reason, by=by)

    async def reject(self, approval_id: str, *, reason: str | None = None, by: str | None = None) -> dict[str, Any]:
        """Reject what is asked; returns the approval.

        Raises:
            As `approve`.
        """
        return await self._decide(approval_id, approved=False, data=NOT_GIVEN, reason=reason, by=by)

    async def _decide(
        self, approval_id: str, *, approved: bool, data: Any, reason: str | None, by: str | None
    ) -> dict[str, Any]:
        body = body_of("The decision", approved=approved, data=data, reason=reason, by=by)
        return (await self._connection.request("POST", _path(approval_id), body=body)).body


def _path(approval_id: str) -> str:
    return f"/approvals/{quote(approval_id, safe='')}"
