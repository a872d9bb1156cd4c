from __future__ import annotations

from pathlib import Path

import pytest

from . import sample_runs


@pytest.fixture
def run_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> sample_runs.RunSample:
    monkeypatch.setenv("PYFLUE_JOURNAL_URL", f"sqlite:///{tmp_path / 'journal.db'}")
    return sample_runs.run_sample
