"""The `pyflue` command. Each subcommand is a module of its own, imported when it is called."""

from __future__ import annotations

from .app import main

__all__ = ["main"]
