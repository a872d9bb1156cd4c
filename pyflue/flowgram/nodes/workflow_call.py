"""The workflow node: any workflow of the project, as a child run. `data.workflow` names it; the inputs are its payload.

In a project `workflow.py` makes the child run; a graph that runs as a library has no project.
"""

from __future__ import annotations

from typing import Any

from ..document import Node, as_object
from ..exceptions import NodeError
from ..executing import Call, ExecutionResult


async def execute_workflow(call: Call) -> ExecutionResult:
    """Say that there is no project.

    Raises:
        NodeError
    """
    raise NodeError(f"Workflow {workflow_name(call.node)!r} cannot be run here: a workflow node needs a project")


def workflow_name(node: Node) -> str:
    """The workflow that a node runs.

    Raises:
        NodeError: it names none.
    """
    name = node.data.get("workflow")
    if not isinstance(name, str) or not name:
        raise NodeError("Workflow name is required")
    return name


def result_of(value: Any) -> ExecutionResult:
    """A child's result as the node's outputs."""
    return ExecutionResult(as_object(value) if isinstance(value, dict) else {"result": value})
