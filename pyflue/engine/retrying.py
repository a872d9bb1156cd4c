"""When a failed step is tried again. Made by authors of workflows, asked by `steps.py`; knows no journal."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often, after how long and after which exceptions a step is tried again.

    The n-th attempt is followed by a pause of `delay_s * backoff ** (n - 1)` seconds, `max_delay_s` at most, changed at
    random by up to the share `jitter` of it. What is in `give_up_on` is never tried again, even if it is in `retry_on`.
    """

    #: Attempts in all, the first one included.
    max_attempts: int = 3
    delay_s: float = 1.0
    backoff: float = 2.0
    max_delay_s: float = 60.0
    jitter: float = 0.1
    retry_on: tuple[type[Exception], ...] = (Exception,)
    give_up_on: tuple[type[Exception], ...] = ()

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise ValueError(f"RetryPolicy(max_attempts={self.max_attempts!r}): there is at least one attempt.")
        if not (self.delay_s >= 0 and self.max_delay_s >= 0):
            raise ValueError("RetryPolicy: delay_s and max_delay_s are seconds, 0 or more.")
        if not self.backoff >= 1:
            raise ValueError(f"RetryPolicy(backoff={self.backoff!r}): it multiplies the delay, so it is 1 or more.")
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"RetryPolicy(jitter={self.jitter!r}): it is a share of the delay, from 0 to 1.")

    def delay_after(self, attempt: int, error: Exception) -> float | None:
        """Seconds until the next attempt after the `attempt`-th failed with `error`; None if there is none."""
        if attempt >= self.max_attempts or isinstance(error, self.give_up_on) or not isinstance(error, self.retry_on):
            return None
        # The exponent is bounded, because a float overflows long before the delay would matter.
        delay_s = min(self.delay_s * self.backoff ** min(attempt - 1, 64), self.max_delay_s)
        return delay_s * (1 + random.uniform(-self.jitter, self.jitter))  # noqa: S311  (spreads load, no secret)


#: A step without a policy: one attempt.
ONCE = RetryPolicy(max_attempts=1)


def policy_of(retry: RetryPolicy | int | None) -> RetryPolicy:
    """The policy that `retry=` means: one, a number of attempts with the usual pauses, or None for one attempt."""
    if retry is None:
        return ONCE
    return RetryPolicy(max_attempts=retry) if isinstance(retry, int) else retry
