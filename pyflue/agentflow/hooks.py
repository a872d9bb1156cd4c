"""The events of a run, and the hooks that are told of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

from .exceptions import HookExecutionError
from .models import StepResult, WorkflowResult


@dataclass(slots=True)
class WorkflowStartedEvent:
    """A run has begun, or was resumed."""

    workflow_name: str
    run_id: str
    state: Any
    started_at: datetime


@dataclass(slots=True)
class StepStartedEvent:
    """A step is about to be done; before its approval, once for all its attempts."""

    workflow_name: str
    run_id: str
    step_name: str
    state: Any
    started_at: datetime


@dataclass(slots=True)
class StepFinishedEvent:
    """A step has its final result: succeeded, failed or paused."""

    workflow_name: str
    run_id: str
    step_name: str
    state: Any
    result: StepResult


@dataclass(slots=True)
class WorkflowFinishedEvent:
    """A run has its result, the very object that is returned."""

    workflow_name: str
    run_id: str
    state: Any
    result: WorkflowResult


WorkflowEvent: TypeAlias = WorkflowStartedEvent | StepStartedEvent | StepFinishedEvent | WorkflowFinishedEvent
#: What it returns is ignored. Async hooks are for `arun`, `aresume` and durable runs.
WorkflowHook: TypeAlias = Callable[[Any], Any]


def emit_hooks(hooks: Iterable[WorkflowHook] | None, event: WorkflowEvent) -> None:
    """Tell hooks of an event, in order.

    Raises:
        HookExecutionError: one of them failed; the others are not told.
    """
    for hook in hooks or ():
        try:
            hook(event)
        except Exception as error:
            # A hook is the author's code and may raise anything.
            raise hook_failed(event) from error


def hook_failed(event: object) -> HookExecutionError:
    return HookExecutionError(f"Workflow hook failed while handling {type(event).__name__}.")
