"""What the decorators write down of classes and methods, and `END`. All that defining a workflow needs to import."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias


class _EndSentinel:
    """The type of `END`. There is one of it, also after copying and pickling."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "END"

    def __reduce__(self) -> str:
        return "END"


#: A route's target that ends the workflow.
END = _EndSentinel()
RouteTarget: TypeAlias = "str | _EndSentinel"
ExceptionTypes: TypeAlias = tuple[type[BaseException], ...]


@dataclass(slots=True)
class StepDefinition:
    """What `@step` says of a method. None means: as the workflow says."""

    name: str
    method_name: str
    order: int
    retries: int | None = None
    retry_on: ExceptionTypes | None = None
    retry_delay: float | None = None
    description: str | None = None
    routes: dict[str, RouteTarget] | None = None
    requires_approval: bool = False
    approval_message: str | None = None
    approval_metadata: dict[str, object] | None = None
    retry_backoff: float | None = None
    retry_max_delay_s: float | None = None
    retry_jitter: float | None = None
    #: Limits each attempt.
    timeout_s: float | None = None
    #: How long a durable run, or an async handler, has for the decision.
    approval_timeout_s: float | None = None


def _no_steps() -> list[StepDefinition]:
    return []


@dataclass(slots=True)
class WorkflowDefinition:
    """What `@workflow` says of a class, and its steps in order."""

    name: str
    steps: list[StepDefinition] = field(default_factory=_no_steps)
    retries: int = 0
    retry_on: ExceptionTypes = ()
    retry_delay: float = 0.0
    retry_backoff: float = 1.0
    retry_max_delay_s: float | None = None
    retry_jitter: float = 0.0
    #: Limits a run as a whole.
    timeout_s: float | None = None
    #: Called with each event of each run, before those given to `run`.
    hooks: tuple[Callable[[Any], Any], ...] = ()
    #: The type of the state, for durable runs; None if the class body or its module say it.
    state: Any = None
