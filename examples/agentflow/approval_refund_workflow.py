"""A step that somebody has to approve: what the handler is asked, and what it decides.

python examples/agentflow/approval_refund_workflow.py
"""

from __future__ import annotations

from dataclasses import dataclass

from pyflue.agentflow import ApprovalDecision, ApprovalRequest, step, workflow


@dataclass
class ApprovalState:
    amount: float
    issued: bool = False


@workflow
class ApprovalRefundWorkflow:
    """Issue a refund once it is approved."""

    state: ApprovalState

    @step
    def prepare(self) -> str:
        return f"Refund of {self.state.amount:.2f} prepared."

    @step(
        requires_approval=True,
        approval_message="May this refund be issued?",
        approval_metadata={"team": "finance"},
    )
    def issue(self) -> str:
        self.state.issued = True
        return "issued"


def up_to_100(request: ApprovalRequest) -> ApprovalDecision:
    """What a person, or a policy, would decide."""
    team = request.metadata["team"]
    if request.state.amount <= 100:
        return ApprovalDecision(approved=True, metadata={"by": team})
    return ApprovalDecision(approved=False, reason="above the limit", metadata={"by": team})


def main() -> None:
    for amount in (80, 800):
        result = ApprovalRefundWorkflow().run(ApprovalState(amount), approval_handler=up_to_100)
        issue = result.steps[-1]
        print(f"{amount}: {result.status.value}, {issue.approval_decision}")
        print(f"  {issue.output or issue.error}")


if __name__ == "__main__":
    main()
