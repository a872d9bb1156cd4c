"""An MCP server made with the `mcp` SDK: on its pipes, or with `http` on a port of this machine that it prints.

Over HTTP it ends with its standard input. `http json` answers with JSON and without sessions.
"""

import asyncio
import json
import os
import socket
import sys

from mcp.server.mcpserver import Context, MCPServer

server = MCPServer("tools", log_level="CRITICAL")


@server.tool()
def echo(value: str) -> str:
    """Gives back what it gets."""
    return value


@server.tool()
def fail(why: str) -> str:
    raise ValueError(why)


@server.tool()
def variable(name: str) -> str:
    return os.environ.get(name, "not set")


@server.tool()
async def wait(until: str) -> str:
    while not os.path.exists(until):
        await asyncio.sleep(0.005)
    return "waited"


@server.tool()
def crash() -> str:
    os._exit(3)


@server.tool()
def header(name: str, ctx: Context) -> str:
    request = ctx.request_context.request
    return request.headers.get(name, "not set") if request is not None else "no request"


async def over_http(is_plain: bool) -> None:
    import uvicorn

    app = server.streamable_http_app(json_response=is_plain, stateless_http=is_plain)
    listening = socket.create_server(("127.0.0.1", int(os.environ.get("PORT", "0"))))
    print(json.dumps({"port": listening.getsockname()[1]}), flush=True)
    serving = uvicorn.Server(uvicorn.Config(app, log_level="critical", ws="none", timeout_graceful_shutdown=1))
    ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    ended.add_done_callback(lambda _: os._exit(0))
    await serving.serve(sockets=[listening])


if __name__ == "__main__":
    if sys.argv[1:2] == ["http"]:
        asyncio.run(over_http(sys.argv[2:] == ["json"]))
    else:
        server.run()
