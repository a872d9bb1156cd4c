"""Start a graph, look at it while it runs, and read its report."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pyflue.flowgram as fg

SCHEMA = Path(__file__).with_name("echo.json").read_text()


async def main() -> None:
    task = fg.start(SCHEMA, inputs={"msg": "hello"})
    print(task.status.value)
    print(await task.wait(timeout=10))
    print(task.status.value, list(task.report().reports))
    task.cancel()  # it has ended, so this changes nothing


if __name__ == "__main__":
    asyncio.run(main())
