"""Agent files: each `.py` file in `src/agents/` (or `agents/`, `.agents/`) is an agent that goes on between calls.

The server and the command line ask the `AgentCatalog` for an agent by name. Files are found and loaded just as workflow
files are, by the same code: a name of a request is looked up, never made a path; each version has modules of its own; a
file that cannot be used is named with its line and hides no other. This is the only module of the agents' room that
knows the `workflows` room.

A file exports `agent` (or `default`), made by `create_agent`. It may also have a `description` and a function
`authorize(request)`, which decides who may talk to which instance.
"""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, cast

from ..engine import RequestInfo
from ..engine.threads import run_in_own_thread
from ..errors import AgentInvalid, AgentNotFound, WorkflowInvalid, WorkflowNotFound
from ..settings import AGENT_FOLDERS, FILE_NAME
from ..workflows import Catalog, Diagnostic, Dialect, Loader, Source
from ..workflows.modules import LoadedModule, ModuleLoader, shown
from ..workflows.namespaces import Namespace
from .checking import shown as shown_value
from .definitions import CreatedAgent, create_agent
from .markdown_files import inside

KIND = "agent"
#: A caller waits for the decision of a hook meanwhile.
_DECIDES_WITHIN_S = 30.0
#: The agent without a file: what the settings say an agent is, and nothing else. `pyflue prompt` talks to it.
PLAIN_AGENT = "pyflue.prompt"


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentRequest:
    """What somebody wants of an instance of an agent: what an `authorize` hook decides about."""

    agent: str
    instance_id: str
    #: The session, if it is about one.
    session: str | None
    #: `prompt`, `dispatch`, `read`, `abort` or `delete`.
    action: str
    #: The HTTP request (credentials are left out of its headers); None for callers inside of this process.
    request: RequestInfo | None


#: Returns None or True for yes and False for no; what it raises is a no with a reason. A plain function gets a thread.
Authorize: TypeAlias = Callable[[AgentRequest], bool | Awaitable[bool | None] | None]


@dataclass(frozen=True, slots=True, kw_only=True, weakref_slot=True, eq=False)
class AgentFile:
    """One version of an agent file."""

    name: str
    path: Path
    #: A hash of the source it was loaded from.
    version: str
    agent: CreatedAgent
    authorize: Authorize | None
    description: str
    #: Held so that late imports of the agent's code find the modules of this version.
    namespace: Namespace | None = field(repr=False)

    async def allows(self, request: AgentRequest) -> bool:
        """Whether the file lets somebody do something. What its hook raises is passed on.

        Raises:
            AgentInvalid: the hook returned something that is neither yes nor no, or nothing for too long.
        """
        if self.authorize is None:
            return True
        limit = asyncio.timeout(_DECIDES_WITHIN_S)
        try:
            async with limit:
                answer = await self._answer(self.authorize, request)
        except TimeoutError:
            if not limit.expired():
                raise
            problem = f"authorize of the agent {self.name!r} did not decide within {_DECIDES_WITHIN_S:g} s."
            raise AgentInvalid(problem) from None
        if answer is not None and not isinstance(answer, bool):
            problem = (
                f"authorize of the agent {self.name!r} returned {shown_value(answer)}; it returns True, False or None."
            )
            raise AgentInvalid(problem)
        return answer is not False

    async def _answer(self, authorize: Authorize, request: AgentRequest) -> Any:
        if inspect.iscoroutinefunction(authorize):
            answer: Any = authorize(request)
        else:
            # One that asks a database, and blocks meanwhile, keeps nobody else waiting.
            answer = await run_in_own_thread(authorize, request)
        return await answer if inspect.isawaitable(answer) else answer


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentEntry:
    """A name of the catalog. Both `agent` and `error` are there if an edit broke a file that worked before."""

    name: str
    path: Path
    agent: AgentFile | None
    error: AgentInvalid | None


