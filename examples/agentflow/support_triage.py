"""A typed ticket, a step that asks where it is, and a queue that follows from what earlier steps found.

python examples/agentflow/support_triage.py
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pyflue.agentflow import RunContext, step, workflow

URGENT = ("down", "outage", "data loss")


@dataclass
class TicketState:
    subject: str
    customer: str
    tags: list[str] = field(default_factory=list)
    priority: str = "normal"
    queue: str = ""


@workflow(name="support_triage")
class SupportTriageWorkflow:
    """Sort a support ticket into the queue that should answer it."""

    state: TicketState

    @step
    def read_subject(self) -> list[str]:
        words = self.state.subject.lower()
        self.state.tags = [tag for tag in ("billing", "login", *URGENT) if tag in words]
        return self.state.tags

    @step
    def set_priority(self) -> str:
        self.state.priority = "high" if any(tag in URGENT for tag in self.state.tags) else "normal"
        return self.state.priority

    @step(name="assign_queue")
    def assign(self, context: RunContext) -> str:
        self.state.queue = "on-call" if self.state.priority == "high" else "first-line"
        return f"{context.workflow_name}/{context.step_name} attempt {context.attempt}: {self.state.queue}"


def main() -> None:
    result = SupportTriageWorkflow().run(TicketState(subject="Login page is down", customer="Ada"))
    for done in result.steps:
        print(f"{done.step_name} {done.status.value} {done.output}")
    print(result.state.queue)


if __name__ == "__main__":
    main()
