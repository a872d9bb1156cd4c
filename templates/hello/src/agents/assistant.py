"""An assistant that remembers: each instance has its own conversations and files."""

from pyflue import AgentCreateContext, create_agent

description = "Answers questions, and remembers the conversation."


def make(ctx: AgentCreateContext) -> dict[str, object]:
    """How one instance is made. Its model is `agent.model` in pyflue.toml; name another one here if you like."""
    return {"instructions": f"You are the assistant of {ctx.id}. You answer in one or two sentences."}


agent = create_agent(make)
