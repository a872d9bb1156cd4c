"""A thread of its own for one call: for steps with a time limit, and for plain steps of runs on an event loop.

The call sees the caller's context variables. A thread cannot be stopped: one that is given up goes on, and what becomes
of it is dropped. (The engine's threads do the same for runs; importing the engine is not worth it for a library call.)
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from typing import Any


class Started:
    """A call under way."""

    __slots__ = ("_call", "_context", "_done", "_error", "_lock", "_tell", "_value")

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call
        self._context = contextvars.copy_context()
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._tell: Callable[[], None] | None = None
        self._value: Any = None
        self._error: BaseException | None = None

    def work(self) -> None:
        try:
            self._value = self._context.run(self._call)
        except BaseException as error:  # noqa: BLE001  (the author's code may raise anything; `value` raises it)
            self._error = error
        with self._lock:
            self._done.set()
            tell = self._tell
        if tell is not None:
            tell()

    def wait(self, limit_s: float | None) -> bool:
        """Whether the call has ended within a time."""
        return self._done.wait(limit_s)

    def when_done(self, tell: Callable[[], None]) -> None:
        """Have a function called at the end, in this thread or in that one."""
        with self._lock:
            self._tell = tell
            is_done = self._done.is_set()
        if is_done:
            tell()

    def value(self) -> Any:
        """What the call returned, once it has ended, or what it raised."""
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # its traceback holds this object, which would hold it
        return self._value


def start(function: Callable[..., Any], *args: Any) -> Started:
    """Call a function in a new daemon thread."""
    started = Started(lambda: function(*args))
    name = getattr(function, "__qualname__", type(function).__name__)
    threading.Thread(target=started.work, name=f"agentflow {name}", daemon=True).start()
    return started
