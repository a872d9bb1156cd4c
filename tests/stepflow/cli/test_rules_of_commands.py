"""Rules of `pyflue flow …` that the tests beside this one do not show: which config counts, which options exclude one
another, what `flow submit` sends along, and how cases and their servers may be written."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pyflue.stepflow import StepflowRuntime
from tests.cli.cli_project import Cli, json_of
from tests.stepflow.cli.folder import CONFIG, ECHO, write
from tests.stepflow.cli.test_running import success

# Configs


@pytest.mark.parametrize("command", [["run"], ["validate"], ["list-components"], ["test"], ["serve", "--port", "0"]])
def test_two_configs_in_one_folder_are_an_error_of_every_command(command: list[str], folder: Path, cli: Cli) -> None:
    write(folder, "stepflow_config.yaml", CONFIG)
    write(folder, "echo.yaml", ECHO + "test: {cases: [{name: a, input: 1, output: {outcome: success, result: 1}}]}\n")
    name, *options = command
    flows = [] if name in {"list-components", "serve"} else ["echo.yaml"]

    answer = cli("flow", name, *flows, *options)

    assert answer.exit_code == 1
    assert "several configs (stepflow-config.yml, stepflow_config.yaml)" in answer.stdout + answer.stderr


def test_a_config_that_is_named_goes_before_any_number_of_others(folder: Path, cli: Cli) -> None:
    write(folder, "stepflow_config.yaml", CONFIG)
    answer = cli("flow", "run", "echo.yaml", "--config", "stepflow-config.yml", "--input-json", "1")
    assert (answer.exit_code, json_of(answer)) == (0, success(1))


NAMES = [
    "stepflow-config.test.yml",
    "stepflow-config.test.yaml",
    "stepflow_config.test.yml",
    "stepflow_config.test.yaml",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_config_for_tests_is_found_by_each_of_its_names_beside_the_flow_only(
    name: str, folder: Path, cli: Cli
) -> None:
    mock = {"type": "mock", "components": {"/who": {"behaviors": {"x": success("of the tests")}}}}
    config = json.dumps({"plugins": {"mock": mock}, "routes": {"/{*component}": [{"plugin": "mock"}]}})
    flow = ECHO.replace("/noop", "/who") + (
        "test: {cases: [{name: a, input: x, output: {outcome: success, result: of the tests}}]}\n"
    )
    write(folder, "flows/who.yaml", flow)
    write(folder, name, config)
    assert cli("flow", "test", "flows/who.yaml").exit_code == 1
    write(folder, f"flows/{name}", config)
    answer = cli("flow", "test", "flows/who.yaml")
    assert (answer.exit_code, answer.stdout) == (0, "passed    flows/who.yaml: a\n")
    # It is for tests alone.
    assert cli("flow", "run", "flows/who.yaml", "--input-json", '"x"').exit_code == 1


def test_variables_of_the_environment_are_not_put_into_a_command(
    folder: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROGRAM", sys.executable)
    config = yaml.safe_load(CONFIG)
    config["plugins"]["server"]["command"] = "${PROGRAM}"
    write(folder, "stepflow-config.yml", json.dumps(config))
    write(folder, "pid.yaml", "name: p\ndescription: p\nsteps: [{id: a, component: /server/pid}]\noutput: {$step: a}\n")

    answer = cli("flow", "run", "pid.yaml")

    assert answer.exit_code == 1
    assert "${PROGRAM}" in json_of(answer)["error"]["message"]


# Options


@pytest.mark.parametrize("command", ["run", "submit"])
@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["--variables", "some.json"], ["--variables-json", "{}"]),
        (["--variables", "some.json"], ["--variables-yaml", "{}"]),
        (["--overrides", "some.json"], ["--overrides-json", "{}"]),
        (["--overrides", "some.json"], ["--overrides-yaml", "{}"]),
        (["--input", "some.json"], ["--input-json", "{}"]),
        (["--input", "some.json"], ["--input-yaml", "{}"]),
        (["--input-json", "{}"], ["--inputs", "some.json"]),
        (["--input-yaml", "{}"], ["--inputs", "some.json"]),
        (["--stdin-format", "json"], ["--inputs", "some.json"]),
    ],
)
def test_only_one_way_to_give_something_can_be_chosen(
    command: str, one: list[str], other: list[str], folder: Path, cli: Cli
) -> None:
    write(folder, "some.json", "{}")
    where = ["--url", "http://127.0.0.1:1"] if command == "submit" else []
    answer = cli("flow", command, "echo.yaml", *one, *other, *where)
    assert (answer.exit_code, answer.stdout) == (2, "")
    assert f"{one[0]} and {other[0]} exclude each other" in answer.stderr


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with StepflowRuntime.start(port=0) as runtime:
        yield runtime.url


@pytest.mark.parametrize(
    ("options", "stdin", "result"),
    [
        (["--input", "in.yaml"], None, {"a": "2024-01-01"}),
        (["--input-json", '{"a": 1}'], None, {"a": 1}),
        (["--input-yaml", "a: 2024-01-01"], None, {"a": "2024-01-01"}),
        (["--stdin-format", "yaml"], "a: yes\n", {"a": "yes"}),
        (["--stdin-format", "json"], '{"a": true}', {"a": True}),
        (["--overrides", "changes.json"], None, "changed"),
        (["--overrides-json", '{"steps": {"echo": {"value": {"input": "changed"}}}}'], None, "changed"),
        (["--overrides-yaml", "echo: {value: {input: changed}}"], None, "changed"),
    ],
)
def test_a_flow_is_submitted_with_what_it_could_be_run_with(
    options: list[str], stdin: str | None, result: Any, url: str, folder: Path, cli: Cli
) -> None:
    write(folder, "in.yaml", "a: 2024-01-01\n")
    write(folder, "changes.json", '{"echo": {"value": {"input": "changed"}}}')
    write(folder, "echo.yaml", ECHO.replace('{ $input: "$" }', '[{ $input: "$" }]'))
    expected = success(result if result == "changed" else [result])

    for where in (["run"], ["submit", "--url", url]):
        answer = cli("flow", *where, "echo.yaml", *options, stdin=stdin)
        assert (answer.exit_code, json_of(answer)) == (0, expected), answer.stderr


@pytest.mark.parametrize(
    "options",
    [
        ["--variables", "variables.json"],
        ["--variables-json", '{"city": "Graz"}'],
        ["--variables-yaml", "city: Graz"],
        ["--env-variables"],
    ],
)
def test_variables_are_submitted_with_a_flow(
    options: list[str], url: str, folder: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, "variables.json", '{"city": "Graz"}')
    monkeypatch.setenv("STEPFLOW_VAR_CITY", "Graz")
    answer = cli("flow", "submit", "variables.yaml", *options, "--output", "out.yaml", "--url", url)
    assert (answer.exit_code, answer.stdout) == (0, "")
    assert yaml.safe_load((folder / "out.yaml").read_text(encoding="utf-8")) == success(["Graz", 3])


@pytest.mark.parametrize(
    "arguments",
    [
        ["validate", "echo.yaml", "--type-check"],
        ["validate", "echo.yaml", "--strict"],
        ["infer", "--flow", "echo.yaml"],
        ["visualize", "echo.yaml"],
        ["repl"],
        ["run", "echo.yaml", "--log-level", "info"],
        ["run", "echo.yaml", "--omit-stack-trace"],
    ],
)
def test_what_the_documentation_says_is_not_there_is_wrong_use_and_not_passed_over(
    arguments: list[str], folder: Path, cli: Cli
) -> None:
    answer = cli("flow", *arguments)
    assert (answer.exit_code, answer.stdout) == (2, "")
    assert "No such " in answer.stderr


# Cases

KEPT = """\
name: kept
description: Runs a flow that it has kept.
steps:
- id: kept
  component: /put_blob
  input: {blob_type: flow, data: {$literal: {output: {backtrace: [1], value: 5}}}}
