"""Lets others on the event loop have their turn while flows go on without ever waiting for anything.

Steps that only look at values (`noop`, `map` of such, `iterate`) never give the event loop back by themselves, and of
ten thousand items each may have something to do at the same moment. Called by `scheduler.py` before each step, by
whatever flow it belongs to: all flows of a loop share its turns, first come, first served.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque

#: How long steps may follow one another before others get their turn.
_LONGEST_S = 0.005
#: How many go on in one turn; each but the first does one step at least.
_AT_ONCE = 32


class Turns:
    """The turns of one event loop."""

    __slots__ = ("_loop", "_since", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._since = time.monotonic()
        self._waiting: deque[asyncio.Future[None]] = deque()

    def belongs_to(self, loop: asyncio.AbstractEventLoop) -> bool:
        return self._loop is loop

    @property
    def is_over(self) -> bool:
        """Whether others are to go on first."""
        return time.monotonic() - self._since > _LONGEST_S

    async def next(self) -> None:
        """Wait for the next turn."""
        turn: asyncio.Future[None] = self._loop.create_future()
        if not self._waiting:
            self._loop.call_soon(self._begin)
        self._waiting.append(turn)
        await turn

    def _begin(self) -> None:
        self._since = time.monotonic()
        for _ in range(min(_AT_ONCE, len(self._waiting))):
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
        if self._waiting:
            self._loop.call_soon(self._begin)


class _Current(threading.local):
    turns: Turns | None = None


_current = _Current()


def turns() -> Turns:
    """The turns of the running event loop."""
    loop = asyncio.get_running_loop()
    found = _current.turns
    if found is None or not found.belongs_to(loop):
        # A thread has one loop at a time; those of an earlier one are of no use to anybody.
        found = _current.turns = Turns(loop)
    return found
