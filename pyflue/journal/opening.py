"""From an address to a journal: the only module that knows which adapters there are."""

from __future__ import annotations

from pathlib import Path

from ..clock import Clock, SystemClock
from ..errors import JournalUnsupported
from ..settings import JournalSettings, Limits
from .port import Journal


def open_journal(
    url: str,
    *,
    settings: JournalSettings | None = None,
    limits: Limits | None = None,
    clock: Clock | None = None,
    read_only: bool = False,
    writer_process: bool = False,
) -> Journal:
    """Open the journal at an address, creating and migrating it where needed.

    `sqlite:///relative/or//absolute/path` is a file; `memory:` is a private one that ends with the process.
    `read_only` opens an existing file for reading: nothing is created, migrated or locked. With `writer_process` a file
    is written by a process of its own, for servers that have more than one core.

    Raises:
        JournalUnreadable, JournalReadOnly, JournalTooNew, JournalUnsupported, JournalBusy.
    """
    from . import sqlite  # apsw is imported only by those who open a journal

    settings = settings or JournalSettings()
    limits = limits or Limits()
    clock = clock or SystemClock()
    if url == "memory:":
        return sqlite.SqliteJournal.in_memory(settings=settings, limits=limits, clock=clock)
    if url.startswith("sqlite:///"):
        path = Path(url.removeprefix("sqlite:///"))
        return sqlite.SqliteJournal.open(
            path,
            settings=settings,
            limits=limits,
            clock=clock,
            read_only=read_only,
            writer_process=writer_process and not read_only,
        )
    raise JournalUnsupported(url, "known are sqlite:///path and memory:")
