"""Commands on this machine, for the local and the isolated sandbox.

Each runs below a supervisor process of its own (`supervisor.py`), which holds it to its limits and leaves nothing
behind. Here is what starts the supervisor, waits for it in a thread of its own, and stops it when the caller is
cancelled. The command's environment goes to it through a pipe, so that it stands in no command line.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, TypeAlias
from uuid import uuid4

from ...errors import SandboxUnavailable
from .limits import SandboxLimits
from .port import CommandResult

_SUPERVISOR = Path(__file__).with_name("supervisor.py")
#: How long a supervisor may need after everything should be over. Long: on a machine that is short of everything it is
#: late, too, and what it watches must not be left alone then.
_LATE_S = 30.0
#: How long a cancelled caller waits for the end.
_STOPPING_S = 4.0
#: A name in the environment of each process of a command, to find those that got away when the supervisor was killed.
_MARK = "PYFLUE_COMMAND"
#: Programs reserve much more address space than they use; this is against the reckless only.
_ADDRESS_FACTOR = 8

_WHY = {
    "timeout": "The command was stopped after {timeout_s:g} s.",
    "processes": "The command was stopped: it had more than {processes} processes.",
    "memory": "The command was stopped: it used more than {memory_mib} MiB of memory.",
    "stopped": "The command was stopped.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A command as it is to be run. `cwd_fd` and `pass_fds` are open until it has ended."""

    argv: Sequence[str]
    env: Mapping[str, str]
    cwd_fd: int
    timeout_s: float
    limits: SandboxLimits
    pass_fds: Sequence[int] = ()


