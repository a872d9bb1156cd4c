"""Walking a graph: which node runs when, each exactly once.

Every edge comes to be taken or dead, once. A node runs when all edges that lead to it are settled and at least one of
them was taken; if all are dead it is skipped, and so are its own edges. The task that settles the last edge goes on
with the node, so a join has one claimant however its branches end. One successor goes on in the same task, more get
tasks of their own in a task group: if one fails, the others are cancelled and awaited before anybody hears of it.

`Keeper` is what a project adds: it makes an execution a durable step. `Recorder` is what a report is made from. Knows
neither journal nor HTTP.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

from .document import ERROR_PORT, GLOBAL, LOCALS, Document, Edge, Level, Node, Plan, as_object, properties
from .exceptions import NodeError, NodeFailed, text_of
from .executing import Call, ExecutionResult, Executors, Work
from .nodes.control import PURE
from .retries import NodeRetry, retry_of
from .values import Scope, Variable, global_variables, inputs_of, keep_outputs, referred, type_of, variable_of

_STOPS = frozenset({"end", "block-end", "break", "continue"})
#: How long nodes may follow one another before others on the event loop get their turn.
_LONGEST_TURN_S = 0.005
_LOOKS_EVERY = 16
_RESERVED = re.compile(r"[%/#]|^[@(\[]")
_PLAIN_ID = re.compile(r"[^\x00-\x1f\x7f\u2028\u2029\ud800-\udfff]{1,128}")


class Recorder(Protocol):
    """Is told what nodes do."""

    def begin(self, node: Node) -> Any: ...
    def end(self, entry: Any, call: Call, result: ExecutionResult) -> None: ...
    def fail(self, entry: Any, call: Call, message: str) -> None: ...
    def cancel(self, entry: Any, call: Call) -> None: ...
    def warn(self, node: Node, message: str) -> None: ...
    def log(self, node: Node, text: str) -> None: ...


class Keeper(Protocol):
    """Makes what nodes do durable."""

    #: Exceptions that are not about the node but about the run, which ends with them.
    passing: tuple[type[BaseException], ...]

    async def work(self, call: Call, work: Work, retry: NodeRetry | None) -> ExecutionResult:
        """Do something outside, once."""
        ...

    def note(self, call: Call, result: ExecutionResult) -> ExecutionResult:
        """Note what a node gave that only looks at values."""
        ...

    def log(self, node: Node, text: str) -> None:
        """Note what a node has printed."""
        ...

    def warn(self, node: Node, text: str) -> None:
        """Note what the graph's author should look at."""
        ...


class Progress:
    """How far a level is, in one scope."""

    __slots__ = ("alive", "group", "is_broken", "is_continued", "scope", "waits_for")

    def __init__(self, plan: Plan, scope: Scope) -> None:
        self.scope = scope
        self.waits_for = dict(plan.waits_for)
        self.alive: set[str] = set()
        #: Where tasks of further branches go.
        self.group: asyncio.TaskGroup | None = None
        self.is_broken = False
        self.is_continued = False

    def settle(self, edges: Sequence[Edge], taken: Sequence[Edge]) -> list[Node]:
        """Note which edges of a node were taken; the nodes that can run now."""
        ready: list[Node] = []
        settled = [(edge, edge in taken) for edge in edges]
        for edge, is_taken in settled:  # it grows
            target = edge.target
            left = self.waits_for[target.id] = self.waits_for[target.id] - 1
            if is_taken:
                self.alive.add(target.id)
            if left == 0:
                if target.id in self.alive:
                    ready.append(target)
                else:
                    settled.extend((further, False) for further in target.outgoing)
        return ready


