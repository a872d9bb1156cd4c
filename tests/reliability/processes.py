"""Real `pyflue` processes on a real project: started, asked over HTTP, killed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import textwrap
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pyflue import codec
from pyflue.client import PyFlueClient
from pyflue.journal import Event, Journal, Run, RunFilter, open_journal

START_S = 30


def make_project(root: Path, **workflows: str) -> Path:
    """A project with workflows given as source text; in them `LOG` is a file each attempt may append to."""
    folder = root / "src" / "workflows"
    folder.mkdir(parents=True)
    for name, source in workflows.items():
        header = f"from pathlib import Path\nLOG = Path({str(root / 'log.txt')!r})\n"
        (folder / f"{name}.py").write_text(header + textwrap.dedent(source), encoding="utf-8")
    return root


class Server:
    """One `pyflue serve` (or `dev`) process."""

    def __init__(self, process: asyncio.subprocess.Process, url: str, lines: list[str]) -> None:
        self.process = process
        self.url = url
        #: What it has logged so far.
        self.lines = lines
        self.client = PyFlueClient(url)

    async def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        await self.client.close()

    async def terminate(self) -> int:
        """SIGTERM; returns the exit code."""
        self.process.terminate()
        code = await self.process.wait()
        await self.client.close()
        return code

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)


async def start(root: Path, command: str = "serve", *options: str) -> Server:
    """Start a server on a free port and wait until it answers."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "pyflue.cli",
        "--project",
        str(root),
        command,
        "--port",
        "0",
        *options,
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYFLUE_ENGINE_ADOPT_EVERY_S": "0.2"},
    )
    assert process.stderr is not None
    lines: list[str] = []
    async with asyncio.timeout(START_S):
        while True:
            line = (await process.stderr.readline()).decode()
            if not line:
                raise AssertionError(f"pyflue {command} did not start: {''.join(lines)}")
            lines.append(line)
            if '"listening"' in line:
                break
    server = Server(process, codec.load(line.encode())["url"], lines)
    asyncio.get_running_loop().create_task(_collect(process.stderr, lines))
    return server


async def _collect(stream: asyncio.StreamReader, lines: list[str]) -> None:
    while line := await stream.readline():
        lines.append(line.decode())


@asynccontextmanager
async def running(root: Path, command: str = "serve", *options: str) -> AsyncIterator[Server]:
    """A server that is killed at the end, if it still is there."""
    server = await start(root, command, *options)
    try:
        yield server
    finally:
        await server.kill()


@asynccontextmanager
async def reading(root: Path) -> AsyncIterator[Journal]:
    """The project's journal, read beside whatever runs."""
    journal = open_journal(f"sqlite:///{root / '.pyflue' / 'journal.db'}", read_only=True)
    try:
        yield journal
    finally:
        await journal.close()


async def all_runs(journal: Journal) -> list[Run]:
    """Every run there is, with its values."""
    runs: list[Run] = []
    before: int | None = None
    while True:
        page = await journal.runs(RunFilter(), before=before, limit=200)
        for head in page.runs:
            run = await journal.run(head.run_id)
            assert run is not None
            runs.append(run)
        if page.next_before is None:
            return runs
        before = page.next_before


async def until_final(journal: Journal, run_ids: Sequence[str], *, timeout_s: float = 60) -> list[Run]:
    """Wait until runs are final, and return them."""
    runs: list[Run] = []
    async with asyncio.timeout(timeout_s):
        for run_id in run_ids:
            with journal.watch(run_id) as bell:
                while (run := await journal.run(run_id)) is None or not run.is_final:
                    await bell.wait()
            runs.append(run)
    return runs


async def whole_record(journal: Journal, run: Run) -> list[Event]:
    """A final run's events, after a look that they are dense and end once."""
    events = list(await journal.events(run.run_id, limit=2**31))
    assert [event.index for event in events] == list(range(1, run.last_index + 1)), run.run_id
    assert [event.index for event in events if event.type == "run_end"] == [run.last_index], run.run_id
    return events


def value(raw: Any) -> Any:
    """Stored JSON as a value."""
    return None if raw is None else codec.load(raw)
