"""Servers that the cases of a flow need: started on free ports before them, ended after them, whatever happens.

`{port}`, `{NAME.port}` and `{NAME.url}` stand for where they are, in their own arguments and environment and in the
config of the cases. Called by `cases.py`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from .plugins.port import ComponentFailed
from .plugins.process import Process, Program

_HOST = "127.0.0.1"
_LOOK_S = 0.05
_LARGEST_PORT = 65535

_T = TypeVar("_T")


class ServerFailed(Exception):
    """A server of a test could not be started, or is described wrongly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthCheck:
    """What is asked until a server answers well."""

    path: str
    timeout_s: float = 5.0
    #: How many answers other than good ones are put up with.
    attempts: int = 3
    delay_s: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerPlan:
    """A server as the document describes it."""

    name: str
    command: str
    args: Sequence[str]
    env: Mapping[str, str]
    cwd: Path
    port_range: tuple[int, int] | None
    health_check: HealthCheck | None
    start_s: float
    stop_s: float

    @classmethod
    def read_all(cls, value: Any, folder: Path) -> list[ServerPlan]:
        """The servers of a test; camelCase and snake_case are the same.

        Raises:
            ServerFailed: something in it has the wrong form.
        """
        if value is None:
            return []
        if not isinstance(value, Mapping):
            raise ServerFailed("test.servers is an object of servers by their names.")
        servers = cast("Mapping[str, Any]", value)
        return [cls._read(name, server, folder) for name, server in servers.items()]

    @classmethod
    def _read(cls, name: str, value: Any, folder: Path) -> ServerPlan:
        fields = _Fields(value, f"test.servers.{name}")
        ports = cast("list[Any] | None", fields.get("portRange", list))
        health = cast("dict[str, Any] | None", fields.get("healthCheck", dict))
        return cls(
            name=name,
            command=fields.require("command", str),
            args=fields.texts("args"),
            env=fields.text_mapping("env"),
            cwd=folder.absolute() / (fields.get("workingDirectory", str) or "."),
            port_range=None if ports is None else _port_range(ports, fields.place),
            health_check=None if health is None else _health_check(_Fields(health, f"{fields.place}.healthCheck")),
            start_s=fields.milliseconds("startupTimeoutMs", 10_000),
            stop_s=fields.milliseconds("shutdownTimeoutMs", 5_000),
        )


def _port_range(value: Sequence[Any], place: str) -> tuple[int, int]:
    match value:
        case [int(low), int(high)] if 1 <= low <= high <= _LARGEST_PORT:
            return low, high
        case _:
            raise ServerFailed(f"{place}.portRange is a list of two ports, the lower one first.")


def _health_check(fields: _Fields) -> HealthCheck:
    path = fields.require("path", str)
    attempts = fields.get("retryAttempts", int)
    return HealthCheck(
        path=path if path.startswith("/") else f"/{path}",
        timeout_s=fields.milliseconds("timeoutMs", 5_000),
        attempts=3 if attempts is None else max(1, attempts),
        delay_s=fields.milliseconds("retryDelayMs", 1_000),
    )


class _Fields:
    """The fields of an object in a document, by either spelling."""

    def __init__(self, value: Any, place: str) -> None:
        if not isinstance(value, Mapping):
            raise ServerFailed(f"{place} is an object.")
        self._value = cast("Mapping[str, Any]", value)
        self.place = place

    def get(self, name: str, kind: type[_T]) -> _T | None:
        found = self._value.get(name)
        if found is None:
            found = self._value.get("".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name))
        if found is not None and (not isinstance(found, kind) or isinstance(found, bool)):
            raise ServerFailed(f"{self.place}.{name} is of the wrong kind.")
        return found

    def require(self, name: str, kind: type[_T]) -> _T:
        found = self.get(name, kind)
        if found is None:
            raise ServerFailed(f"{self.place}.{name} is missing.")
        return found

    def milliseconds(self, name: str, default: int) -> float:
        found = self.get(name, int)
        return max(0, default if found is None else found) / 1000

    def texts(self, name: str) -> list[str]:
        return [_text(item) for item in cast("list[Any]", self.get(name, list) or [])]

    def text_mapping(self, name: str) -> dict[str, str]:
        return {key: _text(item) for key, item in cast("dict[str, Any]", self.get(name, dict) or {}).items()}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def substituted(value: Any, ports: Mapping[str, int], *, own: str | None = None) -> Any:
    """A JSON value with the places of servers put in; `own` is the one that `{port}` means."""
    if isinstance(value, str):
        for name, port in ports.items():
            value = value.replace(f"{{{name}.url}}", f"http://{_HOST}:{port}").replace(f"{{{name}.port}}", str(port))
        return value if own is None else value.replace("{port}", str(ports[own]))
    if isinstance(value, list):
        return [substituted(item, ports, own=own) for item in cast("list[Any]", value)]
    if isinstance(value, Mapping):
        fields = cast("Mapping[str, Any]", value)
        return {key: substituted(item, ports, own=own) for key, item in fields.items()}
    return value


