"""The agents room as the engine sees it: makes the harness of an agent for a run.

Put together in `main.py`. Holds what all runs of one engine share (the models' connections and the settings) and what
belongs to one run (what its model work adds up to).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from .. import ids
from ..engine.calls import Calls
from ..engine.context import ContextBase
from ..errors import ModelUnknown
from ..settings import Settings
from .budget import Budget
from .definitions import AgentCreateContext, Definition, resolve_agent
from .harness import Harness
from .metering import Meter, SkippedTurns
from .models.port import Model
from .project_files import ProjectFiles
from .workspace import Workspace

if TYPE_CHECKING:
    from .sandboxes.port import Sandbox
    from .toolbox import UsableTool
    from .tools import ToolDefinition


#: Sandboxes of which is known what they are before they are made.
_BUILT_IN = frozenset({"virtual", "local", "isolated"})
#: The name of the workspace of an instance.
_OF_INSTANCE = "workspace"
_OPTIONS = frozenset({"tools", "skills", "subagents"})
#: Providers that are called as their libraries are.
_LIBRARIES = frozenset({"anthropic", "openai"})


class AgentRoom:
    """Implements `engine.agents.AgentHost` for one project."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._meters: WeakKeyDictionary[Calls, Meter] = WeakKeyDictionary()
        self._skipped: WeakKeyDictionary[Calls, SkippedTurns] = WeakKeyDictionary()
        self._harnesses: WeakKeyDictionary[Calls, list[Harness]] = WeakKeyDictionary()
        self._warm: set[str] = set()
        self._files = ProjectFiles(settings.agent, settings.root)
        #: Harnesses that are letting go.
        self._ending: set[asyncio.Future[None]] = set()

    async def init(self, ctx: ContextBase[Any], calls: Calls, key: str, agent: Any, options: dict[str, Any]) -> Harness:
        """As `AgentHost.init`.

        Raises:
            AgentInvalid: it is no agent, or one that cannot be used.
        """
        unknown = sorted(options.keys() - _OPTIONS)
        if unknown:
            raise TypeError(f"ctx.init has no option {unknown[0]!r}; the options are {', '.join(sorted(_OPTIONS))}.")
        instance = ids.parse_agent_stream(ids.stream_of(calls.fence.run_id))
        context = AgentCreateContext(
            id=ctx.id if instance is None else instance[1],
            env=ctx.env,
            payload=ctx.payload if instance is None else None,
        )
        default_name = key.rpartition("/")[2] if instance is None else instance[0]
        definition = await resolve_agent(
            agent,
            context,
            settings=self.settings,
            root=self.settings.root,
            default_name=default_name,
            files=self._files,
            **options,
        )
        if definition.model_override is not None:
            ctx.log.warn(
                "The model of this agent is overridden (agent.model_override).", model=definition.model_override
            )
        run_meter = self._meters.get(calls)
        if run_meter is None:
            run_meter = self._meters[calls] = Meter("the run", self._run_budget())
            self._skipped[calls] = SkippedTurns(calls)
        harness = Harness(
            self,
            ctx,
            calls,
            key,
            definition,
            run_meter=run_meter,
            skipped=self._skipped[calls],
            workspace=self._workspace(ctx, calls, key, definition),
        )
        self._harnesses.setdefault(calls, []).append(harness)
        return harness

    def blocking(self, harness: Any, block: Callable[[Coroutine[Any, Any, Any]], Any]) -> Any:
        """As `AgentHost.blocking`."""
        from .blocking import Blocking

        return Blocking(harness, block)

    def end(self, calls: Calls) -> Coroutine[Any, Any, None] | None:
        """As `AgentHost.end`."""
        harnesses = self._harnesses.pop(calls, None)
        if harnesses is None:
            return None
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ending.add(over)
        return self._destroy(harnesses, over)

    async def _destroy(self, harnesses: Sequence[Harness], over: asyncio.Future[None]) -> None:
        try:
            for harness in harnesses:
                await harness.destroy()
        finally:
            over.set_result(None)
            self._ending.discard(over)

    async def close(self) -> None:
        """As `AgentHost.close`."""
        from .models import close_all

        if self._ending:
            await asyncio.wait(self._ending)
        await close_all()

    async def model(self, names: Sequence[str | Model], ctx: ContextBase[Any]) -> Model:
        """The model to ask, by its names; several are for falling back.

        Raises:
            ModelUnknown: there is none of this name, or none was chosen.
        """
        from .models import FallbackModel, find_model

        if not names:
            raise ModelUnknown(
                "The agent has no model.",
                hint="Give it one (`model`), or set agent.model in pyflue.toml, or work offline: "
                "PYFLUE_MODEL=scripted/hello.",
            )
        if len(names) == 1 and not isinstance(names[0], str):
            return names[0]
        await self._prepare([name for name in names if isinstance(name, str)])
        models = [
            find_model(name, providers=self.settings.providers, env=ctx.env, root=self.settings.root)
            if isinstance(name, str)
            else name
            for name in names
        ]
        return models[0] if len(models) == 1 else FallbackModel(models)

    async def _prepare(self, names: Sequence[str]) -> None:
        """Import what a provider needs, in a thread: that takes a second, and other runs go on meanwhile."""
        for provider in {name.replace(":", "/", 1).partition("/")[0] for name in names} - self._warm:
            if provider != "scripted":
                await asyncio.to_thread(_import_provider, provider)
            self._warm.add(provider)

    async def builtin_tools(
        self, definition: Definition, workspace: Workspace, *, env: Mapping[str, str], programs: Sequence[str]
    ) -> Sequence[UsableTool]:
        """The tools for files and the shell. `programs` are granted to the shell besides those of the policy."""
        from . import toolbox
        from .file_tools import builtin_tools
        from .sandboxes import SandboxPolicy

        policy = definition.policy or SandboxPolicy()
        if programs:
            policy = policy.granting(programs)
        kind = definition.sandbox
        if not isinstance(kind, str) or kind not in _BUILT_IN:
            sandbox = await workspace.sandbox()
        elif env:
            sandbox = workspace.late(kind)
        else:
            return toolbox.shared_builtins(kind, policy)
        return [toolbox.of_builtin(tool) for tool in builtin_tools(sandbox, policy, env=env)]

    async def connect_mcp(
        self, servers: Mapping[str, Any], stack: contextlib.AsyncExitStack
    ) -> Sequence[ToolDefinition]:
        """The tools of MCP servers, which stay connected until the stack is closed.

        Raises:
            McpFailed
        """
        from .mcp import connect

        return await connect(servers, stack, root=self.settings.root)

    def _run_budget(self) -> Budget | None:
        limits = self.settings.budget
        return Budget(
            max_turns=limits.max_turns or None,
            max_tokens=limits.max_tokens or None,
            max_cost_usd=limits.max_cost_usd or None,
            max_seconds=limits.max_seconds or None,
        )

    def _workspace(self, ctx: ContextBase[Any], calls: Calls, key: str, definition: Definition) -> Workspace:
        run_id = calls.fence.run_id
        stream_id = ids.stream_of(run_id)
        is_interaction = stream_id != run_id
        # Of a continuing agent the instance keeps its files; of a run, each harness has its own.
        name = _OF_INSTANCE if is_interaction else key
        may_be_there = calls.has_history or is_interaction
        read = functools.partial(calls.journal.files, stream_id) if may_be_there else None
        make = functools.partial(self._make_sandbox, definition, stream_id, name)
        return Workspace(name, make, read, run_id=run_id, given=calls.given)

    async def _make_sandbox(self, definition: Definition, stream_id: str, name: str) -> Sandbox:
        from .sandboxes import SandboxLimits, make_sandbox

        return await make_sandbox(
            definition.sandbox,
            root=_kept_folder(self.settings, stream_id, name),
            cwd=definition.cwd,
            policy=definition.policy,
            limits=SandboxLimits(output_bytes=self.settings.agent.shell_output_bytes),
        )


