"""`pyflue run`."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.cli.cli_project import Cli, command_line, json_of, run_id_of, spawn, write_workflow
from tests.promises import promise

RUN_ID = re.compile(r"workflow:(?P<name>[a-z_]+):[0-9A-HJKMNP-TV-Z]{26}")


@promise("guide.run.local")
def test_a_result_that_is_an_object_is_printed_as_indented_json(project: Path, cli: Cli) -> None:
    answer = cli("run", "echo", "--payload", '{"a": [1, "ü"]}')
    assert answer.exit_code == 0
    assert answer.stdout == '{\n  "a": [\n    1,\n    "ü"\n  ]\n}\n'


def test_the_run_id_is_told_on_stderr(project: Path, cli: Cli) -> None:
    answer = cli("run", "echo")
    assert RUN_ID.fullmatch(run_id_of(answer))
    assert answer.stdout == "{}\n"


def test_a_result_that_is_text_is_printed_as_it_is(project: Path, cli: Cli) -> None:
    assert cli("run", "text", "--payload", '{"text": "two\\nlines"}').stdout == "two\nlines\n"


def test_what_a_workflow_prints_does_not_mix_with_its_result(project: Path, cli: Cli) -> None:
    answer = cli("run", "text", "--payload", '{"text": "result"}')
    assert answer.stdout == "result\n"
    assert "printed by the workflow" in answer.stderr


def test_json_tells_the_run_id_the_status_and_the_result(project: Path, cli: Cli) -> None:
    answer = cli("run", "echo", "--payload", "[1]", "--json")
    assert json_of(answer) == {"run_id": run_id_of(answer), "status": "completed", "result": [1]}


def test_a_payload_is_read_from_a_file_or_from_stdin(project: Path, cli: Cli) -> None:
    (project / "input.json").write_text('{"from": "file"}', encoding="utf-8")
    assert json_of(cli("run", "echo", "--payload", "@input.json")) == {"from": "file"}
    assert json_of(cli("run", "echo", "--payload", "-", stdin='{"from": "stdin"}')) == {"from": "stdin"}


def test_a_payload_file_that_is_not_there_is_wrong_use(project: Path, cli: Cli) -> None:
    answer = cli("run", "echo", "--payload", "@none.json")
    assert answer.exit_code == 2
    assert "none.json: No such file" in answer.stderr


def test_a_payload_that_is_not_json_is_wrong_use_and_runs_nothing(project: Path, cli: Cli) -> None:
    answer = cli("run", "echo", "--payload", "{")
    assert (answer.exit_code, answer.stdout) == (2, "")
    assert answer.stderr.startswith("error: The payload is not valid JSON")
    assert json_of(cli("runs", "list", "--json"))["runs"] == []


def test_an_unknown_workflow_is_not_found_and_the_known_ones_are_named(project: Path, cli: Cli) -> None:
    answer = cli("run", "ecco")
    assert answer.exit_code == 3
    assert answer.stderr.splitlines()[0] == "error: There is no workflow 'ecco'."
    assert "echo" in answer.stderr


def test_outside_of_a_project_nothing_is_found(tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    answer = cli("run", "echo")
    assert answer.exit_code == 3
    assert "hint: Run `pyflue init`" in answer.stderr


def test_a_project_can_be_named(project: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    assert cli("--project", str(project), "run", "echo", "--payload", "1").stdout == "1\n"


def test_a_failed_run_shows_the_authors_code_and_the_next_command(project: Path, cli: Cli) -> None:
    answer = cli("run", "broken_inside")
    assert (answer.exit_code, answer.stdout) == (1, "")
    run_id = run_id_of(answer)
    assert "src/workflows/broken_inside.py" in answer.stderr
    assert "in divide" in answer.stderr
    assert "pyflue/" not in answer.stderr.replace(run_id, "")
    assert answer.stderr.splitlines()[-2:] == [
        f"error: Run {run_id} failed: ZeroDivisionError: division by zero",
        f"hint: pyflue logs {run_id}",
    ]


def test_a_failed_run_as_json_still_ends_with_1(project: Path, cli: Cli) -> None:
    answer = cli("run", "broken_inside", "--json")
    assert answer.exit_code == 1
    shown = json_of(answer)
    assert (shown["run_id"], shown["status"]) == (run_id_of(answer), "failed")
    assert shown["error"]["exception"] == "ZeroDivisionError"


@promise("F33")
def test_a_broken_file_names_its_line_and_does_not_hide_the_others(project: Path, cli: Cli) -> None:
    write_workflow(project, "broken", "x = 1\ny = = 2\n")
    answer = cli("run", "broken")
    assert answer.exit_code == 1
    assert "broken.py:2" in answer.stderr
    assert cli("run", "echo").exit_code == 0


def test_stream_shows_events_on_stderr(project: Path, cli: Cli) -> None:
    answer = cli("run", "steps", "--stream", "--payload", '{"count": 1}')
    assert answer.stdout == "null\n"
    types = [line.split()[2] for line in answer.stderr.splitlines() if re.match(r" +\d", line)]
    assert types == ["run_start", "progress", "log", "log", "row.done", "run_end"]


@promise("F48")
def test_what_a_terminal_would_obey_is_escaped_in_streamed_events(project: Path, cli: Cli) -> None:
    answer = cli("run", "steps", "--stream")
    assert "[bold]careful[/bold] \\x1b[31m" in answer.stderr
    assert "\x1b" not in answer.stderr


def test_tags_and_deadline_are_recorded(project: Path, cli: Cli) -> None:
    run_id = run_id_of(cli("run", "echo", "--tags", "nightly, big", "--deadline", "10m"))
    record = json_of(cli("runs", "show", run_id, "--json"))
    assert record["tags"] == ["nightly", "big"]
    assert record["deadline_at"] > record["created_at"]


def test_a_run_past_its_deadline_fails(project: Path, cli: Cli) -> None:
    answer = cli("run", "waits", "--deadline", "50ms")
    assert answer.exit_code == 1
    assert "deadline" in answer.stderr


def test_detach_only_accepts_the_run(project: Path, cli: Cli) -> None:
    answer = cli("run", "echo", "--detach", "--payload", '{"a": 1}', "--tags", "x")
    run_id = answer.stdout.strip()
    assert RUN_ID.fullmatch(run_id)
    assert "pyflue dev" in answer.stderr
    record = json_of(cli("runs", "show", run_id, "--json"))
    assert (record["status"], record["payload"], record["tags"]) == ("queued", {"a": 1}, ["x"])


def test_detach_checks_the_workflow_and_the_payload(project: Path, cli: Cli) -> None:
    assert cli("run", "none", "--detach").exit_code == 3
    assert cli("run", "echo", "--detach", "--payload", "[").exit_code == 2
    assert json_of(cli("runs", "list", "--json"))["runs"] == []


def test_stream_and_detach_exclude_each_other(project: Path, cli: Cli) -> None:
    assert cli("run", "echo", "--detach", "--stream").exit_code == 2


def test_interrupting_cancels_the_run(project: Path, cli: Cli) -> None:
    process = spawn("run", "waits", "--stream", cwd=project)
    assert process.stderr is not None
    run_id = process.stderr.readline().split()[1]
    while "started" not in process.stderr.readline():
        pass
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=20)
    assert (process.returncode, stdout) == (130, "")
    assert stderr.splitlines()[-1] == f"run {run_id} cancelled"
    assert json_of(cli("runs", "show", run_id, "--json"))["status"] == "cancelled"


@promise("F09")
def test_a_journal_that_cannot_be_written_is_one_clear_line(project: Path, cli: Cli) -> None:
    """The folder's place is taken by a file, which no permission can mend."""
    (project / ".pyflue").write_text("in the way", encoding="utf-8")
    answer = cli("run", "echo")
    assert (answer.exit_code, answer.stdout) == (5, "")
    assert answer.stderr.startswith("error: ")
    assert ".pyflue" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_on_a_terminal_a_line_shows_progress_and_vanishes(project: Path) -> None:
    write_workflow(project, "slow", SLOW)
    os.mkfifo(project / "go")
    controller, terminal = pty.openpty()
    environ = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    with os.fdopen(controller, "rb", buffering=0) as seen:
        with os.fdopen(terminal, "wb") as stderr:
            process = subprocess.Popen(
                command_line(["run", "slow"]), cwd=project, env=environ, stdout=subprocess.PIPE, stderr=stderr
            )
        text = b""
        while b"half way" not in text:
            text += seen.read(4096)
        (project / "go").write_bytes(b"on")
        stdout, _ = process.communicate(timeout=20)
    assert stdout == b"done\n"
    assert b"50%" in text


