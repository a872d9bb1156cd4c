"""Logs as many lines as the payload's `count` says: the cost of one event, and what a long run keeps in memory."""

from __future__ import annotations

from typing import Any

from pyflue import FlueContext


async def run(ctx: FlueContext[dict[str, int]]) -> dict[str, Any]:
    count = ctx.payload["count"]
    for row in range(count):
        await ctx.log.info("row checked", row=row, verdict="fine")
    return {"count": count}
