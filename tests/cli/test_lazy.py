"""What commands import, what `--help` says, and what a shell completes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from pyflue import __version__
from pyflue.cli import main
from pyflue.cli.app import COMMANDS
from tests.cli.cli_project import Cli, command_line, complete, run_id_of

HEAVY = ("httpx2", "msgspec", "pydantic", "rich", "starlette", "structlog", "uvicorn", "watchfiles", "websockets")


def imported_by(*arguments: str) -> set[str]:
    """The modules that are loaded after a command."""
    code = (
        "import sys\nfrom pyflue.cli import main\n"
        "try:\n    main(sys.argv[1:], prog_name='pyflue')\n"
        "finally:\n    print('\\n'.join(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    return set(done.stderr.splitlines())


def test_help_imports_no_command_and_nothing_heavy(project: Path) -> None:
    modules = imported_by("--help")
    assert not modules & {*HEAVY, "asyncio", "pyflue.journal", "pyflue.main"}
    assert not modules & {f"pyflue.cli.{module}" for module, _ in COMMANDS.values()}


def test_a_plain_run_imports_neither_server_nor_client_nor_validation(project: Path) -> None:
    modules = imported_by("run", "echo")
    assert not modules & (set(HEAVY) - {"msgspec"})
    assert not modules & {"pyflue.server", "pyflue.client"}
    assert not modules & {f"pyflue.{name}" for name in ("journal.calls", "engine.answering", "engine.forking")}


def test_a_command_imports_no_other_command(project: Path) -> None:
    others = {f"pyflue.cli.{module}" for module, _ in COMMANDS.values()} - {"pyflue.cli.logs"}
    assert not imported_by("logs", "--help") & others


@pytest.mark.parametrize("name", COMMANDS)
def test_the_listed_summary_is_the_first_sentence_of_the_commands_help(name: str) -> None:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    assert (command.help or "").partition("\n")[0] == COMMANDS[name][1]


def test_every_command_and_option_has_a_help_text() -> None:
    def check(command: click.Command, path: str) -> None:
        assert command.help, path
        for parameter in command.params:
            assert isinstance(parameter, click.Argument) or getattr(parameter, "help", None), f"{path} {parameter.name}"
        if isinstance(command, click.Group):
            for name in command.list_commands(click.Context(command)):
                below = command.get_command(click.Context(command), name)
                assert below is not None
                check(below, f"{path} {name}")

    check(main, "pyflue")


def test_version_and_unknown_commands(cli: Cli) -> None:
    assert cli("--version").stdout == f"pyflue {__version__}\n"
    assert cli("rum").exit_code == 2
    assert cli().exit_code == 2


def test_a_shell_completes_commands_workflows_and_runs(project: Path, cli: Cli) -> None:
    run_id = run_id_of(cli("run", "echo"))
    assert complete(project, "pyflue r") == ["run", "runs"]
    assert complete(project, "pyflue run ") == ["broken_inside", "echo", "steps", "text", "waits"]
    assert complete(project, "pyflue run e") == ["echo"]
    assert complete(project, "pyflue logs ") == [run_id]
    assert complete(project, "pyflue runs sh") == ["show"]
    assert complete(project, "pyflue runs show work") == [run_id]
    assert "--deadline" in complete(project, "pyflue run --de")


def test_completion_of_names_imports_no_workflow(project: Path) -> None:
    (project / "src/workflows/loud.py").write_text("raise SystemExit('imported')", encoding="utf-8")
    assert complete(project, "pyflue run l") == ["loud"]


def test_where_there_is_nothing_completion_is_silent(tmp_path: Path) -> None:
    assert complete(tmp_path, "pyflue run ") == []
    assert complete(tmp_path, "pyflue logs ") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_is_printed(shell: str) -> None:
    answer = CliRunner().invoke(main, ["completion", shell], prog_name="pyflue")
    assert answer.exit_code == 0
    assert "_PYFLUE_COMPLETE" in answer.stdout


def test_help_of_completion_says_where_the_script_goes(cli: Cli) -> None:
    assert "source <(pyflue completion bash)" in cli("completion", "--help").stdout


@pytest.mark.parametrize(
    ("line", "words", "reply"),
    [
        ("pyflue logs workflow:echo:", "pyflue logs workflow : echo :", "{id}"),
        ("pyflue logs workflow:e", "pyflue logs workflow : e", "echo:{id}"),
        ("pyflue logs wor", "pyflue logs wor", "workflow:echo:{id}"),
        ("pyflue logs ", "pyflue logs ''", "workflow:echo:{id}"),
        ("pyflue run ec", "pyflue run ec", "echo"),
    ],
)
def test_bash_completes_ids_although_it_splits_them_at_colons(
    project: Path, cli: Cli, line: str, words: str, reply: str
) -> None:
    run_id = run_id_of(cli("run", "echo"))
    command = project / "pyflue"
    command.write_text(f'#!/bin/sh\nexec {" ".join(command_line([]))} "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    script = f"""{cli("completion", "bash").stdout}
COMP_WORDBREAKS=$' \\t\\n"=:'
COMP_LINE={line!r}; COMP_POINT={len(line)}; COMP_WORDS=({words}); COMP_CWORD={len(words.split()) - 1}
_pyflue_completion ./pyflue
echo "${{COMPREPLY[*]}}"
"""
    answer = subprocess.run(["bash", "-c", script], cwd=project, capture_output=True, text=True, check=False)
    assert answer.stdout.strip() == reply.format(id=run_id.removeprefix("workflow:echo:")), answer.stderr
