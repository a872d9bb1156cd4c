"""The graph of a class, and its Mermaid text."""

from __future__ import annotations

from pyflue.agentflow import (
    END,
    WorkflowGraph,
    WorkflowGraphEdge,
    WorkflowGraphNode,
    export_workflow_graph,
    step,
    workflow,
)


@workflow(name="Refund")
class Flow:
    @step(description="looks", routes={"small": "pay", "large": "ask", "none": END})
    def decide(self) -> str:
        raise AssertionError("a graph runs nothing")

    @step(requires_approval=True)
    def ask(self) -> None: ...

    @step(routes={"paid": END})
    def pay(self) -> None: ...

    @step
    def last(self) -> None: ...


def test_the_graph_has_the_steps_and_what_may_follow_them() -> None:
    expected = WorkflowGraph(
        "Refund",
        [
            WorkflowGraphNode("step_0", "decide", "step", description="looks"),
            WorkflowGraphNode("step_1", "ask", "step", requires_approval=True),
            WorkflowGraphNode("step_2", "pay", "step"),
            WorkflowGraphNode("step_3", "last", "step"),
            WorkflowGraphNode("end_0", "END", "end"),
        ],
        [
            WorkflowGraphEdge("step_0", "step_2", "route", "small"),
            WorkflowGraphEdge("step_0", "step_1", "route", "large"),
            WorkflowGraphEdge("step_0", "end_0", "route", "none"),
            WorkflowGraphEdge("step_1", "step_2", "linear"),
            WorkflowGraphEdge("step_2", "end_0", "route", "paid"),
        ],
    )
    assert export_workflow_graph(Flow) == export_workflow_graph(Flow()) == expected
    assert expected.to_mermaid() == (
        "flowchart TD\n"
        '    step_0["decide"]\n'
        '    step_1["ask\\napproval"]\n'
        '    step_2["pay"]\n'
        '    step_3["last"]\n'
        "    end_0((END))\n"
        "    step_0 -->|small| step_2\n"
        "    step_0 -->|large| step_1\n"
        "    step_0 -->|none| end_0\n"
        "    step_1 --> step_2\n"
        "    step_2 -->|paid| end_0"
    )


def test_text_is_escaped_with_backslashes() -> None:
    @workflow
    class Odd:
        @step(name='a "q"\\ x\ny', routes={'k|"e\n': "b"})
        def a(self) -> None: ...

        @step
        def b(self) -> None: ...

    assert export_workflow_graph(Odd).to_mermaid() == (
        'flowchart TD\n    step_0["a \\"q\\"\\\\ x\\ny"]\n    step_1["b"]\n    step_0 -->|k\\|\\"e\\n| step_1'
    )
