"""`pyflue flow validate`, `flow list-components`, and what `pyflue workflows validate` says of flows."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.cli.cli_project import Cli, json_of
from tests.stepflow.cli.folder import BROKEN, CONFIG, ECHO, VARIABLES, write

INVALID = "Invalid component 'no_slash' in step 'first': Component path must start with '/'"
UNKNOWN = "`on_error` is not a field of a step and has no effect. Did you mean `onError`?"


def test_validate_prints_line_column_level_and_code(folder: Path, cli: Cli) -> None:
    answer = cli("flow", "validate", "broken.yaml")
    assert answer.exit_code == 1
    assert answer.stdout.splitlines() == [
        "broken.yaml:9:12: fatal[3003]: Step 'second' references undefined step 'third'",
        f"broken.yaml:5:16: error[2500]: {INVALID}",
        "broken.yaml:4:5: warning[1000]: Step 'first' is not referenced by any other step or workflow output",
        f"broken.yaml:6:5: warning[1900]: {UNKNOWN}",
    ]
    assert answer.stderr.splitlines() == ["1 flow, 1 fatal, 1 error, 2 warnings"]


def test_a_flow_with_warnings_only_ends_with_exit_code_0(folder: Path, cli: Cli) -> None:
    write(folder, "short.yaml", "output: 1\n")
    answer = cli("flow", "validate", "--flow", "short.yaml", "echo.yaml")
    assert answer.exit_code == 0
    assert answer.stdout.splitlines() == [
        "short.yaml:1:1: warning[1001]: Workflow has no name",
        "short.yaml:1:1: warning[1002]: Workflow has no description",
    ]
    assert answer.stderr.splitlines() == ["2 flows, 0 fatal, 0 errors, 2 warnings"]


def test_validate_as_json(folder: Path, cli: Cli) -> None:
    answer = cli("flow", "validate", "broken.yaml", "--json")
    assert answer.exit_code == 1
    told = json_of(answer)
    assert {name: told[name] for name in told if name != "diagnostics"} == {
        "flows": 1,
        "num_fatal": 1,
        "num_error": 1,
        "num_warning": 2,
    }
    assert told["diagnostics"][1] == {
        "path": "broken.yaml",
        "level": "error",
        "code": 2500,
        "kind": "invalidComponent",
        "message": INVALID,
        "line": 5,
        "column": 16,
        "place": "$.steps[0].component",
    }


def test_what_is_no_flow_is_fatal_with_its_place(folder: Path, cli: Cli) -> None:
    write(folder, "twice.json", '{"name": "a",\n "name": "b"}')
    answer = cli("flow", "validate", "twice.json")
    assert answer.exit_code == 1
    assert answer.stdout.startswith("twice.json:2:2: fatal: ")


def test_the_config_is_looked_over_too(folder: Path, cli: Cli) -> None:
    write(folder, "stepflow-config.yml", CONFIG + "  unused: {type: builtin}\nroute: {}\n")
    write(folder, "unused.yml", CONFIG.replace("routes:", "  unused: {type: builtin}\nroutes:") + "stateStor: {}\n")
    write(folder, "bad.yml", 'plugins: {}\nroutes:\n  "/x": [{plugin: none}]\n')
    answer = cli("flow", "validate", "echo.yaml", "--config", "unused.yml")
    assert answer.exit_code == 0
    warned, unused = answer.stdout.splitlines()
    assert warned == "unused.yml:14:1: warning: $.stateStor is not known; did you mean 'stateStore'?"
    assert unused.endswith(
        "unused.yml: warning[1202]: $.plugins.unused: Plugin 'unused' is not referenced by any routing rule"
    )
    answer = cli("flow", "validate", "echo.yaml", "variables.yaml", "--config", "bad.yml")
    assert answer.exit_code == 1
    [line] = answer.stdout.splitlines()
    assert line.startswith("bad.yml:3:")
    assert line.endswith(": route '/x' leads to plugin 'none', which there is not; there are none.")
    assert ": fatal: " in line


LOST = """\
name: lost
description: Calls what there is not.
steps:
  here: {component: /server/echo}
  nowhere:
    component: /nope
    input: {$step: here}
