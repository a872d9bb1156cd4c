"""The nine examples: each runs as a program, and the same file is a workflow of a project."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pyflue.journal import Journal
from tests.engine.durable import asked, ended, error_of, result_of

from .projects import Project, start

EXAMPLES = Path(__file__).parent.parent.parent / "examples" / "agentflow"

#: What each prints, as far as it matters; `None` stands for what follows.
PRINTED = {
    "refund_workflow": """
succeeded
check_order: Order ord_123 looked up.
verify_policy: Policy checked.
generate_response: Refund approved for ord_123.
RefundState(order_id='ord_123', amount=42.5, order_found=True, policy_ok=True, """
    """response_text='Refund approved for ord_123.')
""",
    "support_triage": """
read_subject succeeded ['login', 'down']
set_priority succeeded high
assign_queue succeeded support_triage/assign_queue attempt 1: on-call
on-call
""",
    "content_review": """
clean: A fine day. (attempts: 1)
moderate: True (attempts: 3)
decide: published (attempts: 1)
published
""",
    "branching_refund_workflow": """
small -> pay: paid
  decide succeeded
  pay succeeded
  escalate skipped (not reached because workflow ended)
large -> escalate: escalated
  decide succeeded
  pay skipped (not reached because workflow ended)
  escalate succeeded
missing -> END: no order
  decide succeeded
  pay skipped (not reached because workflow ended)
  escalate skipped (not reached because workflow ended)
""",
    "approval_refund_workflow": """
80: succeeded, ApprovalDecision(approved=True, reason=None, metadata={'by': 'finance'})
  issued
800: failed, ApprovalDecision(approved=False, reason='above the limit', metadata={'by': 'finance'})
  Approval denied for step 'issue'.
""",
    "persistent_approval_workflow": """
paused at pay: Pay?
succeeded: ['reserved', 'paid']
the same run: True, paid: True
""",
    "workflow_hooks": """
workflow HookedWorkflow begins
step count begins
step count succeeded: 3
step write begins
step write succeeded: 3 rows
workflow HookedWorkflow succeeded
2 steps, 3 rows
""",
    "workflow_composition": """
accepted (succeeded)
  CheckWorkflow succeeded: parse succeeded, locate succeeded
refused (succeeded)
  CheckWorkflow failed: parse succeeded, locate failed
""",
    "graph_export": """
ClaimWorkflow: 4 nodes, 4 edges
flowchart TD
    step_0["assess"]
    step_1["inspect\\napproval"]
    step_2["settle"]
    end_0((END))
    step_0 -->|reject| end_0
    step_0 -->|small| step_2
    step_0 -->|large| step_1
    step_1 --> step_2
""",
}

#: What each is given as a workflow of a project, and what its steps return then.
RUNS: dict[str, tuple[dict[str, Any], list[Any]]] = {
    "refund_workflow": (
        {"order_id": "ord_1", "amount": 500},
        ["Order ord_1 looked up.", "Policy checked.", "Refund denied for ord_1."],
    ),
    "support_triage": (
        {"subject": "My billing", "customer": "Bob"},
        [["billing"], "normal", "support_triage/assign_queue attempt 1: first-line"],
    ),
    "content_review": ({"text": "  spam "}, ["spam", False, "held back"]),
    "branching_refund_workflow": ({"amount": 500}, ["large", None, "a person looks at it"]),
    "approval_refund_workflow": ({"amount": 500}, ["Refund of 500.00 prepared.", "issued"]),
    "persistent_approval_workflow": ({"amount": 500}, ["reserved", "paid"]),
    "workflow_hooks": ({"rows": 2}, [2, "2 rows"]),
    "workflow_composition": ({"address": ""}, ["failed", "refused"]),
    "graph_export": ({"amount": 5000}, ["large", "inspected", "settled"]),
}


def test_every_example_is_here() -> None:
    names = {path.stem for path in EXAMPLES.glob("*.py")}
    assert names == PRINTED.keys() == RUNS.keys()


@pytest.mark.parametrize("name", PRINTED)
def test_an_example_prints_what_it_says(name: str, tmp_path: Path) -> None:
    script = EXAMPLES / f"{name}.py"
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == PRINTED[name].removeprefix("\n")
    assert done.stderr == ""


@pytest.mark.parametrize("name", RUNS)
async def test_an_example_is_a_workflow_in_a_project(name: str, project: Project, journal: Journal) -> None:
    folder = project.root / "workflows"
    folder.mkdir()
    shutil.copy(EXAMPLES / f"{name}.py", folder)
    payload, outputs = RUNS[name]
    workflow = project.find(name)
    assert (workflow.kind, workflow.input_schema["type"]) == ("agentflow", "object")
    assert workflow.description
    async with project.engine(journal) as engine:
        run_id = await start(engine, workflow, payload)
        if any(node.kind == "approval" for node in workflow.graph().nodes):  # type: ignore[union-attr]
            await engine.decide((await asked(journal, run_id)).wait.wait_id, approved=True, by="Ada")
        result = result_of(await ended(engine, run_id))
    assert [done["output"] for done in result["steps"]] == outputs


async def test_a_denied_example_fails_its_run(project: Project, journal: Journal) -> None:
    folder = project.root / "workflows"
    folder.mkdir()
    shutil.copy(EXAMPLES / "approval_refund_workflow.py", folder)
    async with project.engine(journal) as engine:
        run_id = await start(engine, project.find("approval_refund_workflow"), {"amount": 500})
        await engine.decide((await asked(journal, run_id)).wait.wait_id, approved=False, by="Ada")
        assert error_of(await ended(engine, run_id))["message"] == "Approval denied for step 'issue'."
