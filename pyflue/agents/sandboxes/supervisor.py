"""The parent of one command on this machine: starts it, keeps it within its limits, and leaves no process of it.

Run as a program of its own by `processes.py` (`python -I -S supervisor.py`), never imported. It is a process because
only a process can become the parent of orphans ("child subreaper"): a child that leaves its session or whose parent has
died still ends up here, so when no child is left there is none at all. It also ends the command if the one who started
it dies, and it drains output without keeping the event loop from its work.

Input: a length (4 bytes) and a JSON object; after that, end of input means "stop". Output: a JSON line, and what was
kept of both outputs.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import resource
import select
import signal
import sys
import time

TYPE_CHECKING = False  # `typing` itself takes a third of the start
if TYPE_CHECKING:
    from typing import Any

_PR_SET_CHILD_SUBREAPER = 36
#: How often the number of processes is looked at, which is cheap, and how often all else.
_GLANCE_S = 0.02
_LOOK_S = 0.25
#: How many of the command's processes are looked at to know its groups.
_NEAREST = 32
_CHUNK_BYTES = 1024 * 1024
#: How long output is waited for that is still on its way when no process is left.
_DRAIN_S = 1.0


class _Kept:
    """The first and the last of an output."""

    def __init__(self, limit_bytes: int) -> None:
        self._half = max(limit_bytes // 2, 1)
        self._head = bytearray()
        self._tail = bytearray()
        self.left_out_bytes = 0

    def add(self, data: bytes) -> None:
        room = self._half - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        self._tail += data
        if len(self._tail) > 4 * self._half:
            self._shorten()

    def _shorten(self) -> None:
        extra = len(self._tail) - self._half
        if extra > 0:
            self.left_out_bytes += extra
            del self._tail[:extra]

    def parts(self) -> tuple[bytes, bytes]:
        self._shorten()
        return bytes(self._head), bytes(self._tail)


def main() -> None:
    control = 0
    size = int.from_bytes(_read_exactly(control, 4), "big")
    order: dict[str, Any] = json.loads(_read_exactly(control, size))
    is_reaper = _become_subreaper()
    stdout, stdout_write = os.pipe()
    stderr, stderr_write = os.pipe()
    # SIGCHLD only has to end the wait in `poll`; a byte in this pipe does.
    alarm, alarm_write = os.pipe()
    os.set_blocking(alarm_write, False)
    signal.set_wakeup_fd(alarm_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, _wake)
    for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # Ending is what the closed input asks for. Whoever signals the group must not leave orphans.
        signal.signal(name, signal.SIG_IGN)
    cgroup = _make_cgroup(_tasks_of(order))
    if cgroup is None:
        _take_precedence()
    child = os.fork()
    if child == 0:
        _become_command(order, stdout_write, stderr_write, cgroup)
    os.close(stdout_write)
    os.close(stderr_write)
    kept = {stdout: _Kept(order["output_bytes"]), stderr: _Kept(order["output_bytes"])}
    try:
        end = _watch(order, child, control, alarm, kept, is_reaper)
    except BaseException:
        # Whatever went wrong with watching it: nothing is left that nobody watches.
        _end_the_rest(is_reaper, child)
        raise
    finally:
        if cgroup is not None:
            with contextlib.suppress(OSError):
                os.rmdir(cgroup)  # noqa: PTH106  (a program without the library around it)
    outputs = [kept[stdout].parts(), kept[stderr].parts()]
    header = {
        **end,
        "left_out_bytes": [kept[stdout].left_out_bytes, kept[stderr].left_out_bytes],
        "sizes": [len(part) for output in outputs for part in output],
    }
    with contextlib.suppress(BrokenPipeError), os.fdopen(1, "wb") as answer:
        answer.write(json.dumps(header).encode() + b"\n")
        for output in outputs:
            for part in output:
                answer.write(part)


def _watch(
    order: dict[str, Any], child: int, control: int, alarm: int, kept: dict[int, _Kept], is_reaper: bool
) -> dict[str, object]:
    """Wait for the command's end, or bring it about; then end what it has left behind."""
    deadline: float = time.monotonic() + order["timeout_s"]
    kill_at: float | None = None
    reason: str | None = None
    exit_code: int | None = None
    poll = select.poll()
    poll.register(control, select.POLLIN | select.POLLHUP)
    poll.register(alarm, select.POLLIN)
    for output in kept:
        os.set_blocking(output, False)
        poll.register(output, select.POLLIN | select.POLLHUP)
    glance_at = time.monotonic() + _GLANCE_S
    look_at = time.monotonic() + _LOOK_S
    usual = _tasks()
    while exit_code is None:
        now = time.monotonic()
        wait_s = max(0.0, min(glance_at, deadline if kill_at is None else kill_at) - now)
        for ready, _ in poll.poll(wait_s * 1000):
            if ready == control:
                poll.unregister(control)
                reason = reason or "stopped"
            elif ready == alarm:
                os.read(alarm, 4096)
            elif not _drain(ready, kept[ready]):
                poll.unregister(ready)
        exit_code = _reap(child)
        now = time.monotonic()
        if now >= glance_at:
            glance_at = now + _GLANCE_S
            stopped: set[int] = set()
            if is_crowded := _tasks() > usual + order["processes"]:
                # What multiplies stands still while it is counted: it would be faster than we are.
                stopped = _nearest_groups(child)
                for group in stopped:
                    _signal_group(group, signal.SIGSTOP)
            if is_crowded or now >= look_at:
                look_at = now + _LOOK_S
                family = _descendants(enough=order["processes"] + 1) if sys.platform == "linux" else []
                excess = _too_much(order, family)
                if excess is not None:
                    # No time to use more, not even if it had been told to end before.
                    reason = reason or excess
                    kill_at = now
                elif is_crowded:
                    # Its threads, or processes of others.
                    usual = _tasks() - len(family)
                    for group in stopped:
                        _signal_group(group, signal.SIGCONT)
        if now >= deadline:
            reason = reason or "timeout"
        if reason is not None and kill_at is None:
            kill_at = now + order["grace_s"]
            _signal_all(signal.SIGTERM, is_reaper, child)
        if kill_at is not None and now >= kill_at and exit_code is None:
            _signal_all(signal.SIGKILL, is_reaper, child)
            glance_at = kill_at = now + _GLANCE_S
    _end_the_rest(is_reaper, child)
    drain_until = time.monotonic() + _DRAIN_S
    for output, into in kept.items():
        while _drain(output, into) and time.monotonic() < drain_until:
            select.select([output], [], [], max(0.0, drain_until - time.monotonic()))
    return {"exit_code": exit_code, "reason": reason}


