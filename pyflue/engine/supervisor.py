"""The supervisor: a thread beside the event loop, for what must work even while a workflow blocks that loop.

It looks only at the journal and the clock: queues the runs of dead engines (and of this one, where it has lost the
task), sets suspects apart, ends runs at their deadline, and says which workflow blocks the loop. It has an event loop
of its own, because the journal answers into event loops. Started and stopped by the embedded engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
import traceback
import weakref
from collections import Counter
from typing import TYPE_CHECKING

from ..clock import Clock, rfc3339, to_datetime
from ..errors import JournalError, RunTimedOut
from ..journal import Fence, Journal, Run
from ..logs import logger
from ..settings import EngineSettings
from .drive import Drive, StopReason, failed
from .quarantine import CRASHES_OF_A_SUSPECT

if TYPE_CHECKING:
    from .embedded import EmbeddedEngine

log = logger("pyflue.supervisor")

_HEARTBEAT_S = 0.25
_FORGET_KEYS_EVERY_S = 3600.0
_UNWRITTEN_ATTEMPTS = 3
#: As many timers of waiting runs as are kept at once; those that are due later come when there is room.
_MOST_TIMERS = 10_000


class Supervisor:
    """One thread for one engine."""

    def __init__(self, engine: EmbeddedEngine, journal: Journal, settings: EngineSettings, clock: Clock) -> None:
        self._engine = engine
        self._journal = journal
        self._settings = settings
        self._clock = clock
        self._engine_loop = asyncio.get_running_loop()
        self._seen_lost: set[str] = set()
        self._unwritten = Counter[str]()
        self._keys_forgotten_at = clock.monotonic()
        self._ready = threading.Event()
        self._is_apart = True
        self._thread = threading.Thread(target=self._run, name="pyflue-supervisor", daemon=True)
        self._beside: asyncio.Task[None] | None = None
        #: Timers of waits whose run is in nobody's memory.
        self._timers: dict[tuple[str, str], asyncio.TimerHandle] = {}

    async def start(self, *, is_apart: bool) -> None:
        """Start it, in its thread or (not `is_apart`) on this event loop; returns when it can take deadlines."""
        self._is_apart = is_apart
        if is_apart:
            self._thread.start()
            await asyncio.to_thread(self._ready.wait)
        else:
            self._prepare()
            self._beside = self._engine_loop.create_task(self._supervise())

    async def stop(self) -> None:
        """End it."""
        self._loop.call_soon_threadsafe(self._stopping.set)
        if self._beside is None:
            await asyncio.to_thread(self._thread.join)
        else:
            await self._beside

    def watch_deadline(self, drive: Drive) -> None:
        """End a drive at its deadline. From the engine's thread."""
        if drive.deadline_us is None:
            return
        left_s = max(0.0, (drive.deadline_us - self._clock.now_us()) / 1_000_000)
        with contextlib.suppress(RuntimeError):  # stopping: a deadline that comes later is kept by the next engine
            # Weak, or a finished run with a late deadline would stay in memory until then.
            self._loop.call_soon_threadsafe(self._loop.call_later, left_s, self._at_deadline, weakref.ref(drive))

    def _run(self) -> None:
        try:
            asyncio.run(self._supervise())
        except BaseException:  # noqa: BLE001
            # Without this thread no deadline is kept and no lost run goes on, and nobody would notice.
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(70)

    def _prepare(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self._ready.set()

    async def _supervise(self) -> None:
        if not self._ready.is_set():
            self._prepare()
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            watch = tasks.create_task(self._watch_engine_loop()) if self._is_apart else None
            while not self._stopping.is_set():
                try:
                    await self._look()
                except (JournalError, OSError) as error:
                    # Out of space or of descriptors, perhaps: that passes, and the next look may succeed.
                    log.error("supervision_failed", error=str(error))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._settings.adopt_every_s):
                        await self._stopping.wait()
            if watch is not None:
                watch.cancel()
            for timer in self._timers.values():
                timer.cancel()

    async def _look(self) -> None:
        if self._engine.adopts:
            lost = await self._journal.lost()
            for run in lost:
                log.info("run_adopted", run_id=run.run_id, attempt=run.attempt, owner=run.owner)
            # At once: a thousand of them share a few commits.
            await asyncio.gather(*[self._requeue(run, crashed=True) for run in lost])
            for owner in await self._journal.dead_owners_of_waiting():
                log.info("waiting_runs_kept", owner=owner, runs=await self._journal.disown(owner))
            await self._set_timers()
            await self._set_suspects_apart()
            for run_id, deadline_us in await self._journal.expired():
                await self._journal.finish_queued(
                    run_id, failed(RunTimedOut(run_id, rfc3339(to_datetime(deadline_us))))
                )
        self._engine.look_again()
        self._engine.reconsider_parking()
        await self._requeue_own()
        if self._clock.monotonic() - self._keys_forgotten_at > _FORGET_KEYS_EVERY_S:
            self._keys_forgotten_at = self._clock.monotonic()
            await self._journal.forget_keys()

    async def _requeue_own(self) -> None:
        """Queue runs that the journal says are ours though nothing drives them (a record could not be written)."""
        if not self._seen_lost and await self._journal.count_unfinished(self._engine.engine_id) <= self._engine.owned:
            return  # the usual case, and much cheaper to see with ten thousand runs waiting
        own = await self._journal.unfinished(owner=self._engine.engine_id)
        lost = [run for run in own if not self._engine.owns(run.run_id)]
        for run in lost:
            # Seen twice, because one look may fall between the end of a drive and the commit of its end.
            if run.run_id in self._seen_lost:
                await self._requeue(run, crashed=False)
                await self._give_up_on_unwritable(run)
        self._seen_lost = {run.run_id for run in lost}

    async def _give_up_on_unwritable(self, run: Run) -> None:
        """Fail a run whose record could not be written again and again: it may be what fills the disk."""
        self._unwritten[run.run_id] += 1
        if self._unwritten[run.run_id] >= _UNWRITTEN_ATTEMPTS:
            problem = f"The record of run {run.run_id} could not be written in {_UNWRITTEN_ATTEMPTS} attempts."
            await self._journal.finish_queued(
                run.run_id, failed(JournalError(problem, hint="The log of its server says why. Is the disk full?"))
            )
            del self._unwritten[run.run_id]

    async def _requeue(self, run: Run, *, crashed: bool) -> None:
        if run.owner is not None:
            fence = Fence(run_id=run.run_id, owner=run.owner, attempt=run.attempt)
            await self._journal.requeue(fence, crashed=crashed)

    async def _set_suspects_apart(self) -> None:
        suspects = await self._journal.suspects(CRASHES_OF_A_SUSPECT)
        if suspects:
            self._engine.examine(suspects)

    # Timers of runs that are in nobody's memory

    async def _set_timers(self) -> None:
        """Keep the times of waits whose run belongs to no engine, on the monotonic clock from when they are seen."""
        timers = {(timer.run_id, timer.key): timer for timer in await self._journal.parked_timers(_MOST_TIMERS)}
        for gone in self._timers.keys() - timers.keys():
            self._timers.pop(gone).cancel()
        now_us = self._clock.now_us()
        for key, timer in timers.items():
            if key not in self._timers:
                # Not more than the whole time, if the clock was set back; not less than nothing, if set forward.
                left_us = max(0, min(timer.due_us - now_us, timer.due_us - timer.created_us))
                self._timers[key] = self._loop.call_later(left_us / 1_000_000, self._at_time, key)

    def _at_time(self, key: tuple[str, str]) -> None:
        self._tasks.create_task(self._expire(*key))

    async def _expire(self, run_id: str, key: str) -> None:
        try:
            await self._journal.expire(run_id, key, fence=None)
        except JournalError as error:
            log.error("timer_not_recorded", run_id=run_id, error=str(error))
        finally:
            self._timers.pop((run_id, key), None)  # what could not be recorded is seen again

    # Deadlines

    def _at_deadline(self, reference: weakref.ref[Drive]) -> None:
        drive = reference()
        if drive is not None and not drive.is_over:
            self._tasks.create_task(self._end_at_deadline(drive))

    async def _end_at_deadline(self, drive: Drive) -> None:
        self._engine.end_at_deadline(drive)
        await asyncio.sleep(self._settings.cancel_grace_s * 2)
        if drive.is_over:
            return
        # The engine's loop is blocked, so it cannot do it.
        drive.stop_reason = drive.stop_reason or StopReason.DEADLINE
        outcome = drive.stopped()
        if outcome is None:
            return
        drive.is_over = True
        try:
            recorded = await self._journal.finish(drive.fence, outcome)
        except JournalError as error:
            log.error("run_end_not_recorded", run_id=drive.fence.run_id, error=str(error))
            drive.error = error
            recorded = None
        self._engine.forget_ended(drive, recorded)

    # The engine's loop

    async def _watch_engine_loop(self) -> None:
        """Name the workflow that keeps the event loop from its other work, and say for how long."""
        while True:
            beat = threading.Event()
            asked_at = self._clock.monotonic()
            with contextlib.suppress(RuntimeError):
                self._engine_loop.call_soon_threadsafe(beat.set)
            await asyncio.sleep(_HEARTBEAT_S)
            culprit: str | None = None
            while not beat.is_set():
                if self._clock.monotonic() - asked_at > self._settings.blocked_loop_s:
                    culprit = culprit or self._current_run()
                await asyncio.sleep(_HEARTBEAT_S / 10)
            if culprit is not None:
                blocked_s = round(self._clock.monotonic() - asked_at, 2)
                log.warning("event_loop_blocked", run_id=culprit, blocked_s=blocked_s)

    def _current_run(self) -> str:
        task = asyncio.current_task(self._engine_loop)
        return task.get_name() if task is not None else "unknown"
