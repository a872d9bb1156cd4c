"""The graph of a class, from what its decorators say. Nothing is run."""

from __future__ import annotations

from dataclasses import dataclass

from .exceptions import WorkflowDefinitionError
from .models import WorkflowDefinition
from .validation import definition_of, validate_workflow_definition


@dataclass(slots=True)
class WorkflowGraphNode:
    """A step, or the end. Its id is made of its place, its label is its name."""

    id: str
    label: str
    kind: str
    requires_approval: bool = False
    description: str | None = None


@dataclass(slots=True)
class WorkflowGraphEdge:
    """One node may follow another: always (`linear`), or when the step returns `route_key` (`route`)."""

    source: str
    target: str
    kind: str
    route_key: str | None = None


@dataclass(slots=True)
class WorkflowGraph:
    """Steps and what may follow them."""

    workflow_name: str
    nodes: list[WorkflowGraphNode]
    edges: list[WorkflowGraphEdge]

    def to_mermaid(self) -> str:
        """The text of a Mermaid flowchart."""
        lines = ["flowchart TD"]
        for node in self.nodes:
            if node.kind == "end":
                lines.append(f"{node.id}(({_escape(node.label)}))")
            else:
                label = f"{node.label}\napproval" if node.requires_approval else node.label
                lines.append(f'{node.id}["{_escape(label)}"]')
        for edge in self.edges:
            key = "" if edge.route_key is None else f"|{_escape(edge.route_key).replace('|', chr(92) + '|')}|"
            lines.append(f"{edge.source} -->{key} {edge.target}")
        return "\n    ".join(lines)


def export_workflow_graph(workflow_or_class: object) -> WorkflowGraph:
    """The graph of a workflow class, or of an instance of one.

    Raises:
        WorkflowDefinitionError
    """
    definition = definition_of(workflow_or_class)
    if definition is None:
        raise WorkflowDefinitionError("Workflow metadata is missing from the workflow class.")
    return graph_of(validate_workflow_definition(definition))


def graph_of(definition: WorkflowDefinition) -> WorkflowGraph:
    """The graph of a definition that is known to be sound."""
    ids = {step.name: f"step_{index}" for index, step in enumerate(definition.steps)}
    nodes = [
        WorkflowGraphNode(ids[step.name], step.name, "step", step.requires_approval, step.description)
        for step in definition.steps
    ]
    edges: list[WorkflowGraphEdge] = []
    for index, step in enumerate(definition.steps):
        if step.routes is not None:
            edges += [
                WorkflowGraphEdge(
                    ids[step.name], ids[target] if isinstance(target, str) else "end_0", "route", route_key
                )
                for route_key, target in step.routes.items()
            ]
        elif index + 1 < len(definition.steps):
            edges.append(WorkflowGraphEdge(ids[step.name], f"step_{index + 1}", "linear"))
    if any(edge.target == "end_0" for edge in edges):
        nodes.append(WorkflowGraphNode("end_0", "END", "end"))
    return WorkflowGraph(definition.name, nodes, edges)


def _escape(text: str) -> str:
    """Text as programs that compare it expect it. (Mermaid's own way, `#quot;`, is used by `pyflue workflows show`.)"""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
