"""`pyflue completion`: what a shell has to be told to complete our commands."""

from __future__ import annotations

from collections.abc import Mapping

import click
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete


class _Bash(BashComplete):
    """Bash takes a colon for the end of a word, and ids of runs have colons.

    So the words are put together again before they are completed, and what stands before the last colon, which bash
    leaves in its place, is taken off the answers.
    """

    source_template = """\
%(complete_func)s() {
    local IFS=$'\\n' words=() before= word i type value kept= response
    for ((i = 0; i <= COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if [[ ${#words[@]} -gt 1 && -n $word && ( $word == :* || $before == *: ) ]]; then
            words[${#words[@]}-1]+=$word
        elif [[ -n $word || $before != *: || ${COMP_LINE:0:COMP_POINT} == *[[:space:]] ]]; then
            words+=("$word")
        fi
        before=$word
    done
    word=${words[${#words[@]}-1]}
    [[ $COMP_WORDBREAKS == *:* ]] && kept=${word%%"${word##*:}"}

    response=$(env COMP_WORDS="${words[*]}" COMP_CWORD=$((${#words[@]}-1)) %(complete_var)s=bash_complete $1)

    for completion in $response; do
        IFS=',' read type value <<< "$completion"

        if [[ $type == 'dir' ]]; then
            COMPREPLY=()
            compopt -o dirnames
        elif [[ $type == 'file' ]]; then
            COMPREPLY=()
            compopt -o default
        elif [[ $type == 'plain' ]]; then
            COMPREPLY+=("${value#"$kept"}")
        fi
    done

    return 0
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""


_SHELLS: Mapping[str, type[ShellComplete]] = {"bash": _Bash, "zsh": ZshComplete, "fish": FishComplete}
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

    It completes commands, options, names of workflows and ids of recent runs and open approvals.
    """
    click.echo(_SHELLS[shell](ctx.find_root().command, {}, "pyflue", _VARIABLE).source())
