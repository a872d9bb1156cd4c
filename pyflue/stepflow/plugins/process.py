"""A program that a plugin talks to: its pipes, its last words, and its end, with everything it has started.

Used by `stdio.py`, `subprocess.py` and `mcp.py`. It runs in a session, and so a process group, of its own: when it has
ended or is ended, the whole group is. If PyFlue itself is killed it reads the end of its input, and where there is
`setpriv` (Linux) the kernel kills it as well; `setpriv` arranges that and then becomes the program, so no Python code
has to run between fork and exec.
"""

from __future__ import annotations

import asyncio
import functools
import os
import shutil
import signal
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from ...logs import logger
from ..jsonrpc import own_task
from .port import ComponentFailed

log = logger("stepflow")

_KEPT_LINES = 100
_LINE_CHARS = 2000
_TOLD_LINES = 5
_TOLD_CHARS = 1000
#: How long a program may take to end by itself, and after each signal.
GRACE_S = 1.0
#: How long to wait for the rest of its output, which a process that has left the group may hold open.
_LAST_OUTPUT_S = 0.5
_LOOK_S = 0.005
#: How long a program may go on after it has closed its input or output.
_DEAF_S = 0.3
#: How long killed processes may take to be gone. (What is not buried by whoever should do it stays in the group.)
_KILLED_S = 0.2
#: What may wait to be read by the program, in addition to one message.
_UNREAD_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramSettings:
    """Which program a plugin starts, and how long it waits for it."""

    command: str
    args: Sequence[str] = ()
    #: All of the server's environment.
    env: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    cwd: Path
    #: Values that must not be told.
    secrets: Sequence[str] = field(default=(), repr=False)
    #: From the start until it can be asked: it has answered `initialize`, or written the line with its port.
    start_timeout_s: float = 30.0
    grace_s: float = GRACE_S

    def program(self, plugin: str) -> Program:
        """The program of a plugin of this name."""
        return Program(
            plugin=plugin, command=self.command, args=self.args, env=self.env, cwd=self.cwd, secrets=self.secrets
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What to start, and how."""

    #: The plugin's name, for texts.
    plugin: str
    command: str
    args: Sequence[str] = ()
    #: All that it sees of an environment.
    env: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    cwd: Path
    #: Values that must not be told.
    secrets: Sequence[str] = field(default=(), repr=False)

    def find(self) -> str:
        """The program's file: by its path from the working directory, or on *our* PATH (it may not have one).

        Raises:
            ComponentFailed: there is none.
        """
        if os.sep in self.command:
            found = str((self.cwd / self.command).absolute())
            if os.access(found, os.X_OK) and not Path(found).is_dir():
                return found
        else:
            ours = str(Path(sys.executable).parent)
            # A component server needs our SDK: `python` is the one of the environment that PyFlue runs in, also if
            # that is not activated.
            first = [ours] if self.command in {"python", "python3"} else []
            places = [*first, *os.get_exec_path(), ours, str(self.cwd)]
            path = shutil.which(self.command, path=os.pathsep.join(places))
            if path is not None:
                return str(Path(path).absolute())
        raise ComponentFailed(
            f"Plugin {self.plugin!r} cannot be started: there is no program {self.command!r}. Install it, or correct "
            "`command`.",
            is_retryable=False,
        )


class Process(asyncio.SubprocessProtocol):
    """A started program.

    `on_output` gets what it writes to its standard output. `on_end` is called once, after the last output, with the
    story of its end; the group is gone by then. No message that is sent is longer than `message_bytes`.
    """

    def __init__(
        self,
        program: Program,
        *,
        on_output: Callable[[bytes], None],
        on_end: Callable[[str], None] | None = None,
        message_bytes: int = 0,
    ) -> None:
        self._program = program
        self._on_output = on_output
        self._on_end = on_end
        self._unread_bytes = message_bytes + _UNREAD_BYTES
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.SubprocessTransport | None = None
        self._stdin: asyncio.WriteTransport | None = None
        self._pid = 0
        self._has_exited = asyncio.Event()
        self._output_has_ended = False
        self._is_over = False
        self._is_group_gone = False
        self._is_stopping = False
        self._problem: str | None = None
        self._room: asyncio.Future[None] | None = None
        self._words: deque[str] = deque(maxlen=_KEPT_LINES)
        self._word = ""
        self._tells_all = os.environ.get("STEPFLOW_COMPONENT_STDERR", "").lower() == "verbose"
        self._timers: list[asyncio.TimerHandle] = []

    async def start(self) -> None:
        """Start it.

        Raises:
            ComponentFailed
        """
        program = self._program
        argv = [*_tied_to_us(), program.find(), *program.args]
        if any("\0" in text for text in (*program.args, *program.env, *program.env.values())):
            # Not all event loops say so.
            raise self._unstartable("its arguments or its env cannot be passed on")
        try:
            # From here on nothing is awaited that a cancellation could cut off between the start and `self._pid`.
            starting = self._loop.subprocess_exec(
                lambda: self, *argv, env=dict(program.env), cwd=str(program.cwd), start_new_session=True
            )
            await _uncancelled(own_task(self._loop, starting))
        except (OSError, ValueError) as error:
            problem = error.strerror if isinstance(error, OSError) else None
            raise self._unstartable(problem or "its arguments or its env cannot be passed on") from error

    # What the event loop tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = started = cast("asyncio.SubprocessTransport", transport)
        self._pid = started.get_pid()
        self._stdin = cast("asyncio.WriteTransport", started.get_pipe_transport(0))

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd == 1:
            if not self._is_over:
                self._on_output(data)
        else:
            self._hear(data)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        if fd == 2:
            return
        if fd == 1:
            self._output_has_ended = True
            if self._has_exited.is_set():
                self._over()
                return
        if not self._is_stopping and not self._has_exited.is_set():
            # It is about to end, and if not, nobody can talk to it any more.
            self._timers.append(self._loop.call_later(_DEAF_S, self.kill, "it closed its standard input or output"))

    def process_exited(self) -> None:
        self._has_exited.set()
        # What it has started would go on without anybody who knows of it, and may hold its output open.
        self._signal(signal.SIGKILL)
        if self._output_has_ended:
            self._over()
        else:
            self._timers.append(self._loop.call_later(_LAST_OUTPUT_S, self._over))

    def pause_writing(self) -> None:
        if self._room is None:
            self._room = self._loop.create_future()

    def resume_writing(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        self._room = None

    # What its plugin asks

    @property
    def pid(self) -> int:
        return self._pid

    @property
    def is_over(self) -> bool:
        return self._is_over

    def write(self, data: bytes) -> None:
        """Send bytes to its standard input."""
        stdin = self._stdin
        if stdin is None or stdin.is_closing():
            return
        stdin.write(data)
        if self._room is not None and stdin.get_write_buffer_size() > self._unread_bytes:
            self.kill("it does not read what it is sent")

    def writable(self) -> Awaitable[None] | None:
        """None, or what to wait for until there is room for more."""
        return None if self._room is None or self._is_over else asyncio.shield(self._room)

    def kill(self, problem: str) -> None:
        """End it at once, because of something it did; the story of its end says so."""
        if not self._has_exited.is_set():
            self._problem = self._problem or problem
            self._signal(signal.SIGKILL)

    async def stop(self, grace_s: float = GRACE_S) -> None:
        """End it: first by the end of its input, then by signals. Afterwards there is nothing left of it."""
        self._is_stopping = True
        try:
            if self._stdin is not None:
                self._stdin.close()
            await self._exited(grace_s)
            for number in (signal.SIGTERM, signal.SIGKILL):
                if not self._signal(number):
                    break
                is_last = number == signal.SIGKILL
                await self._exited(GRACE_S if is_last else grace_s)
                await _until(lambda: not self._signal(0), _KILLED_S if is_last else grace_s)
        finally:
            self._signal(signal.SIGKILL)
            self._over()

    def last_words(self) -> str:
        """What it has said last on its standard error, in few lines."""
        lines = [*self._words, self._word] if self._word else list(self._words)
        return self.redact("\n".join(lines[-_TOLD_LINES:])[-_TOLD_CHARS:]).strip()

    def redact(self, text: str) -> str:
        """A text without the values that must not be told."""
        for secret in self._program.secrets:
            text = text.replace(secret, "[REDACTED]")
        return text

    def hear_stray(self, line: bytes) -> None:
        """Keep a line of its standard output that is none of the protocol."""
        self._say(line[: _LINE_CHARS * 4].decode(errors="replace")[:_LINE_CHARS])

    def _unstartable(self, problem: str) -> ComponentFailed:
        program = self._program
        return ComponentFailed(
            f"Plugin {program.plugin!r} cannot be started: {program.command!r} in {str(program.cwd)!r}: {problem}.",
            is_retryable=False,
        )

    def _story(self) -> str:
        code = None if self._transport is None else self._transport.get_returncode()
        if self._problem is not None:
            return self.redact(self._problem)
        if code is None:
            return "its process was given up"
        if code < 0:
            try:
                return f"its process was ended by {signal.Signals(-code).name}"
            except ValueError:
                return f"its process was ended by signal {-code}"
        return f"its process ended with exit code {code}"

    def _over(self) -> None:
        if self._is_over:
            return
        self._is_over = True
        for timer in self._timers:
            timer.cancel()
        self.resume_writing()
        if self._word:
            self._say(self._word)
            self._word = ""
        if self._transport is not None:
            with suppress(PermissionError):  # a program with the rights of another user
                self._transport.close()
        story = self._story()
        if not self._is_stopping:
            log.warning(
                "component_server_ended",
                plugin=self._program.plugin,
                story=story,
                stderr=[self.redact(line) for line in self._words],
            )
        if self._on_end is not None:
            self._on_end(story)

    def _hear(self, data: bytes) -> None:
        lines = (self._word + data.decode(errors="replace")).split("\n")
        self._word = lines.pop()[-_LINE_CHARS:]
        for line in lines if self._tells_all else lines[-_KEPT_LINES:]:
            self._say(line.rstrip("\r")[:_LINE_CHARS])

    def _say(self, line: str) -> None:
        self._words.append(line)
        if self._tells_all:
            log.info("component_stderr", plugin=self._program.plugin, line=self.redact(line))

    def _signal(self, number: int) -> bool:
        """Whether there is any process left in its group."""
        if self._pid == 0 or self._is_group_gone:
            return False
        try:
            os.killpg(self._pid, number)
        except ProcessLookupError:
            # The number may stand for somebody else from now on.
            self._is_group_gone = self._has_exited.is_set()
            return False
        except PermissionError:
            pass
        return True

    async def _exited(self, grace_s: float) -> None:
        try:
            async with asyncio.timeout(grace_s):
                await self._has_exited.wait()
        except TimeoutError:
            pass


async def _until(is_so: Callable[[], bool], seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            while not is_so():  # noqa: ASYNC110  (no event tells of the end of a group)
                await asyncio.sleep(_LOOK_S)
    except TimeoutError:
        pass


async def _uncancelled(task: asyncio.Task[Any]) -> None:
    """Wait for something short to its end, and be cancelled only then."""
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as error:
            cancelled = error
    task.result()
    if cancelled is not None:
        raise cancelled


@functools.cache
def _tied_to_us() -> tuple[str, ...]:
    """What makes a program die with us, to be put before its command; nothing where that cannot be had."""
    if sys.platform != "linux":
        return ()
    for place in ("/usr/bin/setpriv", "/bin/setpriv"):
        # The one of busybox does not know the option.
        if os.access(place, os.X_OK) and Path(place).resolve().name == "setpriv":
            return (place, "--pdeathsig", "KILL", "--")
    return ()
