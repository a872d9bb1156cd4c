"""Review a document: the workflow puts it into the agent's files, the agent reads it there and writes its findings.

    ANTHROPIC_API_KEY=… pyflue run review_document --payload @examples/data/review.json

Without a key: `PYFLUE_MODEL=scripted/examples/answers/review_document.json` in front of it gives prepared answers. The
tool calls among them are done all the same.
"""

from __future__ import annotations

from pydantic import BaseModel, Field

from pyflue import FlueContext, PyFlueError, create_agent

reviewer = create_agent(
    lambda: {
        "model": "anthropic/claude-sonnet-4-6",
        "instructions": "You review documents. You name what is unclear, contradictory or missing, with line numbers.",
        "cwd": "/workspace",
        "budget": {"max_turns": 20},
    }
)


class Draft(BaseModel):
    """What to review."""

    document: str = Field(min_length=1)


class Review(BaseModel):
    """The findings, and the number of lines that they are about."""

    review: str
    lines: int


async def run(ctx: FlueContext[Draft]) -> Review:
    """Review a document."""
    harness = await ctx.init(reviewer)
    await harness.fs.write_file("document.md", ctx.payload.document)
    # The workflow's own command: no conversation hears of it.
    counted = await harness.shell(["wc", "-l", "document.md"])

    session = await harness.session()
    reply = await session.prompt("Review document.md and write your findings to review.md.")
    if not await harness.fs.exists("review.md"):
        raise PyFlueError("The agent wrote no review.", type="no_review", details={"answer": reply.text})
    return Review(review=await harness.fs.read_file("review.md"), lines=int(counted.stdout.split()[0]))
