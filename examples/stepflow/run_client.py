"""Runs the hello flow on a server.

Start that in another terminal, in this folder: `pyflue flow serve --config stepflow-config.yml`. If it has another
address than usual, that is the argument.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from pyflue.stepflow import StepflowClient

HERE = Path(__file__).parent


async def main(url: str) -> None:
    async with StepflowClient(url) as client:
        result = await client.run(HERE / "hello-workflow.yaml", {"name": "Ada"})
        print(result.output if result.is_success else result.error)
        # The same in two halves; a list is a batch.
        run_id = await client.submit(HERE / "hello-workflow.yaml", [{"name": "Bob"}, {"name": "Eve", "language": "de"}])
        print((await client.get_result(run_id)).output)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:] or ["http://localhost:7837"]))