class AgentCatalog:
    """The agent files of one project. May be used from any thread; first loads and `refresh` block."""

    def __init__(self, root: Path, *, agents_dir: str = "", import_timeout_s: float = 20.0) -> None:
        """`agents_dir` is one folder in the place of the usual ones.

        Raises:
            AgentInvalid: it leads out of the project.
        """
        folders: tuple[str, ...] = AGENT_FOLDERS
        if agents_dir:
            real_root = Path(os.path.realpath(root))
            folders = (inside(real_root, agents_dir, "The setting agent.agents_dir").relative_to(real_root).as_posix(),)
        loader = _AgentLoader(Path(os.path.realpath(root)), folders)
        # The catalog hands on what the loader makes and never looks into it.
        dialect = Dialect(kind=KIND, loader=cast("Loader", loader))
        self._catalog = Catalog(root, dialects=[dialect], import_timeout_s=import_timeout_s, folders=folders, what=KIND)

    def find(self, name: str) -> AgentFile:
        """The newest version of an agent file that could be loaded; loads it (and no other) at first use.

        Raises:
            AgentNotFound: no file has this name.
            AgentInvalid: the file is there but cannot be used.
        """
        try:
            return cast("AgentFile", self._catalog.find(name))
        except WorkflowNotFound:
            raise AgentNotFound(name, self.names()) from None
        except WorkflowInvalid as error:
            raise _agent_invalid(error) from None

    def names(self) -> list[str]:
        """The names there are, in order. Imports nothing."""
        return self._catalog.names()

    def entries(self) -> list[AgentEntry]:
        """Every name with its agent or what is wrong with it. Loads what is not loaded yet."""
        return [
            AgentEntry(
                name=entry.name,
                path=entry.path,
                agent=cast("AgentFile | None", entry.workflow),
                error=None if entry.error is None else _agent_invalid(entry.error),
            )
            for entry in self._catalog.entries()
        ]

    def refresh(self) -> bool:
        """Look at the files again and load all that is new or changed. Blocks. True if anything is different now."""
        return self._catalog.refresh()

    def diagnostics(self) -> list[Diagnostic]:
        """What the author should know: files left out, names given twice, and files found to be broken so far."""
        return self._catalog.diagnostics()

    def folders(self) -> frozenset[Path]:
        """The folders in which a change may concern this catalog."""
        return self._catalog.folders()


def plain_agent(root: Path) -> AgentFile:
    """The agent without a file."""
    return AgentFile(
        name=PLAIN_AGENT,
        path=root / FILE_NAME,
        version="",
        agent=create_agent(_nothing_more),
        authorize=None,
        description="",
        namespace=None,
    )


def _nothing_more() -> dict[str, Any]:
    return {}


class _AgentLoader:
    """Makes agent files of `.py` files."""

    def __init__(self, root: Path, folders: tuple[str, ...]) -> None:
        self._modules = ModuleLoader(folders)
        # `.agents` also holds skills, and those may bring scripts along.
        self._flat = [root / folder for folder in folders if folder == ".agents"]

    def claims(self, path: Path) -> bool:
        return path.suffix == ".py" and not any(folder in path.parent.parents for folder in self._flat)

    def inputs(self, source: Source) -> Iterable[Path]:
        return self._modules.inputs(source)

    def load(self, source: Source) -> AgentFile:
        loaded = self._modules.load(source)
        try:
            agent_file = _agent_file(source, loaded)
        except BaseException:
            loaded.drop()
            raise
        loaded.keep_for(agent_file)
        return agent_file


def _agent_file(source: Source, loaded: LoadedModule) -> AgentFile:
    names = vars(loaded.module)
    export = next((name for name in ("agent", "default") if names.get(name) is not None), None)
    if export is None:
        raise WorkflowInvalid(
            shown(source),
            "it has no `agent`. Write `agent = create_agent(…)`, or move the file into a folder that starts with '_'.",
            line=1,
        )
    agent = names[export]
    if not isinstance(agent, CreatedAgent):
        problem = f"its `{export}` is {shown_value(agent)}; it must come from create_agent."
        raise WorkflowInvalid(shown(source), problem, line=1)
    authorize = names.get("authorize")
    if authorize is not None and not _takes_one_argument(authorize):
        problem = f"its `authorize` is {shown_value(authorize)}; it must be a function of one argument, the request."
        raise WorkflowInvalid(shown(source), problem, line=1)
    description = names.get("description")
    if description is not None and not isinstance(description, str):
        problem = f"its `description` is {shown_value(description)}; it must be a string."
        raise WorkflowInvalid(shown(source), problem, line=1)
    return AgentFile(
        name=source.name,
        path=source.path,
        version=loaded.version,
        agent=agent,
        authorize=authorize,
        description=inspect.cleandoc(description or loaded.module.__doc__ or "").strip(),
        namespace=loaded.namespace,
    )


def _takes_one_argument(function: Any) -> bool:
    if not callable(function) or inspect.isclass(function):
        return False
    try:
        inspect.signature(function).bind(None)
    except (TypeError, ValueError):
        return False
    return True


def _agent_invalid(error: WorkflowInvalid) -> AgentInvalid:
    place = {"path": error.path, "line": error.line}
    return AgentInvalid(str(error), details=place if error.details is None else {**place, **error.details})
