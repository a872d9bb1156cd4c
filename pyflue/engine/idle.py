"""Whether a run has anything to do: are all of its tasks blocked by waits?

A run is `waiting` only if nothing in it can go on before a wait ends. A task in a durable wait is blocked; so is one
that waits for blocked tasks only, however it does that. What a task waits for is seen in asyncio's own bookkeeping
(`_fut_waiter`, `_callbacks`, `_children`: private names, the same in CPython 3.11 to 3.14). Whatever is not recognised
counts as busy: then the run stays `running` and keeps its slot, as one that works would.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Collection, Mapping
from typing import Any


def all_blocked(
    tasks: Collection[asyncio.Task[Any]],
    waiting: Collection[asyncio.Task[Any]],
    threads: Mapping[asyncio.Task[Any], asyncio.Task[Any] | None],
) -> bool:
    """Whether none of a run's tasks can go on.

    `waiting` are those in a durable wait. `threads` names the tasks that wait for a thread, each with the task that
    this thread in turn is waiting for (None: it works).
    """
    others = [task for task in tasks if task not in waiting and not task.done()]
    return not others or _Look(tasks, waiting, threads).all_are_blocked(others)


class _Look:
    """One look at the tasks of a run. Takes time in proportion to their number."""

    def __init__(
        self,
        tasks: Collection[asyncio.Task[Any]],
        waiting: Collection[asyncio.Task[Any]],
        threads: Mapping[asyncio.Task[Any], asyncio.Task[Any] | None],
    ) -> None:
        self._tasks = tasks
        self._waiting = waiting
        self._threads = threads
        self._known: dict[asyncio.Task[Any], bool] = {}
        self._tellers: dict[int, list[asyncio.Task[Any]]] | None = None

    def all_are_blocked(self, tasks: Collection[asyncio.Task[Any]]) -> bool:
        return all(self._is_blocked(task) for task in tasks)

    def _is_blocked(self, task: asyncio.Task[Any]) -> bool:
        if task in self._waiting or task.done():
            return True
        known = self._known.get(task)
        if known is None:
            self._known[task] = True  # a circle of tasks that wait for one another is blocked, too
            known = self._known[task] = self._waits_for_blocked(task)
        return known

    def _waits_for_blocked(self, task: asyncio.Task[Any]) -> bool:
        if task in self._threads:
            bridge = self._threads[task]
            return bridge is not None and not bridge.done() and self._is_blocked(bridge)
        waiter = getattr(task, "_fut_waiter", None)
        awaited = [] if waiter is None else self._behind(waiter)
        return bool(awaited) and self.all_are_blocked(awaited)

    def _behind(self, waiter: Any) -> list[asyncio.Task[Any]]:
        """The tasks that have to end before a future is done; empty if that is up to something else."""
        if waiter in self._tasks:
            return [waiter]
        gathered = getattr(waiter, "_children", None)
        if gathered is None:
            if self._tellers is None:
                self._tellers = _tellers(self._tasks)
            return self._tellers.get(id(waiter), [])
        each = [self._behind(child) for child in gathered if not child.done()]
        return [task for behind in each for task in behind] if all(each) else []


def _tellers(tasks: Collection[asyncio.Task[Any]]) -> dict[int, list[asyncio.Task[Any]]]:
    """For each future (by its id) the tasks whose end is told to it: by a task group, `asyncio.wait`, a shield."""
    tellers: dict[int, list[asyncio.Task[Any]]] = {}
    for task in tasks:
        if not task.done():
            callbacks: Any = getattr(task, "_callbacks", None) or ()
            for entry in callbacks:
                for future in _told(entry[0]):
                    tellers.setdefault(id(future), []).append(task)
    return tellers


def _told(callback: Any) -> list[object]:
    """The futures that a callback of a task sets."""
    if isinstance(callback, functools.partial):
        return [argument for argument in callback.args if isinstance(argument, asyncio.Future)]
    group = getattr(callback, "__self__", None)
    if group is not None:
        completed = getattr(group, "_on_completed_fut", None)
        return [] if completed is None else [completed]
    contents = [_content(cell) for cell in getattr(callback, "__closure__", None) or ()]
    if any(isinstance(content, asyncio.TimerHandle) for content in contents):
        return []  # with a time limit (of `asyncio.wait`) whoever waits may go on although nothing has ended
    return [content for content in contents if isinstance(content, asyncio.Future)]


def _content(cell: Any) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # not set yet
        return None
