"""A run that pauses for an approval, is kept in a file, and goes on when somebody has decided.

In a project none of this is needed: there the run itself is kept, and `pyflue approvals` decides.

python examples/agentflow/persistent_approval_workflow.py
"""

from __future__ import annotations

import pickle
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pyflue.agentflow import ApprovalDecision, step, workflow


@dataclass
class PaymentState:
    amount: float
    reserved: bool = False
    paid: bool = False


@workflow
class PersistentApprovalWorkflow:
    """Reserve a payment, and make it once it is approved."""

    state: PaymentState

    @step
    def reserve(self) -> str:
        self.state.reserved = True
        return "reserved"

    @step(requires_approval=True, approval_message="Pay?")
    def pay(self) -> str:
        self.state.paid = True
        return "paid"


def main() -> None:
    paused = PersistentApprovalWorkflow().run(PaymentState(amount=250), pause_on_approval=True)
    print(f"{paused.status.value} at {paused.pause.step_name}: {paused.pause.request.message}")
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "checkpoint"
        checkpoint.write_bytes(pickle.dumps(paused))
        # Later, in another process. Load only checkpoints that you have written yourself.
        kept = pickle.loads(checkpoint.read_bytes())  # noqa: S301
    result = PersistentApprovalWorkflow().resume(kept, ApprovalDecision(approved=True, reason="checked by Ada"))
    print(f"{result.status.value}: {[done.output for done in result.steps]}")
    print(f"the same run: {result.run_id == paused.run_id}, paid: {result.state.paid}")


if __name__ == "__main__":
    main()