class GraphRun:
    """One run of a graph."""

    def __init__(
        self,
        document: Document,
        inputs: Mapping[str, Any],
        *,
        executors: Executors,
        recorder: Recorder | None = None,
        keeper: Keeper | None = None,
    ) -> None:
        self.document = document
        self.inputs = inputs
        self.outputs: Mapping[str, Any] = {}
        self.executors = executors
        self._recorder = recorder
        self._keeper = keeper
        self._passing = () if keeper is None else keeper.passing
        self._looks = 0
        self._since = 0.0

    async def execute(self) -> dict[str, Any]:
        """Run the graph and return its outputs.

        Raises:
            NodeFailed: a node failed.
        """
        scope = Scope()
        if self.document.global_schema is not None:
            scope.nodes[GLOBAL] = global_variables(properties(self.document.global_schema))
        self._since = time.monotonic()
        await self._run_level(self.document.root, scope)
        return dict(self.outputs)

    def log(self, node: Node, text: str) -> None:
        """Keep what a node's code has printed."""
        for hearer in (self._keeper, self._recorder):
            if hearer is not None:
                hearer.log(node, text)

    # Scheduling

    async def _run_level(self, level: Level, scope: Scope) -> Progress:
        plan = level.plan
        progress = Progress(plan, scope)
        ready = [plan.entry]
        while len(ready) == 1:
            ready = await self._run_node(ready[0], progress)
        if ready:
            await self._run_branches(ready, progress)
        return progress

    async def _run_branches(self, ready: Sequence[Node], progress: Progress) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                progress.group = group
                for node in ready:
                    group.create_task(self._run_branch(node, progress))
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def _run_branch(self, node: Node, progress: Progress) -> None:
        group = progress.group
        assert group is not None  # noqa: S101  (branches are made in it)
        while True:
            ready = await self._run_node(node, progress)
            if not ready:
                return
            node = ready[0]
            for other in ready[1:]:
                group.create_task(self._run_branch(other, progress))

    async def _run_node(self, node: Node, progress: Progress) -> list[Node]:
        """Run a node; the nodes that can run after it."""
        self._looks += 1
        if self._looks % _LOOKS_EVERY == 0 and time.monotonic() - self._since > _LONGEST_TURN_S:
            await asyncio.sleep(0)
            self._since = time.monotonic()
        scope = progress.scope
        recorder = self._recorder
        entry = None if recorder is None else recorder.begin(node)
        call = Call(node, scope, self)
        try:
            call.inputs, dropped = inputs_of(node, scope)
            for warning in dropped:
                for hearer in (self._keeper, recorder):
                    if hearer is not None:
                        hearer.warn(node, warning)
            result = await self._perform(call)
            taken = _taken(node, result.branch)
        except asyncio.CancelledError:
            if recorder is not None:
                recorder.cancel(entry, call)
            raise
        except self._passing:
            raise
        except Exception as error:
            # Whatever the node's executor raises.
            message = "Loop block execute error" if isinstance(error, NodeFailed) else text_of(error)
            if recorder is not None:
                recorder.fail(entry, call, message)
            taken = [edge for edge in node.outgoing if edge.port == ERROR_PORT and node.type != "condition"]
            if not taken:
                if isinstance(error, NodeFailed):
                    raise
                raise NodeFailed(node.id, message) from error
            inner = error.message if isinstance(error, NodeFailed) else message
            scope.nodes[node.id] = {**scope.nodes.get(node.id, {}), "error": Variable(inner, "string")}
            return progress.settle(node.outgoing, taken)
        if recorder is not None:
            recorder.end(entry, call, result)
        match node.type:
            case "break":
                progress.is_broken = True
            case "continue":
                progress.is_continued = True
            case _:
                pass
        return progress.settle(node.outgoing, taken)

    async def _perform(self, call: Call) -> ExecutionResult:
        node = call.node
        type_ = node.type
        pure = PURE.get(type_)
        if type_ == "loop" or pure is not None:
            own = self.executors.own(type_)
            if own is None:
                result = pure(call) if pure is not None else await self._loop(call)
                if self._keeper is not None:
                    result = self._keeper.note(call, result)
                if type_ != "loop":
                    keep_outputs(node, result.outputs, call.scope)
                return result
            work: Work | None = own
        else:
            work = self.executors.work(type_)
        if work is None:
            raise NodeError(f"No executor found for node type {type_}")
        retry = retry_of(node)
        if self._keeper is not None:
            result = await self._keeper.work(call, work, retry)
        elif retry is None:
            result = await work(call)
        else:
            result = await retry.run(functools.partial(work, call))
        keep_outputs(node, result.outputs, call.scope)
        return result

    # Loops

    async def _loop(self, call: Call) -> ExecutionResult:
        node, scope = call.node, call.scope
        items, schema = _items(node, scope)
        outputs = node.data.get("loopOutputs")
        refs = as_object(outputs)
        rows = await self._iterations(node, scope, items, schema, refs)
        lists: dict[str, list[Any]] = {name: [] for name in refs}
        types: dict[str, str] = {}
        for row in rows:
            for name, variable in row.items():
                lists[name].append(variable.value)
                types.setdefault(name, variable.type)
        scope.nodes[node.id] = {
            name: Variable(values, "array", {"type": types.get(name, "null")}) for name, values in lists.items()
        }
        return ExecutionResult(lists)

    async def _iterations(
        self, node: Node, scope: Scope, items: Sequence[Any], schema: Mapping[str, Any], refs: Mapping[str, Any]
    ) -> list[dict[str, Variable]]:
        """What is collected of each iteration, up to the one that broke the loop off."""
        level = node.level
        assert level is not None  # noqa: S101  (loops have one, `document.py` sees to it)
        base = scope.path + segment(node.id)
        rows: list[dict[str, Variable] | None] = [None] * len(items)
        last = len(items)

        async def iterate(index: int) -> None:
            nonlocal last
            inner = Scope(scope, f"{base}[{index}]/")
            inner.nodes[node.id + LOCALS] = {
                "item": _item(items[index], schema),
                "index": Variable(index, "number"),
            }
            progress = await self._run_level(level, inner)
            if progress.is_broken:
                last = min(last, index)
            elif not progress.is_continued:
                rows[index] = _collected(refs, inner)

        limit = _concurrency(node)
        if limit == 1:
            for index in range(len(items)):
                await iterate(index)
                if last <= index:
                    break
        else:
            left = iter(range(len(items)))

            async def work() -> None:
                for index in left:
                    if index > last:
                        return
                    await iterate(index)

            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(min(limit, len(items))):
                        group.create_task(work())
            except BaseExceptionGroup as failures:
                raise failures.exceptions[0] from None
        return [row for row in rows[:last] if row is not None]


