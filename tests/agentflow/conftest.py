"""Projects with step classes, their catalogs, and engines that run them."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from pyflue.journal import Journal, open_journal

from .projects import Project


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    path_before = list(sys.path)
    yield Project(tmp_path)
    sys.path[:] = path_before


@pytest.fixture
async def journal() -> AsyncIterator[Journal]:
    journal = open_journal("memory:")
    yield journal
    await journal.close()
