"""The SQLite file: opening it safely, its schema, and SQLite's errors in our words.

Used by `sqlite.py` only. Knows connections and pragmas, not runs.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import apsw

from ..errors import (
    JournalBusy,
    JournalError,
    JournalFull,
    JournalReadOnly,
    JournalTooNew,
    JournalUnreadable,
    JournalUnsupported,
)
from .queries import load_migrations


class Cursor(Protocol):
    """What a statement returned."""

    def __iter__(self) -> Iterator[tuple[Any, ...]]: ...
    def fetchone(self) -> tuple[Any, ...] | None: ...
    @property
    def get(self) -> Any: ...


class Database(Protocol):
    """The part of `apsw.Connection` that we use (its own stubs leave the type of a binding unknown)."""

    @property
    def in_transaction(self) -> bool: ...
    def execute(
        self, statements: str, bindings: Sequence[Any] | Mapping[str, Any] | None = None, /, *, can_cache: bool = True
    ) -> Cursor: ...
    def executemany(self, statements: str, bindings: Sequence[Sequence[Any] | Mapping[str, Any]], /) -> Cursor: ...
    def pragma(self, name: str, value: Any = None, /) -> Any: ...
    def last_insert_rowid(self) -> int: ...
    def changes(self) -> int: ...
    def total_changes(self) -> int: ...
    def set_busy_timeout(self, milliseconds: int, /) -> None: ...
    def set_wal_hook(self, hook: Callable[[Any, str, int], int], /) -> None: ...
    def wal_autocheckpoint(self, n: int, /) -> None: ...
    def wal_checkpoint(self, dbname: str | None = None, mode: int = ...) -> tuple[int, int]: ...
    def backup(self, databasename: str, source: Any, source_name: str, /) -> Any: ...
    def close(self) -> None: ...


#: "PyFl" in the file's header: `file journal.db` shows it, and another program's database is not taken for ours.
APPLICATION_ID = 0x5079466C
_RETRY_S = 0.01
_NETWORK_FILE_SYSTEMS = re.compile(
    r"nfs\d?|cifs|smb\d?|smbfs|9p|afs|ceph|lustre|glusterfs|fuse\.(sshfs|glusterfs|s3fs)"
)


def prepare_file(path: Path) -> None:
    """Make the folder and an empty file, readable by its owner only, where there is none.

    A path that is not UTF-8 is refused: SQLite knows no other.

    Raises:
        JournalReadOnly: the folder or the file cannot be written.
        JournalUnsupported: the path is not UTF-8, or on a network file system, where SQLite's locks do not hold.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        shown = str(path).encode(errors="backslashreplace").decode()
        raise JournalUnsupported(shown, "the path is not UTF-8") from None
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise JournalReadOnly(str(path.parent), error.strerror or str(error)) from error
    kind = file_system_of(path.parent)
    if _NETWORK_FILE_SYSTEMS.fullmatch(kind):
        raise JournalUnsupported(str(path), f"{kind} is a network file system, whose locks SQLite cannot rely on")
    try:
        # The mode is given at creation, so that no umask opens the file to others; SQLite gives its companions the
        # same one. An existing file is left alone: opening and closing it here would drop SQLite's locks on it.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        if not os.access(path, os.W_OK):
            raise JournalReadOnly(str(path), "permission denied") from None
        if not os.access(path.parent, os.W_OK):
            raise JournalReadOnly(str(path.parent), "permission denied") from None
    except OSError as error:
        raise JournalReadOnly(str(path), error.strerror or str(error)) from error


def file_system_of(folder: Path) -> str:
    """The type of the file system a folder is on, as the kernel's mount table names it; empty where unknown."""
    try:
        table = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    place = str(folder.resolve())
    best, kind = "", ""
    for line in table.splitlines():
        _, mount, type_, *_ = line.split(" ")
        mount = mount.replace("\\040", " ").rstrip("/")
        if len(mount) >= len(best) and (place == mount or place.startswith(mount + "/")):
            best, kind = mount, type_
    return kind


def connect(name: str, *, read_only: bool, busy_timeout_s: float) -> Database:
    """A connection with our pragmas.

    Raises:
        JournalUnreadable, JournalReadOnly, JournalBusy.
    """
    flags = apsw.SQLITE_OPEN_URI | (apsw.SQLITE_OPEN_READONLY if read_only else apsw.SQLITE_OPEN_READWRITE)
    if name.startswith("file:"):
        flags |= apsw.SQLITE_OPEN_CREATE
    try:
        connection = cast("Database", apsw.Connection(name, flags=flags, statementcachesize=128))
        connection.set_busy_timeout(int(busy_timeout_s * 1000))
        connection.pragma("foreign_keys", True)
        connection.pragma("temp_store", "memory")
    except apsw.Error as error:
        raise translate(name, error, busy_timeout_s) from error
    return connection


