"""Runs the order flow twice: its component is handed to the runtime as an object, then named by the config."""

from __future__ import annotations

import asyncio
from pathlib import Path

from prices import server

from pyflue.stepflow import StepflowRuntime

HERE = Path(__file__).parent
ORDER = {"item": "desk"}


async def main() -> None:
    # Without a route of its own a server is found under its name: `/shop/…`.
    config = HERE.parent / "stepflow-config.yml"
    async with StepflowRuntime.start(config, servers={"shop": server}) as runtime:
        print((await runtime.run(HERE / "order.yaml", ORDER)).output)

    async with StepflowRuntime.start(HERE / "stepflow-config.yml") as runtime:
        print((await runtime.run(HERE / "order.yaml", ORDER)).output)
        print([component.path for component in await runtime.list_components()])


if __name__ == "__main__":
    asyncio.run(main())
