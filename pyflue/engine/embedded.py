"""The embedded engine: drives runs in this process, on the event loop it was started on.

Servers and commands use it through the `Engine` port. It accepts runs into the journal, drives as many as may run at
once (the rest wait in the journal), commits how each ends, and takes over runs whose engine has died. What has to work
even while a workflow blocks the event loop is in `supervisor.py`; what happens inside one attempt is in `drive.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .. import codec, ids
from ..clock import Clock, SystemClock, rfc3339, to_us
from ..codec import Raw
from ..errors import (
    ChildrenTooDeep,
    CrashLoop,
    EngineStopping,
    IdempotencyConflict,
    JournalError,
    PyFlueError,
    RunFinished,
    RunInterrupted,
    RunNotFound,
    RunStopped,
    RunTimedOut,
    SessionBusy,
    TooLarge,
    WorkflowNotFound,
)
from ..journal import Accepted, Event, Fence, Journal, NewRun, Outcome, Run, RunStatus, follow
from ..logs import logger
from ..settings import EngineSettings, Limits
from . import failures, scopes
from .agents import AgentHost
from .drive import Drive, StopReason, failed
from .handle import Handle
from .live import Live
from .port import NO_PATCH, NOT_GIVEN, RunHandle, Submission
from .preparing import Attempts
from .quarantine import CRASHES_OF_A_SUSPECT, Quarantine, examine
from .resources import Resources
from .slots import Slots
from .supervisor import Supervisor
from .workflow import Recovery, Workflow, WorkflowSource

if TYPE_CHECKING:
    from ..journal import Approval, History, SignalAnswer

log = logger("pyflue.engine")

_CLAIM_AT_ONCE = 100
#: Stands among the arriving runs for those that a claim under way will bring.
_CLAIM = "claim"
#: How long suspects wait after a quarantine that could not be started.
_RETRY_QUARANTINE_S = 30.0
#: How long a caller of `cancel` is kept waiting for a run that another process drives.
_DISTANT_CANCEL_S = 2.0
#: How long the agents of a run may take to let go of what they held.
_AGENTS_END_S = 5.0
#: The part of the stop time that runs get to end by themselves before they are handed back.
_FINISHING_SHARE = 0.2


class EmbeddedEngine:
    """Implements the `Engine` port; use it as an async context manager.

    With `adopts` it also drives runs that others left behind or queued; without (as `pyflue run` does) only its own.
    """

    def __init__(
        self,
        journal: Journal,
        workflows: WorkflowSource,
        *,
        settings: EngineSettings | None = None,
        limits: Limits | None = None,
        clock: Clock | None = None,
        root: Path | None = None,
        adopts: bool = True,
        quarantine: Quarantine | None = None,
        agents: AgentHost | None = None,
        on_end: Callable[[str, Outcome], None] | None = None,
        is_supervised_apart: bool = True,
    ) -> None:
        """`on_end` is called on the event loop with the run id and outcome of each run that ended here.

        Without `is_supervised_apart` there is no thread of its own for the supervisor: everything happens on one event
        loop, as a simulation needs it.
        """
        self.engine_id = ids.new_ulid()
        self._journal = journal
        self._workflows = workflows
        self._settings = settings or EngineSettings()
        self._limits = limits or Limits()
        self._clock = clock or SystemClock()
        self._root = root
        self._adopts = adopts
        self._quarantine = quarantine
        self._agents = agents
        self._on_end = on_end
        self._max_crashes = CRASHES_OF_A_SUSPECT if quarantine is not None else None
        self._is_supervised_apart = is_supervised_apart
        self._drives: dict[str, Drive] = {}
        #: What models are writing in the runs that are driven here.
        self.live = Live()
        #: What runs share, closed when they have stopped.
        self.resources = Resources()
        self._slots = Slots(self._limits.running if adopts else None)
        self._attempts = Attempts(
            self,
            journal,
            clock=self._clock,
            limits=self._limits,
            slots=self._slots,
            root=self._root,
            agents=agents,
            live=self.live,
            resources=self.resources,
        )
        #: False in a quarantine: a run that waits has shown that it does not end its process.
        self._keeps_waiting = True
        self._answers_seen = 0
        #: Runs that are this engine's in the journal, or are about to be, and have no drive yet.
        self._arriving: set[str] = set()
        self._examined: set[str] = set()
        self._has_backlog = False
        self._is_accepting = False
        self._claim_wanted = asyncio.Event()
        self._look_wanted = asyncio.Event()

    # Life

    async def __aenter__(self) -> EmbeddedEngine:
        self._loop = asyncio.get_running_loop()
        # Runs see nothing of whoever happens to start them.
        self._context = contextvars.copy_context()
        scopes.install(self._loop)
        self._stopped: asyncio.Future[None] = self._loop.create_future()
        await asyncio.to_thread(self._journal.enlist, self.engine_id)
        self._journal.on_lost(self._note_lost)
        self._journal.on_foreign_commit(self._note_foreign)
        self._journal.on_answered(self._note_answered)
        self._answers_seen, _ = await self._journal.answers_since(-1)
        self._services = asyncio.TaskGroup()
        await self._services.__aenter__()
        self._service_tasks = set[asyncio.Task[None]]()
        self._serve(self._look_for_foreign_changes())
        if self._adopts:
            self._serve(self._claim_queued())
        self._supervisor = Supervisor(self, self._journal, self._settings, self._clock)
        await self._supervisor.start(is_apart=self._is_supervised_apart)
        # Runs that were queued before have their turn before new ones.
        self._has_backlog = self._adopts and await self._journal.has_queued(max_crashes=self._max_crashes)
        self._is_accepting = True
        self._claim_wanted.set()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Take no more work, let short runs end, hand the others back, and stop; within `engine.stop_s`."""
        if not self._is_accepting:
            return
        self._is_accepting = False
        patience = self._settings.stop_s
        await self._wait_for_drives(patience * _FINISHING_SHARE, parked=False)
        for drive in list(self._drives.values()):
            drive.stop(StopReason.SHUTDOWN)
        await self._wait_for_drives(patience * 0.4)
        # Those that are left swallow their cancellation; their late writes are refused once they are handed back.
        await self._bounded(patience * 0.2, *(self._conclude(d, d.stopped()) for d in list(self._drives.values())))
        self._stopped.set_result(None)
        for task in list(self._service_tasks):
            task.cancel()
        await self._services.__aexit__(None, None, None)
        await self._bounded(patience * 0.2, self._release_undriven())
        closing = [self.resources.close()] if self._agents is None else [self.resources.close(), self._agents.close()]
        await self._bounded(patience * 0.1, *closing)
        await self._supervisor.stop()

    async def _bounded(self, timeout_s: float, *work: Coroutine[Any, Any, None]) -> None:
        """Do some last things, but no longer than that: what is not done is left to whoever adopts the runs."""
        tasks = [self._loop.create_task(one) for one in work]
        if tasks:
            _, pending = await asyncio.wait(tasks, timeout=timeout_s)
            for task in pending:
                task.cancel()

    async def _release_undriven(self) -> None:
        """Hand back runs that were on their way here when the stop began."""
        try:
            await self._journal.disown(self.engine_id)
            for run in await self._journal.unfinished(owner=self.engine_id):
                fence = Fence(run_id=run.run_id, owner=self.engine_id, attempt=run.attempt)
                await self._journal.release(fence)
        except JournalError as error:
            log.error("release_failed", error=str(error))

    def _serve(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do something beside the drives; the engine stops it when it stops."""
        # Not in the context of whoever calls: that may be a run, and this is no part of it.
        task = self._services.create_task(self._contained(work), context=self._context.copy())
        self._service_tasks.add(task)
        task.add_done_callback(self._service_tasks.discard)
        task.add_done_callback(lambda _: work.close())  # it may not have begun
        return task

    async def _contained(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:
            # In the task group it would end the engine, and with it every run it drives.
            log.error("engine_service_failed", exc_info=error)

    async def _wait_for_drives(self, timeout_s: float, *, parked: bool = True) -> None:
        over = [drive.when_over() for drive in self._drives.values() if parked or not drive.calls.parking.is_parked]
        if over:
            await asyncio.wait(over, timeout=timeout_s)

    # The port

    @property
    def is_accepting(self) -> bool:
        return self._is_accepting

    async def submit(self, submission: Submission, *, eager: bool = False) -> RunHandle:
        if not self._is_accepting:
            raise EngineStopping
        size = len(memoryview(submission.payload))
        if size > self._limits.payload_bytes:
            raise TooLarge("The payload", size, self._limits.payload_bytes, "limits.payload_bytes")
        if submission.definition is not None:
            size = len(memoryview(submission.definition))
            if size > self._limits.payload_bytes:
                raise TooLarge("The definition", size, self._limits.payload_bytes, "limits.payload_bytes")
        run_id = submission.new_run_id()
        # What goes by lanes is queued: whether it is its turn is seen when it is claimed.
        is_ours = submission.lane is None and self._has_slot()
        deadline_us = None
        if submission.deadline_s is not None:
            deadline_us = self._clock.now_us() + int(submission.deadline_s * 1_000_000)
        starts_at_once = eager and is_ours and submission.idempotency_key is None
        new = self._new_run(run_id, submission, is_ours, deadline_us)
        accepted = self._journal.accept(new, is_awaited=not starts_at_once)
        if starts_at_once:
            drive = self._start_submitted(run_id, submission, deadline_us, accepted=accepted)
            accepted.add_done_callback(functools.partial(self._check_accepted, drive))
            return Handle(self, run_id, drive, accepted=accepted)
        return await self._after_accept(accepted, run_id, submission, is_ours, deadline_us)

    async def wait(self, run_id: str) -> Run:
        with self._journal.watch(run_id) as bell:
            while True:
                run = await self._journal.run(run_id)
                if run is None:
                    raise RunNotFound(run_id)
                if run.is_final:
                    return run
                await bell.wait()

    async def wait_while_running(self, run_id: str) -> Run:
        """As `wait`, but no longer than this engine runs.

        Raises:
            RunStopped: the engine has stopped before; the run goes on in another one, or after a restart.
        """
        waiting = asyncio.ensure_future(self.wait(run_id))
        try:
            await asyncio.wait({waiting, self._stopped}, return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                return waiting.result()
            raise RunStopped(run_id, StopReason.SHUTDOWN)
        finally:
            waiting.cancel()

    def events(self, run_id: str, *, after: int = 0) -> AsyncIterator[Event]:
        return follow(self._journal, run_id, after=after)

    async def cancel(self, run_id: str) -> Run:
        answer = await self._journal.cancel(run_id)
        if answer is None:
            raise RunNotFound(run_id)
        if answer.was_final:
            raise RunFinished(run_id, answer.run.status)
        self._look_wanted.set()  # runs below it may be driven here, too
        drive = self._drives.get(run_id)
        if drive is not None:
            # Whoever asked may go away; the end that has begun is seen through all the same.
            await asyncio.shield(self._serve(self._end(drive, StopReason.CANCEL)))
        else:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_DISTANT_CANCEL_S):
                    return await self.wait(run_id)
        run = await self._journal.run(run_id)
        if run is None:
            raise RunNotFound(run_id)
        return run

    async def retry(self, run_id: str, *, idempotency_key: str | None = None) -> RunHandle:
        from .forking import retry_of

        return await self.submit(
            await retry_of(self._journal, self._workflows, run_id, idempotency_key=idempotency_key)
        )

    async def fork(
        self, run_id: str, *, from_step: str, payload_patch: Any = NO_PATCH, idempotency_key: str | None = None
    ) -> RunHandle:
        from .forking import fork_of

        return await self.submit(
            await fork_of(
                self._journal,
                self._workflows,
                run_id,
                from_step=from_step,
                payload_patch=payload_patch,
                idempotency_key=idempotency_key,
                limits=self._limits,
            )
        )

    async def signal(self, run_id: str, name: str, data: Any, *, signal_id: str | None = None) -> SignalAnswer:
        from .answering import send_signal

        return await send_signal(self._journal, run_id, name, data, signal_id=signal_id, limits=self._limits)

    async def decide(
        self, approval_id: str, *, approved: bool, by: str, reason: str | None = None, data: Any = NOT_GIVEN
    ) -> Approval:
        from .answering import decide

        return await decide(
            self._journal,
            approval_id,
            approved=approved,
            by=by,
            reason=reason,
            data=data,
            limits=self._limits,
            clock=self._clock,
        )

    def stats(self) -> dict[str, Any]:
        return {"engine_id": self.engine_id, "running": self._slots.taken, "limit": self._limits.running}

    # Accepting

    def _has_slot(self) -> bool:
        if not self._adopts:
            return True
        return not self._has_backlog and self._slots.free > len(self._arriving)

    def _new_run(self, run_id: str, submission: Submission, is_ours: bool, deadline_us: int | None) -> NewRun:
        return NewRun(
            run_id=run_id,
            workflow=submission.workflow.name,
            kind=submission.workflow.kind,
            payload=submission.payload,
            workflow_version=submission.workflow.version,
            tags=submission.tags,
            owner=self.engine_id if is_ours else None,
            request=submission.request,
            deadline_us=deadline_us,
            idempotency_key=_own_key(submission),
            request_digest=submission.digest() if submission.idempotency_key is not None else None,
            parent_run_id=submission.parent_run_id,
            depth=submission.depth,
            retried_from=submission.retried_from,
            forked_from=submission.forked_from,
            copies=submission.copies,
            definition=submission.definition,
            lane=submission.lane,
            needs_free_lane=submission.needs_free_lane,
        )

    async def _after_accept(
        self,
        accepted: asyncio.Future[Accepted],
        run_id: str,
        submission: Submission,
        is_ours: bool,
        deadline_us: int | None,
    ) -> RunHandle:
        if is_ours:
            self._arriving.add(run_id)
        try:
            answer = await accepted
            if answer.is_busy:
                raise SessionBusy((submission.lane or "").rpartition("/")[2])
            if answer.is_conflict:
                raise IdempotencyConflict(submission.idempotency_key or "", answer.run_id)
            if answer.is_repeat:
                return Handle(self, answer.run_id, self._drives.get(answer.run_id), is_repeat=True)
            if is_ours and not self._is_accepting:
                await self._journal.release(Fence(run_id=run_id, owner=self.engine_id, attempt=1))
                is_ours = False
            history = await self._journal.history(run_id) if is_ours and submission.copies is not None else None
            drive = self._start_submitted(run_id, submission, deadline_us, history=history) if is_ours else None
        finally:
            self._arriving.discard(run_id)
        if drive is None and submission.lane is not None:
            drive = await self._claim_lane(run_id)
        if drive is None:
            self._has_backlog = True
            self._claim_wanted.set()
        return Handle(self, run_id, drive)

    async def _claim_lane(self, run_id: str) -> Drive | None:
        """Drive a run that goes by its lane, if it is its turn and there is room for it here."""
        if not self._has_slot():
            return None
        drives = await self._resume_all(await self._claim(1, run_ids=[run_id]))
        return drives[0] if drives else None

    def _check_accepted(self, drive: Drive, accepted: asyncio.Future[Accepted]) -> None:
        error = None if accepted.cancelled() else accepted.exception()
        if isinstance(error, Exception):
            drive.error = error
            drive.stop(StopReason.UNWRITTEN)
            # Its end may be queued already, and waits for the journal longer than a caller should.
            drive.settle(error)

    # Children

    async def find(self, workflow: str) -> Workflow:
        """A workflow by its name."""
        return await asyncio.to_thread(self._workflows.find, workflow)

    def place_child(
        self, parent_run_id: str, depth: int, workflow: Workflow, payload: Raw, tags: tuple[str, ...]
    ) -> NewRun:
        """A run to be accepted as another's child; it has a slot here if there is a free one."""
        if depth >= self._limits.child_depth:
            raise ChildrenTooDeep(parent_run_id, depth)
        run_id = ids.new_run_id(workflow.name)
        is_ours = self._is_accepting and self._has_slot()
        if is_ours:
            self._arriving.add(run_id)
        return NewRun(
            run_id=run_id,
            workflow=workflow.name,
            kind=workflow.kind,
            payload=payload,
            workflow_version=workflow.version,
            tags=tags,
            owner=self.engine_id if is_ours else None,
            parent_run_id=parent_run_id,
            depth=depth + 1,
        )

    def child_accepted(self, child: NewRun, workflow: Workflow, parsed: Any, *, is_there: bool) -> None:
        """Drive a child that was placed here and is on disk now."""
        self._arriving.discard(child.run_id)
        if not is_there:
            return
        if child.owner is None:
            self._has_backlog = True
            self._claim_wanted.set()
            return
        self._start(
            self._attempts.prepare(
                Fence(run_id=child.run_id, owner=self.engine_id, attempt=1),
                workflow,
                parsed,
                tags=child.tags,
                deadline_us=None,
                request=None,
                last_index=1,
                depth=child.depth,
            )
        )

    def cancel_soon(self, run_id: str) -> None:
        """Ask for the end of a run whose result nobody will take any more."""
        self._serve(self._cancel_quietly(run_id))

    async def _cancel_quietly(self, run_id: str) -> None:
        # The journal asks for it as well, together with the end of the wait: this only makes haste.
        with contextlib.suppress(RunNotFound, RunFinished, JournalError):
            await self.cancel(run_id)

    # Driving

    def _start_submitted(
        self,
        run_id: str,
        submission: Submission,
        deadline_us: int | None,
        *,
        accepted: asyncio.Future[Accepted] | None = None,
        history: History | None = None,
    ) -> Drive:
        fence = Fence(run_id=run_id, owner=self.engine_id, attempt=1)
        drive = self._attempts.prepare(
            fence,
            submission.workflow,
            submission.parsed,
            tags=submission.tags,
            deadline_us=deadline_us,
            request=submission.request,
            last_index=1,
            depth=submission.depth,
            accepted=accepted,
        )
        drive.calls.definition = submission.definition
        if history is not None:
            drive.calls.remember(history)
        return self._start(drive)

    def _start(self, drive: Drive) -> Drive:
        self._drives[drive.fence.run_id] = drive
        # Not in a task group: a workflow may refuse to be cancelled, and must not hold up the stop of the engine,
        # which waits for its drives itself, for a bounded time.
        context = self._context.copy()
        drive.task = self._loop.create_task(self._drive(drive), name=drive.fence.run_id, context=context)
        drive.calls.parking.add_task(drive.task)
        if drive.deadline_us is not None:
            self._supervisor.watch_deadline(drive)
        return drive

    def note_parked(self, drive: Drive) -> None:
        """A run has begun to wait, and has given its slot back."""
        if not self._keeps_waiting:
            drive.stop(StopReason.SHUTDOWN)
        elif self._has_backlog:
            self._claim_wanted.set()

    async def _drive(self, drive: Drive) -> None:
        try:
            await self._conclude(drive, await drive.work(self._limits))
        finally:
            ending = None if self._agents is None else self._agents.end(drive.calls)
            if ending is not None:
                await self._bounded(_AGENTS_END_S, ending)
            drive.calls.host.let_go()

    async def _conclude(self, drive: Drive, outcome: Outcome | None) -> None:
        """Commit how an attempt ended, once; whoever waits for it learns it after that."""
        if drive.is_over:
            return
        drive.is_over = True
        recorded = None
        try:
            if outcome is not None:
                recorded = await self._journal.finish(drive.fence, outcome)
            elif drive.stop_reason is StopReason.SHUTDOWN:
                await self._journal.release(drive.fence)
        except JournalError as error:
            # The run is not over: the supervisor finds it without a drive and queues it again once that can be written.
            log.error("run_end_not_recorded", run_id=drive.fence.run_id, error=str(error))
            drive.error = error
        finally:
            self._forget(drive, recorded)

    def _forget(self, drive: Drive, recorded: Outcome | None) -> None:
        run_id = drive.fence.run_id
        drive.recorder.stop(drive.stop_reason or "it has ended")
        drive.calls.parking.close()
        if self._drives.get(run_id) is drive:
            del self._drives[run_id]
        if recorded is not None:
            if recorded.status is not RunStatus.COMPLETED:
                self._look_wanted.set()  # runs that it waited for may have been asked to end
            drive.settle(recorded)
            if self._on_end is not None:
                self._on_end(run_id, recorded)
        else:
            drive.settle(drive.error or RunStopped(run_id, drive.stop_reason or "it was taken over"))
        if self._has_backlog:
            self._claim_wanted.set()

    async def _end(self, drive: Drive, reason: StopReason) -> None:
        """Stop an attempt and see it concluded, with or without its cooperation."""
        drive.stop(reason)
        await asyncio.wait([drive.when_over()], timeout=self._settings.cancel_grace_s)
        if not drive.is_over:
            await self._conclude(drive, drive.stopped())

    # Runs that were accepted before, here or elsewhere

    async def _claim_queued(self) -> None:
        while True:
            await self._claim_wanted.wait()
            self._claim_wanted.clear()
            try:
                await self._claim_while_free()
            except JournalError as error:
                # The supervisor asks again at its next round.
                log.error("claim_failed", error=str(error))

    async def _claim_while_free(self) -> None:
        while self._is_accepting:
            free = self._slots.free - len(self._arriving)
            if free <= 0:
                return
            runs = await self._claim(min(free, _CLAIM_AT_ONCE), max_crashes=self._max_crashes)
            if not runs:
                self._has_backlog = False
                return
            await self._resume_all(runs)

    async def _claim(
        self, limit: int, *, run_ids: Sequence[str] | None = None, max_crashes: int | None = None
    ) -> Sequence[Run]:
        # Until the answer is here, the journal may already name runs as ours that we have not heard of.
        self._arriving.add(_CLAIM)
        try:
            runs = await self._journal.claim(self.engine_id, limit, run_ids=run_ids, max_crashes=max_crashes)
            self._arriving.update(run.run_id for run in runs)
        finally:
            self._arriving.discard(_CLAIM)
        return runs

    async def _resume_all(self, runs: Sequence[Run]) -> list[Drive]:
        """Drive runs that were just claimed; one that cannot be driven does not keep the others from it."""
        # At once: each reads its history, and the readers are several.
        drives = await asyncio.gather(*[self._try_to_resume(run) for run in runs])
        return [drive for drive in drives if drive is not None]

    async def _try_to_resume(self, run: Run) -> Drive | None:
        try:
            return await self._resume(run)
        except JournalError as error:
            log.error("resume_failed", run_id=run.run_id, error=str(error))
            return None
        finally:
            self._arriving.discard(run.run_id)

    async def _resume(self, run: Run) -> Drive | None:
        """Drive a run that was just claimed, with the workflow as it is now."""
        fence = Fence(run_id=run.run_id, owner=self.engine_id, attempt=run.attempt)
        try:
            if run.deadline_at is not None and to_us(run.deadline_at) <= self._clock.now_us():
                raise RunTimedOut(run.run_id, rfc3339(run.deadline_at))
            workflow = await asyncio.to_thread(self._find_for, run)
            if run.is_interrupted and workflow.recovery is Recovery.FAIL:
                raise RunInterrupted(run.run_id)
            parsed = workflow.parse(codec.load(run.payload or codec.NULL))
        except Exception as error:  # noqa: BLE001  (loaders and parsers may be a plug-in's)
            outcome = Outcome(status=RunStatus.FAILED, error=failures.describe(error, self._root))
            await self._journal.finish(fence, outcome)
            return None
        return self._start(await self._attempts.resume(fence, run, workflow, parsed))

    def _find_for(self, run: Run) -> Workflow:
        """The workflow of a run. One that another process has just accepted may be of a file we have not read yet."""
        if run.attempt == 1:
            with contextlib.suppress(WorkflowNotFound):
                workflow = self._workflows.find(run.workflow)
                if workflow.version == run.workflow_version:
                    return workflow
            self._workflows.refresh()
        return self._workflows.find(run.workflow)

    async def drive_these(self, run_ids: Sequence[str]) -> None:
        """Claim queued runs by id, drive them and return when none of them goes on here (for a quarantine).

        Runs that begin to wait are handed back.
        """
        self._keeps_waiting = False
        runs = await self._claim(len(run_ids), run_ids=run_ids)
        drives = await self._resume_all(runs)
        if drives:
            await asyncio.wait([drive.when_over() for drive in drives])

    # What the journal and the supervisor report, from their threads

    def _note_lost(self, fence: Fence, error: Exception | None) -> None:
        self._soon(self._stop_lost, fence, error)

    def _note_foreign(self) -> None:
        self._soon(self._look_wanted.set)

    def _note_answered(self, waits: Sequence[tuple[str, str]]) -> None:
        self._soon(self._wake, waits)

    def _wake(self, waits: Sequence[tuple[str, str]]) -> None:
        """Waits have ended: let those go on that are here; the others are queued, or another engine's."""
        for run_id, key in waits:
            drive = self._drives.get(run_id)
            if drive is not None:
                drive.calls.parking.wake(key)
            elif self._adopts:
                self._has_backlog = True
                self._claim_wanted.set()

    def reconsider_parking(self) -> None:
        """Look for runs that have become idle in a way that nobody was told of. From any thread."""
        self._soon(self._reconsider_parking)

    def _reconsider_parking(self) -> None:
        for drive in self._drives.values():
            if not drive.calls.parking.is_parked:
                drive.calls.parking.reconsider()

    def fail(self, drive: Drive, error: PyFlueError) -> None:
        """End a run with an error. From any thread."""
        drive.failure = drive.failure or error  # so that nothing more is done, even if the code catches it
        try:
            is_here = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            is_here = False
        if is_here:
            drive.fail(error)
        else:
            self._soon(drive.fail, error)

    def _soon(self, function: Any, *args: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nothing goes on here any more
            self._loop.call_soon_threadsafe(function, *args)

    def _stop_lost(self, fence: Fence, error: Exception | None) -> None:
        drive = self._drives.get(fence.run_id)
        if drive is not None and drive.fence == fence:
            drive.error = drive.error or error
            drive.stop(StopReason.LOST if error is None else StopReason.UNWRITTEN)

    async def _look_for_foreign_changes(self) -> None:
        """Honour what other processes have written: requests to cancel our runs, ended waits, and queued runs."""
        while True:
            await self._look_wanted.wait()
            self._look_wanted.clear()
            try:
                if self._drives:
                    for run_id in await self._journal.cancel_requests(self.engine_id):
                        drive = self._drives.get(run_id)
                        if drive is not None and drive.stop_reason is None:
                            self._serve(self._end(drive, StopReason.CANCEL))
                self._answers_seen, waits = await self._journal.answers_since(self._answers_seen)
                self._wake(waits)
                if self._adopts and await self._journal.has_queued(max_crashes=self._max_crashes):
                    self._has_backlog = True
                    self._claim_wanted.set()
            except JournalError as error:
                log.error("look_failed", error=str(error))

    @property
    def adopts(self) -> bool:
        """Whether this engine drives runs that others left behind."""
        return self._adopts

    @property
    def owned(self) -> int:
        """How many runs are being driven or kept waiting here. From any thread."""
        return len(self._drives)

    def owns(self, run_id: str) -> bool:
        """Whether a run that the journal says is ours is being driven, or may be about to be. From any thread."""
        return run_id in self._drives or run_id in self._arriving or _CLAIM in self._arriving

    def look_again(self) -> None:
        """Ask for a look at the journal soon. From any thread."""
        self._soon(self._look_wanted.set)

    def end_at_deadline(self, drive: Drive) -> None:
        """End a run that has passed its deadline. From any thread."""
        self._soon(self._end_soon, drive)

    def forget_ended(self, drive: Drive, recorded: Outcome | None) -> None:
        """The supervisor has committed the end of a run while the event loop was blocked. From any thread."""
        self._soon(self._forget_blocked, drive, recorded)

    def _forget_blocked(self, drive: Drive, recorded: Outcome | None) -> None:
        self._forget(drive, recorded)
        if drive.task is not None:
            drive.task.cancel()

    def _end_soon(self, drive: Drive) -> None:
        if not drive.is_over:
            self._serve(self._end(drive, StopReason.DEADLINE))

    def examine(self, run_ids: Sequence[str]) -> None:
        """Try runs apart that may have ended their process. From any thread."""
        self._soon(self._examine_soon, list(run_ids))

    def _examine_soon(self, run_ids: list[str]) -> None:
        fresh = [run_id for run_id in run_ids if run_id not in self._examined]
        if fresh and self._quarantine is not None and self._is_accepting:
            self._examined.update(fresh)
            self._serve(self._examine(self._quarantine, fresh))

    async def _examine(self, quarantine: Quarantine, run_ids: list[str]) -> None:
        try:
            await examine(self._journal, quarantine, run_ids, self._fail_crash_loop)
            if await self._journal.suspects(CRASHES_OF_A_SUSPECT):
                # Some could not even be tried: something is wrong with starting a process, or with the project.
                await asyncio.sleep(_RETRY_QUARANTINE_S)
        except (JournalError, OSError) as error:
            log.error("quarantine_failed", error=str(error))
            await asyncio.sleep(_RETRY_QUARANTINE_S)
        finally:
            self._examined.difference_update(run_ids)

    async def _fail_crash_loop(self, run_id: str, crashes: int, how: str) -> None:
        await self._journal.finish_queued(run_id, failed(CrashLoop(run_id, crashes, how)))


def _own_key(submission: Submission) -> str | None:
    """The idempotency key as it is recorded: callers of one instance of an agent know nothing of another's keys."""
    key, stream_id = submission.idempotency_key, submission.stream_id
    return key if key is None or stream_id is None else f"{stream_id}\n{key}"
