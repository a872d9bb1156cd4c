"""Agents outside of runs: `init_agent` binds one to an instance, for scripts, notebooks and other programs.

Each operation is an interaction with the instance, driven by an engine of its own in this process: it is recorded, it
is refused while another process works in the same session, and it ends with this process. Conversations and files of
the instance are there the next time. Without a project everything is kept in memory.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import codec, ids
from ..codec import Raw
from ..engine import FlueContext, Recovery, RunHandle, Submission
from ..errors import AgentInvalid, AgentNotFound, RunCancelled
from ..ids import new_ulid
from ..journal import Journal, Outcome, RunStatus
from .answers import Reply
from .definitions import CreatedAgent, is_created_agent
from .harness import Harness
from .session import Session

if TYPE_CHECKING:
    from ..engine import EmbeddedEngine, Graph
    from .sandboxes.port import CommandResult, FileInfo

#: How long a caller who gives up waits for the end of what it asked for.
_STOPS_WITHIN_S = 5.0
_Work = Callable[[Harness], Awaitable[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What an instance lives in: an engine whose workflows `source` has, and what to close at the end."""

    engine: EmbeddedEngine
    journal: Journal
    source: StandaloneSource
    closing: contextlib.AsyncExitStack


class StandaloneSource:
    """The workflows of an engine that only drives operations of this process."""

    def __init__(self) -> None:
        self.workflows: dict[str, OperationWorkflow] = {}

    def find(self, name: str) -> OperationWorkflow:
        """As `WorkflowSource.find`."""
        found = self.workflows.get(name)
        if found is None:
            raise AgentNotFound(name, sorted(self.workflows))
        return found

    def refresh(self) -> bool:
        """As `WorkflowSource.refresh`."""
        return False


class OperationWorkflow:
    """What the operations of one agent are runs of; implements `engine.Workflow`."""

    kind = "agent"
    version = ""
    description = ""
    input_schema: Mapping[str, Any] = {}
    output_schema: Mapping[str, Any] = {}
    recovery = Recovery.FAIL
    is_strict = False
    path = Path()

    def __init__(self, name: str, agent: CreatedAgent, options: Mapping[str, Any]) -> None:
        self.name = name
        self._agent = agent
        self._options = options
        #: What is to be done, by the tag of its run.
        self.work: dict[str, _Work] = {}
        #: What came of it, before it was made JSON.
        self.done: dict[str, Any] = {}

    def parse(self, payload: Any) -> Any:
        """As `Workflow.parse`."""
        return payload

    def graph(self) -> Graph | None:
        """As `Workflow.graph`."""
        return None

    async def run(self, ctx: FlueContext[Any]) -> Any:
        """Do the work that was handed in under the run's tag."""
        (ticket,) = ctx.tags
        harness = await ctx.init(self._agent, **self._options)
        value = self.done[ticket] = await self.work[ticket](harness)
        return value.to_dict() if isinstance(value, Reply) else None


class InstanceHarness:
    """An agent bound to an instance. Use it as an async context manager, or call `destroy` at the end."""

    def __init__(self, around: Surroundings, workflow: OperationWorkflow, stream_id: str) -> None:
        self._around = around
        self._workflow = workflow
        #: The instance's stream of events.
        self.stream_id = stream_id
        #: The instance's files.
        self.fs = InstanceFiles(self)

    async def __aenter__(self) -> InstanceHarness:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.destroy()

    async def session(self, name: str = "default", *, role: str | None = None) -> InstanceSession:
        """A session of the instance, with all that was said in it before."""
        return InstanceSession(self, name, role)

    async def shell(self, command: str | Sequence[str], **options: Any) -> CommandResult:
        """As `Harness.shell`."""
        return await self.do(lambda harness: harness.shell(command, **options), "", {"command": str(command)})

    async def destroy(self) -> None:
        """Let go of everything. Conversations and files stay in the journal."""
        await self._around.closing.aclose()

    async def do(self, work: _Work, session: str, told: Mapping[str, Any]) -> Any:
        """Do something with the agent as one interaction of a session; returns what `work` returns.

        Raises:
            SessionBusy, and what `work` raises.
        """
        ticket = new_ulid()
        workflow = self._workflow
        errors: list[Exception] = []

        async def guarded(harness: Harness) -> Any:
            try:
                return await work(harness)
            except Exception as error:
                errors.append(error)  # the caller gets it as it is, not as the record tells it
                raise

        workflow.work[ticket] = guarded
        payload = {"kind": "prompt", "session": session, **told}
        try:
            handle, outcome = await self._outcome(
                Submission(
                    workflow=workflow,
                    payload=Raw(codec.encode(payload)),
                    parsed=payload,
                    tags=(ticket,),
                    stream_id=self.stream_id,
                    lane=f"{self.stream_id}/{session}",
                    needs_free_lane=True,
                )
            )
            if errors:
                raise errors[0]
            if outcome.status is not RunStatus.COMPLETED:
                raise RunCancelled(handle.run_id)
            return workflow.done[ticket]
        finally:
            workflow.work.pop(ticket, None)
            workflow.done.pop(ticket, None)

    async def _outcome(self, submission: Submission) -> tuple[RunHandle, Outcome]:
        """What came of an interaction. If this is cancelled, so is that, and the session is free again."""
        engine = self._around.engine
        submitting = asyncio.ensure_future(engine.submit(submission))
        try:
            handle = await asyncio.shield(submitting)
            return handle, await handle.outcome()
        except asyncio.CancelledError:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(_STOPS_WITHIN_S):
                    handle = await submitting
                    await engine.cancel(handle.run_id)
                    await handle.outcome()
            raise


