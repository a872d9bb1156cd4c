"""Where the parts are put together: settings choose the journal, the catalog, the engine and the server.

The only module that knows concrete adapters. The CLI starts here, and so does whoever mounts PyFlue into another ASGI
application (`create_app`).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import __version__, codec
from .errors import ProjectNotFound, PyFlueError
from .ids import AGENT_PREFIX, workflow_of
from .journal import Journal, RunStatus, open_journal
from .logs import logger
from .memory import settle_memory, watch_memory
from .settings import AGENT_FOLDERS, FILE_NAME, Settings, find_root, load_settings, misspelt_variables

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from .agents import AgentCatalog, AgentFile, CreatedAgent
    from .agents.instances import Instances
    from .agents.room import AgentRoom
    from .agents.standalone import InstanceHarness
    from .engine import EmbeddedEngine, Engine, Workflow
    from .engine.calls import Calls
    from .journal import Outcome
    from .server import PyFlueApp
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
    agents: LazyAgents
    journal: Journal
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def definitions(self) -> Definitions:
        """What runs are of: workflows and agents."""
        return Definitions(self.catalog, self.agents)

    def instances(self, engine: Engine) -> Instances:
        """The project's continuing agents, driven by an engine. Imports the agents room."""
        from .agents.instances import Instances

        return Instances(self.agents.catalog, self.journal, engine)

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
            self.definitions,
            settings=self.settings.engine,
            limits=self.settings.limits,
            root=self.settings.root,
            adopts=adopts,
            agents=self.agents,
            on_end=on_end,
            quarantine=SubprocessQuarantine(self.settings.root, self.options, program=_APART)
            if adopts and is_on_disk
            else None,
        )


def open_project(
    root: Path | None = None, *, options: Mapping[str, Any] | None = None, serves: bool = False
) -> Project:
    """Open the project in a folder (None: the one the current folder belongs to). Blocks while the journal opens.

    `serves` says that it is for a server, whose journal may be written by a process of its own. `options` maps setting
    names such as `server.port` to values; they win over variables and `pyflue.toml`.

    Raises:
        ProjectNotFound, SettingsInvalid, and what `open_journal` raises.
    """
    from .flow_models import for_project as for_flows

    settings = load_settings(root if root is not None else find_root(Path.cwd()), options=options)
    journal = open_journal(
        settings.journal_url,
        settings=settings.journal,
        limits=settings.limits,
        writer_process=serves and settings.journal.writer_process,
    )
    agents = LazyAgents(settings)
    for_flows(settings, agents.find)
    return Project(
        settings=settings,
        catalog=open_catalog(settings),
        agents=agents,
        journal=journal,
        options={name: value for name, value in (options or {}).items() if value is not None},
    )


def open_catalog(settings: Settings) -> Catalog:
    """The workflow files of a project, for those who need nothing else of it."""
    from .graph_models import for_project
    from .workflows import Catalog

    for_project(settings)
    return Catalog(settings.root, import_timeout_s=settings.engine.import_timeout_s)


