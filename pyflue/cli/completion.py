"""`pyflue completion`: what a shell has to be told to complete our commands."""

from __future__ import annotations

from collections.abc import Mapping

import click
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

_SHELLS: Mapping[str, type[ShellComplete]] = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}
_VARIABLE = "_PYFLUE_COMPLETE"
_WHERE = {
    "bash": "Add to ~/.bashrc:  source <(pyflue completion bash)",
    "zsh": "Add to ~/.zshrc, after compinit:  source <(pyflue completion zsh)",
    "fish": "Run once:  pyflue completion fish > ~/.config/fish/completions/pyflue.fish",
}


@click.command(epilog="\b\n" + "\n".join(_WHERE.values()))
@click.argument("shell", type=click.Choice(list(_SHELLS)))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the script that completes `pyflue` commands in a shell.

    It completes commands, options, names of workflows and ids of recent runs.
    """
    click.echo(_SHELLS[shell](ctx.find_root().command, {}, "pyflue", _VARIABLE).source())
