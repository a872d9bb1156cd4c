"""Three steps that do next to nothing, each with the result of the one before: what is left is what a step costs."""

from __future__ import annotations

from pyflue import FlueContext


async def add_one(number: int) -> int:
    return number + 1


async def run(ctx: FlueContext[int]) -> int:
    first = await ctx.step("first", add_one, ctx.payload)
    second = await ctx.step("second", add_one, first)
    return await ctx.step("third", add_one, second)
