"""File locks that die with their process: who is alive, and whose turn it is to write.

Used by the SQLite journal only. Both kinds are `flock` locks on files of their own beside the database (never on the
database file: closing any descriptor of that one drops SQLite's own locks). The kernel frees them however a process
ends. filelock is not used here because it waits by polling at 50 ms and does not let a forked child give up the lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import weakref
from pathlib import Path

_POLL_S = 0.0005


class FileLock:
    """An exclusive lock on a file, made if it is missing. A forked child does not keep it alive."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        _open_locks.add(self)

    def try_acquire(self) -> bool:
        """Take the lock if it is free."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def is_on_disk(self) -> bool:
        """Whether the file still is the one of its name."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), self._path.stat())
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Give the lock back."""
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the file, which also gives the lock back."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


_open_locks: weakref.WeakSet[FileLock] = weakref.WeakSet()


def _close_in_child() -> None:
    # A lock belongs to the open file, which a forked child shares: it would keep a dead parent alive.
    for lock in list(_open_locks):
        lock.close()


os.register_at_fork(after_in_child=_close_in_child)


class Turnstile:
    """Lets the processes that write to one journal take turns, batch by batch.

    SQLite's own write lock has no queue: who asks again at once wins, and a busy process starves the others. Here a
    writer first takes its place (`queue`), then the pen (`pen`); whoever has just written has to queue again.
    """

    def __init__(self, folder: Path) -> None:
        self._queue = FileLock(folder / "turn.queue.lock")
        self._pen = FileLock(folder / "turn.pen.lock")

    def enter(self, timeout_s: float) -> bool:
        """Wait for this process's turn; False if it did not come in time."""
        deadline = time.monotonic() + timeout_s
        if not _poll(self._queue, deadline):
            return False
        try:
            return _poll(self._pen, deadline)
        finally:
            self._queue.release()

    def leave(self) -> None:
        """Let the next one write."""
        self._pen.release()

    def close(self) -> None:
        """Close both files."""
        self._queue.close()
        self._pen.close()


def _poll(lock: FileLock, deadline: float) -> bool:
    # flock has no timeout, and a process that was stopped while it held the pen must not stop this one for ever.
    while not lock.try_acquire():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_S)
    return True


class Roster:
    """Which engines are alive: each holds the lock of a file named after it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._own: dict[str, FileLock] = {}

    def enlist(self, engine_id: str) -> None:
        """Take the lock of an engine of this process."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        while True:
            lock = FileLock(self._path(engine_id))
            # Until it is locked, whoever tidies up may take the new file for that of a dead engine, and remove it.
            if lock.try_acquire() and lock.is_on_disk():
                break
            lock.close()
        self._own[engine_id] = lock

    def is_alive(self, engine_id: str) -> bool:
        """Whether the engine's process still runs (a stopped process counts as running)."""
        if engine_id in self._own:
            return True
        path = self._path(engine_id)
        if not path.exists():
            return False
        lock = FileLock(path)
        try:
            # Without its file an engine counts as dead: deleting it is how a hung engine is declared so.
            return not lock.try_acquire() and path.exists()
        finally:
            lock.close()

    def anyone_else(self) -> bool:
        """Whether an engine of another process is alive."""
        names = [path.stem for path in self._folder.glob("*.lock")] if self._folder.is_dir() else []
        return any(name not in self._own and self.is_alive(name) for name in names)

    def forget_dead(self, still_named: set[str]) -> None:
        """Remove the files of dead engines that no run names any more."""
        if not self._folder.is_dir():
            return
        for path in self._folder.glob("*.lock"):
            if path.stem not in still_named and not self.is_alive(path.stem):
                with contextlib.suppress(FileNotFoundError):
                    path.unlink()

    def close(self) -> None:
        """Let go of every engine of this process."""
        for engine_id, lock in self._own.items():
            with contextlib.suppress(FileNotFoundError):
                self._path(engine_id).unlink()
            lock.close()
        self._own.clear()

    def _path(self, engine_id: str) -> Path:
        return self._folder / f"{engine_id}.lock"
