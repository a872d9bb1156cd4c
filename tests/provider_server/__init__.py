"""A server that speaks as model providers do, so that their real libraries can be tested over loopback.

    async with provider_server([say("Hello."), rate_limited(retry_after="2"), say("Hello again.")]) as server:
        model = find_model("anthropic/claude-haiku-4-5", providers=server.providers, env=server.env)
        ...
        assert server.requests[0].body["messages"] == ...

It knows Anthropic's Messages and OpenAI's Chat Completions, streamed and not. See `script.py` for what it can be told
to answer, and `__main__.py` for how it is started by hand.
"""

from __future__ import annotations

from .app import Received
from .script import (
    Answer,
    Gate,
    Script,
    ToolCall,
    failing,
    held,
    html_page,
    not_found,
    overflow,
    overloaded,
    rate_limited,
    say,
    unauthorized,
    use_tools,
)
from .serving import ProviderServer, provider_server

__all__ = [
    "Answer",
    "Gate",
    "ProviderServer",
    "Received",
    "Script",
    "ToolCall",
    "failing",
    "held",
    "html_page",
    "not_found",
    "overflow",
    "overloaded",
    "provider_server",
    "rate_limited",
    "say",
    "unauthorized",
    "use_tools",
]
