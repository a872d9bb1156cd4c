"""A folder of the host as a sandbox's files: each name is opened by itself, and the system follows no link.

Used, in worker threads, by the local and the isolated sandbox. A path is walked part by part with descriptors of the
folders on it. A link is read, and walked in the same way from where it stands; so a link inside of the folder works,
one that leads out is refused, and one that is put there meanwhile changes nothing: what was opened is what was checked.
Devices and pipes are never opened: a file is first opened as a mere place (`O_PATH`) and looked at.

A file with further names (hard links) is read like any other: where its other names are cannot be known, and package
managers make them by the thousand. Writing replaces a file by a new one, so its other names keep the old content.

`.pyflue` does not exist for it, at any depth.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat as stats
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ...errors import TooLarge
from .limits import SandboxLimits
from .paths import escaping, fits, is_hidden, joined, name_pattern, parts_of, pattern_parts, refused, relative
from .port import WORKSPACE, FileInfo, Match
from .searching import search

_MOST_LINKS = 40
_MOST_DEPTH = 100
_PLACE = getattr(os, "O_PATH", os.O_RDONLY) | os.O_CLOEXEC | os.O_NOFOLLOW
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """A name in an open folder; no name means that folder itself. `info` is what is there."""

    parent_fd: int
    name: str | None
    path: str
    info: os.stat_result | None


class Folder:
    """File methods of the port, blocking, on one folder of the host."""

    def __init__(self, root: Path, *, cwd: str = WORKSPACE, limits: SandboxLimits) -> None:
        self._root = Path(os.path.abspath(root))  # noqa: PTH100  (`resolve` would follow links)
        self._tops = (WORKSPACE, str(self._root))
        self._cwd = cwd
        self._limits = limits

    @property
    def root(self) -> Path:
        return self._root

    def make(self) -> None:
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        _, names = parts_of(self._cwd, cwd=WORKSPACE, tops=self._tops)
        if names:
            self.mkdir(self._cwd, parents=True)

    def open_folder(self, path: str) -> tuple[int, str]:
        """A descriptor of a folder, which the caller gives to `close_folder`, and its path in the sandbox."""
        with self._place(path, follow=True) as place:
            return self._open_folder(place, path), place.path

    @staticmethod
    def close_folder(fd: int) -> None:
        os.close(fd)

    @contextmanager
    def _opened_folder(self, path: str) -> Generator[tuple[int, str]]:
        fd, shown = self.open_folder(path)
        try:
            yield fd, shown
        finally:
            os.close(fd)

    def read_bytes(self, path: str, limit_bytes: int | None) -> bytes:
        with self._place(path, follow=True) as place:
            return self._read(place, path, limit_bytes)

    def _read(self, place: _Place, path: str, limit_bytes: int | None) -> bytes:
        if place.info is None:
            raise FileNotFoundError(f"There is no {path}.")
        if place.name is None:
            raise IsADirectoryError(f"{path} is a folder.")
        _check_is_file(place.info, path)
        at = _opened_place(place.name, place.parent_fd, path)
        try:
            info = os.fstat(at)
            _check_is_file(info, path)
            most = self._limits.file_bytes
            if limit_bytes is None and info.st_size > most:
                raise TooLarge(f"The file {path}", info.st_size, most, "sandbox.file_bytes")
            fd = _reopened(at, place.name, place.parent_fd)
            try:
                data = _read_all(fd, most + 1 if limit_bytes is None else limit_bytes)
            finally:
                os.close(fd)
        finally:
            os.close(at)
        if limit_bytes is None and len(data) > most:
            raise TooLarge(f"The file {path}", None, most, "sandbox.file_bytes")
        return data

    def write_bytes(self, path: str, data: bytes) -> None:
        if len(data) > self._limits.file_bytes:
            raise TooLarge(f"The file {path}", len(data), self._limits.file_bytes, "sandbox.file_bytes")
        with self._place(path, follow=True, make_parents=True) as place:
            if place.name is None:
                raise IsADirectoryError(f"{path} is a folder.")
            mode = 0o644
            if place.info is not None:
                _check_is_file(place.info, path)
                mode = stats.S_IMODE(place.info.st_mode) & 0o777
            # Under another name first: readers see the old file or the new one, and a link is replaced, not followed.
            new = f".{secrets.token_hex(8)}.new"
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(new, flags, 0o600, dir_fd=place.parent_fd)
            try:
                try:
                    _write_all(fd, data)
                    os.fchmod(fd, mode)
                finally:
                    os.close(fd)
                os.rename(new, place.name, src_dir_fd=place.parent_fd, dst_dir_fd=place.parent_fd)
            except BaseException:
                with suppress(OSError):
                    os.unlink(new, dir_fd=place.parent_fd)
                raise

    def stat(self, path: str) -> FileInfo:
        with self._place(path, follow=False) as place:
            if place.info is None:
                raise FileNotFoundError(f"There is no {path}.")
            return _info(place.path, place.info)

    def list_folder(self, path: str) -> list[FileInfo]:
        with self._opened_folder(path) as (fd, shown):
            names = reversed(_names(fd))
            looks = [(name, _look(name, fd)) for name in names]
            return [_info(f"{shown}/{_shown(name)}", info) for name, info in looks if info is not None]

    def mkdir(self, path: str, *, parents: bool) -> None:
        with self._place(path, follow=True, make_parents=parents) as place:
            is_folder = place.info is not None and stats.S_ISDIR(place.info.st_mode)
            if parents and is_folder:
                return
            if place.name is None or place.info is not None:
                raise FileExistsError(f"{path} is there already.")
            os.mkdir(place.name, 0o755, dir_fd=place.parent_fd)

    def remove(self, path: str, *, recursive: bool) -> None:
        with self._place(path, follow=False) as place:
            if place.name is None:
                raise refused(path, "is the workspace itself", "Remove what is in it.")
            if place.info is None:
                raise FileNotFoundError(f"There is no {path}.")
            if not stats.S_ISDIR(place.info.st_mode):
                os.unlink(place.name, dir_fd=place.parent_fd)
            elif recursive:
                # Works with descriptors, and does not enter a link that takes the folder's place.
                shutil.rmtree(place.name, dir_fd=place.parent_fd)
            else:
                os.rmdir(place.name, dir_fd=place.parent_fd)

    def glob(self, pattern: str, limit: int) -> list[str]:
        parts = pattern_parts(pattern, cwd=self._cwd)
        found: list[str] = []
        with self._opened_folder(self._cwd) as (fd, _):
            for path, _, _, info in self._below(fd, self._cwd):
                shown = relative(path, self._cwd)
                if stats.S_ISREG(info.st_mode) and fits(shown, parts):
                    found.append(shown)
        return sorted(found)[:limit]

    def grep(self, pattern: str, path: str, include: str | None, limit: int) -> list[Match]:
        with self._place(path, follow=True) as place:
            if place.info is None:
                raise FileNotFoundError(f"There is no {path}.")
            if not stats.S_ISDIR(place.info.st_mode):
                data = self._read(place, path, None)
                wanted = include is None or name_pattern(include).match(place.path.rpartition("/")[2])
                return search(pattern, [(relative(place.path, self._cwd), data)] if wanted else [], limit)
            fd = self._open_folder(place, path)
            try:
                return search(pattern, self._searched(fd, place.path, include), limit)
            finally:
                os.close(fd)

    def _searched(self, fd: int, top: str, include: str | None) -> Iterator[tuple[str, bytes]]:
        wanted = None if include is None else name_pattern(include)
        left = self._limits.searched_bytes
        for path, folder, name, info in self._below(fd, top):
            if not stats.S_ISREG(info.st_mode) or (wanted is not None and not wanted.match(name)):
                continue
            if info.st_size > left:
                continue
            place = _Place(parent_fd=folder, name=name, path=path, info=info)
            try:
                data = self._read(place, path, left)
            except (OSError, TooLarge):
                continue  # deleted or made something else meanwhile, or not ours to read
            left -= len(data)
            yield relative(path, self._cwd), data

    def _below(self, fd: int, top: str) -> Iterator[tuple[str, int, str, os.stat_result]]:
        """Path, folder, name and state of all below a folder, in order of their names, links not followed."""
        left = self._limits.searched_entries
        pending = [(top, fd, _names(fd))]
        try:
            while pending and left > 0:
                path, folder, names = pending[-1]
                if not names:
                    pending.pop()
                    if folder != fd:
                        os.close(folder)
                    continue
                name = names.pop()
                info = _look(name, folder)
                if info is None:
                    continue
                left -= 1
                below = f"{path}/{_shown(name)}"
                yield below, folder, name, info
                if stats.S_ISDIR(info.st_mode) and len(pending) < _MOST_DEPTH:
                    try:
                        inner = os.open(name, _FOLDER, dir_fd=folder)
                    except OSError:
                        continue  # deleted or replaced meanwhile, or not ours to read
                    pending.append((below, inner, _names(inner)))
        finally:
            for _, folder, _ in pending:
                if folder != fd:
                    os.close(folder)

    @contextmanager
    def _place(self, path: str, *, follow: bool, make_parents: bool = False) -> Generator[_Place]:
        """Where a path leads, link by link. Only its last part may be missing (or more, with `make_parents`)."""
        _, names = parts_of(path, cwd=self._cwd, tops=self._tops)
        pending = list(reversed(names))
        # The folders that were come through, the top first; going up is going back.
        folders = [os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)]
        at: list[str] = []
        try:
            links = 0
            last: str | None = None
            info: os.stat_result | None = None
            while pending:
                name = pending.pop()
                if name == "..":
                    if len(folders) == 1:
                        raise escaping(path)
                    os.close(folders.pop())
                    at.pop()
                    continue
                info = _look(name, folders[-1])
                if info is not None and stats.S_ISLNK(info.st_mode) and (pending or follow):
                    links += 1
                    if links > _MOST_LINKS:
                        raise refused(path, "leads through too many links")
                    target = self._target(name, folders[-1], path)
                    if target.startswith("/"):
                        _, target_names = parts_of(target, cwd=WORKSPACE, tops=self._tops)
                        while len(folders) > 1:
                            os.close(folders.pop())
                        at.clear()
                    else:
                        target_names = [part for part in target.split("/") if part not in ("", ".")]
                    pending.extend(reversed(target_names))
                    info = None
                    continue
                if not pending:
                    last = name
                    break
                if info is None:
                    if not make_parents or is_hidden(name):
                        raise FileNotFoundError(f"There is no {path}.")
                    with suppress(FileExistsError):
                        os.mkdir(name, 0o755, dir_fd=folders[-1])
                folders.append(_entered(name, folders[-1], joined(WORKSPACE, [*at, name])))
                if len(folders) > _MOST_DEPTH:
                    raise refused(path, "is too deep")
                at.append(name)
            if last is None:
                # The top, or what ended with `..`: the folder that was come to.
                info = os.fstat(folders[-1])
            yield _Place(
                parent_fd=folders[-1],
                name=last,
                path=joined(WORKSPACE, at if last is None else [*at, last]),
                info=info,
            )
        finally:
            for fd in folders:
                os.close(fd)

    def _target(self, name: str, folder: int, path: str) -> str:
        try:
            return os.readlink(name, dir_fd=folder)
        except FileNotFoundError:
            raise
        except OSError:
            raise refused(path, "was changed while it was looked at", "Try again.") from None

    def _open_folder(self, place: _Place, path: str) -> int:
        if place.info is None:
            raise FileNotFoundError(f"There is no {path}.")
        if place.name is None:
            return os.open(".", _FOLDER, dir_fd=place.parent_fd)
        try:
            return os.open(place.name, _FOLDER, dir_fd=place.parent_fd)
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                raise NotADirectoryError(f"{path} is not a folder.") from None
            raise


def _look(name: str, folder: int) -> os.stat_result | None:
    """What is at a name in a folder, if anything that a sandbox has is."""
    if is_hidden(name):
        return None
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _entered(name: str, folder: int, shown: str) -> int:
    try:
        # Links are gone by now; one that was put here just now is not followed.
        return os.open(name, _PLACE | os.O_DIRECTORY, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            raise NotADirectoryError(f"{shown} is not a folder.") from None
        raise


def _opened_place(name: str, folder: int, path: str) -> int:
    try:
        return os.open(name, _PLACE | os.O_NONBLOCK, dir_fd=folder)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise refused(path, "was changed while it was looked at", "Try again.") from None
        raise


def _reopened(at: int, name: str, folder: int) -> int:
    """Open for reading exactly what was looked at."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    if hasattr(os, "O_PATH"):
        return os.open(f"/proc/self/fd/{at}", flags)
    return os.open(name, flags | os.O_NOFOLLOW, dir_fd=folder)


