"""Attempts at runs, made ready to be driven: their recorder, their durable calls, and what earlier attempts recorded.

Called by the embedded engine when a run is accepted and when it is taken up again; `drive.py` does the work after that.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import codec
from ..clock import Clock, to_us
from ..codec import Raw
from ..errors import PyFlueError
from ..journal import Accepted, Event, EventType, Fence, Journal, NewEvent, NewRun, Run
from ..settings import Limits
from .agents import AgentHost
from .calls import Calls
from .context import FlueContext
from .drive import Drive, StopReason
from .live import Live
from .recorder import JournalRecorder
from .resources import Resources
from .slots import Slots
from .workflow import Recovery, Workflow

if TYPE_CHECKING:
    from .embedded import EmbeddedEngine

_EVENTS_AT_ONCE_BYTES = 1024**2


class Attempts:
    """Makes drives for one engine."""

    def __init__(
        self,
        engine: EmbeddedEngine,
        journal: Journal,
        *,
        clock: Clock,
        limits: Limits,
        slots: Slots,
        root: Path | None,
        agents: AgentHost | None,
        live: Live,
        resources: Resources,
    ) -> None:
        self._engine = engine
        self._journal = journal
        self._clock = clock
        self._limits = limits
        self._slots = slots
        self._root = root
        self._agents = agents
        self._live = live
        self._resources = resources

    def prepare(
        self,
        fence: Fence,
        workflow: Workflow,
        payload: Any,
        *,
        tags: tuple[str, ...],
        deadline_us: int | None,
        request: Raw | None,
        last_index: int,
        depth: int,
        accepted: asyncio.Future[Accepted] | None = None,
    ) -> Drive:
        """An attempt at a run. It holds a slot from now on."""
        recorder = JournalRecorder(self._journal, fence, last_index=last_index, clock=self._clock, limits=self._limits)
        drive = Drive(fence=fence, workflow=workflow, deadline_us=deadline_us, root=self._root)
        drive.recorder = recorder
        drive.calls = Calls(
            fence=fence,
            journal=self._journal,
            recorder=recorder,
            clock=self._clock,
            limits=self._limits,
            slots=self._slots,
            host=_Host(self._engine, drive, depth),
            root=self._root,
            accepted=accepted,
            is_strict=workflow.is_strict,
            agents=self._agents,
            live=self._live,
            resources=self._resources,
        )
        drive.calls.parking.on_parked = functools.partial(self._engine.note_parked, drive)
        drive.context = FlueContext(
            run_id=fence.run_id,
            workflow=workflow.name,
            payload=payload,
            recorder=recorder,
            calls=drive.calls,
            attempt=fence.attempt,
            tags=tags,
            deadline_us=deadline_us,
            request=request,
        )
        return drive

    async def resume(self, fence: Fence, run: Run, workflow: Workflow, payload: Any) -> Drive:
        """A further attempt at a run that was claimed, with what it has recorded."""
        drive = self.prepare(
            fence,
            workflow,
            payload,
            tags=run.tags,
            deadline_us=None if run.deadline_at is None else to_us(run.deadline_at),
            request=run.request,
            last_index=run.last_index,
            depth=run.depth,
        )
        try:
            await self._recall(drive, run)
        except BaseException:
            drive.calls.parking.close()
            raise
        return drive

    async def _recall(self, drive: Drive, run: Run) -> None:
        """Give an attempt what earlier ones recorded."""
        if drive.workflow.version != run.workflow_version:
            self._journal.append(drive.fence, self._version_changed(run, drive.workflow))
        if run.attempt > 1:
            if run.is_interrupted and drive.workflow.recovery is Recovery.RESTART:
                await self._journal.restart(drive.fence)
                return
            await drive.recorder.remember(_events_of(self._journal, run))
        elif run.retried_from is None and run.forked_from is None:
            return
        drive.calls.remember(await self._journal.history(run.run_id))

    def _version_changed(self, run: Run, workflow: Workflow) -> NewEvent:
        data = {
            "level": "warn",
            "message": "The workflow's source has changed since the run was accepted.",
            "accepted_version": run.workflow_version,
            "workflow_version": workflow.version,
        }
        return NewEvent(type=EventType.LOG, at_us=self._clock.now_us(), data=Raw(codec.encode(data)))


class _Host:
    """Implements `calls.Host` for one attempt."""

    def __init__(self, engine: EmbeddedEngine, drive: Drive, depth: int) -> None:
        self._engine = engine
        self._drive: Drive | None = drive
        self._why: StopReason | None = None
        self._run_id = drive.fence.run_id
        self._depth = depth

    def let_go(self) -> None:
        self._why = self.stopped_because
        self._drive = None

    @property
    def stopped_because(self) -> StopReason | None:
        drive = self._drive
        if drive is None:
            return self._why
        return drive.stop_reason or (StopReason.FAILED if drive.failure is not None else None)

    def fail(self, error: PyFlueError) -> None:
        # Perhaps from a thread of the run.
        if (drive := self._drive) is not None:
            self._engine.fail(drive, error)

    def give_up(self, error: Exception) -> None:
        if (drive := self._drive) is not None:
            drive.give_up(error)

    async def find(self, workflow: str) -> Workflow:
        return await self._engine.find(workflow)

    def place_child(self, workflow: Workflow, payload: Raw, tags: tuple[str, ...]) -> NewRun:
        return self._engine.place_child(self._run_id, self._depth, workflow, payload, tags)

    def child_accepted(self, child: NewRun, workflow: Workflow, parsed: Any, *, is_there: bool) -> None:
        self._engine.child_accepted(child, workflow, parsed, is_there=is_there)

    def cancel_soon(self, run_id: str) -> None:
        self._engine.cancel_soon(run_id)


async def _events_of(journal: Journal, run: Run) -> AsyncIterator[Event]:
    """A run's events so far."""
    after = 0
    while events := await journal.events(run.run_id, after=after, limit_bytes=_EVENTS_AT_ONCE_BYTES):
        for event in events:
            yield event
        after = events[-1].index
