"""Ship a parcel: print its label, give it time to be packed, hand it to the courier.

`fulfil_order` runs this as a child. It works by itself as well: `{"customer": "Ada"}`.
"""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, Field

from pyflue import FlueContext
from workflows._lib.shop import Label, Shop


class Parcel(BaseModel):
    """Whom it goes to."""

    customer: str = Field(min_length=1)
    packing_s: float = Field(default=1, ge=0)


class Shipped(BaseModel):
    """A parcel that is on its way."""

    tracking: str
    shipped_at: datetime


async def run(ctx: FlueContext[Parcel]) -> Shipped:
    """Ship a parcel."""
    parcel, shop = ctx.payload, Shop.of(ctx.env)

    def print_label() -> Label:
        return shop.print_label(ctx.step_id, parcel.customer)

    label = await ctx.step("print label", print_label)
    await ctx.sleep(parcel.packing_s, name="packing")
    await ctx.step("hand over", lambda: shop.hand_over(ctx.step_id, label))
    return Shipped(tracking=label.tracking, shipped_at=ctx.now())
