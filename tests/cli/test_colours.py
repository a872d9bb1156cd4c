"""Colours: on a terminal only, and not there either under NO_COLOR."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

import pytest

from tests.cli.cli_project import Cli, command_line, run_id_of
from tests.promises import promise


def on_a_terminal(project: Path, *arguments: str, **environ: str) -> bytes:
    """What a command writes to stdout if that is a terminal."""
    controller, terminal = pty.openpty()
    inherited = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    with os.fdopen(terminal, "wb") as stdout:
        process = subprocess.Popen(
            command_line(arguments),
            cwd=project,
            env={**inherited, "TERM": "xterm", "COLUMNS": "200", **environ},
            stdout=stdout,
            stderr=subprocess.DEVNULL,
        )
    seen = b""
    with os.fdopen(controller, "rb", buffering=0) as reading:
        try:
            while chunk := reading.read(4096):
                seen += chunk
        except OSError:
            pass  # how Linux says that the other end is closed
    process.wait(20)
    return seen


@pytest.fixture
def run_id(project: Path, cli: Cli) -> str:
    return run_id_of(cli("run", "steps"))


def test_a_terminal_gets_colours(project: Path, run_id: str) -> None:
    assert b"\x1b[32minfo" in on_a_terminal(project, "logs", run_id)


def test_no_color_is_obeyed(project: Path, run_id: str) -> None:
    for arguments in (["logs", run_id], ["runs", "show", run_id], ["runs", "list"]):
        assert b"\x1b[3" not in on_a_terminal(project, *arguments, NO_COLOR="1")


def test_a_pipe_gets_no_colours(run_id: str, cli: Cli) -> None:
    assert "\x1b" not in cli("logs", run_id).stdout


@promise("F48")
def test_a_text_result_is_escaped_for_a_terminal_only(project: Path, cli: Cli) -> None:
    payload = '{"text": "a\\u001b[31m\\u202eb\\nc"}'
    assert on_a_terminal(project, "run", "text", "--payload", payload) == b"a\\x1b[31m\\u202eb\r\nc\r\n"
    assert cli("run", "text", "--payload", payload).stdout == "a\x1b[31m\u202eb\nc\n"


def test_a_table_on_a_narrow_terminal_keeps_the_ids_whole(project: Path, run_id: str) -> None:
    assert run_id.encode() in on_a_terminal(project, "runs", "list", COLUMNS="60", NO_COLOR="1")
