"""Components of all sorts, over standard input and output."""

# ruff: noqa: A002  (components call their input so)
from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import Any, TypedDict

import msgspec

from pyflue.stepflow import BlobType, SkipStep, StepflowContext, StepflowError, StepflowFailed, StepflowStdioServer

server = StepflowStdioServer()
print("printed before the server runs")


class AddInput(msgspec.Struct):
    a: int
    b: int = 10


class AddOutput(msgspec.Struct):
    sum: int


@server.component
def add(input: AddInput) -> AddOutput:
    """Add two numbers.

    The second one is 10 if it is not given.
    """
    return AddOutput(sum=input.a + input.b)


@server.component(name="math/twice", description="Doubles.")
async def twice(input: AddInput, context: StepflowContext) -> AddOutput:
    return AddOutput(sum=2 * input.a)


@server.component
def echo(input):
    return input


@dataclass
class Point:
    x: float
    y: float


@server.component
def mirror(input: Point) -> Point:
    return Point(input.y, input.x)


class Named(TypedDict):
    name: str


@server.component
def greet(input: Named) -> str:
    return f"Hello, {input['name']}!"


@server.component(name="files/{kind}/{*path}")
def read(input: Any, path: str, kind: str) -> Any:
    return {"kind": kind, "path": path}


@server.component(name="files/special/{number}")
def special(input: Any, number: int) -> Any:
    return {"number": number + 1}


@server.component
def fail(input: str) -> Any:
    if input == "silent":
        raise ValueError
    if input == "key":
        raise KeyError("who")
    if input == "unprintable":
        raise ValueError("name \udc80")
    if input == "quit":
        raise KeyboardInterrupt
    if input == "data":
        raise StepflowFailed(404, "no such thing", {"hint": "look"})
    raise ValueError(input)


@server.component
async def fail_async(input: str) -> Any:
    if input == "cancelled":
        raise asyncio.CancelledError
    raise LookupError(input)


@server.component
def skip(input: Any) -> Any:
    raise SkipStep("nothing to do")


@server.component
async def skip_async(input: Any) -> Any:
    raise SkipStep


@server.component
def unwritable(input: Any) -> Any:
    return {"what": object()}


@server.component
def talk(input: str) -> str:
    print(input)
    sys.__stdout__.write("and past the redirection\n")
    sys.__stdout__.flush()
    os.write(1, b"and as bytes\n")
    subprocess.run(["echo", "from a child"], check=True)
    return input


@server.component
def listen(input: Any) -> Any:
    child = subprocess.run(["cat"], capture_output=True, check=True)
    return {"child": child.stdout.decode(), "own": sys.stdin.read()}


_both = threading.Barrier(2, timeout=10)


@server.component
def meet(input: Any) -> str:
    _both.wait()
    return "met"


_here = asyncio.Event()


@server.component
async def come(input: Any) -> str:
    await _here.wait()
    return "came"


@server.component
async def open_door(input: Any) -> str:
    _here.set()
    return "opened"


@server.component
def large(input: int) -> str:
    return "x" * input


@server.component
def size(input: str) -> int:
    return len(input)


@server.component
def crash(input: int) -> Any:
    sys.exit(input)


@server.component
async def crash_async(input: str) -> Any:
    sys.exit(input)


@server.component
def die(input: Any) -> Any:
    os._exit(7)


@server.component(blocking=False)
def repeat(input: int) -> Any:
    assert threading.current_thread() is threading.main_thread()
    return "x" * input


@server.component(blocking=False)
def crash_at_once(input: int) -> Any:
    sys.exit(input)


@server.component(blocking=False)
def signal_itself(input: Any) -> Any:
    """The signal comes while the main thread is in here."""
    os.kill(os.getpid(), signal.SIGTERM)
    return "told"


@server.component
def block(input: Any) -> Any:
    print("blocking", file=sys.stderr, flush=True)
    threading.Event().wait()


@server.component
async def wait_and_clean(input: Any) -> Any:
    try:
        print("waiting", file=sys.stderr, flush=True)
        await asyncio.Event().wait()
    finally:
        print("cleaned", file=sys.stderr, flush=True)


@server.component
async def block_loop(input: Any) -> Any:
    print("blocking", file=sys.stderr, flush=True)
    threading.Event().wait()


@server.component
def fork(input: Any) -> int:
    """A child that outlives the server for a while, with none of its open files but standard input."""
    child = os.fork()
    if child:
        return child
    os.close(1)
    os.close(2)
    signal.alarm(30)
    while True:
        signal.pause()


@server.component
async def where(input: Any, context: StepflowContext) -> Any:
    return {
        "session_id": context.session_id,
        "step_id": context.step_id,
        "run_id": context.run_id,
        "flow_id": context.flow_id,
        "attempt": context.attempt,
    }


@server.component
async def use(input: Any, context: StepflowContext) -> Any:
    """Call a method of the context, `[name, positional…]`."""
    method, *arguments = input
    try:
        value = await getattr(context, method)(*arguments)
    except Exception as error:
        return {"raised": type(error).__name__, "text": str(error), "data": getattr(error, "data", None)}
    return msgspec.to_builtins(value)


@server.component
async def keep_flow(input: Any, context: StepflowContext) -> str:
    return await context.put_blob(input, BlobType.flow)


@server.component
async def keep_set(input: Any, context: StepflowContext) -> str:
    try:
        return await context.put_blob({"what": object()})
    except StepflowError as error:
        return str(error).partition(":")[0]


@server.component
def keep_from_thread(input: Any, context: StepflowContext) -> str:
    return asyncio.run(context.put_blob(input))


server.run()
print("after the end", flush=True)
