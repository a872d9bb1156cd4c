"""Components with models of pydantic."""

# ruff: noqa: A002  (components call their input so)
from __future__ import annotations

import msgspec
from pydantic import BaseModel, Field

from pyflue.stepflow import StepflowServer

server = StepflowServer(include_builtins=False)


class Item(BaseModel):
    name: str
    price: float = Field(gt=0, alias="unitPrice")


class Order(BaseModel):
    items: list[Item]


class Wrapped(msgspec.Struct):
    item: Item


@server.component
def total(input: Order) -> Item:
    return Item(name="total", unitPrice=sum(item.price for item in input.items))


@server.component
async def names(input: list[Item]) -> list[str]:
    return [item.name for item in input]


@server.component
def unwrap(input: Wrapped) -> Wrapped:
    return input


server.start_stdio()
