"""Running step classes durably: every step is a durable step of a run, an approval is `ctx.approve`.

Called by the workflows that `loader.py` makes. A step records what it returned and the state it left, so that a run
that is taken up again goes on with the right state; between steps the state is always what its JSON gives back. What
attempts that failed did to the state stays, too. Child workflows are the business of `child_runs.py`.
"""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from .. import codec
from ..clock import rfc3339
from ..engine import calls_of
from ..engine.retrying import ONCE
from ..engine.retrying import RetryPolicy as EnginePolicy
from ..engine.scopes import current as current_scope
from ..engine.scopes import inside
from ..errors import ResultInvalid, WaitTimedOut
from ..typed import Misfit, Shape
from .exceptions import ApprovalRequiredError
from .execution import Execution, WorkflowTimeout
from .hooks import (
    StepFinishedEvent,
    StepStartedEvent,
    WorkflowEvent,
    WorkflowFinishedEvent,
    WorkflowStartedEvent,
)
from .models import (
    ApprovalDecision,
    ApprovalRequest,
    ChildRunner,
    StepDefinition,
    StepResult,
    WorkflowResult,
    WorkflowStatus,
)
from .records import result_from_dict
from .retry import RetryPolicy, resolve_retry_policy

if TYPE_CHECKING:
    from ..engine import BlockingContext, FlueContext
    from .child_runs import Homes
    from .hooks import WorkflowHook

#: A state larger than this is not shown to those who approve; the run's record has it.
_SHOWN_STATE_BYTES = 64 * 1024
#: The name under which an attempt that fails records what it leaves.
_LEFT = "left"
_FAILED = "failed"


