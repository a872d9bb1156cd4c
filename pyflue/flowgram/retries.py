"""Another try for a node that failed: `"retry": {"maxAttempts": 3, "delayMs": 500, "backoff": 2}` in its data.

An http node may have `"timeout": {"retryTimes": 2}` instead, for requests that nobody answers.
"""

from __future__ import annotations

from asyncio import sleep
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from .document import Node, as_object
from .exceptions import NoAnswer, NodeError

T = TypeVar("T")

_MOST_ATTEMPTS = 100
_LONGEST_PAUSE_S = 3600.0
_MOST_REQUESTS = 11


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRetry:
    """How often a node is tried, and how long the pauses are."""

    max_attempts: int
    delay_s: float
    backoff: float
    #: What another try may help against.
    retry_on: type[Exception] = Exception

    async def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do some work until it succeeds or the attempts are used up."""
        attempt = 1
        while True:
            try:
                return await work()
            except Exception as error:
                # Whatever the node's executor raises.
                if attempt >= self.max_attempts or not isinstance(error, self.retry_on):
                    raise
            await sleep(min(self.delay_s * self.backoff ** min(attempt - 1, 64), _LONGEST_PAUSE_S))
            attempt += 1


def retry_of(node: Node) -> NodeRetry | None:
    """The retries that a node's author wants.

    Raises:
        NodeError: they cannot be meant.
    """
    value = node.data.get("retry")
    if value is None:
        return None if node.type != "http" else _retry_of_request(node)
    fields = as_object(value)
    attempts, delay_ms, backoff = fields.get("maxAttempts", 3), fields.get("delayMs", 1000), fields.get("backoff", 2)
    numbers = all(isinstance(number, (int, float)) and not isinstance(number, bool) for number in (delay_ms, backoff))
    is_count = isinstance(attempts, int) and not isinstance(attempts, bool) and 1 <= attempts <= _MOST_ATTEMPTS
    if not is_count or not numbers or delay_ms < 0 or backoff < 1:
        raise NodeError(f'"retry" must be like {{"maxAttempts": 3, "delayMs": 1000, "backoff": 2}}, got {value!r}')
    return NodeRetry(max_attempts=attempts, delay_s=delay_ms / 1000, backoff=float(backoff))


def _retry_of_request(node: Node) -> NodeRetry | None:
    times = as_object(node.data.get("timeout")).get("retryTimes")
    if times is None or times == 0:
        return None
    if isinstance(times, bool) or not isinstance(times, (int, float)) or times < 0:
        raise NodeError(f'HTTP "retryTimes" must be a number from 0, got {times!r}')
    attempts = int(min(times + 1, _MOST_REQUESTS))
    return NodeRetry(max_attempts=attempts, delay_s=1.0, backoff=2.0, retry_on=NoAnswer)
