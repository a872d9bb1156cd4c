"""A small MCP server. A flow calls its tools as components (needs `pip install mcp`)."""

from __future__ import annotations

from mcp.server.mcpserver import MCPServer

server = MCPServer("words", log_level="ERROR")


@server.tool()
def count(text: str) -> int:
    """How many words a text has."""
    return len(text.split())


@server.tool()
def shout(text: str) -> str:
    """The text in capitals."""
    return text.upper()


if __name__ == "__main__":
    server.run()
