"""Summarize a text: one prompt, one answer.

    ANTHROPIC_API_KEY=… pyflue run summarize --payload '{"text": "…", "audience": "children"}'

Without a key: `PYFLUE_MODEL=scripted/examples/answers/summarize.json pyflue run summarize …` gives a prepared answer.
"""

from __future__ import annotations

from pydantic import BaseModel, Field

from pyflue import FlueContext, create_agent

writer = create_agent(
    lambda: {
        "model": "anthropic/claude-haiku-4-5",
        "instructions": "You summarize texts in three sentences at most. You answer with the summary and nothing else.",
        # It has all it needs in the prompt, so it gets neither files nor a shell.
        "builtin_tools": False,
        "budget": {"max_turns": 3},
    }
)


class Source(BaseModel):
    """What to summarize, and for whom."""

    text: str = Field(min_length=1)
    audience: str = "general"


class Summary(BaseModel):
    """The text in short."""

    summary: str


async def run(ctx: FlueContext[Source]) -> Summary:
    """Summarize a text for an audience."""
    source = ctx.payload
    ctx.log.info("summarizing", audience=source.audience, characters=len(source.text))
    harness = await ctx.init(writer)
    session = await harness.session()
    reply = await session.prompt(f"Summarize this text. Audience: {source.audience}.\n\n{source.text}")
    return Summary(summary=reply.text)
