"""Returns its payload: what is left is the cost of the run itself."""

from __future__ import annotations

from typing import Any

from pyflue import FlueContext


async def run(ctx: FlueContext[Any]) -> Any:
    return ctx.payload
