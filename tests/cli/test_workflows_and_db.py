"""`pyflue workflows` and `pyflue db`."""

from __future__ import annotations

from pathlib import Path

import apsw

from tests.cli.cli_project import Cli, json_of, run_id_of, write_workflow
from tests.promises import promise


def test_workflows_are_listed_with_what_they_do(project: Path, cli: Cli) -> None:
    lines = cli("workflows", "list").stdout.splitlines()
    assert lines[0].split() == ["NAME", "KIND", "DESCRIPTION"]
    assert [line.split()[0] for line in lines[1:]] == ["broken_inside", "echo", "steps", "text", "waits"]
    assert "Give back what came." in lines[2]


@promise("F33")
def test_a_broken_workflow_is_listed_with_the_reason(project: Path, cli: Cli) -> None:
    write_workflow(project, "broken", "x = = 1\n")
    listed = {entry["name"]: entry for entry in json_of(cli("workflows", "list", "--json"))["workflows"]}
    assert "broken.py:1" in listed["broken"]["error"]["message"]
    assert listed["echo"]["error"] is None
    assert "broken: src/workflows/broken.py:1" in cli("workflows", "list").stdout


def test_a_workflow_is_shown_with_its_schemas(project: Path, cli: Cli) -> None:
    source = "from pydantic import BaseModel\nfrom pyflue import FlueContext\nclass A(BaseModel):\n    n: int\n"
    write_workflow(project, "typed", source + "def run(ctx: FlueContext[A]) -> int:\n    return ctx.payload.n\n")
    shown = json_of(cli("workflows", "show", "typed", "--json"))
    assert shown["path"] == "src/workflows/typed.py"
    assert shown["input_schema"]["properties"]["n"]["type"] == "integer"
    assert '"integer"' in cli("workflows", "show", "typed").stdout
    assert cli("workflows", "show", "none").exit_code == 3


def test_a_payload_that_does_not_fit_is_wrong_use(project: Path, cli: Cli) -> None:
    source = "from pyflue import FlueContext\n\ndef run(ctx: FlueContext[list[int]]):\n    return ctx.payload\n"
    write_workflow(project, "typed", source)
    answer = cli("run", "typed", "--payload", '[1, "x"]')
    assert (answer.exit_code, answer.stdout) == (2, "")
    assert "$[1]" in answer.stderr


def test_validate_finds_nothing_in_a_sound_project(project: Path, cli: Cli) -> None:
    answer = cli("workflows", "validate")
    assert (answer.exit_code, answer.stdout, answer.stderr) == (0, "", "5 workflows, 0 problems\n")


def test_validate_names_file_and_line_and_ends_with_1(project: Path, cli: Cli) -> None:
    write_workflow(project, "broken", "x = 1\ny = = 2\n")
    answer = cli("workflows", "validate")
    assert answer.exit_code == 1
    assert answer.stdout.startswith("src/workflows/broken.py:2: ")
    problems = json_of(cli("workflows", "validate", "--json"))["problems"]
    assert [(problem["path"], problem["line"]) for problem in problems] == [("src/workflows/broken.py", 2)]


def test_a_sound_journal_passes_the_check(project: Path, cli: Cli) -> None:
    cli("run", "echo")
    answer = cli("db", "check")
    assert (answer.exit_code, answer.stderr) == (0, "")
    assert "1 run, " in answer.stdout
    assert json_of(cli("db", "check", "--json"))["problems"] == []


@promise("F11")
def test_a_corrupted_journal_is_found_and_left_as_it_is(project: Path, cli: Cli) -> None:
    for _ in range(3):
        cli("run", "steps", "--payload", '{"count": 500}')
    path = project / ".pyflue" / "journal.db"
    with apsw.Connection(str(path)) as connection:
        connection.pragma("wal_checkpoint(truncate)")
    connection.close()
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 8192] = b"\xff" * 8192
    path.write_bytes(data)
    answer = cli("db", "check")
    assert answer.exit_code == 1
    assert str(path) in answer.stdout
    assert json_of(cli("db", "check", "--json"))["problems"]
    started = cli("run", "echo")
    assert (started.exit_code, started.stdout) == (5, "")
    assert str(path) in started.stderr
    assert "pyflue db check" in started.stderr
    assert path.read_bytes() == bytes(data)


