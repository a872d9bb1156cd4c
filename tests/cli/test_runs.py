"""`pyflue runs`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cli.cli_project import Cli, json_of, run_id_of, spawn
from tests.promises import promise


def ids(cli: Cli, *options: str) -> list[str]:
    return [run["run_id"] for run in json_of(cli("runs", "list", "--json", *options))["runs"]]


def test_runs_are_listed_newest_first_and_filtered(project: Path, cli: Cli) -> None:
    one = run_id_of(cli("run", "echo", "--tags", "a,b"))
    two = run_id_of(cli("run", "broken_inside", "--tags", "a"))
    three = run_id_of(cli("run", "echo"))
    assert ids(cli) == [three, two, one]
    assert ids(cli, "--workflow", "echo") == [three, one]
    assert ids(cli, "--status", "failed", "--status", "queued") == [two]
    assert ids(cli, "--tag", "a", "--tag", "b") == [one]
    assert ids(cli, "--limit", "2") == [three, two]
    assert ids(cli, "--since", "1h") == [three, two, one]


def test_a_list_for_another_program_breaks_no_line(project: Path, cli: Cli) -> None:
    run_id = run_id_of(cli("run", "echo", "--tags", ",".join(f"tag{number}" for number in range(30))))
    heading, line = cli("runs", "list").stdout.splitlines()
    assert heading.split() == ["RUN", "STATUS", "CREATED", "TOOK", "TAGS"]
    assert line.startswith(f"{run_id}  completed")
    assert line.rstrip().endswith("tag29")


def test_a_project_that_has_run_nothing_has_no_runs_and_gets_no_journal(project: Path, cli: Cli) -> None:
    answer = cli("runs", "list")
    assert (answer.exit_code, answer.stdout, answer.stderr) == (0, "", "no runs\n")
    assert not (project / ".pyflue").exists()


def test_a_record_shows_payload_and_result(project: Path, cli: Cli) -> None:
    run_id = run_id_of(cli("run", "echo", "--payload", '{"a":1}'))
    text = cli("runs", "show", run_id).stdout
    assert text.count('{\n  "a": 1\n}\n') == 2
    record = json_of(cli("runs", "show", run_id, "--json"))
    assert (record["status"], record["payload"], record["result"]) == ("completed", {"a": 1}, {"a": 1})


def test_the_record_of_a_failed_run_shows_the_authors_traceback(project: Path, cli: Cli) -> None:
    text = cli("runs", "show", run_id_of(cli("run", "broken_inside"))).stdout
    assert "ZeroDivisionError: division by zero (at src/workflows/broken_inside.py:3)\nTraceback" in text


def test_a_queued_run_is_cancelled_at_once(project: Path, cli: Cli) -> None:
    run_id = cli("run", "echo", "--detach").stdout.strip()
    answer = cli("runs", "cancel", run_id, "--json")
    assert json_of(answer)["status"] == "cancelled"
    assert answer.stderr == f"run {run_id} is cancelled\n"


def test_a_finished_run_cannot_be_cancelled(project: Path, cli: Cli) -> None:
    run_id = run_id_of(cli("run", "echo"))
    answer = cli("runs", "cancel", run_id)
    assert (answer.exit_code, answer.stderr) == (4, f"error: Run {run_id} is already completed.\n")


def test_a_run_whose_process_died_is_marked_for_the_next_engine(project: Path, cli: Cli) -> None:
    running = spawn("run", "waits", cwd=project)
    assert running.stderr is not None
    run_id = running.stderr.readline().split()[1]
    running.kill()
    running.communicate(timeout=20)
    answer = cli("runs", "cancel", run_id)
    assert answer.exit_code == 0
    assert "was requested" in answer.stderr
    assert json_of(cli("runs", "show", run_id, "--json"))["cancel_requested_at"] is not None
    assert cli("runs", "delete", run_id).exit_code == 4


def test_retry_makes_a_new_run_and_prints_its_result(project: Path, cli: Cli) -> None:
    source = project / "src" / "workflows" / "broken_inside.py"
    failed = run_id_of(cli("run", "broken_inside", "--payload", '{"x": 1}', "--tags", "t"))
    source.write_text(source.read_text(encoding="utf-8").replace("divide(0)", "divide(2)"), encoding="utf-8")
    answer = cli("runs", "retry", failed)
    assert (answer.exit_code, answer.stdout) == (0, "0.5\n")
    record = json_of(cli("runs", "show", run_id_of(answer), "--json"))
    assert (record["retried_from"], record["payload"], record["tags"]) == (failed, {"x": 1}, ["t"])
    assert json_of(cli("runs", "show", failed, "--json"))["status"] == "failed"


def test_a_detached_retry_is_queued(project: Path, cli: Cli) -> None:
    failed = run_id_of(cli("run", "broken_inside"))
    answer = cli("runs", "retry", failed, "--detach", "--json")
    record = json_of(cli("runs", "show", json_of(answer)["run_id"], "--json"))
    assert (record["status"], record["retried_from"]) == ("queued", failed)
    assert cli("runs", "retry", record["run_id"], "--detach").exit_code == 4


def test_a_completed_run_cannot_be_retried(project: Path, cli: Cli) -> None:
    run_id = run_id_of(cli("run", "echo"))
    assert cli("runs", "retry", run_id).exit_code == 4
    assert cli("runs", "retry", run_id, "--detach").exit_code == 4


def test_a_finished_run_is_deleted_with_its_events(project: Path, cli: Cli) -> None:
    run_id = run_id_of(cli("run", "echo"))
    answer = cli("runs", "delete", run_id)
    assert (answer.exit_code, answer.stderr) == (0, f"run {run_id} is deleted\n")
    assert cli("logs", run_id).exit_code == 3
    assert ids(cli) == []


@promise("F48")
def test_payloads_are_escaped_for_the_terminal(project: Path, cli: Cli) -> None:
    run_id = run_id_of(cli("run", "echo", "--payload", '{"a": "\\u001b[31m\\u202e\\u009b"}'))
    for answer in (cli("runs", "list"), cli("runs", "show", run_id), cli("runs", "show", run_id, "--json")):
        assert not set(answer.stdout) & set("\x1b\x07\x9b\u202e")
    shown = json_of(cli("runs", "show", run_id, "--json"))
    assert shown["payload"] == {"a": "\x1b[31m\u202e\x9b"}


def test_a_list_goes_on_from_its_cursor(project: Path, cli: Cli) -> None:
    ids = [run_id_of(cli("run", "echo")) for _ in range(3)]
    first = json_of(cli("runs", "list", "--limit", "2", "--json"))
    assert [run["run_id"] for run in first["runs"]] == [ids[2], ids[1]]
    shown = cli("runs", "list", "--limit", "2")
    assert shown.stderr == f"There are more; --before {first['next']} goes on from here.\n"
    rest = cli("runs", "list", "--before", first["next"], "--json")
    assert ([run["run_id"] for run in json_of(rest)["runs"]], json_of(rest)["next"]) == ([ids[0]], None)
    assert cli("runs", "list", "--before", "7").exit_code == 2


@pytest.mark.parametrize(
    ("width", "columns"),
    [(120, 5), (80, 4), (60, 2), (40, 2)],
)
def test_a_narrow_terminal_shows_fewer_columns_and_whole_ids(
    project: Path, cli: Cli, width: int, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = run_id_of(cli("run", "echo", "--tags", "a-tag,another-tag,one-more"))
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.delenv("NO_COLOR", raising=False)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", cli("runs", "list").stdout).splitlines()
    assert lines[0].split() == ["RUN", "STATUS", "CREATED", "TOOK", "TAGS"][:columns]
    assert len(lines) == 3
    assert lines[2].split()[:2] == [run_id, "completed"]
    assert len(lines[2].rstrip()) <= max(width, len(run_id) + 12)


@pytest.fixture
def orphan(project: Path) -> str:
    """A run whose process was killed."""
    process = spawn("run", "waits", "--stream", cwd=project)
    assert process.stderr is not None
    run_id = process.stderr.readline().split()[1]
    while "started" not in process.stderr.readline():
        pass
    process.kill()
    process.communicate(timeout=20)
    return run_id


def test_a_run_whose_engine_is_gone_is_said_to_wait_for_another(project: Path, cli: Cli, orphan: str) -> None:
    for arguments, code in (("show", 0), ("delete", 4), ("cancel", 0)):
        answer = cli("runs", arguments, orphan)
        assert answer.exit_code == code
        assert "is running, but its engine is gone: a running `pyflue dev` or `pyflue serve`" in answer.stderr


def test_following_says_what_a_run_waits_for(project: Path, cli: Cli, orphan: str) -> None:
    queued = cli("run", "echo", "--detach").stdout.strip()
    for run_id, told in ((orphan, "its engine is gone: "), (queued, "is queued: ")):
        process = spawn("logs", run_id, "--follow", cwd=project)
        assert process.stderr is not None
        assert told in process.stderr.readline()
        process.kill()
        process.communicate(timeout=20)
