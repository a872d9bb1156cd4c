"""What a config says of the components that a flow names, without a start of any plugin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pyflue.stepflow.builtin import BuiltinPlugin
from pyflue.stepflow.config import default_config, read_config_value
from pyflue.stepflow.document import read_flow
from pyflue.stepflow.exceptions import place_text
from pyflue.stepflow.reach import BUILT_IN, look_of
from pyflue.stepflow.validation import diagnose

CONFIG: dict[str, Any] = {
    "plugins": {
        "builtin": {"type": "builtin"},
        # Nothing of it is looked at: neither the program nor the variable is there.
        "mine": {"type": "stepflow", "transport": "stdio", "command": "no-such-program", "args": ["${NOT_SET}"]},
        "mocked": {"type": "mock", "components": {"/one": {}, "two": {}}},
        "project": {"type": "pyflue"},
    },
    "routes": {
        "/std/{*component}": [{"plugin": "builtin"}],
        "/mine/{*component}": [{"plugin": "mine", "componentDeny": ["/secret"]}],
        "/mock/{*component}": [{"plugin": "mocked"}],
        "/project/{*component}": [{"plugin": "project"}],
        "/loop": [{"plugin": "builtin", "component": "/map"}],
        "/either/{*component}": [
            {"plugin": "mocked", "conditions": [{"path": "$.kind", "value": 1}]},
            {"plugin": "builtin"},
        ],
    },
}


def problems(*components: str, folder: Path, **options: Any) -> list[str]:
    """What is said of steps with these components."""
    steps = [{"id": f"s{n}", "component": name, "mustExecute": True} for n, name in enumerate(components)]
    flow = read_flow({"name": "n", "description": "d", "steps": steps})
    found = diagnose(flow, look_of(read_config_value(CONFIG, folder), **options)).shown
    return [f"{one.level} {one.code} {place_text(one.path)} {one.text}" for one in found]


@pytest.mark.parametrize(
    "component",
    [
        "/std/map",
        "/mine/anything",
        "/mock/one",
        "/mock/two",
        "/project/workflows/other",
        "/project/agents/helper",
        "/loop",
        "/either/one",
        "/either/noop",
    ],
)
def test_nothing_is_said_of_a_component_that_may_be_there(tmp_path: Path, component: str) -> None:
    assert problems(component, folder=tmp_path) == []


@pytest.mark.parametrize(
    ("component", "problem"),
    [
        ("/other/thing", "no route leads to it"),
        ("/mine", "no route leads to it"),
        ("/mine/secret", "no route leads to it"),
        ("/std/mop", "there is no built-in component '/mop'; did you mean '/map'?"),
        ("/mock/three", "mock 'mocked' has no component '/three'"),
        ("/project/things/x", "plugin 'project' has /workflows/<name> and /agents/<name> only"),
        ("/either/qq", "mock 'mocked' has no component '/qq'; there is no built-in component '/qq'"),
        ("mine/x", "Component path must start with '/'"),
    ],
)
def test_a_component_that_cannot_be_there_is_an_error_of_its_step(tmp_path: Path, component: str, problem: str) -> None:
    assert problems("/std/noop", component, folder=tmp_path) == [
        f"error 2500 $.steps[1].component Invalid component {component!r} in step 's1': {problem}"
    ]


def test_it_is_a_warning_if_the_config_stands_for_none(tmp_path: Path) -> None:
    assert problems("/other", folder=tmp_path, is_certain=False) == [
        "warning 1910 $.steps[0].component Component '/other' in step 's0' needs a config: no route leads to it"
    ]


def test_of_a_plugin_that_does_not_come_from_the_config_nothing_is_known(tmp_path: Path) -> None:
    assert problems("/std/whatever", "/mock/any", folder=tmp_path, ready=["builtin", "mocked"]) == []


def test_inner_flows_are_found_by_the_component_that_a_route_leads_to(tmp_path: Path) -> None:
    inner = {"steps": [{"id": "a", "component": "/nowhere"}], "output": {"$step": "a"}}

    def said(component: str) -> list[str]:
        step = {"id": "s", "component": component, "mustExecute": True, "input": {"workflow": {"$literal": inner}}}
        flow = read_flow({"name": "n", "description": "d", "steps": [step]})
        return [place_text(one.path) for one in diagnose(flow, look_of(read_config_value(CONFIG, tmp_path))).shown]

    place = "$.steps[0].input.workflow.$literal.steps[0].component"
    assert (said("/loop"), said("/std/map"), said("/mine/map")) == ([place], [place], [])


async def test_the_names_of_built_in_components_are_those_that_there_are(tmp_path: Path) -> None:
    listed = await BuiltinPlugin(tmp_path).components()
    assert {info.path for info in listed} == BUILT_IN
    assert not look_of(default_config(tmp_path))("/map").problem
