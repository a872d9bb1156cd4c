"""Branches: several pieces of a run's work at once, each with a scope of its own.

Called by `FlueContext.parallel` and `map`. Plain `asyncio.gather` and task groups work as well; these add a limit, and
keys that follow the position in the list and not the order in which tasks happen to be made. If one branch fails, the
others are cancelled and awaited, and its exception is raised as it is.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterable, Callable, Iterable, Sequence
from typing import Any, cast

from .scopes import Scope, Scoped, branch_name, current


async def parallel(scopes: Sequence[Scope], branches: Sequence[Any], limit: int | None) -> list[Any]:
    """The results of branches, in their order."""

    def start(index: int) -> Any:
        branch = branches[index]
        return branch() if callable(branch) else branch

    try:
        return await _all(scopes, start, len(branches), limit)
    finally:
        for branch in branches:
            if inspect.iscoroutine(branch):
                branch.close()  # those that were never begun; for the others this does nothing


async def map_items(scope: Scope, function: Callable[[Any], Any], items: Sequence[Any], limit: int | None) -> list[Any]:
    """What a function makes of each item, in the order of the items."""
    scopes = [scope.item(index) for index in range(len(items))]
    return await _all(scopes, lambda index: function(items[index]), len(items), limit)


def scopes_of(branches: Sequence[Any]) -> list[Scope]:
    """A scope for each branch, below the running one."""
    here = _here()
    return [here.branch(branch_name(branch)) for branch in branches]


def scope_of_map(function: Any) -> Scope:
    """The scope that the items of one `map` are below of."""
    return _here().branch(branch_name(function))


def items_of(items: Any) -> list[Any]:
    """The items as a list.

    Raises:
        TypeError: they cannot be gone through now.
    """
    if isinstance(items, AsyncIterable):
        raise TypeError("ctx.map: collect the items of an async iterator in a step first, then map over the list.")
    return list(cast("Iterable[Any]", items))


def check_limit(limit: int | None) -> None:
    """Refuse what cannot be a limit."""
    if limit is not None and limit < 1:
        raise ValueError(f"limit={limit!r}: at least one branch has to run.")


async def _all(scopes: Sequence[Scope], start: Callable[[int], Any], count: int, limit: int | None) -> list[Any]:
    results: list[Any] = [None] * count
    left = iter(range(count))

    async def work(index: int) -> None:
        value = start(index)
        results[index] = await value if inspect.isawaitable(value) else value

    async def work_in_turn() -> None:
        for index in left:
            await asyncio.get_running_loop().create_task(Scoped(work(index), scopes[index]))

    try:
        async with asyncio.TaskGroup() as group:
            if limit is None or limit >= count:
                for index in left:
                    group.create_task(Scoped(work(index), scopes[index]))
            else:
                for _ in range(limit):
                    group.create_task(work_in_turn())
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return results


def _here() -> Scope:
    scope = current()
    assert scope is not None  # noqa: S101  (`Calls.begin` has been asked before)
    return scope
