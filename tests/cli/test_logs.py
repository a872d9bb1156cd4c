"""`pyflue logs`."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from pyflue import codec
from tests.cli.cli_project import Cli, command_line, json_of, run_id_of, spawn, write_workflow
from tests.promises import promise


@pytest.fixture
def run_id(project: Path, cli: Cli) -> str:
    """A finished run of `steps`: run_start, progress, log, progress, log, log (warn), row.done, run_end."""
    return run_id_of(cli("run", "steps", "--payload", '{"count": 2}'))


def indexes(text: str) -> list[int]:
    return [codec.load(line.encode())["index"] for line in text.splitlines()]


def test_events_are_lines_to_read(run_id: str, cli: Cli) -> None:
    lines = cli("logs", run_id).stdout.splitlines()
    assert [line.split()[2] for line in lines] == [
        "run_start",
        "progress",
        "log",
        "progress",
        "log",
        "log",
        "row.done",
        "run_end",
    ]
    assert lines[3].endswith("10% step 1")
    assert lines[4].endswith("info  working number=1")
    assert lines[6].endswith("rows=[1,2]")
    assert lines[7].endswith("status=completed")


@promise("F48")
def test_markup_stays_text_and_control_characters_are_escaped(run_id: str, cli: Cli) -> None:
    answer = cli("logs", run_id, "--level", "warn")
    assert answer.stdout.rstrip().endswith('warn  [bold]careful[/bold] \\x1b[31m why="a b"')


def test_ndjson_is_one_object_per_line_however_long(project: Path, cli: Cli) -> None:
    write_workflow(project, "wide", 'def run(ctx):\n    ctx.log.info("x" * 5000, text="\\u202eü\\n" * 100)\n')
    run_id = run_id_of(cli("run", "wide"))
    done = subprocess.run(
        command_line(["logs", run_id, "--format", "ndjson"]),
        cwd=project,
        env={**os.environ, "COLUMNS": "40"},
        capture_output=True,
        check=True,
    )
    events = [codec.load(line) for line in done.stdout.splitlines()]
    assert [event["type"] for event in events] == ["run_start", "log", "run_end"]
    assert events[1]["data"]["message"] == "x" * 5000
    assert events[1]["data"]["text"] == "\u202eü\n" * 100
    assert "\u202e" not in done.stdout.decode()


def test_json_is_one_document(run_id: str, cli: Cli) -> None:
    shown = json_of(cli("logs", run_id, "--format", "json"))
    assert [event["index"] for event in shown["events"]] == list(range(1, 9))
    assert shown["events"][0]["stream_id"] == run_id


def test_after_types_level_and_since_choose_events(run_id: str, cli: Cli) -> None:
    def chosen(*options: str) -> list[int]:
        return indexes(cli("logs", run_id, "--format", "ndjson", *options).stdout)

    assert chosen("--after", "6") == [7, 8]
    assert chosen("--types", "log,run_end") == [3, 5, 6, 8]
    assert chosen("--level", "warn") == [6]
    assert chosen("--types", "log", "--after", "3", "--level", "info") == [5, 6]
    assert chosen("--since", "1h") == list(range(1, 9))
    assert chosen("--after", "8") == []


def test_the_end_of_a_failed_run_counts_as_an_error(project: Path, cli: Cli) -> None:
    run_id = run_id_of(cli("run", "broken_inside"))
    answer = cli("logs", run_id, "--level", "error")
    assert "failed ZeroDivisionError: division by zero (at src/workflows/broken_inside.py:3)" in answer.stdout
    assert len(answer.stdout.splitlines()) == 1


def test_follow_of_a_finished_run_ends_by_itself(run_id: str, cli: Cli) -> None:
    for after in ("0", "8", "99"):
        answer = cli("logs", run_id, "--follow", "--after", after, "--format", "ndjson")
        assert indexes(answer.stdout) == [index for index in range(1, 9) if index > int(after)]


def test_follow_shows_events_of_another_process_as_they_come_until_the_run_ends(project: Path, cli: Cli) -> None:
    running = spawn("run", "waits", cwd=project)
    assert running.stderr is not None
    run_id = running.stderr.readline().split()[1]
    following = spawn("logs", run_id, "--follow", cwd=project)
    assert following.stdout is not None
    assert "run_start" in following.stdout.readline()
    assert "started" in following.stdout.readline()
    assert cli("runs", "cancel", run_id).exit_code == 0
    stdout, _ = following.communicate(timeout=20)
    assert stdout.splitlines()[-1].endswith("status=cancelled")
    running.communicate(timeout=20)
    assert running.returncode == 1


def test_an_unknown_run_is_not_found(project: Path, cli: Cli) -> None:
    for arguments in (["logs"], ["logs", "--follow"], ["runs", "show"], ["runs", "cancel"], ["runs", "delete"]):
        answer = cli(*arguments, "workflow:echo:01M7YECVC6VBMK1TADZGY7YRFC")
        assert (answer.exit_code, answer.stdout) == (3, "")
        assert answer.stderr.startswith("error: There is no run ")
    assert not (project / ".pyflue").exists()


def test_follow_and_one_json_document_exclude_each_other(run_id: str, cli: Cli) -> None:
    assert cli("logs", run_id, "--follow", "--format", "json").exit_code == 2


def test_wrong_options_are_wrong_use(run_id: str, cli: Cli) -> None:
    for options in (["--since", "soon"], ["--after", "-1"], ["--level", "loud"], ["--format", "xml"]):
        assert cli("logs", run_id, *options).exit_code == 2
