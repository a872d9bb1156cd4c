"""What a parcel weighs."""

from __future__ import annotations

from pyflue import FlueContext

GRAMS = {"lamp": 900, "desk": 24_000}


async def run(ctx: FlueContext[list[str]]) -> int:
    """Add up the weights of some things."""
    return sum([await ctx.step("look up", GRAMS.__getitem__, item) for item in ctx.payload])
