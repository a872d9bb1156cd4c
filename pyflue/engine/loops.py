"""Running an event loop that workflows have run on, and leaving it although some of them refuse to stop.

`asyncio.run` cancels what is left and waits until it has ended; a workflow that swallows its cancellation would keep
the process alive for ever. Used by whatever starts an engine: the listener, `pyflue run`, the quarantine's child.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

#: How long tasks may take to end once the main one has.
_PATIENCE_S = 1.0


def run(main: Coroutine[Any, Any, T], *, loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None) -> T:
    """As `asyncio.run`, but tasks that have not ended a second after their cancellation are left behind."""
    runner = asyncio.Runner(loop_factory=loop_factory)
    try:
        return runner.run(main)
    finally:
        loop = runner.get_loop()
        if loop.run_until_complete(_cancel_all()):
            # The process is about to end, and what they did since their run was ended was refused.
            asyncio.set_event_loop(None)
        else:
            runner.close()


async def _cancel_all() -> bool:
    """Cancel all other tasks; whether any of them goes on."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    if not others:
        return False
    _, pending = await asyncio.wait(others, timeout=_PATIENCE_S)
    for task in pending:
        # Its end will not be seen by anybody; that is said in the run's record, not on the terminal.
        setattr(task, "_log_destroy_pending", False)  # noqa: B010  (asyncio's own switch for this, private to it)
    return bool(pending)
