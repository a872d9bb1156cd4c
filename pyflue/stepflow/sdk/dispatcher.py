"""What is done with a message, whatever way it came.

Called by `stdio.py` and `http.py`, which say where a component runs and where answers go. Each request is either
answered at once (everything but `components/execute`) or becomes a `Call`. Whatever a component raises becomes an
answer: the server goes on. Only `SystemExit` passes through, because a component that ends the process means to.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, Raw

from . import messages
from .components import ComponentEntry, Components, path_values
from .context import Link, StepflowContext
from .exceptions import (
    ErrorCode,
    InputValidationError,
    ServerNotInitializedError,
    SkipStep,
    StepflowError,
    StepflowFailed,
)

PROTOCOL_VERSION = 1

_Params = TypeVar("_Params")


class Call:
    """One call of a component."""

    __slots__ = ("entry", "id", "in_path", "params")

    def __init__(
        self,
        request_id: messages.RequestId,
        entry: ComponentEntry,
        in_path: dict[str, str],
        params: messages.ExecuteParams,
    ) -> None:
        self.id = request_id
        self.entry = entry
        self.in_path = in_path
        self.params = params


class Dispatcher:
    """The protocol of one server; keeps nothing but whether it was initialised."""

    def __init__(self, components: Components, *, session_id: str | None = None, is_initialized: bool = False) -> None:
        self._components = components
        self._session_id = session_id
        self.is_initialized = is_initialized
        self._methods: dict[str, Callable[[messages.Message], Any]] = {
            "initialize": self._initialize,
            "components/list": self._list,
            "components/info": self._info,
            "components/infer_schema": self._infer,
        }

    def read(self, data: bytes) -> messages.Message | bytes:
        """A message; what is none becomes the answer that says so."""
        try:
            message = messages.read_message(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            return messages.refusal(data, error)
        if message.is_request and message.id is None:
            return messages.failure(None, ErrorCode.INVALID_REQUEST, "Invalid request: its id is null")
        if message.method is UNSET and (message.id is UNSET or (message.result is UNSET and message.error is UNSET)):
            text = "Invalid request: it has neither a method, nor a result or an error with an id"
            given = message.id if isinstance(message.id, (int, str)) else None
            return messages.failure(given, ErrorCode.INVALID_REQUEST, text)
        return message

    def note(self, message: messages.Message) -> None:
        """Take a notification. Those that mean nothing to us are none of our business."""
        if message.method == "initialized":
            self.is_initialized = True

    def answer(self, message: messages.Message) -> bytes | Call:
        """The answer to a request, or the call that gives it."""
        request_id = message.id
        assert isinstance(request_id, (int, str))  # noqa: S101  (`read` has seen to it)
        try:
            if message.method == "components/execute":
                params = _read(messages.ExecuteParams, message.params)
                if not self.is_initialized:
                    raise ServerNotInitializedError
                entry, in_path = self._components.find(params.component)
                return Call(request_id, entry, in_path, params)
            method = self._methods.get(message.method) if isinstance(message.method, str) else None
            if method is None:
                text = f"Method not found: {str(message.method)[:200]}"
                return messages.failure(request_id, ErrorCode.METHOD_NOT_FOUND, text)
            return messages.success(request_id, method(message))
        except _BadParams as error:
            return messages.failure(request_id, ErrorCode.INVALID_PARAMS, f"Invalid params: {error}")
        except StepflowError as error:
            return messages.failure(request_id, error.code, error.message, error.data)
        except Exception as error:  # noqa: BLE001  (an answer is owed, whatever went wrong with it)
            traceback.print_exc(file=sys.stderr)
            return messages.failure(request_id, ErrorCode.GENERIC_ERROR, _told(error))

    def run(self, call: Call, link: Link) -> bytes:
        """The answer of a component that is a plain function."""
        try:
            value, more = self._arguments(call, link)
            return self._returned(call, call.entry.function(value, **more))
        except SystemExit:
            raise
        except BaseException as error:  # noqa: BLE001  (a component may raise anything; this is its boundary)
            return _failed(call, error)

    async def run_async(self, call: Call, link: Link) -> bytes:
        """The answer of a component that is a coroutine function. If this is cancelled, so is the component."""
        import asyncio

        try:
            value, more = self._arguments(call, link)
            return self._returned(call, await call.entry.function(value, **more))
        except SystemExit:
            raise
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return _failed(call, error)  # the component has raised it
        except BaseException as error:  # noqa: BLE001  (as in `run`)
            return _failed(call, error)

    def _arguments(self, call: Call, link: Link) -> tuple[Any, dict[str, Any]]:
        entry, params = call.entry, call.params
        more = path_values(entry, call.in_path) if call.in_path else {}
        if entry.expects_context:
            more["context"] = StepflowContext(
                link, params.observability, attempt=params.attempt, session_id=self._session_id
            )
        return entry.input_shape.load(params.input), more

    def _returned(self, call: Call, output: Any) -> bytes:
        return messages.success(call.id, messages.Output(output))

    def _initialize(self, message: messages.Message) -> Any:
        _read(messages.InitializeParams, message.params)
        self.is_initialized = True
        return {"server_protocol_version": PROTOCOL_VERSION}

    def _list(self, message: messages.Message) -> Any:
        self._check_initialized()
        return {"components": [entry.info() for entry in list(self._components.entries.values())]}

    def _info(self, message: messages.Message) -> Any:
        params = _read(messages.InfoParams, message.params)
        self._check_initialized()
        return {"info": self._components.find(params.component)[0].info()}

    def _infer(self, message: messages.Message) -> Any:
        params = _read(messages.InferParams, message.params)
        self._check_initialized()
        return {"output_schema": self._components.find(params.component)[0].output_schema()}

    def _check_initialized(self) -> None:
        if not self.is_initialized:
            raise ServerNotInitializedError


class _BadParams(Exception):
    """Params that are not those of the method."""


_READERS: dict[type, msgspec.json.Decoder[Any]] = {
    kind: msgspec.json.Decoder(kind)
    for kind in (messages.ExecuteParams, messages.InitializeParams, messages.InfoParams, messages.InferParams)
}


def _read(kind: type[_Params], params: Raw | msgspec.UnsetType) -> _Params:
    try:
        return _READERS[kind].decode(b"{}" if isinstance(params, msgspec.UnsetType) else params)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _BadParams(str(error)) from error


def _failed(call: Call, error: BaseException) -> bytes:
    """The answer to a call whose component has raised something."""
    if isinstance(error, SkipStep):
        # What releases of the original that know skipping answer: the outcome in the place of the output.
        return messages.success(
            call.id, messages.Output({"outcome": "skipped", "reason": messages.mend(str(error.message))})
        )
    if isinstance(error, InputValidationError):
        return messages.failure(call.id, error.code, error.message, error.data)
    traceback.print_exception(error, file=sys.stderr)
    data: Any = None
    if isinstance(error, StepflowError):
        data = error.data
    elif isinstance(error, StepflowFailed):
        data = {"code": error.error_code, "message": messages.mend(error.message)}
        if error.data is not None:
            data["data"] = error.data
    return messages.failure(call.id, ErrorCode.EXECUTION_ERROR, f"Component execution failed: {_told(error)}", data)


def _told(error: BaseException) -> str:
    """What an exception says; its kind if it says nothing, and before a key that is not there: `KeyError: 'name'`."""
    try:
        text, kind = str(error), type(error).__name__
        return f"{kind}: {text}" if text and isinstance(error, KeyError) else text or kind
    except Exception:  # noqa: BLE001  (its `__str__` is a component's, too)
        return type(error).__name__
