"""A process of its own for runs that may end their process: both ends of it.

`SubprocessQuarantine` is what the engine of `dev` and `serve` is given; `drive_apart` is what runs in the child. That
opens the same project, drives the runs it was told, and exits. It is told on its standard input, whose end means stop:
so it also stops when its parent is gone, however that went. Both are put together in `main.py`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import codec

if TYPE_CHECKING:
    from .main import Project


class SubprocessQuarantine:
    """Implements `engine.Quarantine` for a project on disk."""

    def __init__(self, root: Path, options: Mapping[str, Any], *, program: str) -> None:
        """`program` is Python source that ends up in `drive_apart`."""
        self._root = root
        self._program = program
        self._options = dict(options)

    async def try_runs(self, run_ids: Sequence[str]) -> str:
        order = {"root": str(self._root), "options": self._options, "run_ids": list(run_ids)}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            self._program,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            # Ctrl-C reaches the parent only, which then ends the child in good order.
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        assert process.stdin is not None  # noqa: S101  (asked for above)
        try:
            process.stdin.write(codec.encode(order) + b"\n")
            code = await process.wait()
        except asyncio.CancelledError:
            process.stdin.close()
            raise
        return f"signal {-code}" if code < 0 else f"exit code {code}"


def drive_apart(open_project: Callable[..., Project]) -> None:
    """The child's whole life."""
    from .engine import loops

    order = codec.load(sys.stdin.buffer.readline())
    loops.run(_drive(open_project, Path(order["root"]), order["options"], order["run_ids"]))


async def _drive(
    open_project: Callable[..., Project], root: Path, options: Mapping[str, Any], run_ids: Sequence[str]
) -> None:
    loop = asyncio.get_running_loop()
    project = await asyncio.to_thread(open_project, root, options=options)
    try:
        async with project.engine(adopts=False) as engine:
            driving = loop.create_task(engine.drive_these(run_ids))
            threading.Thread(target=_stop_at_end_of_input, args=(loop, driving), daemon=True).start()
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                # Whoever ends the whole service means no harm to its runs: they are handed back.
                loop.add_signal_handler(number, driving.cancel)
            await asyncio.wait([driving])
            if not driving.cancelled() and (error := driving.exception()) is not None:
                raise error
    finally:
        await project.journal.close()


def _stop_at_end_of_input(loop: asyncio.AbstractEventLoop, driving: asyncio.Task[None]) -> None:
    sys.stdin.buffer.read()
    loop.call_soon_threadsafe(driving.cancel)
