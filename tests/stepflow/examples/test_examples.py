"""The programs and flows in `examples/stepflow/`, run as a reader of its README runs them: by their commands."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pyflue import codec
from pyflue.stepflow.document import read_flow_text
from pyflue.stepflow.validation import diagnose
from tests.docs_pages import Page, blocks_of

_EXAMPLES = Path(__file__).parents[3] / "examples" / "stepflow"
_FLOWS = sorted(path.relative_to(_EXAMPLES) for path in _EXAMPLES.rglob("*.yaml"))
_COMMAND_S = 60


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The examples, in a folder that belongs to no project."""
    ignored = shutil.ignore_patterns("__pycache__", ".pyflue")
    return Path(shutil.copytree(_EXAMPLES, tmp_path / "stepflow", ignore=ignored))


def run(folder: Path, *command: str, exit_code: int = 0, **variables: str) -> subprocess.CompletedProcess[str]:
    """A command in a terminal whose `python` has PyFlue."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("PYFLUE_", "STEPFLOW_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command,
        cwd=folder,
        env={**ours, "PATH": path, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_COMMAND_S,
    )
    assert done.returncode == exit_code, done.stderr
    return done


def outcome(folder: Path, flow: str, given: Any = None, *options: str, **variables: str) -> Any:
    """What `pyflue flow run` prints."""
    asked = [] if given is None else ["--input-json", json.dumps(given)]
    done = run(folder, "pyflue", "flow", "run", flow, *asked, *options, **variables)
    return codec.decode(done.stdout.encode(), "The outcome")


@pytest.mark.parametrize(
    ("program", "printed"),
    [
        ("run_embedded.py", "{'message': 'Hello, Ada!'}\n{'message': 'Bonjour, Émilie!'}\n"),
        (
            "build_flow.py",
            """\
True []
{'to': 'Ada', 'tone': 'Be brief.', 'place': 'at home', 'template': {'$input': 'is only a text here'}}
""",
        ),
        ("components_in_process/run_with_servers.py", "{'cents': 19900}\n{'cents': 19900}\n['/shop/price']\n"),
    ],
)
def test_a_program_prints_what_it_should(program: str, printed: str, folder: Path) -> None:
    assert run(folder, "python", program, PYTHONUTF8="1").stdout == printed


def test_the_client_gets_its_results_from_a_server(folder: Path) -> None:
    with Page(Path("README.md"), folder) as page:
        for block in blocks_of(
            """
```console
$ pyflue flow serve --config stepflow-config.yml &
$ python run_client.py http://localhost:7837
{'message': 'Hello, Ada!'}
{'value': [{'message': 'Hello, Bob!'}, {'message': 'Hallo, Eve!'}]}
```
"""
        ):
            page.run(block)


def test_the_cases_in_the_flows_pass(folder: Path) -> None:
    done = run(folder, "pyflue", "flow", "test")
    assert sorted(done.stdout.splitlines()) == [
        "passed    built_in/letters.yaml: two letters and three deputies",
        "passed    components_in_process/order.yaml: two lamps",
        "passed    context/archive.yaml: two lines",
        "passed    hello-workflow.yaml: in English",
        "passed    hello-workflow.yaml: in French",
        "passed    mcp_tools/words.yaml: three words",
    ]


@pytest.mark.parametrize("path", _FLOWS, ids=str)
def test_a_flow_is_without_faults(path: Path) -> None:
    flow = read_flow_text((_EXAMPLES / path).read_bytes())
    found = [(one.level.value, one.text) for one in diagnose(flow).shown]
    unused = "Step 'unused' is not referenced by any other step or workflow output"
    assert found == ([("warning", unused)] if path == Path("errors/errors.yaml") else [])


def test_failures_are_tried_again_replaced_or_looked_at(folder: Path) -> None:
    assert outcome(folder / "errors", "errors.yaml") == {
        "outcome": "success",
        "result": {"attempts": 3, "price": 0, "broken": "failed"},
    }


@pytest.mark.parametrize(
    ("is_quiet", "result"),
    [
        (True, {"outcome": "success", "result": {"idle": "skipped", "not_wanted": "skipped"}}),
        (False, {"outcome": "failed", "error": {"code": 500}}),
    ],
)
def test_steps_of_older_flows_are_skipped(is_quiet: bool, result: Any, folder: Path) -> None:
    asked = json.dumps({"is_quiet": is_quiet})
    done = run(
        folder / "errors", "pyflue", "flow", "run", "older.yaml", "--input-json", asked, exit_code=0 if is_quiet else 1
    )
    ended = json.loads(done.stdout)
    if not is_quiet:
        message = ended["error"].pop("message")
        assert message == 'step "not_wanted" failed: Component execution failed: this is never going to work'
        del ended["error"]["data"]
    assert ended == result


def test_variables_come_from_options_and_the_environment_and_secret_ones_are_not_recorded_openly(folder: Path) -> None:
    project = folder / "variables"
    (project / "src" / "workflows").mkdir(parents=True)
    given = ("--variables-json", '{"region": "us"}', "--env-variables")
    assert outcome(project, "signed.yaml", None, *given, STEPFLOW_VAR_API_KEY="sk-very-secret") == {
        "outcome": "success",
        "result": {"url": "https://us.example.com/?limit=20", "signature": "e7f15906"},
    }
    (listed,) = json.loads(run(project, "pyflue", "runs", "list", "--json").stdout)["runs"]
    for shown in (("runs", "show"), ("runs", "steps"), ("logs",)):
        assert "sk-very-secret" not in run(project, "pyflue", *shown, listed["run_id"]).stdout
    refused = run(project, "pyflue", "flow", "run", "signed.yaml", exit_code=2)
    assert refused.stderr.startswith("error: Missing required variable: api_key\n")


def test_a_flow_of_a_project_calls_another_workflow_of_it(folder: Path) -> None:
    project = folder / "project"
    parcels = [["lamp", "lamp"], ["desk"]]
    done = run(project, "pyflue", "run", "dispatch", "--payload", json.dumps({"parcels": parcels}))
    assert json.loads(done.stdout) == [
        {"outcome": "success", "result": {"grams": 1800}},
        {"outcome": "success", "result": {"grams": 24000}},
    ]
    listed = json.loads(run(project, "pyflue", "runs", "list", "--json").stdout)["runs"]
    names = sorted((one["workflow"], one["status"]) for one in listed)
    assert names == [("dispatch", "completed"), ("weigh", "completed"), ("weigh", "completed")]
    (parent,) = (one for one in listed if one["workflow"] == "dispatch")
    steps = json.loads(run(project, "pyflue", "runs", "steps", parent["run_id"], "--json").stdout)["steps"]
    assert sorted((step["step"], step["kind"]) for step in steps) == [
        ("each", "step"),
        ("each[0]/weigh", "step"),
        ("each[0]/weigh/weigh", "child"),
        ("each[1]/weigh", "step"),
        ("each[1]/weigh/weigh", "child"),
    ]


def test_the_readme_names_what_there_is(folder: Path) -> None:
    text = (folder / "README.md").read_text(encoding="utf-8")
    named = {name.split("/")[0] for name in re.findall(r"[\w./-]+(?:/|\.(?:py|yaml|yml))", text) if ".." not in name}
    there = {path.name for path in folder.iterdir()} - {"README.md"}
    assert there <= named
    for command in re.findall(r"^\|.*\| `(python [\w./]+|pyflue flow test \w+)` \|$", text, re.MULTILINE):
        run(folder, *command.split())
