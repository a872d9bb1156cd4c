"""A moderation service that does not answer at first: the step is tried again, and the result says how often.

python examples/agentflow/content_review.py
"""

from __future__ import annotations

from dataclasses import dataclass

from pyflue.agentflow import step, workflow


@dataclass
class ReviewState:
    text: str
    #: How many times the service does not answer. It stands for a service that is slow today.
    failures: int = 2
    asked: int = 0
    is_allowed: bool = False
    decision: str = ""


@workflow
class ContentReviewWorkflow:
    """Review a text, with a service that may have to be asked more than once."""

    state: ReviewState

    @step
    def clean(self) -> str:
        self.state.text = " ".join(self.state.text.split())
        return self.state.text

    @step(retries=3, retry_on=(TimeoutError,), retry_delay=0.01, retry_backoff=2.0)
    def moderate(self) -> bool:
        self.state.asked += 1
        if self.state.asked <= self.state.failures:
            raise TimeoutError("the moderation service does not answer")
        self.state.is_allowed = "spam" not in self.state.text.lower()
        return self.state.is_allowed

    @step
    def decide(self) -> str:
        self.state.decision = "published" if self.state.is_allowed else "held back"
        return self.state.decision


def main() -> None:
    result = ContentReviewWorkflow().run(ReviewState(text="  A fine   day. "))
    for done in result.steps:
        print(f"{done.step_name}: {done.output} (attempts: {done.attempts})")
    print(result.state.decision)


if __name__ == "__main__":
    main()
