"""Where requests for graphs go: runs of a project's engine, or runs in this process.

`http.py` speaks FlowGram's words with a client and asks one of these. A task's id is a run's id in a project.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from .. import codec
from ..codec import Raw
from ..errors import RunFinished, RunNotFound, WorkflowInvalid, WorkflowNotFound
from .dialect import INLINE, KIND

if TYPE_CHECKING:
    from ..engine import Engine
    from ..journal import Journal, Run
    from ..settings import Settings
    from ..workflows import Catalog
    from .document import Document
    from .library import WorkflowApplication


class Services(Protocol):
    """The parts of a project that routes are made from."""

    @property
    def settings(self) -> Settings: ...
    @property
    def catalog(self) -> Catalog: ...
    @property
    def journal(self) -> Journal: ...
    @property
    def engine(self) -> Engine: ...


class Backend(Protocol):
    """Runs graphs that come with requests."""

    limit_bytes: int

    async def run(self, schema: str, document: Document, inputs: Mapping[str, Any], *, key: str | None) -> str:
        """Start a run of a graph, whose text has been read, and return its id. An invalid graph is a run that fails."""
        ...

    async def report(self, task_id: str) -> dict[str, Any] | None:
        """A run's report; None if there is no such run."""
        ...

    async def result(self, task_id: str) -> Any:
        """A run's outputs; None while it goes on or if there is no such run, `{}` if it failed."""
        ...

    async def cancel(self, task_id: str) -> bool:
        """End a run; whether there is one."""
        ...


class LibraryBackend:
    """Implements `Backend` in this process."""

    def __init__(self, application: WorkflowApplication, limit_bytes: int) -> None:
        self._application = application
        self.limit_bytes = limit_bytes

    async def run(self, schema: str, document: Document, inputs: Mapping[str, Any], *, key: str | None) -> str:
        return self._application.run({"schema": schema, "inputs": inputs})

    async def report(self, task_id: str) -> dict[str, Any] | None:
        task = self._application.tasks.get(task_id)
        return None if task is None else task.report_dict()

    async def result(self, task_id: str) -> Any:
        return self._application.result(task_id)

    async def cancel(self, task_id: str) -> bool:
        return self._application.cancel(task_id)


class JournalBackend:
    """Implements `Backend` on a project's engine: each run is one of `flowgram.inline`, its graph its definition."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self.limit_bytes = services.settings.limits.payload_bytes

    async def run(self, schema: str, document: Document, inputs: Mapping[str, Any], *, key: str | None) -> str:
        from ..engine import Submission
        from .workflow import InlinePayload, inline_workflow

        handle = await self._services.engine.submit(
            Submission(
                workflow=inline_workflow(),
                payload=Raw(codec.encode({"inputs": inputs})),
                parsed=InlinePayload(inputs=inputs, document=document),
                definition=Raw(schema.encode()),
                idempotency_key=key,
            )
        )
        return handle.run_id

    async def report(self, task_id: str) -> dict[str, Any] | None:
        from .journal_report import report_of

        run = await self._run(task_id)
        if run is None:
            return None
        definition = await self._services.journal.definition(run.run_id)
        document, inputs = await asyncio.to_thread(self._graph, run, definition)  # it may have to load the file
        return await report_of(self._services.journal, run, document, inputs)

    async def result(self, task_id: str) -> Any:
        run = await self._run(task_id)
        if run is None or not run.is_final:
            return None
        return codec.load(run.result) if run.result is not None and run.status.value == "completed" else {}

    async def cancel(self, task_id: str) -> bool:
        run = await self._run(task_id)
        if run is None:
            return False
        if not run.is_final:
            try:
                await self._services.engine.cancel(task_id)
            except RunFinished:
                pass  # it ended meanwhile
            except RunNotFound:
                return False
        return True

    async def _run(self, task_id: str) -> Run | None:
        run = await self._services.journal.run(task_id) if len(task_id) <= 300 else None
        return run if run is not None and run.kind == KIND else None

    def _graph(self, run: Run, definition: Raw | None) -> tuple[Document | None, Mapping[str, Any]]:
        """The graph of a run, and its inputs."""
        from .workflow import GraphWorkflow, document_of

        payload = codec.load(run.payload if run.payload is not None else codec.EMPTY_OBJECT)
        if run.workflow == INLINE:
            document = None if definition is None else document_of(bytes(memoryview(definition)).decode())
            return document, payload.get("inputs", {})
        try:
            workflow = self._services.catalog.find(run.workflow)
        except (WorkflowNotFound, WorkflowInvalid):
            return None, payload  # its file is gone, or broken by now
        return (workflow.document if isinstance(workflow, GraphWorkflow) else None), payload


def is_json(text: str) -> str | None:
    """Why a text is no JSON; None if it is."""
    try:
        json.loads(text)
    except (ValueError, RecursionError) as error:
        return str(error) or type(error).__name__
    return None
