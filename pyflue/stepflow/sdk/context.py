"""What a component may ask of the runtime while it works: blobs, flows, and where it is.

A component gets it as its second parameter, if that is called `context`. Requests go through the `Link` of the
transport; answers come back by their ids. Methods and fields as in stepflow-ai/stepflow,
`sdks/python/stepflow-server` of both generations: one asks for `runs/*`, the older one for `flows/*`. Whichever a
runtime does not know (-32601), the other is tried.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec

from . import messages
from .exceptions import (
    BlobNotFoundError,
    ErrorCode,
    StepflowFailed,
    StepflowRuntimeError,
    StepflowSkipped,
    StepflowValueError,
)

if TYPE_CHECKING:
    import asyncio

    from .threads import Threads

_NOT_FOUND = -32011
_Result = TypeVar("_Result")


class BlobType(StrEnum):
    """What a blob is stored as."""

    data = "data"  #: any JSON value
    flow = "flow"  #: a flow document


class ResultOrder(StrEnum):
    """How the results of a run are ordered."""

    by_index = "byIndex"
    by_completion = "byCompletion"


class FlowOutcome(msgspec.Struct, frozen=True):
    """What a flow came to: `outcome` is `success` (with `result`), `failed` (with `error`) or `skipped`."""

    outcome: str
    result: Any = None
    error: messages.RpcError | None = None
    reason: str | None = None


class ItemResult(msgspec.Struct, frozen=True, rename="camel"):
    """One item of a run; `result` is None while it goes on."""

    item_index: int
    status: str
    result: FlowOutcome | None = None
    completed_at: str | None = None


class ItemCounts(msgspec.Struct, frozen=True):
    total: int
    completed: int = 0
    running: int = 0
    failed: int = 0
    cancelled: int = 0


class RunStatus(msgspec.Struct, frozen=True, rename="camel"):
    """A run of a flow over one or more inputs."""

    run_id: str
    flow_id: str
    status: str
    items: ItemCounts
    created_at: str | None = None
    completed_at: str | None = None
    flow_name: str | None = None
    flow_label: str | None = None
    #: Only if they were asked for.
    results: list[ItemResult] | None = None


class BatchDetails(msgspec.Struct, frozen=True):
    """A batch, as the older methods tell of it."""

    batch_id: str
    flow_id: str
    total_runs: int
    status: str
    created_at: str | None = None
    completed_at: str | None = None
    flow_name: str | None = None
    completed_runs: int = 0
    running_runs: int = 0
    failed_runs: int = 0
    cancelled_runs: int = 0
    paused_runs: int = 0


class BatchOutput(msgspec.Struct, frozen=True):
    """One run of a batch; `result` is None while it goes on."""

    batch_input_index: int
    status: str
    result: FlowOutcome | None = None


class _BlobPut(msgspec.Struct, frozen=True):
    blob_id: str


class _Blob(msgspec.Struct, frozen=True):
    data: Any = None


class _Evaluated(msgspec.Struct, frozen=True):
    result: FlowOutcome


class _Metadata(msgspec.Struct, frozen=True):
    flow_metadata: dict[str, Any]
    step_metadata: dict[str, Any] | None = None


class _BatchSubmitted(msgspec.Struct, frozen=True):
    batch_id: str


class _Batch(msgspec.Struct, frozen=True):
    details: BatchDetails
    outputs: list[BatchOutput] | None = None


class Link(Protocol):
    """The way to the runtime."""

    @property
    def waiting(self) -> Waiting: ...

    @property
    def threads(self) -> Threads:
        """Where functions run that may block."""
        ...

    def send(self, message: bytes) -> None:
        """Send a message; callable from any thread."""
        ...


class Waiting:
    """Requests that wait for their answers. Answers come from another thread (stdio) or another request (HTTP)."""

    def __init__(self) -> None:
        self._by_id: dict[messages.RequestId, asyncio.Future[messages.Message]] = {}
        self._is_ended = False

    def add(self, request_id: str) -> asyncio.Future[messages.Message]:
        """
        Raises:
            StepflowRuntimeError: nothing is answered any more.
        """
        import asyncio

        if self._is_ended:
            raise StepflowRuntimeError("The runtime has ended the connection.")
        answered: asyncio.Future[messages.Message] = asyncio.get_running_loop().create_future()
        self._by_id[request_id] = answered
        return answered

    def drop(self, request_id: str) -> None:
        self._by_id.pop(request_id, None)

    def answer(self, message: messages.Message) -> None:
        """Hand an answer to whoever waits for it. One that nobody waits for (any more) is dropped."""
        if message.id is None or message.id is msgspec.UNSET:
            return
        answered = self._by_id.pop(message.id, None)
        if answered is None:
            return
        with contextlib.suppress(RuntimeError):  # its loop may have ended
            answered.get_loop().call_soon_threadsafe(_settle, answered, message)

    def end(self) -> None:
        """Nothing is answered any more."""
        self._is_ended = True
        lost = messages.Message(error=messages.RpcError(0, "The runtime has ended the connection."))
        for request_id in list(self._by_id):
            self.answer(messages.Message(id=request_id, error=lost.error))


def _settle(answered: asyncio.Future[messages.Message], message: messages.Message) -> None:
    if not answered.done():
        answered.set_result(message)


class StepflowContext:
    """The runtime, as a component sees it. Its methods are for the one call that it was made for."""

    __slots__ = ("_attempt", "_link", "_observability", "_session_id")

    def __init__(
        self,
        link: Link,
        observability: messages.Observability | None,
        *,
        attempt: int = 1,
        session_id: str | None = None,
    ) -> None:
        self._link = link
        self._observability = observability or messages.Observability()
        self._attempt = attempt
        self._session_id = session_id

    @property
    def session_id(self) -> str | None:
        """Over HTTP the id of the server's instance, else None."""
        return self._session_id

    @property
    def step_id(self) -> str | None:
        """The step that this call is for."""
        return self._observability.step_id

    @property
    def run_id(self) -> str | None:
        """The run that this call is for."""
        return self._observability.run_id

    @property
    def flow_id(self) -> str | None:
        """The flow that runs."""
        return self._observability.flow_id

    @property
    def attempt(self) -> int:
        """1 at first, more if the step is tried again."""
        return self._attempt

    async def put_blob(self, data: Any, blob_type: BlobType | str = BlobType.data) -> str:
        """Keep a JSON value and get its id, which depends on nothing but the value.

        Raises:
            StepflowRuntimeError: the runtime refuses it (as a flow, if it is none).
        """
        params = {"data": data, "blob_type": BlobType(blob_type).value}
        return (await self._ask("blobs/put", params, _BlobPut)).blob_id

    async def get_blob(self, blob_id: str) -> Any:
        """The value of a blob.

        Raises:
            BlobNotFoundError: there is none of this id.
        """
        try:
            return (await self._ask("blobs/get", {"blob_id": blob_id}, _Blob)).data
        except StepflowRuntimeError as error:
            if error.data.get("code") == _NOT_FOUND:
                raise BlobNotFoundError(blob_id) from error
            raise

    async def evaluate_flow(self, flow: Any, input: Any, overrides: Mapping[str, Any] | None = None) -> Any:  # noqa: A002  (the name of the original)
        """What a flow gives for an input. `flow` is a document as `FlowBuilder.build` or a YAML reader gives it.

        Raises:
            StepflowFailed, StepflowSkipped: what the flow came to instead.
        """
        return await self.evaluate_flow_by_id(await self.put_blob(flow, BlobType.flow), input, overrides)

    async def evaluate_flow_by_id(
        self,
        flow_id: str,
        input: Any,  # noqa: A002  (the name of the original)
        overrides: Mapping[str, Any] | None = None,
    ) -> Any:
        """What a stored flow gives for an input.

        Raises:
            StepflowFailed, StepflowSkipped: what the flow came to instead.
        """
        try:
            status = await self.submit_run_by_id(flow_id, [input], wait=True, overrides=overrides)
        except _Unknown:
            params = _given(flow_id=flow_id, input=input, overrides=overrides)
            params.setdefault("input", None)
            return _value((await self._ask("flows/evaluate", params, _Evaluated)).result)
        return (await self._values(status))[0]

    async def get_metadata(self, step_id: str | None = None) -> dict[str, Any]:
        """`flow_metadata`, and the `step_metadata` of a step (this one, if none is given) if there is any."""
        if self.flow_id is None:
            raise StepflowRuntimeError("There is no flow here whose metadata could be told.")
        params = _given(flow_id=self.flow_id, step_id=step_id or self.step_id)
        found = await self._ask("flows/get_metadata", params, _Metadata)
        told: dict[str, Any] = {"flow_metadata": found.flow_metadata}
        return told if found.step_metadata is None else {**told, "step_metadata": found.step_metadata}

    async def submit_batch(
        self,
        flow: Any,
        inputs: Sequence[Any],
        max_concurrency: int | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> str:
        """Start a flow for each of several inputs and go on; the id of the batch."""
        flow_id = await self.put_blob(flow, BlobType.flow)
        return await self.submit_batch_by_id(flow_id, inputs, max_concurrency, overrides)

    async def submit_batch_by_id(
        self,
        flow_id: str,
        inputs: Sequence[Any],
        max_concurrency: int | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> str:
        """Start a stored flow for each of several inputs and go on; the id of the batch."""
        params = _given(flow_id=flow_id, inputs=list(inputs), max_concurrency=max_concurrency, overrides=overrides)
        try:
            return (await self._ask("flows/submit_batch", params, _BatchSubmitted)).batch_id
        except _Unknown:
            status = await self.submit_run_by_id(flow_id, inputs, max_concurrency=max_concurrency, overrides=overrides)
            return status.run_id

    async def get_batch(
        self, batch_id: str, wait: bool = False, include_results: bool = False
    ) -> tuple[BatchDetails, list[BatchOutput] | None]:
        """What became of a batch; its outputs only with `include_results`, in the order of the inputs."""
        params = {"batch_id": batch_id, "wait": wait, "include_results": include_results}
        try:
            found = await self._ask("flows/get_batch", params, _Batch)
        except _Unknown:
            return _as_batch(await self.get_run(batch_id, wait, include_results))
        outputs = found.outputs if include_results else None
        return found.details, outputs

    async def evaluate_batch(
        self,
        flow: Any,
        inputs: Sequence[Any],
        max_concurrency: int | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> list[Any]:
        """What a flow gives for each of several inputs, in their order.

        Raises:
            StepflowFailed, StepflowSkipped: what one of them came to instead.
        """
        flow_id = await self.put_blob(flow, BlobType.flow)
        return await self.evaluate_batch_by_id(flow_id, inputs, max_concurrency, overrides)

    async def evaluate_batch_by_id(
        self,
        flow_id: str,
        inputs: Sequence[Any],
        max_concurrency: int | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> list[Any]:
        """What a stored flow gives for each of several inputs, in their order.

        Raises:
            StepflowFailed, StepflowSkipped: what one of them came to instead.
        """
        batch_id = await self.submit_batch_by_id(flow_id, inputs, max_concurrency, overrides)
        _, outputs = await self.get_batch(batch_id, wait=True, include_results=True)
        ordered = sorted(outputs or (), key=lambda output: output.batch_input_index)
        return _values([(output.batch_input_index, output.result) for output in ordered], len(inputs))

    async def submit_run(
        self,
        flow: Any,
        inputs: Sequence[Any],
        wait: bool = False,
        max_concurrency: int | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> RunStatus:
        """Start a flow for one or more inputs; with `wait`, its end and its results."""
        flow_id = await self.put_blob(flow, BlobType.flow)
        return await self.submit_run_by_id(flow_id, inputs, wait, max_concurrency, overrides)

    async def submit_run_by_id(
        self,
        flow_id: str,
        inputs: Sequence[Any],
        wait: bool = False,
        max_concurrency: int | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> RunStatus:
        """Start a stored flow for one or more inputs; with `wait`, its end and its results."""
        params = _given(
            flowId=flow_id, inputs=list(inputs), wait=wait, maxConcurrency=max_concurrency, overrides=overrides
        )
        return await self._ask("runs/submit", params, RunStatus)

    async def get_run(
        self,
        run_id: str,
        wait: bool = False,
        include_results: bool = False,
        result_order: ResultOrder | str = ResultOrder.by_index,
    ) -> RunStatus:
        """What became of a run that was started here."""
        params = {
            "runId": run_id,
            "wait": wait,
            "includeResults": include_results,
            "resultOrder": ResultOrder(result_order).value,
        }
        return await self._ask("runs/get", params, RunStatus)

    async def evaluate_run(
        self,
        flow: Any,
        inputs: Sequence[Any],
        max_concurrency: int | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> list[Any]:
        """What a flow gives for each of its inputs, in their order.

        Raises:
            StepflowFailed, StepflowSkipped: what one of them came to instead.
        """
        flow_id = await self.put_blob(flow, BlobType.flow)
        return await self.evaluate_run_by_id(flow_id, inputs, max_concurrency, overrides)

    async def evaluate_run_by_id(
        self,
        flow_id: str,
        inputs: Sequence[Any],
        max_concurrency: int | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> list[Any]:
        """What a stored flow gives for each of its inputs, in their order.

        Raises:
            StepflowFailed, StepflowSkipped: what one of them came to instead.
        """
        status = await self.submit_run_by_id(flow_id, inputs, True, max_concurrency, overrides)
        return await self._values(status)

    async def _values(self, status: RunStatus) -> list[Any]:
        if status.results is None:
            status = await self.get_run(status.run_id, wait=True, include_results=True)
        ordered = sorted(status.results or (), key=lambda item: item.item_index)
        return _values([(item.item_index, item.result) for item in ordered], status.items.total)

    async def _ask(self, method: str, params: dict[str, Any], result_type: type[_Result]) -> _Result:
        """
        Raises:
            StepflowRuntimeError: the answer is an error, or none that is understood.
            StepflowValueError: the params are not JSON.
        """
        request_id = _new_id()
        try:
            message = messages.request(request_id, method, {**params, "observability": self._observability})
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise StepflowValueError(f"What was to be sent with {method} is not JSON: {error}") from error
        answered = self._link.waiting.add(request_id)
        try:
            self._link.send(message)
            with self._link.threads.away():
                answer = await answered
        finally:
            self._link.waiting.drop(request_id)
        if isinstance(answer.error, messages.RpcError):
            kind = _Unknown if answer.error.code == ErrorCode.METHOD_NOT_FOUND else StepflowRuntimeError
            told = {"method": method, "code": answer.error.code}
            if answer.error.data is not None:
                told["data"] = answer.error.data
            raise kind(f"{method} failed: {answer.error.message}", data=told)
        try:
            raw = answer.result
            return msgspec.json.decode(b"null" if isinstance(raw, msgspec.UnsetType) else raw, type=result_type)
        except msgspec.MsgspecError as error:
            raise StepflowRuntimeError(f"The answer to {method} is not understood: {error}") from error


async def in_thread(context: StepflowContext, work: Callable[..., _Result], *args: Any) -> _Result:
    """The result of `work(*args)`, run in a thread of the server that the context is of."""
    return await context._link.threads.call(work, *args)  # pyright: ignore[reportPrivateUsage]  (the same module)


class _Unknown(StepflowRuntimeError):
    """The runtime does not know the method."""


def _given(**params: Any) -> dict[str, Any]:
    return {name: value for name, value in params.items() if value is not None}


def _value(outcome: FlowOutcome, about: str = "") -> Any:
    match outcome.outcome:
        case "success":
            return outcome.result
        case "skipped":
            raise StepflowSkipped(
                f"{about}Flow execution was skipped" + (f": {outcome.reason}" if outcome.reason else "")
            )
        case "failed" if outcome.error is not None:
            raise StepflowFailed(outcome.error.code, f"{about}{outcome.error.message}", outcome.error.data)
        case _:
            raise StepflowRuntimeError(f"A flow cannot have the outcome {outcome.outcome!r}.")


def _values(results: Sequence[tuple[int, FlowOutcome | None]], total: int) -> list[Any]:
    values: list[Any] = []
    for index, outcome in results:
        if outcome is None:
            raise StepflowRuntimeError(f"The run for input {index} has no result.")
        values.append(_value(outcome, f"Run for input {index}: " if total > 1 else ""))
    if len(values) != total:
        raise StepflowRuntimeError(f"There are {total} inputs and {len(values)} results.")
    return values


def _as_batch(run: RunStatus) -> tuple[BatchDetails, list[BatchOutput] | None]:
    details = BatchDetails(
        batch_id=run.run_id,
        flow_id=run.flow_id,
        total_runs=run.items.total,
        status=run.status,
        created_at=run.created_at,
        completed_at=run.completed_at,
        flow_name=run.flow_name,
        completed_runs=run.items.completed,
        running_runs=run.items.running,
        failed_runs=run.items.failed,
        cancelled_runs=run.items.cancelled,
    )
    if run.results is None:
        return details, None
    ordered = sorted(run.results, key=lambda item: item.item_index)
    return details, [BatchOutput(item.item_index, item.status, item.result) for item in ordered]


def _new_id() -> str:
    """A UUID of version 4, which is what the runtime expects of ids that are texts."""
    number = bytearray(os.urandom(16))
    number[6] = number[6] & 0x0F | 0x40
    number[8] = number[8] & 0x3F | 0x80
    digits = number.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
