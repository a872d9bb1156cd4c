"""The commands that dialects of other packages bring along, found by their entry points.

Nothing is imported as long as there are none. One that cannot be loaded, or wants a name that is taken, is told on
stderr and left out: the others go on working.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import click

from ..entry_points import DIALECTS, entry_points, is_ours, load

_KEY = f"{__name__}.commands"


def commands_of_dialects(ctx: click.Context, taken: Collection[str]) -> dict[str, click.Command]:
    """The commands by their names, but for those names that are `taken`. Asked for once in an invocation."""
    found: dict[str, click.Command] | None = ctx.meta.get(_KEY)
    if found is None:
        found = ctx.meta[_KEY] = {}
        for dialect, command in _all(ctx):
            name = command.name or ""
            if name and name not in taken and name not in found:
                found[name] = command
            else:
                _warn(ctx, f"the command {name!r} of the dialect {dialect!r} is left out: the name is taken.")
    return found


def _all(ctx: click.Context) -> Iterator[tuple[str, click.Command]]:
    for name, target in entry_points(DIALECTS):
        if is_ours(target):
            continue
        try:
            commands = list(load(target)().commands())
        except Exception as error:  # noqa: BLE001  (a plug-in's code; it must not take all commands with it)
            _warn(ctx, f"the commands of the dialect {name!r} cannot be had: {type(error).__name__}: {error}")
            continue
        for command in commands:
            if isinstance(command, click.Command):
                yield name, command
            else:
                _warn(ctx, f"the dialect {name!r} has a {type(command).__name__} where a click command is expected.")


def _warn(ctx: click.Context, problem: str) -> None:
    if not ctx.resilient_parsing:  # completion has nowhere to say it
        from .output import say, shown

        say(shown(f"warning: {problem}"))
