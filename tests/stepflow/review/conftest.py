"""A journal for flows that are recorded."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pyflue.journal import Journal
from tests.support import journal_at


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    journal = journal_at(tmp_path)
    yield journal
    await journal.close()
