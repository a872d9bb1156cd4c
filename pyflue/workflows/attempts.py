"""One try at running code that may never return: in a daemon thread, with a deadline.

Called by the catalog to import workflow files.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Abandoned(BaseException):
    """Raised inside the code of an attempt that has been given up, to make it stop if it is Python code."""


class Attempt(Generic[T]):
    """Runs a function in a thread of its own, from now on."""

    def __init__(self, function: Callable[[], T], *, name: str, timeout_s: float) -> None:
        self._function = function
        self._finished = threading.Event()
        self._value: T | None = None
        self._error: BaseException | None = None
        self._give_up_at = time.monotonic() + timeout_s
        self._thread = threading.Thread(target=self._work, name=f"pyflue import {name}", daemon=True)
        self._thread.start()

    def wait(self, timeout_s: float) -> bool:
        """Wait for the end; False if it takes longer."""
        return self._finished.wait(timeout_s)

    def result(self) -> T:
        """What the function returned, or raises what it raised. Waits until the deadline.

        Raises:
            TimeoutError: it has not come to an end; it was told to stop, and is left alone.
        """
        if not self._finished.wait(max(0.0, self._give_up_at - time.monotonic())):
            self.abandon()
            raise TimeoutError
        if self._error is not None:
            raise self._error
        return self._value  # pyright: ignore[reportReturnType]  (set by now; None may be a value)

    def _work(self) -> None:
        try:
            self._value = self._function()
        except BaseException as error:  # noqa: BLE001  (foreign code may raise anything; `result` raises it)
            self._error = error
        finally:
            self._finished.set()

    def abandon(self) -> None:
        """Tell the function to stop, and wait no longer. Does nothing if it has come to its end."""
        if self._finished.is_set():
            return
        import ctypes  # only here: a loop that is left running would slow down every other thread

        ident = self._thread.ident
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident or 0), ctypes.py_object(Abandoned))
