"""When a step whose component failed is tried again: `onError: {action: retry}` and `retry` in the config.

Kinds and defaults as in stepflow-ai/stepflow 0.13 (`retry.backoff`): Fibonacci from 1 s to 10 s.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class BackoffKind(StrEnum):
    """How pauses grow."""

    FIBONACCI = "fibonacci"
    EXPONENTIAL = "exponential"
    CONSTANT = "constant"


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """The pauses between attempts."""

    kind: BackoffKind = BackoffKind.FIBONACCI
    #: The first pause; with `CONSTANT` every one.
    min_delay_s: float = 1.0
    max_delay_s: float = 10.0
    #: What each pause is multiplied by, with `EXPONENTIAL`.
    factor: float = 2.0

    def delay_s(self, failed: int) -> float:
        """Seconds to wait after the `failed`-th attempt has failed."""
        match self.kind:
            case BackoffKind.CONSTANT:
                return self.min_delay_s
            case BackoffKind.EXPONENTIAL:
                times = self.factor ** min(failed - 1, 64)
            case BackoffKind.FIBONACCI:
                times = float(_fibonacci(min(failed, 64)))
        return min(self.min_delay_s * times, self.max_delay_s)


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a step is tried. Has the form of the engine's `RetryPolicy`."""

    max_attempts: int
    backoff: Backoff

    def delay_after(self, attempt: int, error: Exception) -> float | None:
        """Seconds until the next attempt; None if there is none."""
        if attempt >= self.max_attempts or not getattr(error, "is_retryable", False):
            return None
        return self.backoff.delay_s(attempt)


def _fibonacci(number: int) -> int:
    one, two = 1, 1
    for _ in range(number - 1):
        one, two = two, one + two
    return one
