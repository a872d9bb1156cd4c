"""`pyflue flow run`: outcomes, exit codes, and where runs are kept."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest

from pyflue import codec
from tests.cli.cli_project import Cli, json_of, spawn
from tests.stepflow.cli.folder import CONFIG, write

RUN_ID = re.compile(r"^run_id: ([0-9a-f]{32})$", re.MULTILINE)


def success(value: object) -> dict[str, object]:
    return {"outcome": "success", "result": value}


def test_the_outcome_is_on_stdout_and_the_run_id_on_stderr(folder: Path, cli: Cli) -> None:
    answer = cli("flow", "run", "echo.yaml", "--input-json", '{"n": 1}')
    assert (answer.exit_code, json_of(answer)) == (0, success({"n": 1}))
    assert RUN_ID.fullmatch(answer.stderr.strip())
    assert sorted(path.name for path in folder.iterdir()) == [
        "broken.yaml",
        "echo.yaml",
        "fail.yaml",
        "hang.yaml",
        "stepflow-config.yml",
        "variables.yaml",
    ]


def test_a_failed_flow_ends_with_exit_code_1_and_its_outcome(folder: Path, cli: Cli) -> None:
    answer = cli("flow", "run", "--flow", "fail.yaml")
    assert answer.exit_code == 1
    outcome = json_of(answer)
    assert (outcome["outcome"], outcome["error"]["code"]) == ("failed", 500)
    assert answer.stderr.splitlines()[1:] == [f"error: The flow failed: {outcome['error']['message']}"]


def test_in_a_project_the_run_is_in_its_journal(project: Path, cli: Cli) -> None:
    answer = cli("flow", "run", "echo.yaml", "--input-json", "7", "--json")
    told = json_of(answer)
    assert told == {
        "run_id": told["run_id"],
        "run": told["run"],
        "status": "completed",
        "outcome": success(7),
    }
    assert answer.stderr.splitlines() == [f"run_id: {told['run_id']}", f"run {told['run']}"]
    logs = cli("logs", told["run"])
    assert logs.exit_code == 0
    assert "echo" in logs.stdout
    listed = json_of(cli("runs", "list", "--json"))["runs"]
    assert [(run["run_id"], run["status"]) for run in listed] == [(told["run"], "completed")]


def test_a_list_of_runs_says_which_flow_each_of_them_is_of(project: Path, cli: Cli) -> None:
    write(project, "other.yaml", f'name: "Invoices, of\\tMay {"y" * 200}"\noutput: 1\n')
    write(project, "nameless.yaml", "output: 1\n")
    for name in ("echo", "other", "nameless"):
        assert cli("flow", "run", f"{name}.yaml").exit_code == 0

    nameless, other, echo = (run["tags"] for run in json_of(cli("runs", "list", "--json"))["runs"])
    assert (len(nameless), nameless[0][:5], len(nameless[0])) == (1, "flow:", 69)
    assert (other[0], other[1][:5]) == (f"flow_name:Invoices of May {'y' * 102}", "flow:")
    assert echo[0] == "flow_name:echo"
    [only] = json_of(cli("runs", "list", "--tag", "flow_name:echo", "--json"))["runs"]
    assert only["tags"] == echo
    assert "flow_name:echo" in cli("runs", "list").stdout


def test_in_a_project_a_failed_run_names_its_log(project: Path, cli: Cli) -> None:
    answer = cli("flow", "run", "fail.yaml")
    run = answer.stderr.splitlines()[1].removeprefix("run ")
    assert answer.exit_code == 1
    assert answer.stderr.splitlines()[-1] == f"hint: pyflue logs {run}"
    assert cli("logs", run).exit_code == 0


def test_without_a_config_a_component_that_is_not_built_in_is_explained(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "x.yaml", "name: x\nsteps: {a: {component: /mine/greet}}\noutput: {$step: a}\n")
    answer = cli("flow", "run", "x.yaml")
    assert answer.exit_code == 1
    assert answer.stderr.splitlines()[1:] == [
        "error: The flow failed: step \"a\" failed: There is no built-in component '/mine/greet'.",
        "hint: There is no stepflow-config.yml beside the flow or in the current folder. Name one with --config.",
    ]


def test_what_a_program_said_last_is_one_line_of_the_error(folder: Path, cli: Cli) -> None:
    write(folder, "mine.py", "import sys\nsys.exit('one\\n  two')\n")
    plugin = f"{{type: stepflow, transport: stdio, command: {sys.executable}, args: [mine.py]}}"
    write(folder, "stepflow-config.yml", f"plugins: {{mine: {plugin}}}\nroutes: {{/mine: {{plugin: mine}}}}\n")
    write(folder, "x.yaml", "name: x\nsteps: {a: {component: /mine/x}}\noutput: {$step: a}\n")
    answer = cli("flow", "run", "x.yaml")
    assert answer.stderr.splitlines()[-1].endswith("before it answered `initialize`. It said last: one | two")
    listed = cli("flow", "list-components")
    assert (listed.exit_code, listed.stdout) == (1, "")
    [warning] = [line for line in listed.stderr.splitlines() if "component_server_ended" not in line]
    assert warning.startswith("warning: plugin 'mine' cannot be asked: ")
    assert warning.endswith("It said last: one | two")


def test_who_names_a_workflow_is_told_how_it_is_run(project: Path, cli: Cli) -> None:
    answer = cli("flow", "run", "hello")
    assert (answer.exit_code, answer.stdout) == (2, "")
    told = "File 'hello' does not exist. A workflow of the project is run with `pyflue run hello`."
    assert answer.stderr.splitlines()[-1] == f"Error: Invalid value for '[FLOW]': {told}"
    assert cli("flow", "run", "none.yaml").stderr.splitlines()[-1].endswith("File 'none.yaml' does not exist.")


def test_what_ended_the_run_as_a_whole_is_its_outcome(project: Path, cli: Cli) -> None:
    write(project, "stepflow-config.yml", CONFIG.replace("{type: builtin}", "{type: pyflue}"))
    flow = "name: x\ndescription: x\nsteps:\n- {id: a, component: /workflows/none}\noutput: {$step: a}\n"
    write(project, "child.yaml", flow)
    answer = cli("flow", "run", "child.yaml")
    assert answer.exit_code == 1
    assert json_of(answer)["error"]["code"] == 500


def test_a_batch_is_a_line_for_each_input_in_their_order(folder: Path, cli: Cli) -> None:
    write(folder, "inputs.jsonl", '{"n": 1}\n\n"two"\n[3]\n')
    answer = cli("flow", "run", "echo.yaml", "--inputs", "inputs.jsonl", "--max-concurrent", "2")
    assert answer.exit_code == 0
    outcomes = [codec.decode(line.encode(), "line") for line in answer.stdout.splitlines()]
    assert outcomes == [success({"n": 1}), success("two"), success([3])]


@pytest.mark.parametrize("where", ["folder", "project"])
def test_a_batch_with_a_failed_item_ends_with_exit_code_1(where: str, cli: Cli, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(where)
    write(folder, "name.yaml", 'name: n\ndescription: n\noutput: {$input: "name"}\n')
    write(folder, "inputs.jsonl", '{"name": "Ada"}\n{}\n')
    answer = cli("flow", "run", "name.yaml", "--inputs", "inputs.jsonl", "--json")
    assert answer.exit_code == 1
    assert json_of(answer)["outcomes"] == [
        success("Ada"),
        {"outcome": "failed", "error": {"code": 1, "message": "Input path $.name not found"}},
    ]
    assert "error: 1 of 2 items failed. The first: Input path $.name not found" in answer.stderr.splitlines()


def test_what_is_fatal_or_an_error_is_told_with_its_place_and_nothing_runs(folder: Path, cli: Cli) -> None:
    answer = cli("flow", "run", "broken.yaml")
    assert (answer.exit_code, answer.stdout) == (1, "")
    invalid = "Invalid component 'no_slash' in step 'first': Component path must start with '/'"
    unknown = "`on_error` is not a field of a step and has no effect. Did you mean `onError`?"
    assert answer.stderr.splitlines() == [
        "broken.yaml:9:12: fatal[3003]: Step 'second' references undefined step 'third'",
        f"broken.yaml:5:16: error[2500]: {invalid}",
        f"broken.yaml:6:5: warning[1900]: {unknown}",
        "error: broken.yaml cannot be run: 2 problems.",
    ]


def test_a_document_that_is_no_flow_is_told_with_its_place(folder: Path, cli: Cli) -> None:
    write(folder, "bad.yaml", "steps:\n  - id: a\n\tcomponent: /x\n")
    answer = cli("flow", "run", "bad.yaml")
    assert answer.exit_code == 1
    assert re.match(r"bad\.yaml:3:1: fatal: ", answer.stderr)
    write(folder, "shape.yaml", "steps:\n  - id: a\noutput: 1\n")
    answer = cli("flow", "run", "shape.yaml", "--json")
    assert (answer.exit_code, json_of(answer)["diagnostics"][0]["line"]) == (1, 2)


def test_the_config_is_the_given_one_else_that_beside_the_flow_else_that_of_the_current_folder(
    folder: Path, cli: Cli
) -> None:
    def mock(result: str) -> str:
        behaviors = f"behaviors: {{1: {{outcome: success, result: {result}}}}}"
        schemas = "input_schema: {}, output_schema: {}"
        return (
            f"plugins: {{m: {{type: mock, components: {{/x: {{{schemas}, {behaviors}}}}}}}}}\n"
            'routes: {"/{*component}": [{plugin: m}]}\n'
        )

    flow = "name: x\ndescription: x\nsteps: [{id: a, component: /x, input: 1}]\noutput: {$step: a}\n"
    write(folder, "stepflow-config.yml", mock("current"))
    write(folder, "given.yml", mock("given"))
    write(folder, "alone/x.yaml", flow)
    write(folder, "beside/x.yaml", flow)
    write(folder, "beside/stepflow_config.yaml", mock("beside"))
    assert json_of(cli("flow", "run", "alone/x.yaml")) == success("current")
    assert json_of(cli("flow", "run", "beside/x.yaml")) == success("beside")
    assert json_of(cli("flow", "run", "beside/x.yaml", "--config", "given.yml")) == success("given")
    write(folder, "beside/stepflow-config.yml", mock("two"))
    answer = cli("flow", "run", "beside/x.yaml")
    assert answer.exit_code == 1
    assert "several configs" in answer.stderr


def test_a_config_that_cannot_be_used_is_told_with_its_line(folder: Path, cli: Cli) -> None:
    write(folder, "stepflow-config.yml", "plugins:\n  x: {type: nats}\n")
    answer = cli("flow", "run", "echo.yaml")
    assert answer.exit_code == 1
    assert "stepflow-config.yml:2:" in answer.stderr


def test_a_folder_that_is_named_as_the_project_has_to_be_one(folder: Path, cli: Cli) -> None:
    assert cli("--project", str(folder), "flow", "run", "echo.yaml").exit_code == 3


@pytest.mark.parametrize("where", ["folder", "project"])
def test_ctrl_c_cancels_the_run_and_leaves_no_process(where: str, cli: Cli, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(where)
    hanging = folder / "hanging"
    process = spawn("flow", "run", "hang.yaml", "--input-json", f'"{hanging}"', cwd=folder)
    wait_for(hanging)
    children = children_of(process.pid)
    assert children
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    stdout, stderr = process.communicate(timeout=20)
    took_s = time.monotonic() - began
    assert (process.returncode, stdout) == (130, "")
    assert stderr.splitlines()[-1].endswith(" cancelled")
    assert took_s < 4  # a second is waited for the server to end by itself; the rest is for slow machines
    assert not [pid for pid in children if is_alive(pid)]
    if where == "project":
        [run] = json_of(cli("runs", "list", "--json"))["runs"]
        assert run["status"] == "cancelled"


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def children_of(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return found


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
