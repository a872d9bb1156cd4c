"""Each test looks after its own processes only."""

from __future__ import annotations

import pytest

from tests.stepflow.plugins.doubles import note_children


@pytest.fixture(autouse=True)
def own_processes() -> None:
    note_children()
