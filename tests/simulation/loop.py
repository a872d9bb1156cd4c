"""A world in which time is virtual: one event loop for several processes, whose order is chosen by a seeded random.

`World` is an asyncio event loop without a selector. Whatever a `Process` starts belongs to it, because asyncio hands
context variables on to callbacks and tasks. Within a process callbacks run in the order asyncio promises; between
processes, and between a process and its own threads (which answer after a random delay), any order may happen.

A process dies as with kill -9: none of its callbacks runs any more, no `finally`, no `except`. When nothing is ready,
the time jumps to the next timer. Knows asyncio only.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import heapq
import itertools
import random
import sys
import warnings
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextvars import ContextVar, copy_context
from typing import Any, TypeVar

T = TypeVar("T")

#: The longest that a thread of a process takes to take something up, or to answer.
THREAD_S = 0.004
#: More callbacks than this, and nobody gets anywhere any more.
MOST_CALLBACKS = 2_000_000


class Died(Exception):
    """The process that was asked has died, and did not answer."""


class Process:
    """One of the operating system's, as far as this world has them."""

    def __init__(self, world: World, name: str) -> None:
        self.name = name
        self.is_alive = True
        #: Stopped until this time (SIGSTOP, or a machine that swaps).
        self.stalled_until = 0.0
        #: How many more points it passes until it dies; None: it does not.
        self.fuse: int | None = None
        self.ready: deque[asyncio.Handle] = deque()
        self.tasks: list[asyncio.Task[Any]] = []
        #: Called when it dies.
        self.on_death: list[Callable[[], None]] = []
        self._world = world
        self._asked: set[asyncio.Future[Any]] = set()
        self._context = copy_context()
        self._context.run(_process.set, self)

    def __repr__(self) -> str:
        return f"<{self.name}{'' if self.is_alive else ' †'}>"

    async def ask(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Do something in this process, as a client asks a server.

        Raises:
            Died: it died before it answered; whether it did what it was asked to do is not known.
        """
        if not self.is_alive:
            raise Died(self.name)
        answer: asyncio.Future[T] = self._world.create_future()
        self._asked.add(answer)
        task = self._context.run(self._world.create_task, self._answer(work, answer))
        task.set_name(f"{self.name} asked")
        try:
            return await answer
        finally:
            self._asked.discard(answer)

    async def _answer(self, work: Callable[[], Coroutine[Any, Any, T]], answer: asyncio.Future[T]) -> None:
        try:
            value = await work()
        except Exception as error:  # as a client of a server would get it
            if not answer.done():
                answer.set_exception(error)
        else:
            if not answer.done():
                answer.set_result(value)

    def run(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function as a part of this process."""
        return self._context.copy().run(function, *args)

    def pass_point(self) -> None:
        """A point at which it may be interesting to die."""
        if self.fuse is not None:
            self.fuse -= 1
            if self.fuse <= 0:
                self.die()

    def die(self) -> None:
        """kill -9."""
        if not self.is_alive:
            return
        self.is_alive = False
        self.ready.clear()
        self._world.bury(self)
        for called in self.on_death:
            called()
        for answer in self._asked:
            if not answer.done():
                answer.set_exception(Died(self.name))


_process: ContextVar[Process | None] = ContextVar("simulated_process", default=None)


def current_process() -> Process:
    """The process whose code is running."""
    process = _process.get()
    assert process is not None
    return process


class _Task(asyncio.Task[Any]):
    """A task whose hash does not depend on memory addresses: sets of tasks have the same order each time."""

    numbers = itertools.count()

    def __init__(self, *args: Any, **options: Any) -> None:
        self._number = next(_Task.numbers)
        super().__init__(*args, **options)

    def __hash__(self) -> int:
        return self._number


class World(asyncio.BaseEventLoop):
    """The event loop of all processes, and of those outside who talk to them."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self.chance = chance
        #: Problems that nobody else would hear of.
        self.problems: list[str] = []
        self.callbacks = 0
        self._now = 0.0
        self._outside: deque[asyncio.Handle] = deque()
        self._processes: list[Process] = []
        self._dead: list[Process] = []
        _Task.numbers = itertools.count()
        self.set_task_factory(lambda loop, work, **options: _Task(work, loop=loop, **options))
        self.set_exception_handler(self._note_problem)

    def process(self, name: str) -> Process:
        """A new process."""
        process = Process(self, name)
        self._processes.append(process)
        return process

    def bury(self, process: Process) -> None:
        """Keep what is left of a process until the end: its coroutines must not be closed, that would run code."""
        self._processes.remove(process)
        self._dead.append(process)

    # What asyncio asks of a loop

    def time(self) -> float:
        return self._now

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        task = super().create_task(coro, **options)
        context = options.get("context")
        process = _process.get() if context is None else context.get(_process)
        if process is not None:
            process.tasks.append(task)
        return task

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        """Nothing runs beside this loop: the function is called at some moment, its answer comes at another."""
        future: asyncio.Future[T] = self.create_future()

        def work() -> None:
            try:
                value, error = func(*args), None
            except Exception as raised:  # belongs to whoever asked
                value, error = None, raised
            self.call_later(self.chance.uniform(0, THREAD_S), answer, value, error)

        def answer(value: Any, error: Exception | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)

        self.call_later(self.chance.uniform(0, THREAD_S), work)
        return future

    def _run_once(self) -> None:
        self._sort()
        while not (ready := self._those_ready()):
            self._go_to_next_timer()
            self._sort()
        # `random()` is several times as fast as `choice` and `randint`.
        random = self.chance.random
        queue = ready[0] if len(ready) == 1 else ready[int(random() * len(ready))]
        for _ in range(1 if len(queue) == 1 else 1 + int(random() * len(queue))):
            handle = queue.popleft()
            if not handle._cancelled:
                handle._run()
            if not queue:  # done, or its process has died
                break
        self.callbacks += 1
        if self.callbacks > MOST_CALLBACKS:
            raise AssertionError("this does not come to an end")

    def _sort(self) -> None:
        """Give what has become ready to its process."""
        while self._scheduled and self._scheduled[0]._when <= self._now:
            timer = heapq.heappop(self._scheduled)
            timer._scheduled = False
            if not timer._cancelled:
                self._ready.append(timer)
        while self._ready:
            handle = self._ready.popleft()
            process = handle._context.get(_process)
            if process is None:
                self._outside.append(handle)
            elif process.is_alive:
                process.ready.append(handle)

    def _those_ready(self) -> list[deque[asyncio.Handle]]:
        ready = [process.ready for process in self._processes if process.ready and process.stalled_until <= self._now]
        if self._outside:
            ready.append(self._outside)
        return ready

    def _go_to_next_timer(self) -> None:
        while self._scheduled and self._scheduled[0]._cancelled:
            heapq.heappop(self._scheduled)._scheduled = False
        times = [process.stalled_until for process in self._processes if process.ready]
        if self._scheduled:
            times.append(self._scheduled[0]._when)
        if not times:
            raise AssertionError("nothing will ever happen again")
        self._now = max(self._now, min(times))

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Cancelled timers are left where they are."""

    def _write_to_self(self) -> None:
        """Nobody sleeps in a selector."""

    def _note_problem(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.problems.append(f"{context['message']}: {error!r}" if error is not None else context["message"])

    def end(self) -> None:
        """Forget everything, the dead included."""
        left = {
            *asyncio.all_tasks(self),
            *(task for process in (*self._dead, *self._processes) for task in process.tasks),
        }
        for task in left:
            task._log_destroy_pending = False
            _close(task.get_coro())
        for process in (*self._dead, *self._processes):
            process.tasks.clear()
        self.close()


def _close(coroutine: Any) -> None:
    """End a coroutine, although it would rather do some more first."""
    for _ in range(10):
        try:
            coroutine.close()
        except RuntimeError:  # it awaits something on its way out
            continue
        except BaseException:  # whatever it makes of being closed
            continue
        return


@contextlib.contextmanager
def burial() -> Generator[None]:
    """While inside, nobody hears of what becomes of coroutines of dead processes when they are thrown away."""
    hook, was_enabled = sys.unraisablehook, gc.isenabled()
    sys.unraisablehook = lambda unraisable: None
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
            gc.collect()
    finally:
        sys.unraisablehook = hook
        gc.unfreeze()
        if was_enabled:
            gc.enable()
