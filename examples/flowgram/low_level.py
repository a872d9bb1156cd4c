"""Runs by their ids, as the HTTP API has them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pyflue.flowgram as fg

SCHEMA = json.loads(Path(__file__).with_name("echo.json").read_text())


async def main() -> None:
    app = fg.WorkflowApplication.instance()
    params = fg.InvokeParams(schema=fg.WorkflowSchema.model_validate(SCHEMA), inputs={"msg": "hello"})
    task_id = app.run(params)
    await app.tasks[task_id].processing
    print(app.result(task_id))


if __name__ == "__main__":
    asyncio.run(main())
