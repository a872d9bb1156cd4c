"""What a component may ask of the run that calls it: implements `plugins.port.RunServices`.

One is made for each attempt at a step, with its place in the run. Flows that the component asks for run at that place,
so when the attempt is repeated after a crash, they give back what they gave. What it has submitted and not waited for
ends with the attempt.
"""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

from .. import clock
from .backoff import Backoff
from .batch import DEFAULT_CONCURRENCY, Batch, run_batch
from .blobs import Blobs
from .content import canonical_bytes
from .document import Flow, flow_id, read_flow
from .failures import FlowStuck
from .keeper import Keeper, Place
from .outcome import Outcome
from .overrides import apply_overrides
from .plugins.port import BlobType, ComponentFailed, SubRun
from .scheduler import Around, Router
from .variables import resolve_variables

if TYPE_CHECKING:
    from ..engine import FlueContext

#: Flows in flows in flows.
_DEEPEST = 32


@dataclass(slots=True, kw_only=True)
class _Submitted:
    """A sub-run on its way."""

    task: asyncio.Task[list[Outcome]]
    run: SubRun
    completed_at: str | None = None
    ended: list[int] = field(default_factory=list[int])
    outcomes: dict[int, Outcome] = field(default_factory=dict[int, Outcome])


class StepServices:
    """For one attempt at one step."""

    def __init__(
        self,
        around: Around,
        place: Place,
        flow: Flow,
        step_id: str,
        *,
        blobs: Blobs,
        ctx: FlueContext[Any] | None,
        depth: int,
    ) -> None:
        self._around = around
        self._place = place
        self._flow = flow
        self._step_id = step_id
        self._blobs = blobs
        self._ctx = ctx
        self._depth = depth
        self._uses: dict[str, int] = {}
        self._submitted: dict[str, _Submitted] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._is_closed = False
        self.times_again = 0
        # Requests of a component come in the tasks of its plugin, which belong to no run.
        self._context = contextvars.copy_context()

    # Blobs

    async def put_blob(self, data: Any, blob_type: BlobType) -> str:
        return await self._blobs.put(data, blob_type)

    async def get_blob(self, blob_id: str) -> tuple[Any, BlobType]:
        return await self._blobs.get(blob_id)

    # Flows

    async def stored_flow(self, flow_id: str) -> Flow:
        return await self._blobs.flow(flow_id)

    async def run_flows(
        self,
        flow: Any,
        inputs: Sequence[Any],
        *,
        max_concurrency: int | None = None,
        overrides: Mapping[str, Any] | None = None,
        first: int | None = None,
    ) -> list[Outcome]:
        if first is None:
            submitted = self._start(_read(flow), inputs, max_concurrency, overrides)
            return await submitted.task
        batch = self._batch(_read(flow), inputs, max_concurrency, overrides)
        return await self._run(replace(batch, first=first), self._place)

    async def submit(
        self,
        flow_id: str,
        inputs: Sequence[Any],
        *,
        max_concurrency: int | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> SubRun:
        flow = await self._blobs.flow(flow_id)
        return self._start(flow, inputs, max_concurrency, overrides).run

    async def sub_run(self, run_id: str, *, wait: bool = False) -> SubRun:
        submitted = self._submitted.get(run_id)
        if submitted is None:
            raise LookupError(f"This step has submitted no run {run_id!r}.")
        if wait:
            await asyncio.wait({submitted.task})
        task = submitted.task
        if task.done() and not task.cancelled() and (error := task.exception()) is not None:
            raise error
        outcomes = [submitted.outcomes.get(position) for position in range(len(submitted.run.outcomes))]
        return replace(
            submitted.run, outcomes=outcomes, ended=list(submitted.ended), completed_at=submitted.completed_at
        )

    def begin_again(self) -> None:
        self._uses.clear()
        self.times_again += 1

    async def flow_metadata(
        self, step_id: str | None = None, *, flow_id: str | None = None
    ) -> tuple[Mapping[str, Any], Mapping[str, Any] | None]:
        flow = self._flow if flow_id is None else await self._blobs.flow(flow_id)
        if step_id is None:
            return flow.metadata, None
        step = flow.by_id.get(step_id)
        if step is None:
            raise LookupError(f"The flow has no step {step_id!r}.")
        return flow.metadata, step.metadata

    def _start(
        self, flow: Flow, inputs: Sequence[Any], max_concurrency: int | None, overrides: Mapping[str, Any] | None
    ) -> _Submitted:
        """Run a flow beside the component, at a place that is known by what is run."""
        if self._is_closed:
            # It was asked for while the attempt ended, and would belong to nobody.
            raise ComponentFailed("The step has ended, and cannot run flows any more.", is_retryable=False)
        batch = self._batch(flow, inputs, max_concurrency, overrides)
        # Components may ask in another order when they are called again: what makes a difference is told apart.
        about = [batch.flow_id, list(inputs), overrides] if overrides else [batch.flow_id, list(inputs)]
        digest = hashlib.sha256(canonical_bytes(about)).hexdigest()[:16]
        use = self._uses[digest] = self._uses.get(digest, 0) + 1
        name = f"flow-{digest}" if use == 1 else f"flow-{digest}-{use}"
        run_id = f"{self._around.run_id}/{self._place.path}{name}"
        known = self._submitted.get(run_id)
        if known is not None:
            return known
        ended: list[int] = []
        outcomes: dict[int, Outcome] = {}

        def note(position: int, outcome: Outcome) -> None:
            outcomes[position] = outcome
            ended.append(position)

        task = asyncio.get_running_loop().create_task(
            self._run(batch, self._place.below(f"{name}/"), note), context=self._context.copy()
        )
        self._tasks.add(task)
        task.add_done_callback(self._note_end)
        run = SubRun(
            run_id=run_id,
            flow_id=batch.flow_id,
            flow_name=flow.name,
            outcomes=[None] * len(inputs),
            ended=[],
            created_at=_now(),
        )
        made = self._submitted[run_id] = _Submitted(task=task, run=run, ended=ended, outcomes=outcomes)

        def note_time(task: asyncio.Task[list[Outcome]]) -> None:
            made.completed_at = _now()

        task.add_done_callback(note_time)
        return made

    def _batch(
        self, flow: Flow, inputs: Sequence[Any], max_concurrency: int | None, overrides: Mapping[str, Any] | None
    ) -> Batch:
        if self._depth >= _DEEPEST:
            raise ComponentFailed(f"Flows run flows that run flows, more than {_DEEPEST} deep.", is_retryable=False)
        patched = apply_overrides(flow, overrides) if overrides else flow
        return Batch(
            flow=patched,
            flow_id=flow_id(flow),
            inputs=inputs,
            variables=resolve_variables(patched, {}),
            max_concurrency=max_concurrency or max(DEFAULT_CONCURRENCY, len(inputs)),
        )

    async def _run(self, batch: Batch, place: Place, on_end: Any = None) -> list[Outcome]:
        around = replace(self._around, services=self._deeper)
        try:
            return await run_batch(batch, around, place, on_end=on_end)
        except FlowStuck as error:
            raise ComponentFailed(str(error), is_retryable=False) from error

    def _deeper(self, place: Place, flow: Flow, step_id: str) -> StepServices:
        around = replace(self._around, services=self._deeper)
        return StepServices(around, place, flow, step_id, blobs=self._blobs, ctx=self._ctx, depth=self._depth + 1)

    # What the engine does

    async def sleep(self, seconds: float) -> None:
        await self._around.keeper.sleep(self._place, seconds)

    async def call_workflow(self, name: str, payload: Any) -> Any:
        from ..errors import PyFlueError

        if self._ctx is None:
            raise ComponentFailed("There is no project here, so there are no workflows.", is_retryable=False)
        try:
            return await self._ctx.call(name, payload)
        except PyFlueError as error:
            if isinstance(error, self._around.keeper.passing):
                raise
            raise ComponentFailed(str(error)) from error

    async def prompt_agent(self, name: str, text: str, *, session: str | None = None) -> Any:
        from ..errors import PyFlueError
        from .project import agent

        if self._ctx is None:
            raise ComponentFailed("There is no run here that an agent could work in.", is_retryable=False)
        try:
            harness = await self._ctx.init(agent(name))
            conversation = await (harness.session() if session is None else harness.session(session))
            reply = await conversation.prompt(text)
        except PyFlueError as error:
            if isinstance(error, self._around.keeper.passing):
                raise
            raise ComponentFailed(str(error)) from error
        return {"text": reply.text, "data": reply.data}

    async def close(self) -> None:
        """End what was submitted and not waited for."""
        self._is_closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _note_end(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever asks for the run hears of it; if nobody does, it is nobody's loss


def surround(
    *,
    run_id: str,
    router: Router,
    keeper: Keeper,
    blobs: Blobs,
    ctx: FlueContext[Any] | None = None,
    backoff: Backoff | None = None,
    secrets: Sequence[str] = (),
) -> Around:
    """What a run of a flow has around it, with services for its steps. `ctx` is that of the run, if it has one."""

    def make(place: Place, flow: Flow, step_id: str) -> StepServices:
        return StepServices(around, place, flow, step_id, blobs=blobs, ctx=ctx, depth=0)

    around = Around(
        run_id=run_id,
        router=router,
        keeper=keeper,
        services=make,
        backoff=backoff or Backoff(),
        secrets=secrets,
    )
    return around


def _now() -> str:
    return clock.rfc3339(clock.to_datetime(clock.SystemClock().now_us()))


def _read(flow: Any) -> Flow:
    return flow if isinstance(flow, Flow) else read_flow(cast("Mapping[str, Any]", flow))
