"""A project with workflows, a server for it, and a client of that."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from pyflue import PyFlueClient
from tests.client.client_server import a_client, serving, write_workflows


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("PYFLUE_TOKEN", raising=False)
    write_workflows(tmp_path)
    return tmp_path


@pytest.fixture
async def server(root: Path) -> AsyncGenerator[str, None]:
    async with serving(root) as url:
        yield url


@pytest.fixture
async def client(server: str) -> AsyncGenerator[PyFlueClient, None]:
    async with a_client(server) as client:
        yield client


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]
