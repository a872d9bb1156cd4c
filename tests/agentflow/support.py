"""What tests of step classes share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyflue.agentflow import StepResult, WorkflowResult
from pyflue.agentflow.hooks import WorkflowEvent


def shape(result: WorkflowResult) -> list[tuple[str, str]]:
    """Steps and how they stand."""
    return [(step.step_name, step.status.value) for step in result.steps]


def step_of(result: WorkflowResult, name: str) -> StepResult:
    return next(step for step in result.steps if step.step_name == name)


def error_of(result: WorkflowResult) -> tuple[str, str]:
    """Class and sentence of a result's error."""
    return type(result.error).__name__, str(result.error)


class Seen:
    """A hook that keeps what it is told, and fails at one kind of event if asked to."""

    def __init__(self, fail_at: str = "") -> None:
        self.events: list[Any] = []
        self._fail_at = fail_at

    def __call__(self, event: WorkflowEvent) -> None:
        self.events.append(event)
        if type(event).__name__ == self._fail_at:
            raise ValueError(self._fail_at)

    @property
    def told(self) -> list[tuple[str, str]]:
        """Kinds of events and what they are about."""
        return [
            (type(event).__name__.removesuffix("Event"), getattr(event, "step_name", event.workflow_name))
            for event in self.events
        ]


def without_times(told: Any) -> Any:
    """A JSON result without what differs from run to run."""
    if isinstance(told, dict):
        return {
            name: without_times(value)
            for name, value in told.items()
            if name not in {"started_at", "finished_at", "duration_ms", "run_id"}
        }
    return [without_times(item) for item in told] if isinstance(told, list) else told


def raising(error: BaseException) -> Callable[..., Any]:
    def fail(*_: Any) -> Any:
        raise error

    return fail
