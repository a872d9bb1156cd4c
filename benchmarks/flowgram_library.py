"""Graphs beside flowgram-runtime, turn about: library calls, `POST /task/run`, and memory per finished run.

flowgram-runtime is installed from the package index at first use, into an environment of its own. What is called, and
how often, is in `flowgram_calls.py`, which both run. Over HTTP ours is journaled with an fsync per commit; the other
keeps runs in memory.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import httpx2

from .environments import interpreter_with
from .flowgram_calls import ECHO

ORIGINAL_VERSION = "0.1.0"
_CALLS = Path(__file__).with_name("flowgram_calls.py")
_CONNECTIONS = 32


def measure(*, rounds: int, seconds: float, with_original: bool = True) -> dict[str, float]:
    """The figures `flowgram.<which>.<what>`: medians of calls, the best of the servers, and bytes left per run."""
    interpreters = {"ours": (Path(sys.executable), "pyflue.flowgram")}
    servers: dict[str, Callable[[Path, int], list[str]]] = {"ours": _our_server}
    if with_original:
        other = interpreter_with("flowgram-runtime", ORIGINAL_VERSION)
        interpreters["original"] = (other, "flowgram_runtime")
        servers["original"] = lambda folder, port: _their_server(other, port)
    measured: dict[str, list[float]] = {}
    served: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, (interpreter, module) in interpreters.items():
            for what, value in _calls(interpreter, module).items():
                measured.setdefault(f"flowgram.{name}.{what}_us", []).append(value * 1e6)
            served.setdefault(name, []).append(_served(servers[name], seconds))
    figures = {name: statistics.median(values) for name, values in measured.items()}
    # The best of each: other programs on the machine must not decide.
    figures |= {f"flowgram.{name}.task_run_per_second": max(values) for name, values in served.items()}
    return {**figures, "flowgram.ours.bytes_per_run": asyncio.run(_bytes_per_run())}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flowgram_library")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--without-original", action="store_true")
    options = parser.parse_args()
    figures = measure(rounds=options.rounds, seconds=options.seconds, with_original=not options.without_original)
    for name, value in figures.items():
        other = figures.get(name.replace(".ours.", ".original."))
        ratio = ""
        if ".ours." in name and other is not None:
            ratio = f"  {(value / other if name.endswith('per_second') else other / value):6.1f} x"
        print(f"{name:48} {value:12,.1f}{ratio}")


def _calls(interpreter: Path, module: str) -> dict[str, float]:
    ran = subprocess.run([str(interpreter), str(_CALLS), module], check=True, capture_output=True, text=True)
    return json.loads(ran.stdout)


def _our_server(folder: Path, port: int) -> list[str]:
    (folder / "src" / "workflows").mkdir(parents=True)
    return [sys.executable, "-m", "pyflue.cli", "--project", str(folder), "serve", "--port", str(port)]


def _their_server(interpreter: Path, port: int) -> list[str]:
    flowgram = interpreter.with_name("flowgram")
    return [str(flowgram), "serve", "--host", "127.0.0.1", "--port", str(port), "--log-level", "error"]


def _served(command: Callable[[Path, int], list[str]], seconds: float) -> float:
    """Accepted runs per second of a server."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        with _process(command(Path(folder), port)):
            return asyncio.run(_rate(port, seconds))


@contextmanager
def _process(command: list[str]) -> Generator[None]:
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet, env={**os.environ})
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


async def _rate(port: int, seconds: float) -> float:
    """Requests answered in a second, over some connections of plain sockets: the client must not be the limit."""
    body = json.dumps({"schema": json.dumps(ECHO), "inputs": {"msg": "hi"}}).encode()
    head = f"POST /task/run HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n"
    request = head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body
    await _until_ready(port)
    done = 0
    end = 0.0

    async def ask() -> None:
        nonlocal done
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.perf_counter() < end:
            writer.write(request)
            answer = await reader.readuntil(b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 200"), answer
            length = int(answer.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            done += 1
        writer.close()

    for lasting in (1.0, seconds):  # the first one only warms up
        done = 0
        began = time.perf_counter()
        end = began + lasting
        await asyncio.gather(*(ask() for _ in range(_CONNECTIONS)))
    return done / (time.perf_counter() - began)


async def _until_ready(port: int) -> None:
    async with asyncio.timeout(30), httpx2.AsyncClient() as client:
        while True:
            try:
                await client.get(f"http://127.0.0.1:{port}/info")
            except httpx2.HTTPError:
                await asyncio.sleep(0.1)
            else:
                return


async def _bytes_per_run() -> float:
    import pyflue.flowgram as fg

    async def many(count: int) -> None:
        for _ in range(count):
            await fg.start(ECHO, {"msg": "hi"}).wait()

    await many(200)
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    await many(2000)
    gc.collect()
    left = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return left / 2000


if __name__ == "__main__":
    main()