def _drain(output: int, into: _Kept) -> bool:
    """Take what is there; false at the end of the output."""
    try:
        data = os.read(output, _CHUNK_BYTES)
    except BlockingIOError:
        return True
    into.add(data)
    return bool(data)


def _reap(child: int) -> int | None:
    """Take the ended children; the exit code of the command itself if it is one of them."""
    exit_code: int | None = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return exit_code
        if pid == 0:
            return exit_code
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            exit_code = code if code >= 0 else 128 - code


def _end_the_rest(is_reaper: bool, child: int) -> None:
    """Kill until there is no child any more, which as subreaper means: no process of the command at all."""
    pause_s = 0.001
    while True:
        _signal_all(signal.SIGKILL, is_reaper, child)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, 0.05)


def _signal_all(number: int, is_reaper: bool, child: int) -> None:
    # All of a group at once: what multiplies cannot get away between two signals, nor while others are looked for.
    _signal_group(child, number)
    if not is_reaper:
        return
    family = _descendants()
    groups = {group for _, group in family if group != os.getpgrp()}
    for group in groups:
        _signal_group(group, number)
    for pid, _ in family:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _nearest_groups(child: int) -> set[int]:
    """The groups of the command's first processes.

    That is quick to know, however many there are, and where a shell multiplies, its group holds them all. A list of
    all processes may never come to its end then, because new ones are listed last.
    """
    groups: set[int] = set()
    pending = [child]
    for _ in range(_NEAREST):
        if not pending:
            break
        pid = pending.pop(0)
        try:
            groups.add(os.getpgid(pid))
            children = os.open(f"/proc/{pid}/task/{pid}/children", os.O_RDONLY)
        except OSError:
            continue  # it has ended meanwhile, or this system has no such file
        try:
            # The last number may be cut.
            pending += [int(number) for number in os.read(children, 4096).split(b" ")[:-1]]
        except OSError:
            continue
        finally:
            os.close(children)
    return groups - {os.getpgrp()}


def _descendants(enough: int | None = None) -> list[tuple[int, int]]:
    """Process and group ids of all processes below this one, or of the first that are found to be `enough`.

    New processes are listed last, so a list of all may never come to its end while they multiply.
    """
    children: dict[int, list[tuple[int, int]]] = {}
    known: dict[int, tuple[int, int]] = {os.getpid(): (0, 0)}
    with os.scandir("/proc") as entries:
        for entry in entries:
            if not entry.name.isdigit():
                continue
            try:
                with open(f"/proc/{entry.name}/stat", "rb") as file:  # noqa: PTH123
                    # The name in parentheses may hold anything.
                    fields = file.read().rpartition(b")")[2].split()
                parent, process = int(fields[1]), (int(entry.name), int(fields[2]))
            except (OSError, IndexError, ValueError):
                continue  # it has ended meanwhile
            children.setdefault(parent, []).append(process)
            # Nearly always a parent's number is lower, and the list is in order.
            if parent in known:
                known[process[0]] = process
                if enough is not None and len(known) > enough:
                    return list(known.values())[1:]
    found: list[tuple[int, int]] = []
    pending = [os.getpid()]
    while pending:
        below = children.get(pending.pop(), [])
        found += below
        pending += [pid for pid, _ in below]
    return found


