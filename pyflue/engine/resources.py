"""Things that runs share and that live as long as the engine: processes of component servers, pools of connections.

A dialect asks for one by a key (`Calls.resources`, `Engine.resources`) and says how it is made; the engine closes all
of them when its runs have stopped. Knows nothing about what they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from typing import Any, Protocol, TypeVar, cast

from ..errors import EngineStopping
from ..logs import logger

log = logger("pyflue.engine")


class Resource(Protocol):
    """Something that has to be let go of."""

    async def close(self) -> None: ...


R = TypeVar("R", bound=Resource)


class Resources:
    """What was made, by key. Used on the engine's event loop only."""

    def __init__(self) -> None:
        self._made: dict[Hashable, Resource] = {}
        self._is_closed = False

    def get(self, key: Hashable, make: Callable[[], R]) -> R:
        """The resource of a key, made now if it is not there yet. `make` does nothing that takes a while.

        Raises:
            EngineStopping: all resources have been closed.
        """
        found = self._made.get(key)
        if found is None:
            if self._is_closed:
                raise EngineStopping
            found = self._made[key] = make()
        return cast("R", found)

    def forget(self, key: Hashable) -> Resource | None:
        """Take a resource out, to be closed by the caller."""
        return self._made.pop(key, None)

    async def close(self) -> None:
        """Close all of them, at once."""
        self._is_closed = True
        made = list(self._made.values())
        self._made.clear()
        results: list[Any] = await asyncio.gather(*(one.close() for one in made), return_exceptions=True)
        for one, result in zip(made, results, strict=True):
            if isinstance(result, Exception):
                log.error("resource_not_closed", resource=type(one).__name__, exc_info=result)
