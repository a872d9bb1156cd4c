"""Refund an order: small amounts at once, large ones when somebody has approved them."""

from __future__ import annotations

from dataclasses import dataclass

from pyflue.agentflow import END, step, workflow


@dataclass
class RefundState:
    """What is known of the refund; the payload is where it begins."""

    order_id: str
    amount: float
    order_found: bool = False
    refunded: float = 0.0
    response_text: str = ""


@workflow
class RefundWorkflow:
    """Refund an order: small amounts at once, large ones when somebody has approved them."""

    state: RefundState

    @step(retries=2, retry_on=(ConnectionError,), retry_delay=0.1, retry_backoff=2.0)
    def check_order(self) -> str:
        self.state.order_found = self.state.order_id.startswith("ord_")
        return f"Order {self.state.order_id} {'located' if self.state.order_found else 'not found'}."

    @step(routes={"refuse": "refuse", "approve": "approve", "pay": "pay"})
    def decide(self) -> str:
        if not self.state.order_found:
            return "refuse"
        return "pay" if self.state.amount <= 100 else "approve"

    @step(requires_approval=True, approval_message="A refund above the limit")
    def approve(self) -> str:
        return "approved"

    @step(routes={"paid": END})
    def pay(self) -> str:
        self.state.refunded = self.state.amount
        self.state.response_text = f"{self.state.amount:.2f} refunded for {self.state.order_id}."
        return "paid"

    @step
    def refuse(self) -> str:
        self.state.response_text = f"There is no order {self.state.order_id}."
        return "refused"
