"""Virtual environments for what PyFlue is compared with: made at first use, from the package index, and kept."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).parent.parent


def interpreter_with(name: str, version: str, *others: str) -> Path:
    """The interpreter of the environment that holds a version of a package; installs it first if need be.

    Raises:
        subprocess.CalledProcessError: pip could not install it.
    """
    folder = _ROOT / f".venv-{name}-{version}"
    interpreter = folder / "bin" / "python"
    finished = folder / "installed"
    if not finished.exists():
        print(f"Installing {name} {version} for comparison …", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(interpreter), "-m", "pip", "install", "--quiet", f"{name}=={version}", *others], check=True)
        finished.touch()
    return interpreter
