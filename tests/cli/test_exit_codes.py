"""Exit codes: every error has one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from pyflue import errors
from pyflue.cli.app import EXIT_INTERRUPTED, LazyGroup
from pyflue.cli.errors import EXIT_CODES, FAILED, JOURNAL, NOT_FOUND, REFUSED, USAGE, exit_code
from pyflue.errors import PyFlueError
from tests.cli.cli_project import Cli
from tests.promises import promise


def below(kind: type[PyFlueError]) -> Iterator[type[PyFlueError]]:
    yield kind
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from below(child)


def test_every_error_of_the_tree_has_an_exit_code_of_its_own_or_of_its_family() -> None:
    for kind in set(below(PyFlueError)) - {PyFlueError}:
        family = [cls for cls in kind.__mro__ if cls in EXIT_CODES and cls is not PyFlueError]
        assert family, f"{kind.__name__} has no row in cli/errors.py"
        assert exit_code(kind) in {FAILED, USAGE, NOT_FOUND, REFUSED, JOURNAL}


def test_the_table_has_no_other_classes() -> None:
    assert set(EXIT_CODES) <= set(below(PyFlueError))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.RunNotFound("workflow:x:1"), 3),
        (errors.Unreachable("http://127.0.0.1:1", "ConnectError"), 3),
        (errors.RunFinished("workflow:x:1", "completed"), 4),
        (errors.JournalFull("journal.db"), 5),
        (errors.TooDeep("The payload", 100), 2),
        (PyFlueError("Own words.", type="quota"), 1),
    ],
)
def test_an_error_is_one_line_on_stderr_and_its_code(error: PyFlueError, code: int) -> None:
    answer = run_raising(error)
    assert answer.exit_code == code
    assert answer.stdout == ""
    lines = answer.stderr.splitlines()
    assert lines[0] == f"error: {error.message}"
    assert lines[1:] == ([] if error.hint is None else [f"hint: {error.hint}"])


@promise("F48")
def test_what_a_terminal_would_obey_is_escaped_in_errors() -> None:
    """F48."""
    answer = run_raising(PyFlueError("bad \x1b[31mred\x07 \u202eback\nnext", hint="h\x9bi"))
    assert answer.stderr == "error: bad \\x1b[31mred\\x07 \\u202eback\\x0anext\nhint: h\\x9bi\n"


def test_an_interrupted_command_ends_with_130() -> None:
    assert run_raising(KeyboardInterrupt()).exit_code == EXIT_INTERRUPTED


def run_raising(error: BaseException):
    class OneCommand(LazyGroup):
        def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
            @click.command()
            def raising() -> None:
                raise error

            return raising

    return CliRunner().invoke(OneCommand("pyflue"), ["raising"])


def test_a_command_with_a_typing_error_is_answered_with_what_was_meant(cli: Cli) -> None:
    answer = cli("rnu", "echo")
    assert answer.exit_code == 2
    assert "Did you mean run" in answer.stderr


def test_a_payload_that_is_no_json_is_answered_with_how_to_write_it(project: Path, cli: Cli) -> None:
    answer = cli("run", "echo", "--payload", "hello")
    assert answer.exit_code == 2
    assert """hint: Text is JSON in quotes: --payload '"hello"'; @file reads a file, - reads stdin.""" in answer.stderr
