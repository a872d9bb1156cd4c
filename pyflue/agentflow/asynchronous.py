"""Running step classes on an event loop: `arun` and `aresume`.

Async steps, hooks and handlers are awaited. A step that is not async gets a thread of its own, so it may block. When
the task is cancelled the step under way fails, the hooks are told of its end and of the run's, and the cancellation
goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from .execution import NOBODY, Execution, Work
from .executor import Children, resumption, run_workflow
from .models import ApprovalRequest, ChildOptions, ChildRunner, StepDefinition, StepResult, WorkflowResult
from .threads import start

if TYPE_CHECKING:
    from .hooks import WorkflowEvent, WorkflowHook


class Awaiting:
    """Everything is awaited, if it can be."""

    suspends = True
    ends: tuple[type[BaseException], ...] = (Exception, asyncio.CancelledError)

    def now(self) -> datetime:
        return datetime.now(UTC)

    def perform(self, run: Execution, index: int, result: StepResult) -> Coroutine[Any, Any, Any]:
        return run.attempts(self, index, result)

    async def call(self, run: Execution, step: StepDefinition, work: Work, limit_s: float | None) -> Any:
        limit = asyncio.timeout(limit_s)
        try:
            async with limit:
                return await call_method(work)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise run.timed_out(step) from error

    async def sleep(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)

    async def tell(self, hook: WorkflowHook, event: WorkflowEvent) -> None:
        told = hook(event)
        if inspect.isawaitable(told):
            await told

    async def ask(self, run: Execution, step: StepDefinition, request: ApprovalRequest) -> Any:
        if run.handler is None:
            return NOBODY
        limit = asyncio.timeout(run.limit_s(step.approval_timeout_s))
        try:
            async with limit:
                answer = run.handler(request)
                return await answer if inspect.isawaitable(answer) else answer
        except TimeoutError as error:
            if not limit.expired():
                raise
            if run.is_late():
                raise run.late() from error
            text = f"Step '{step.name}' was not approved within {step.approval_timeout_s:g} s."
            raise TimeoutError(text) from error

    def children(self, run: Execution, result: StepResult, ctx: Any) -> ChildRunner:
        return _Children(run, result)


class _Children(Children):
    """Runs the children of a step of such a run: they may have async steps, too."""

    __slots__ = ("_loop",)

    def __init__(self, run: Execution, result: StepResult) -> None:
        super().__init__(run, result)
        self._loop = asyncio.get_running_loop()

    def run(self, instance: object, state: object, options: ChildOptions) -> WorkflowResult:
        if is_on_a_loop():
            # An async step that does not wait: the loop stands still meanwhile, as it would for any other call.
            return self.take(run_workflow(instance, state, **self.inherited(options)), options)
        child = arun_workflow(instance, state, **self.inherited(options))
        return self.take(asyncio.run_coroutine_threadsafe(child, self._loop).result(), options)


async def arun_workflow(instance: object, state: object, **options: Any) -> WorkflowResult:
    """Run a workflow object on the event loop. The options are those of its method `arun`."""
    return await _until_cancelled(Execution(instance, Awaiting(), **options).go(state))


async def aresume_workflow(
    instance: object, paused_result: WorkflowResult, decision: object, **options: Any
) -> WorkflowResult:
    """Go on with a paused run on the event loop. The options are those of the method `aresume`."""
    run = Execution(instance, Awaiting(), **options)
    resumed = resumption(run, paused_result, decision)
    return resumed if isinstance(resumed, WorkflowResult) else await _until_cancelled(resumed)


async def _until_cancelled(going: Coroutine[Any, Any, WorkflowResult]) -> WorkflowResult:
    result = await going
    if isinstance(result.error, asyncio.CancelledError):
        raise result.error
    return result


async def call_method(work: Work) -> Any:
    """The output of an attempt: awaited if the method is async, in a thread of its own if not."""
    method, args = work
    if inspect.iscoroutinefunction(method):
        return await method(*args)
    output = await _in_thread(work)
    return await output if inspect.isawaitable(output) else output


async def _in_thread(work: Work) -> Any:
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def settle() -> None:
        if not done.done():
            done.set_result(None)

    def tell() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle)

    method, args = work
    started = start(method, *args)
    started.when_done(tell)
    await done
    return started.value()


def is_on_a_loop() -> bool:
    """Whether this thread is running an event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
