"""Where the parts are put together: settings choose the journal, the catalog, the engine and the server.

The only module that knows concrete adapters. The CLI starts here, and so does whoever mounts PyFlue into another ASGI
application (`create_app`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import __version__, codec
from .errors import PyFlueError
from .ids import workflow_of
from .journal import Journal, RunStatus, open_journal
from .logs import logger
from .settings import FILE_NAME, Settings, find_root, load_settings, misspelt_variables

if TYPE_CHECKING:
    from .engine import EmbeddedEngine
    from .journal import Outcome
    from .server import PyFlueApp, Services
    from .workflows import Catalog

log = logger("pyflue.main")

_APART = f"from {__name__} import drive_apart; drive_apart()"

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

    def engine(self, *, adopts: bool, on_end: Callable[[str, Outcome], None] | None = None) -> EmbeddedEngine:
        """An engine for this project, not yet started.

        With `adopts` it also drives queued runs and those of engines that died, as servers do. `on_end` is called with
        the id and the outcome of each run that ended here.
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
            on_end=on_end,
            quarantine=SubprocessQuarantine(self.settings.root, self.options, program=_APART)
            if adopts and is_on_disk
            else None,
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
        self._host: asyncio.Task[None] | None = None
        #: Why it could not start.
        self.failure: PyFlueError | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        app = self._app or await self._start_late()
        await app(scope, receive, send)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[PyFlueApp]:
        """Open the project, serve it, and close it again at the end."""
        from .server import Services, build_app

        project = await asyncio.to_thread(open_project, self._root, options=self._options)
        try:
            # In a thread, and before the first request: no request waits for an import.
            await asyncio.to_thread(project.catalog.refresh)
            _report(project.catalog)
            async with project.engine(adopts=True, on_end=_report_failure) as engine:
                services = Services(
                    settings=project.settings,
                    catalog=project.catalog,
                    journal=project.journal,
                    engine=engine,
                    version=__version__,
                    dev=self._dev,
                )
                app = self._app = build_app(services, extra_routes=_dialect_routes(project, services))
                try:
                    async with self._reloading(project.catalog):
                        yield app
                finally:
                    log.info("stopping", running=engine.stats()["running"])
                    # It stays in its place: a request that comes from now on is answered 503 by it.
                    app.begin_stop()
        finally:
            await project.journal.close()
        log.info("stopped")

    @contextlib.asynccontextmanager
    async def _reloading(self, catalog: Catalog) -> AsyncGenerator[None]:
        """In `dev`, serve edited files without a restart."""
        if not self._dev:
            yield
            return
        from .workflows.watch import watch

        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(watch(catalog, on_change=lambda: _report_reload(catalog)))
            try:
                yield
            finally:
                watching.cancel()

    def count_workflows(self) -> int:
        """How many workflows it serves."""
        return len(self._app.services.catalog.names()) if self._app is not None else 0

    async def _start_late(self) -> PyFlueApp:
        # One task opens the project and would close it again; the requests only wait for it.
        loop = asyncio.get_running_loop()
        if self._host is None or self._host.done():
            self._started = loop.create_future()
            self._host = loop.create_task(self._stay_open(self._started))
        return await asyncio.shield(self._started)

    async def _stay_open(self, started: asyncio.Future[PyFlueApp]) -> None:
        try:
            async with self.running() as app:
                started.set_result(app)
                await asyncio.Event().wait()  # until the event loop ends
        except BaseException as error:
            if started.done() or not isinstance(error, Exception):
                raise
            started.set_exception(error)  # the requests that wait for it fail with it; the next one tries again

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            async with self.running():
                await send({"type": "lifespan.startup.complete"})
                await receive()
        except PyFlueError as error:
            self.failure = error
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
    return ProjectApp(find_root(Path.cwd()) if project is None else Path(project).resolve(), options=options, dev=dev)


def drive_apart() -> None:
    """What a quarantine's process runs."""
    from . import apart

    apart.drive_apart(open_project)


def run_server(
    root: Path,
    options: Mapping[str, Any],
    *,
    dev: bool = False,
) -> None:
    """Serve a project until SIGINT or SIGTERM, then hand its runs back and return (`pyflue dev`, `pyflue serve`).

    Raises:
        PyFlueError: it could not start, or not listen where the settings say.
    """
    import gc
    import os
    import sys

    from .logs import configure
    from .server import bind, listen

    settings = load_settings(root, options=options)
    configure(pretty=dev and sys.stderr.isatty())
    if settings.unknown_tables:
        log.warning("unknown_tables_ignored", file=FILE_NAME, tables=list(settings.unknown_tables))
    for variable, meant in misspelt_variables(os.environ):
        log.warning("unknown_variable_ignored", variable=variable, did_you_mean=meant)
    app = ProjectApp(settings.root, options=options, dev=dev)
    sock = bind(settings.server)

    def ready(url: str) -> None:
        # What is loaded by now stays: without this, every full collection looks through all of it again (17 ms each
        # here, several times a second under load, and the slowest requests were those that met one).
        gc.collect()
        gc.freeze()
        log.info("listening", url=url, workflows=app.count_workflows())

    try:
        listen(app, sock, settings, on_ready=ready)
    except PyFlueError as error:
        raise app.failure or error from None


def _report_failure(run_id: str, outcome: Outcome) -> None:
    """Tell of a run that failed. What its exception said is in its record, and not for logs that are sent elsewhere."""
    if outcome.status is not RunStatus.FAILED:
        return
    error: dict[str, Any] = {} if outcome.error is None else codec.load(outcome.error)
    log.warning(
        "run_failed", run_id=run_id, workflow=workflow_of(run_id), type=error.get("type"), where=error.get("where")
    )


def _report_reload(catalog: Catalog) -> None:
    _report(catalog)
    log.info("reloaded", workflows=len(catalog.names()))


def _report(catalog: Catalog) -> None:
    for diagnostic in catalog.diagnostics():
        where = f"{diagnostic.path}:{diagnostic.line}" if diagnostic.line else str(diagnostic.path)
        log.warning("workflow_file", where=where, problem=diagnostic.message)


def _dialect_routes(project: Project, services: Services) -> list[Any]:
    return [route for dialect in project.catalog.dialects for route in dialect.routes(services)]
