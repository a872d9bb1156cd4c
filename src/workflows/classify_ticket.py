"""Classify a support ticket: an answer that is data, checked against a type.

    ANTHROPIC_API_KEY=… pyflue run classify_ticket --payload '{"ticket": "Nobody can log in since noon."}'

Without a key: `PYFLUE_MODEL=scripted/examples/answers/classify_ticket.json` in front of it gives a prepared answer.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from pyflue import FlueContext, create_agent

triage = create_agent(
    lambda: {
        "model": "anthropic/claude-sonnet-4-6",
        "instructions": "You sort support tickets. Urgent is only what keeps many customers from working.",
        "builtin_tools": False,
        "budget": {"max_turns": 5, "max_tokens": 50_000},
    }
)


class Ticket(BaseModel):
    """What a customer wrote."""

    ticket: str = Field(min_length=1)


class Classification(BaseModel):
    """What the agent has to answer with. The model sees the descriptions."""

    priority: Literal["low", "normal", "high", "urgent"]
    summary: str = Field(max_length=200, description="One sentence, without names of people.")


async def run(ctx: FlueContext[Ticket]) -> Classification:
    """Give a ticket a priority and a summary."""
    harness = await ctx.init(triage)
    session = await harness.session()
    reply = await session.prompt(ctx.payload.ticket, result=Classification)
    ctx.log.info("classified", priority=reply.data.priority, cost_usd=reply.usage.cost_usd)
    return reply.data
