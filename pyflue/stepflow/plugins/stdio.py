"""Components of a program that is spoken to through its standard input and output.

The protocol is that of stepflow-ai/stepflow (`crates/stepflow-protocol/src/stdio`): one JSON-RPC message on each line,
requests in both directions, many at a time. The program is started by the first use. If it ends, it is started again
and what it was working on is sent once more, as the next attempt; if it keeps ending, starts are made with pauses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .. import protocol
from ..jsonrpc import PeerEnded, RpcError, RpcLimits
from .link import Link, Upkeep
from .port import ComponentCall, ComponentInfo
from .process import ProgramSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class StdioSettings(ProgramSettings):
    """How to start a component server, and how long to wait for it."""

    list_timeout_s: float = 30.0
    #: None: a component may take as long as it likes.
    execute_timeout_s: float | None = None
    limits: RpcLimits = field(default_factory=RpcLimits)


class StdioPlugin:
    """A component server behind pipes."""

    def __init__(self, name: str, settings: StdioSettings) -> None:
        self._name = name
        self._settings = settings
        self._upkeep = Upkeep(name, self._start, grace_s=settings.grace_s)

    def is_composite(self, component: str) -> bool:
        return False

    async def components(self) -> Sequence[ComponentInfo]:
        link = await self._upkeep.connected()
        try:
            async with asyncio.timeout(self._settings.list_timeout_s):
                result = await link.peer.request("components/list", {})
        except TimeoutError:
            waited = f"{self._settings.list_timeout_s:g} s"
            raise protocol.broken(self._name, f"it did not list its components within {waited}") from None
        except RpcError as error:
            raise protocol.failure_of(error, link.process.redact) from error
        except PeerEnded as error:
            raise protocol.crashed(self._name, error.story, link.process.last_words()) from error
        self._upkeep.has_worked()
        return protocol.infos_of(result, self._name)

    async def execute(self, call: ComponentCall) -> Any:
        attempt, is_again = call.attempt, False
        while True:
            link = self._upkeep.current or await self._upkeep.connected()
            try:
                result = await self._ask(link, call, attempt)
            except RpcError as error:
                self._upkeep.has_worked()
                raise protocol.failure_of(error, link.process.redact) from error
            except PeerEnded as error:
                if is_again or self._upkeep.is_closed:
                    raise protocol.crashed(self._name, error.story, link.process.last_words()) from error
                attempt, is_again = attempt + 1, True
                call.services.begin_again()
            else:
                self._upkeep.has_worked()
                return protocol.output_of(result, self._name)

    async def close(self) -> None:
        await self._upkeep.close()

    async def _ask(self, link: Link, call: ComponentCall, attempt: int) -> Any:
        span_id = link.calls.begin(call)
        params = protocol.execute_params(call, attempt, span_id)
        timeout_s = self._settings.execute_timeout_s
        try:
            if timeout_s is None:
                return await link.peer.request("components/execute", params)
            async with asyncio.timeout(timeout_s):
                return await link.peer.request("components/execute", params)
        except TimeoutError:
            problem = f"component {call.component} did not answer within {timeout_s:g} s"
            if len(link.calls) == 1:
                # Nobody else waits for it, and there is no other way to tell it to stop.
                link.process.kill(problem)
                await link.end(0)
            raise protocol.broken(self._name, problem) from None
        finally:
            link.calls.end(span_id)

    async def _start(self) -> Link:
        """Start the program and shake hands."""
        settings = self._settings

        async def answer(method: str, params: Any) -> Any:
            return await protocol.answer(link.calls, method, params)

        link = Link(settings.program(self._name), answer, limits=settings.limits)
        try:
            await link.process.start()
            await self._shake_hands(link)
        except BaseException:
            await link.end(0)
            raise
        return link

    async def _shake_hands(self, link: Link) -> None:
        waited_s = self._settings.start_timeout_s
        try:
            async with asyncio.timeout(waited_s):
                said = await link.peer.request("initialize", {"runtime_protocol_version": protocol.PROTOCOL_VERSION})
        except TimeoutError:
            raise link.unstarted(f"it did not answer `initialize` within {waited_s:g} s") from None
        except RpcError as error:
            raise link.unstarted(f"it answered `initialize` with error {error.code}: {error.message}") from error
        except PeerEnded as error:
            raise link.unstarted(f"{error.story} before it answered `initialize`") from error
        if (problem := protocol.version_problem(said)) is not None:
            raise link.unstarted(problem)
        link.peer.notify("initialized", {})