def _taken(node: Node, branch: str | None) -> list[Edge]:
    """The edges that a node is left by.

    Raises:
        NodeError: there are none.
    """
    if node.type in _STOPS:
        return []
    if branch is None:
        taken = [edge for edge in node.outgoing if edge.port != ERROR_PORT or node.type == "condition"]
        if not taken:
            raise NodeError(f'Node "{node.id}" has no next nodes')
    else:
        taken = [edge for edge in node.outgoing if edge.port == branch]
        if not taken:
            raise NodeError(f'Branch "{branch}" not found')
    return taken


def _items(node: Node, scope: Scope) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """What a loop goes over, and the JSON schema of its items.

    Raises:
        NodeError: it is no array.
    """
    value = node.data.get("loopFor")
    if value is None:
        raise NodeError('Loop "loopFor" is required')
    variable = referred(value, scope)
    items: Any = None if variable is None else variable.value
    if variable is None or not isinstance(items, (list, tuple)):
        raise NodeError('Loop "loopFor" must be an array')
    if variable.items is None:
        raise NodeError('Loop "loopFor.items" must be array items')
    return cast("Sequence[Any]", items), variable.items


def _item(value: Any, schema: Mapping[str, Any]) -> Variable:
    kind = schema.get("type")
    if "derived" in schema or not isinstance(kind, str) or kind == "null":
        return variable_of(value)
    items = schema.get("items")
    if isinstance(items, Mapping):
        return Variable(value, kind, cast("Mapping[str, Any]", items))
    # A list of lists whose inner items nobody declared: each knows its own.
    return Variable(value, kind, variable_of(value).items if type_of(value) == "array" else None)


def _collected(refs: Mapping[str, Any], scope: Scope) -> dict[str, Variable]:
    row: dict[str, Variable] = {}
    for name, ref in refs.items():
        variable = referred(ref, scope)
        if variable is not None:
            row[name] = variable
    return row


def _concurrency(node: Node) -> int:
    value = node.data.get("concurrency", 1)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise NodeError(f'Loop "concurrency" must be a whole number from 1, got {value!r}')
    return value


def step_name(node_id: str) -> str:
    """A node's id as the name of its step."""
    if _PLAIN_ID.fullmatch(node_id):
        return node_id
    return f"node-{hashlib.sha256(node_id.encode(errors='backslashreplace')).hexdigest()[:32]}"


@functools.lru_cache(maxsize=4096)
def segment(node_id: str) -> str:
    """A node's id as a part of a path, written as the engine writes names in keys."""
    return _RESERVED.sub(lambda found: f"%{ord(found[0]):02X}", step_name(node_id))
