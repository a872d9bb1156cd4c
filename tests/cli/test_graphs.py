"""`pyflue workflows show --graph`: the declared steps as Mermaid, JSON or SVG."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from pyflue.cli.graphs import to_mermaid, to_svg
from tests.cli.cli_project import Cli, json_of, write_workflow

STEPS = """
from pyflue.agentflow import END, step, workflow

@workflow
class Flow:
    @step(routes={"small": "pay", "<large> & \\"more\\"": "ask", "none": END})
    def decide(self): ...

    @step(requires_approval=True)
    def ask(self): ...

    @step(name="pay | it")
    def extra(self): ...

    @step
    def pay(self): ...
"""
SVG = "{http://www.w3.org/2000/svg}"


def test_a_graph_is_shown_as_mermaid(project: Path, cli: Cli) -> None:
    write_workflow(project, "flow", STEPS)
    assert cli("workflows", "show", "flow", "--graph", "mermaid").stdout == (
        "flowchart TD\n"
        '    n0["decide"]\n'
        '    n1["ask (approval)"]\n'
        '    n2["pay #124; it"]\n'
        '    n3["pay"]\n'
        '    n4(("END"))\n'
        '    n0 -->|"small"| n3\n'
        '    n0 -->|"#60;large#62; #38; #34;more#34;"| n1\n'
        '    n0 -->|"none"| n4\n'
        "    n1 --> n2\n"
        "    n2 --> n3\n"
    )


def test_a_graph_is_shown_as_json_also_beside_the_rest(project: Path, cli: Cli) -> None:
    write_workflow(project, "flow", STEPS)
    graph = json_of(cli("workflows", "show", "flow", "--graph", "json"))
    assert graph["nodes"][1] == {"id": "step_1", "label": "ask", "kind": "approval"}
    assert graph["edges"][0] == {"source": "step_0", "target": "step_3", "label": "small"}
    assert json_of(cli("workflows", "show", "flow", "--json"))["graph"] == graph


def test_a_graph_is_shown_as_a_picture(project: Path, cli: Cli) -> None:
    write_workflow(project, "flow", STEPS)
    picture = ElementTree.fromstring(cli("workflows", "show", "flow", "--graph", "svg").stdout)
    boxes = [(box.get("class"), box.findtext(f"{SVG}title")) for box in picture.iter(f"{SVG}g")]
    assert boxes == [
        ("step", "decide"),
        ("approval", "ask"),
        ("step", "pay | it"),
        ("step", "pay"),
        ("end", "END"),
    ]
    keys = [text.text for text in picture.iter(f"{SVG}text") if text.get("class") == "key"]
    assert keys == ["small", '<large> & "more"', "none"]
    assert len(list(picture.iter(f"{SVG}path"))) == 5
    # No two boxes are in the same place, and all are in the picture.
    corners = [(int(box.get("x", "")), int(box.get("y", ""))) for box in picture.iter(f"{SVG}rect")]
    assert len(set(corners)) == 5
    assert max(x for x, _ in corners) < int(picture.get("width", ""))
    assert max(y for _, y in corners) < int(picture.get("height", ""))


def test_a_workflow_of_code_has_no_graph(project: Path, cli: Cli) -> None:
    write_workflow(project, "echo", "async def run(ctx): ...\n")
    refused = cli("workflows", "show", "echo", "--graph", "mermaid")
    assert (refused.exit_code, refused.stdout) == (3, "")
    assert "declares no graph" in refused.stderr


def test_whatever_a_graph_has_in_it_is_drawn() -> None:
    circle = {
        "nodes": [{"id": name, "label": "x" * 60 + "\x1b", "kind": "step"} for name in "ab"],
        "edges": [{"source": "a", "target": "b", "label": ""}, {"source": "b", "target": "a", "label": ""}],
    }
    picture = to_svg(circle)
    ElementTree.fromstring(picture)
    assert "\x1b" not in picture + to_mermaid(circle)
    ElementTree.fromstring(to_svg({"nodes": [], "edges": []}))
    assert to_mermaid({"nodes": [], "edges": []}) == "flowchart TD"
