"""`pyflue flow test`: the cases of flows, compared, shown and updated."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.cli.cli_project import Cli, json_of, spawn
from tests.stepflow.cli.folder import ECHO, write
from tests.stepflow.cli.test_running import children_of, is_alive, wait_for

CASES = (
    ECHO
    + """\
test:
  cases:
    # Stays as it is.
    - name: same
      input: {n: 1}
      output: {outcome: success, result: {n: 1}}
    - name: other
      input: {n: 2}
      output: {outcome: success, result: {n: 3}}
    - name: open
      input: 3
"""
)


@pytest.fixture
def cases(folder: Path) -> Path:
    return write(folder, "flows/cases.yaml", CASES)


def test_each_case_is_told_and_a_failed_one_ends_with_exit_code_1(cases: Path, cli: Cli) -> None:
    answer = cli("flow", "test", "flows")
    assert answer.exit_code == 1
    assert answer.stdout.splitlines() == [
        "passed    flows/cases.yaml: same",
        "failed    flows/cases.yaml: other",
        "    $.result.n: expected 3, got 2",
        "undecided flows/cases.yaml: open",
        "    The case says no expected outcome: `--update` writes what came of it.",
    ]
    assert answer.stderr.splitlines() == ["3 cases, 1 passed, 2 failed"]


def test_the_current_folder_is_looked_through_by_default(cases: Path, cli: Cli) -> None:
    assert cli("flow", "test").stdout == cli("flow", "test", "flows").stdout


def test_cases_can_be_chosen_by_their_names(cases: Path, cli: Cli) -> None:
    answer = cli("flow", "test", "flows/cases.yaml", "--case", "same")
    assert (answer.exit_code, answer.stdout) == (0, "passed    flows/cases.yaml: same\n")
    both = cli("flow", "test", "flows", "--case", "same", "--case", "other", "--json")
    assert (both.exit_code, json_of(both)["cases"]) == (1, 2)
    assert cli("flow", "test", "flows", "--case", "none").exit_code == 3


def test_differences_can_be_shown_line_by_line(cases: Path, cli: Cli) -> None:
    lines = cli("flow", "test", "flows", "--diff", "--case", "other").stdout.splitlines()
    assert [line.strip() for line in lines if line[4:5] in {"-", "+"}] == [
        "--- expected",
        "+++ actual",
        '-    "n": 3',
        '+    "n": 2',
    ]


def test_outcomes_are_written_into_the_file_which_otherwise_stays_as_it_is(cases: Path, cli: Cli) -> None:
    answer = cli("flow", "test", "flows", "--update")
    assert answer.exit_code == 0
    assert "flows/cases.yaml: 2 cases updated" in answer.stderr.splitlines()
    assert "# Stays as it is." in cases.read_text(encoding="utf-8")
    again = cli("flow", "test", "flows")
    assert (again.exit_code, again.stderr) == (0, "3 cases, 3 passed, 0 failed\n")


def test_results_as_json(cases: Path, cli: Cli) -> None:
    answer = cli("flow", "test", "flows", "--json", "--case", "other")
    outcome = {"outcome": "success", "result": {"n": 2}}
    case = {
        "name": "other",
        "verdict": "failed",
        "expected": {"outcome": "success", "result": {"n": 3}},
        "actual": outcome,
        "problems": ["$.result.n: expected 3, got 2"],
    }
    assert answer.exit_code == 1
    assert json_of(answer) == {
        "files": [{"path": "flows/cases.yaml", "problem": None, "cases": [case]}],
        "cases": 1,
        "passed": 0,
        "failed": 1,
    }


def test_a_file_that_cannot_be_tested_is_told_and_others_are_tested(cases: Path, cli: Cli) -> None:
    write(cases.parent, "bad.yaml", "steps: [\n")
    write(cases.parent, "notes.yaml", "just: notes\n")
    answer = cli("flow", "test", "flows", "--case", "same")
    assert answer.exit_code == 1
    assert answer.stdout.startswith("broken    flows/bad.yaml: line 2, column 1: ")
    assert answer.stderr.splitlines() == ["1 case, 1 passed, 0 failed, 1 file could not be tested"]


def test_the_given_config_goes_first(cases: Path, cli: Cli) -> None:
    write(cases.parent, "none.yml", "plugins: {}\n")
    answer = cli("flow", "test", "flows", "--case", "same", "--config", "flows/none.yml")
    assert answer.exit_code == 1


def test_a_path_that_is_not_there_is_wrong_use(folder: Path, cli: Cli) -> None:
    assert cli("flow", "test", "none").exit_code == 2


def test_in_a_project_its_workflows_are_there_and_nothing_is_recorded(project: Path, cli: Cli) -> None:
    write(project, "src/workflows/twice.py", "def run(ctx):\n    print('aside')\n    return ctx.payload * 2\n")
    write(project, "stepflow-config.yml", 'plugins: {p: {type: pyflue}}\nroutes: {"/{*component}": [{plugin: p}]}\n')
    flow = ECHO.replace("/noop", "/workflows/twice")
    write(project, "twice.yaml", flow + "test: {cases: [{name: a, input: 2, output: {outcome: success, result: 4}}]}\n")
    answer = cli("flow", "test", "twice.yaml")
    assert (answer.exit_code, answer.stdout) == (0, "passed    twice.yaml: a\n")
    assert json_of(cli("runs", "list", "--json"))["runs"] == []


def test_ctrl_c_leaves_no_process(folder: Path) -> None:
    hanging = folder / "hanging"
    flow = (folder / "hang.yaml").read_text(encoding="utf-8")
    write(folder, "hang.yaml", flow + f'test: {{cases: [{{name: a, input: "{hanging}"}}]}}\n')
    process = spawn("flow", "test", "hang.yaml", cwd=folder)
    wait_for(hanging)
    children = children_of(process.pid)
    assert children
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130
    assert not [pid for pid in children if is_alive(pid)]
