"""Conversations, workspaces and streams of agents' instances on SQLite.

`SqliteConversations` lives in the writer thread beside `SqliteWrites`, which makes it at first use; its verbs run
inside the writer's open transaction. `ConversationRows` reads, on any connection. A run without agents never imports
this.

What a step leaves belongs to the stream of its run (`ids.stream_of`): the run itself, or the instance of an agent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .. import ids
from ..clock import to_datetime
from ..codec import Raw
from . import sqlite_rows
from .conversations import Attached, Entry, FileRecord, FileVersion, SessionInfo, StreamInfo
from .records import Page
from .sqlite_file import Database
from .sqlite_many import ManyRows

if TYPE_CHECKING:
    from .sqlite_writes import SqliteWrites

_NEWEST = 2**62
#: Of so many sessions the place of the last entry is kept.
_MOST_SESSIONS = 10_000


class SqliteConversations:
    """Writes conversations, workspaces and streams. Used by one thread."""

    def __init__(self, writes: SqliteWrites) -> None:
        self._writes = writes
        self._sql = writes.sql
        self._add_entries = ManyRows(writes.sql["add_entry"])
        #: The place of the last entry of sessions, for as long as nothing else may have written some.
        self._last_entries: dict[tuple[str, str], int] = {}
        writes.on_forget.append(self._last_entries.clear)

    @property
    def _db(self) -> Database:
        return self._writes.db

    def add_stream(self, stream_id: str, at_us: int) -> None:
        """Make the stream of an agent's instance, unless it is there."""
        _, agent, _ = stream_id.split(":")
        self._writes.connection.execute(self._sql["add_stream"], {"stream_id": stream_id, "agent": agent, "at": at_us})

    def attach(self, run_id: str, step_key: str, index: int, attached: Attached) -> None:
        """Record what a step left, with the step that has just been recorded under this index."""
        stream_id = ids.stream_of(run_id)
        self._writes.leave_room(_size_of(attached))
        if attached.entries:
            now = self._writes.clock.now_us()
            self._writes.entry_rows += [
                (stream_id, new.session, run_id, step_key, now, sqlite_rows.text(new.entry)) for new in attached.entries
            ]
        for file in attached.files:
            digest = None
            if file.data is not None:
                digest = _content_name(file.data)
                self._writes.connection.execute(
                    self._sql["put_blob"], {"stream_id": stream_id, "digest": digest, "data": file.data}
                )
            self._writes.file_rows.append(
                (
                    stream_id, file.workspace, file.path, run_id, step_key, index, _kind_of(file), file.mode,
                    file.target, digest,
                )
            )  # fmt: skip
        if attached.usage is not None:
            self._writes.set_usage(run_id, sqlite_rows.text(attached.usage))
        if attached.entries or attached.files:
            self._writes.touch(stream_id)

    def write_entries(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Write entries, the place in their session still to be given."""
        numbered: list[tuple[Any, ...]] = []
        last = self._last_entries
        for row in rows:
            session = row[:2]
            position = last.get(session)
            if position is None:
                position = int(self._writes.connection.execute(self._sql["last_entry"], session).get)
            last[session] = position + 1
            numbered.append((*session, position + 1, *row[2:]))
        self._add_entries.write(self._writes.connection, numbered)
        if len(last) > _MOST_SESSIONS:
            last.clear()

    def write_files(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Write rows of `add_file`. The stream of an instance keeps the newest version of each path only."""
        self._writes.connection.executemany(self._sql["add_file"], rows)
        # Nothing can begin from an earlier state of an instance, as a retry or a fork of a run does.
        for path in {row[:3] for row in rows if row[0] != row[3]}:
            older = [digest for (digest,) in self._writes.connection.execute(self._sql["forget_older_files"], path)]
            self._forget_contents(path[0], older)

    def forget(self, run_id: str) -> None:
        """Forget what the steps of a run have left, so that it begins anew."""
        bindings = {"stream_id": ids.stream_of(run_id), "run_id": run_id}
        self._db.execute(self._sql["forget_entries_of_run"], bindings)
        digests = [digest for (digest,) in self._db.execute(self._sql["forget_files_of_run"], bindings)]
        self._forget_contents(bindings["stream_id"], digests)

    def delete_session(self, stream_id: str, session: str) -> int:
        self._writes.flush()
        self._db.execute(self._sql["delete_session"], {"stream_id": stream_id, "session": session})
        count = self._db.changes()
        if count:
            self._writes.touch(stream_id)
        return count

    def delete_stream(self, stream_id: str) -> bool | None:
        bindings = {"stream_id": stream_id}
        if self._db.execute(self._sql["stream"], bindings).fetchone() is None:
            return None
        if self._db.execute(self._sql["has_unfinished_interactions"], bindings).get:
            return False
        for (run_id,) in list(self._db.execute(self._sql["all_interactions"], bindings)):
            self._writes.delete_whole(run_id)
        self._writes.flush()
        for statement in ("delete_events", "delete_blobs", "delete_entries", "delete_files"):
            self._db.execute(self._sql[statement], {"run_id": stream_id})
        self._db.execute(self._sql["delete_stream"], bindings)
        self._writes.touch(stream_id)
        return True

    def _forget_contents(self, stream_id: str, digests: Iterable[str | None]) -> None:
        for digest in {digest for digest in digests if digest is not None}:
            self._writes.connection.execute(self._sql["forget_content"], (stream_id, digest))


class ConversationRows:
    """Reads conversations, workspaces and streams through one connection."""

    def __init__(self, db: Database, sql: Mapping[str, str]) -> None:
        self._db = db
        self._sql = sql

    def entries(self, stream_id: str, session: str, after: int, limit: int, limit_bytes: int | None) -> list[Entry]:
        bindings = {"stream_id": stream_id, "session": session, "after": after, "limit": limit}
        entries: list[Entry] = []
        left = _NEWEST if limit_bytes is None else limit_bytes
        for row in self._db.execute(self._sql["entries"], bindings):
            entry = _to_entry(row)
            entries.append(entry)
            left -= len(memoryview(entry.entry))
            if left <= 0:
                break
        return entries

    def sessions(self, stream_id: str) -> list[SessionInfo]:
        return [
            SessionInfo(
                session=session,
                entries=entries,
                created_at=to_datetime(created_at),
                updated_at=to_datetime(updated_at),
            )
            for session, entries, created_at, updated_at in self._db.execute(
                self._sql["sessions"], {"stream_id": stream_id}
            )
        ]

    def files(self, stream_id: str, workspace: str) -> list[FileVersion]:
        bindings = {"stream_id": stream_id, "workspace": workspace}
        return [_to_file(row) for row in self._db.execute(self._sql["files"], bindings)]

    def stream(self, stream_id: str) -> StreamInfo | None:
        row = self._db.execute(self._sql["stream"], {"stream_id": stream_id}).fetchone()
        return None if row is None else _to_stream(row)

    def streams(self, agent: str, before: int | None, limit: int) -> list[StreamInfo]:
        bindings = {"agent": agent, "before": _NEWEST if before is None else before, "limit": limit}
        return [_to_stream(row) for row in self._db.execute(self._sql["streams"], bindings)]

    def interactions(self, stream_id: str, before: int | None, limit: int) -> Page:
        bindings = {"stream_id": stream_id, "before": _NEWEST if before is None else before, "limit": limit + 1}
        runs = [sqlite_rows.to_run(row) for row in self._db.execute(self._sql["interactions"], bindings)]
        return sqlite_rows.to_page(runs, limit)


def _to_entry(row: tuple[Any, ...]) -> Entry:
    stream_id, session, position, run_id, step_key, at, entry = row
    return Entry(
        stream_id=stream_id,
        session=session,
        position=position,
        run_id=run_id,
        step_key=step_key,
        entry=Raw(entry.encode()),
        at=to_datetime(at),
    )


def _to_file(row: tuple[Any, ...]) -> FileVersion:
    position, run_id, step_key, recorded_index, workspace, path, kind, mode, target, data = row
    file = FileRecord(workspace=workspace, path=path, is_gone=kind == "gone", data=data, target=target, mode=mode)
    return FileVersion(position=position, run_id=run_id, step_key=step_key, recorded_index=recorded_index, file=file)


def _to_stream(row: tuple[Any, ...]) -> StreamInfo:
    seq, stream_id, last_index, created_at, updated_at = row
    return StreamInfo(
        seq=seq,
        stream_id=stream_id,
        last_index=last_index,
        created_at=to_datetime(created_at),
        updated_at=to_datetime(updated_at),
    )


def _kind_of(file: FileRecord) -> str:
    if file.is_gone:
        return "gone"
    if file.data is not None:
        return "file"
    return "folder" if file.target is None else "link"


def _content_name(data: bytes) -> str:
    # Not the name of a value with the same bytes: contents of files go when no version has them any more.
    return f"file:sha256:{hashlib.sha256(data).hexdigest()}"


def _size_of(attached: Attached) -> int:
    entries = sum(len(memoryview(new.entry)) for new in attached.entries)
    return entries + sum(len(file.data) for file in attached.files if file.data is not None)
