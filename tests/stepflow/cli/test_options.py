"""Inputs, variables, overrides and outputs of `pyflue flow run`, and how wrong ones are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyflue import codec
from tests.cli.cli_project import Cli, json_of
from tests.stepflow.cli.folder import write


@pytest.mark.parametrize(
    ("arguments", "stdin"),
    [
        (["--input", "input.json"], None),
        (["--input", "input.yml"], None),
        (["--input-json", '{"at": "2024-01-01"}'], None),
        (["--input-yaml", "at: 2024-01-01"], None),
        (["--stdin-format", "json"], '{"at": "2024-01-01"}'),
        (["--stdin-format", "yaml"], "at: 2024-01-01\n"),
        ([], '{"at": "2024-01-01"}'),
    ],
)
def test_an_input_comes_from_a_file_an_option_or_stdin(
    arguments: list[str], stdin: str | None, folder: Path, cli: Cli
) -> None:
    write(folder, "input.json", '{"at": "2024-01-01"}')
    write(folder, "input.yml", "at: 2024-01-01\n")
    answer = cli("flow", "run", "echo.yaml", *arguments, stdin=stdin)
    assert json_of(answer) == {"outcome": "success", "result": {"at": "2024-01-01"}}


def test_without_any_input_it_is_an_empty_object(folder: Path, cli: Cli) -> None:
    assert json_of(cli("flow", "run", "echo.yaml")) == {"outcome": "success", "result": {}}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--variables", "variables.json"],
        ["--variables", "set.yaml"],
        ["--variables-json", '{"city": "Graz"}'],
        ["--variables-yaml", "city: Graz"],
        ["--env-variables"],
        ["--env-variables", "--variables-json", '{"size": 3}'],
    ],
)
def test_variables_come_from_a_file_an_option_or_the_environment(
    arguments: list[str], folder: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, "variables.json", '{"city": "Graz"}')
    write(folder, "set.yaml", "city: Graz\n")
    monkeypatch.setenv("STEPFLOW_VAR_CITY", "Graz")
    answer = cli("flow", "run", "variables.yaml", *arguments)
    assert json_of(answer) == {"outcome": "success", "result": ["Graz", 3]}


def test_given_variables_go_before_those_of_the_environment_which_are_json_where_they_can_be(
    folder: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEPFLOW_VAR_CITY", "Graz")
    monkeypatch.setenv("STEPFLOW_VAR_SIZE", "8")
    answer = cli("flow", "run", "variables.yaml", "--env-variables", "--variables-json", '{"city": "Wien"}')
    assert json_of(answer) == {"outcome": "success", "result": ["Wien", 8]}


def test_a_variable_that_is_missing_is_wrong_use(folder: Path, cli: Cli) -> None:
    answer = cli("flow", "run", "variables.yaml")
    assert (answer.exit_code, answer.stdout) == (2, "")
    hint = "Give it with --variables, --variables-json or --variables-yaml; or --env-variables and STEPFLOW_VAR_CITY."
    assert answer.stderr.splitlines() == ["error: Missing required variable: city", f"hint: {hint}"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--overrides", "changes.json"],
        ["--overrides-json", '{"steps": {"echo": {"value": {"input": "changed"}}}}'],
        ["--overrides-json", '{"echo": {"$type": "merge_patch", "value": {"input": "changed"}}}'],
        ["--overrides-yaml", "echo: {value: {input: changed}}"],
    ],
)
@pytest.mark.parametrize("where", ["folder", "project"])
def test_overrides_change_steps(where: str, arguments: list[str], cli: Cli, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(where)
    write(folder, "changes.json", '{"echo": {"value": {"input": "changed"}}}')
    write(
        folder, "echo.yaml", "name: e\ndescription: e\nsteps: [{id: echo, component: /noop}]\noutput: {$step: echo}\n"
    )
    answer = cli("flow", "run", "echo.yaml", *arguments)
    assert json_of(answer) == {"outcome": "success", "result": "changed"}


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        (
            "out.json",
            ["--input-json", '{"a": 1.0}'],
            '{\n  "outcome": "success",\n  "result": {\n    "a": 1.0\n  }\n}\n',
        ),
        ("out.yaml", ["--input-json", '{"a": "ü"}'], "outcome: success\nresult:\n  a: ü\n"),
        ("out.jsonl", ["--inputs", "in"], '{"outcome":"success","result":1}\n{"outcome":"success","result":2}\n'),
        ("out.yml", ["--inputs", "in"], "- outcome: success\n  result: 1\n- outcome: success\n  result: 2\n"),
    ],
)
def test_the_outcome_is_written_to_a_file_in_the_format_of_its_name(
    name: str, arguments: list[str], expected: str, folder: Path, cli: Cli
) -> None:
    write(folder, "in", "1\n2")
    answer = cli("flow", "run", "echo.yaml", *arguments, "--output", name)
    assert (answer.exit_code, answer.stdout) == (0, "")
    assert answer.stderr.splitlines()[-1] == f"wrote {name}"
    assert (folder / name).read_text(encoding="utf-8") == expected


def test_a_batch_is_written_to_a_json_file_as_a_list(folder: Path, cli: Cli) -> None:
    write(folder, "in", "1\n2")
    assert cli("flow", "run", "echo.yaml", "--inputs", "in", "--output", "out.json").exit_code == 0
    written = codec.decode((folder / "out.json").read_bytes(), "the file")
    assert written == [{"outcome": "success", "result": 1}, {"outcome": "success", "result": 2}]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "Which flow? Name its file."),
        (["none.yaml"], "'none.yaml' does not exist"),
        (["echo.yaml", "--flow", "echo.yaml"], "FLOW and --flow exclude each other"),
        (["echo.yaml", "--input-json", "1", "--input-yaml", "1"], "--input-json and --input-yaml exclude each other"),
        (["echo.yaml", "--input", "bad.json", "--inputs", "bad.json"], "--input and --inputs exclude each other"),
        (["echo.yaml", "--input-json", "1", "--stdin-format", "json"], "--input-json and --stdin-format exclude"),
        (["echo.yaml", "--variables-json", "{}", "--variables-yaml", "{}"], "--variables-json and --variables-yaml"),
        (["echo.yaml", "--overrides-json", "{}", "--overrides-yaml", "{}"], "--overrides-json and --overrides-yaml"),
        (["echo.yaml", "--input-json", '{"a": }'], "'--input-json': line 1, column 7: "),
        (["echo.yaml", "--input-yaml", "a: [1"], "'--input-yaml': line 2, column 1: "),
        (["echo.yaml", "--input", "bad.json"], "'--input': bad.json:2:8: "),
        (["echo.yaml", "--inputs", "bad.jsonl"], "'--inputs': bad.jsonl:2:2: "),
        (["echo.yaml", "--inputs", "empty.jsonl"], "'--inputs': empty.jsonl holds no input"),
        (["echo.yaml", "--variables-json", "[1]"], "'--variables-json': it has to be an object"),
        (["echo.yaml", "--overrides-json", "1"], "'--overrides-json': it has to be an object"),
        (
            ["echo.yaml", "--overrides-json", '{"x": {"value": {}}}'],
            "'--overrides-json': Step 'x' not found in workflow",
        ),
        (["echo.yaml", "--output", "none/out.json"], "'--output': there is no folder none"),
        (["echo.yaml", "--max-concurrent", "0"], "'--max-concurrent'"),
        (["echo.yaml", "--config", "none.yml"], "'none.yml' does not exist"),
    ],
)
def test_wrong_use_ends_with_exit_code_2_before_anything_runs(
    arguments: list[str], problem: str, folder: Path, cli: Cli
) -> None:
    write(folder, "bad.json", '{\n  "a": x}')
    write(folder, "bad.jsonl", "1\n{bad}\n")
    write(folder, "empty.jsonl", "\n")
    answer = cli("flow", "run", *arguments)
    assert (answer.exit_code, answer.stdout) == (2, "")
    assert problem in answer.stderr
    assert "run_id" not in answer.stderr