#: Says how far it is, then waits until the test has seen it.
SLOW = """
import asyncio
from pathlib import Path

async def run(ctx):
    ctx.progress(0.5, "half way")
    await asyncio.to_thread(Path("go").read_bytes)
    return "done"
"""


def test_on_a_terminal_a_waiting_run_says_so_on_a_line_of_its_own(project: Path, cli: Cli) -> None:
    write_workflow(project, "asks", 'async def run(ctx):\n    return (await ctx.approve("ship")).approved\n')
    controller, terminal = pty.openpty()
    with os.fdopen(terminal, "wb") as stderr:
        process = subprocess.Popen(
            command_line(["run", "asks"]),
            cwd=project,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "60", "NO_COLOR": "1"},
        )
    text = b""
    told = re.compile(rb"(?:^|\n|\x1b\[2K)run \S+ waits for approval ship: pyflue approvals approve (\w+)\r\n")
    with os.fdopen(controller, "rb", buffering=0) as reading:
        while (found := told.search(text)) is None:
            text += reading.read(1024)
        assert cli("approvals", "approve", found[1].decode()).exit_code == 0
        stdout, _ = process.communicate(timeout=20)
    assert stdout == b"true\n"


def test_a_name_with_a_typing_error_is_answered_with_what_was_meant(project: Path, cli: Cli) -> None:
    for arguments in (["run", "ecoh"], ["workflows", "show", "ecoh"]):
        answer = cli(*arguments)
        assert answer.exit_code == 3
        assert "hint: Did you mean echo? Known: broken_inside, echo," in answer.stderr


def test_a_run_is_not_left_to_a_server_that_could_not_know_of_it(
    project: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYFLUE_JOURNAL_URL", "memory:")
    answer = cli("run", "echo", "--detach")
    assert (answer.exit_code, answer.stdout) == (2, "")
    assert "error: --detach needs a journal that outlives this command" in answer.stderr


def test_tags_follow_the_rules_of_the_server(project: Path, cli: Cli) -> None:
    run_id = run_id_of(cli("run", "echo", "--tags", " a, b,a,"))
    assert json_of(cli("runs", "show", run_id, "--json"))["tags"] == ["a", "b"]
    for tags in ("x" * 129, "a\tb", ",".join(map(str, range(51)))):
        answer = cli("run", "echo", "--tags", tags)
        assert (answer.exit_code, answer.stdout) == (2, "")
        assert "tags=" in answer.stderr
