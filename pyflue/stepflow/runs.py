"""Runs of stored flows on an engine and its journal: implements `backend.Backend`.

The HTTP API of a project's server, `pyflue flow` and `StepflowRuntime` all ask this. A run is one of the reserved
workflow `stepflow.inline`; its id here is a UUID of version 7, there the ULID of the same bits.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import codec, errors
from ..clock import rfc3339
from ..codec import Raw
from ..engine import Submission
from ..engine.scopes import segment
from ..journal import Outcome as RunOutcome
from ..journal import RunFilter, StepStatus
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
    StepView,
    StoredFlow,
    ulid_of,
)
from .backend import StepStatus as ShownStatus
from .blobs import Blobs
from .config import ConfigInvalid
from .dialect import INLINE
from .document import Flow, FlowStep
from .durable import ended_as, step_segment
from .environments import environments_of
from .inline import FLOW_FAILED, inline_workflow, item_name, shown_id
from .outcome import ErrorCode, Failed, Outcome, Skipped, Success, from_wire
from .overrides import apply_overrides
from .reach import look_of
from .scheduler import FlowState, handled
from .stored_flows import checked, find_flow, store_flow, view_flow
from .validation import Look, without_config
from .variables import redact, secret_paths_of, variable_defaults
from .workflow import blobs_of

if TYPE_CHECKING:
    from ..engine import Engine, RunHandle
    from ..journal import Journal, Run, Step

_STATUSES: Mapping[JournalStatus, RunStatus] = {
    JournalStatus.QUEUED: RunStatus.RUNNING,
    JournalStatus.RUNNING: RunStatus.RUNNING,
    JournalStatus.WAITING: RunStatus.RUNNING,
    JournalStatus.COMPLETED: RunStatus.COMPLETED,
    JournalStatus.FAILED: RunStatus.FAILED,
    JournalStatus.CANCELLED: RunStatus.CANCELLED,
}
_FLOW_TAG = "flow:"
#: For people who look at lists of runs: all of these have the same workflow's name.
_NAME_TAG = "flow_name:"
#: As the server takes tags from others.
_TAG_CHARACTERS = 128
_STEPS_AT_ONCE = 1000
_LISTED_AT_ONCE = 100


class JournalBackend:
    """Runs stored flows on an engine."""

    def __init__(
        self,
        engine: Engine,
        journal: Journal,
        *,
        folder: Path,
        root: Path | None,
        limit_bytes: int,
        config: Path | None = None,
    ) -> None:
        """`folder` and `root` are where the config is looked for; `config` is one that runs are to have instead."""
        self._config = config
        self._known_look: tuple[object, Look] = None, without_config
        self._engine = engine
        self._journal = journal
        self._folder = folder
        self._root = root
        self.limit_bytes = limit_bytes

    @property
    def _blobs(self) -> Blobs:
        return blobs_of(self._engine.resources, self._journal)

    async def components(self) -> ComponentsFound:
        async with environments_of(self._engine.resources).use(self._folder, self._root) as environment:
            found = await environment.components()
        return ComponentsFound(components=found.components, failures=found.failures)

    # Flows

    async def store_flow(self, flow: Any, *, dry_run: bool = False) -> StoredFlow:
        return await store_flow(self._blobs, flow, look=await self._look(), dry_run=dry_run)

    async def _look(self) -> Look:
        """Where components lead by the config that runs have now. One that cannot be used is for runs to tell."""
        try:
            async with environments_of(self._engine.resources).use(
                self._folder, self._root, self._config
            ) as environment:
                known, look = self._known_look
                if known is not environment:
                    look = look_of(environment.config, ready=environment.ready)
                    self._known_look = environment, look
                return look
        except ConfigInvalid:
            return without_config

    async def flow(self, flow_id: str) -> FlowView:
        return await view_flow(self._blobs, flow_id)

    async def _flow(self, flow_id: str) -> Flow:
        return await find_flow(self._blobs, flow_id)

    # Runs

    async def submit(self, new: NewRun) -> str:
        return shown_id((await self._submit(new)).run_id)

    async def _submit(self, new: NewRun, *, eager: bool = False) -> RunHandle:
        flow = await self._flow(new.flow_id)
        await checked(flow, new)
        payload: dict[str, Any] = {"flow_id": new.flow_id, "inputs": list(new.inputs)}
        if new.overrides:
            payload["overrides"] = new.overrides
        if new.max_concurrency is not None:
            payload["max_concurrency"] = new.max_concurrency
        workflow = inline_workflow()
        # Not in the payload, which is shown: some of them are secret.
        known: dict[str, Any] = {"variables": new.variables} if new.variables else {}
        if self._config is not None:
            known["config"] = str(self._config.absolute())
        definition = Raw(codec.encode(known)) if known else None
        submission = Submission(
            workflow=workflow,
            payload=Raw(codec.encode(payload)),
            parsed=workflow.parse(payload),
            tags=(*_name_tag(flow), f"{_FLOW_TAG}{new.flow_id}"),
            definition=definition,
            idempotency_key=new.idempotency_key,
        )
        return await self._engine.submit(submission, eager=eager)

    async def start(self, new: NewRun, *, wait_s: float | None = None) -> StartedRun:
        handle = await self._submit(new, eager=wait_s is not None)
        run_id = shown_id(handle.run_id)
        ended: RunOutcome | None = None
        if wait_s is not None:
            try:
                async with asyncio.timeout(wait_s):
                    ended = await handle.outcome()
            except (TimeoutError, errors.RunStopped):
                await handle.accepted()
        if ended is None:
            return StartedRun(run_id=run_id, status=RunStatus.RUNNING)
        outcome = _outcome_of(ended) if len(new.inputs) == 1 else None
        return StartedRun(run_id=run_id, status=_STATUSES[ended.status], outcome=outcome)

    async def wait(self, run_id: str, timeout_s: float) -> bool:
        try:
            async with asyncio.timeout(timeout_s):
                await self._engine.wait_while_running(engine_id_of(run_id))
        except (TimeoutError, errors.RunStopped):
            return False
        return True

    async def run(self, run_id: str) -> RunDetails:
        run = await self._find(run_id)
        payload = _payload(run)
        flow = await self._flow(payload["flow_id"])
        definition = await self._journal.definition(run.run_id)
        variables = None if definition is None else codec.load(definition).get("variables")
        if variables is not None:
            variables = redact(variables, secret_paths_of(flow))
        return RunDetails(
            summary=await self._summary(run, flow),
            inputs=payload["inputs"],
            overrides=payload.get("overrides"),
            variables=variables,
        )

    async def items(self, run_id: str) -> Sequence[ItemView]:
        run = await self._find(run_id)
        total = len(_payload(run)["inputs"])
        found = await self._outcomes(run.run_id)
        outcomes = [found.get(index) or _as_the_run(run) for index in range(total)]
        return [
            ItemView(item_index=index, status=_status_of(outcome, _STATUSES[run.status]), outcome=outcome)
            for index, outcome in enumerate(outcomes)
        ]

    async def steps(self, run_id: str) -> Sequence[StepView]:
        run = await self._find(run_id)
        payload = _payload(run)
        flow = await self._flow(payload["flow_id"])
        if payload.get("overrides"):
            flow = apply_overrides(flow, payload["overrides"])
        keys = {f"[0]/{step_segment(step.id)}": step for step in flow.steps}
        found: dict[str, Outcome | None] = {}
        async for recorded in self._recorded(run.run_id):
            step = keys.get(recorded.key)
            if step is not None:
                found[step.id] = _step_outcome(recorded)
        if any(isinstance(outcome, Failed) and flow.by_id[name].on_error.answers for name, outcome in found.items()):
            await self._count_as(run.run_id, flow, payload["inputs"][0], keys, found)
        return [
            StepView(
                step_index=step.index,
                step_id=step.id,
                component=step.component,
                status=_step_status(found[step.id]),
                outcome=found[step.id],
            )
            for step in flow.steps
            if step.id in found
        ]

    async def _count_as(
        self, run_id: str, flow: Flow, given: Any, keys: Mapping[str, FlowStep], found: dict[str, Outcome | None]
    ) -> None:
        """Put in the place of what components failed with what their steps count as by `onError`.

        The record of a step is that of its component. That its answer was asked is an event: it is not when the step
        was never tried.
        """
        definition = await self._journal.definition(run_id)
        variables: dict[str, Any] = {} if definition is None else codec.load(definition).get("variables") or {}
        state = FlowState(flow, given, variable_defaults(flow) | variables)
        state.steps.update((name, outcome) for name, outcome in found.items() if outcome is not None)
        after = 0
        while events := await self._journal.events(run_id, after=after, types=("step_default", "step_skipped")):
            after = events[-1].index
            for event in events:
                step = keys.get(codec.load(event.data).get("step"))
                outcome = None if step is None else found.get(step.id)
                if step is not None and isinstance(outcome, Failed):
                    found[step.id] = state.steps[step.id] = handled(step, outcome, state)

    async def run_flow(self, run_id: str) -> FlowView:
        return await self.flow(_payload(await self._find(run_id))["flow_id"])

    async def runs(self, wanted: RunsWanted) -> Sequence[RunSummary]:
        if wanted.flow_label is not None or wanted.parent_run_id is not None or not wanted.limit:
            return []  # no run here has either
        if wanted.root_run_id is not None:
            return await self._by_root(wanted)
        statuses = [theirs for theirs, ours in _STATUSES.items() if wanted.status in {None, ours}]
        if not statuses:
            return []  # nothing is paused here
        where = RunFilter(
            workflows=[INLINE],
            statuses=statuses if wanted.status is not None else (),
            tags=[] if wanted.flow_id is None else [f"{_FLOW_TAG}{wanted.flow_id}"],
        )
        found: list[RunSummary] = []
        skipped = 0
        before: int | None = None
        while True:
            page = await self._journal.runs(
                where, before=before, limit=min(_LISTED_AT_ONCE, wanted.limit + wanted.offset)
            )
            for listed in page.runs:
                run = await self._journal.run(listed.run_id)
                if run is None:
                    continue  # deleted meanwhile
                flow = await self._flow(_payload(run)["flow_id"])
                if wanted.flow_name not in {None, flow.name}:
                    continue
                if skipped < wanted.offset:
                    skipped += 1
                    continue
                found.append(await self._summary(run, flow))
                if len(found) == wanted.limit:
                    return found
            before = page.next_before
            if before is None:
                return found

    async def _by_root(self, wanted: RunsWanted) -> Sequence[RunSummary]:
        """The run that is the root of itself alone, as no run here has one below it; if it is wanted."""
        assert wanted.root_run_id is not None  # noqa: S101  (asked for only then)
        try:
            run = await self._find(wanted.root_run_id)
        except errors.RunNotFound:
            return []
        flow_id = _payload(run)["flow_id"]
        flow = await self._flow(flow_id)
        is_wanted = (
            wanted.status in {None, _STATUSES[run.status]}
            and wanted.flow_id in {None, flow_id}
            and wanted.flow_name in {None, flow.name}
        )
        return [await self._summary(run, flow)] if is_wanted and not wanted.offset else []

    async def cancel(self, run_id: str) -> RunSummary:
        run = await self._find(run_id)
        if run.is_final:
            raise errors.RunFinished(run.run_id, run.status)
        await self._engine.cancel(run.run_id)
        run = await self._find(run_id)
        return await self._summary(run, await self._flow(_payload(run)["flow_id"]))

    async def delete(self, run_id: str) -> None:
        run = await self._find(run_id)
        status = await self._journal.delete(run.run_id)
        if status is None:
            raise errors.RunNotFound(run_id)
        if not status.is_final:
            raise errors.RunNotFinished(run.run_id, status, "deleted")

    # Parts

    async def _find(self, run_id: str) -> Run:
        run = await self._journal.run(engine_id_of(run_id))
        if run is None:
            raise errors.RunNotFound(run_id)
        return run

    async def _summary(self, run: Run, flow: Flow) -> RunSummary:
        payload = _payload(run)
        run_id = shown_id(run.run_id)
        return RunSummary(
            run_id=run_id,
            flow_id=payload["flow_id"],
            flow_name=flow.name,
            status=_STATUSES[run.status],
            items=await self._counts(run, len(payload["inputs"])),
            created_at=rfc3339(run.created_at),
            completed_at=None if run.finished_at is None else rfc3339(run.finished_at),
            root_run_id=run_id,
        )

    async def _counts(self, run: Run, total: int) -> ItemCounts:
        if run.status is JournalStatus.COMPLETED:
            return ItemCounts(total=total, completed=total)
        outcomes = await self._outcomes(run.run_id)
        failed = sum(isinstance(outcome, Failed) for outcome in outcomes.values())
        left = total - len(outcomes)
        counts = {
            JournalStatus.FAILED: {"failed": failed + left},
            JournalStatus.CANCELLED: {"failed": failed, "cancelled": left},
        }.get(run.status, {"failed": failed, "running": left})
        return ItemCounts(total=total, completed=len(outcomes) - failed, **counts)

    async def _outcomes(self, run_id: str) -> dict[int, Outcome]:
        """What items have come to, by their index."""
        found: dict[int, Outcome] = {}
        async for step in self._recorded(run_id):
            if "/" not in step.key and step.name.startswith("item-") and step.value is not None:
                index = int(step.name.removeprefix("item-"))
                if step.key == segment(item_name(index)):
                    found[index] = from_wire(codec.load(step.value))
        return found

    async def _recorded(self, run_id: str) -> AsyncIterator[Step]:
        after: str | None = None
        while True:
            steps = await self._journal.steps(run_id, after=after, limit=_STEPS_AT_ONCE)
            for step in steps:
                yield step
            if not steps:
                return
            after = steps[-1].key


def _name_tag(flow: Flow) -> tuple[str, ...]:
    """The tag that says which flow it is, with what tags may hold of its name; none if there is none."""
    name = " ".join("".join(" " if c == "," or not c.isprintable() else c for c in flow.name or "").split())
    return (f"{_NAME_TAG}{name}"[:_TAG_CHARACTERS].rstrip(),) if name else ()


def engine_id_of(run_id: str) -> str:
    """The id of a run on the engine.

    Raises:
        RunNotFound: the text is no id.
    """
    ulid = ulid_of(run_id)
    if ulid is None:
        raise errors.RunNotFound(run_id)
    return f"workflow:{INLINE}:{ulid}"


def _outcome_of(ended: RunOutcome) -> Outcome | None:
    """What a run of one item came to; None if it was cancelled."""
    if ended.status is JournalStatus.COMPLETED and ended.result is not None:
        return from_wire(codec.load(ended.result)[0])
    error: Mapping[str, Any] = {} if ended.error is None else codec.load(ended.error)
    if error.get("type") == FLOW_FAILED:
        return Failed.from_error(error["details"])
    return _as_the_run(ended)


def _as_the_run(run: Run | RunOutcome) -> Outcome | None:
    """What becomes of items that came to nothing when their run failed as a whole."""
    if run.status is not JournalStatus.FAILED:
        return None
    error: Mapping[str, Any] = {} if run.error is None else codec.load(run.error)
    return Failed(ErrorCode.INTERNAL, str(error.get("message") or "The run failed without a result"))


def _payload(run: Run) -> Mapping[str, Any]:
    return codec.load(run.payload if run.payload is not None else codec.EMPTY_OBJECT)


def _status_of(outcome: Outcome | None, rest: RunStatus) -> RunStatus:
    if outcome is None:
        return rest
    return RunStatus.FAILED if isinstance(outcome, Failed) else RunStatus.COMPLETED


def _step_outcome(step: Step) -> Outcome | None:
    """What a recorded step came to; None if it is not over."""
    if step.status is StepStatus.COMPLETED:
        return Success(None if step.value is None else codec.load(step.value))
    if step.status is StepStatus.FAILED and step.error is not None:
        described: Mapping[str, Any] = codec.load(step.error)
        return ended_as(str(described.get("type")), described.get("details"))
    return None


def _step_status(outcome: Outcome | None) -> ShownStatus:
    match outcome:
        case None:
            return ShownStatus.RUNNING
        case Failed():
            return ShownStatus.FAILED
        case Skipped():
            return ShownStatus.SKIPPED
        case Success():
            return ShownStatus.COMPLETED
