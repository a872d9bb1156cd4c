"""Opening the writing half of the SQLite journal: the connection, the turnstile and the checkpointer behind it.

Apart from the journal itself, because the writer may have a process of its own (`writer_process.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from ..clock import Clock
from ..settings import JournalSettings, Limits
from . import sqlite_file
from .locks import Turnstile
from .queries import load_queries
from .sqlite_file import Database
from .sqlite_writes import Checkpointer, SqliteWrites

#: What one batch changes should fit, or SQLite writes it to the log early and reads it again: 500 runs are 1,500 pages.
_WRITE_CACHE_KIB = 12 * 1024


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Which journal it is, and what holds for it. `path` is None for one in memory."""

    name: str
    path: Path | None
    settings: JournalSettings
    limits: Limits
    clock: Clock


def open_writes(
    place: Place,
    *,
    touch: Callable[[str], None],
    note_ended: Callable[[str, str], None],
    is_alive: Callable[[str], bool],
) -> SqliteWrites:
    """The write connection and its verbs. What is called back is called within them."""
    settings, path = place.settings, place.path
    connection = sqlite_file.connect(place.name, read_only=False, busy_timeout_s=settings.busy_timeout_s)
    connection.pragma("synchronous", "full")
    connection.pragma("cache_size", -_WRITE_CACHE_KIB)
    connection.wal_autocheckpoint(0)
    return SqliteWrites(
        connection,
        place.name,
        folder=None if path is None else path.parent,
        turnstile=None if path is None else Turnstile(path.parent),
        checkpointer=None if path is None else Checkpointer(lambda: _open_for_checkpoints(place.name)),
        touch=touch,
        is_alive=is_alive,
        note_ended=note_ended,
        sql=load_queries("sqlite"),
        clock=place.clock,
        settings=settings,
        limits=place.limits,
    )


def _open_for_checkpoints(name: str) -> Database:
    connection = sqlite_file.connect(name, read_only=False, busy_timeout_s=0)
    connection.wal_autocheckpoint(0)
    # SQLite looks whether there is a log when a connection first reads; until then it checkpoints nothing, silently.
    connection.pragma("schema_version")
    return connection