- id: evaluated
  component: /eval
  input: {flow_id: {$step: kept, path: blob_id}, input: null}
output: {$step: evaluated}
test:
  cases:
  - name: a
    description: The id of a run, and a backtrace, are others each time.
    input: null
    output:
      outcome: success
      result:
        run_id: whatever it was when this was written
        result: {outcome: success, result: {value: %s, backtrace: [of, another, place]}}
"""


def test_ids_of_runs_and_backtraces_of_real_runs_are_not_compared_and_a_case_may_be_described(
    folder: Path, cli: Cli
) -> None:
    write(folder, "kept.yaml", KEPT % 5)
    assert cli("flow", "validate", "kept.yaml").stdout == ""
    answer = cli("flow", "test", "kept.yaml")
    assert (answer.exit_code, answer.stdout) == (0, "passed    kept.yaml: a\n")

    # Everything beside them is.
    write(folder, "kept.yaml", KEPT % 6)
    answer = cli("flow", "test", "kept.yaml")
    assert answer.exit_code == 1
    assert answer.stdout.splitlines() == [
        "failed    kept.yaml: a",
        "    $.result.result.result.value: expected 6, got 5",
    ]


def test_a_case_without_an_outcome_alone_ends_with_exit_code_1_until_one_was_written(folder: Path, cli: Cli) -> None:
    path = write(folder, "open.yaml", ECHO + "test:\n  cases:\n  - name: a\n    input: 1\n")
    answer = cli("flow", "test", "open.yaml")
    assert (answer.exit_code, answer.stdout.splitlines()[0]) == (1, "undecided open.yaml: a")
    cli("flow", "test", "open.yaml", "--update")
    assert yaml.safe_load(path.read_text(encoding="utf-8"))["test"]["cases"] == [
        {"name": "a", "input": 1, "output": success(1)}
    ]
    assert cli("flow", "test", "open.yaml").exit_code == 0


#: Listens, and answers nobody well; or does not even listen.
SICK = """\
import http.server, sys, time


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        open(sys.argv[2], "a").write(self.path + "\\n")
        if self.path == "/hangs":
            time.sleep(1)
        self.send_response(503)
        self.end_headers()

    def log_message(self, *args):
        pass


