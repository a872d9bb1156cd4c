"""An MCP server on the SDK's server side: `python sample_server.py` on standard input and output, or `… http`.

Over HTTP it listens on a free port of loopback, which is the first line it writes.
"""

import asyncio
import json
import os
import socket
import subprocess
import sys

import uvicorn
from mcp.server.mcpserver import Context, Image, MCPServer
from mcp.types import EmbeddedResource, TextResourceContents, ToolAnnotations

server = MCPServer("sample", log_level="CRITICAL")


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def add(a: int, b: int) -> dict[str, int]:
    """Add two numbers."""
    return {"sum": a + b}


@server.tool(annotations=ToolAnnotations(idempotent_hint=True), structured_output=False)
def echo(text: str) -> str:
    """Say it again."""
    return text


@server.tool(structured_output=False)
def surroundings(ctx: Context) -> str:
    """What the server sees of the world."""
    request = ctx.request_context.request
    headers = dict(request.headers) if request is not None else {}
    return json.dumps({"env": dict(os.environ), "cwd": os.getcwd(), "pid": os.getpid(), "headers": headers})


@server.tool(structured_output=False)
def picture() -> list[object]:
    """A picture, with a page beside it."""
    page = TextResourceContents(uri="memo://page", mime_type="text/plain", text="The page.")
    return ["Look:", Image(data=b"\x89PNG\r\n\x1a\n...", format="png"), EmbeddedResource(resource=page)]


@server.tool()
def fail() -> str:
    """Fail."""
    raise ValueError(f"no luck with {os.environ.get('SAMPLE_TOKEN')}")


@server.tool()
def die() -> str:
    """End the server in the middle of the call."""
    print("The last words.", file=sys.stderr, flush=True)
    os._exit(3)


@server.tool()
async def never() -> str:
    """Say nothing."""
    await asyncio.Event().wait()
    return "never"


@server.tool(structured_output=False)
def helper() -> str:
    """Start another process, which ignores a polite request to end."""
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    assert child.stdout is not None
    child.stdout.readline()
    return str(child.pid)


@server.tool(structured_output=False)
async def learn(ctx: Context) -> str:
    """Get another tool."""
    server.add_tool(echo, name="learned", structured_output=False)
    await ctx.notify_tools_changed()
    return "learned"


async def main() -> None:
    if sys.argv[1:2] != ["http"]:
        await server.run_stdio_async()
        return
    app = server.streamable_http_app()
    listening = socket.create_server(("127.0.0.1", 0))
    print(listening.getsockname()[1], flush=True)
    await uvicorn.Server(uvicorn.Config(app, log_level="critical", ws="none")).serve(sockets=[listening])


asyncio.run(main())
