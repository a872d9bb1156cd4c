"""A limit to how long a stream may say nothing, and to how long it may take at all.

As `asyncio.timeout`, but made for one thing: what arrives costs no more than a look at the clock, for each of thousands
of pieces. The timer looks when something arrived last, and waits for the rest.
"""

from __future__ import annotations

import asyncio
from types import TracebackType


class Silence:
    """While inside, the running task is cancelled when nothing was `heard` for so long; that is a TimeoutError then."""

    __slots__ = ("_cancelling", "_ends_at", "_heard_at", "_idle_s", "_loop", "_task", "_timer", "is_over")

    def __init__(self, idle_s: float, longest_s: float) -> None:
        self._idle_s = idle_s
        self._loop = asyncio.get_running_loop()
        self._heard_at = self._loop.time()
        self._ends_at = self._heard_at + longest_s
        #: Whether the time was up.
        self.is_over = False

    def heard(self) -> None:
        """Something has arrived."""
        self._heard_at = self._loop.time()

    @property
    def is_endless(self) -> bool:
        """Whether it was not silent, but came to no end."""
        return self._loop.time() >= self._ends_at

    def __enter__(self) -> Silence:
        task = asyncio.current_task(self._loop)
        assert task is not None  # noqa: S101  (a coroutine runs in a task)
        self._task = task
        self._cancelling = task.cancelling()
        self._timer = self._loop.call_at(self._due_at(), self._look)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        # Somebody else may have cancelled the task as well: then it is cancelled.
        if self.is_over and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def _due_at(self) -> float:
        return min(self._heard_at + self._idle_s, self._ends_at)

    def _look(self) -> None:
        due_at = self._due_at()
        if self._loop.time() < due_at:
            self._timer = self._loop.call_at(due_at, self._look)
        else:
            self.is_over = True
            self._task.cancel()
