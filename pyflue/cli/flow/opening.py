"""Where commands run flows: on the engine and the journal of the project, or without a project as the config says."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ...errors import ProjectNotFound
from ..project import project_root

if TYPE_CHECKING:
    from ...journal import Journal
    from ...stepflow.backend import Backend
    from ...stepflow.config import StepflowConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What runs flows, and the project's journal if that is where they are recorded."""

    backend: Backend
    journal: Journal | None = None

    def recorded_as(self, run_id: str) -> str | None:
        """The id of a run in the project's journal."""
        if self.journal is None:
            return None
        from ...stepflow.runs import engine_id_of

        return engine_id_of(run_id)


def root_of(ctx: click.Context) -> Path | None:
    """The project's folder; None if there is none and none was named.

    Raises:
        ProjectNotFound: the folder that was named is none.
    """
    try:
        return project_root(ctx)
    except ProjectNotFound:
        if ctx.find_root().params.get("project") is not None:
            raise
        return None


@asynccontextmanager
async def opened(root: Path | None, config: StepflowConfig, *, in_memory: bool = False) -> AsyncGenerator[Place]:
    """Open what runs flows with a config. `in_memory`: nothing is recorded, in a project either.

    At the end all component servers have ended.

    Raises:
        ConfigInvalid, SettingsInvalid, and what `open_journal` raises.
    """
    if root is None:
        from dataclasses import replace

        from ...stepflow.runtime import open_backend

        config = replace(config, state_store=None) if in_memory else config
        async with open_backend(config, {}, os.environ, adopts=False) as backend:
            yield Place(backend=backend)
        return
    from ...main import open_project
    from ...stepflow.environments import environments_of
    from ...stepflow.runs import JournalBackend

    project = open_project(root, options={"journal.url": "memory:"} if in_memory else None)
    try:
        engine = project.engine(adopts=False)
        # Before anything runs: these are the plugins that its runs will ask for.
        environments_of(engine.resources, config)
        async with engine:
            backend = JournalBackend(
                engine,
                project.journal,
                folder=root,
                root=root,
                limit_bytes=project.settings.limits.payload_bytes,
                # A server that has to take up such a run uses it, too.
                config=config.path,
            )
            yield Place(backend=backend, journal=project.journal)
    finally:
        await project.journal.close()
