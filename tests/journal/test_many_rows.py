"""Many rows in one statement: as many as there are, in their order."""

from __future__ import annotations

import pytest

from pyflue.journal.sqlite_file import Database, connect
from pyflue.journal.sqlite_many import ManyRows

COUNTS = [0, 1, 3, 4, 5, 63, 64, 65, 127, 128, 511, 512, 513, 1023, 1100]


@pytest.fixture
def db() -> Database:
    database = connect(":memory:", read_only=False, busy_timeout_s=1)
    database.execute("CREATE TABLE things (place INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT, size INTEGER)")
    return database


def things(count: int) -> list[tuple[str, int]]:
    return [(f"thing {number}", number * 7) for number in range(count)]


def stored(db: Database) -> list[tuple[str, int]]:
    return list(db.execute("SELECT name, size FROM things ORDER BY place"))  # pyright: ignore[reportReturnType]


@pytest.mark.parametrize("count", COUNTS)
def test_all_rows_are_written_in_their_order(db: Database, count: int) -> None:
    insert = ManyRows("INSERT INTO things (name, size) VALUES /*row*/(?, ?)/*end*/;")

    insert.write(db, things(count))
    assert stored(db) == things(count)
    # Again by the same statements, which are prepared by now.
    insert.write(db, things(count))
    assert stored(db) == things(count) * 2


@pytest.mark.parametrize("count", COUNTS)
def test_rows_of_a_long_statement_are_written_in_their_order(db: Database, count: int) -> None:
    """So long that those for many rows are not kept prepared."""
    long = ", ".join(["?", f"abs(?{' ' * 150})"])
    insert = ManyRows(f"INSERT INTO things (name, size) VALUES /*row*/({long})/*end*/;")

    insert.write(db, things(count))

    assert stored(db) == things(count)


@pytest.mark.parametrize("count", COUNTS)
def test_all_rows_are_changed(db: Database, count: int) -> None:
    ManyRows("INSERT INTO things (name, size) VALUES /*row*/(?, ?)/*end*/;").write(db, things(1200))
    change = ManyRows(
        "UPDATE things SET size = new.column2 FROM (VALUES /*row*/(?, ?)/*end*/) AS new WHERE place = new.column1;"
    )

    change.write(db, [(number + 1, -number) for number in range(count)])

    sizes = [-number if number < count else number * 7 for number in range(1200)]
    assert [size for _, size in stored(db)] == sizes


def test_rows_that_change_nothing_are_not_counted(db: Database) -> None:
    db.execute("CREATE UNIQUE INDEX by_name ON things (name)")
    insert = ManyRows("INSERT INTO things (name, size) VALUES /*row*/(?, ?)/*end*/ ON CONFLICT DO NOTHING;")
    before = db.total_changes()

    insert.write(db, [*things(600), *things(3)])

    assert stored(db) == things(600)
    assert db.total_changes() - before == 600
