"""`PyFlueClient`: the face of the client. The work is done by its namespaces, over one `Connection`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from .agents import Agent, Agents
from .approvals import Approvals
from .connection import Connection
from .runs import Runs
from .workflows import Workflows

if TYPE_CHECKING:
    import httpx2


class PyFlueClient:
    """Talks to a PyFlue server: `client.workflows`, `runs`, `approvals` and `agents` are what it is asked for.

    ```python
    async with PyFlueClient("http://127.0.0.1:2024") as client:
        answer = await client.workflows.invoke("summarize", {"text": "…"}, wait=True)
        print(answer["result"])
    ```

    `url` is the server's address, with the prefix it is mounted under, if any. `token` defaults to the environment
    variable `PYFLUE_TOKEN`. A request is given up after `timeout_s` without an answer (`connect_timeout_s` for the
    connection); waiting for a result has no limit. An event stream counts as broken when it is silent for three times
    `heartbeat_s`, and tries to go on for `reconnect_s`. `transport` replaces the network, for example by
    `httpx2.ASGITransport(app)`.

    Every failure is a `PyFlueError`: the one the server raised, with `type`, `status`, `details` and `run_id`,
    `ServerAnswered` for types this version does not know, or `Unreachable`.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        timeout_s: float = 30.0,
        connect_timeout_s: float = 5.0,
        heartbeat_s: float = 15.0,
        reconnect_s: float = 60.0,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._connection = Connection(
            url,
            token=os.environ.get("PYFLUE_TOKEN") if token is None else token,
            timeout_s=timeout_s,
            connect_timeout_s=connect_timeout_s,
            heartbeat_s=heartbeat_s,
            reconnect_s=reconnect_s,
            transport=transport,
        )
        #: Workflows: `list`, `get`, `invoke`, `stream`, `connect`.
        self.workflows = Workflows(self._connection)
        #: Runs: `list`, `get`, `events`, `steps`, `stream`, `signal`, `cancel`, `retry`, `fork`, `delete`.
        self.runs = Runs(self._connection)
        #: Approvals: `list`, `get`, `approve`, `reject`.
        self.approvals = Approvals(self._connection)
        #: Agents: `list`, `get`, `instances`.
        self.agents = Agents(self._connection)

    def agent(self, name: str, id: str = "default") -> Agent:  # noqa: A002  (the word of `init_agent`)
        """An instance of a continuing agent; it is there from the first prompt on.

        ```python
        assistant = client.agent("assistant", "customer-42")
        print((await assistant.prompt("Where is my order?")).text)
        ```
        """
        return Agent(self._connection, name, id)

    async def health(self) -> dict[str, Any]:
        """What the server says of itself."""
        return (await self._connection.request("GET", "/health")).body

    async def close(self) -> None:
        """Close the connections. The client can be used again; it opens new ones."""
        await self._connection.close()

    async def __aenter__(self) -> PyFlueClient:
        return self

    async def __aexit__(self, *args: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<PyFlueClient {self._connection.url}>"
