"""The harness: an agent bound to one run, with its sessions, its files and its shell.

`ctx.init(agent)` makes one. It is private to the run and to that call: no other run, and no other harness, sees its
conversations, its files or its secrets.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .. import codec, ids
from ..codec import Raw
from ..engine import values
from ..engine.calls import Call, Calls
from ..engine.context import ContextBase
from ..errors import NameUnknown, SessionExists, SessionNotFound
from ..journal import Attached, NewStep, Step, StepStatus
from .budget import Budget
from .files_face import Files
from .metering import Meter, SkippedTurns
from .redaction import redacted
from .sandboxes.port import CommandResult
from .session import Session
from .shell import CommandRun
from .workspace import Workspace

if TYPE_CHECKING:
    from ..settings import AgentSettings
    from .definitions import Definition
    from .profiles import AgentProfile
    from .room import AgentRoom
    from .toolbox import Toolbox
    from .tools import ToolDefinition


#: With it the names of a session's operations stay below what names a durable call.
_MOST_NAME_CHARACTERS = 100


class Harness:
    """One agent in one run."""

    def __init__(
        self,
        room: AgentRoom,
        ctx: ContextBase[Any],
        calls: Calls,
        key: str,
        definition: Definition,
        *,
        run_meter: Meter,
        skipped: SkippedTurns,
        workspace: Workspace,
    ) -> None:
        self.room = room
        self.ctx = ctx
        self.calls = calls
        self.settings: AgentSettings = room.settings.agent
        #: What tells it from the other harnesses of the run.
        self.key = key
        self.definition = definition
        #: What all model work of the run adds up to.
        self.run_meter = run_meter
        self.skipped = skipped
        self.meter = Meter(f"agent {definition.name or key!r}", definition.budget, above=run_meter)
        self.workspace = workspace
        #: Secrets that commands were given so far, with their names: taken out of all that is recorded from then on.
        self.shown_secrets: dict[str, str] = {}
        #: The agent's files.
        self.fs = Files(self, workspace)
        #: The sessions by name: `get`, `create`, `delete`, `names`.
        self.sessions = Sessions(self)
        self._mcp: Sequence[ToolDefinition] | None = None
        #: The tools of prompts that choose none of their own, by the definition's identity and the depth of tasks.
        self.toolboxes: dict[tuple[int, int], Toolbox] = {}
        self._subagents: dict[tuple[int, int], Definition] = {}
        #: The budget of operations that are given none.
        self.usual_budget = Budget(max_turns=self.settings.max_turns)
        self._connecting = asyncio.Lock()
        self._closing = contextlib.AsyncExitStack()

    @property
    def has_history(self) -> bool:
        """Whether the journal may hold anything of it."""
        return self.calls.has_history or ids.is_interaction(self.calls.fence.run_id)

    def catch_up(self) -> None:
        """Count model work inside of steps that are not done again: for the run, as nobody knows whose it was."""
        self.skipped.count_steps(self.run_meter)

    async def session(self, name: str = "default", *, role: str | None = None) -> Session:
        """Open a session, or begin it.

        Raises:
            NameUnknown: the agent has no such role. ValueError: no name for a session.
        """
        return self.sessions.open(name, role=role)

    def shell(
        self,
        command: str | Sequence[str],
        *,
        timeout_s: float = 120.0,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        secrets: Sequence[str] = (),
    ) -> Coroutine[Any, Any, CommandResult]:
        """Run a command in the agent's sandbox, once per run. No conversation hears of it.

        Text is for the shell, a sequence is run without one. `secrets` names values of the agent's `env` to be in the
        command's environment. A command that fails is no error: look at `exit_code`.

        Raises:
            NameUnknown: no such secret; SandboxUnavailable.
        """
        granted = self._granted(secrets)
        self.shown_secrets.update(granted)
        run = CommandRun.of(command, timeout_s=timeout_s, cwd=cwd, env={**(env or {}), **granted})
        call = self.calls.begin("shell", "shell")
        return self._shell(call, run)

    async def destroy(self) -> None:
        """Let go of the sandbox and of connections. A run does so by itself when it ends."""
        self.sessions.close()
        async with self._connecting:
            await self._closing.aclose()
        await self.workspace.close()

    # What sessions ask

    def as_subagent(self, definition: Definition, profile: AgentProfile) -> Definition:
        """The definition of a subagent: the same one each time, and kept, as toolboxes go by its identity."""
        key = (id(definition), id(profile))
        made = self._subagents.get(key)
        if made is None:
            made = self._subagents[key] = definition.for_subagent(profile)
        return made

    async def mcp_tools(self, definition: Definition) -> Sequence[ToolDefinition]:
        """The tools of the agent's MCP servers, which are connected at the first prompt."""
        if not definition.mcp_servers:
            return ()
        async with self._connecting:
            if self._mcp is None:
                self._mcp = await self.room.connect_mcp(definition.mcp_servers, self._closing)
            return self._mcp

    def _granted(self, secrets: Sequence[str]) -> dict[str, str]:
        known = self.definition.secrets
        for name in secrets:
            if name not in known:
                raise NameUnknown("secret", name, sorted(known))
        return {name: known[name] for name in secrets}

    async def _shell(self, call: Call, run: CommandRun) -> CommandResult:
        calls = self.calls
        record = calls.recorded(call, values.digest(codec.encode([run.shown, run.cwd])))
        if isinstance(record, Step) and record.status is StepStatus.COMPLETED:
            return CommandResult(**codec.load(record.value or codec.NULL))
        whose = _OfHarness(calls, call, self.shown_secrets)
        started_us, started_index = calls.clock.now_us(), calls.index
        with calls.parking.calling():
            await calls.ready()
            await calls.settle()
            async with self.workspace.changing():
                result = await run.execute(whose, self.workspace)
                step = NewStep(
                    key=call.key,
                    kind="shell",
                    name=call.name,
                    position=call.position,
                    status=StepStatus.COMPLETED,
                    input_digest=values.digest(codec.encode([run.shown, run.cwd])),
                    value=Raw(codec.encode(dataclasses.asdict(result))),
                    started_us=started_us,
                    started_index=started_index,
                )
                await calls.record(step, attached=Attached(files=await self.workspace.taken()))
        return result


