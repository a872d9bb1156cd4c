"""What an executor is given and what it gives back, and which executors there are.

Executors of nodes that only look at values are plain functions (`nodes/control.py`). Those that do something outside
(`llm`, `http`, `code`, `workflow`, and all that users register) are async, and in a project each of their executions is
a durable step.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from .document import Node, as_object
from .exceptions import NodeError
from .values import Scope

if TYPE_CHECKING:
    from .scheduler import GraphRun


@dataclass(slots=True)
class ExecutionResult:
    """What a node gave: its outputs, and the port to leave it by if it chooses one."""

    outputs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    branch: str | None = None
    #: What the report shows as the node's inputs, if that is something else than they are.
    shown_inputs: Mapping[str, Any] | None = None


class Call:
    """One execution of a node."""

    __slots__ = ("inputs", "node", "run", "scope")

    def __init__(self, node: Node, scope: Scope, run: GraphRun) -> None:
        self.node = node
        self.scope = scope
        self.run = run
        self.inputs: dict[str, Any] = {}


@dataclass(slots=True)
class ExecutionContext:
    """What an executor of a user's own is given. `inputs` is a copy that it may change."""

    node: Node
    inputs: dict[str, Any]
    #: The variables that are visible here.
    runtime: Scope
    #: What holds the registered executors.
    container: Any = None
    #: The report's entry for this execution, as far as it is known.
    snapshot: Any = None


class INodeExecutor:
    """The base of executors of users' own; anything with `type` and `async execute(ctx)` will do as well."""

    type: str = ""

    async def execute(self, ctx: ExecutionContext) -> ExecutionResult:
        """Do the node's work."""
        raise NotImplementedError(f"{type(self).__name__}.execute")


class _Executes(Protocol):
    type: str

    async def execute(self, ctx: ExecutionContext) -> ExecutionResult: ...


Pure: TypeAlias = Callable[[Call], ExecutionResult]
Work: TypeAlias = Callable[[Call], Awaitable[ExecutionResult]]

#: Executors that do something outside, imported when a node of theirs is first run.
_WORK = {
    "llm": "llm:execute_llm",
    "http": "http_request:execute_http",
    "code": "code:execute_code",
    "workflow": "workflow_call:execute_workflow",
}
_loaded: dict[str, Work] = {}


class Executors:
    """The executors of node types: ours, and those that users register, which go first."""

    def __init__(self) -> None:
        self._own: dict[str, Work] = {}
        self._types: frozenset[str] | None = None

    def register(self, executor: Any) -> None:
        """Add an executor for the type it names; one of the same type is replaced.

        Raises:
            TypeError: it has no type, or no `execute`.
        """
        type_ = getattr(executor, "type", None)
        if not isinstance(type_, str) or not type_ or not callable(getattr(executor, "execute", None)):
            raise TypeError(f"{executor!r} is no executor: it needs a `type` and an `async execute(ctx)`.")
        self._own[type_] = _adapted(executor, self)
        self._types = None

    def own(self, type_: str) -> Work | None:
        """The executor that a user has registered for a type."""
        return self._own.get(type_)

    def work(self, type_: str) -> Work | None:
        """The executor of a type that does something outside; None if there is none."""
        own = self._own.get(type_)
        if own is not None:
            return own
        loaded = _loaded.get(type_)
        if loaded is None and type_ in _WORK:
            module, _, name = _WORK[type_].partition(":")
            loaded = _loaded[type_] = getattr(import_module(f".nodes.{module}", __package__), name)
        return loaded

    @property
    def types(self) -> frozenset[str]:
        """All types that nodes can have."""
        if self._types is None:
            from .nodes.control import PURE

            self._types = frozenset({*PURE, *_WORK, "loop", *self._own})
        return self._types


def _adapted(executor: _Executes, executors: Executors) -> Work:
    async def execute(call: Call) -> ExecutionResult:
        ctx = ExecutionContext(
            node=call.node, inputs=copied(call.inputs), runtime=call.scope, container=Container(executors)
        )
        result = await _unless_cancelled(executor.execute(ctx))
        if isinstance(result, ExecutionResult):
            return result
        if isinstance(result, Mapping):
            return ExecutionResult(outputs=as_object(result))
        outputs = getattr(result, "outputs", None)
        if not isinstance(outputs, Mapping):
            raise NodeError(f"The executor of {executor.type!r} returned {type(result).__name__}, not ExecutionResult")
        return ExecutionResult(outputs=as_object(outputs), branch=getattr(result, "branch", None))

    return execute


async def _unless_cancelled(execution: Awaitable[Any]) -> Any:
    """What an executor gives. One that was cancelled, and gives or raises something all the same, is not heard."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101  (graphs run in tasks)
    before = task.cancelling()
    try:
        result = await execution
    except Exception as error:
        if task.cancelling() > before:
            raise asyncio.CancelledError from error
        raise
    if task.cancelling() > before:
        raise asyncio.CancelledError
    return result


class Container:
    """What `ctx.container` and `WorkflowApplication.container` are: `get("Executor")` gives the executors."""

    def __init__(self, executors: Executors) -> None:
        self._executors = executors

    def get(self, name: Any) -> Executors:
        """The executors, the only service there is."""
        if name not in ("Executor", "IExecutor"):
            raise KeyError(name)
        return self._executors


def copied(value: Any) -> Any:
    """A copy of the lists and dicts of a JSON value."""
    if isinstance(value, dict):
        return {name: copied(item) for name, item in value.items()}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, (list, tuple)):
        return [copied(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
    return value
