"""A workflow that runs another one in a step, and looks at its result.

python examples/agentflow/workflow_composition.py
"""

from __future__ import annotations

from dataclasses import dataclass

from pyflue.agentflow import RunContext, step, workflow


@dataclass
class CheckState:
    address: str


@dataclass
class OrderState:
    address: str
    outcome: str = ""


@workflow
class CheckWorkflow:
    """Look whether parcels can be sent to an address."""

    state: CheckState

    @step
    def parse(self) -> int:
        return len(self.state.address.split())

    @step
    def locate(self) -> str:
        if not self.state.address:
            raise ValueError("the address is empty")
        return "located"


@workflow
class OrderWorkflow:
    """Take an order, if its address is one."""

    state: OrderState

    @step
    def check(self, context: RunContext) -> str:
        child = context.run_child(CheckWorkflow(), CheckState(self.state.address), fail_parent_on_failure=False)
        return child.status.value

    @step
    def decide(self, context: RunContext) -> str:
        self.state.outcome = "accepted" if self.state.address else "refused"
        return self.state.outcome


# Of several classes in a file this one is the workflow.
workflow = OrderWorkflow


def main() -> None:
    for address in ("1 Main Street", ""):
        result = OrderWorkflow().run(OrderState(address))
        print(f"{result.state.outcome} ({result.status.value})")
        for child in result.steps[0].child_workflows:
            steps = ", ".join(f"{done.step_name} {done.status.value}" for done in child.steps)
            print(f"  {child.workflow_name} {child.status.value}: {steps}")


if __name__ == "__main__":
    main()
