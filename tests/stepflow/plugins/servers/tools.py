"""An MCP server made with the `mcp` SDK."""

from __future__ import annotations

import asyncio
import os

from mcp.server.mcpserver import MCPServer

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


if __name__ == "__main__":
    server.run()
