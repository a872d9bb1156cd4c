"""The writer with a process of its own: it shares neither the lock of the interpreter nor a core with the event loop.

In the parent is a `Writer` whose thread sends what is queued on to the child, as it comes, and a second thread that
tells everybody what has become of it. In the child is a plain `Writer`: it takes what has arrived, runs it in one
transaction, and answers. Order, fences, failures and what may be lost are the same as without a process.

Messages are a length (8 bytes) and records as `wire.py` writes them, or a pickle, over the child's standard input and
output; nobody else can write there.

The end of its input ends the child once all of it is written. If its parent dies, some of what has arrived may still be
committed, as by a thread that had come so far; engines that take up the runs meanwhile are fenced off from it by the
journal itself. If the child dies its parent ends, as without a writer thread: nothing would be durable any more.
"""

from __future__ import annotations

import itertools
import os
import pickle
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Sequence
from typing import IO, Any

import msgspec

from ..errors import JournalError, PyFlueError
from ..memory import settle_memory
from . import wire
from .locks import Roster
from .sqlite_opening import Place, open_writes
from .wire import Order
from .writer import Record, Writer

_PROGRAM = f"from {__name__} import main; main()"
#: How soon the child's threads hand over to one another: there are two, and both are always in a hurry.
_SWITCH_S = 0.0002


class _Problem(msgspec.Struct, frozen=True):
    """An error of ours: pickle would make it of other arguments than it was made of."""

    kind: type[PyFlueError]
    args: tuple[Any, ...]
    fields: dict[str, Any]

    def error(self) -> PyFlueError:
        error = self.kind.__new__(self.kind, *self.args)
        vars(error).update(self.fields)
        return error


class _Told(msgspec.Struct, frozen=True):
    """What has become of records, by their numbers, and what else their transaction has changed."""

    values: dict[int, Any]
    errors: dict[int, Exception | _Problem]
    touched: set[str]
    ended_waits: list[tuple[str, str]]


class _ForeignCommit(msgspec.Struct, frozen=True):
    """Another process has committed something."""


class ProcessWriter(Writer):
    """The queue of the `Writer`; what is in it is committed by a child process."""

    _process: subprocess.Popen[bytes]

    def __init__(self, place: Place) -> None:
        super().__init__(_no_transactions)
        self._place = place
        self._numbers = itertools.count()
        self._sent: dict[int, Record] = {}

    def _run(self) -> None:
        try:
            self._process = _start(self._place)
        except Exception as error:  # noqa: BLE001  (whatever it is, it is raised again in `start`)
            self._opened = error
            return
        finally:
            self._ready.set()
        telling = threading.Thread(target=self._tell, name="pyflue-journal-teller", daemon=True)
        telling.start()
        try:
            requests = _pipe(self._process.stdin)
            while (batch := self._take()) is not None:
                if batch:
                    _send(requests, wire.encode([self._order(record) for record in batch]))
            requests.close()
        except BaseException:  # noqa: BLE001
            _give_up()
        telling.join()

    def _order(self, record: Record) -> Order:
        number = next(self._numbers)
        self._sent[number] = record
        return Order(number, record.verb, record.fence, record.events, record.patient)

    def _rest(self) -> None:
        """The child knows by itself when it has nothing to do."""

    def _tell(self) -> None:
        """The second thread: tell what the child has done."""
        try:
            answers = _pipe(self._process.stdout)
            while (answer := _receive(answers)) is not None:
                told = pickle.loads(answer)  # noqa: S301  (the other end is ours)
                if isinstance(told, _Told):
                    self._settle(self._answered(told))
                else:
                    self._ring_all()
            answers.close()
            code = self._process.wait()
            if code or self._sent or not self._is_closed:
                raise JournalError(f"The process that writes {self._place.name} has ended (exit code {code}).")
        except BaseException:  # noqa: BLE001
            _give_up()

    def _answered(self, told: _Told) -> list[Record]:
        answered: list[Record] = []
        for number, value in told.values.items():
            record = self._sent.pop(number)
            record.value, record.error = value, _error_of(told.errors.get(number))
            answered.append(record)
        self._touched |= told.touched
        self._ended_waits += told.ended_waits
        return answered


