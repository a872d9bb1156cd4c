"""Sandboxes of every kind for tests, and a look at the processes of this machine."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from uuid import uuid4

import pytest

from pyflue.agents.sandboxes import Sandbox, SandboxLimits, make_sandbox
from pyflue.errors import SandboxUnavailable

KINDS = ("virtual", "local", "isolated")
HOSTED = ("local", "isolated")


async def sandbox_of(kind: str, root: Path, *, limits: SandboxLimits | None = None) -> Sandbox:
    """A sandbox of a kind; the test is skipped where `isolated` cannot be had."""
    try:
        return await make_sandbox(kind, root=root, limits=limits)
    except SandboxUnavailable as error:
        if kind != "isolated":
            raise
        if os.environ.get("CI") == "true" and shutil.which("bwrap") is not None:
            pytest.fail(f"CI must be able to run bubblewrap: {error}")
        pytest.skip(f"the sandbox 'isolated' is not to be had here: {error}")


def new_mark() -> str:
    """A number of seconds that no other process sleeps for."""
    return str(uuid4().int % 10**9 + 10**9)


def processes_with(word: str) -> list[str]:
    """Command lines of this machine's processes that hold a word."""
    found: list[str] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if word in line:
                found.append(line)
    return found
