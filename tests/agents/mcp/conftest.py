"""Real MCP servers, and a look at which of their processes are left."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from pyflue.agents.mcp import connect
from pyflue.agents.tools import ToolDefinition, normalise_result
from pyflue.settings import McpServerSettings

HERE = Path(__file__).parent


class Servers:
    """Servers as a project has them, and the tools they give."""

    def __init__(self, root: Path) -> None:
        self.root = root
        #: In the environment of each process of these servers.
        self.mark = uuid.uuid4().hex

    def stdio(self, script: str, *args: str, env: dict[str, str] | None = None, **more: Any) -> McpServerSettings:
        return McpServerSettings(
            command=sys.executable,
            args=(str(HERE / script), *args),
            env={"SAMPLE_MARK": self.mark, **(env or {})},
            **{"timeout_s": 20.0, **more},
        )

    @asynccontextmanager
    async def connected(self, **servers: McpServerSettings) -> AsyncIterator[Sequence[ToolDefinition]]:
        async with asyncio.timeout(30), AsyncExitStack() as stack:
            yield await connect(servers, stack, root=self.root)

    def processes(self) -> list[int]:
        """Those of these servers that there are, with all that they have started."""
        found: list[int] = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                try:
                    if self.mark.encode() in (folder / "environ").read_bytes():
                        found.append(int(folder.name))
                except OSError:
                    continue
        return found

    async def gone(self) -> None:
        """Return when there are none any more; soon."""
        async with asyncio.timeout(2):
            while await asyncio.to_thread(self.processes):
                pass


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    made = Servers(tmp_path)
    yield made
    assert made.processes() == []


class HttpServer:
    """A sample server that listens on loopback."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "sample_server.py"), "http"], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self.process.stdout.readline())}/mcp"

    def stop(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
            self.process.communicate()


@pytest.fixture
def http_server() -> Iterator[HttpServer]:
    server = HttpServer()
    yield server
    server.stop()


@asynccontextmanager
async def answering(answer: bytes | Callable[[bytes, bytes], bytes] | None) -> AsyncIterator[str]:
    """The address of something on loopback that answers every request with these bytes, or never.

    A function gets the head and the body of a request. Each connection is for one request.
    """
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if answer is None:
                await over.wait()
                return
            size = re.search(rb"(?i)content-length: (\d+)", head)
            body = await reader.readexactly(int(size[1])) if size is not None else b""
            writer.write(answer if isinstance(answer, bytes) else answer(head, body))
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        yield f"http://{host}:{port}/mcp"
        over.set()


async def call(tools: Sequence[ToolDefinition], name: str, /, **arguments: Any) -> Any:
    """Call a tool by its name, as an agent does. Text alone is a string."""
    tool = next(each for each in tools if each.name == name)
    content = normalise_result(await tool.call(arguments))
    texts = [getattr(each, "text", each) for each in content]
    return texts[0] if len(texts) == 1 else texts