def _start(place: Place) -> subprocess.Popen[bytes]:
    try:
        process = subprocess.Popen(  # noqa: S603  (our own program)
            # `-P`: modules of the folder that this was started in are not ours.
            [sys.executable, "-P", "-c", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # What the terminal sends is for the parent: it stops in its own time, and then so does this.
            start_new_session=True,
        )
        _send(_pipe(process.stdin), pickle.dumps(place))
    except OSError as error:
        raise JournalError(f"The process that writes {place.name} cannot be started: {error}.") from error
    answer = _receive(_pipe(process.stdout))
    if answer is None:
        raise JournalError(f"The process that writes {place.name} did not start (exit code {process.wait()}).")
    if (problem := _error_of(pickle.loads(answer))) is not None:  # noqa: S301  (the other end is ours)
        process.wait()
        raise problem
    return process


class _Numbered(Record):
    """A record with its number in the parent."""

    __slots__ = ("number",)

    def __init__(self, order: Order) -> None:
        super().__init__(order.verb, order.fence, patient=order.patient)
        self.number = order.number
        self.events = order.events


class _Desk(Writer):
    """The child's writer: it is given records by the parent, and tells the parent."""

    def __init__(self, place: Place, answers: IO[bytes]) -> None:
        if place.path is None:
            raise JournalError("A journal in memory is in one process only.")
        roster = Roster(place.path.parent / "engines")
        super().__init__(
            lambda: open_writes(place, touch=self.touch, note_ended=self.note_ended, is_alive=roster.is_alive)
        )
        self._answers = answers

    def take(self, orders: Sequence[Order]) -> None:
        """Queue what has come from the parent."""
        self._queue.extend([_Numbered(order) for order in orders])
        if self._is_idle:
            self._wake()

    def _settle(self, batch: list[Record]) -> None:
        told = _Told({}, {}, set(self._touched), list(self._ended_waits))
        self._touched.clear()
        self._ended_waits.clear()
        for record in batch:
            assert isinstance(record, _Numbered)  # noqa: S101  (there are no others here)
            told.values[record.number] = record.value
            if record.error is not None:
                told.errors[record.number] = _sendable(record.error)
        self._tell(told)

    def _ring_all(self) -> None:
        self._tell(_ForeignCommit())

    def _tell(self, message: _Told | _ForeignCommit) -> None:
        try:
            _send(self._answers, pickle.dumps(message))
        except BrokenPipeError:
            os._exit(0)  # the parent has died: nobody was promised what is not committed yet


def main() -> None:
    """The child. Ends with its input."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Who stops all processes of a service must not stop this one before its parent has said its last.
        signal.signal(number, signal.SIG_IGN)
    sys.setswitchinterval(_SWITCH_S)
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever is printed must not get among the answers
    place = _receive(requests)
    if place is None:
        return
    try:
        desk = _Desk(pickle.loads(place), answers)  # noqa: S301  (the other end is ours)
        desk.start()
    except Exception as error:  # noqa: BLE001  (whatever it is, it is raised again by the parent)
        _send(answers, pickle.dumps(_sendable(error)))
        return
    _send(answers, pickle.dumps(None))
    settle_memory()
    while (orders := _receive(requests)) is not None:
        desk.take(wire.decode(orders))
    desk.stop()


def _no_transactions() -> Any:
    raise AssertionError("the child has them")


def _give_up() -> None:
    # Nothing is durable any more, and every caller would wait for ever.
    traceback.print_exc()
    sys.stderr.flush()
    os._exit(70)


def _sendable(error: Exception) -> Exception | _Problem:
    if not isinstance(error, PyFlueError):
        try:
            pickle.loads(pickle.dumps(error))  # noqa: S301  (our own)
        except Exception:  # noqa: BLE001  (a stranger's exception may fail in any way)
            error = JournalError(f"The journal could not do this: {type(error).__name__}: {error}.")
        else:
            return error
    return _Problem(type(error), error.args, vars(error))


def _error_of(sent: Exception | _Problem | None) -> Exception | None:
    return sent.error() if isinstance(sent, _Problem) else sent


def _send(pipe: IO[bytes], message: bytes) -> None:
    # In one piece: between two writes other threads would have their turns.
    pipe.write(len(message).to_bytes(8, "big") + message)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> bytes | None:
    """The next message; None at the end, also in the middle of one."""
    head = pipe.read(8)
    if len(head) < 8:
        return None
    size = int.from_bytes(head, "big")
    message = pipe.read(size)
    return message if len(message) == size else None


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise JournalError("The journal's writer was started without its pipes.")
    return pipe
