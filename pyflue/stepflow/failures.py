"""What went wrong in a component, as the flow failure that expressions and callers see.

The shape of `data.stack` is that of stepflow-ai/stepflow (`crates/stepflow-core/src/error_stack.rs`): layers, outermost
first, each `{"error", "attachments"?}`. What differs: the component's own words stand in the message, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from .outcome import ErrorCode, Failed
from .plugins.port import ComponentFailed
from .variables import REDACTED


class FlowStuck(Exception):
    """Steps wait for one another, so the run cannot go on. `steps` are their ids."""

    def __init__(self, steps: Sequence[str]) -> None:
        shown = ", ".join(repr(step) for step in steps[:10])
        super().__init__(f"The flow cannot go on: steps {shown} wait for one another.")
        self.steps = tuple(steps)


def redacted(error: ComponentFailed, secrets: Sequence[str]) -> ComponentFailed:
    """The same failure without these texts; components like to repeat what they were given."""

    def clean(value: Any) -> Any:
        if isinstance(value, str):
            for secret in secrets:
                value = value.replace(secret, REDACTED)
            return value
        if isinstance(value, Mapping):
            return {key: clean(item) for key, item in cast("Mapping[str, Any]", value).items()}
        return [clean(item) for item in cast("list[Any]", value)] if isinstance(value, list) else value

    failure = error.failure
    return ComponentFailed(
        clean(error.message),
        failure=None if failure is None else Failed(failure.code, clean(failure.message), clean(failure.data)),
        attachments=[clean(text) for text in error.attachments],
        is_retryable=error.is_retryable,
    )


def component_failure(step_id: str, component: str, error: ComponentFailed) -> Failed:
    """The failure of a step whose component failed."""
    if error.failure is not None:
        return error.failure
    top = f'step "{step_id}" failed'
    inner: dict[str, Any] = {"error": error.message}
    if error.attachments:
        inner["attachments"] = list(error.attachments)
    attachments = [f"Component: {component}", f"Component execution failed for step '{step_id}'"]
    stack = [{"error": top, "attachments": attachments}, inner]
    return Failed(ErrorCode.INTERNAL, f"{top}: {error.message}", {"stack": stack})


def routing_failure(step_id: str, error: ComponentFailed) -> Failed:
    """The failure of a step whose component is nowhere to be found."""
    attachments = [f"Internal error executing step '{step_id}'", error.message, *error.attachments]
    stack = [{"error": "error routing component", "attachments": attachments}]
    return Failed(ErrorCode.INTERNAL, f"error routing component: {error.message}", {"stack": stack})
