"""What components and their servers raise.

StepflowError                       has a JSON-RPC `code` and `data`
├── StepflowProtocolError           a message that does not keep to the protocol
│   └── ServerNotInitializedError   a request before `initialize`
├── StepflowComponentError
│   └── ComponentNotFoundError      no component has this name
├── StepflowValidationError
│   └── InputValidationError        an input that does not fit the type of the component
├── StepflowValueError              a value that cannot be used
├── StepflowExecutionError          a component did not do its work
│   └── CodeCompilationError        code of a user-defined function that cannot be used
└── StepflowRuntimeError            the runtime would not, or could not, do what a component asked of it
    └── BlobNotFoundError           there is no such blob

`StepflowFailed` and `StepflowSkipped` say what a flow came to that a component has run. `SkipStep` is raised by a
component that has nothing to do.

Names and codes as in stepflow-ai/stepflow, `sdks/python/stepflow-server`.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, ClassVar


class ErrorCode(IntEnum):
    """The codes of errors that a component server answers."""

    GENERIC_ERROR = -32000
    COMPONENT_ERROR = -32001
    NOT_INITIALIZED = -32001
    VALIDATION_ERROR = -32002
    EXECUTION_ERROR = -32003
    RUNTIME_ERROR = -32004
    VALUE_ERROR = -32005
    INVALID_REQUEST = -32600
    METHOD_NOT_FOUND = -32601
    INVALID_PARAMS = -32602
    INTERNAL_ERROR = -32603
    PARSE_ERROR = -32700


class StepflowError(Exception):
    """The base of all of them. `data` goes to the runtime with the message, so it must be JSON."""

    default_code: ClassVar[ErrorCode] = ErrorCode.GENERIC_ERROR

    def __init__(self, message: str, code: ErrorCode | None = None, data: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = self.default_code if code is None else code
        self.data: dict[str, Any] = data or {}

    def to_json_rpc_error(self) -> dict[str, Any]:
        """The error as JSON-RPC has it; `data` only if there is any."""
        error: dict[str, Any] = {"code": int(self.code), "message": self.message}
        return {**error, "data": self.data} if self.data else error


class StepflowProtocolError(StepflowError):
    """A message that does not keep to the protocol."""

    default_code = ErrorCode.INVALID_REQUEST


class ServerNotInitializedError(StepflowProtocolError):
    """A request came before `initialize`."""

    default_code = ErrorCode.NOT_INITIALIZED

    def __init__(self) -> None:
        super().__init__("Server not initialized")


class StepflowComponentError(StepflowError):
    """Something is wrong with a component."""

    default_code = ErrorCode.COMPONENT_ERROR


class ComponentNotFoundError(StepflowComponentError):
    """No component has this name."""

    def __init__(self, component_name: str) -> None:
        super().__init__(f"Component '{component_name}' not found", data={"component": component_name})
        self.component_name = component_name


class StepflowValidationError(StepflowError):
    """A value does not fit."""

    default_code = ErrorCode.VALIDATION_ERROR


class InputValidationError(StepflowValidationError):
    """An input does not fit the type of the component."""

    def __init__(self, validation_error: str, input_data: dict[str, Any] | None = None) -> None:
        data = {} if input_data is None else {"input": input_data}
        super().__init__(f"Input validation failed: {validation_error}", data=data)


class StepflowValueError(StepflowError):
    """A value cannot be used."""

    default_code = ErrorCode.VALUE_ERROR


class StepflowExecutionError(StepflowError):
    """A component did not do its work."""

    default_code = ErrorCode.EXECUTION_ERROR


class CodeCompilationError(StepflowExecutionError):
    """The code of a user-defined function cannot be used."""

    def __init__(self, compilation_error: str, code: str | None = None) -> None:
        super().__init__(f"Code compilation failed: {compilation_error}", data={} if code is None else {"code": code})


class StepflowRuntimeError(StepflowError):
    """The runtime would not, or could not, do what a component asked of it."""

    default_code = ErrorCode.RUNTIME_ERROR


class BlobNotFoundError(StepflowRuntimeError):
    """There is no such blob."""

    def __init__(self, blob_id: str) -> None:
        super().__init__(f"Blob '{blob_id}' not found", data={"blob_id": blob_id})
        self.blob_id = blob_id


class StepflowFailed(Exception):
    """A flow that a component has run has failed. `error_code`, `message` and `data` are those of the flow."""

    def __init__(self, error_code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.error_code = error_code
        self.message = message
        self.data = data


class StepflowSkipped(Exception):
    """A flow that a component has run was skipped."""

    def __init__(self, message: str = "Flow execution was skipped") -> None:
        super().__init__(message)
        self.message = message


class SkipStep(Exception):
    """Raised by a component: there is nothing to do, and the step is skipped (in documents that know skipping)."""

    def __init__(self, message: str = "Component requested step skip") -> None:
        super().__init__(message)
        self.message = message