@asynccontextmanager
async def running(plans: Sequence[ServerPlan]) -> AsyncGenerator[Mapping[str, int]]:
    """The ports of the servers, by their names, while they run.

    Raises:
        ServerFailed
    """
    ports = _choose_ports(plans)
    started: list[tuple[ServerPlan, Process]] = []
    try:
        for plan in plans:
            process = await _start(plan, ports)
            started.append((plan, process))
            await _await_start(plan, process, ports[plan.name])
        yield ports
    finally:
        await asyncio.gather(*(_stop(process, plan.stop_s) for plan, process in started))


def _choose_ports(plans: Sequence[ServerPlan]) -> dict[str, int]:
    ports: dict[str, int] = {}
    for plan in plans:
        low, high = plan.port_range or (0, 0)
        for port in range(low, high + 1):
            if port not in ports.values() and (free := _free_port(port)) is not None:
                ports[plan.name] = free
                break
        else:
            raise ServerFailed(f"Server {plan.name!r}: no port from {low} to {high} is free.")
    return ports


def _free_port(port: int) -> int | None:
    """The port, or any for 0; None if it is taken."""
    with socket.socket() as probe:
        try:
            probe.bind((_HOST, port))
        except OSError:
            return None
        return probe.getsockname()[1]


async def _start(plan: ServerPlan, ports: Mapping[str, int]) -> Process:
    def ignore(output: bytes) -> None:
        pass

    env = {**os.environ, **substituted(plan.env, ports, own=plan.name)}
    args = substituted(list(plan.args), ports, own=plan.name)
    program = Program(plugin=plan.name, command=plan.command, args=args, env=env, cwd=plan.cwd)
    process = Process(program, on_output=ignore)
    try:
        await process.start()
    except ComponentFailed as error:
        raise ServerFailed(error.message.replace("Plugin", "Test server", 1)) from error
    return process


async def _await_start(plan: ServerPlan, process: Process, port: int) -> None:
    try:
        async with asyncio.timeout(plan.start_s):
            while not await _is_listening(port):
                if process.is_over:
                    raise _failed(plan, process, "it ended")
                await asyncio.sleep(_LOOK_S)
            if plan.health_check is not None:
                await _await_health(plan, plan.health_check, process, port)
    except TimeoutError:
        raise _failed(plan, process, f"it did not answer within {plan.start_s:g} s") from None


async def _is_listening(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(_HOST, port)
    except OSError:
        return False
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return True


async def _await_health(plan: ServerPlan, check: HealthCheck, process: Process, port: int) -> None:
    import httpx2

    said = "nothing"
    # Not by way of a proxy.
    async with httpx2.AsyncClient(trust_env=False, timeout=check.timeout_s) as client:
        for attempt in range(check.attempts):
            if attempt:
                await asyncio.sleep(check.delay_s)
            try:
                response = await client.get(f"http://{_HOST}:{port}{check.path}")
            except httpx2.RequestError as error:
                said = type(error).__name__
            else:
                if response.is_success:
                    return
                said = f"HTTP {response.status_code}"
    raise _failed(plan, process, f"{check.path} was answered with {said}, {check.attempts} times")


def _failed(plan: ServerPlan, process: Process, problem: str) -> ServerFailed:
    words = process.last_words()
    return ServerFailed(f"Test server {plan.name!r}: {problem}." + (f" Its last words:\n{words}" if words else ""))


async def _stop(process: Process, stop_s: float) -> None:
    # Unlike a component server it may not look at its standard input, whose end would be the first sign. Its time is
    # for this sign: it is not given as much again for each further one.
    try:
        if not process.is_over:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGTERM)
            with suppress(TimeoutError):
                async with asyncio.timeout(stop_s):
                    while not process.is_over:  # noqa: ASYNC110  (it has no event for that)
                        await asyncio.sleep(_LOOK_S)
    finally:
        await process.stop(0)
