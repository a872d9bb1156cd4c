"""Takes as many steps as the payload's `count` says, then waits for a signal: by then all of them are recorded."""

from __future__ import annotations

from typing import Any

from pyflue import FlueContext


async def check(row: int) -> dict[str, Any]:
    return {"row": row, "verdict": "fine"}


async def run(ctx: FlueContext[dict[str, int]]) -> int:
    checked = [await ctx.step("check", check, row) for row in range(ctx.payload["count"])]
    await ctx.wait_for("go")
    return len(checked)
