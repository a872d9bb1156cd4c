"""Run a graph and wait for what comes out of it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pyflue.flowgram as fg

SCHEMA = Path(__file__).with_name("echo.json").read_text()


async def main() -> None:
    print(await fg.run(SCHEMA, inputs={"msg": "hello"}))


if __name__ == "__main__":
    asyncio.run(main())
