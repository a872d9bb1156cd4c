"""What a component server may ask of the runtime while it works, and what it is told.

Methods and fields as in stepflow-ai/stepflow (`crates/stepflow-protocol/src/protocol`), with those that the Python SDK
of that time still sends (`flows/*`). Called by the plugins for stdio and HTTP; answers through the `RunServices` of the
call that a request belongs to. `runs/*` are camelCase on the wire, the rest is snake_case; what comes in may be either.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias, cast

from .jsonrpc import RpcCode, RpcError
from .outcome import Failed, Outcome, Skipped, to_wire
from .plugins.port import BlobType, ComponentCall, ComponentFailed, ComponentInfo, ComponentSkipped, SubRun

PROTOCOL_VERSION = 1

Fields: TypeAlias = Mapping[str, Any]

#: What a server says of itself when another attempt with the same input would end in the same way.
_FINAL_CODES = frozenset({-32601, -32602, -32600, -32001, -32002, -32005})


class Calls:
    """The calls that a component server works on at the moment.

    A request belongs to the call whose `span_id` it gives back; else to that of its `run_id` and `step_id`; else to the
    only one there is.
    """

    __slots__ = ("_by_span", "_last")

    def __init__(self) -> None:
        self._by_span: dict[str, ComponentCall] = {}
        self._last = 0

    def __len__(self) -> int:
        return len(self._by_span)

    def begin(self, call: ComponentCall) -> str:
        """The span of a call that begins."""
        self._last += 1
        span_id = f"{self._last:016x}"
        self._by_span[span_id] = call
        return span_id

    def end(self, span_id: str) -> None:
        self._by_span.pop(span_id, None)

    def belonging(self, params: Fields, *, same_for_all: bool) -> ComponentCall:
        """The call that a request with these params belongs to.

        `same_for_all` says that it makes no difference which of a step's calls it is (of several items of a batch).

        Raises:
            RpcError: there is none, or it could be several.
        """
        about = _mapping(params.get("observability"))
        span_id = about.get("span_id")
        if isinstance(span_id, str) and (found := self._by_span.get(span_id)) is not None:
            return found
        run_id, step_id = about.get("run_id"), about.get("step_id")
        fitting = [
            call
            for call in self._by_span.values()
            if (run_id is None or call.run_id == run_id) and (step_id is None or call.step_id == step_id)
        ]
        if len(fitting) == 1:
            return fitting[0]
        if not fitting:
            raise _invalid("There is no call under way that this request could belong to.")
        if same_for_all and len({(call.run_id, call.flow_id, call.step_id) for call in fitting}) == 1:
            return fitting[0]
        raise _invalid(
            "This request could belong to several calls that are under way: give `observability` with the `span_id` of "
            "the call (or `run_id` and `step_id`, if the step is called once at a time)."
        )


def execute_params(call: ComponentCall, attempt: int, span_id: str) -> dict[str, Any]:
    """What `components/execute` is called with."""
    return {
        "component": call.component,
        "input": call.input,
        "attempt": attempt,
        "observability": {
            "span_id": span_id,
            "run_id": call.run_id,
            "flow_id": call.flow_id,
            "step_id": call.step_id,
        },
    }


def output_of(result: Any, plugin: str) -> Any:
    """The output in the result of `components/execute`.

    Raises:
        ComponentFailed: it has none; ComponentSkipped: the component says that there is nothing to do.
    """
    if not isinstance(result, dict) or "output" not in result:
        raise broken(plugin, "its answer to `components/execute` has no `output`")
    output = cast("dict[str, Any]", result)["output"]
    if type(output) is dict and _is_skip(cast("dict[str, Any]", output)):
        raise ComponentSkipped(cast("dict[str, Any]", output).get("reason"))
    return cast("Any", output)


def _is_skip(output: Fields) -> bool:
    """Whether it is exactly what the SDK of older releases answers for `SkipStep`."""
    if output.get("outcome") != "skipped" or not output.keys() <= {"outcome", "reason"}:
        return False
    return isinstance(output.get("reason"), str | None)


def failure_of(error: RpcError, redact: Callable[[str], str] = str) -> ComponentFailed:
    """What an error that a component server answered means to a step."""
    message = redact(error.message)
    return ComponentFailed(
        message or "The component failed.",
        attachments=("error executing component", f"component server error({error.code}): {message}"),
        is_retryable=error.code not in _FINAL_CODES,
    )


def broken(plugin: str, problem: str, *, is_retryable: bool = True) -> ComponentFailed:
    """The failure of a step whose component server did not keep to the protocol, or is not there."""
    return ComponentFailed(
        f"Plugin {plugin!r} cannot be used: {problem.rstrip('.')}.",
        attachments=("error executing component",),
        is_retryable=is_retryable,
    )


def crashed(plugin: str, story: str, words: str = "") -> ComponentFailed:
    """The failure of a step whose component server ended while it worked."""
    said = f" It said last:\n{words}" if words else ""
    text = f"component server error({int(RpcCode.CRASHED)}): process crashed during the request"
    return ComponentFailed(
        f"Plugin {plugin!r} did not answer: {story.rstrip('.')}.{said}", attachments=("error executing component", text)
    )


def version_problem(said: Any) -> str | None:
    """What is wrong with the answer to `initialize`."""
    version = cast("Fields", said).get("server_protocol_version") if isinstance(said, Mapping) else None
    if version == PROTOCOL_VERSION and type(version) is int:
        return None
    return f"it speaks version {version!r} of the protocol, and this is version {PROTOCOL_VERSION}"


def infos_of(result: Any, plugin: str) -> list[ComponentInfo]:
    """What `components/list` gave.

    Raises:
        ComponentFailed
    """
    listed = cast("Fields", result).get("components") if isinstance(result, Mapping) else None
    if not isinstance(listed, list):
        raise broken(plugin, "its answer to `components/list` has no list of `components`")
    return [_info(entry, plugin) for entry in cast("list[Any]", listed)]


def _info(entry: Any, plugin: str) -> ComponentInfo:
    fields = _mapping(entry)
    path = fields.get("component", fields.get("path"))
    if not isinstance(path, str) or not path:
        raise broken(plugin, "it lists a component without a path")
    description = fields.get("description")
    return ComponentInfo(
        path=path if path.startswith("/") else f"/{path}",
        description=description if isinstance(description, str) else None,
        input_schema=_schema(_field(fields, "input_schema")),
        output_schema=_schema(_field(fields, "output_schema")),
    )


def _mapping(value: Any) -> Fields:
    return cast("Fields", value) if isinstance(value, Mapping) else cast("Fields", {})


def _schema(value: Any) -> Fields | None:
    return cast("Fields", value) if isinstance(value, Mapping) else None


# What a server asks


async def answer(calls: Calls | ComponentCall, method: str, params: Any) -> Any:
    """The result of a request of a component server, which belongs to one of its calls, or to the given one.

    Raises:
        RpcError
    """
    entry = _METHODS.get(method)
    if entry is None:
        raise RpcError(RpcCode.METHOD_NOT_FOUND, f"There is no method {method[:200]!r}.")
    fields = _fields(params)
    call = calls if isinstance(calls, ComponentCall) else calls.belonging(fields, same_for_all=entry[1])
    work = entry[0]
    try:
        return await work(call, fields)
    except LookupError as error:
        raise RpcError(RpcCode.NOT_FOUND, _text(error)) from error
    except ValueError as error:
        raise RpcError(RpcCode.INVALID_VALUE, _text(error)) from error
    except ComponentFailed as error:
        raise RpcError(RpcCode.INTERNAL, error.message) from error


def _fields(params: Any) -> Fields:
    if params is None:
        return {}
    if not isinstance(params, Mapping):
        raise _invalid("The params must be an object.")
    return cast("Fields", params)


async def _put_blob(call: ComponentCall, params: Fields) -> Any:
    if "data" not in params:
        raise _invalid("`data` is missing.")
    kind = _field(params, "blob_type", "data")
    if kind not in BlobType.__members__.values():
        raise _invalid("`blob_type` must be `data` or `flow`.")
    return {"blob_id": await call.services.put_blob(params["data"], BlobType(kind))}


async def _get_blob(call: ComponentCall, params: Fields) -> Any:
    data, kind = await call.services.get_blob(_string(params, "blob_id"))
    return {"data": data, "blob_type": kind.value}


async def _submit_run(call: ComponentCall, params: Fields) -> Any:
    should_wait = _flag(params, "wait")
    run = await call.services.submit(
        _string(params, "flow_id"), _inputs(params), max_concurrency=_count(params), overrides=_overrides(params)
    )
    if should_wait:
        run = await call.services.sub_run(run.run_id, wait=True)
    return run_status(run, with_results=should_wait)


async def _get_run(call: ComponentCall, params: Fields) -> Any:
    order = _field(params, "result_order", "byIndex")
    if order not in ("byIndex", "byCompletion", "by_index", "by_completion"):
        raise _invalid("`resultOrder` must be `byIndex` or `byCompletion`.")
    run = await call.services.sub_run(_string(params, "run_id"), wait=_flag(params, "wait"))
    by_completion = order in ("byCompletion", "by_completion")
    return run_status(run, with_results=_flag(params, "include_results"), by_completion=by_completion)


async def _evaluate(call: ComponentCall, params: Fields) -> Any:
    run = await call.services.submit(_string(params, "flow_id"), [params.get("input")], overrides=_overrides(params))
    run = await call.services.sub_run(run.run_id, wait=True)
    outcome = run.outcomes[0]
    if outcome is None:
        raise RpcError(RpcCode.INTERNAL, "The flow has not ended.")
    return {"result": to_wire(outcome)}


async def _metadata(call: ComponentCall, params: Fields) -> Any:
    step_id = _field(params, "step_id")
    if step_id is not None and not isinstance(step_id, str):
        raise _invalid("`step_id` must be a text.")
    flow_id = _field(params, "flow_id")
    if flow_id is not None and not isinstance(flow_id, str):
        raise _invalid("`flow_id` must be a text.")
    # Its own flow is the one that it runs in, with the overrides of the run.
    other = None if flow_id == call.flow_id else flow_id
    flow_metadata, step_metadata = await call.services.flow_metadata(step_id, flow_id=other)
    answered: dict[str, Any] = {"flow_metadata": dict(flow_metadata)}
    return answered if step_metadata is None else {**answered, "step_metadata": dict(step_metadata)}


async def _submit_batch(call: ComponentCall, params: Fields) -> Any:
    inputs = _inputs(params)
    run = await call.services.submit(
        _string(params, "flow_id"), inputs, max_concurrency=_count(params), overrides=_overrides(params)
    )
    return {"batch_id": run.run_id, "total_runs": len(inputs)}


async def _get_batch(call: ComponentCall, params: Fields) -> Any:
    run = await call.services.sub_run(_string(params, "batch_id"), wait=_flag(params, "wait"))
    answered: dict[str, Any] = {"details": _batch_details(run)}
    if _flag(params, "include_results"):
        answered["outputs"] = [
            {
                "batch_input_index": index,
                "status": _status(outcome),
                "result": None if outcome is None else to_wire(outcome),
            }
            for index, outcome in enumerate(run.outcomes)
        ]
    return answered


_METHODS: dict[str, tuple[Callable[[ComponentCall, Fields], Awaitable[Any]], bool]] = {
    "blobs/put": (_put_blob, True),
    "blobs/get": (_get_blob, True),
    "flows/get_metadata": (_metadata, True),
    # These start something that belongs to one call and ends with it.
    "runs/submit": (_submit_run, False),
    "runs/get": (_get_run, False),
    "flows/evaluate": (_evaluate, False),
    "flows/submit_batch": (_submit_batch, False),
    "flows/get_batch": (_get_batch, False),
}


def run_status(run: SubRun, *, with_results: bool, by_completion: bool = False) -> dict[str, Any]:
    """`RunStatus` of the protocol (and of later SDKs)."""
    outcomes = run.outcomes
    completed = sum(1 for outcome in outcomes if outcome is not None and not isinstance(outcome, Failed))
    failed = sum(1 for outcome in outcomes if isinstance(outcome, Failed))
    answered: dict[str, Any] = {"runId": run.run_id, "flowId": run.flow_id}
    if run.flow_name is not None:
        answered["flowName"] = run.flow_name
    answered["status"] = _run_status(completed, failed, len(outcomes))
    answered["items"] = {
        "total": len(outcomes),
        "completed": completed,
        "running": len(outcomes) - completed - failed,
        "failed": failed,
        "cancelled": 0,
    }
    answered["createdAt"] = run.created_at
    if run.completed_at is not None:
        answered["completedAt"] = run.completed_at
    if with_results:
        order = list(run.ended) if by_completion else list(range(len(outcomes)))
        answered["results"] = [_item(index, outcomes[index]) for index in order]
    return answered


def _item(index: int, outcome: Outcome | None) -> dict[str, Any]:
    item: dict[str, Any] = {"itemIndex": index, "status": _status(outcome)}
    return item if outcome is None else {**item, "result": to_wire(outcome)}


def _batch_details(run: SubRun) -> dict[str, Any]:
    outcomes = run.outcomes
    failed = sum(1 for outcome in outcomes if isinstance(outcome, Failed))
    running = sum(1 for outcome in outcomes if outcome is None)
    completed = len(outcomes) - failed - running
    details: dict[str, Any] = {
        "batch_id": run.run_id,
        "flow_id": run.flow_id,
        "flow_name": run.flow_name,
        "total_runs": len(outcomes),
        # A batch of the older protocol runs or was cancelled; how its runs ended is told by the counts.
        "status": "running",
        "created_at": run.created_at,
        "completed_runs": completed,
        "running_runs": running,
        "failed_runs": failed,
        "cancelled_runs": 0,
        "paused_runs": 0,
    }
    return details if run.completed_at is None else {**details, "completed_at": run.completed_at}


def _run_status(completed: int, failed: int, total: int) -> str:
    if completed + failed < total:
        return "running"
    return "failed" if failed else "completed"


def _status(outcome: Outcome | None) -> str:
    match outcome:
        case None:
            return "running"
        case Failed():
            return "failed"
        case Skipped():
            return "skipped"
        case _:
            return "completed"


def _field(params: Fields, name: str, default: Any = None) -> Any:
    """A field by its name in snake_case, or in camelCase."""
    if name in params:
        return params[name]
    head, *rest = name.split("_")
    return params.get(head + "".join(part.capitalize() for part in rest), default)


def _string(params: Fields, name: str) -> str:
    value = _field(params, name)
    if not isinstance(value, str):
        raise _invalid(f"`{name}` must be a text.")
    return value


def _flag(params: Fields, name: str) -> bool:
    value = _field(params, name, False)
    if value is not None and not isinstance(value, bool):
        raise _invalid(f"`{name}` must be true or false.")
    return bool(value)


def _inputs(params: Fields) -> list[Any]:
    value = _field(params, "inputs")
    if not isinstance(value, list):
        raise _invalid("`inputs` must be a list.")
    return cast("list[Any]", value)


def _count(params: Fields) -> int | None:
    value = _field(params, "max_concurrency")
    if value is not None and (type(value) is not int or value < 1):
        raise _invalid("`max_concurrency` must be a whole number from 1.")
    return value


def _overrides(params: Fields) -> Fields | None:
    value = _field(params, "overrides")
    if value is not None and not isinstance(value, Mapping):
        raise _invalid("`overrides` must be an object.")
    return cast("Fields | None", value)


def _invalid(text: str) -> RpcError:
    return RpcError(RpcCode.INVALID_PARAMS, text)


def _text(error: Exception) -> str:
    # `str(KeyError("x"))` is "'x'".
    return str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