class Sessions:
    """The sessions of a harness."""

    def __init__(self, harness: Harness) -> None:
        self._harness = harness
        self._sessions: dict[str, Session] = {}
        #: How many sessions of a name were deleted.
        self._deleted: dict[str, int] = {}

    @property
    def names(self) -> Sequence[str]:
        """Those that are open here."""
        return list(self._sessions)

    def open(self, name: str, *, role: str | None = None) -> Session:
        """A session, begun if it is not there."""
        return self._sessions.get(name) or self._begin(name, role)

    async def get(self, name: str) -> Session:
        """A session that is there.

        Raises:
            SessionNotFound
        """
        found = self._sessions.get(name)
        if found is None:
            raise SessionNotFound(name)
        return found

    async def create(self, name: str, *, role: str | None = None) -> Session:
        """A new session.

        Raises:
            SessionExists
        """
        if name in self._sessions:
            raise SessionExists(name)
        return self._begin(name, role)

    async def delete(self, name: str) -> None:
        """Close a session and forget it: a later one of its name begins anew. Nothing happens if there is none."""
        found = self._sessions.pop(name, None)
        if found is not None:
            found.close()
            self._deleted[name] = self._deleted.get(name, 0) + 1

    def close(self) -> None:
        """Close all of them."""
        for session in self._sessions.values():
            session.close()

    def _begin(self, name: str, role: str | None) -> Session:
        harness = self._harness
        if not 0 < len(name) <= _MOST_NAME_CHARACTERS or not name.isprintable():
            raise ValueError(
                f"{name[:200]!r} cannot name a session: 1 to {_MOST_NAME_CHARACTERS} printable characters can."
            )
        if role is not None and role not in harness.definition.roles:
            raise NameUnknown("role", role, sorted(harness.definition.roles))
        session = self._sessions[name] = Session(
            harness,
            name,
            harness.definition,
            role=role,
            above=harness.meter,
            workspace=harness.workspace,
            deleted_before=self._deleted.get(name, 0),
        )
        return session


class _OfHarness:
    """Whose command `harness.shell` is."""

    def __init__(self, calls: Calls, call: Call, secrets: Mapping[str, str]) -> None:
        self.calls = calls
        self.about = {"step": call.key}
        self._secrets = secrets

    def redact(self, text: str) -> str:
        return redacted(text, self._secrets)