class LazyAgents:
    """The agents room of a project, imported when something first asks for it: most commands and plain runs do not."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @functools.cached_property
    def catalog(self) -> AgentCatalog:
        """The project's agent files."""
        from .agents import AgentCatalog

        settings = self._settings
        return AgentCatalog(
            settings.root, agents_dir=settings.agent.agents_dir, import_timeout_s=settings.engine.import_timeout_s
        )

    def find(self, name: str) -> AgentFile:
        """The agent of a name: that of a file, or the one without a file.

        Raises:
            AgentNotFound, AgentInvalid.
        """
        from .agents.files import PLAIN_AGENT, plain_agent

        return plain_agent(self._settings.root) if name == PLAIN_AGENT else self.catalog.find(name)

    @property
    def known(self) -> AgentCatalog | None:
        """The project's agent files, if there are any or somebody has asked for them."""
        return self.catalog if "catalog" in vars(self) or self._has_files() else None

    def _has_files(self) -> bool:
        root, folder = self._settings.root, self._settings.agent.agents_dir
        for place in (folder,) if folder else AGENT_FOLDERS:
            # `.agents` holds skills, too, and what lies deeper there is theirs.
            pattern = "*.py" if place == ".agents" else "**/*.py"
            if next((root / place).glob(pattern), None) is not None:
                return True
        return False

    def folders(self) -> frozenset[Path]:
        """The folders in which a change may concern agent files."""
        if "catalog" in vars(self):
            return self.catalog.folders()
        root, folder = self._settings.root, self._settings.agent.agents_dir
        places = [root / place for place in ((folder,) if folder else AGENT_FOLDERS)]
        return frozenset(place for place in (*places, *(place.parent for place in places)) if place.is_dir())

    @functools.cached_property
    def room(self) -> AgentRoom:
        """What makes harnesses."""
        from .agents.room import AgentRoom

        return AgentRoom(self._settings)

    async def init(self, ctx: Any, calls: Calls, key: str, agent: Any, options: dict[str, Any]) -> Any:
        """As `engine.agents.AgentHost.init`."""
        if "room" not in vars(self):
            # In a thread: the import takes a while, and other runs go on.
            await asyncio.to_thread(getattr, self, "room")
        return await self.room.init(ctx, calls, key, agent, options)

    def blocking(self, harness: Any, block: Callable[[Coroutine[Any, Any, Any]], Any]) -> Any:
        """As `AgentHost.blocking`."""
        return self.room.blocking(harness, block)

    def end(self, calls: Calls) -> Coroutine[Any, Any, None] | None:
        """As `AgentHost.end`."""
        return self.room.end(calls) if "room" in vars(self) else None

    async def close(self) -> None:
        """As `AgentHost.close`."""
        if "room" in vars(self):
            await self.room.close()


class Definitions:
    """Where the engine finds what runs are of: workflow files, and agent files for interactions."""

    def __init__(self, workflows: Catalog, agents: LazyAgents) -> None:
        self._workflows = workflows
        self._agents = agents

    def find(self, name: str) -> Workflow:
        """As `WorkflowSource.find`."""
        if not name.startswith(AGENT_PREFIX):
            return self._workflows.find(name)
        from .agents.interactions import AgentWorkflow

        return AgentWorkflow(self._agents.find(name.removeprefix(AGENT_PREFIX)))

    def refresh(self) -> bool:
        """As `WorkflowSource.refresh`."""
        changed = self._workflows.refresh()
        agents = self._agents.known
        return (agents is not None and agents.refresh()) or changed

    def folders(self) -> frozenset[Path]:
        """The folders in which a change may concern a definition."""
        return self._workflows.folders() | self._agents.folders()

    def report(self) -> None:
        """Log what is wrong with the files."""
        agents = self._agents.known
        for diagnostic in [*self._workflows.diagnostics(), *(() if agents is None else agents.diagnostics())]:
            where = f"{diagnostic.path}:{diagnostic.line}" if diagnostic.line else str(diagnostic.path)
            log.warning("workflow_file", where=where, problem=diagnostic.message)

    def count(self) -> dict[str, int]:
        """How many there are, as logs say it."""
        agents = self._agents.known
        return {"workflows": len(self._workflows.names())} | ({} if agents is None else {"agents": len(agents.names())})


class ProjectApp:
    """A project as an ASGI application that opens it when it starts and closes it when it stops.

    Started by the ASGI lifespan; where a parent application does not pass that on (Starlette's `Mount` does not), by
    the first request. Then `async with app.running():` in the parent's lifespan makes it stop in good order, too.
    """

    def __init__(
        self,
        root: Path,
        *,
        options: Mapping[str, Any] | None = None,
        dev: bool = False,
        prepare: Callable[[EmbeddedEngine], None] | None = None,
    ) -> None:
        """`prepare` is called with the engine before it runs anything."""
        self._root = root
        self._prepare = prepare
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
        from .graph_models import load_executors
        from .server import Services, build_app

        project = await asyncio.to_thread(open_project, self._root, options=self._options, serves=True)
        try:
            # In a thread, and before the first request: no request waits for an import.
            definitions = project.definitions
            await asyncio.to_thread(definitions.refresh)
            definitions.report()
            await asyncio.to_thread(load_executors)
            made = project.engine(adopts=True, on_end=_report_failure)
            if self._prepare is not None:
                self._prepare(made)
            async with made as engine:
                services = Services(
                    settings=project.settings,
                    catalog=project.catalog,
                    agents=functools.partial(project.instances, engine),
                    journal=project.journal,
                    engine=engine,
                    version=__version__,
                    dev=self._dev,
                )
                app = self._app = build_app(services, dialects=project.catalog.dialects)
                try:
                    async with self._reloading(definitions):
                        yield app
                finally:
                    log.info("stopping", running=engine.stats()["running"])
                    # It stays in its place: a request that comes from now on is answered 503 by it.
                    app.begin_stop()
        finally:
            await project.journal.close()
        log.info("stopped")

    @contextlib.asynccontextmanager
    async def _reloading(self, definitions: Definitions) -> AsyncGenerator[None]:
        """In `dev`, serve edited files without a restart."""
        if not self._dev:
            yield
            return
        from .workflows.watch import watch

        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(watch(definitions, on_change=lambda: _report_reload(definitions)))
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


