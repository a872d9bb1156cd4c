"""Stdout carries results only, and a command that cannot write there says so in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.cli.cli_project import Cli, command_line, json_of, run_id_of, write_workflow

LOUD = 'print("loud")\n\ndef run(ctx):\n    """Be loud."""\n    print("louder")\n    return 1\n'


def shell(project: Path, command: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """A command line as a shell runs it, redirections included; `pyflue` in it is ours."""
    pyflue = " ".join(command_line([]))
    return subprocess.run(
        command.replace("pyflue", pyflue, 1),
        shell=True,
        cwd=project,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=30,
        check=False,
    )


def test_what_a_file_prints_while_it_is_loaded_is_not_on_stdout(project: Path, cli: Cli) -> None:
    write_workflow(project, "loud", LOUD)
    assert json_of(cli("workflows", "list", "--json"))["workflows"]
    assert json_of(cli("workflows", "show", "loud", "--json"))["name"] == "loud"
    assert json_of(cli("workflows", "validate", "--json"))["problems"] == []
    answer = cli("run", "loud", "--json")
    assert json_of(answer)["result"] == 1
    assert cli("run", "loud", "--detach", "--json").stdout.startswith("{")
    for arguments in (["workflows", "list"], ["run", "loud"]):
        process = subprocess.run(command_line(arguments), cwd=project, capture_output=True, text=True, check=True)
        assert "loud\n" in process.stderr
        assert "loud\n" not in process.stdout


def test_a_retry_keeps_what_the_file_prints_off_stdout(project: Path, cli: Cli) -> None:
    failing = 'print("loud")\n\ndef run(ctx):\n    raise ValueError\n'
    write_workflow(project, "loud", failing)
    run_id = run_id_of(cli("run", "loud"))
    assert json_of(cli("runs", "retry", run_id, "--json"))["status"] == "failed"


def test_the_package_is_the_command(project: Path) -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "pyflue", "run", "echo"], cwd=project, capture_output=True, text=True, check=True
    )
    assert answer.stdout == "{}\n"


def test_a_result_that_cannot_be_written_is_an_error_of_one_line(project: Path) -> None:
    for command in ("run echo", 'run text --payload \'{"text": "a"}\'', "workflows list", "runs list --json"):
        answer = shell(project, f"pyflue {command} > /dev/full")
        assert answer.returncode == 1
        assert answer.stderr.splitlines()[-1] == "error: No space left on device"
        assert "Traceback" not in answer.stderr
        closed = shell(project, f"pyflue {command} >&-")
        assert (closed.returncode, closed.stderr) == (
            1,
            "error: stdout is closed, so there is nowhere to write the result.\n",
        )


def test_stdin_and_stderr_may_be_closed(project: Path) -> None:
    answer = shell(project, "pyflue run echo --payload - <&-")
    assert (answer.returncode, answer.stderr.splitlines()[-1]) == (
        2,
        "Error: Invalid value for '--payload': stdin is closed.",
    )
    assert shell(project, "pyflue run echo --payload 1 2>&-").stdout == "1\n"


def test_a_folder_that_cannot_be_written_is_an_error_of_one_line(project: Path, cli: Cli) -> None:
    (project / "file").touch()
    answer = cli("init", "file/demo")
    assert (answer.exit_code, answer.stderr) == (1, "error: file/demo: Not a directory\n")


def test_text_that_the_locale_lacks_is_an_error_of_one_line(project: Path) -> None:
    answer = shell(
        project,
        'pyflue run text --payload \'{"text": "\u00fc"}\' --json',
        LC_ALL="C",
        PYTHONUTF8="0",
        PYTHONCOERCECLOCALE="0",
    )
    assert "Traceback" not in answer.stderr
    odd = project / os.fsdecode(b"odd-\xff")
    write_workflow(odd, "echo", "def run(ctx):\n    return 1\n")
    for command in ("run echo", "workflows list", "db check", "workflows show echo"):
        answer = shell(odd, f"pyflue {command}")
        assert "Traceback" not in answer.stderr, answer.stderr
