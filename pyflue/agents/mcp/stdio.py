"""An MCP server that is a process: JSON lines through its standard input and output.

Not the SDK's own transport: that one reads lines of any length, and leaves what a server has started running if the
server itself ends in time. Here a line has a largest length, and the whole process group is ended, also if the event
loop is torn down around us.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
from mcp.shared.message import SessionMessage
from mcp.types import jsonrpc_message_adapter

from ...errors import McpFailed
from ...settings import McpServerSettings

if TYPE_CHECKING:
    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

    from .link import Streams

_LINE_BYTES = 8 * 1024 * 1024
_LAST_WORDS_BYTES = 2000
#: How long a server may take to end by itself, and after each signal.
_GRACE_S = 0.5
_LOOK_S = 0.01
#: What every program needs of the environment.
_PASSED_ON = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR")


class StdioTransport:
    """How to start the server, and what became of it."""

    def __init__(self, server: str, settings: McpServerSettings, *, root: Path) -> None:
        self._server = server
        self._settings = settings
        self._root = root
        self._last_words: deque[int] = deque(maxlen=_LAST_WORDS_BYTES)
        self._is_silent = False
        self._problem = ""
        self._exit_code: int | None = None

    @property
    def story(self) -> str:
        """How it ended and what it said last, if it ended by itself; or why it was not listened to any more."""
        if self._problem:
            return self._problem
        said = bytes(self._last_words).decode(errors="replace").strip()
        ended = "" if self._exit_code is None else f"it ended with exit code {self._exit_code}"
        return f"{ended}; it said: {said}" if ended and said else ended

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Streams]:
        process: asyncio.subprocess.Process | None = None
        with anyio.CancelScope(shield=True):
            # Not interrupted between the start and the moment that we know of the process.
            process = await self._start()
        assert process is not None  # noqa: S101  (nothing cancels that scope)
        send_in, receive_in = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        send_out, receive_out = anyio.create_memory_object_stream[SessionMessage](0)
        try:
            async with anyio.create_task_group() as pumps:
                pumps.start_soon(self._read, process, send_in)
                pumps.start_soon(_write, process, receive_out, send_in)
                pumps.start_soon(self._listen, process)
                try:
                    yield receive_in, send_out
                finally:
                    with anyio.CancelScope(shield=True):
                        await self._end(process)
                    pumps.cancel_scope.cancel()
        finally:
            # What the shield above did not keep: the loop is being closed, and every wait ends at once.
            _signal_group(process.pid, signal.SIGKILL)
            _reap(process)
            for stream in (send_in, receive_in, send_out, receive_out):
                stream.close()
            _close(process)

    async def _start(self) -> asyncio.subprocess.Process:
        settings, command = self._settings, self._settings.command or ""
        cwd = _folder(self._server, settings.cwd, self._root)
        try:
            return await asyncio.create_subprocess_exec(
                command,
                *settings.args,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=_environment(os.environ, settings.env),
                cwd=cwd,
                limit=_LINE_BYTES,
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise McpFailed(
                f"MCP server {self._server!r} cannot be started: there is no program {command!r}.",
                hint="Install it, or correct `command`.",
            ) from error
        except (OSError, ValueError) as error:
            problem = (
                error.strerror
                if isinstance(error, OSError)
                else "its command, its arguments or its env cannot be given to a program"
            )
            raise McpFailed(
                f"MCP server {self._server!r} cannot be started: {command!r}: {problem}.",
                hint="Correct `command`, `args` or `env`.",
            ) from error

    async def _read(
        self, process: asyncio.subprocess.Process, messages: MemoryObjectSendStream[SessionMessage | Exception]
    ) -> None:
        assert process.stdout is not None  # noqa: S101  (it was started with pipes)
        with messages, suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            while True:
                try:
                    line = await process.stdout.readuntil(b"\n")
                except asyncio.LimitOverrunError:
                    self._problem = f"it sent a line of more than {_LINE_BYTES:,} bytes"
                    return
                except (asyncio.IncompleteReadError, ConnectionError):
                    self._is_silent = True
                    return
                try:
                    message = jsonrpc_message_adapter.validate_json(line, by_name=False)
                except ValueError:
                    if b'"jsonrpc"' not in line:
                        # Many programs write a line or two to their output that is none of the protocol.
                        continue
                    # Somebody may wait for this one, and there is no telling who.
                    self._problem = "it sent a message that cannot be read"
                    return
                await messages.send(SessionMessage(message))

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None  # noqa: S101  (it was started with pipes)
        while data := await process.stderr.read(64 * 1024):
            self._last_words.extend(data[-_LAST_WORDS_BYTES:])

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        """End the server and everything in its process group."""
        assert process.stdin is not None  # noqa: S101  (it was started with pipes)
        has_ended_by_itself = self._is_silent
        process.stdin.close()
        await _until(lambda: process.returncode is not None)
        if has_ended_by_itself:
            self._exit_code = process.returncode
        for number in (signal.SIGTERM, signal.SIGKILL):
            if not _signal_group(process.pid, number):
                return
            await _until(lambda: not _signal_group(process.pid, 0))


async def _write(
    process: asyncio.subprocess.Process,
    messages: MemoryObjectReceiveStream[SessionMessage],
    incoming: MemoryObjectSendStream[SessionMessage | Exception],
) -> None:
    assert process.stdin is not None  # noqa: S101  (it was started with pipes)
    with messages:
        try:
            async for each in messages:
                line = each.message.model_dump_json(by_alias=True, exclude_unset=True)
                process.stdin.write(line.encode() + b"\n")
                await process.stdin.drain()
        except (ConnectionError, RuntimeError):
            # It may still be there, but it does not listen: to the session it has ended.
            incoming.close()


async def _until(is_so: Callable[[], bool]) -> None:
    """Wait for something of a process, for a short time. (`process.wait` would wait for others that hold its pipes.)"""
    with anyio.move_on_after(_GRACE_S):
        while not is_so():  # noqa: ASYNC110  (no event tells of the end of a group)
            await anyio.sleep(_LOOK_S)


def _signal_group(pid: int, number: int) -> bool:
    """Whether there is any process left in the group that the server was started in."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _reap(process: asyncio.subprocess.Process) -> None:
    """Take leave of a killed process that the event loop will not hear of any more. There is nothing to wait for."""
    transport = getattr(process, "_transport", None)
    if process.returncode is None and transport is not None:
        started = transport.get_extra_info("subprocess")
        if isinstance(started, subprocess.Popen):
            with suppress(subprocess.TimeoutExpired):
                started.wait(_GRACE_S)


def _close(process: asyncio.subprocess.Process) -> None:
    """Let go of the pipes, which a process that left the group may hold open."""
    transport = getattr(process, "_transport", None)
    if transport is not None:
        with suppress(PermissionError):
            transport.close()


def _folder(server: str, cwd: str | None, root: Path) -> Path:
    base = root.resolve()
    folder = (base / (cwd or ".")).resolve()
    if not folder.is_relative_to(base) or not folder.is_dir():
        raise McpFailed(
            f"MCP server {server!r} cannot be started: its cwd {cwd!r} is no folder inside of the project.",
            hint="Give one, from the project folder.",
        )
    return folder


def _environment(own: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    return {**{name: own[name] for name in _PASSED_ON if name in own}, **given}
