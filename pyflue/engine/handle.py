"""A submitted run, as its submitter sees it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ..journal import Accepted, Outcome
from .drive import Drive

if TYPE_CHECKING:
    from .embedded import EmbeddedEngine


class Handle:
    """Implements `RunHandle`."""

    def __init__(
        self,
        engine: EmbeddedEngine,
        run_id: str,
        drive: Drive | None,
        *,
        is_repeat: bool = False,
        accepted: asyncio.Future[Accepted] | None = None,
    ) -> None:
        self.run_id = run_id
        self.is_repeat = is_repeat
        self._engine = engine
        self._drive = drive
        self._accepted = accepted

    async def accepted(self) -> None:
        if self._accepted is not None:
            await asyncio.shield(self._accepted)

    async def outcome(self) -> Outcome:
        if self._drive is not None:
            return await self._drive.when_over()
        run = await self._engine.wait_while_running(self.run_id)
        return Outcome(status=run.status, result=run.result, error=run.error)