class Durable:
    """Everything goes through the context of a run."""

    suspends = True
    ends: tuple[type[BaseException], ...] = (Exception,)

    def __init__(self, ctx: FlueContext[Any], shape: Shape, homes: Homes) -> None:
        self.ctx = ctx
        self.homes = homes
        self._shape = shape
        #: The time of what was recorded last, which is the same when the run is replayed.
        self._at = ctx.now()

    def now(self) -> datetime:
        return self._at

    async def perform(self, run: Execution, index: int, result: StepResult) -> Any:
        step = run.definition.steps[index]
        policy = resolve_retry_policy(run.definition, step)
        attempts = _Attempts(self, run, index, result)
        try:
            recorded = await self.ctx.step(step.name, attempts.run, retry=_engine_policy(policy))
        except Exception:
            # Nothing may be recorded from here on: a retry of the run begins where the last record is that failed.
            await self._take_failure(run, step, result)
            raise
        self._take(run, result, recorded)
        return recorded["output"]

    async def _take_failure(self, run: Execution, step: StepDefinition, result: StepResult) -> None:
        """What is known of a step that failed, now or before the run was taken up again."""
        calls, scope = calls_of(self.ctx), current_scope()
        if calls.host.stopped_because is not None or scope is None:
            return
        history = await calls.journal.history(calls.fence.run_id)
        here = [record for record in history.steps if record.name == step.name and _is_in(record.key, scope.path)]
        failed = max(here, key=lambda record: record.recorded_index, default=None)
        if failed is None:
            return
        result.attempts = failed.attempts
        left_key = f"{failed.key}/attempt-{failed.attempts}/{_LEFT}"
        left = next((record.value for record in history.steps if record.key == left_key), None)
        if left is not None:
            self._take(run, result, codec.load(left))

    def _take(self, run: Execution, result: StepResult, recorded: dict[str, Any]) -> None:
        result.attempts = recorded["attempts"]
        result.child_workflows = [result_from_dict(child) for child in recorded["child_workflows"]]
        self._at = datetime.fromisoformat(recorded["finished_at"])
        if recorded["state"] is not None:
            self.put_state(run, recorded["state"])

    async def tell(self, hook: WorkflowHook, event: WorkflowEvent) -> None:
        if hook is journal:
            self._write(event)
            return

        async def call_hook() -> None:
            if inspect.iscoroutinefunction(hook):
                await hook(event)
            else:
                told = await self.ctx.in_thread(lambda _: hook(event))
                if inspect.isawaitable(told):
                    await told

        if isinstance(event, (StepFinishedEvent, WorkflowFinishedEvent)) and event.result.status == _FAILED:
            await call_hook()  # not recorded, as nothing is after a failure
            return
        name = getattr(hook, "__name__", type(hook).__name__)
        await self.ctx.step(f"hook {name}: {type(event).__name__}"[:128], call_hook)

    async def ask(self, run: Execution, step: StepDefinition, request: ApprovalRequest) -> Any:
        if run.handler is not None:
            return await self._ask_handler(run, step, request)
        # What a person looks for first comes first.
        asked: dict[str, Any] = {"message": request.message}
        state = self.state_of(run)
        if _size(state) <= _SHOWN_STATE_BYTES:
            asked["state"] = state
        asked |= {
            "metadata": request.metadata,
            "step_name": request.step_name,
            "workflow_name": request.workflow_name,
        }
        limits = [step.approval_timeout_s, None if run.until is None else run.left_s()]
        limit_s = min((limit for limit in limits if limit is not None), default=None)
        try:
            decision = await self.ctx.approve(step.name, asked, timeout_s=limit_s, key=f"{step.name} approval")
        except WaitTimedOut as error:
            self._at = datetime.now(UTC)
            if run.is_late():
                raise run.late() from error
            text = f"Step '{step.name}' was not approved within {step.approval_timeout_s:g} s."
            raise ApprovalRequiredError(text) from error
        self._at = decision.at
        about: dict[str, object] = {"by": decision.by, "at": rfc3339(decision.at)}
        return ApprovalDecision(decision.approved, decision.reason, about)

    async def _ask_handler(self, run: Execution, step: StepDefinition, request: ApprovalRequest) -> Any:
        """The answer of a handler that a parent's step has given to this child."""
        handler = run.handler
        assert handler is not None  # noqa: S101  (the caller has looked)

        async def ask() -> Any:
            answer = await self.ctx.in_thread(lambda _: handler(request))
            if inspect.isawaitable(answer):
                answer = await answer
            return answer.to_dict() if isinstance(answer, ApprovalDecision) else answer

        answer: Any = await self.ctx.step(f"{step.name} approval", ask)
        return ApprovalDecision(**answer) if isinstance(answer, dict) else answer  # pyright: ignore[reportUnknownArgumentType]

    def children(self, run: Execution, result: StepResult, ctx: Any) -> ChildRunner:
        from .child_runs import ChildRuns

        return ChildRuns(run, result, self, ctx)

    # State

    def state_of(self, run: Execution) -> Any:
        """The state as JSON.

        Raises:
            ResultInvalid: it is no longer of its type.
        """
        with _fitting(run.definition.name):
            return self._shape.dump(run.state)

    def put_state(self, run: Execution, state: Any) -> None:
        """Go on with a recorded state."""
        with _fitting(run.definition.name):
            run.instance.state = self._shape.load(state)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]

    def dumped(self, run: Execution, result: WorkflowResult) -> dict[str, Any]:
        """A run's result as JSON."""
        return {**result.to_dict(), "state": self.state_of(run)}

    def _write(self, event: WorkflowEvent) -> None:
        """Write an event into the run's journal. Nothing in it may differ when the run is replayed."""
        match event:
            case WorkflowStartedEvent():
                self.ctx.emit("workflow_started", {"workflow_name": event.workflow_name})
            case StepStartedEvent():
                self.ctx.emit("step_started", _about(event))
            case StepFinishedEvent():
                told = event.result.to_dict()
                kept = {name: told[name] for name in _TOLD_OF_STEPS if told[name] not in (None, False)}
                self.ctx.emit("step_finished", {"workflow_name": event.workflow_name, **kept})
            case WorkflowFinishedEvent():
                result = event.result.to_dict()
                if event.result.status is WorkflowStatus.FAILED:
                    # A parent has nothing else to know a failed child by.
                    try:
                        result["state"] = self._shape.dump(event.state)
                    except Misfit:
                        result["state"] = None
                else:
                    result = {name: result[name] for name in ("workflow_name", "status", "route_trace")}
                self.ctx.emit("workflow_finished", result)


_TOLD_OF_STEPS = (
    "step_name",
    "status",
    "attempts",
    "error",
    "route_key",
    "next_step",
    "approval_required",
    "approval_decision",
)


def _about(event: StepStartedEvent) -> dict[str, Any]:
    return {"workflow_name": event.workflow_name, "step_name": event.step_name}


def journal(event: WorkflowEvent) -> None:
    """Stands for the run's journal among the hooks of a durable run; `Durable.tell` does it."""


