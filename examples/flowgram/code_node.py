"""Python inside of a graph. Needs the extra: pip install 'pyflue[code]'."""

from __future__ import annotations

import asyncio

import pyflue.flowgram as fg

SCRIPT = """
RATE = 1.19

def gross(net):
    return round(net * RATE, 2)

def main(p):
    total = 0
    for price in p["params"]["prices"]:
        total += gross(price)
    return {"total": total}
"""
PRICES = {"type": "array", "items": {"type": "number"}}
SCHEMA = {
    "nodes": [
        {
            "id": "start_0",
            "type": "start",
            "data": {"outputs": {"type": "object", "properties": {"prices": PRICES}}},
        },
        {
            "id": "sum",
            "type": "code",
            "data": {
                "inputs": {"type": "object", "properties": {"prices": PRICES}},
                "inputsValues": {"prices": {"type": "ref", "content": ["start_0", "prices"]}},
                "script": {"language": "python", "content": SCRIPT},
                "outputs": {"type": "object", "properties": {"total": {"type": "number"}}},
            },
        },
        {
            "id": "end_0",
            "type": "end",
            "data": {
                "inputs": {"type": "object", "properties": {"total": {"type": "number"}}},
                "inputsValues": {"total": {"type": "ref", "content": ["sum", "total"]}},
            },
        },
    ],
    "edges": [
        {"sourceNodeID": "start_0", "targetNodeID": "sum"},
        {"sourceNodeID": "sum", "targetNodeID": "end_0"},
    ],
}


async def main() -> None:
    print(await fg.run(SCHEMA, inputs={"prices": [10, 20]}))


if __name__ == "__main__":
    asyncio.run(main())
