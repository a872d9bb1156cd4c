"""Hooks that are told what happens: a log of a run, written by a plain function.

python examples/agentflow/workflow_hooks.py
"""

from __future__ import annotations

from dataclasses import dataclass

from pyflue.agentflow import StepFinishedEvent, StepStartedEvent, WorkflowEvent, WorkflowFinishedEvent, step, workflow


@dataclass
class ReportState:
    rows: int
    text: str = ""


@workflow
class HookedWorkflow:
    """Count rows, and write a report."""

    state: ReportState

    @step
    def count(self) -> int:
        return self.state.rows

    @step
    def write(self) -> str:
        self.state.text = f"{self.state.rows} rows"
        return self.state.text


def log(event: WorkflowEvent) -> None:
    """Write a line for each event."""
    match event:
        case StepStartedEvent():
            print(f"step {event.step_name} begins")
        case StepFinishedEvent():
            print(f"step {event.step_name} {event.result.status.value}: {event.result.output}")
        case WorkflowFinishedEvent():
            print(f"workflow {event.workflow_name} {event.result.status.value}")
        case _:
            print(f"workflow {event.workflow_name} begins")


def main() -> None:
    result = HookedWorkflow().run(ReportState(rows=3), hooks=[log])
    print(f"{len(result.steps)} steps, {result.state.text}")


if __name__ == "__main__":
    main()
