"""How many steps of a run may be in flight, and who is next when one has ended.

Whoever comes from an earlier item of a batch goes first: early items are finished before late ones are begun.
"""

from __future__ import annotations

import asyncio
import heapq


class Limit:
    """Gives out places, the lowest order first.

    Whoever holds one gives it back: `take` where one `is_free`, or else `wait`, and then `give_back`.
    """

    __slots__ = ("_free", "_seq", "_waiting")

    def __init__(self, places: int) -> None:
        self._free = places
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._seq = 0

    @property
    def is_free(self) -> bool:
        return self._free > 0

    def take(self) -> None:
        """Take a free place."""
        self._free -= 1

    async def wait(self, order: int) -> None:
        """Take the place that the next one gives back."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._seq += 1
        heapq.heappush(self._waiting, (order, self._seq, turn))
        try:
            await turn
        except asyncio.CancelledError:
            # It may have been given the place in the same moment.
            if turn.done() and not turn.cancelled():
                self.give_back()
            raise

    def give_back(self) -> None:
        """Give a place to the next, or keep it."""
        if self._waiting:
            # Not at once: whoever gives one back may have a step that is ready now, and is in line by then.
            asyncio.get_running_loop().call_soon(self._hand_on)
        else:
            self._free += 1

    def _hand_on(self) -> None:
        while self._waiting:
            turn = heapq.heappop(self._waiting)[2]
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
