"""`pyflue dev` and `pyflue serve` as processes."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.cli_project import Cli, json_of, spawn, write_workflow

_URL = re.compile(r"http://127\.0\.0\.1:\d+")


@contextmanager
def started(project: Path, *arguments: str, **environ: str) -> Iterator[str]:
    """The URL of a server that is a process of its own; it has to end well at SIGTERM."""
    process = spawn(*arguments, cwd=project, env=environ)
    try:
        yield url_told(process)
    finally:
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=20)
    assert process.returncode == 0, stderr


def url_told(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    for line in process.stderr:
        if match := _URL.search(line):
            return match[0]
    raise AssertionError(f"The server ended with {process.wait(20)} without telling its address.")


@pytest.mark.parametrize("command", ["serve", "dev"])
def test_a_server_answers_until_it_is_told_to_stop(command: str, project: Path, cli: Cli) -> None:
    with started(project, command, "--port", "0") as url:
        assert json_of(cli("run", "echo", "--payload", "[1]", "--server", url)) == [1]


def test_dev_reads_the_projects_env_file_and_the_shell_wins(project: Path, cli: Cli) -> None:
    (project / ".env").write_text("FROM_FILE=file\nFROM_SHELL=file\n", encoding="utf-8")
    write_workflow(project, "env", "def run(ctx):\n    return [ctx.env.get(n) for n in ctx.payload]\n")
    names = '["FROM_FILE", "FROM_SHELL"]'
    with started(project, "dev", "--port", "0", FROM_SHELL="shell") as url:
        assert json_of(cli("run", "env", "--payload", names, "--server", url)) == ["file", "shell"]
    with started(project, "serve", "--port", "0", FROM_SHELL="shell") as url:
        assert json_of(cli("run", "env", "--payload", names, "--server", url)) == [None, "shell"]


def test_env_files_can_be_named(project: Path, cli: Cli) -> None:
    (project / ".env").write_text("ONE=default\n", encoding="utf-8")
    (project / "a.env").write_text("ONE=a\n", encoding="utf-8")
    (project / "b.env").write_text("ONE=b\nTWO=b\n", encoding="utf-8")
    write_workflow(project, "env", "def run(ctx):\n    return [ctx.env.get(n) for n in ctx.payload]\n")
    with started(project, "dev", "--port", "0", "--env", "a.env", "--env", "b.env") as url:
        assert json_of(cli("run", "env", "--payload", '["ONE", "TWO"]', "--server", url)) == ["a", "b"]


def test_a_bad_env_file_is_named_with_its_line(project: Path, cli: Cli) -> None:
    (project / ".env").write_text("GOOD=1\nbad\n", encoding="utf-8")
    answer = cli("dev", "--port", "0")
    assert answer.exit_code == 2
    assert "line 2" in answer.stderr
    assert cli("dev", "--env", "none.env").exit_code == 2


def test_an_open_address_without_a_token_is_refused(project: Path, cli: Cli) -> None:
    answer = cli("serve", "--host", "0.0.0.0", "--port", "0")
    assert answer.exit_code == 2
    assert "PYFLUE_TOKEN" in answer.stderr
