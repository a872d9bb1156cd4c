"""Runs the hello flow in this process; `my_components.py` is started beside it and ended with it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from pyflue.stepflow import StepflowRuntime

HERE = Path(__file__).parent


async def main() -> None:
    async with StepflowRuntime.start(HERE / "stepflow-config.yml") as runtime:
        for name, language in (("Ada", "en"), ("Émilie", "fr")):
            result = await runtime.run(HERE / "hello-workflow.yaml", {"name": name, "language": language})
            print(result.output if result.is_success else result.error)


if __name__ == "__main__":
    asyncio.run(main())