class InstanceSession:
    """One session of an instance: as `Session`, each operation being an interaction."""

    def __init__(self, harness: InstanceHarness, name: str, role: str | None) -> None:
        self._harness = harness
        self.name = name
        self._role = role

    def prompt(self, text: str, **options: Any) -> Coroutine[Any, Any, Reply[Any]]:
        """As `Session.prompt`."""
        return self._do(lambda session: session.prompt(text, **options), message=text)

    def skill(self, name: str, **options: Any) -> Coroutine[Any, Any, Reply[Any]]:
        """As `Session.skill`."""
        return self._do(lambda session: session.skill(name, **options), skill=name)

    def task(self, prompt: str, **options: Any) -> Coroutine[Any, Any, Reply[Any]]:
        """As `Session.task`."""
        return self._do(lambda session: session.task(prompt, **options), message=prompt)

    def shell(self, command: str | Sequence[str], **options: Any) -> Coroutine[Any, Any, CommandResult]:
        """As `Session.shell`."""
        return self._do(lambda session: session.shell(command, **options), command=str(command))

    def compact(self, **options: Any) -> Coroutine[Any, Any, bool]:
        """As `Session.compact`."""
        return self._do(lambda session: session.compact(**options))

    async def stream(self, text: str, **options: Any) -> AsyncGenerator[str]:
        """As `Session.stream`: pieces of the answer's text as they arrive."""
        pieces: asyncio.Queue[str | None] = asyncio.Queue()

        async def work(session: Session) -> Reply[Any]:
            stream = session.stream(text, **options)
            async for piece in stream:
                pieces.put_nowait(piece)
            return await stream.reply()

        doing = asyncio.ensure_future(self._do(work, message=text))

        def end(done: asyncio.Future[Reply[Any]]) -> None:
            if not done.cancelled():
                done.exception()  # who has left does not hear of it, and asyncio would complain of that
            pieces.put_nowait(None)

        doing.add_done_callback(end)
        try:
            while (piece := await pieces.get()) is not None:
                yield piece
            doing.result()
        finally:
            doing.cancel()

    async def _do(self, work: Callable[[Session], Awaitable[Any]], **told: Any) -> Any:
        async def in_session(harness: Harness) -> Any:
            return await work(await harness.session(self.name, role=self._role))

        return await self._harness.do(in_session, self.name, told)


class InstanceFiles:
    """The files of an instance, as `Files`."""

    def __init__(self, harness: InstanceHarness) -> None:
        self._harness = harness

    async def read_file(self, path: str) -> str:
        """As `Files.read_file`."""
        return await self._do(lambda harness: harness.fs.read_file(path))

    async def read_bytes(self, path: str) -> bytes:
        """As `Files.read_bytes`."""
        return await self._do(lambda harness: harness.fs.read_bytes(path))

    async def write_file(self, path: str, content: str | bytes) -> None:
        """As `Files.write_file`."""
        await self._do(lambda harness: harness.fs.write_file(path, content))

    async def stat(self, path: str) -> FileInfo:
        """As `Files.stat`."""
        return await self._do(lambda harness: harness.fs.stat(path))

    async def exists(self, path: str) -> bool:
        """As `Files.exists`."""
        return await self._do(lambda harness: harness.fs.exists(path))

    async def readdir(self, path: str = ".") -> list[str]:
        """As `Files.readdir`."""
        return await self._do(lambda harness: harness.fs.readdir(path))

    async def mkdir(self, path: str, *, recursive: bool = True) -> None:
        """As `Files.mkdir`."""
        await self._do(lambda harness: harness.fs.mkdir(path, recursive=recursive))

    async def rm(self, path: str, *, recursive: bool = False, force: bool = False) -> None:
        """As `Files.rm`."""
        await self._do(lambda harness: harness.fs.rm(path, recursive=recursive, force=force))

    async def _do(self, work: Callable[[Harness], Awaitable[Any]]) -> Any:
        return await self._harness.do(work, "", {})


def bind(
    around: Surroundings, agent: CreatedAgent, *, name: str, instance_id: str, options: Mapping[str, Any]
) -> InstanceHarness:
    """An agent bound to an instance.

    Raises:
        AgentInvalid: it is no agent; ValueError: the name or the id cannot be used.
    """
    if not is_created_agent(agent):
        raise AgentInvalid("init_agent requires a created agent.", hint="create_agent makes one.")
    stream_id = ids.agent_stream(name, instance_id)
    workflow = OperationWorkflow(f"{ids.AGENT_PREFIX}{name}", agent, options)
    around.source.workflows[workflow.name] = workflow
    return InstanceHarness(around, workflow, stream_id)