async def run(order: Order) -> CommandResult:
    """Run a command to its end; cancelled, end it first.

    Raises:
        SandboxUnavailable: no process can be started.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[CommandResult] = loop.create_future()
    running = _Running(replace(order, env={**order.env, _MARK: uuid4().hex}))

    def work() -> None:
        try:
            result: CommandResult | BaseException = running.wait()
        except BaseException as error:  # noqa: BLE001  (it belongs to the one who waits)
            result = error
        with suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(_settle, ended, result)

    # Not the loop's own pool of threads: long commands would take all of it.
    threading.Thread(target=work, name="pyflue-command", daemon=True).start()
    try:
        return await asyncio.shield(ended)
    except asyncio.CancelledError:
        running.stop()
        with suppress(Exception):
            await asyncio.shield(_over(ended))
        raise


async def _over(ended: asyncio.Future[CommandResult]) -> None:
    await asyncio.wait({ended}, timeout=_STOPPING_S)


_Outcome: TypeAlias = "CommandResult | BaseException"


def _settle(ended: asyncio.Future[CommandResult], result: _Outcome) -> None:
    if ended.done():
        return
    if isinstance(result, BaseException):
        ended.set_exception(result)
        # Nobody may be left who would look at it.
        ended.exception()
    else:
        ended.set_result(result)


class _Running:
    """One supervisor and its command, seen from a thread."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._is_stopped = False

    def stop(self) -> None:
        """End the command soon. Does not wait."""
        with self._lock:
            self._is_stopped = True
            if self._process is not None and self._process.stdin is not None:
                with suppress(OSError):
                    self._process.stdin.close()

    def wait(self) -> CommandResult:
        order = self._order
        with self._lock:
            if self._is_stopped:
                return CommandResult(stdout="", stderr=_WHY["stopped"], exit_code=143)
            process = self._start()
        stdout = _pipe(process.stdout)
        late = threading.Timer(order.timeout_s + order.limits.grace_s + _LATE_S, process.kill)
        late.daemon = True
        late.start()
        try:
            header = stdout.readline()
            result = self._result(header, stdout) if header.endswith(b"\n") else None
        finally:
            late.cancel()
            self.stop()
            stdout.close()
            process.wait()
        if result is None:
            # A command that kills its own supervisor comes here, and one that keeps it from getting its turn.
            _kill_marked(order.env[_MARK])
            return CommandResult(stdout="", stderr="The command has ended its supervisor.\n", exit_code=137)
        return result

    def _start(self) -> subprocess.Popen[bytes]:
        order, limits = self._order, self._order.limits
        spec = json.dumps(
            {
                "argv": [_text(part) for part in order.argv],
                "env": {_text(name): _text(value) for name, value in order.env.items()},
                "cwd_fd": order.cwd_fd,
                "pass_fds": list(order.pass_fds),
                "timeout_s": order.timeout_s,
                "grace_s": limits.grace_s,
                "output_bytes": limits.output_bytes,
                "processes": limits.processes,
                "memory_bytes": limits.memory_bytes,
                "rlimits": {
                    # All threads of a process count, so as many seconds as cores can give in that time.
                    "RLIMIT_CPU": int(order.timeout_s + limits.grace_s + 1) * (os.cpu_count() or 1),
                    "RLIMIT_AS": limits.memory_bytes * _ADDRESS_FACTOR,
                    "RLIMIT_FSIZE": limits.written_file_bytes,
                    "RLIMIT_NOFILE": limits.open_files,
                    "RLIMIT_CORE": 0,
                },
            }
        ).encode()
        try:
            process = subprocess.Popen(  # noqa: S603  (our own program)
                [sys.executable, "-I", "-S", str(_SUPERVISOR)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={},
                cwd="/",
                pass_fds=[order.cwd_fd, *order.pass_fds],
                start_new_session=True,
            )
        except OSError as error:
            raise SandboxUnavailable(f"No process can be started for the command: {error}.") from error
        self._process = process
        with suppress(BrokenPipeError):
            stdin = _pipe(process.stdin)
            stdin.write(len(spec).to_bytes(4, "big") + spec)
            stdin.flush()
        return process

    def _result(self, header: bytes, stdout_pipe: IO[bytes]) -> CommandResult:
        told: dict[str, Any] = json.loads(header)
        parts = [stdout_pipe.read(size) for size in told["sizes"]]
        stdout = _whole(parts[0], parts[1], told["left_out_bytes"][0])
        stderr = _whole(parts[2], parts[3], told["left_out_bytes"][1])
        reason: str | None = told["reason"]
        if reason is not None:
            limits = self._order.limits
            why = _WHY[reason].format(
                timeout_s=self._order.timeout_s,
                processes=limits.processes,
                memory_mib=limits.memory_bytes // 1024**2,
            )
            stderr = f"{stderr}{'' if not stderr or stderr.endswith(chr(10)) else chr(10)}{why}\n"
        return CommandResult(
            stdout=stdout,
            stderr=stderr,
            exit_code=124 if reason == "timeout" else told["exit_code"],
            is_truncated=any(told["left_out_bytes"]),
            is_timed_out=reason == "timeout",
        )


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise SandboxUnavailable("The command's supervisor was started without its pipes.")
    return pipe


def _text(value: str) -> str:
    """Text that JSON and the system take: what cannot be encoded came from no honest place."""
    return value.encode(errors="replace").decode().replace("\0", "")


def _whole(head: bytes, tail: bytes, left_out_bytes: int) -> str:
    if not left_out_bytes:
        return (head + tail).decode(errors="replace")
    mark = f"\n[{left_out_bytes:,} bytes were left out]\n"
    return head.decode(errors="ignore") + mark + tail.decode(errors="ignore")


def _kill_marked(mark: str) -> None:
    """Kill the processes that carry a command's mark, until there are none."""
    wanted = f"{_MARK}={mark}".encode()
    own = os.getpgrp()
    for _ in range(100):
        is_clean = True
        for pid in _processes():
            if wanted not in _environment(pid):
                continue
            is_clean = False
            with suppress(ProcessLookupError, PermissionError):
                # All of its group at once, and at the first sight of it: what multiplies is faster than we can look.
                if (group := os.getpgid(pid)) != own:
                    os.killpg(group, signal.SIGKILL)
                os.kill(pid, signal.SIGKILL)
        if is_clean:
            return


def _processes() -> list[int]:
    try:
        return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    except OSError:
        return []


def _environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""