async def forget_files(settings: Settings, stream_id: str) -> None:
    """Delete what was kept on this host for a run or an instance, if there is anything: a later one begins with none.

    Folders that an agent's author named are no part of that. Whatever is there is not followed if it is a link.
    """
    kept = settings.state_folder / "sandboxes"
    folder = kept / folder_of(stream_id)
    gone = folder.with_name(f"{folder.name}.{ids.new_ulid()}")
    if kept.is_symlink():
        return  # whatever that leads to was not made here
    try:
        folder.rename(gone)  # at once, as somebody may begin a new one
    except FileNotFoundError:
        return
    await asyncio.to_thread(_delete_folder, gone)


def _delete_folder(folder: Path) -> None:
    import shutil

    if folder.is_symlink():
        folder.unlink()
        return
    # It goes by descriptors, so that a link that takes a folder's place meanwhile leads nowhere.
    shutil.rmtree(folder, ignore_errors=True)


def _kept_folder(settings: Settings, stream_id: str, name: str) -> Path:
    return settings.state_folder / "sandboxes" / folder_of(stream_id) / folder_of(name)


def folder_of(name: str) -> str:
    """The name of a folder for something whose name may hold anything: no two have the same."""
    import hashlib

    return hashlib.sha256(name.encode()).hexdigest()[:32]


def _import_provider(provider: str) -> None:
    import importlib

    from .models.pricing import load_prices

    load_prices()
    # The name is what somebody wrote; only these two are names of libraries as well.
    if provider in _LIBRARIES:
        with contextlib.suppress(ImportError):
            importlib.import_module(provider)
