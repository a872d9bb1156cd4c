"""The door between runs and agents: what `ctx.init` calls, implemented by the agents room.

The engine knows no more of agents than this.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from .calls import Calls
    from .context import ContextBase


class AgentHost(Protocol):
    """Makes harnesses for the runs of one engine."""

    async def init(self, ctx: ContextBase[Any], calls: Calls, key: str, agent: Any, options: dict[str, Any]) -> Any:
        """The harness of an agent in a run. `key` tells it from the other harnesses of that run, at every replay."""
        ...

    def blocking(self, harness: Any, block: Callable[[Coroutine[Any, Any, Any]], Any]) -> Any:
        """A harness for a workflow that is not async; `block` waits for a coroutine in its thread."""
        ...

    def end(self, calls: Calls) -> Coroutine[Any, Any, None] | None:
        """What there is to do when an attempt at a run is over; None if it had no agents."""
        ...

    async def close(self) -> None:
        """The engine has stopped: let go of everything."""
        ...
