"""Calls a child as often as the payload's `count` says, one after the other."""

from __future__ import annotations

from typing import Any

from pyflue import FlueContext


async def run(ctx: FlueContext[dict[str, int]]) -> list[Any]:
    return [await ctx.call("echo", {"number": number}) for number in range(ctx.payload["count"])]
