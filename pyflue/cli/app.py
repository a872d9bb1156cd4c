"""The root of the command line: global options, the table of commands, and how any of them ends.

Nothing but click is imported until a command is chosen, `pyflue --help` and completion of command names included. Only
where packages of others bring dialects along, those are asked for their commands (`dialects.py`): by `--help`, and when
a command is called that is none of ours.
"""

from __future__ import annotations

import errno
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from .. import __version__
from ..errors import PyFlueError

#: The commands in the order of `--help`: the module below this folder that has the `command`, and the first sentence
#: of its help (a test compares them).
COMMANDS = {
    "init": ("init", "Start a new project in a folder."),
    "run": ("run", "Run a workflow here and print its result."),
    "prompt": ("prompt", "Ask an agent something and print its answer."),
    "dev": ("dev", "Serve the project and reload workflows when their files change."),
    "serve": ("serve", "Serve the project."),
    "logs": ("logs", "Show the events of a run."),
    "runs": ("runs", "List, inspect, end, repeat and delete runs."),
    "approvals": ("approvals", "List what runs ask of people, and approve or reject it."),
    "signal": ("signal", "Send a signal to a run."),
    "agents": ("agents", "List agents, talk to them, and look at what they did."),
    "workflows": ("workflows", "List, inspect and check workflow files."),
    "flow": ("flow", "Run, test, check and serve flow documents."),
    "db": ("db", "Check, copy and tidy the journal."),
    "completion": ("completion", "Print the script that completes `pyflue` commands in a shell."),
}
EXIT_INTERRUPTED = 130
#: These write nothing to stdout, so they do not need it.
_SILENT = {"init", "dev", "serve"}


class LazyGroup(click.Group):
    """A group that knows its commands' names and imports one when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *_of_others(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return _of_others(ctx).get(cmd_name)
        module, _ = COMMANDS[cmd_name]
        return import_module(f"{__package__}.{module}").command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if not name.startswith("-") and not ctx.resilient_parsing and self.get_command(ctx, name) is None:
            from difflib import get_close_matches

            close = get_close_matches(name, self.list_commands(ctx))
            ctx.fail(f"No such command {name!r}." + (f" Did you mean {' or '.join(close)}?" if close else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(_summaries(ctx))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[Any]]:
        names = [CompletionItem(name, help=summary) for name, summary in _summaries(ctx) if name.startswith(incomplete)]
        return names + click.Command.shell_complete(self, ctx, incomplete)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except PyFlueError as error:
            from .errors import Failure

            raise Failure(error) from error
        except KeyboardInterrupt:
            raise click.exceptions.Exit(EXIT_INTERRUPTED) from None
        except UnicodeEncodeError as error:
            from .errors import Problem

            text = ascii(error.object[max(error.start - 40, 0) : error.end + 40])
            hint = "Use a UTF-8 locale, or set PYTHONUTF8=1; a path must be valid UTF-8."
            raise Problem(f"There is no way to write {text} in {error.encoding}.", hint=hint) from error
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise  # the reader has left; click ends the command in silence
            from .errors import Problem

            what = error.strerror or str(error)
            raise Problem(what if error.filename is None else f"{os.fsdecode(error.filename)}: {what}") from error


def _of_others(ctx: click.Context) -> dict[str, click.Command]:
    from .dialects import commands_of_dialects

    return commands_of_dialects(ctx, COMMANDS)


def _summaries(ctx: click.Context) -> list[tuple[str, str]]:
    """The commands with a sentence each; those of other packages at the end."""
    ours = [(name, summary) for name, (_, summary) in COMMANDS.items()]
    others = _of_others(ctx).items()
    return ours + [(name, command.get_short_help_str(80)) for name, command in others if not command.hidden]


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "--project",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="The project folder; otherwise the nearest one from here upwards.",
)
@click.version_option(__version__, message="pyflue %(version)s")
@click.pass_context
def main(ctx: click.Context, project: Path | None) -> None:
    """Durable workflows from plain files: a workflow is a file, a run is its journal.

    The result of a command goes to stdout, everything else to stderr. Exit codes: 0 done, 1 the run failed, 2 wrong
    use, 3 not found or not reachable, 4 refused, 5 the journal cannot be used, 130 interrupted.
    """
    # A stream that was closed (`>&-`) is None here.
    if sys.stderr is None:  # pyright: ignore[reportUnnecessaryComparison]
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    if sys.stdout is None and ctx.invoked_subcommand not in _SILENT:  # pyright: ignore[reportUnnecessaryComparison]
        from .errors import Problem

        raise Problem("stdout is closed, so there is nowhere to write the result.")
