"""Graphs as a library: `run`, `start`, `run_sync`, `validate`, without a project, a server or a journal.

A finished run is held by nobody but its caller's `Task`. `WorkflowApplication`, which is asked for runs by their ids,
keeps the newest finished ones.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Generator, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeAlias

from .document import Document, read_document
from .exceptions import FlowgramError, GraphCancelled, GraphInvalid
from .executing import Container, Executors, copied
from .masking import secrets_of
from .report import ReportRecorder, WorkflowStatus
from .scheduler import GraphRun
from .validation import ValidationResult, check_document, check_inputs

if TYPE_CHECKING:
    from .models import InvokeParams, IReport, WorkflowSchema

WorkflowInputs: TypeAlias = dict[str, Any]
WorkflowOutputs: TypeAlias = dict[str, Any]
SchemaInput: TypeAlias = "dict[str, Any] | str | WorkflowSchema"

#: How many finished runs an application keeps.
FINISHED_KEPT = 1000


class FlowGramNode(StrEnum):
    """The types of node."""

    Root = "root"
    Start = "start"
    End = "end"
    LLM = "llm"
    Code = "code"
    Condition = "condition"
    Loop = "loop"
    Comment = "comment"
    Group = "group"
    BlockStart = "block-start"
    BlockEnd = "block-end"
    HTTP = "http"
    Break = "break"
    Continue = "continue"
    Variable = "variable"
    Workflow = "workflow"


class Task:
    """A run that goes on by itself."""

    def __init__(self, application: WorkflowApplication, schema: Any, inputs: Mapping[str, Any] | None) -> None:
        self.id = uuid.uuid4().hex
        self._inputs = _copied_inputs(inputs)
        self._outputs: dict[str, Any] = {}
        self._recorder = ReportRecorder(self.id)
        self._failure: FlowgramError | None = None
        self._document: Document | None = None
        try:
            self._document = prepared(schema, self._inputs, application.executors)
        except GraphInvalid as error:
            self._fail_at_once(error)
            self._task: asyncio.Task[None] | None = None
        else:
            self._recorder.span.begin()
            self._task = application.hold(self._drive(self._document, application.executors))

    async def wait(self, timeout: float | None = None, *, raise_on_failure: bool = True) -> WorkflowOutputs:
        """The outputs, once the run has ended. Cancelling the wait leaves the run alone.

        Raises:
            TimeoutError: it goes on after `timeout` seconds; NodeFailed, GraphInvalid, GraphCancelled: how it ended,
            unless `raise_on_failure` is False, which makes that `{}`.
        """
        task = self._task
        if task is not None and not task.done():
            done, _ = await asyncio.wait([task], timeout=timeout)
            if not done:
                raise TimeoutError(f"Run {self.id} did not end within {timeout:g} s.")
        if self.status is WorkflowStatus.Succeeded:
            return self._outputs
        if not raise_on_failure:
            return {}
        if self._failure is not None:
            raise self._failure
        raise GraphCancelled(f"Run {self.id} was cancelled.")

    @property
    def processing(self) -> _Waiting:
        """To be awaited for the outputs; `{}` if the run fails."""
        return _Waiting(self)

    @property
    def status(self) -> WorkflowStatus:
        """Where the run is in its life."""
        return self._recorder.span.status

    def result(self) -> WorkflowOutputs | None:
        """The outputs; None while the run goes on, `{}` if it failed."""
        return self._outputs if self.done() else None

    def report(self) -> IReport:
        """What has become of the run so far, secrets masked."""
        from .models import IReport

        return IReport.model_validate(self.report_dict())

    def report_dict(self) -> dict[str, Any]:
        """As `report`, as plain JSON."""
        from .masking import Secrets

        secrets = Secrets() if self._document is None else secrets_of(self._document, self._inputs)
        return self._recorder.to_dict(self._inputs, self._outputs, secrets)

    def done(self) -> bool:
        """Whether the run has ended."""
        return self._recorder.span.status.is_terminated

    def cancel(self) -> bool:
        """End the run; what has ended stays as it is."""
        if self._task is not None and not self._task.done() and not self.done():
            self._task.cancel()
            self._recorder.cancel_all()
        return True

    async def _drive(self, document: Document, executors: Executors) -> None:
        recorder = self._recorder
        span = recorder.span
        try:
            outputs = await GraphRun(document, self._inputs, executors=executors, recorder=recorder).execute()
        except asyncio.CancelledError:
            if not span.status.is_terminated:
                span.finish(WorkflowStatus.Cancelled)
            raise
        except FlowgramError as error:
            if not span.status.is_terminated:
                self._failure = error
                span.finish(WorkflowStatus.Failed)
        else:
            if not span.status.is_terminated:
                self._outputs = outputs
                span.finish(WorkflowStatus.Succeeded)

    def _fail_at_once(self, error: GraphInvalid) -> None:
        for text in error.errors:
            self._recorder.say(None, "error", text)
        self._failure = error
        self._recorder.span.begin()
        self._recorder.span.finish(WorkflowStatus.Failed)

    def __repr__(self) -> str:
        return f"<Task {self.id} {self.status.value}>"


class _Waiting:
    """`await task.processing`, as users of the original write it."""

    def __init__(self, task: Task) -> None:
        self._task = task

    def __await__(self) -> Generator[Any, None, WorkflowOutputs]:
        return self._task.wait(raise_on_failure=False).__await__()


class WorkflowApplication:
    """Runs graphs and knows them by their ids."""

    _instance: WorkflowApplication | None = None

    def __init__(self) -> None:
        self.executors = Executors()
        self.container = Container(self.executors)
        self.tasks: dict[str, Task] = {}
        self._running: set[asyncio.Task[None]] = set()

    @classmethod
    def instance(cls) -> WorkflowApplication:
        """The application that the functions of this package use."""
        if cls._instance is None:
            cls._instance = WorkflowApplication()
        return cls._instance

    @classmethod
    def reset(cls) -> WorkflowApplication:
        """Begin with a new application: registered executors and finished runs are forgotten."""
        cls._instance = WorkflowApplication()
        return cls._instance

    def run(self, params: InvokeParams | Mapping[str, Any]) -> str:
        """Start a run; its id."""
        schema, inputs = _params(params)
        task = self.start(schema, inputs)
        self.tasks[task.id] = task
        if len(self.tasks) > FINISHED_KEPT:
            self._forget()
        return task.id

    def start(self, schema: Any, inputs: Mapping[str, Any] | None = None) -> Task:
        """Start a run that only its caller knows."""
        asyncio.get_running_loop()
        return Task(self, schema, inputs)

    def report(self, task_id: str) -> IReport | None:
        """The report of a run; None if there is none of this id (any more)."""
        task = self.tasks.get(task_id)
        return None if task is None else task.report()

    def result(self, task_id: str) -> WorkflowOutputs | None:
        """The outputs of a run; None while it goes on, or if there is none of this id (any more)."""
        task = self.tasks.get(task_id)
        return None if task is None else task.result()

    def cancel(self, task_id: str) -> bool:
        """End a run; whether there is one of this id."""
        task = self.tasks.get(task_id)
        return False if task is None else task.cancel()

    def validate(self, params: InvokeParams | Mapping[str, Any]) -> ValidationResult:
        """What is wrong with a graph and its inputs."""
        schema, inputs = _params(params)
        return check(schema, inputs, self.executors)

    def hold(self, drive: Any) -> asyncio.Task[None]:
        """Let a run go on, and hold it while it does."""
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(drive)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    def _forget(self) -> None:
        over = [task_id for task_id, task in self.tasks.items() if task.done()]
        for task_id in over[: max(0, len(over) - FINISHED_KEPT)]:
            del self.tasks[task_id]


async def run(
    schema: SchemaInput,
    inputs: WorkflowInputs | None = None,
    *,
    timeout: float | None = None,
    raise_on_failure: bool = True,
) -> WorkflowOutputs:
    """Run a graph and return its outputs.

    Raises:
        GraphInvalid: the graph or the inputs cannot be used; NodeFailed: a node failed (with `raise_on_failure=False`
        both are `{}`); TimeoutError: it took longer than `timeout` seconds, and was ended.
    """
    executors = WorkflowApplication.instance().executors
    try:
        given = _copied_inputs(inputs)
        graph = GraphRun(prepared(schema, given, executors), given, executors=executors)
        if timeout is None:
            return await graph.execute()
        async with asyncio.timeout(timeout):
            return await graph.execute()
    except FlowgramError:
        if raise_on_failure:
            raise
        return {}


def start(schema: SchemaInput, inputs: WorkflowInputs | None = None) -> Task:
    """Start a graph in the running event loop.

    Raises:
        RuntimeError: no running event loop.
    """
    return WorkflowApplication.instance().start(schema, inputs)


def run_sync(
    schema: SchemaInput,
    inputs: WorkflowInputs | None = None,
    *,
    timeout: float | None = None,
    raise_on_failure: bool = True,
) -> WorkflowOutputs:
    """As `run`, from code that is not async.

    Raises:
        RuntimeError: an event loop is running.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(run(schema, inputs, timeout=timeout, raise_on_failure=raise_on_failure))
    raise RuntimeError(
        "run_sync() must not be called from inside a running event loop; use `await run(...)` there instead."
    )


