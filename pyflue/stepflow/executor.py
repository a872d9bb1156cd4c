"""What runs flows, whether it is in this process or elsewhere, and what it answers.

`StepflowRuntime` (`runtime.py`) and `StepflowClient` (`client.py`) are executors; whoever takes a `StepflowExecutor`
works with both. Imports nothing of either. Names as in stepflow-ai/stepflow, `sdks/python/stepflow-core`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

#: A file, or a document as a JSON value.
FlowSource: TypeAlias = str | Path | Mapping[str, Any]


class FlowResultStatus(StrEnum):
    """What a flow came to."""

    SUCCESS = "success"
    FAILED = "failed"
    SKIPPED = "skipped"  #: only flows that use the older keys for skipping


class RestartPolicy(StrEnum):
    """Whether a server is started again when it has ended."""

    NEVER = "never"
    ON_FAILURE = "on_failure"  #: if its exit code was not 0
    ALWAYS = "always"


@dataclass(frozen=True, slots=True)
class FlowError:
    """Why a flow failed."""

    code: int
    message: str
    details: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class FlowResult:
    """What a flow came to. Made with `success`, `failed` or `skipped`."""

    status: FlowResultStatus
    #: An object; any other value that a flow gives is under `value`.
    output: dict[str, Any] | None = None
    error: FlowError | None = None
    skipped_reason: str | None = None

    @classmethod
    def success(cls, output: dict[str, Any]) -> FlowResult:
        return cls(FlowResultStatus.SUCCESS, output=output)

    @classmethod
    def failed(cls, code: int, message: str, details: dict[str, Any] | None = None) -> FlowResult:
        return cls(FlowResultStatus.FAILED, error=FlowError(code, message, details))

    @classmethod
    def skipped(cls, reason: str | None = None) -> FlowResult:
        return cls(FlowResultStatus.SKIPPED, skipped_reason=reason)

    @property
    def is_success(self) -> bool:
        return self.status is FlowResultStatus.SUCCESS

    @property
    def is_failed(self) -> bool:
        return self.status is FlowResultStatus.FAILED

    @property
    def is_skipped(self) -> bool:
        return self.status is FlowResultStatus.SKIPPED


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One finding about a flow."""

    level: str  #: `fatal`, `error` or `warning`
    message: str
    location: str | None = None


@dataclass(frozen=True, slots=True)
class ValidationResult:
    """What is to be said about a flow."""

    valid: bool
    diagnostics: list[Diagnostic] = field(default_factory=list[Diagnostic])

    @property
    def errors(self) -> list[Diagnostic]:
        """What keeps it from running, or makes it fail."""
        return [found for found in self.diagnostics if found.level in ("error", "fatal")]

    @property
    def warnings(self) -> list[Diagnostic]:
        return [found for found in self.diagnostics if found.level == "warning"]


@dataclass(frozen=True, slots=True)
class ComponentInfo:
    """A component that flows can use, by the path that they use."""

    path: str
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    output_schema: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class LogEntry:
    """A line of a server's log."""

    timestamp: datetime
    level: str
    message: str
    target: str | None = None
    trace_id: str | None = None
    span_id: str | None = None
    run_id: str | None = None
    step_id: str | None = None
    extra: dict[str, Any] = field(default_factory=dict[str, Any])


@runtime_checkable
class StepflowExecutor(Protocol):
    """What runs flows. `input` is the input of the flow, `overrides` changes to its steps, by their ids."""

    @property
    def url(self) -> str:
        """Where its HTTP API is."""
        ...

    async def run(
        self,
        flow: FlowSource,
        input: dict[str, Any],  # noqa: A002  (the name of the original)
        overrides: dict[str, Any] | None = None,
    ) -> FlowResult:
        """Run a flow and wait for what it comes to."""
        ...

    async def submit(
        self,
        flow: FlowSource,
        input: dict[str, Any],  # noqa: A002  (the name of the original)
        overrides: dict[str, Any] | None = None,
    ) -> str:
        """Start a flow and go on; the id of the run."""
        ...

    async def get_result(self, run_id: str) -> FlowResult:
        """What a run came to, as soon as it has ended."""
        ...

    async def validate(self, flow: FlowSource) -> ValidationResult:
        """What is to be said about a flow, without running it."""
        ...

    async def list_components(self) -> list[ComponentInfo]:
        """All components that flows can use."""
        ...
