"""A thread of its own for one blocking call, awaited from the event loop.

Called for workflows whose `run` is not async, and for other blocking calls that may take long. The default executor is
not used for these: its few threads are shared, so a call that never returns would take one away from everybody for
good, and hold up the end of the process. Knows nothing about runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")


async def run_in_own_thread(function: Callable[[*Arguments], T], *args: *Arguments) -> T:
    """Call a function in a new daemon thread, with a copy of the caller's context variables.

    Whatever it raises is raised here, `SystemExit` and other `BaseException`s included; none of them reaches the
    thread's own end. If the awaiting task is cancelled, this returns at once: a thread cannot be stopped, so it goes
    on, and what becomes of it is dropped.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[tuple[T, None] | tuple[None, BaseException]] = loop.create_future()
    context = contextvars.copy_context()

    def settle(value: tuple[T, None] | tuple[None, BaseException]) -> None:
        if not answer.done():
            answer.set_result(value)

    def work() -> None:
        try:
            value: tuple[T, None] | tuple[None, BaseException] = (context.run(function, *args), None)
        except BaseException as error:  # noqa: BLE001  (foreign code may raise anything; the awaiting side raises it)
            value = (None, error)
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile: nobody is waiting any more
            loop.call_soon_threadsafe(settle, value)

    name = getattr(function, "__qualname__", type(function).__name__)
    threading.Thread(target=work, name=f"pyflue {name}", daemon=True).start()
    value, error = await answer
    if error is not None:
        try:
            raise error
        finally:
            del answer, error  # the traceback holds this frame, and the frame would hold the error
    return value  # pyright: ignore[reportReturnType]  (the first half of the pair; None may be a value)
