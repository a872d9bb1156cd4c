"""Three steps that do next to nothing, each with the result of the one before: what is left is what a step costs.

Without types, as `echo` is: what pydantic costs is not measured here.
"""

from __future__ import annotations

from typing import Any

from pyflue import FlueContext


async def add_one(number: int) -> int:
    return number + 1


async def run(ctx: FlueContext[Any]) -> Any:
    first = await ctx.step("first", add_one, ctx.payload)
    second = await ctx.step("second", add_one, first)
    return await ctx.step("third", add_one, second)