if sys.argv[2] == "deaf":
    time.sleep(60)
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.mark.parametrize(
    ("server", "problem", "asked"),
    [
        (
            {"health_check": {"path": "/sick", "retry_attempts": 2, "retry_delay_ms": 1}},
            "/sick was answered with HTTP 503, 2 times",
            ["/sick"] * 2,
        ),
        (
            {"healthCheck": {"path": "/sick", "retryAttempts": 0, "retryDelayMs": 1}},
            "/sick was answered with HTTP 503, 1 times",
            ["/sick"],
        ),
        (
            {"health_check": {"path": "/hangs", "timeout_ms": 100, "retry_attempts": 1}},
            "/hangs was answered with ReadTimeout, 1 times",
            ["/hangs"],
        ),
        ({"args": ["sick.py", "{port}", "deaf"], "startup_timeout_ms": 200}, "it did not answer within 0.2 s", []),
        ({"args": ["sick.py", "{port}", "deaf"], "startupTimeoutMs": 200}, "it did not answer within 0.2 s", []),
    ],
)
def test_what_is_waited_for_may_be_spelled_as_in_the_originals_files(
    server: dict[str, Any], problem: str, asked: list[str], folder: Path, cli: Cli
) -> None:
    write(folder, "sick.py", SICK)
    described = {"command": sys.executable, "args": ["sick.py", "{port}", "asked"], "shutdown_timeout_ms": 0, **server}
    test = {"servers": {"web": described}, "cases": [{"name": "a", "input": 1}]}
    write(folder, "sick.yaml", f"{ECHO}test: {json.dumps(test)}\n")

    answer = cli("flow", "test", "sick.yaml")

    assert answer.exit_code == 1
    [told] = answer.stdout.splitlines()[:1]
    assert problem in told
    found = (folder / "asked").read_text(encoding="utf-8").splitlines() if (folder / "asked").exists() else []
    assert found == asked
