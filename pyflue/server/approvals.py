"""The routes about approvals: what people are asked, and what they say."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

from starlette.types import Scope

from ..engine import NOT_GIVEN
from ..errors import ApprovalNotFound, InvalidQuery, InvalidRequest
from ..journal import ApprovalFilter, ApprovalState
from .answers import Answer, json_answer
from .body import RequestHeaders
from .query import Query
from .security import Gate
from .services import Services

if TYPE_CHECKING:
    from .inputs import Decision

#: Who decided, where nobody says who they are.
ANONYMOUS = "anonymous"

_LIST = frozenset({"state", "workflow", "run_id", "name", "limit", "before"})
_NONE: frozenset[str] = frozenset()
_DEFAULT_APPROVALS = 50
_MOST_APPROVALS = 200
_APPROVAL_ID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")


class ApprovalRoutes:
    """Handlers; each takes the request's scope and headers (`decide` the body, too) and returns what answers it."""

    def __init__(self, services: Services, gate: Gate) -> None:
        self._journal = services.journal
        self._engine = services.engine
        self._depth = services.settings.limits.json_depth
        self._gate = gate

    async def list(self, scope: Scope, headers: RequestHeaders) -> Answer:
        query = Query(scope["query_string"], _LIST)
        limit = query.number("limit", lowest=1, highest=_MOST_APPROVALS) or _DEFAULT_APPROVALS
        where = ApprovalFilter(
            states=_states(query),
            workflows=query.items("workflow"),
            run_id=query.text("run_id"),
            name=query.text("name"),
        )
        # One more than asked for, to know whether there are more.
        approvals = await self._journal.approvals(where, before=_cursor(query), limit=limit + 1)
        shown = approvals[:limit]
        following = shown[-1].wait.wait_id if len(approvals) > limit else None
        return json_answer(200, {"approvals": [approval.to_dict() for approval in shown], "next": following})

    async def get(self, scope: Scope, headers: RequestHeaders) -> Answer:
        Query(scope["query_string"], _NONE)
        approval_id = _approval_id(scope)
        approval = await self._journal.approval(approval_id)
        if approval is None:
            raise ApprovalNotFound(approval_id)
        return json_answer(200, approval.to_dict(), run_id=approval.wait.run_id)

    async def decide(self, scope: Scope, headers: RequestHeaders, body: bytes) -> Answer:
        Query(scope["query_string"], _NONE)
        decision = await asyncio.to_thread(self._read, body)
        approval = await self._engine.decide(
            _approval_id(scope),
            approved=decision.approved,
            by=self._decider(headers, decision.by),
            reason=decision.reason,
            data=decision.data if decision.gives("data") else NOT_GIVEN,
        )
        return json_answer(200, approval.to_dict(), run_id=approval.wait.run_id)

    def _read(self, body: bytes) -> Decision:
        from .inputs import Decision, read_input

        return read_input(Decision, body, self._depth)

    def _decider(self, headers: RequestHeaders, given: str | None) -> str:
        """Who decides: with tokens the one this request came with, without them whoever the body names.

        Raises:
            InvalidRequest: the body names another than the token does.
        """
        name = self._gate.caller(headers)
        if name is None:
            return given or ANONYMOUS
        if given not in {None, name}:
            raise InvalidRequest(
                f"This decision is made with the token {name!r}, so it cannot be made by {given!r}.",
                hint="Leave `by` out: it is the name of the token.",
            )
        return name


def _approval_id(scope: Scope) -> str:
    return scope["path_params"]["approval_id"]


def _states(query: Query) -> tuple[ApprovalState, ...]:
    states: list[ApprovalState] = []
    for value in query.items("state"):
        try:
            states.append(ApprovalState(value))
        except ValueError:
            raise InvalidQuery("state", value, f"some of {', '.join(ApprovalState)}") from None
    return tuple(states) or (ApprovalState.OPEN,)


def _cursor(query: Query) -> str | None:
    before = query.text("before")
    if before is not None and not _APPROVAL_ID.fullmatch(before):
        raise InvalidQuery("before", before, "the `next` of an earlier page")
    return before
