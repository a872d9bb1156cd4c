"""Parking: a run that can only wait gives its slot back and is `waiting`, and takes a slot again when it is woken.

One per attempt at a run. It knows the run's tasks (the task factory tells it) and its open waits (`waits.py` does), and
so when nothing in the run can go on (`idle.py`). The journal has the last word: a run is parked only if none of its
waits ended meanwhile. The coroutine stays in memory; only a run that is taken up after a restart is replayed.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from .. import codec
from ..clock import Clock
from ..codec import Raw
from ..errors import JournalError, RunStopped
from ..journal import EventType, Fence, Journal, NewEvent
from .idle import all_blocked
from .slots import Slots
from .threads import run_in_own_thread

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from ..journal import Park

T = TypeVar("T")

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
            RunStopped: the run no longer goes on here.
        """
        thread = _thread.get()
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
    def waiting(self, key: str, about: dict[str, Any]) -> Generator[OpenWait]:
        """While inside, the running task does nothing but wait for the wait of this key."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  (a coroutine runs in a task)
        wait = self._waits[key] = OpenWait(about)
        self._waiting[task] = self._waiting.get(task, 0) + 1
        try:
            yield wait
        finally:
            # The author's code may have given the wait up by itself: then the run goes on although nothing woke it.
            self._unpark()
            del self._waits[key]
            self._waiting[task] -= 1
            if not self._waiting[task]:
                del self._waiting[task]

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
            self._unpark()
            wait.tell(True)

    async def go_on(self) -> None:
        """Return when the run may do something again after a wait: when it has a slot."""
        self._unpark()
        if self._slot is not None and not self._slot.done():
            await asyncio.wait([self._slot])

    def plan(self) -> Park | None:
        """How to park the run, if nothing in it can go on."""
        if self.is_parked or self._is_asking or not self._waits or not self._all_blocked():
            return None
        from ..journal import Park

        data = {"waits": [wait.about for wait in self._waits.values()]}
        event = NewEvent(type=EventType.RUN_WAITING, at_us=self._clock.now_us(), data=Raw(codec.encode(data)))
        return Park(open_waits=len(self._waits), event=event)

    def mark(self) -> int:
        """What `park_unless_woken` wants to know: taken when the journal is asked to park the run."""
        return self._wakes

    def park_unless_woken(self, mark: int) -> None:
        """The journal has parked the run; give the slot back, unless it was woken since."""
        if mark != self._wakes or self.is_parked or self._is_closed:
            return
        self.is_parked = True
        if self._slot is not None and not self._slot.done():
            self._slot.cancel()
        else:
            self._slots.give_back()
        self._slot = None
        if self.on_parked is not None:
            self.on_parked()

    def reconsider(self) -> None:
        """Park the run if nothing in it can go on any more. To be called when that may have changed."""
        if self._waits and not self._is_planned:
            self._is_planned = True
            # Not now: whoever is told of the same change should have had its turn.
            self._loop.call_soon(self._park)

    def _park(self) -> None:
        self._is_planned = False
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
        """The attempt is over: end what is left of its tasks, and give its slot back."""
        if self._is_closed:
            return
        self._is_closed = True
        current = asyncio.current_task()
        for task in self.tasks:
            if task is not current:
                task.cancel()
        if self._slot is not None and not self._slot.done():
            self._slot.cancel()
        elif not self.is_parked:
            self._slots.give_back()

    def _unpark(self) -> None:
        self._wakes += 1
        if self.is_parked and not self._is_closed:
            self.is_parked = False
            self._slot = self._slots.request()

    def _all_blocked(self) -> bool:
        threads = {task: thread.bridge for task, thread in self._threads.items()}
        return all_blocked(self.tasks, self._waiting, threads)
