"""The Python components of `stepflow_flows.py`, for a worker of stepflow 0.13.0 (it asks the server for work).

Run as a script by that server, under the interpreter that holds stepflow-py; imports nothing of PyFlue.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import threading
import time
from typing import Any

# There only in the environment that this runs in.
_worker: Any = importlib.import_module("stepflow_py.worker")
_grpc_worker: Any = importlib.import_module("stepflow_py.worker.grpc_worker")


def add_one(input: dict[str, Any]) -> dict[str, Any]:  # noqa: A002  (the word of that SDK)
    return {"n": input["n"] + 1}


async def pause(input: dict[str, Any]) -> dict[str, Any]:  # noqa: A002  (as above)
    await asyncio.sleep(input["seconds"])
    return {"n": input["n"]}


def _end_with(parent: int) -> None:
    # The server gives its worker a process group of its own and does not end it when it is killed.
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(0)


def main() -> None:
    threading.Thread(target=_end_with, args=[os.getppid()], daemon=True).start()
    server = _worker.StepflowServer()
    server.component(name="add_one")(add_one)
    server.component(name="pause")(pause)
    asyncio.run(
        _grpc_worker.run_grpc_worker(
            server=server,
            tasks_url=os.environ["STEPFLOW_TASKS_URL"],
            queue_name=os.environ["STEPFLOW_QUEUE_NAME"],
            max_concurrent=128,
        )
    )


if __name__ == "__main__":
    main()
