"""The simplest path: steps in order, which change a shared state.

python examples/agentflow/refund_workflow.py
"""

from __future__ import annotations

from dataclasses import dataclass

from pyflue.agentflow import step, workflow


@dataclass
class RefundState:
    order_id: str
    amount: float
    order_found: bool = False
    policy_ok: bool = False
    response_text: str = ""


@workflow
class RefundWorkflow:
    """Check an order against the refund policy, and answer."""

    state: RefundState

    @step
    def check_order(self) -> str:
        self.state.order_found = self.state.order_id.startswith("ord_")
        return f"Order {self.state.order_id} looked up."

    @step
    def verify_policy(self) -> str:
        self.state.policy_ok = self.state.order_found and self.state.amount <= 100
        return "Policy checked."

    @step
    def generate_response(self) -> str:
        verdict = "approved" if self.state.policy_ok else "denied"
        self.state.response_text = f"Refund {verdict} for {self.state.order_id}."
        return self.state.response_text


def main() -> None:
    result = RefundWorkflow().run(RefundState(order_id="ord_123", amount=42.5))
    print(result.status.value)
    for done in result.steps:
        print(f"{done.step_name}: {done.output}")
    print(result.state)


if __name__ == "__main__":
    main()