@promise("F11")
def test_a_file_that_is_no_journal_is_named(project: Path, cli: Cli) -> None:
    (project / ".pyflue").mkdir()
    (project / ".pyflue" / "journal.db").write_bytes(b"not a database at all" * 100)
    for arguments in (["run", "echo"], ["runs", "list"]):
        answer = cli(*arguments)
        assert (answer.exit_code, answer.stdout) == (5, "")
        assert "journal.db cannot be used" in answer.stderr
    checked = cli("db", "check")
    assert checked.exit_code == 1
    assert "journal.db cannot be used: " in checked.stdout
    assert checked.stdout.endswith(" bytes, 1 problem\n")
    assert "pyflue db check" not in checked.stderr


@promise("F14")
def test_a_journal_of_a_newer_pyflue_is_left_alone(project: Path, cli: Cli) -> None:
    cli("run", "echo")
    path = project / ".pyflue" / "journal.db"
    with apsw.Connection(str(path)) as connection:
        connection.pragma("user_version", 999)
    connection.close()
    for arguments in (["run", "echo"], ["runs", "list"]):
        answer = cli(*arguments)
        assert answer.exit_code == 5
        assert "schema version 999" in answer.stderr


def test_there_is_nothing_to_check_copy_or_tidy_before_the_first_run(project: Path, cli: Cli) -> None:
    for arguments in (["check"], ["backup", "copy.db"], ["gc", "--older-than", "1d"]):
        answer = cli("db", *arguments)
        assert (answer.exit_code, answer.stdout) == (3, "")
        assert "There is no journal yet at " in answer.stderr
    assert not (project / ".pyflue").exists()
    assert not (project / "copy.db").exists()


def test_an_empty_file_is_not_a_journal_yet(project: Path, cli: Cli) -> None:
    (project / ".pyflue").mkdir()
    (project / ".pyflue" / "journal.db").touch()
    answer = cli("db", "check")
    assert answer.exit_code == 3
    assert "journal.db is empty: not a journal yet." in answer.stderr


def test_a_backup_makes_no_folders(project: Path, cli: Cli) -> None:
    cli("run", "echo")
    answer = cli("db", "backup", "none/copy.db")
    assert answer.exit_code == 2
    assert "There is no folder none." in answer.stderr
    assert not (project / "none").exists()


def test_a_backup_is_a_journal_that_can_be_read(project: Path, cli: Cli) -> None:
    run_id = run_id_of(cli("run", "echo"))
    (project / "copy").mkdir()
    answer = cli("db", "backup", "copy/journal.db", "--json")
    assert json_of(answer)["size_bytes"] == (project / "copy" / "journal.db").stat().st_size
    (project / "pyflue.toml").write_text('[journal]\nurl = "sqlite:///copy/journal.db"\n', encoding="utf-8")
    assert cli("logs", run_id).exit_code == 0


def test_a_backup_overwrites_nothing(project: Path, cli: Cli) -> None:
    cli("run", "echo")
    (project / "there").write_text("mine", encoding="utf-8")
    assert cli("db", "backup", "there").exit_code == 2
    assert (project / "there").read_text(encoding="utf-8") == "mine"


def test_gc_deletes_old_finished_runs_only(project: Path, cli: Cli) -> None:
    finished = run_id_of(cli("run", "echo"))
    queued = cli("run", "echo", "--detach").stdout.strip()
    assert json_of(cli("db", "gc", "--older-than", "1d", "--json")) == {"deleted": 0}
    assert json_of(cli("db", "gc", "--older-than", "1ms", "--json")) == {"deleted": 1}
    assert cli("runs", "show", finished).exit_code == 3
    assert cli("runs", "show", queued).exit_code == 0
    assert cli("db", "gc").exit_code == 2
