"""What `[flowgram]` in a project's settings does: hosts that may be reached, and modules with executors."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pyflue.flowgram as fg
from pyflue.errors import SettingsInvalid
from pyflue.flowgram.network import AddressRefused, addresses_of
from pyflue.main import open_project
from pyflue.settings import load_settings
from tests.cli.cli_project import Cli
from tests.cli.conftest import cli as cli  # the command line, called in process
from tests.server.harness import in_process

from .graphs import Json, end, fields, graph, node, ref, start

GRAPH = graph(
    [
        start(n="integer"),
        node(
            "d",
            "double",
            inputs=fields(n="integer"),
            inputsValues={"n": ref("start", "n")},
            outputs=fields(n="integer"),
        ),
        end({"n": ref("d", "n")}, n="integer"),
    ],
    "start -> d -> end",
)
DOUBLE = """
import pyflue.flowgram as fg

class Base(fg.INodeExecutor):
    pass

class Double(Base):
    type = "double"

    async def execute(self, ctx):
        return fg.ExecutionResult(outputs={"n": 2 * ctx.inputs["n"]})
"""
OBJECT = DOUBLE.replace('type = "double"', "type = ''") + "\nnode = Double()\nnode.type = 'double'\n"
REGISTERING = "def define():\n" + DOUBLE.replace("\n", "\n    ") + "\n    fg.register_executor(Double())\n\ndefine()\n"


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    path, modules = list(sys.path), set(sys.modules)
    yield tmp_path
    sys.path[:] = path
    for name in {*sys.modules} - modules:
        if name.startswith("my_nodes"):
            del sys.modules[name]


def write(root: Path, source: str | None, entry: str, graph: Json | None = GRAPH) -> None:
    (root / "src" / "workflows").mkdir(parents=True)
    if graph is not None:
        (root / "src" / "workflows" / "g.json").write_text(json.dumps(graph))
    if source is not None:
        (root / "src" / f"{entry.partition(':')[0]}.py").write_text(source)
    (root / "pyflue.toml").write_text(f"[flowgram]\nexecutors = [{entry!r}]\n")


@pytest.mark.parametrize(
    ("source", "entry"),
    [
        (DOUBLE, "my_nodes_all"),
        (DOUBLE, "my_nodes_class:Double"),
        (OBJECT, "my_nodes_object:node"),
        (REGISTERING, "my_nodes_registering"),
    ],
)
async def test_a_server_has_the_executors_that_the_project_names(root: Path, source: str, entry: str) -> None:
    write(root, source, entry)
    async with in_process(root) as here:
        answer = await here.client.post("/workflows/g?wait=result", json={"n": 2})
        assert answer.json()["result"] == {"n": 4}
        checked = await here.client.post("/task/validate", json={"schema": json.dumps(GRAPH), "inputs": {"n": 1}})
        assert checked.json() == {"valid": True, "errors": None, "warnings": []}


def test_warnings_of_graphs_are_shown_and_are_no_problems(
    root: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    choice = node("c", "condition", conditions=[{"key": "big", "value": {"left": ref("start", "n"), "operator": "gt"}}])
    schema = graph([start(n="integer"), choice, node("v", "variable"), end()], "start -> c", "c.big -> end")
    write(root, DOUBLE, "my_nodes_warnings", schema)
    (root / "src" / "workflows" / "g.json").write_text(json.dumps(schema, indent=1))
    monkeypatch.chdir(root)
    told = cli("workflows", "validate")
    lines = (root / "src" / "workflows" / "g.json").read_text().splitlines()
    at = {name: 1 + next(n for n, line in enumerate(lines) if f'"id": "{name}"' in line) for name in "cv"}
    assert told.stdout.splitlines() == [
        f"src/workflows/g.json:{at['c']}: warning: Condition 'c' has no else edge: the run fails if nothing holds.",
        f"src/workflows/g.json:{at['v']}: warning: Nothing leads to node 'v'.",
    ]
    assert (told.exit_code, told.stderr.strip()) == (0, "1 workflow, 0 problems, 2 warnings")
    as_json = json.loads(cli("workflows", "validate", "--json").stdout)
    assert [warning["line"] for warning in as_json["warnings"]] == [at["c"], at["v"]]
    assert (as_json["workflows"], as_json["problems"]) == (1, [])


def test_commands_have_them_too_and_only_those_with_graphs_import_them(
    root: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(root, DOUBLE, "my_nodes_cli")
    monkeypatch.chdir(root)
    assert cli("runs", "list").exit_code == 0
    assert "my_nodes_cli" not in sys.modules
    assert cli("workflows", "show", "g").exit_code == 0
    assert "my_nodes_cli" in sys.modules
    assert json.loads(cli("run", "g", "--payload", '{"n": 21}').stdout) == {"n": 42}
    assert cli("workflows", "validate").exit_code == 0


@pytest.mark.parametrize(
    ("source", "entry", "problem"),
    [
        (None, "my_nodes_gone", "module 'my_nodes_gone' cannot be imported: ModuleNotFoundError: No module named"),
        ("1/0", "my_nodes_broken", "module 'my_nodes_broken' cannot be imported: ZeroDivisionError: division by zero"),
        ("x = 1", "my_nodes_none", "module 'my_nodes_none' has no class with a `type` and an `async execute(ctx)`"),
        (DOUBLE, "my_nodes_typo:Doubel", "'my_nodes_typo:Doubel': TypeError: None is no executor"),
    ],
)
async def test_executors_that_are_not_there_are_told_before_anything_runs(
    root: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, source: str | None, entry: str, problem: str
) -> None:
    write(root, source, entry)
    with pytest.raises(SettingsInvalid) as refused:
        async with in_process(root):
            pass
    assert problem in str(refused.value)
    assert "flowgram.executors" in str(refused.value)
    monkeypatch.chdir(root)
    told = cli("workflows", "validate")
    assert told.exit_code == 1
    assert problem.partition(":")[0] in told.output.replace("\n", " ")


async def test_allowed_hosts_of_the_file_and_the_variable_may_be_reached(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "src" / "workflows").mkdir(parents=True)
    (root / "pyflue.toml").write_text('[flowgram]\nallowed_hosts = ["127.0.0.0/8", "localhost:8080"]\n')
    with pytest.raises(AddressRefused, match=r"flowgram\.allowed_hosts in pyflue\.toml"):
        await addresses_of("127.0.0.9", 80)
    await close(root)
    assert await addresses_of("127.0.0.9", 80) == ["127.0.0.9"]
    with pytest.raises(AddressRefused):
        await addresses_of("10.0.0.1", 80)
    monkeypatch.setenv("PYFLUE_FLOWGRAM_ALLOWED_HOSTS", "10.0.0.1")  # instead of the file's
    await close(root)
    assert await addresses_of("10.0.0.1", 80) == ["10.0.0.1"]
    with pytest.raises(AddressRefused):
        await addresses_of("127.0.0.9", 80)


async def close(root: Path) -> None:
    """Open the project, which puts its settings into force."""
    await open_project(root).journal.close()


@pytest.mark.parametrize("host", ["http://localhost:8080", "local host"])
def test_a_host_that_could_never_fit_is_refused(root: Path, host: str) -> None:
    (root / "pyflue.toml").write_text(f"[flowgram]\nallowed_hosts = [{host!r}]\n")
    with pytest.raises(SettingsInvalid, match="expected names, addresses or networks"):
        load_settings(root, environ={})


def test_register_executor_says_what_is_missing() -> None:
    wrong: Any = type("Wrong", (), {"type": "x"})()
    with pytest.raises(TypeError, match="it needs a `type` and an `async execute"):
        fg.register_executor(wrong)
