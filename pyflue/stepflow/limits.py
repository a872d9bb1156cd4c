"""How many steps of a run may be in flight, and who is next when one has ended.

Whoever comes from an earlier item of a batch goes first: early items are finished before late ones are begun.
"""

from __future__ import annotations

import asyncio
import heapq
from types import TracebackType


class Limit:
    """Gives out places, the lowest order first."""

    __slots__ = ("_free", "_seq", "_waiting")

    def __init__(self, places: int) -> None:
        self._free = places
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._seq = 0

    def place(self, order: int) -> _Place:
        """`async with limit.place(order):` holds a place."""
        return _Place(self, order)

    @property
    def is_free(self) -> bool:
        return self._free > 0

    def take(self) -> None:
        """Take a free place."""
        self._free -= 1

    def queue(self, order: int) -> asyncio.Future[None]:
        """Done when a place has become this one's."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._seq += 1
        heapq.heappush(self._waiting, (order, self._seq, turn))
        return turn

    def give_back(self) -> None:
        """Give a place to the next, or keep it."""
        while self._waiting:
            turn = heapq.heappop(self._waiting)[2]
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


class _Place:
    __slots__ = ("_limit", "_order")

    def __init__(self, limit: Limit, order: int) -> None:
        self._limit = limit
        self._order = order

    async def __aenter__(self) -> None:
        if self._limit.is_free:
            self._limit.take()
            return
        turn = self._limit.queue(self._order)
        try:
            await turn
        except asyncio.CancelledError:
            # It may have been given the place in the same moment.
            if turn.done() and not turn.cancelled():
                self._limit.give_back()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._limit.give_back()