def validate(schema: SchemaInput, inputs: WorkflowInputs | None = None) -> ValidationResult:
    """What is wrong with a graph, and with inputs for it, without running anything."""
    return check(schema, inputs, WorkflowApplication.instance().executors)


def register_executor(executor: Any) -> None:
    """Let nodes of the type `executor.type` be run by it, in this process."""
    WorkflowApplication.instance().executors.register(executor)


def reset() -> None:
    """Forget registered executors and finished runs."""
    WorkflowApplication.reset()


def prepared(schema: Any, inputs: Any, executors: Executors) -> Document:
    """A graph that can be run with these inputs.

    Raises:
        GraphInvalid
    """
    document = read_document(schema)
    errors, _ = check_document(document, executors.types)
    if not errors:
        errors = check_inputs(document, inputs)
    if errors:
        raise GraphInvalid(errors)
    return document


def check(schema: Any, inputs: Any, executors: Executors) -> ValidationResult:
    """What is wrong with a graph and its inputs, all of it at once."""
    try:
        document = read_document(schema)
    except GraphInvalid as error:
        return ValidationResult(valid=False, errors=error.errors)
    errors, warnings = check_document(document, executors.types)
    if not errors:
        errors = check_inputs(document, {} if inputs is None else inputs)
    return ValidationResult(valid=not errors, errors=errors or None, warnings=warnings)


def _copied_inputs(inputs: Mapping[str, Any] | None) -> dict[str, Any]:
    """The inputs, so that nobody who changes them later changes the run."""
    return {} if inputs is None else copied(inputs if isinstance(inputs, dict) else dict(inputs))


def _params(params: Any) -> tuple[Any, Mapping[str, Any] | None]:
    if isinstance(params, Mapping):
        return params["schema"], params.get("inputs")  # pyright: ignore[reportUnknownMemberType,reportUnknownVariableType]
    return params.schema_, params.inputs
