"""Workflows and helpers for the tests of the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from click.testing import Result

from pyflue import codec

Cli = Callable[..., Result]

WORKFLOWS = {
    "echo": '''
async def run(ctx):
    """Give back what came."""
    return ctx.payload
''',
    "text": '''
def run(ctx):
    """Give back the payload's text."""
    print("printed by the workflow")
    return ctx.payload["text"]
''',
    "steps": '''
async def run(ctx):
    """Write a few events."""
    for number in range(ctx.payload.get("count", 3)):
        ctx.progress(number / 10, f"step {number}")
        ctx.log.info("working", number=number)
    ctx.log.warn("[bold]careful[/bold] \\x1b[31m", why="a b")
    ctx.emit("row.done", {"rows": [1, 2]})
    return None
''',
    "broken_inside": '''
def divide(by):
    return 1 / by

async def run(ctx):
    """Fail."""
    return divide(0)
''',
    "waits": '''
import asyncio

async def run(ctx):
    """Go on until somebody ends it."""
    ctx.log.info("started")
    await asyncio.Event().wait()
''',
}


def write_workflow(project: Path, name: str, source: str) -> Path:
    path = project / "src" / "workflows" / f"{name}.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source, encoding="utf-8")
    return path


def command_line(arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "pyflue.cli", *arguments]


def spawn(*arguments: str, cwd: Path, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """`pyflue ARGUMENTS` as a process of its own, with pipes."""
    return subprocess.Popen(
        command_line(arguments),
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def json_of(result: Result) -> Any:
    """The JSON a command wrote to stdout."""
    return codec.decode(result.stdout.encode(), "stdout")


def run_id_of(result: Result) -> str:
    """The id that `pyflue run` told on stderr."""
    return next(line for line in result.stderr.splitlines() if line.startswith("run ")).split(" ")[1]


def complete(project: Path, line: str) -> list[str]:
    """What bash is offered at the end of a command line."""
    environ = {
        **os.environ,
        "_PYFLUE_COMPLETE": "bash_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split(" ")) - 1),
    }
    done = subprocess.run(command_line([]), cwd=project, env=environ, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return [item.partition(",")[2] for item in done.stdout.splitlines() if item]
