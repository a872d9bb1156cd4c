"""A step that decides where the run goes on: routes, `END`, the trace of decisions, and skipped steps.

python examples/agentflow/branching_refund_workflow.py
"""

from __future__ import annotations

from dataclasses import dataclass

from pyflue.agentflow import END, step, workflow


@dataclass
class BranchState:
    amount: float
    order_found: bool = True
    outcome: str = ""


@workflow
class BranchingRefundWorkflow:
    """Pay small refunds, escalate large ones, and stop where there is no order."""

    state: BranchState

    @step(routes={"missing": END, "small": "pay", "large": "escalate"})
    def decide(self) -> str:
        if not self.state.order_found:
            self.state.outcome = "no order"
            return "missing"
        return "small" if self.state.amount <= 100 else "large"

    @step(routes={"paid": END})
    def pay(self) -> str:
        self.state.outcome = "paid"
        return "paid"

    @step
    def escalate(self) -> str:
        self.state.outcome = "escalated"
        return "a person looks at it"


def main() -> None:
    for state in (BranchState(20), BranchState(500), BranchState(20, order_found=False)):
        result = BranchingRefundWorkflow().run(state)
        [decision] = result.route_trace[:1]
        print(f"{decision.route_key} -> {decision.next_step or 'END'}: {result.state.outcome}")
        for done in result.steps:
            print(f"  {done.step_name} {done.status.value}{f' ({why})' if (why := done.skipped_reason) else ''}")


if __name__ == "__main__":
    main()
