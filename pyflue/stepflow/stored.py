"""Flows on an engine and a journal, without a project: for runtimes and servers whose config says where state is kept.

Runs that were under way when the process ended go on when the same store is opened again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import NoReturn

from ..engine import EmbeddedEngine, Workflow
from ..errors import WorkflowNotFound
from ..journal import open_journal
from ..settings import load_settings
from .config import ConfigInvalid, StepflowConfig
from .dialect import INLINE
from .environments import environments_of
from .inline import inline_workflow
from .plugins.port import Plugin
from .runs import JournalBackend


class _Inline:
    """Finds the one workflow that there is. Implements `engine.WorkflowSource`."""

    def find(self, name: str) -> Workflow:
        if name != INLINE:
            _refuse(name)
        return inline_workflow()

    def refresh(self) -> bool:
        return False


def _refuse(name: str) -> NoReturn:
    raise WorkflowNotFound(name, [INLINE])


@contextlib.asynccontextmanager
async def open_stored(
    config: StepflowConfig, plugins: Mapping[str, Plugin], environ: Mapping[str, str], *, adopts: bool = True
) -> AsyncGenerator[JournalBackend]:
    """A backend on an engine of its own, with the journal that the config names.

    With `adopts` it also takes up the runs there that nobody drives.

    Raises:
        ConfigInvalid: the store is of a kind that there is not; what `open_journal` raises.
    """
    folder = config.working_directory
    settings = await asyncio.to_thread(load_settings, folder, options={"journal.url": journal_url(config)})
    journal = await asyncio.to_thread(
        open_journal, settings.journal_url, settings=settings.journal, limits=settings.limits
    )
    try:
        engine = EmbeddedEngine(
            journal, _Inline(), settings=settings.engine, limits=settings.limits, root=folder, adopts=adopts
        )
        # Before anything runs: these are the environments that its runs will ask for.
        environments_of(engine.resources, config, plugins, environ)
        async with engine:
            yield JournalBackend(engine, journal, folder=folder, root=None, limit_bytes=settings.limits.payload_bytes)
    finally:
        await journal.close()


def journal_url(config: StepflowConfig) -> str:
    """The journal that a config names.

    Raises:
        ConfigInvalid: the store is of a kind that there is not.
    """
    store = config.state_store
    where = "the config" if config.path is None else str(config.path)
    if store is None or store.type == "inMemory":
        return "memory:"
    if store.type != "sqlite":
        raise ConfigInvalid(where, f"stateStore of type {store.type!r} is none that there is: inMemory or sqlite.")
    url = store.database_url or ""
    # As sqlx writes addresses: `sqlite:x.db`, `sqlite://x.db?mode=rwc`.
    path = url.removeprefix("sqlite:").removeprefix("//").partition("?")[0]
    if not url.startswith("sqlite:") or not path:
        raise ConfigInvalid(where, "stateStore needs databaseUrl, such as 'sqlite:stepflow.db'.")
    if path == ":memory:":
        return "memory:"
    return f"sqlite:///{Path(config.working_directory, path)}"
