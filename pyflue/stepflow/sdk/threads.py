"""Where components run: threads for those that may block, an event loop in a thread of its own for coroutines.

Called by `stdio.py` (both) and `http.py` (threads only; it has an event loop). All threads are daemons: what a
component does in them cannot be stopped, and must not hold up the end of the process.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Coroutine, Generator
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

#: As many blocking components can run at once.
MOST_THREADS = 64


class Threads:
    """Runs functions, each in a thread; threads are made when they are needed and kept."""

    def __init__(self, most: int = MOST_THREADS) -> None:
        self._most = most
        self._queue: SimpleQueue[tuple[Callable[..., None], tuple[Any, ...]]] = SimpleQueue()
        self._lock = threading.Lock()
        self._made = self._idle = self._waiting = 0
        self._here = threading.local()

    def settle(self, grace_s: float) -> bool:
        """Whether nothing is under way; waits a moment for what is about to end."""
        until = time.monotonic() + grace_s
        while True:
            with self._lock:
                if self._idle == self._made and not self._waiting:
                    return True
            if time.monotonic() >= until:
                return False
            time.sleep(0.001)

    def submit(self, work: Callable[..., None], *args: Any) -> None:
        """Run `work(*args)` as soon as a thread is free. It must not raise."""
        with self._lock:
            self._waiting += 1
            is_needed = self._is_needed()
        self._queue.put((work, args))
        if is_needed:
            self._start()

    @contextlib.contextmanager
    def away(self) -> Generator[None]:
        """While inside, the calling thread only waits, and another one may work in its place.

        A component may wait for flows whose components need threads, too: if all threads did so, none would be left.
        """
        if not getattr(self._here, "is_ours", False):
            yield
            return
        with self._lock:
            self._most += 1
            is_needed = self._is_needed()
        if is_needed:
            self._start()
        try:
            yield
        finally:
            with self._lock:
                self._most -= 1

    def _is_needed(self) -> bool:
        """Whether there is work for one more thread, and room; it is counted already then. With the lock held."""
        is_needed = self._waiting > self._idle and self._made < self._most
        if is_needed:
            self._made += 1
            self._idle += 1
        return is_needed

    def _start(self) -> None:
        threading.Thread(target=self._run, name="stepflow component", daemon=True).start()

    async def call(self, work: Callable[..., Any], *args: Any) -> Any:
        """The result of `work(*args)`, run in a thread. A caller that is cancelled leaves it to itself."""
        import asyncio

        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()

        def settle(value: Any, error: BaseException | None) -> None:
            if done.done():
                return
            if error is None:
                done.set_result(value)
            else:
                # A future refuses `StopIteration`, which would end whoever waits for it.
                done.set_exception(RuntimeError(f"{error!r}") if isinstance(error, StopIteration) else error)

        def run() -> None:
            value, failed = None, None
            try:
                value = work(*args)
            except BaseException as error:  # noqa: BLE001  (raised again where it is waited for)
                failed = error
            with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits any more
                loop.call_soon_threadsafe(settle, value, failed)

        self.submit(run)
        return await done

    def _run(self) -> None:
        self._here.is_ours = True
        while True:
            work, args = self._queue.get()
            with self._lock:
                self._waiting -= 1
                self._idle -= 1
            work(*args)
            # Neither work nor its input is kept until the next one comes.
            del work, args
            with self._lock:
                self._idle += 1


class Loop:
    """An event loop in a thread. Made by the first coroutine: a server without any does not even import asyncio."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_ended = False

    def spawn(self, work: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        """Run `work(*args)` as a task of the loop. It must not raise. Called from one thread only."""
        if self._loop is None:
            self._start()
        assert self._loop is not None  # noqa: S101  (the line above)
        self._loop.call_soon_threadsafe(self._begin, work, args)

    def end(self, grace_s: float) -> bool:
        """Cancel what is under way, and wait a while; whether nothing is left."""
        if self._loop is None or self._thread is None:
            return True
        self._loop.call_soon_threadsafe(self._cancel)
        self._thread.join(grace_s)
        return not self._thread.is_alive()

    def _start(self) -> None:
        import asyncio

        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, args=(self._loop,), name="stepflow event loop", daemon=True)
        self._thread.start()

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.run_forever()
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()

    def _begin(self, work: Callable[..., Coroutine[Any, Any, None]], args: tuple[Any, ...]) -> None:
        assert self._loop is not None  # noqa: S101  (this runs in it)
        if self._is_ended:
            return
        task = self._loop.create_task(work(*args))
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._is_ended and not self._tasks and self._loop is not None:
            self._loop.stop()

    def _cancel(self) -> None:
        assert self._loop is not None  # noqa: S101  (this runs in it)
        self._is_ended = True
        for task in self._tasks:
            task.cancel()
        if not self._tasks:
            self._loop.stop()
