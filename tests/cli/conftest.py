"""A project with a few workflows, and `pyflue` in this process."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pyflue.cli import main
from tests.cli.cli_project import WORKFLOWS, Cli, write_workflow


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder, which is also the current folder."""
    for name, source in WORKFLOWS.items():
        write_workflow(tmp_path, name, source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYFLUE_TOKEN", raising=False)
    return tmp_path


@pytest.fixture
def cli() -> Cli:
    """`pyflue ARGUMENTS` in this process."""

    def call(*arguments: str, stdin: str | None = None) -> Result:
        result = CliRunner().invoke(main, arguments, input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return call
