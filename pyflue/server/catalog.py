"""The routes that show which workflows there are."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.types import Scope

from ..engine import Workflow
from .answers import Answer, json_answer
from .body import RequestHeaders
from .query import Query
from .services import Services
from .starting import WorkflowFinder

if TYPE_CHECKING:
    from ..workflows import Entry

_NONE: frozenset[str] = frozenset()


class CatalogRoutes:
    """Handlers; each takes the request's scope and headers, and returns what answers it."""

    def __init__(self, services: Services, finder: WorkflowFinder) -> None:
        self._catalog = services.catalog
        self._root = services.settings.root
        self._finder = finder

    async def list(self, scope: Scope, headers: RequestHeaders) -> Answer:
        Query(scope["query_string"], _NONE)
        entries = await asyncio.to_thread(self._catalog.entries)
        diagnostics = self._catalog.diagnostics()
        return json_answer(
            200,
            {
                "workflows": [self._summary(entry) for entry in entries],
                "diagnostics": [
                    {"path": item.path, "line": item.line, "message": item.message} for item in diagnostics
                ],
            },
        )

    async def get(self, scope: Scope, headers: RequestHeaders) -> Answer:
        Query(scope["query_string"], _NONE)
        return json_answer(200, self._detail(await self._finder.find(scope["path_params"]["name"])))

    def _summary(self, entry: Entry) -> dict[str, Any]:
        workflow, error = entry.workflow, entry.error
        return {
            "name": entry.name,
            "kind": entry.kind,
            "path": self._relative(entry.path),
            "description": "" if workflow is None else workflow.description,
            "version": None if workflow is None else workflow.version,
            "error": None if error is None else {"type": error.type, "message": str(error), "line": error.line},
        }

    def _detail(self, workflow: Workflow) -> dict[str, Any]:
        graph = workflow.graph()
        return {
            "name": workflow.name,
            "kind": workflow.kind,
            "path": self._relative(workflow.path),
            "description": workflow.description,
            "version": workflow.version,
            "input_schema": workflow.input_schema,
            "output_schema": workflow.output_schema,
            "graph": None
            if graph is None
            else {
                "nodes": [{"id": node.id, "label": node.label, "kind": node.kind} for node in graph.nodes],
                "edges": [{"source": edge.source, "target": edge.target, "label": edge.label} for edge in graph.edges],
            },
        }

    def _relative(self, path: Path) -> str:
        return str(path.relative_to(self._root)) if path.is_relative_to(self._root) else str(path)
