"""Fulfil an order: set the goods aside, have large orders approved, charge the card, ship the parcel.

Whatever it does to the world is a step, and every step gives the shop its `ctx.step_id` as a key. So the process may be
killed at any point: the run goes on, nobody is charged twice, and no goods get lost. While it waits for a person it
costs nothing.

    {"customer": "Ada", "lines": [{"item": "desk", "count": 4}]}

Cards to try: `tok_good`, `tok_busy` (the bank does not answer at first), `tok_declined`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from pyflue import FlueContext, RetryPolicy
from pyflue.errors import WaitTimedOut
from workflows._lib.shop import CardDeclined, Charge, Line, Reservation, Shop

#: Orders from here on are looked at by a person.
LARGE_CENTS = 90_000
_DAY_S = 24 * 3600.0
_BANK = RetryPolicy(max_attempts=5, delay_s=0.2, max_delay_s=30, give_up_on=(CardDeclined,))


class Order(BaseModel):
    """What somebody wants to have."""

    customer: str = Field(min_length=1)
    card: str = "tok_good"
    lines: list[Line] = Field(min_length=1)
    packing_s: float = Field(default=1, ge=0, le=_DAY_S, description="How long it takes to pack the parcel.")


class Terms(BaseModel):
    """What a person agrees to. They may change the price."""

    total_cents: int = Field(ge=0)


class Fulfilment(BaseModel):
    """What became of an order."""

    status: Literal["shipped", "rejected", "declined"]
    total_cents: int
    charge_id: str | None = None
    tracking: str | None = None
    reason: str | None = None


async def run(ctx: FlueContext[Order]) -> Fulfilment:
    """Fulfil an order, from the stock to the parcel."""
    order, shop = ctx.payload, Shop.of(ctx.env)

    def reserve() -> Reservation:
        return shop.reserve(ctx.step_id, order.lines)

    reserved = await ctx.step("reserve stock", reserve)
    total_cents = reserved.total_cents

    async def give_up(status: Literal["rejected", "declined"], reason: str) -> Fulfilment:
        await ctx.step("release stock", lambda: shop.release(ctx.step_id, reserved))
        return Fulfilment(status=status, total_cents=total_cents, reason=reason)

    if total_cents >= LARGE_CENTS:
        asked = {"customer": order.customer, "total_cents": total_cents}
        try:
            decision = await ctx.approve("large order", asked, schema=Terms, timeout_s=3 * _DAY_S)
        except WaitTimedOut:
            return await give_up("rejected", "Nobody approved it in time.")
        if not decision.approved:
            return await give_up("rejected", decision.reason or f"Rejected by {decision.by}.")
        total_cents = decision.data.total_cents

    def charge() -> Charge:
        return shop.charge(ctx.step_id, order.card, total_cents)

    try:
        charged = await ctx.step("charge", charge, retry=_BANK, timeout_s=20)
    except CardDeclined as error:
        return await give_up("declined", str(error))

    parcel = await ctx.call("ship_parcel", {"customer": order.customer, "packing_s": order.packing_s})
    return Fulfilment(
        status="shipped", total_cents=total_cents, charge_id=charged.charge_id, tracking=parcel["tracking"]
    )
