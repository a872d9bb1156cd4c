"""The routes about the server itself: is it well, and what does it answer to."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from starlette.types import Scope

from .. import codec
from .answers import Answer, json_answer
from .body import RequestHeaders
from .services import Services

if TYPE_CHECKING:
    from ..workflows import Dialect


class AboutRoutes:
    """Handlers; each takes the request's scope and headers, and returns what answers it."""

    def __init__(self, services: Services, dialects: Sequence[Dialect] = ()) -> None:
        self._services = services
        self._dialects = dialects
        self._document: tuple[Any, bytes] | None = None

    async def health(self, scope: Scope, headers: RequestHeaders) -> Answer:
        """Answers from memory, so that it still does when the disk does not."""
        stats = self._services.engine.stats()
        return json_answer(
            200,
            {
                "ok": True,
                "framework": "pyflue",
                "version": self._services.version,
                "running": stats["running"],
                "running_limit": stats["limit"],
            },
        )

    async def openapi(self, scope: Scope, headers: RequestHeaders) -> Answer:
        """The OpenAPI document; made anew only when a workflow or the prefix has changed."""
        entries = await asyncio.to_thread(self._services.catalog.entries)
        workflows = [entry.workflow for entry in entries if entry.workflow is not None]
        prefix: str = scope.get("root_path", "")
        made_of = (prefix, [(workflow.name, workflow.version) for workflow in workflows])
        if self._document is None or self._document[0] != made_of:
            from .openapi import build_document  # pydantic's schemas are imported only for this

            document = await asyncio.to_thread(
                build_document,
                workflows,
                dialects=self._dialects,
                version=self._services.version,
                prefix=prefix,
                needs_token=bool(self._services.settings.server.token or self._services.settings.server.tokens),
            )
            self._document = (made_of, codec.encode(document))
        return Answer(200, self._document[1])
