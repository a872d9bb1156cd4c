"""Reload on edit: keeps a catalog up to date while its files change.

Run by `pyflue dev` as a task. Watches the folders that the catalog names, each by itself and not what is below it: so
neither `.venv` and `node_modules` nor the journal's own writes ever wake it. `watchfiles` sees that something changed;
what it means is the catalog's business.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from watchfiles import DefaultFilter, awatch  # pyright: ignore[reportUnknownVariableType]  (knows trio's events too)

from ..engine.threads import run_in_own_thread

#: Saves that follow one another within this time are one change …
_QUIET_S = 0.15
#: … but a longer series is not waited for.
_SERIES_S = 1.5
#: How often `watchfiles` hands over what it saw.
_STEP_MS = 50


class Watched(Protocol):
    """A catalog, or several of them as one. Both calls block."""

    def folders(self) -> frozenset[Path]:
        """The folders in which a change may concern it."""
        ...

    def refresh(self) -> bool:
        """Look at the files again. True if anything is different now."""
        ...


async def watch(catalog: Watched, *, on_change: Callable[[], None], ready: asyncio.Event | None = None) -> None:
    """Refresh the catalog whenever its files have changed, until cancelled.

    `on_change` is called on the event loop after each refresh that made a difference. `ready` is set as soon as no
    further change can be missed.
    """
    async with asyncio.TaskGroup() as tasks:
        while True:
            folders = await run_in_own_thread(catalog.folders)
            moved = asyncio.Event()

            def look(folders: frozenset[Path] = folders, moved: asyncio.Event = moved) -> None:
                # Not waited for: an import that hangs must not keep the next edit from being served.
                tasks.create_task(_refresh(catalog, folders, moved=moved, on_change=on_change, ready=ready))

            watching = tasks.create_task(_watch_folders(folders, look, until=moved))
            await asyncio.sleep(0)  # with its first step it listens
            look()  # at what changed before
            await watching


async def _watch_folders(folders: frozenset[Path], look: Callable[[], None], *, until: asyncio.Event) -> None:
    # The debouncing of `watchfiles` ends when it sees no *other* file change; saving one file fifty times is its gap.
    look_soon = _Series(look)
    with contextlib.suppress(FileNotFoundError), contextlib.closing(look_soon):  # gone by now: the next round knows
        async for _ in awatch(
            *sorted(folders),
            watch_filter=DefaultFilter(),
            step=_STEP_MS,
            debounce=_STEP_MS,
            stop_event=until,
            recursive=False,
            ignore_permission_denied=True,
        ):
            look_soon.extend()


class _Series:
    """Calls a function once for a series of changes, when they have come to rest."""

    def __init__(self, function: Callable[[], None]) -> None:
        self._function = function
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._ends_at = 0.0

    def extend(self) -> None:
        now = self._loop.time()
        if self._timer is None:
            self._ends_at = now + _SERIES_S
        else:
            self._timer.cancel()
        self._timer = self._loop.call_at(min(now + _QUIET_S, self._ends_at), self._end)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _end(self) -> None:
        self._timer = None
        self._function()


async def _refresh(
    catalog: Watched,
    watched: frozenset[Path],
    *,
    moved: asyncio.Event,
    on_change: Callable[[], None],
    ready: asyncio.Event | None,
) -> None:
    if await run_in_own_thread(catalog.refresh):
        on_change()
    if await run_in_own_thread(catalog.folders) != watched:
        moved.set()
    elif ready is not None:
        ready.set()
