"""Whether files have changed: by time stamp first, by content where that says they may have.

Called by the catalog. A time stamp alone misses two saves within one tick of the file system's clock, and sees a change
in a file that was only touched.
"""

from __future__ import annotations

import hashlib
import stat
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

#: A file that was changed this shortly before it was read may change again under the same time stamp.
_TICK_NS = 50_000_000

_Stamp: TypeAlias = tuple[int, int, int] | None


@dataclass(frozen=True, slots=True)
class FileState:
    """A file as it was at one time; or that there was none."""

    stamp: _Stamp
    digest: str
    #: Whether an equal stamp means equal content.
    is_settled: bool


def read_states(paths: Iterable[Path]) -> dict[Path, FileState]:
    """The present state of some files, existing or not."""
    return {path: _read(path) for path in paths}


def refresh_states(known: Mapping[Path, FileState]) -> dict[Path, FileState]:
    """The state of the same files now; those that look untouched are not read again."""
    return {
        path: state if state.is_settled and _stamp(path) == state.stamp else _read(path)
        for path, state in known.items()
    }


def is_same(one: Mapping[Path, FileState], other: Mapping[Path, FileState]) -> bool:
    """Whether the content of all files is the same."""
    return one.keys() == other.keys() and all(one[path].digest == other[path].digest for path in one)


def _read(path: Path) -> FileState:
    now_ns = time.time_ns()
    stamp = _stamp(path)
    if stamp is None:
        return FileState(None, "", is_settled=True)
    if path.is_dir():
        return FileState(stamp, "folder", is_settled=True)
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        return FileState(stamp, f"unreadable: {error.strerror}", is_settled=False)
    return FileState(stamp, digest, is_settled=stamp[0] < now_ns - _TICK_NS)


def _stamp(path: Path) -> _Stamp:
    try:
        status = path.stat()
    except OSError:
        return None
    if stat.S_ISDIR(status.st_mode):
        return (0, 0, status.st_ino)  # what is in a folder does not matter, only that it is one
    return (status.st_mtime_ns, status.st_size, status.st_ino)
