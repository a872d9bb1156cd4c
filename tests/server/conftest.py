"""A project folder with workflows, and its application in process."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import httpx2
import pytest

from tests.server.harness import InProcess, in_process, write_project


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("PYFLUE_TOKEN", raising=False)
    write_project(tmp_path)
    return tmp_path


@pytest.fixture
async def here(root: Path) -> AsyncGenerator[InProcess, None]:
    async with in_process(root) as here:
        yield here


@pytest.fixture
def client(here: InProcess) -> httpx2.AsyncClient:
    return here.client
