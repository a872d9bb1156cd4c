"""Components over HTTP; where to listen is given as arguments."""

# ruff: noqa: A002  (components call their input so)
from __future__ import annotations

import asyncio
import sys
import threading
from typing import Any

from pyflue.stepflow import StepflowContext, StepflowHttpServer, StepflowServer

server = StepflowServer()


@server.component
def add(input: dict[str, int]) -> int:
    return input["a"] + input["b"]


@server.component
async def fail(input: Any) -> Any:
    raise ValueError("it broke")


@server.component
async def use(input: Any, context: StepflowContext) -> Any:
    first = await context.put_blob(input)
    second = await context.get_blob(first)
    return {"blob": first, "data": second, "session_id": context.session_id, "step_id": context.step_id}


@server.component
def block_and_see(input: Any, context: StepflowContext) -> Any:
    return {"thread": threading.current_thread() is not threading.main_thread(), "run_id": context.run_id}


@server.component(blocking=False)
def see_at_once(input: Any, context: StepflowContext) -> Any:
    return {"thread": threading.current_thread() is not threading.main_thread(), "run_id": context.run_id}


@server.component
async def endless(input: Any) -> Any:
    try:
        print("began", file=sys.stderr, flush=True)
        await asyncio.Event().wait()
    finally:
        print("cancelled", file=sys.stderr, flush=True)


@server.component
async def endless_with_context(input: Any, context: StepflowContext) -> Any:
    try:
        await context.get_blob("never answered")
    finally:
        print("cancelled", file=sys.stderr, flush=True)


@server.component
def leave(input: Any) -> Any:
    sys.exit(5)


http = StepflowHttpServer(server, host=sys.argv[1], port=int(sys.argv[2]), instance_id="instance-1")
asyncio.run(http.run())
