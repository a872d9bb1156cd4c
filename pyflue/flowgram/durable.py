"""Node executions as durable steps of a run.

Whatever does something outside is a step of the engine, known by the node's id and the path of loop iterations that it
is in: `loop_0[3]/llm_2`. When a run is taken up again such a node gives back what it gave. Nodes that only look at
values, and loops, are walked through again; what they gave is recorded beside, for reports and `pyflue runs`.

Each execution has a scope of its own in the engine, so its key does not depend on what else runs at the same time.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from .. import codec
from ..codec import Raw
from ..engine import calls_of
from ..engine.noting import note_step
from ..engine.scopes import Scope, current, inside
from ..errors import (
    CallMisplaced,
    JournalError,
    ReplayDrifted,
    ReplayMismatch,
    RunStopped,
    TooManyEvents,
)
from .document import Node
from .exceptions import NoAnswer, NodeError, text_of
from .executing import Call, ExecutionResult, Work
from .masking import Secrets
from .nodes.workflow_call import result_of, workflow_name
from .retries import NodeRetry
from .scheduler import step_name

if TYPE_CHECKING:
    from ..engine import FlueContext

#: Larger ones are not recorded of nodes that only look at values: they are computed again.
_NOTED_BYTES = 64 * 1024


class DurableKeeper:
    """Implements `scheduler.Keeper` on a run's context."""

    passing: tuple[type[BaseException], ...] = (
        RunStopped,
        JournalError,
        ReplayMismatch,
        ReplayDrifted,
        CallMisplaced,
        TooManyEvents,
    )

    def __init__(self, ctx: FlueContext[Any], secrets: Secrets) -> None:
        self._ctx = ctx
        self._calls = calls_of(ctx)
        self._secrets = secrets
        here = current()
        assert here is not None  # noqa: S101  (a workflow runs in a scope)
        self._owner = here.owner

    async def work(self, call: Call, work: Work, retry: NodeRetry | None) -> ExecutionResult:
        name = step_name(call.node.id)
        with inside(Scope(self._owner, call.scope.path)):
            if call.node.type == "workflow":
                return await self._child(call, name)
            policy = None if retry is None else _policy(retry)
            record = await self._ctx.step(name, functools.partial(self._perform, call, work), retry=policy)
        return ExecutionResult(record["outputs"], record["branch"])

    async def _perform(self, call: Call, work: Work) -> dict[str, Any]:
        """One attempt at a node, as it is recorded."""
        try:
            result = await work(call)
        except Exception as error:  # noqa: BLE001  (whatever the executor raises; raised again below)
            # As this it is the same when it is replayed.
            said = text_of(error)
            told = self._secrets.text(said)
            kind = NoAnswer if isinstance(error, NoAnswer) else NodeError
            # The record would tell the cause's words, too.
            raise kind(told) from (error if told == said else None)
        shown = call.inputs if result.shown_inputs is None else result.shown_inputs
        self._secrets.learn(shown)
        return {"inputs": self._secrets.mask(shown), "outputs": dict(result.outputs), "branch": result.branch}

    async def _child(self, call: Call, name: str) -> ExecutionResult:
        return result_of(await self._ctx.call(workflow_name(call.node), call.inputs, key=name))

    def note(self, call: Call, result: ExecutionResult) -> ExecutionResult:
        def shown() -> Raw:
            raw = self._secrets.masked_json({"inputs": call.inputs, "outputs": result.outputs, "branch": result.branch})
            if len(memoryview(raw)) > _NOTED_BYTES:
                return Raw(codec.encode({"inputs": {}, "outputs": {}, "branch": result.branch, "is_omitted": True}))
            return raw

        with inside(Scope(self._owner, call.scope.path)):
            note_step(self._calls, step_name(call.node.id), shown)
        return result

    def log(self, node: Node, text: str) -> None:
        self._ctx.log.info(self._secrets.text(text), node=node.id)

    def warn(self, node: Node, text: str) -> None:
        self._ctx.log.warn(self._secrets.text(text), node=node.id)


def _policy(retry: NodeRetry) -> Any:
    from ..engine.retrying import RetryPolicy

    return RetryPolicy(
        max_attempts=retry.max_attempts,
        delay_s=retry.delay_s,
        backoff=retry.backoff,
        max_delay_s=3600.0,
        jitter=0.0,
        retry_on=(retry.retry_on,),
    )
