"""The dialect door: kinds of workflow files join through entry points."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyflue.workflows import Catalog, Diagnostic

from .conftest import ProjectFolder

PLUGIN = """
from pathlib import Path
from types import SimpleNamespace
from pyflue.workflows import Dialect

class Loader:
    def claims(self, path):
        return path.suffix == ".note"

    def load(self, source):
        return SimpleNamespace(name=source.name, kind="note", text=source.path.read_text())

def dialect():
    return Dialect(kind="note", loader=Loader())
"""


def install(site: Path, name: str, entry_points: str) -> None:
    info = site / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "entry_points.txt").write_text(entry_points)


def test_an_installed_dialect_is_found_and_a_broken_one_is_a_diagnostic(
    project: ProjectFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = project.root / "site"
    install(site, "notes", "[console_scripts]\nx = y:z\n\n[pyflue.dialects]\n# ours\nnote = a_note_plugin:dialect\n")
    install(site, "lost", "[pyflue.dialects]\nlost = no_such_plugin:dialect\n[other]\nnote = z:z\n")
    (site / "a_note_plugin.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(site)
    project.write("workflows/hello.note", "Hello")
    project.write("workflows/echo.py")
    catalog = Catalog(project.root)
    assert [(entry.name, entry.kind, entry.error) for entry in catalog.entries()] == [
        ("echo", "python", None),
        ("hello", "note", None),
    ]
    assert catalog.find("hello").text == "Hello"
    project.write("workflows/hello.note", "Goodbye")
    assert catalog.refresh()
    assert catalog.find("hello").text == "Goodbye"
    message = "The dialect 'lost' could not be loaded: ModuleNotFoundError: No module named 'no_such_plugin'"
    assert catalog.diagnostics() == [Diagnostic(path="no_such_plugin:dialect", message=message)]
