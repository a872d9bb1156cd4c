"""A project folder with a journal, for tests that drive agents in runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from .agent_runs import Stage


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    stage = Stage(tmp_path)
    yield stage
    await stage.close()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Providers that do not say when are asked again at once."""
    monkeypatch.setattr("pyflue.agents.asking._FIRST_PAUSE_S", 0.001)
