"""A small shop for the samples beside this folder: its stock, a bank and a parcel service, in one SQLite file.

It stands for systems that a workflow reaches over a network, and behaves as they do: the bank is sometimes out of
reach, cards are declined, goods run out. Everything that changes something takes a key: asked again with the same key,
the shop does nothing and answers what it answered before. The file is `.pyflue/shop.db`, or what `SHOP_DB` names.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, Field

from pyflue import PyFlueError
from workflows._lib.project_files import ROOT

PRICES_CENTS = {"desk": 24_900, "lamp": 4_900, "chair": 12_900}
_IN_STOCK = 50
#: How often the bank cannot be reached when it is asked to charge `tok_busy`.
_BUSY_TIMES = 2

_TABLES = """
CREATE TABLE IF NOT EXISTS stock (item TEXT PRIMARY KEY, count INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, kind TEXT NOT NULL, answer TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS busy (key TEXT PRIMARY KEY, times INTEGER NOT NULL);
"""


class Line(BaseModel):
    """So many of one item."""

    item: str
    count: int = Field(ge=1, le=100)


class Reservation(BaseModel):
    """Goods that were set aside."""

    lines: list[Line]
    total_cents: int


class Charge(BaseModel):
    """Money that was taken from a card."""

    charge_id: str
    cents: int


class Label(BaseModel):
    """What is stuck on a parcel."""

    tracking: str


class Done(BaseModel):
    """There is nothing more to say."""


class CardDeclined(Exception):
    """The bank will not charge this card, however often it is asked."""


class BankBusy(Exception):
    """The bank could not be reached; it may be in a moment."""


Answer = TypeVar("Answer", bound=BaseModel)


class Shop:
    """The shop, as a client library of it would look."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def of(cls, env: Mapping[str, str]) -> Shop:
        """The shop that the environment names."""
        return cls(Path(env.get("SHOP_DB") or ROOT / ".pyflue" / "shop.db"))

    def reserve(self, key: str, lines: Sequence[Line]) -> Reservation:
        """Set goods aside.

        Raises:
            PyFlueError: of type `out_of_stock`; nothing was set aside.
        """

        def take(db: sqlite3.Connection) -> Reservation:
            for line in lines:
                taken = db.execute(
                    "UPDATE stock SET count = count - :count WHERE item = :item AND count >= :count", line.model_dump()
                )
                if not taken.rowcount:
                    raise PyFlueError(f"There are not {line.count} of {line.item!r}.", type="out_of_stock", status=409)
            total_cents = sum(PRICES_CENTS[line.item] * line.count for line in lines)
            return Reservation(lines=list(lines), total_cents=total_cents)

        return self._once(key, Reservation, take)

    def release(self, key: str, reservation: Reservation) -> Done:
        """Put goods back that were set aside."""

        def put_back(db: sqlite3.Connection) -> Done:
            rows = [line.model_dump() for line in reservation.lines]
            db.executemany("UPDATE stock SET count = count + :count WHERE item = :item", rows)
            return Done()

        return self._once(key, Done, put_back)

    def charge(self, key: str, card: str, cents: int) -> Charge:
        """Take money from a card.

        Raises:
            CardDeclined; BankBusy.
        """
        if card == "tok_busy":
            self._be_busy(key)

        def take(db: sqlite3.Connection) -> Charge:
            if card == "tok_declined":
                raise CardDeclined(f"The bank declined to charge {cents / 100:.2f} to {card}.")
            number = db.execute("SELECT count(*) FROM answers WHERE kind = 'Charge'").fetchone()[0] + 1
            return Charge(charge_id=f"ch_{number:04}", cents=cents)

        return self._once(key, Charge, take)

    def print_label(self, key: str, customer: str) -> Label:
        """Order a parcel to be sent."""

        def order(db: sqlite3.Connection) -> Label:
            number = db.execute("SELECT count(*) FROM answers WHERE kind = 'Label'").fetchone()[0] + 1
            return Label(tracking=f"{customer[:2].upper()}{number:06}")

        return self._once(key, Label, order)

    def hand_over(self, key: str, label: Label) -> Done:
        """Give a parcel to the courier."""
        return self._once(key, Done, lambda db: Done())

    def _once(self, key: str, kind: type[Answer], work: Callable[[sqlite3.Connection], Answer]) -> Answer:
        """Do something the first time a key comes; after that, answer what was answered then."""
        with self._transaction() as db:
            known = db.execute("SELECT answer FROM answers WHERE key = ?", [key]).fetchone()
            if known is not None:
                return kind.model_validate_json(known[0])
            answer = work(db)
            db.execute("INSERT INTO answers VALUES (?, ?, ?)", [key, kind.__name__, answer.model_dump_json()])
            return answer

    def _be_busy(self, key: str) -> None:
        with self._transaction() as db:
            db.execute("INSERT INTO busy VALUES (?, 1) ON CONFLICT DO UPDATE SET times = times + 1", [key])
            times = db.execute("SELECT times FROM busy WHERE key = ?", [key]).fetchone()[0]
        if times <= _BUSY_TIMES:
            raise BankBusy("The bank did not answer.")

    @contextmanager
    def _transaction(self) -> Generator[sqlite3.Connection]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self._path, timeout=10)) as db:
            db.executescript(_TABLES)
            with db:
                rows = [(item, _IN_STOCK) for item in PRICES_CENTS]
                db.executemany("INSERT INTO stock VALUES (?, ?) ON CONFLICT DO NOTHING", rows)
            with db:
                db.execute("BEGIN IMMEDIATE")
                yield db
