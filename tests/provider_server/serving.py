"""The server in a thread of its own, shared by all tests of a process: each script has its own path below it.

A thread, so that a test whose event loop is blocked, or gone, still has a provider to talk to. Shared, because starting
and stopping uvicorn takes longer than most tests.
"""

from __future__ import annotations

import asyncio
import atexit
import itertools
import socket
import threading
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

import uvicorn
from starlette.types import Receive, Scope, Send

from pyflue.agents.models import ProviderSettings

from .app import ProviderApp, Received
from .script import Answer, Script

KEY = "sk-test-0123456789"


class ProviderServer:
    """A script that is being served, and the requests that came."""

    def __init__(self, app: ProviderApp, url: str) -> None:
        self._app = app
        #: What the anthropic library takes as its base_url; it adds `/v1/messages`.
        self.anthropic_url = url
        #: What the openai library takes as its base_url; it adds `/chat/completions`.
        self.openai_url = f"{url}/v1"

    @property
    def requests(self) -> list[Received]:
        """All requests so far, in the order in which they came."""
        return self._app.requests

    async def request(self, number: int = 0) -> Received:
        """The request of this number, from 0, once it has come."""
        async with asyncio.timeout(10):
            await self._app.arrival(number).wait()
        return self._app.requests[number]

    @property
    def providers(self) -> dict[str, ProviderSettings]:
        """Settings that lead both providers here; what a test does not wait for on purpose fails after 20 s."""
        return {
            "anthropic": ProviderSettings(base_url=self.anthropic_url, idle_timeout_s=20.0),
            "openai": ProviderSettings(base_url=self.openai_url, idle_timeout_s=20.0),
        }

    @property
    def env(self) -> dict[str, str]:
        """Variables with keys, and with this server's address: what a process needs to be led here."""
        return {
            "ANTHROPIC_API_KEY": KEY,
            "ANTHROPIC_BASE_URL": self.anthropic_url,
            "OPENAI_API_KEY": KEY,
            "OPENAI_BASE_URL": self.openai_url,
        }


@asynccontextmanager
async def provider_server(
    script: Script | Sequence[Answer | str] | Callable[[Mapping[str, Any]], Answer | str],
) -> AsyncGenerator[ProviderServer]:
    """Serve a script for the length of the block."""
    app = ProviderApp(script if isinstance(script, Script) else Script(script))
    shared = _shared()
    name = shared.add(app)
    try:
        yield ProviderServer(app, f"{shared.url}/{name}")
    finally:
        shared.remove(name)


@cache
def _shared() -> _Shared:
    return _Shared()


class _Shared:
    """The thread, and the scripts it serves."""

    def __init__(self) -> None:
        self._apps: dict[str, ProviderApp] = {}
        self._numbers = itertools.count(1)
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen(1024)
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        config = uvicorn.Config(
            self, lifespan="off", log_config=None, log_level="critical", timeout_graceful_shutdown=1
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [listener]}, name="provider-server", daemon=True
        )
        self._thread.start()
        atexit.register(self._stop)

    def add(self, app: ProviderApp) -> str:
        name = f"script-{next(self._numbers)}"
        self._apps[name] = app
        return name

    def remove(self, name: str) -> None:
        del self._apps[name]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        _, name, path = scope["path"].split("/", 2)
        app = self._apps.get(name)
        if app is None:
            await send({"type": "http.response.start", "status": 410, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        await app({**scope, "path": f"/{path}"}, receive, send)

    def _stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(5)
