"""What tests of plugins share: calls, the services of a run that keeps blobs in a dictionary, servers, processes."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pyflue.stepflow.outcome import Outcome, Success
from pyflue.stepflow.plugins.port import BlobType, ComponentCall, ComponentFailed, Plugin, RunServices, SubRun

SERVERS = Path(__file__).parent / "servers"
PYTHON = sys.executable
NOW = "2026-01-01T00:00:00Z"


class Services:
    """A run that knows nothing but its blobs, and whose flows add one to their input."""

    def __init__(self) -> None:
        self.blobs: dict[str, tuple[Any, BlobType]] = {}
        self.asked: list[tuple[Any, ...]] = []
        self.begun_again = 0

    async def put_blob(self, data: Any, blob_type: BlobType) -> str:
        if blob_type is BlobType.FLOW and "steps" not in data:
            raise ValueError("It is no flow.")
        blob_id = hashlib.sha256(json.dumps(data).encode()).hexdigest()
        self.blobs[blob_id] = (data, blob_type)
        return blob_id

    async def get_blob(self, blob_id: str) -> tuple[Any, BlobType]:
        if len(blob_id) != 64:
            raise ValueError("It is no id.")
        if blob_id not in self.blobs:
            raise LookupError("There is no such blob.")
        return self.blobs[blob_id]

    async def run_flows(self, flow: Any, inputs: Sequence[Any], **options: Any) -> list[Outcome]:
        raise NotImplementedError

    async def submit(
        self,
        flow_id: str,
        inputs: Sequence[Any],
        *,
        max_concurrency: int | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> SubRun:
        self.asked.append((flow_id, list(inputs), max_concurrency, overrides))
        return SubRun(
            run_id="sub", flow_id=flow_id, flow_name="add", outcomes=[None] * len(inputs), ended=[], created_at=NOW
        )

    async def sub_run(self, run_id: str, *, wait: bool = False) -> SubRun:
        if run_id != "sub":
            raise LookupError("This step has submitted no such run.")
        flow_id, inputs, _, _ = self.asked[0]
        outcomes = [Success(given + 1) for given in inputs]
        ended = list(reversed(range(len(inputs))))
        return SubRun(
            run_id="sub",
            flow_id=flow_id,
            flow_name="add",
            outcomes=outcomes,
            ended=ended,
            created_at=NOW,
            completed_at=NOW,
        )

    def begin_again(self) -> None:
        self.begun_again += 1

    async def flow_metadata(
        self, step_id: str | None = None, *, flow_id: str | None = None
    ) -> tuple[Mapping[str, Any], Mapping[str, Any] | None]:
        if step_id == "unknown":
            raise LookupError("There is no such step.")
        return {"owner": "me"}, None if step_id is None else {"of": step_id}

    async def sleep(self, seconds: float) -> None:
        raise NotImplementedError

    async def call_workflow(self, name: str, payload: Any) -> Any:
        raise NotImplementedError

    async def prompt_agent(self, name: str, text: str, *, session: str | None = None) -> Any:
        raise NotImplementedError


def call_of(
    component: str,
    given: Any = None,
    *,
    services: RunServices | None = None,
    run_id: str = "run-1",
    step_id: str = "step-1",
    attempt: int = 1,
) -> ComponentCall:
    return ComponentCall(
        component=component,
        input=given,
        attempt=attempt,
        run_id=run_id,
        flow_id="flow-1",
        step_id=step_id,
        services=services or Services(),
    )


async def failure_of(plugin: Plugin, component: str, given: Any = None, **options: Any) -> ComponentFailed:
    """How a call fails."""
    try:
        output = await plugin.execute(call_of(component, given, **options))
    except ComponentFailed as error:
        return error
    raise AssertionError(f"{component} gave {output!r}")


@asynccontextmanager
async def web_server(*args: str) -> AsyncIterator[str]:
    """The address of a component server over HTTP, in a process of its own."""
    async with _listening("web.py", *args) as port:
        yield f"http://127.0.0.1:{port}/"


@asynccontextmanager
async def mcp_server(*args: str, port: int = 0) -> AsyncIterator[str]:
    """The address of an MCP server over HTTP, in a process of its own."""
    async with _listening("tools.py", "http", *args, env={**os.environ, "PORT": str(port)}) as listening:
        yield f"http://127.0.0.1:{listening}/mcp"


@asynccontextmanager
async def _listening(script: str, *args: str, env: Mapping[str, str] | None = None) -> AsyncIterator[int]:
    """The port of a server that prints it and ends with its standard input."""
    process = await asyncio.create_subprocess_exec(
        PYTHON, str(SERVERS / script), *args, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=env
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(20):
            while not (line := await process.stdout.readline()).startswith(b"{"):
                assert line, "it ended"
        yield json.loads(line)["port"]
    finally:
        process.stdin.close()
        async with asyncio.timeout(5):
            await process.wait()


async def until_there(path: Path) -> None:
    async with asyncio.timeout(10):
        while not path.exists():
            await asyncio.sleep(0.002)


async def until_gone(pid: int) -> None:
    """Wait until a process is no more, or only waits to be buried."""
    async with asyncio.timeout(5):
        while is_running(pid):
            await asyncio.sleep(0.005)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


#: Processes that were below this one before a test began: not its own.
_earlier: set[int] = set()


def note_children() -> None:
    """A test begins: what is there now is none of its processes."""
    _earlier.clear()
    _earlier.update(children())


def children() -> set[int]:
    """Living processes below this one, that a test has started."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if fields[0] != "Z":
                parents[int(entry.name)] = int(fields[1])
    below: set[int] = set()
    while more := {pid for pid, parent in parents.items() if parent in {os.getpid(), *below}} - below:
        below |= more
    return below - _earlier
