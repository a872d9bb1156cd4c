"""A project folder with step classes, and runs of what is in it."""

from __future__ import annotations

import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pyflue.engine import EmbeddedEngine, Workflow
from pyflue.journal import Journal, Run
from pyflue.workflows import Catalog
from tests.engine.durable import ended
from tests.support import engine_on, submission

HEADER = "from __future__ import annotations\nfrom pyflue.agentflow import *\n"


class Project:
    """Files are written with the names of step classes imported."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, path: str, text: str, *, header: str = HEADER) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(header + textwrap.dedent(text), encoding="utf-8")
        return file

    def catalog(self) -> Catalog:
        return Catalog(self.root)

    def find(self, name: str) -> Workflow:
        return self.catalog().find(name)

    def problem(self, name: str) -> str:
        """What is wrong with a file."""
        catalog = self.catalog()
        entry = next(entry for entry in catalog.entries() if entry.name == name)
        assert entry.error is not None, entry
        return str(entry.error)

    @asynccontextmanager
    async def engine(self, journal: Journal) -> AsyncIterator[EmbeddedEngine]:
        async with engine_on(journal, self.catalog(), root=self.root) as engine:  # type: ignore[arg-type]
            yield engine

    async def run(self, journal: Journal, name: str, payload: Any = None) -> Run:
        """A run, once it is final."""
        async with self.engine(journal) as engine:
            return await ended(engine, await start(engine, self.find(name), payload))


async def start(engine: EmbeddedEngine, workflow: Workflow, payload: Any = None) -> str:
    """Start a run; its id."""
    handle = await engine.submit(submission(workflow, {} if payload is None else payload))
    return handle.run_id
