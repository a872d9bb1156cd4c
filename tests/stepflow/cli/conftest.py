"""A folder with flows as the current one, without a project and with one, and `pyflue` in this process."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pyflue.cli import main
from tests.cli.cli_project import Cli
from tests.stepflow.cli.folder import fill


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Flows without a project."""
    fill(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in ("PYFLUE_TOKEN", "STEPFLOW_CONFIG", "STEPFLOW_PORT"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def project(folder: Path) -> Path:
    """Flows in the folder of a project."""
    (folder / "pyflue.toml").write_text("", encoding="utf-8")
    return folder


@pytest.fixture
def cli() -> Cli:
    """`pyflue ARGUMENTS` in this process."""

    def call(*arguments: str, stdin: str | None = None) -> Result:
        result = CliRunner().invoke(main, arguments, input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return call