class _Attempts:
    """The attempts at one step."""

    def __init__(self, means: Durable, run: Execution, index: int, result: StepResult) -> None:
        self._means = means
        self._run = run
        self._index = index
        self._result = result
        #: The attempt whose state is the one in memory; 0 is the state from before the step.
        self._in_memory = 0

    async def run(self) -> dict[str, Any]:
        """One attempt: the output, and the state it left."""
        means, run, step = self._means, self._run, self._run.definition.steps[self._index]
        scope = current_scope()
        assert scope is not None  # noqa: S101  (the engine calls this inside of a step)
        attempt = scope.step_attempt or 1
        self._result.attempts = attempt
        if self._in_memory != attempt - 1:
            await self._recall(attempt - 1)
        try:
            limit = asyncio.timeout(run.limit_s(step.timeout_s))
            try:
                async with limit:
                    output = await self._call(attempt)
            except TimeoutError as error:
                if not limit.expired():
                    raise
                raise run.timed_out(step) from error
        except Exception:
            self._in_memory = attempt
            await means.ctx.step(_LEFT, self.left)
            raise
        return {"output": output, **self._left(means.state_of(run))}

    def left(self) -> dict[str, Any]:
        """What the attempts that failed have left."""
        try:
            return self._left(self._means.state_of(self._run))
        except ResultInvalid:
            return self._left(None)

    def _left(self, state: Any) -> dict[str, Any]:
        return {
            "state": state,
            "attempts": self._result.attempts,
            "finished_at": rfc3339(datetime.now(UTC)),
            "child_workflows": self._children(),
        }

    async def _recall(self, attempt: int) -> None:
        """Take the state that an attempt left that failed in another process."""
        scope = current_scope()
        assert scope is not None and scope.step_key is not None  # noqa: S101, PT018  (as above)
        with inside(scope.attempt(scope.step_key, attempt)):
            left: Any = await self._means.ctx.step(_LEFT, _nothing)
        if left is not None and left["state"] is not None:
            self._means.put_state(self._run, left["state"])
            children: list[dict[str, Any]] = left["child_workflows"]
            self._result.child_workflows[:] = [result_from_dict(child) for child in children]

    async def _call(self, attempt: int) -> Any:
        run, index, result, ctx = self._run, self._index, self._result, self._means.ctx
        method = getattr(run.instance, run.definition.steps[index].method_name)
        if inspect.iscoroutinefunction(method):
            method, args = run.work(index, attempt, result, ctx)
            return await method(*args)

        def call(blocking: BlockingContext[Any]) -> Any:
            method, args = run.work(index, attempt, result, blocking)
            return method(*args)

        output = await ctx.in_thread(call)
        return await output if inspect.isawaitable(output) else output

    def _children(self) -> list[dict[str, Any]]:
        return [child.to_dict() for child in self._result.child_workflows]


def own_copy(shape: Shape, state: Any, workflow: str) -> Any:
    """A state that nobody else has, made as a restart would make it.

    Raises:
        ResultInvalid: it is not what its JSON gives back; NotSerializable.
    """
    with _fitting(workflow):
        return shape.load(codec.load(codec.encode_value(shape.dump(state), "The state")))


@contextmanager
def _fitting(workflow: str) -> Generator[None]:
    """
    Raises:
        ResultInvalid: a state does not fit its type.
    """
    try:
        yield
    except Misfit as misfit:
        raise ResultInvalid(f"workflow {workflow!r} (its state)", misfit.problems) from misfit.__cause__


def _is_in(key: str, path: str) -> bool:
    """Whether a key is one of a scope itself."""
    return key.startswith(path) and "/" not in key[len(path) :]


def _nothing() -> Any:
    """What there is of an attempt that left no record."""
    return None


def _engine_policy(policy: RetryPolicy) -> EnginePolicy:
    if not policy.retries or not policy.retry_on:
        return ONCE
    return EnginePolicy(
        max_attempts=policy.retries + 1,
        delay_s=policy.delay,
        backoff=policy.backoff,
        max_delay_s=math.inf if policy.max_delay_s is None else policy.max_delay_s,
        jitter=policy.jitter,
        retry_on=policy.retry_on,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  (wider is fine)
        give_up_on=(WorkflowTimeout,),
    )


def _size(value: Any) -> int:
    return len(codec.encode(value))
