"""Where components come from: processes, HTTP and MCP servers, mocks, what is built in, and the project itself.

`port.py` says what a plugin is; everything else here is one kind of it. A plugin knows neither flows nor the journal.
"""