async def init_agent(
    agent: CreatedAgent,
    *,
    id: str = "default",  # noqa: A002  (the word that its users were promised)
    name: str = "agent",
    project: str | Path | None = None,
    tools: Sequence[Any] = (),
    skills: Sequence[Any] = (),
    subagents: Sequence[Any] = (),
) -> InstanceHarness:
    """Bind an agent to an instance of it, outside of any run; `await harness.destroy()` at the end.

    `name` and `id` say which instance it is: what was said in its sessions and its files are there the next time, if
    there is a project (`project`, or the one the current folder belongs to). Without one they are kept in memory.

    Raises:
        AgentInvalid: it is no agent; ProjectNotFound: `project` is none; ValueError: a name or id that cannot be used;
        and what `open_journal` raises.
    """
    import contextlib

    from .agents.standalone import StandaloneSource, Surroundings, bind
    from .engine import EmbeddedEngine

    settings, journal = await asyncio.to_thread(_open_for_agent, project)
    closing = contextlib.AsyncExitStack()
    closing.push_async_callback(journal.close)
    try:
        source = StandaloneSource()
        engine = EmbeddedEngine(
            journal,
            source,
            settings=settings.engine,
            limits=settings.limits,
            root=settings.root,
            adopts=False,
            agents=LazyAgents(settings),
        )
        await closing.enter_async_context(engine)
        around = Surroundings(engine=engine, journal=journal, source=source, closing=closing)
        options = {"tools": tools, "skills": skills, "subagents": subagents}
        return bind(around, agent, name=name, instance_id=id, options=options)
    except BaseException:
        await closing.aclose()
        raise


def _open_for_agent(project: str | Path | None) -> tuple[Settings, Journal]:
    try:
        root = find_root(Path.cwd()) if project is None else Path(project).resolve()
    except ProjectNotFound:
        settings = load_settings(Path.cwd(), options={"journal.url": "memory:"})
    else:
        settings = load_settings(root)
    return settings, open_journal(settings.journal_url, settings=settings.journal, limits=settings.limits)


def drive_apart() -> None:
    """What a quarantine's process runs."""
    from . import apart

    apart.drive_apart(open_project)


def run_server(
    root: Path,
    options: Mapping[str, Any],
    *,
    dev: bool = False,
    prepare: Callable[[EmbeddedEngine], None] | None = None,
) -> None:
    """Serve a project until SIGINT or SIGTERM, then hand its runs back and return (`pyflue dev`, `pyflue serve`).

    `prepare` is called with the engine before it runs anything.

    Raises:
        PyFlueError: it could not start, or not listen where the settings say.
    """
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
    app = ProjectApp(settings.root, options=options, dev=dev, prepare=prepare)
    sock = bind(settings.server)

    def ready(url: str) -> None:
        settle_memory()
        watch_memory(asyncio.get_running_loop())
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
        "run_failed",
        run_id=run_id,
        workflow=workflow_of(run_id) or run_id.rpartition(":")[0],
        type=error.get("type"),
        where=error.get("where"),
    )


def _report_reload(definitions: Definitions) -> None:
    definitions.report()
    log.info("reloaded", **definitions.count())