output: {$step: nowhere}
"""


def test_a_component_that_the_config_does_not_lead_to_is_an_error(folder: Path, cli: Cli) -> None:
    write(folder, "lost.yaml", LOST)
    answer = cli("flow", "validate", "lost.yaml")
    assert answer.exit_code == 1
    said = "Invalid component '/nope' in step 'nowhere': there is no built-in component '/nope'; did you mean '/noop'?"
    assert answer.stdout.splitlines() == [f"lost.yaml:6:16: error[2500]: {said}"]


def test_without_a_config_a_component_that_is_not_built_in_is_a_warning(folder: Path, cli: Cli) -> None:
    write(folder, "lost.yaml", LOST)
    (folder / "stepflow-config.yml").unlink()
    answer = cli("flow", "validate", "lost.yaml")
    assert answer.exit_code == 0
    assert [line.partition(": there")[0] for line in answer.stdout.splitlines()] == [
        "lost.yaml:4:21: warning[1910]: Component '/server/echo' in step 'here' needs a config",
        "lost.yaml:6:16: warning[1910]: Component '/nope' in step 'nowhere' needs a config",
    ]


def test_a_plugin_of_a_type_that_there_is_not_is_fatal(folder: Path, cli: Cli) -> None:
    write(folder, "stepflow-config.yml", CONFIG.replace("type: builtin", "type: bulitin"))
    answer = cli("flow", "validate", "echo.yaml")
    assert answer.exit_code == 1
    [line] = answer.stdout.splitlines()
    assert line.endswith("fatal: plugin 'builtin' is of type 'bulitin', which there is not; did you mean 'builtin'?")


def test_workflows_validate_says_where_a_component_leads_to_nothing(project: Path, cli: Cli) -> None:
    write(project, "stepflow-config.yml", CONFIG)
    write(project / "src" / "workflows", "lost.yaml", LOST)
    answer = cli("workflows", "validate")
    assert answer.exit_code == 1
    [line] = answer.stdout.splitlines()
    assert line.startswith("src/workflows/lost.yaml:6:16: error[2500]: Invalid component '/nope' in step 'nowhere': ")
    write(
        project,
        "stepflow-config.yml",
        CONFIG.replace('/{*component}":\n    - plugin: builtin', '/nope": {plugin: builtin, component: /noop}\n'),
    )
    assert cli("workflows", "validate").exit_code == 0


def test_validate_needs_a_flow(folder: Path, cli: Cli) -> None:
    assert cli("flow", "validate").exit_code == 2


def test_workflows_validate_says_the_same_of_the_projects_flows(project: Path, cli: Cli) -> None:
    flows = project / "src" / "workflows"
    write(flows, "broken.yaml", BROKEN)
    write(flows, "malformed.yaml", "steps: [{id: a}]\noutput: [\n")
    write(flows, "slash.yaml", BROKEN.replace("$step: third", "$step: first"))
    write(flows, "fine.yaml", ECHO)
    answer = cli("workflows", "validate")
    assert answer.exit_code == 1
    lines = answer.stdout.splitlines()
    assert lines[0] == "src/workflows/broken.yaml:9:12: fatal[3003]: Step 'second' references undefined step 'third'"
    assert lines[1].startswith("src/workflows/malformed.yaml:3:1: This is not valid YAML: ")
    assert lines[2:] == [
        f"src/workflows/slash.yaml:5:16: error[2500]: {INVALID}",
        f"src/workflows/slash.yaml:6:5: warning[1900]: {UNKNOWN}",
    ]
    assert answer.stderr.splitlines() == ["4 workflows, 3 problems, 1 warning"]
    told = json_of(cli("workflows", "validate", "--json"))
    assert told["warnings"] == [
        {
            "path": "src/workflows/slash.yaml",
            "line": 6,
            "message": UNKNOWN,
            "column": 5,
            "level": "warning",
            "code": 1900,
        }
    ]


# list-components


def test_components_are_listed_by_the_paths_that_flows_write(folder: Path, cli: Cli) -> None:
    answer = cli("flow", "list-components")
    assert answer.exit_code == 0
    header, *rows = answer.stdout.splitlines()
    assert header.split() == ["COMPONENT", "DESCRIPTION"]
    paths = [row.split()[0] for row in rows]
    assert "/noop" in paths
    assert "/server/echo" in paths


def test_as_json_and_yaml_the_schemas_are_there_unless_they_are_not_wanted(folder: Path, cli: Cli) -> None:
    told = json_of(cli("flow", "list-components", "--format", "json"))
    load_file = next(one for one in told["components"] if one["component"] == "/load_file")
    assert set(load_file) == {"component", "description", "input_schema", "output_schema"}
    assert json_of(cli("flow", "list-components", "--json")) == told
    assert yaml.safe_load(cli("flow", "list-components", "--format", "yaml").stdout) == told
    plain = json_of(cli("flow", "list-components", "--format", "json", "--schemas", "false"))
    assert {key for one in plain["components"] for key in one} <= {"component", "description"}
    assert [one["component"] for one in plain["components"]] == [one["component"] for one in told["components"]]


def test_schemas_can_be_printed_to_read(folder: Path, cli: Cli) -> None:
    answer = cli("flow", "list-components", "--schemas", "true")
    assert "input_schema\n{\n" in answer.stdout


def test_what_no_route_leads_to_is_listed_if_it_is_asked_for(folder: Path, cli: Cli) -> None:
    write(
        folder,
        "few.yml",
        CONFIG.replace(
            '"/{*component}":\n    - plugin: builtin', '"/{*component}": [{plugin: builtin, componentAllow: [/sleep]}]'
        ),
    )

    def paths(*options: str) -> list[str]:
        told = json_of(cli("flow", "list-components", "--config", "few.yml", "--json", *options))
        return [one["component"] for one in told["components"]]

    assert "/noop" not in paths()
    assert "/noop" in paths("--hide-unreachable", "false")


def test_a_plugin_that_cannot_be_asked_is_told_and_the_others_are_listed(folder: Path, cli: Cli) -> None:
    write(folder, "lost.yml", CONFIG.replace("command: ", "command: /none"))
    answer = cli("flow", "list-components", "--config", "lost.yml")
    assert answer.exit_code == 1
    assert "/noop" in answer.stdout
    assert "warning: plugin 'server' cannot be asked: " in answer.stderr


def test_without_a_config_the_built_in_components_are_there(
    folder: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "stepflow-config.yml").unlink()
    told = json_of(cli("flow", "list-components", "--json"))
    assert "/noop" in [one["component"] for one in told["components"]]
    write(folder, "x.yaml", VARIABLES)
    assert cli("flow", "validate", "x.yaml").stdout == ""
