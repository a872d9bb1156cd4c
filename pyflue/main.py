"""Where the parts are put together: settings choose the journal, the catalog, the engine and the server.

The only module that knows concrete adapters. The CLI starts here, and so does whoever mounts PyFlue into another ASGI
application (`create_app`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import __version__
from .errors import PyFlueError
from .journal import Journal, open_journal
from .settings import Settings, find_root, load_settings

if TYPE_CHECKING:
    from .engine import EmbeddedEngine
    from .server import PyFlueApp
    from .workflows import Catalog

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A project that is open: its settings, its files, its journal."""

    settings: Settings
    catalog: Catalog
    journal: Journal
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def engine(self, *, adopts: bool) -> EmbeddedEngine:
        """An engine for this project, not yet started.

        With `adopts` it also drives queued runs and those of engines that died, as servers do.
        """
        from .apart import SubprocessQuarantine
        from .engine import EmbeddedEngine

        is_on_disk = self.settings.journal_url.startswith("sqlite:")
        return EmbeddedEngine(
            self.journal,
            self.catalog,
            settings=self.settings.engine,
            limits=self.settings.limits,
            root=self.settings.root,
            adopts=adopts,
            quarantine=SubprocessQuarantine(self.settings.root, self.options) if adopts and is_on_disk else None,
        )


def open_project(root: Path | None = None, *, options: Mapping[str, Any] | None = None) -> Project:
    """Open the project in a folder (None: the one the current folder belongs to). Blocks while the journal opens.

    `options` maps setting names such as `server.port` to values; they win over variables and `pyflue.toml`.

    Raises:
        ProjectNotFound, SettingsInvalid, and what `open_journal` raises.
    """
    from .workflows import Catalog

    settings = load_settings(root if root is not None else find_root(Path.cwd()), options=options)
    journal = open_journal(settings.journal_url, settings=settings.journal, limits=settings.limits)
    return Project(
        settings=settings,
        catalog=Catalog(settings.root, import_timeout_s=settings.engine.import_timeout_s),
        journal=journal,
        options={name: value for name, value in (options or {}).items() if value is not None},
    )


class ProjectApp:
    """A project as an ASGI application that opens it when it starts and closes it when it stops.

    Started by the ASGI lifespan; where a parent application does not pass that on (Starlette's `Mount` does not), by
    the first request. Then `async with app.running():` in the parent's lifespan makes it stop in good order, too.
    """

    def __init__(self, root: Path, *, options: Mapping[str, Any] | None = None, dev: bool = False) -> None:
        self._root = root
        self._options = options
        self._dev = dev
        self._app: PyFlueApp | None = None
        self._starting: asyncio.Lock | None = None
        self._stack = contextlib.AsyncExitStack()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        app = self._app or await self._start()
        await app(scope, receive, send)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[PyFlueApp]:
        """Open the project, serve it, and close it again at the end."""
        from .server import Services, build_app

        project = await asyncio.to_thread(open_project, self._root, options=self._options)
        try:
            # In a thread, and before the first request: no request waits for an import.
            await asyncio.to_thread(project.catalog.refresh)
            async with project.engine(adopts=True) as engine:
                services = Services(
                    settings=project.settings,
                    catalog=project.catalog,
                    journal=project.journal,
                    engine=engine,
                    version=__version__,
                    dev=self._dev,
                )
                app = self._app = build_app(services)
                try:
                    yield app
                finally:
                    app.begin_stop()
                    self._app = None
        finally:
            await project.journal.close()

    async def _start(self) -> PyFlueApp:
        self._starting = self._starting or asyncio.Lock()
        async with self._starting:
            if self._app is None:
                await self._stack.enter_async_context(self.running())
        assert self._app is not None  # noqa: S101  (`running` has set it)
        return self._app

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            async with self.running():
                await send({"type": "lifespan.startup.complete"})
                await receive()
        except PyFlueError as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.shutdown.complete"})


def create_app(
    project: str | Path | None = None, *, options: Mapping[str, Any] | None = None, dev: bool = False
) -> ProjectApp:
    """PyFlue as an ASGI application, to be served by uvicorn or mounted under a prefix of another application.

    `project` is the project's folder (None: the one the current folder belongs to). With `dev` callers see the text of
    exceptions that workflows raise.

    Raises:
        ProjectNotFound: there is no project.
    """
    return ProjectApp(
        find_root(Path.cwd()) if project is None else Path(project).resolve(), options=options, dev=dev
    )
