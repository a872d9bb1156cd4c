"""The graph of a workflow, and its Mermaid text, without running it.

python examples/agentflow/graph_export.py
"""

from __future__ import annotations

from dataclasses import dataclass

from pyflue.agentflow import END, export_workflow_graph, step, workflow


@dataclass
class ClaimState:
    amount: float


@workflow
class ClaimWorkflow:
    """Settle a claim."""

    state: ClaimState

    @step(routes={"reject": END, "small": "settle", "large": "inspect"})
    def assess(self) -> str:
        if self.state.amount <= 0:
            return "reject"
        return "small" if self.state.amount < 1000 else "large"

    @step(requires_approval=True, description="An expert looks at it.")
    def inspect(self) -> str:
        return "inspected"

    @step
    def settle(self) -> str:
        return "settled"


def main() -> None:
    graph = export_workflow_graph(ClaimWorkflow)
    print(f"{graph.workflow_name}: {len(graph.nodes)} nodes, {len(graph.edges)} edges")
    print(graph.to_mermaid())


if __name__ == "__main__":
    main()