def _tasks() -> int:
    """How many processes and threads this machine has, as far as that is quick to know."""
    try:
        with open("/proc/loadavg", "rb") as file:  # noqa: PTH123
            return int(file.read().split()[3].partition(b"/")[2])
    except (OSError, ValueError, IndexError):
        return 0


def _too_much(order: dict[str, Any], family: list[tuple[int, int]]) -> str | None:
    if len(family) > order["processes"]:
        return "processes"
    total = 0
    for pid, _ in family:
        try:
            with open(f"/proc/{pid}/statm", "rb") as file:  # noqa: PTH123
                fields = file.read().split()
            # Without what is shared: a page is counted once, roughly.
            total += (int(fields[1]) - int(fields[2])) * resource.getpagesize()
        except (OSError, IndexError, ValueError):
            continue  # it has ended meanwhile
    return "memory" if total > order["memory_bytes"] else None


def _wake(_number: int, _frame: object) -> None:
    """The byte that comes with the signal is all that is needed."""


def _tasks_of(order: dict[str, Any]) -> int:
    """How many processes and threads a command may have: the limit is of processes, and they have threads."""
    return 4 * int(order["processes"])


def _make_cgroup(tasks: int) -> str | None:
    """A control group within our own that holds no more than so many tasks, for root: no `RLIMIT_NPROC` holds it.

    None where the system gives us none; then there is only the supervisor's look.
    """
    if os.geteuid() != 0 or sys.platform != "linux":
        return None
    with contextlib.suppress(OSError), open("/proc/self/cgroup") as file:  # noqa: PTH123
        # See cgroups(7): a line is "number:controllers:path", without a controller in version 2.
        for line in file:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            if controllers not in ("", "pids"):
                continue
            cgroup = f"/sys/fs/cgroup/{controllers}{path.rstrip('/')}/pyflue-{os.getpid()}"
            with contextlib.suppress(FileExistsError):
                os.mkdir(cgroup)  # noqa: PTH102
            try:
                _write(f"{cgroup}/pids.max", str(tasks))
            except OSError:
                os.rmdir(cgroup)  # noqa: PTH106
            else:
                return cgroup
    return None


def _write(path: str, text: str) -> None:
    # `open` would make a file where the system has none of this name.
    file = os.open(path, os.O_WRONLY)
    try:
        os.write(file, text.encode())
    finally:
        os.close(file)


def _take_precedence() -> None:
    """Get a turn whenever it is time to look, among thousands of processes. For root, and if the system allows it."""
    if os.geteuid() == 0 and sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))


def _become_subreaper() -> bool:
    if sys.platform != "linux":
        return False
    return ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0


def _become_command(order: dict[str, Any], stdout: int, stderr: int, cgroup: str | None) -> None:
    try:
        if cgroup is not None:
            with contextlib.suppress(OSError):  # it cannot be joined: the supervisor looks, as where there is none
                _write(f"{cgroup}/cgroup.procs", "0")
        os.setsid()
        # So that the supervisor gets its turn, and whoever started it, however many processes this becomes.
        os.nice(5)
        signal.set_wakeup_fd(-1)
        for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(name, signal.SIG_DFL)
        os.fchdir(order["cwd_fd"])
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        passed: set[int] = set(order["pass_fds"])
        for fd in range(3, 256):
            if fd not in passed:
                with contextlib.suppress(OSError):
                    os.close(fd)
        for fd in passed:
            os.set_inheritable(fd, True)
        _limit(resource.RLIMIT_NPROC, _tasks() + _tasks_of(order))
        for name, value in order["rlimits"].items():
            _limit(getattr(resource, name, None), value)
        argv, env = order["argv"], order["env"]
        try:
            os.execvpe(argv[0], argv, env)  # noqa: S606  (the command itself)
        except OSError as error:
            code = 127 if error.errno in (errno.ENOENT, errno.ENOTDIR) else 126
            os.write(2, f"{argv[0]}: {error.strerror}\n".encode(errors="replace"))
            os._exit(code)
    except BaseException as error:  # noqa: BLE001  (whatever it is, this process must end here)
        os.write(2, f"The command could not be started: {error}\n".encode(errors="replace"))
        os._exit(126)


def _limit(kind: int | None, value: int) -> None:
    if kind is None:
        return
    hard = resource.getrlimit(kind)[1]
    wanted = value if hard == resource.RLIM_INFINITY else min(value, hard)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(kind, (wanted, wanted))


def _read_exactly(fd: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = os.read(fd, size - len(data))
        if not more:
            raise SystemExit(0)
        data += more
    return data


if __name__ == "__main__":
    main()
