"""Components of a program that is started here and spoken to over HTTP: it prints `{"port": N}` and listens there.

As in stepflow-ai/stepflow 0.9 to 0.11 (`type: stepflow` with a `command` and no `transport`). Starts, restarts and what
becomes of interrupted calls are as in `stdio.py`; the talk is that of `http.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import msgspec

from ... import codec
from ...errors import InvalidJson, TooDeep
from .. import protocol
from .http import HttpPlugin, HttpSettings, Unanswered
from .link import Upkeep, unstarted
from .port import ComponentCall, ComponentInfo
from .process import Process, Program, ProgramSettings

#: The longest line that may name the port.
_LINE_BYTES = 64 * 1024
#: How long to wait for the end of a program that does not answer any more.
_LOOK_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class SubprocessSettings(ProgramSettings):
    """How to start a component server, and how long to wait for it."""

    #: For the talk; its `url` is put in.
    http: HttpSettings = field(default_factory=lambda: HttpSettings(url=""))


class SubprocessPlugin:
    """A component server of our own behind a port of this machine."""

    def __init__(self, name: str, settings: SubprocessSettings) -> None:
        self._name = name
        self._settings = settings
        self._upkeep = Upkeep(name, self._start, grace_s=settings.grace_s)

    def is_composite(self, component: str) -> bool:
        return False

    async def components(self) -> Sequence[ComponentInfo]:
        served = await self._upkeep.connected()
        infos = await served.http.components()
        self._upkeep.has_worked()
        return infos

    async def execute(self, call: ComponentCall) -> Any:
        is_again = False
        while True:
            served = self._upkeep.current or await self._upkeep.connected()
            try:
                output = await served.http.execute(call)
            except Unanswered as error:
                story = await served.ended(_LOOK_S)
                if story is None:
                    raise
                if is_again or self._upkeep.is_closed:
                    raise protocol.crashed(self._name, story, served.process.last_words()) from error
                call, is_again = msgspec.structs.replace(call, attempt=call.attempt + 1), True
                call.services.begin_again()
            else:
                self._upkeep.has_worked()
                return output

    async def close(self) -> None:
        await self._upkeep.close()

    async def _start(self) -> _Served:
        settings = self._settings
        served = _Served(self._name, settings.program(self._name), settings.http)
        try:
            await served.process.start()
            try:
                async with asyncio.timeout(settings.start_timeout_s):
                    await served.listening
            except TimeoutError:
                waited = f"{settings.start_timeout_s:g} s"
                problem = f'it did not print {{"port": N}} within {waited}'
                raise unstarted(self._name, served.process, problem) from None
        except BaseException:
            await served.end(0)
            raise
        return served


class _Served:
    """One life of the program."""

    def __init__(self, name: str, program: Program, settings: HttpSettings) -> None:
        self._name = name
        self._settings = settings
        self._rest = b""
        self._over: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.process = Process(program, on_output=self._take, on_end=self._ended)
        #: Done when it can be talked to.
        self.listening: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.http = HttpPlugin(name, settings)

    @property
    def is_over(self) -> bool:
        return self.process.is_over

    async def end(self, grace_s: float) -> None:
        await self.http.close()
        await self.process.stop(grace_s)
        if self.listening.done() and not self.listening.cancelled():
            self.listening.exception()  # it may be that nobody has waited for it

    async def ended(self, wait_s: float) -> str | None:
        """The story of its end, if it ends soon."""
        await asyncio.wait((self._over,), timeout=wait_s)
        return self._over.result() if self._over.done() else None

    def _take(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            port = None if self.listening.done() else _port(line)
            if port is None:
                self.process.hear_stray(line)
            else:
                self.http = HttpPlugin(self._name, replace(self._settings, url=f"http://127.0.0.1:{port}/"))
                self.listening.set_result(None)
        # What it prints without ever ending a line is not kept.
        self._rest = self._rest[-_LINE_BYTES:]

    def _ended(self, story: str) -> None:
        if not self._over.done():
            self._over.set_result(story)
        if not self.listening.done():
            problem = f'{story} before it printed {{"port": N}}'
            self.listening.set_exception(unstarted(self._name, self.process, problem))


def _port(line: bytes) -> int | None:
    try:
        value = codec.decode(line, "It")
    except (InvalidJson, TooDeep):
        return None
    port = cast("dict[str, Any]", value).get("port") if isinstance(value, dict) else None
    return port if type(port) is int and 0 < port < 65536 else None
