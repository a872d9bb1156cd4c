"""Whether a run has anything to do: are all of its tasks blocked by waits?

A run is `waiting` only if nothing in it can go on before a wait ends. A task in a durable wait is blocked; so is one
that waits for blocked tasks only, however it does that. What a task waits for is seen in asyncio's own bookkeeping
(`_fut_waiter`, `_callbacks`, `_children`: private names, the same in CPython 3.11 to 3.14). Whatever is not recognised
counts as busy: then the run stays `running` and keeps its slot, which is never wrong.
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
    seen: dict[asyncio.Task[Any], bool] = {}

    def is_blocked(task: asyncio.Task[Any]) -> bool:
        if task.done() or task in waiting:
            return True
        known = seen.get(task)
        if known is not None:
            return known
        seen[task] = True  # a circle of tasks that wait for one another is blocked, too
        seen[task] = result = _waits_for_blocked(task)
        return result

    def _waits_for_blocked(task: asyncio.Task[Any]) -> bool:
        if task in threads:
            bridge = threads[task]
            return bridge is not None and not bridge.done() and is_blocked(bridge)
        awaited = _awaited(task, tasks)
        return bool(awaited) and all(is_blocked(other) for other in awaited)

    return all(is_blocked(task) for task in tasks)


def _awaited(task: asyncio.Task[Any], tasks: Collection[asyncio.Task[Any]]) -> list[asyncio.Task[Any]]:
    """The tasks of the run that this one waits for and that are not done; empty if it waits for something else."""
    waiter = getattr(task, "_fut_waiter", None)
    return [] if waiter is None else _behind(waiter, tasks)


def _behind(waiter: Any, tasks: Collection[asyncio.Task[Any]]) -> list[asyncio.Task[Any]]:
    """The tasks that have to end before a future is done; empty if that is up to something else."""
    if waiter in tasks:
        return [waiter]
    gathered = getattr(waiter, "_children", None)
    if gathered is None:
        return [other for other in tasks if not other.done() and _tells(other, waiter)]
    each = [_behind(child, tasks) for child in gathered if not child.done()]
    return [task for behind in each for task in behind] if all(each) else []


def _tells(task: asyncio.Task[Any], waiter: object) -> bool:
    """Whether the end of a task is told to a future: that of a task group, of `asyncio.wait`, of a shield."""
    callbacks: Any = getattr(task, "_callbacks", None) or ()
    return any(_refers(entry[0], waiter) for entry in callbacks)


def _refers(callback: Any, waiter: object) -> bool:
    if isinstance(callback, functools.partial):
        return any(argument is waiter for argument in callback.args)
    group = getattr(callback, "__self__", None)
    if group is not None:
        return getattr(group, "_on_completed_fut", None) is waiter
    return any(_content(cell) is waiter for cell in getattr(callback, "__closure__", None) or ())


def _content(cell: Any) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # not set yet
        return None