def _check_is_file(info: os.stat_result, path: str) -> None:
    if stats.S_ISDIR(info.st_mode):
        raise IsADirectoryError(f"{path} is a folder.")
    if stats.S_ISLNK(info.st_mode):
        raise refused(path, "was changed while it was looked at", "Try again.")
    if not stats.S_ISREG(info.st_mode):
        raise refused(path, "is a device, a pipe or a socket", "Only files and folders can be used.")


def _names(folder: int) -> list[str]:
    """What is in a folder, the last name first."""
    return sorted((name for name in os.listdir(folder) if not is_hidden(name)), reverse=True)


def _read_all(fd: int, most_bytes: int) -> bytes:
    data = bytearray()
    while len(data) < most_bytes:
        more = os.read(fd, min(_CHUNK_BYTES, most_bytes - len(data)))
        if not more:
            break
        data += more
    return bytes(data)


def _write_all(fd: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]


def _shown(name: str) -> str:
    """A name as text: the bytes of one that is not UTF-8 are replaced, for it has to fit into JSON."""
    return os.fsencode(name).decode(errors="replace")


def _info(path: str, info: os.stat_result) -> FileInfo:
    return FileInfo(
        path=path,
        is_file=stats.S_ISREG(info.st_mode),
        is_folder=stats.S_ISDIR(info.st_mode),
        is_link=stats.S_ISLNK(info.st_mode),
        size_bytes=info.st_size,
        modified_at=datetime.fromtimestamp(info.st_mtime, UTC),
        mode=stats.S_IMODE(info.st_mode),
    )
