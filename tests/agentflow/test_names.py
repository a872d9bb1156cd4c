"""What can be imported, and what importing costs."""

from __future__ import annotations

import copy
import importlib
import pickle
import subprocess
import sys

import pytest

import pyflue.agentflow as agentflow

NAMES = """
AgentFlowError ApprovalDecision ApprovalPause ApprovalRequest ApprovalRequiredError ApprovalResumeError
ChildWorkflowExecutionError END HookExecutionError RouteDecision RouteResolutionError RunContext RetryPolicy
StateValidationError StepFinishedEvent StepStartedEvent StepExecutionError StepResult WorkflowEvent
WorkflowFinishedEvent WorkflowGraph WorkflowGraphEdge WorkflowGraphNode WorkflowHook WorkflowStartedEvent
WorkflowDefinitionError WorkflowExecutionError WorkflowResult __version__ export_workflow_graph step workflow
"""
SUBMODULES = {
    "models": ["StepStatus", "WorkflowStatus", "StepDefinition", "WorkflowDefinition", "END", "RunContext"],
    "exceptions": [name for name in NAMES.split() if name.endswith("Error")],
    "decorators": ["step", "workflow"],
    "validation": [
        "validate_workflow_definition",
        "validate_step_definition",
        "validate_step_method_signature",
        "validate_initial_state",
    ],
    "retry": ["resolve_retry_policy", "should_retry", "sleep_for_retry", "RetryPolicy", "time"],
    "routing": ["resolve_route_decision", "workflow_uses_routes", "build_skipped_result", "finalize_step_results"],
    "approvals": ["build_approval_request", "normalize_approval_decision", "request_step_approval"],
    "hooks": ["WorkflowStartedEvent", "StepStartedEvent", "StepFinishedEvent", "WorkflowFinishedEvent", "emit_hooks"],
    "graph": ["WorkflowGraph", "WorkflowGraphNode", "WorkflowGraphEdge", "export_workflow_graph"],
    "executor": ["WorkflowExecutor"],
}


def test_the_public_names_are_those_of_stepflow_agent() -> None:
    assert len(agentflow.__all__) == 32
    assert set(agentflow.__all__) == set(NAMES.split()) <= set(dir(agentflow))
    namespace: dict[str, object] = {}
    exec("from pyflue.agentflow import *", namespace)
    assert set(agentflow.__all__) <= namespace.keys()
    assert agentflow.__version__ == "0.1.0"
    with pytest.raises(ImportError, match="no_such_name"):
        exec("from pyflue.agentflow import no_such_name")


@pytest.mark.parametrize("module", SUBMODULES)
def test_the_modules_that_its_users_import_are_there(module: str) -> None:
    found = importlib.import_module(f"pyflue.agentflow.{module}")
    assert [name for name in SUBMODULES[module] if not hasattr(found, name)] == []


def test_a_library_call_imports_neither_an_event_loop_nor_the_rest_of_pyflue() -> None:
    script = """
import sys
from pyflue.agentflow import step, workflow, export_workflow_graph, RunContext

@workflow
class Flow:
    @step(retries=1, retry_on=(ValueError,), requires_approval=True)
    def only(self, context):
        if context.attempt == 1:
            raise ValueError
        return "done"

seen = []
result = Flow().run({}, approval_handler=lambda request: True, hooks=[seen.append])
assert result.steps[0].output == "done" and len(seen) == 4
export_workflow_graph(Flow).to_mermaid()
print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert loaded.isdisjoint({"asyncio", "apsw", "msgspec", "pydantic", "structlog", "concurrent.futures"})
    ours = {name for name in loaded if name.startswith("pyflue") and not name.startswith("pyflue.agentflow")}
    assert ours == {"pyflue"}


def test_importing_the_names_imports_no_module_behind_them() -> None:
    script = "import sys, pyflue.agentflow; print(*(name for name in sys.modules if 'agentflow' in name))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["pyflue.agentflow"]


def test_end_is_one_object_also_after_copying_and_pickling() -> None:
    end = agentflow.END
    assert repr(end) == "END"
    assert copy.copy(end) is copy.deepcopy(end) is pickle.loads(pickle.dumps(end)) is end


def test_all_errors_are_direct_children_of_the_base() -> None:
    kinds = [getattr(agentflow, name) for name in agentflow.__all__ if name.endswith("Error")]
    assert {kind.__bases__ for kind in kinds if kind is not agentflow.AgentFlowError} == {(agentflow.AgentFlowError,)}
    assert agentflow.AgentFlowError.__bases__ == (Exception,)
