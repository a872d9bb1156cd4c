"""The previous release, pyflue 0.2.0, in a virtual environment of its own beside ours.

Its server gets what ours has (uvloop, httptools) and keeps its default in-memory run store. The environment is made at
first use, from the package index, and kept.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

VERSION = "0.2.0"
_FOLDER = Path(__file__).parent.parent / f".venv-pyflue-{VERSION}"


def python() -> Path:
    """The interpreter of the environment; installs it first if need be.

    Raises:
        subprocess.CalledProcessError: pip could not install it.
    """
    interpreter = _FOLDER / "bin" / "python"
    finished = _FOLDER / "installed"
    if not finished.exists():
        print(f"Installing pyflue {VERSION} for comparison …", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", str(_FOLDER)], check=True)
        subprocess.run(
            [str(interpreter), "-m", "pip", "install", "--quiet", f"pyflue=={VERSION}", "uvloop", "httptools"],
            check=True,
        )
        finished.touch()
    return interpreter


def command() -> Path:
    """Its `pyflue` command."""
    return python().with_name("pyflue")
