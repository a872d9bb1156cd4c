"""Another try for a node that failed: `"retry": {"maxAttempts": 3, "delayMs": 500, "backoff": 2}` in its data."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from .document import Node, as_object
from .exceptions import NodeError

T = TypeVar("T")

_MOST_ATTEMPTS = 100
_LONGEST_PAUSE_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRetry:
    """How often a node is tried, and how long the pauses are."""

    max_attempts: int
    delay_s: float
    backoff: float

    async def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do some work until it succeeds or the attempts are used up."""
        attempt = 1
        while True:
            try:
                return await work()
            except Exception:
                # Whatever the node's executor raises.
                if attempt >= self.max_attempts:
                    raise
            await asyncio.sleep(min(self.delay_s * self.backoff ** min(attempt - 1, 64), _LONGEST_PAUSE_S))
            attempt += 1


def retry_of(node: Node) -> NodeRetry | None:
    """The retries that a node's author wants.

    Raises:
        NodeError: they cannot be meant.
    """
    value = node.data.get("retry")
    if value is None:
        return None
    fields = as_object(value)
    attempts, delay_ms, backoff = fields.get("maxAttempts", 3), fields.get("delayMs", 1000), fields.get("backoff", 2)
    numbers = all(isinstance(number, (int, float)) and not isinstance(number, bool) for number in (delay_ms, backoff))
    is_count = isinstance(attempts, int) and not isinstance(attempts, bool) and 1 <= attempts <= _MOST_ATTEMPTS
    if not is_count or not numbers or delay_ms < 0 or backoff < 1:
        raise NodeError(f'"retry" must be like {{"maxAttempts": 3, "delayMs": 1000, "backoff": 2}}, got {value!r}')
    return NodeRetry(max_attempts=attempts, delay_s=delay_ms / 1000, backoff=float(backoff))
