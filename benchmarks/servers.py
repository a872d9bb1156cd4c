"""Starts the three servers that are compared, each in a process of its own, and stops them again.

Each is a context manager that gives the URL to post to: `ours` (the `pyflue serve` command with its SQLite journal on
disk), `bare` (a Starlette JSON echo) and `previous` (pyflue 0.2.0 in memory).
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from . import previous, talking

_HERE = Path(__file__).parent
_START_S = 30.0
_STOP_S = 20.0

PYFLUE = Path(sys.executable).with_name("pyflue")


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server of ours that answers."""

    origin: str
    pid: int
    #: From the start of its process to its first answer.
    start_s: float


@contextmanager
def fresh_project() -> Generator[Path]:
    """A copy of `benchmarks/project` without a past, on the disk this repository is on (`/tmp` may be memory)."""
    with tempfile.TemporaryDirectory(prefix="project-", dir=_HERE / "results") as folder:
        project = Path(folder) / "project"
        shutil.copytree(_HERE / "project", project, ignore=shutil.ignore_patterns(".pyflue", "__pycache__"))
        yield project


@contextmanager
def ours() -> Generator[str]:
    """`pyflue serve` on a fresh project."""
    with fresh_project() as project, serving(project) as url:
        yield url


@contextmanager
def serving(project: Path) -> Generator[str]:
    """`pyflue serve` on a project; several may serve the same one."""
    with server(project) as started:
        yield f"{started.origin}/workflows/echo?wait=result"


@contextmanager
def server(project: Path, *, end: signal.Signals = signal.SIGTERM) -> Generator[Server]:
    """`pyflue serve` on a project, ended by that signal."""
    with _listening_socket() as probe:
        port = probe.getsockname()[1]
    environ = {**os.environ, "PYFLUE_SERVER_PORT": str(port), "PYFLUE_SERVER_HOST": "127.0.0.1"}
    origin = f"http://127.0.0.1:{port}"
    started = time.perf_counter()
    with _process([str(PYFLUE), "serve"], cwd=project, environ=environ, end=end) as process:
        _await_answer(origin, process)
        yield Server(origin=origin, pid=process.pid, start_s=time.perf_counter() - started)


@contextmanager
def bare() -> Generator[str]:
    """The bare echo under our interpreter."""
    with _asgi(Path(sys.executable), "bare_echo:app") as origin:
        yield f"{origin}/echo"


@contextmanager
def previous_release() -> Generator[str]:
    """pyflue 0.2.0 with its in-memory run store, under its own interpreter."""
    with _asgi(previous.python(), "--factory", "pyflue.server:create_app") as origin:
        yield f"{origin}/workflows/echo?wait=result"


SERVERS: dict[str, Callable[[], AbstractContextManager[str]]] = {
    "ours": ours,
    "bare": bare,
    "previous": previous_release,
}


@contextmanager
def _asgi(interpreter: Path, *application: str) -> Generator[str]:
    with fresh_project() as project, _listening_socket() as listener:
        script = [str(interpreter), str(_HERE / "serve_asgi.py"), *application, str(listener.fileno())]
        with _process(script, cwd=project, environ=dict(os.environ), keep=listener.fileno()):
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def _listening_socket() -> Generator[socket.socket]:
    with socket.socket() as listener:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen(2048)
        yield listener


@contextmanager
def _process(
    arguments: list[str],
    *,
    cwd: Path,
    environ: dict[str, str],
    keep: int | None = None,
    end: signal.Signals = signal.SIGTERM,
) -> Generator[subprocess.Popen[bytes]]:
    # What a server says at its start is no news here; if it ends by itself, its last words are.
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            arguments,
            cwd=cwd,
            env=environ,
            pass_fds=() if keep is None else (keep,),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
        )
        try:
            yield process
        finally:
            ended_by_itself = process.poll() is not None
            _stop(process, end)
            if ended_by_itself:
                log.seek(0)
                print(f"{' '.join(arguments)} ended by itself:\n{log.read().decode(errors='replace')}", file=sys.stderr)


def _stop(process: subprocess.Popen[bytes], end: signal.Signals) -> None:
    process.send_signal(end)
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _await_answer(origin: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            talking.get(origin, "/health")
        except OSError:
            time.sleep(0.01)
        else:
            return
    sys.exit(f"The server at {origin} did not start.")
