"""The previous release, pyflue 0.2.0, in a virtual environment of its own beside ours.

Its server gets what ours has (uvloop, httptools) and keeps its default in-memory run store.
"""

from __future__ import annotations

from pathlib import Path

from .environments import interpreter_with

VERSION = "0.2.0"


def python() -> Path:
    """The interpreter of its environment.

    Raises:
        subprocess.CalledProcessError: pip could not install it.
    """
    return interpreter_with("pyflue", VERSION, "uvloop", "httptools")


def command() -> Path:
    """Its `pyflue` command."""
    return python().with_name("pyflue")
