"""The public names are a list of promises: what can be imported, what `__all__` says and what the reference shows."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import pyflue

_REFERENCE = Path(__file__).parent.parent / "docs" / "reference.md"


def test_the_public_names_are_exactly_the_documented_ones() -> None:
    assert set(pyflue.__all__) == _public_names(pyflue) == _names_listed_in(_REFERENCE)


def test_the_names_are_sorted_and_can_be_imported_at_once() -> None:
    assert pyflue.__all__ == sorted(pyflue.__all__)
    namespace: dict[str, object] = {}
    exec("from pyflue import *", namespace)
    assert set(pyflue.__all__) <= namespace.keys()


def test_a_name_that_is_not_there_is_an_import_error() -> None:
    with pytest.raises(ImportError, match="create_flow"):
        exec("from pyflue import create_flow")


def test_importing_the_package_imports_nothing_heavy() -> None:
    heavy = {
        "anthropic",
        "apsw",
        "asyncio",
        "httpx2",
        "msgspec",
        "pydantic",
        "rich",
        "starlette",
        "structlog",
        "uvicorn",
    }
    script = "import sys, pyflue; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert heavy.isdisjoint(loaded)


def _public_names(module: ModuleType) -> set[str]:
    """What `dir` shows of our own: no modules, nothing that is only used inside."""
    public = {name for name in dir(module) if not name.startswith("_")}
    return {name for name in public if str(getattr(getattr(module, name), "__module__", "")).startswith("pyflue.")}


def _names_listed_in(page: Path) -> set[str]:
    return set(re.findall(r"^## `(\w+)", page.read_text(encoding="utf-8"), re.MULTILINE))
