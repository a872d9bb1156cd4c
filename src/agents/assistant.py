"""An assistant that goes on between calls: each instance has its own conversations and its own files.

    ANTHROPIC_API_KEY=… pyflue prompt --agent assistant --id ada "Note that the lamps arrive on Monday."

Without a key: `PYFLUE_MODEL=scripted/hello` in front of it answers with a fixed greeting.
"""

from __future__ import annotations

from pyflue import AgentCreateContext, create_agent

description = "Keeps notes for one person and answers questions about them."


def make(ctx: AgentCreateContext) -> dict[str, object]:
    """How one instance is made; `ctx.id` is whose assistant it is."""
    return {
        "model": "anthropic/claude-haiku-4-5",
        "instructions": f"You assist {ctx.id}. You keep notes in notes.md, and read them before you answer.",
        "budget": {"max_turns": 20},
    }


agent = create_agent(make)
