"""Where the streams of running runs are at, kept beside the writer's connection.

A running run records step after step, and each record moves its `last_index`. Its row is read (and written) by the
first one; what the later ones change is kept here and written with the rest of the transaction, in one statement for
all runs. Right as long as nothing else writes a run's row: whoever is about to do so has what is kept written and
forgotten before (`SqliteWrites.db`), and what was kept before another process committed is not used (`check`). What
else is kept of the database under the same condition is dropped with it (`on_forget`).

Used by the writer thread only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .records import Fence
from .sqlite_file import Database
from .sqlite_many import ManyRows

#: So many runs are kept between transactions.
MOST_KEPT = 10_000


class _Head:
    __slots__ = ("fence", "last_index", "seq", "usage")

    def __init__(self, fence: Fence, seq: int, last_index: int) -> None:
        self.fence = fence
        self.seq = seq
        self.last_index = last_index
        self.usage: str | None = None


class Heads:
    """The heads of runs that are running and have not crashed, each with the fence that has last recorded something."""

    def __init__(self, db: Database, sql: Mapping[str, str], *, most_kept: int = MOST_KEPT) -> None:
        self._db = db
        self._most_kept = most_kept
        self._write_heads = ManyRows(sql["write_heads"])
        self._known: dict[str, _Head] = {}
        #: Those whose rows are behind.
        self._moved: dict[str, _Head] = {}
        self._seen_version = -1
        #: Called when what others keep of the database may no longer be right, either.
        self.on_forget: list[Callable[[], None]] = []

    def check(self) -> None:
        """A transaction has begun: forget everything if another process has committed since the last one."""
        version = int(self._db.execute("PRAGMA data_version").get)
        if version != self._seen_version:
            self._seen_version = version
            self._drop()

    def move(self, fence: Fence, count: int) -> int | None:
        """Move a run's `last_index` forward; returns it, None if that takes a statement."""
        head = self._known.get(fence.run_id)
        if head is None or head.fence != fence:
            return None
        head.last_index += count
        self._moved[fence.run_id] = head
        return head.last_index

    def keep(self, fence: Fence, seq: int, last_index: int) -> None:
        """A run has recorded something, and this is what its row says now."""
        self._known[fence.run_id] = _Head(fence, seq, last_index)

    def set_usage(self, run_id: str, usage: str | None) -> bool:
        """Set a run's usage; False if that takes a statement."""
        head = self._known.get(run_id)
        if head is None:
            return False
        head.usage = usage
        self._moved[run_id] = head
        return True

    def write(self) -> None:
        """Write what is kept of all runs."""
        if self._moved:
            rows = [(head.seq, head.last_index, head.usage) for head in self._moved.values()]
            self._moved.clear()
            self._write_heads.write(self._db, rows)
        if len(self._known) > self._most_kept:
            self._known.clear()

    def forget(self) -> None:
        """Write what is kept, and keep nothing: a statement follows that may change any run."""
        self.write()
        self._drop()

    def forget_one(self, run_id: str) -> None:
        """The same before a statement that changes one run only."""
        head = self._known.pop(run_id, None)
        if head is not None and self._moved.pop(run_id, None) is not None:
            self._write_heads.write(self._db, [(head.seq, head.last_index, head.usage)])

    def roll_back(self) -> None:
        """Nothing of the transaction counts."""
        self._moved.clear()
        self._drop()

    def _drop(self) -> None:
        self._known.clear()
        for callback in self.on_forget:
            callback()
