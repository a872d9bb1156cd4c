"""The slots of an engine: how many runs may run at once.

A run that waits gives its slot back. When it is woken it takes one again, before any queued run does. Asked by the
engine, on its event loop; knows nothing of what a run is.
"""

from __future__ import annotations

import asyncio
from collections import deque


class Slots:
    """Counts what runs."""

    def __init__(self, limit: int | None) -> None:
        """`limit` None: as many as come (an engine that drives only what it is given)."""
        self._limit = limit
        self._woken: deque[asyncio.Future[None]] = deque()
        #: How many are taken.
        self.taken = 0

    @property
    def free(self) -> int:
        """How many more runs may be started now; none while a woken one waits."""
        if self._limit is None:
            return 2**31
        return 0 if self._woken else max(0, self._limit - self.taken)

    def take(self) -> None:
        """Take one, whatever the limit says: whoever asks has looked at `free`, or has taken a run already."""
        self.taken += 1

    def give_back(self) -> bool:
        """Give one back; whether a queued run may have it."""
        self.taken -= 1
        while self._woken and self._may_take():
            future = self._woken.popleft()
            if not future.done():
                self.taken += 1
                future.set_result(None)
        return self.free > 0

    def request(self) -> asyncio.Future[None] | None:
        """Take one for a run that was woken; None if it has it now, else it has it when the future is done.

        Those who ask first get it first. Who no longer wants it cancels the future.
        """
        if self._may_take() and not self._woken:
            self.taken += 1
            return None
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._woken.append(future)
        return future

    def _may_take(self) -> bool:
        return self._limit is None or self.taken < self._limit
