"""Components for the process that runs the flow: a plain `StepflowServer`, which nobody has to start."""

from __future__ import annotations

import msgspec

from pyflue.stepflow import StepflowServer

server = StepflowServer(include_builtins=False)


class Order(msgspec.Struct):
    item: str
    count: int = 1


@server.component
def price(order: Order) -> dict[str, int]:
    """The price of an order in cents."""
    return {"cents": {"lamp": 2490, "desk": 19900}[order.item] * order.count}
