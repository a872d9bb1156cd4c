"""The upkeep of a program that a plugin talks to: started by the first who needs it, for all; started again when it has
ended; with pauses if it keeps ending before it has been of any use.

`Upkeep` is that; `Link` is one life of a program that speaks JSON-RPC through its pipes. Used by `stdio.py`, `mcp.py`
and `subprocess.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar

from .. import protocol
from ..jsonrpc import Handler, Peer, RpcLimits, own_task
from .port import ComponentFailed
from .process import GRACE_S, Process, Program

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0


class Life(Protocol):
    """A started program."""

    @property
    def is_over(self) -> bool: ...
    async def end(self, grace_s: float) -> None: ...


L = TypeVar("L", bound=Life)


class Upkeep(Generic[L]):
    """Keeps one program going for a plugin. Belongs to one event loop."""

    def __init__(self, plugin: str, start: Callable[[], Awaitable[L]], *, grace_s: float = GRACE_S) -> None:
        """`start` starts the program and says when it can be used; it raises `ComponentFailed`, and leaves nothing."""
        self._plugin = plugin
        self._start_one = start
        self._grace_s = grace_s
        self._life: L | None = None
        self._starting: asyncio.Task[L] | None = None
        self._ending: set[asyncio.Task[None]] = set()
        #: Starts since it has been of use.
        self._starts = 0
        self.is_closed = False

    @property
    def current(self) -> L | None:
        """The program, if it can be used right now."""
        life = self._life
        return None if life is None or life.is_over else life

    def has_worked(self) -> None:
        """It has answered something: if it ends, it may be started again at once."""
        self._starts = 0

    async def connected(self) -> L:
        """The program, started if it is not there.

        Raises:
            ComponentFailed: it cannot be started.
        """
        while True:
            life = self.current
            if life is not None:
                return life
            if self.is_closed:
                raise protocol.broken(self._plugin, "it is closed", is_retryable=False)
            starting = self._starting
            if starting is None:
                self._starting = starting = own_task(asyncio.get_running_loop(), self._start())
                starting.add_done_callback(self._started)
            # The start is for all who wait for it: it goes on if one of them is cancelled.
            await asyncio.wait((starting,))
            if not starting.cancelled():
                return starting.result()

    async def close(self) -> None:
        """End the program. It is not started again."""
        self.is_closed = True
        starting, life = self._starting, self._life
        self._starting = self._life = None
        if starting is not None:
            starting.cancel()
            await asyncio.wait((starting,))
        if life is not None:
            await life.end(self._grace_s)
        if self._ending:
            await asyncio.wait(self._ending)

    async def _start(self) -> L:
        old, self._life = self._life, None
        if old is not None:
            # It has ended, or does not make sense any more.
            await old.end(0)
        if self._starts > 1:
            await asyncio.sleep(min(_FIRST_PAUSE_S * 2 ** min(self._starts - 2, 16), _LONGEST_PAUSE_S))
        self._starts += 1
        return await self._start_one()

    def _started(self, starting: asyncio.Task[L]) -> None:
        if self._starting is starting:
            self._starting = None
        if starting.cancelled() or starting.exception() is not None:
            return
        life = starting.result()
        if not self.is_closed:
            self._life = life
            return
        task = own_task(asyncio.get_running_loop(), life.end(self._grace_s))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


class Link:
    """One life of a program that speaks JSON-RPC through its pipes."""

    def __init__(self, program: Program, answer: Handler, *, limits: RpcLimits) -> None:
        self._name = program.plugin
        self.calls = protocol.Calls()
        self.process = Process(program, on_output=self._take, on_end=self._ended, message_bytes=limits.message_bytes)
        self.peer = Peer(
            self.process,
            answer,
            limits=limits,
            on_stray=self.process.hear_stray,
            on_fault=self.process.kill,
        )

    @property
    def is_over(self) -> bool:
        return self.process.is_over or self.peer.is_over

    async def end(self, grace_s: float) -> None:
        """End the program and all that it has started."""
        await self.process.stop(grace_s)
        await self.peer.aclose("it was closed")

    def unstarted(self, problem: str) -> ComponentFailed:
        """The failure of those who wait for its start."""
        return unstarted(self._name, self.process, problem)

    def _take(self, data: bytes) -> None:
        self.peer.feed(data)

    def _ended(self, story: str) -> None:
        self.peer.ended(story)


def unstarted(plugin: str, process: Process, problem: str) -> ComponentFailed:
    """The failure of those who wait for the start of a program."""
    words = process.last_words()
    said = f" It said last:\n{words}" if words else ""
    return ComponentFailed(
        f"Plugin {plugin!r} cannot be started: {process.redact(problem)}.{said}",
        attachments=("error executing component",),
    )
