"""A real server in the test's own event loop, and a proxy that breaks connections on the way to it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pyflue import PyFlueClient, create_app
from pyflue.server import bind, serve
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

class Ticket(BaseModel):
    id: int

async def run(ctx: FlueContext[Ticket]) -> dict:
    return {"id": ctx.payload.id}
""",
    "chatty": """
async def run(ctx):
    for number in range(ctx.payload["count"]):
        await ctx.log.info("line", number=number, text="ü" * 50)
    return ctx.payload["count"]
""",
    "slow": """
import asyncio

async def run(ctx):
    ctx.log.info("started")
    await asyncio.sleep(ctx.payload["seconds"])
    return "slept"
""",
    "gate": """
import asyncio
from pathlib import Path

async def run(ctx):
    ctx.log.info("waiting", attempt=ctx.attempt)
    while not Path(ctx.payload["file"]).exists():
        await asyncio.sleep(0.01)
    return "open"
""",
    "asks": """
from pydantic import BaseModel

class Refund(BaseModel):
    amount: int

async def run(ctx):
    await ctx.step("prepare", lambda: "ready")
    decision = await ctx.approve("refund", request={"amount": 700}, schema=Refund)
    paid = await ctx.wait_for("paid")
    return {"approved": decision.approved, "data": decision.data, "by": decision.by, "paid": paid}
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
}


def write_workflows(root: Path) -> None:
    folder = root / "src" / "workflows"
    folder.mkdir(parents=True)
    for name, source in WORKFLOWS.items():
        (folder / f"{name}.py").write_text(source, encoding="utf-8")


@asynccontextmanager
async def serving(root: Path, *, port: int = 0, **options: Any) -> AsyncGenerator[str, None]:
    """Serve a project for the length of the block; options are settings of the server, such as `wait_s`."""
    named = {"server.port": port, **{f"server.{name}": value for name, value in options.items()}}
    settings = load_settings(root, options=named)
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    until = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        app = create_app(root, options=named)
        tasks.create_task(serve(app, bind(settings.server), settings, on_ready=ready.set_result, until=until))
        async with asyncio.timeout(20):
            url = await ready
        try:
            yield url
        finally:
            until.set()


def port_of(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port


class Proxy:
    """Passes connections on to a server until `allowance` (per connection, in bytes of answer) is used up.

    After that the connection is cut; with `goes_silent` it stays open and nothing more comes.
    """

    def __init__(self, target: str, allowance: Callable[[int], int | None], *, goes_silent: bool = False) -> None:
        self._port = port_of(target)
        self._allowance = allowance
        self._goes_silent = goes_silent
        self.connections = 0

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[str, None]:
        """The proxy's own URL, for the length of the block."""
        self._tasks: set[asyncio.Task[Any]] = set()
        server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        left = self._allowance(self.connections)
        self.connections += 1
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            writer.close()
            return
        forwards = asyncio.ensure_future(self._forward(reader, up_writer))
        try:
            while chunk := await up_reader.read(4096 if left is None else min(4096, left) or 1):
                if left is not None and left == 0:
                    break
                writer.write(chunk)
                await writer.drain()
                left = None if left is None else left - len(chunk)
                if left == 0:
                    break
            if left == 0 and self._goes_silent:
                await asyncio.Event().wait()
        except (OSError, asyncio.CancelledError):
            pass  # cancelled when the test is over
        finally:
            forwards.cancel()
            writer.transport.abort()
            up_writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(4096):
                writer.write(chunk)
                await writer.drain()


async def collect(events: AsyncGenerator[dict[str, Any], None]) -> list[dict[str, Any]]:
    """All events of a stream, within half a minute."""
    async with asyncio.timeout(30), contextlib.aclosing(events):
        return [event async for event in events]


def indexes(events: list[dict[str, Any]]) -> list[int]:
    return [event["index"] for event in events]


def a_client(url: str, **options: Any) -> PyFlueClient:
    return PyFlueClient(url, **{"reconnect_s": 10.0, **options})
