"""A project with workflows, served in the test's own event loop: in process, or on a real socket."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
from starlette.types import ASGIApp

from pyflue import codec, create_app
from pyflue.journal import follow
from pyflue.server import PyFlueApp, bind, serve
from pyflue.settings import load_settings

WORKFLOWS = {
    "echo": '''
async def run(ctx):
    """Give back what came."""
    return ctx.payload
''',
    "typed": """
from pydantic import BaseModel
from pyflue import FlueContext

class Item(BaseModel):
    amount: int

class Ticket(BaseModel):
    id: int
    items: list[Item] = []

async def run(ctx: FlueContext[Ticket]) -> Item:
    return Item(amount=ctx.payload.id)
""",
    "twin": """
from pydantic import BaseModel
from pyflue import FlueContext

class Item(BaseModel):
    label: str

class Ticket(BaseModel):
    items: list[Item]

async def run(ctx: FlueContext[Ticket]) -> Ticket:
    return ctx.payload
""",
    "chatty": """
async def run(ctx):
    for number in range(ctx.payload["count"]):
        await ctx.log.info("line", number=number, text="x" * ctx.payload.get("size", 10))
    return ctx.payload["count"]
""",
    "gate": """
import asyncio
from pathlib import Path

async def run(ctx):
    ctx.log.info("waiting")
    while not Path(ctx.payload["file"]).exists():
        await asyncio.sleep(0.01)
    return "open"
""",
    "blocks": """
import time
from pathlib import Path

def run(ctx):
    while not Path(ctx.payload["file"]).exists():
        time.sleep(0.01)
    return "open"
""",
    "asked": """
async def run(ctx):
    return {"method": ctx.req.method, "url": ctx.req.url, "headers": dict(ctx.req.headers)}
""",
    "fails": """
async def run(ctx):
    raise ValueError("secret text")
""",
    "refuses": """
from pyflue import PyFlueError

async def run(ctx):
    raise PyFlueError("The quota is used up.", type="quota", status=429, details={"left": 0})
""",
    "odd": """
async def run(ctx):
    return {"rows": [1, object()]}
""",
    "asks": """
async def run(ctx):
    await ctx.step("prepare", lambda: {"ready": True})
    return (await ctx.approve("ship", request={"order": 7}, schema={"type": "object"})).approved
""",
    "big_event": """
async def run(ctx):
    ctx.emit("table", {"cells": "x" * 300_000})
    return None
""",
}


def write_project(root: Path, files: Mapping[str, str] = WORKFLOWS) -> None:
    """Write workflow files into a project folder."""
    folder = root / "src" / "workflows"
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in files.items():
        (folder / f"{name}.py").write_text(source, encoding="utf-8")


@dataclass(frozen=True)
class InProcess:
    """A started application and a client that calls it without a socket."""

    app: PyFlueApp
    client: httpx2.AsyncClient


@asynccontextmanager
async def in_process(root: Path, *, dev: bool = False, **options: Any) -> AsyncGenerator[InProcess, None]:
    """Start a project's application; options are settings, with `__` for the dot."""
    project = create_app(root, options=_dotted(options), dev=dev)
    async with project.running() as app, client_of(app) as client:
        yield InProcess(app, client)


def client_of(app: ASGIApp, base_url: str = "http://localhost") -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url=base_url)


@dataclass(frozen=True)
class Address:
    """Where a real server listens."""

    url: str
    host: str
    port: int

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(self.host, self.port)

    async def exchange(self, request: bytes) -> bytes:
        """Send bytes and read until the server closes."""
        reader, writer = await self.connect()
        try:
            writer.write(request)
            async with asyncio.timeout(10):
                return await reader.read()
        finally:
            writer.close()

    def client(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(base_url=self.url, timeout=30)


@asynccontextmanager
async def on_a_socket(root: Path, **options: Any) -> AsyncGenerator[Address, None]:
    """Serve a project as `pyflue serve` does; options as for `in_process`."""
    named = {"server.port": 0, **_dotted(options)}
    settings = load_settings(root, options=named, environ={})
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    until = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        app = create_app(root, options=named)
        tasks.create_task(serve(app, bind(settings.server), settings, on_ready=ready.set_result, until=until))
        async with asyncio.timeout(20):
            url = await ready
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        try:
            yield Address(url, parts.hostname, parts.port)
        finally:
            until.set()


def frames_of(text: str) -> list[dict[str, str]]:
    """The frames of an event stream, comments left out."""
    frames: list[dict[str, str]] = []
    for block in text.split("\n\n"):
        lines = [line.partition(": ") for line in block.split("\n") if line and not line.startswith(":")]
        if lines:
            frames.append({name: value for name, _, value in lines})
    return frames


async def finished(client: httpx2.AsyncClient, run_id: str) -> dict[str, Any]:
    """A run's record, once it is final."""
    async with asyncio.timeout(10), client.stream("GET", f"/runs/{run_id}/stream") as stream:
        async for _ in stream.aiter_bytes():
            pass
    return (await client.get(f"/runs/{run_id}")).json()


async def waiting(here: InProcess, run_id: str) -> dict[str, Any]:
    """A run's record, once it waits for something."""
    await event_of(here, run_id, "run_waiting")
    return (await here.client.get(f"/runs/{run_id}")).json()


async def event_of(here: InProcess, run_id: str, kind: str) -> Any:
    """The data of a run's first event of a type, once there is one."""
    async with asyncio.timeout(10), contextlib.aclosing(follow(here.app.services.journal, run_id)) as events:
        async for event in events:
            if event.type == kind:
                return codec.load(event.data)
    raise AssertionError(f"run {run_id} has ended without {kind}")


def _dotted(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name.replace("__", "."): value for name, value in options.items()}
