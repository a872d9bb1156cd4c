"""Components that fail, each in its own way."""

from __future__ import annotations

from pyflue.stepflow import SkipStep, StepflowContext, StepflowStdioServer

server = StepflowStdioServer()


@server.component
def unsteady(given: dict, context: StepflowContext) -> dict:
    """Works at the third attempt."""
    if context.attempt < 3:
        raise ConnectionError(f"attempt {context.attempt}: nobody answers")
    return {"attempts": context.attempt}


@server.component
def broken(given: dict) -> dict:
    """Never works."""
    raise ValueError("this is never going to work")


@server.component
def idle(given: dict) -> dict:
    """Finds nothing to do."""
    raise SkipStep("nothing to do")


if __name__ == "__main__":
    server.run()
