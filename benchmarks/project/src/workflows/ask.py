"""Waits until somebody decides about it: what a run costs that only waits."""

from __future__ import annotations

from typing import Any

from pyflue import FlueContext


async def run(ctx: FlueContext[Any]) -> bool:
    decision = await ctx.approve("ship", {"order": ctx.payload})
    return decision.approved
