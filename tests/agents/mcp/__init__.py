"""MCP servers: what agents get of them."""
