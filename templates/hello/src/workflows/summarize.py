"""A workflow with an agent: one prompt, one answer."""

from pydantic import BaseModel, Field

from pyflue import FlueContext, create_agent

# Its model is `agent.model` in pyflue.toml; name another one here if you like.
writer = create_agent(lambda: {"instructions": "You summarize texts in two sentences.", "builtin_tools": False})


class Source(BaseModel):
    """What to summarize."""

    text: str = Field(min_length=1)


async def run(ctx: FlueContext[Source]) -> dict[str, str]:
    """Summarize a text."""
    harness = await ctx.init(writer)
    session = await harness.session()
    reply = await session.prompt(f"Summarize this text:\n\n{ctx.payload.text}")
    return {"summary": reply.text, "model": reply.model}
