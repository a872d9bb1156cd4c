"""Runs of stored flows in this process alone: implements `backend.Backend` without an engine or a journal.

What `StepflowRuntime` uses unless its config says where state is kept. Nothing outlives the process; of runs that have
ended, the last thousand are kept, of blobs as many as the config's `stateStore.maxBlobBytes` lets: those that a run
under way has stored, read, or got the id of are never dropped.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from ..clock import SystemClock, rfc3339, to_datetime
from ..errors import EngineStopping, IdempotencyConflict, RunFinished, RunNotFinished, RunNotFound
from ..ids import new_uuid
from ..journal import RunStatus as JournalStatus
from .backend import (
    ComponentsFound,
    FlowView,
    ItemCounts,
    ItemView,
    NewRun,
    RunDetails,
    RunStatus,
    RunSummary,
    RunsWanted,
    StartedRun,
    StepStatus,
    StepView,
    StoredFlow,
)
from .batch import DEFAULT_CONCURRENCY, Batch, run_batch
from .blobs import Blobs, BlobsOfRun, MemoryShelves
from .config import StateStore
from .document import Flow
from .failures import FlowStuck
from .keeper import DirectKeeper, Place
from .outcome import ErrorCode, Failed, Outcome, Skipped
from .plugins.environment import Environment
from .reach import look_of
from .services import surround
from .stored_flows import checked, find_flow, store_flow, view_flow
from .validation import Look
from .variables import redact, secret_paths_of, secrets_among

_KEPT = 1000
_BLOB_ID = re.compile(r"[0-9a-f]{64}")
#: Where the steps are that `steps` shows.
_FIRST = "[0]/"


@dataclass(slots=True, kw_only=True, eq=False)
class _Run:
    """A run, under way or over."""

    run_id: str
    new: NewRun
    #: As it was stored, and with the run's overrides.
    flow: Flow
    patched: Flow
    created_us: int
    status: RunStatus = RunStatus.RUNNING
    completed_us: int | None = None
    outcomes: dict[int, Outcome] = field(default_factory=dict[int, Outcome])
    steps: dict[str, Outcome] = field(default_factory=dict[str, Outcome])
    #: The ids of the blobs that it has stored or read.
    blobs: set[str] = field(default_factory=set[str])
    is_over: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class _Keeper(DirectKeeper):
    """Does steps, and remembers what those of the first item came to."""

    def __init__(self, steps: dict[str, Outcome]) -> None:
        self._steps = steps

    def note(self, place: Place, step_id: str, outcome: Outcome) -> None:
        if place.path == _FIRST:
            self._steps[step_id] = outcome


class MemoryBackend:
    """Runs stored flows in this process, on the event loop that it is used on."""

    def __init__(self, environment: Environment, *, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._environment = environment
        self._look: Look | None = None
        limit_blob_bytes = (environment.config.state_store or StateStore()).max_blob_bytes
        self._blobs = Blobs(
            MemoryShelves(limit_bytes=limit_blob_bytes, needed=self._needed_blobs, on_drop=self._dropped)
        )
        self._runs: dict[str, _Run] = {}
        self._keys: dict[str, tuple[NewRun, str]] = {}
        self._is_closed = False

    async def close(self) -> None:
        """Cancel what goes on, and end the plugins."""
        self._is_closed = True
        tasks = [run.task for run in self._runs.values() if run.task is not None and not run.task.done()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._environment.close()

    async def components(self) -> ComponentsFound:
        found = await self._environment.components()
        return ComponentsFound(components=found.components, failures=found.failures)

    # Flows

    async def store_flow(self, flow: Any, *, dry_run: bool = False) -> StoredFlow:
        if self._look is None:
            self._look = look_of(self._environment.config, ready=self._environment.ready)
        return await store_flow(self._blobs, flow, look=self._look, dry_run=dry_run)

    async def flow(self, flow_id: str) -> FlowView:
        return await view_flow(self._blobs, flow_id)

    # Runs

    async def submit(self, new: NewRun) -> str:
        flow = await find_flow(self._blobs, new.flow_id)
        patched, variables = await checked(flow, new)
        # From here on nothing is awaited: of requests with the same key one is the first.
        key = new.idempotency_key
        if key is not None and key in self._keys:
            earlier, run_id = self._keys[key]
            if earlier != new:
                raise IdempotencyConflict(key, run_id)
            return run_id
        if self._is_closed:
            raise EngineStopping
        run = _Run(run_id=new_uuid(), new=new, flow=flow, patched=patched, created_us=_now_us())
        self._runs[run.run_id] = run
        if key is not None:
            self._keys[key] = (new, run.run_id)
        batch = Batch(
            flow=patched,
            flow_id=new.flow_id,
            inputs=new.inputs,
            variables=variables,
            max_concurrency=new.max_concurrency or DEFAULT_CONCURRENCY,
        )
        # Whoever closes the backend waits for it.
        run.task = asyncio.get_running_loop().create_task(self._drive(run, batch))
        self._forget()
        return run.run_id

    async def start(self, new: NewRun, *, wait_s: float | None = None) -> StartedRun:
        run_id = await self.submit(new)
        if wait_s is None or not await self.wait(run_id, wait_s):
            return StartedRun(run_id=run_id, status=RunStatus.RUNNING)
        run = self._find(run_id)
        return StartedRun(
            run_id=run_id, status=run.status, outcome=run.outcomes.get(0) if len(new.inputs) == 1 else None
        )

    async def _drive(self, run: _Run, batch: Batch) -> None:
        around = surround(
            run_id=run.run_id,
            router=self._environment.router,
            keeper=_Keeper(run.steps),
            blobs=BlobsOfRun(self._blobs, run.blobs),
            backoff=self._environment.config.backoff,
            secrets=secrets_among(batch.flow, batch.variables),
        )
        try:
            await run_batch(batch, around, Place(), on_end=run.outcomes.__setitem__)
        except asyncio.CancelledError:
            run.status = RunStatus.CANCELLED
            raise
        except FlowStuck as error:
            for index in range(len(batch.inputs)):
                run.outcomes.setdefault(index, Failed(ErrorCode.INTERNAL, str(error)))
            run.status = RunStatus.FAILED
        except Exception as error:  # noqa: BLE001  (a plugin of somebody's own: its runs end, others go on)
            for index in range(len(batch.inputs)):
                run.outcomes.setdefault(index, Failed(ErrorCode.INTERNAL, f"{type(error).__name__}: {error}"))
            run.status = RunStatus.FAILED
        else:
            has_failed = any(isinstance(outcome, Failed) for outcome in run.outcomes.values())
            run.status = RunStatus.FAILED if has_failed else RunStatus.COMPLETED
        finally:
            run.completed_us = _now_us()
            run.is_over.set()

    async def wait(self, run_id: str, timeout_s: float) -> bool:
        run = self._find(run_id)
        try:
            async with asyncio.timeout(timeout_s):
                await run.is_over.wait()
        except TimeoutError:
            return False
        return True

    async def run(self, run_id: str) -> RunDetails:
        run = self._find(run_id)
        variables = run.new.variables
        if variables is not None:
            variables = redact(variables, secret_paths_of(run.flow))
        return RunDetails(
            summary=_summary(run), inputs=run.new.inputs, overrides=run.new.overrides, variables=variables
        )

    async def items(self, run_id: str) -> Sequence[ItemView]:
        run = self._find(run_id)
        return [
            ItemView(item_index=index, status=_item_status(run, index), outcome=run.outcomes.get(index))
            for index in range(len(run.new.inputs))
        ]

    async def steps(self, run_id: str) -> Sequence[StepView]:
        run = self._find(run_id)
        return [
            StepView(
                step_index=step.index,
                step_id=step.id,
                component=step.component,
                status=_step_status(run.steps[step.id]),
                outcome=run.steps[step.id],
            )
            for step in run.patched.steps
            if step.id in run.steps
        ]

    async def run_flow(self, run_id: str) -> FlowView:
        return await self.flow(self._find(run_id).new.flow_id)

    async def runs(self, wanted: RunsWanted) -> Sequence[RunSummary]:
        if wanted.flow_label is not None or wanted.parent_run_id is not None:
            return []  # no run here has either
        found = [
            run
            for run in reversed(self._runs.values())
            if wanted.status in {None, run.status}
            and wanted.flow_id in {None, run.new.flow_id}
            and wanted.flow_name in {None, run.flow.name}
            and wanted.root_run_id in {None, run.run_id}
        ]
        return [_summary(run) for run in found[wanted.offset : wanted.offset + wanted.limit]]

    async def cancel(self, run_id: str) -> RunSummary:
        run = self._find(run_id)
        if run.status.is_final or run.task is None:
            raise RunFinished(run_id, JournalStatus(run.status.value))
        run.task.cancel()
        await asyncio.wait({run.task})
        if not run.status.is_final:
            run.status = RunStatus.CANCELLED  # it had not begun
            run.completed_us = _now_us()
            run.is_over.set()
        return _summary(run)

    async def delete(self, run_id: str) -> None:
        run = self._find(run_id)
        if not run.status.is_final:
            raise RunNotFinished(run_id, JournalStatus.RUNNING, "deleted")
        self._let_go(run_id)

    def _needed_blobs(self) -> set[str]:
        """The flows of runs, and the blobs that those under way have used, or have been given the ids of."""
        ids = {run.new.flow_id for run in self._runs.values()}
        for run in self._runs.values():
            if not run.status.is_final:
                given = (run.new.inputs, run.new.variables, run.new.overrides, run.flow.source)
                ids.update(run.blobs, _BLOB_ID.findall(repr(given)))
        return ids

    def _dropped(self) -> None:
        """Flows may be among what was dropped: to store one again is to keep it again."""
        self._blobs.known.clear()

    def _find(self, run_id: str) -> _Run:
        run = self._runs.get(run_id)
        if run is None:
            raise RunNotFound(run_id)
        return run

    def _forget(self) -> None:
        """Let go of the oldest runs that have ended."""
        if len(self._runs) <= _KEPT:
            return
        ended = (run.run_id for run in self._runs.values() if run.status.is_final)
        for run_id in list(islice(ended, len(self._runs) - _KEPT)):
            self._let_go(run_id)

    def _let_go(self, run_id: str) -> None:
        key = self._runs.pop(run_id).new.idempotency_key
        if key is not None:
            self._keys.pop(key, None)


def _now_us() -> int:
    return SystemClock().now_us()


def _shown(us: int) -> str:
    return rfc3339(to_datetime(us))


def _summary(run: _Run) -> RunSummary:
    failed = sum(isinstance(outcome, Failed) for outcome in run.outcomes.values())
    left = len(run.new.inputs) - len(run.outcomes)
    return RunSummary(
        run_id=run.run_id,
        flow_id=run.new.flow_id,
        flow_name=run.flow.name,
        status=run.status,
        items=ItemCounts(
            total=len(run.new.inputs),
            completed=len(run.outcomes) - failed,
            failed=failed,
            running=0 if run.status.is_final else left,
            cancelled=left if run.status is RunStatus.CANCELLED else 0,
        ),
        created_at=_shown(run.created_us),
        completed_at=None if run.completed_us is None else _shown(run.completed_us),
        root_run_id=run.run_id,
    )


def _item_status(run: _Run, index: int) -> RunStatus:
    outcome = run.outcomes.get(index)
    if outcome is None:
        return run.status
    return RunStatus.FAILED if isinstance(outcome, Failed) else RunStatus.COMPLETED


def _step_status(outcome: Outcome) -> StepStatus:
    if isinstance(outcome, Failed):
        return StepStatus.FAILED
    return StepStatus.SKIPPED if isinstance(outcome, Skipped) else StepStatus.COMPLETED