def translate(path: str, error: Exception, busy_timeout_s: float) -> Exception:
    """SQLite's error as one of ours; anything that is no SQLite error comes back as it is."""
    match error:
        case apsw.FullError():
            return JournalFull(path)
        case apsw.BusyError() | apsw.LockedError():
            return JournalBusy(path, busy_timeout_s)
        case apsw.CorruptError() | apsw.NotADBError() | apsw.FormatError():
            return JournalUnreadable(path, str(error).removeprefix(f"{type(error).__name__}: "))
        case apsw.ReadOnlyError() | apsw.PermissionsError() | apsw.AuthError():
            return JournalReadOnly(path, str(error).removeprefix(f"{type(error).__name__}: "))
        case apsw.CantOpenError():
            return JournalUnreadable(path, "the file cannot be opened")
        case apsw.IOError():
            return JournalError(f"Reading or writing {path} failed: {error}.", hint="Check the disk.")
        case apsw.Error():
            return JournalError(f"The journal {path} could not do this: {error}.")
        case _:
            return error


def use_wal(connection: Database, path: str, *, timeout_s: float) -> None:
    """Let the file have a write-ahead log, unless it has one.

    Raises:
        JournalTooNew, JournalUnreadable: it is not one this program may use. Nothing was changed.
        apsw.BusyError: another process has held it for so long.
    """
    deadline = time.monotonic() + timeout_s
    while str(connection.pragma("journal_mode")) != "wal":
        check_schema(connection, path)  # before the first change to a stranger's file
        try:
            connection.pragma("journal_mode", "wal")
        except apsw.BusyError:
            # SQLite does not wait for this lock. Another process that opens the same new file is about to be done.
            if time.monotonic() >= deadline:
                raise
            time.sleep(_RETRY_S)


def migrate(connection: Database, path: str, *, is_in_use: Callable[[], bool]) -> None:
    """Bring the schema to the newest version, in one transaction; an existing journal is copied beside itself first.

    Raises:
        JournalTooNew: a newer PyFlue wrote it. Nothing was changed.
        JournalUnreadable: it is not a journal.
        JournalBusy: another engine uses it; it has to stop first.
    """
    scripts = load_migrations("sqlite")
    if check_schema(connection, path) == len(scripts):
        return
    if (version := check_schema(connection, path)) > 0:
        if is_in_use():
            raise JournalBusy(path, 0)
        copy(connection, Path(f"{path}.schema-{version}.backup"))
    connection.execute("BEGIN EXCLUSIVE")
    try:
        # Read again under the lock: another process may have done it meanwhile.
        version = check_schema(connection, path)
        if version < len(scripts):
            for script in scripts[version:]:
                connection.execute(script)
            connection.pragma("application_id", APPLICATION_ID)
            connection.pragma("user_version", len(scripts))
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def copy(connection: Database, target: Path) -> int:
    """Write a consistent copy to a file, as SQLite itself does it; returns its size in bytes.

    Raises:
        JournalReadOnly: the target cannot be written.
    """
    prepare_file(target)
    copied = connect(str(target), read_only=False, busy_timeout_s=0)
    try:
        with copied.backup("main", connection, "main") as backup:
            backup.step(-1)  # in one go: between steps, each commit of another process would start it over
        copied.pragma("journal_mode", "delete")
    finally:
        copied.close()
    return target.stat().st_size


def check_schema(connection: Database, path: str) -> int:
    """The schema version of the file, 0 if it is new.

    Raises:
        JournalTooNew, JournalUnreadable: it is not one this program may use.
    """
    version = int(connection.pragma("user_version"))
    application = int(connection.pragma("application_id"))
    newest = len(load_migrations("sqlite"))
    is_empty = connection.execute("SELECT count(*) FROM sqlite_schema").get == 0
    if application != APPLICATION_ID and not is_empty:
        raise JournalUnreadable(path, "it is a database of another program")
    if version > newest:
        raise JournalTooNew(path, version, newest)
    return version


def is_outdated(connection: Database, path: str) -> bool:
    """Whether a journal waits for its migration.

    Raises:
        JournalTooNew, JournalUnreadable: it is not one this program may use.
    """
    return 0 < check_schema(connection, path) < len(load_migrations("sqlite"))


def find_problems(connection: Database, *, thorough: bool) -> list[str]:
    """What SQLite finds wrong with the file; `thorough` also compares indexes with tables."""
    pragma = "integrity_check" if thorough else "quick_check"
    try:
        # One problem a line, or several lines in one row, depending on where it was found.
        found = [str(row[0]) for row in connection.execute(f"PRAGMA {pragma}(20)")]
        rows = [line for text in found for line in text.splitlines() if not line.startswith("***")]
    except apsw.Error as error:
        return [str(error)]
    return [] if rows == ["ok"] else rows
