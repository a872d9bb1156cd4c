"""Parking: a run that can only wait gives its slot back and is `waiting`, and takes a slot again when it is woken.

A run that waits for a child holds no slot either, whatever else it does: the child may need it. There is one of these
per attempt at a run. It knows the run's tasks (the task factory tells it) and its open waits (`waits.py` does), and so
when nothing in the run can go on (`idle.py`). The journal has the last word: a run is parked only if none of its waits
ended meanwhile. The coroutine stays in memory; only a run that is taken up after a restart is replayed.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from .. import codec
from ..clock import Clock
from ..codec import Raw
from ..errors import CallMisplaced, JournalError, RunStopped
from ..journal import EventType, Fence, Journal, NewEvent
from .idle import all_blocked
from .slots import Slots
from .threads import run_in_own_thread

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from ..journal import Park

T = TypeVar("T")

#: So many waits are told of in a `run_waiting` event; a run with thousands writes one for each that ends.
_WAITS_SHOWN = 20
#: Whether a run with more tasks is idle is not looked at for each of its waits.
_SEEN_AT_ONCE = 16
#: How long a call that was given up before is held back in a run that never becomes idle.
_MOST_DEFERRED_S = 30.0

_thread: contextvars.ContextVar[_Thread | None] = contextvars.ContextVar("pyflue_thread", default=None)


class _Thread:
    """A thread of the run, and the task it waits for."""

    __slots__ = ("bridge",)

    def __init__(self) -> None:
        self.bridge: asyncio.Task[Any] | None = None


class OpenWait:
    """A wait as the attempt has it: what it is, for people, and the future that its end is told to."""

    __slots__ = ("about", "ended")

    def __init__(self, about: dict[str, Any]) -> None:
        self.about = about
        #: True once the journal has its end, False when its time has come.
        self.ended: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def tell(self, is_recorded: bool) -> None:
        if not self.ended.done():
            self.ended.set_result(is_recorded)


class Parking:
    """The tasks, threads and open waits of one attempt at a run."""

    def __init__(self, fence: Fence, journal: Journal, clock: Clock, slots: Slots) -> None:
        self._fence = fence
        self._journal = journal
        self._clock = clock
        self._slots = slots
        self._loop = asyncio.get_running_loop()
        self._slot: asyncio.Future[None] | None = None
        self._waits: dict[str, OpenWait] = {}
        self._waiting: dict[asyncio.Task[Any], int] = {}
        self._threads: dict[asyncio.Task[Any], _Thread] = {}
        self._calling: dict[asyncio.Task[Any], int] = {}
        self._children = 0
        self._deferred: list[asyncio.Future[None]] = []
        self._holds_slot = True
        self._wakes = 0
        self._is_asking = False
        self._is_planned = False
        self._is_closed = False
        self.tasks: set[asyncio.Task[Any]] = set()
        self.is_parked = False
        #: Called when the run has been parked.
        self.on_parked: Callable[[], None] | None = None
        slots.take()

    def add_task(self, task: asyncio.Task[Any]) -> None:
        """Note a task of the run."""
        self.tasks.add(task)
        task.add_done_callback(self._forget_task)

    def _forget_task(self, task: asyncio.Task[Any]) -> None:
        self.tasks.discard(task)
        self.reconsider()

    # Threads

    async def in_thread(self, function: Callable[[], T]) -> T:
        """Call a function in a thread of its own, in which `block` works."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  (a coroutine runs in a task)
        thread = self._threads[task] = _Thread()
        token = _thread.set(thread)
        try:
            return await run_in_own_thread(function)
        finally:
            _thread.reset(token)
            del self._threads[task]

    def block(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the event loop and block this thread of the run until it is done.

        Raises:
            RunStopped: the run no longer goes on here; CallMisplaced: this thread runs an event loop.
        """
        thread = _thread.get()
        if _is_on_a_loop():
            coroutine.close()
            raise CallMisplaced(
                "A blocking call was made from an async function, and would block the event loop for ever.",
                hint="Make the function a plain `def`, or the workflow an `async def run(ctx)`.",
            )
        answer = threading.Event()
        context = contextvars.copy_context()
        tasks: list[asyncio.Task[T]] = []

        def start() -> None:
            if self._is_closed:
                coroutine.close()
                answer.set()
                return
            task = self._loop.create_task(coroutine)
            tasks.append(task)
            if thread is not None:
                thread.bridge = task
            task.add_done_callback(lambda _: answer.set())

        try:
            self._loop.call_soon_threadsafe(start, context=context)
        except RuntimeError:  # the loop is closed: the process is about to end
            coroutine.close()
            raise RunStopped(self._fence.run_id, "its engine has stopped") from None
        answer.wait()
        if thread is not None:
            thread.bridge = None
        if not tasks or tasks[0].cancelled():
            raise RunStopped(self._fence.run_id, "it was stopped")
        return tasks[0].result()

    # Waits

    @contextmanager
    def waiting(self, key: str, about: dict[str, Any], *, for_child: bool = False) -> Generator[None]:
        """While inside, the running task does nothing but wait for the wait of this key.

        `go_on` after it, unless it ended with an exception.
        """
        self._waits[key] = OpenWait(about)
        if for_child:
            self._children += 1
            self._settle_slot()
        try:
            with _Counting(self._waiting):
                yield
        finally:
            del self._waits[key]
            if for_child:
                self._children -= 1
            # The author's code may have given the wait up by itself: then the run goes on although nothing woke it.
            self.unpark()

    def calling(self) -> _Counting:
        """While inside, the running task makes a durable call: it ends with the run."""
        return _Counting(self._calling)

    async def ending(self, key: str, left_s: float | None) -> bool:
        """Wait until an open wait has ended in the journal (True), or its time has come (False)."""
        wait = self._waits[key]
        timer = None if left_s is None else self._loop.call_later(left_s, wait.tell, False)
        try:
            return await wait.ended
        finally:
            wait.ended = self._loop.create_future()
            if timer is not None:
                timer.cancel()

    def wake(self, key: str) -> None:
        """A wait has ended in the journal."""
        wait = self._waits.get(key)
        if wait is not None:
            self.unpark()
            wait.tell(True)

    async def go_on(self) -> None:
        """Return when the run may do something again after a wait: when it has a slot."""
        if self._slot is not None and not self._slot.done():
            await asyncio.wait([self._slot])

    def plan(self) -> Park | None:
        """How to park the run, if nothing in it can go on."""
        if self.is_parked or self._is_asking or not self._waits or self._deferred or not self._all_blocked():
            return None
        from ..journal import Park

        shown = [wait.about for wait in itertools.islice(self._waits.values(), _WAITS_SHOWN)]
        data: dict[str, Any] = {"waits": shown}
        if len(shown) < len(self._waits):
            data["more"] = len(self._waits) - len(shown)
        event = NewEvent(type=EventType.RUN_WAITING, at_us=self._clock.now_us(), data=Raw(codec.encode(data)))
        return Park(open_waits=len(self._waits), event=event)

    def plan_at_once(self) -> Park | None:
        """As `plan`, if that is quickly seen; `reconsider` sees the others, once for all that happens in one turn."""
        return self.plan() if len(self.tasks) <= _SEEN_AT_ONCE else None

    def mark(self) -> int:
        """What `park_unless_woken` wants to know: taken when the journal is asked to park the run."""
        return self._wakes

    def park_unless_woken(self, mark: int) -> None:
        """The journal has parked the run; give the slot back, unless it was woken since."""
        if mark != self._wakes or self.is_parked or self._is_closed:
            return
        self.is_parked = True
        self._settle_slot()
        if self.on_parked is not None:
            self.on_parked()

    async def until_idle(self) -> None:
        """Return when nothing else in the run can go on, or after a while.

        For calls that the code has given up before: when it does so again, they are not made again.
        """
        idle: asyncio.Future[None] = self._loop.create_future()
        self._deferred.append(idle)
        timer = self._loop.call_later(_MOST_DEFERRED_S, _finish, idle)
        self.reconsider()
        try:
            with _Counting(self._waiting):
                await idle
        finally:
            timer.cancel()
            self._deferred.remove(idle)

    def reconsider(self) -> None:
        """Park the run if nothing in it can go on any more. To be called when that may have changed."""
        if (self._waits or self._deferred) and not self._is_planned:
            self._is_planned = True
            # Not now: whoever is told of the same change should have had its turn.
            self._loop.call_soon(self._park)

    def _park(self) -> None:
        self._is_planned = False
        if self._deferred and not self._is_closed and self._all_blocked():
            _finish(self._deferred[0])
            return
        park = None if self._is_closed else self.plan()
        if park is None:
            return
        mark = self._wakes
        try:
            asking = asyncio.ensure_future(self._journal.park(self._fence, park))
        except JournalError:  # closed: the engine is about to stop this attempt
            return
        self._is_asking = True

        def answered(future: asyncio.Future[bool]) -> None:
            self._is_asking = False
            if not future.cancelled() and not isinstance(future.exception(), JournalError) and future.result():
                self.park_unless_woken(mark)

        asking.add_done_callback(answered)

    def close(self) -> None:
        """The attempt is over: end its durable calls that are left, and give its slot back.

        Other tasks are left alone: a shared client may have started them when this run was the first to use it.
        """
        if self._is_closed:
            return
        self._is_closed = True
        self.on_parked = None
        current = asyncio.current_task()
        for task in [*self._calling, *self._waiting, *(thread.bridge for thread in self._threads.values())]:
            if task is not None and task is not current:
                task.cancel()
        self._settle_slot()

    def unpark(self) -> None:
        """The run goes on, for whatever reason."""
        self._wakes += 1
        self.is_parked = False
        self._settle_slot()

    def _settle_slot(self) -> None:
        """Hold a slot, or ask for one, exactly while the run needs one."""
        needs_one = not (self.is_parked or self._children or self._is_closed)
        if needs_one == self._holds_slot:
            return
        self._holds_slot = needs_one
        if needs_one:
            self._slot = self._slots.request()
        elif self._slot is not None and not self._slot.done():
            self._slot.cancel()
        else:
            self._slots.give_back()
            self._slot = None

    def _all_blocked(self) -> bool:
        threads = {task: thread.bridge for task, thread in self._threads.items()}
        return all_blocked(self.tasks, self._waiting, threads)


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class _Counting:
    """Counts the running task in, and out again."""

    __slots__ = ("_task", "_tasks")

    def __init__(self, tasks: dict[asyncio.Task[Any], int]) -> None:
        self._tasks = tasks

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  (a coroutine runs in a task)
        self._task = task
        self._tasks[task] = self._tasks.get(task, 0) + 1

    def __exit__(self, *error: object) -> None:
        left = self._tasks[self._task] = self._tasks[self._task] - 1
        if not left:
            del self._tasks[self._task]


def _is_on_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
