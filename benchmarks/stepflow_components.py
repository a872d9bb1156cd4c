"""The Python components of `stepflow_flows.py` on PyFlue: behind pipes as a script, in process as a module."""

from __future__ import annotations

import asyncio
from typing import Any

from pyflue.stepflow import StepflowServer

server = StepflowServer()


@server.component
def add_one(input: dict[str, Any]) -> dict[str, Any]:  # noqa: A002  (the word of the SDK)
    return {"n": input["n"] + 1}


@server.component(blocking=False)
def add_one_at_once(input: dict[str, Any]) -> dict[str, Any]:  # noqa: A002  (as above)
    return {"n": input["n"] + 1}


@server.component
async def add_one_async(input: dict[str, Any]) -> dict[str, Any]:  # noqa: A002  (as above)
    return {"n": input["n"] + 1}


@server.component
async def pause(input: dict[str, Any]) -> dict[str, Any]:  # noqa: A002  (as above)
    await asyncio.sleep(input["seconds"])
    return {"n": input["n"]}


if __name__ == "__main__":
    server.start_stdio()
