"""When a failed step is tried again. Asked by the executor; knows no runs."""

from __future__ import annotations

import time
from dataclasses import dataclass

from .definitions import ExceptionTypes, StepDefinition, WorkflowDefinition

#: A float overflows long before a delay with a larger exponent would matter.
_MOST_DOUBLINGS = 64


@dataclass(slots=True)
class RetryPolicy:
    """What counts for one step: its own values, and the workflow's where it has none.

    The n-th failed attempt is followed by a pause of `delay * backoff ** (n - 1)` seconds, `max_delay_s` at most,
    changed at random by up to the share `jitter` of it.
    """

    retries: int
    retry_on: ExceptionTypes
    delay: float
    backoff: float = 1.0
    max_delay_s: float | None = None
    jitter: float = 0.0

    def delay_after(self, attempt: int) -> float:
        """Seconds between the `attempt`-th attempt and the next one."""
        delay = self.delay
        if self.backoff != 1.0:
            delay *= self.backoff ** min(attempt - 1, _MOST_DOUBLINGS)
        if self.max_delay_s is not None:
            delay = min(delay, self.max_delay_s)
        if self.jitter:
            import random

            delay *= 1 + random.uniform(-self.jitter, self.jitter)  # noqa: S311  (spreads load, no secret)
        return delay


def resolve_retry_policy(workflow_definition: WorkflowDefinition, step_definition: StepDefinition) -> RetryPolicy:
    """The policy of a step."""
    flow, step = workflow_definition, step_definition
    return RetryPolicy(
        flow.retries if step.retries is None else step.retries,
        flow.retry_on if step.retry_on is None else step.retry_on,
        flow.retry_delay if step.retry_delay is None else step.retry_delay,
        flow.retry_backoff if step.retry_backoff is None else step.retry_backoff,
        flow.retry_max_delay_s if step.retry_max_delay_s is None else step.retry_max_delay_s,
        flow.retry_jitter if step.retry_jitter is None else step.retry_jitter,
    )


def should_retry(policy: RetryPolicy, error: Exception, attempt: int) -> bool:
    """Whether the `attempt`-th attempt, which failed with `error`, is followed by another one."""
    return attempt <= policy.retries and bool(policy.retry_on) and isinstance(error, policy.retry_on)


def sleep_for_retry(delay: float) -> None:
    """Block for the pause between two attempts."""
    if delay > 0:
        time.sleep(delay)
