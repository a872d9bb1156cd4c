"""How long callers wait for an outcome: until it is there, for `server.wait_s`, or until the server stops.

Shared by the routes that start work and let their callers wait for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from ..engine import RunHandle
from ..errors import RunStopped
from ..journal import Outcome

T = TypeVar("T")


class Patience:
    """Those who wait."""

    def __init__(self, wait_s: float) -> None:
        self._wait_s = wait_s
        self._waits: set[asyncio.Timeout] = set()

    def end(self) -> None:
        """Let nobody wait any longer: what they wait for goes on after the restart."""
        for wait in list(self._waits):
            wait.reschedule(0)

    async def outcome(self, handle: RunHandle) -> Outcome | None:
        """How a run ended; None if that takes longer than a caller may wait here."""
        outcome = await self.bounded(handle.outcome())
        if outcome is None:
            # The run may have started before its record was on disk: without that there is nothing to answer 202 for.
            await handle.accepted()
        return outcome

    async def bounded(self, work: Coroutine[Any, Any, T]) -> T | None:
        """What `work` returns; None if that takes too long."""
        try:
            async with asyncio.timeout(self._wait_s) as wait:
                self._waits.add(wait)
                try:
                    return await work
                finally:
                    self._waits.discard(wait)
        except (TimeoutError, RunStopped):
            return None
