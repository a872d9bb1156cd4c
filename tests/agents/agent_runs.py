"""What tests of agents in runs share: a project, its journal, engines on it, and models that note what they are asked.

A `Stage` is one project with one journal. `Asked` is a scripted model's answers and everything that it was asked.
A `Recording` gives the journal as it was on disk after each of its commits: what kill -9 would have left there.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from pyflue import codec
from pyflue.agents import create_agent
from pyflue.agents.content import Message, Text, ToolResult, Usage
from pyflue.agents.definitions import CreatedAgent
from pyflue.agents.models.port import ModelReply, ModelRequest, StopReason, StreamItem, TextDelta
from pyflue.agents.models.scripted import Answer, ScriptedModel
from pyflue.agents.room import AgentRoom
from pyflue.engine import EmbeddedEngine
from pyflue.journal import Approval, Event, Journal, Run
from pyflue.settings import GROUPS, Settings
from tests.engine.durable import Function, asked, data_of, ended, types_of
from tests.support import Functions, engine_on, journal_at, submission


class Stage:
    """A project with a journal."""

    def __init__(self, root: Path, **settings: dict[str, Any]) -> None:
        """`settings` are groups of settings: `agent={"model_retries": 0}`."""
        self.root = root
        self.journal: Journal = journal_at(root)
        self.settings = Settings(root=root)
        self.set(**settings)

    def set(self, **settings: dict[str, Any]) -> None:
        """Choose settings of groups."""
        groups = {name: GROUPS[name](**values) for name, values in settings.items()}
        self.settings = replace(self.settings, **groups)

    @asynccontextmanager
    async def engine(self, *functions: Function, **options: Any) -> AsyncIterator[EmbeddedEngine]:
        """An engine with functions for workflows."""
        room = AgentRoom(self.settings)
        async with engine_on(self.journal, Functions(*functions), agents=room, **options) as engine:
            yield engine

    async def run(self, function: Function, *others: Function, payload: Any = None, **options: Any) -> Run:
        """The run of a function, once it is final."""
        async with self.engine(function, *others, **options) as engine:
            return await ended(engine, await self.submit(engine, function, payload))

    async def submit(self, engine: EmbeddedEngine, function: Function, payload: Any = None) -> str:
        """Start the run of a function."""
        workflow = Functions(function).find(function.__name__)
        return (await engine.submit(submission(workflow, payload))).run_id

    @asynccontextmanager
    async def interrupted(self, function: Function, payload: Any = None, **options: Any) -> AsyncIterator[str]:
        """A run whose engine stops at the end of the block; its id."""
        async with self.engine(function, **options) as engine:
            yield await self.submit(engine, function, payload)

    async def resume(self, run_id: str, *functions: Function, **options: Any) -> Run:
        """A run, once another engine has driven it to its end."""
        async with self.engine(*functions, **options) as engine:
            return await ended(engine, run_id)

    async def until(self, run_id: str, type_: str, *, count: int = 1) -> None:
        """Return when a run has so many events of a type."""
        async with asyncio.timeout(10):
            with self.journal.watch(run_id) as bell:
                while len(await self.journal.events(run_id, types=[type_])) < count:
                    await bell.wait()

    async def told(self, run_id: str, type_: str) -> list[dict[str, Any]]:
        """The data of a run's events of one type."""
        return await data_of(self.journal, run_id, type_)

    async def types(self, run_id: str) -> list[str]:
        return await types_of(self.journal, run_id)

    async def approval(self, run_id: str) -> Approval:
        """The open approval of a run, once it has asked."""
        return await asked(self.journal, run_id)

    async def conversation(self, run_id: str, session: str = "agent/default") -> list[dict[str, Any]]:
        """What the journal holds of a session."""
        return [codec.load(entry.entry) for entry in await self.journal.entries(run_id, session)]

    async def close(self) -> None:
        await self.journal.close()


class Asked:
    """The answers of a scripted model, and the requests it got."""

    def __init__(self, answers: Sequence[Answer] | Callable[[ModelRequest], Any], **options: Any) -> None:
        self._answers = answers
        self.requests: list[ModelRequest] = []
        self.model = ScriptedModel(self._answer, **options)

    def _answer(self, request: ModelRequest) -> Any:
        self.requests.append(request)
        if callable(self._answers):
            return self._answers(request)
        return self._answers[sum(message.role == "assistant" for message in request.messages)]

    @property
    def count(self) -> int:
        """How often it was asked."""
        return len(self.requests)

    @property
    def messages(self) -> list[Sequence[Message]]:
        """The messages of each request."""
        return [request.messages for request in self.requests]

    def agent(self, **config: Any) -> CreatedAgent:
        """An agent that has it for its model."""
        return create_agent(lambda: {"model": self.model, **config})


class Spoken:
    """A model that says its pieces one by one, when it is let."""

    provider = "scripted"
    id = "scripted/spoken"
    context_tokens = None
    has_schema_mode = True

    def __init__(self, *pieces: str, is_cut: bool = False) -> None:
        """With `is_cut` its stream ends without a reply."""
        self._pieces = pieces
        self._is_cut = is_cut
        self.gates = [asyncio.Event() for _ in pieces]
        self._last = asyncio.Event()
        self._spoken = 0
        self._said = asyncio.Condition()
        #: Whether its stream was closed before it had ended.
        self.is_closed = False

    async def stream(self, request: ModelRequest) -> AsyncGenerator[StreamItem]:
        try:
            for piece, gate in zip(self._pieces, self.gates, strict=True):
                await gate.wait()
                yield TextDelta(piece)
                async with self._said:
                    self._spoken += 1
                    self._said.notify_all()
        except (GeneratorExit, asyncio.CancelledError):
            self.is_closed = True
            raise
        if self._is_cut:
            # Not before everybody has heard what it said.
            await self._last.wait()
            return
        yield ModelReply(
            blocks=(Text("".join(self._pieces)),),
            stop_reason=StopReason.END,
            usage=Usage(input_tokens=9, output_tokens=1),
            model=self.id,
        )

    async def speak(self) -> None:
        """Let it say the next piece, and return when that has been heard."""
        number = self._spoken
        self.gates[number].set()
        async with self._said:
            await self._said.wait_for(lambda: self._spoken > number)

    def speak_all(self) -> None:
        """Let it say the rest."""
        for gate in self.gates:
            gate.set()
        self._last.set()

    async def close(self) -> None:
        """Nothing to close."""


def told_plainly(events: Sequence[Event]) -> list[tuple[str, dict[str, Any]]]:
    """Events as (type, data), without how long things took."""
    told: list[tuple[str, dict[str, Any]]] = []
    for event in events:
        data = codec.load(event.data)
        data.pop("duration_ms", None)
        told.append((event.type, data))
    return told


def last_text(request: ModelRequest) -> str:
    """What was said last."""
    return request.messages[-1].text


def results_told(request: ModelRequest) -> list[tuple[str, bool]]:
    """The results of tools that the last message holds: their texts, and whether they are errors."""
    return [
        ("".join(part.text for part in block.content if isinstance(part, Text)), block.is_error)
        for block in request.messages[-1].blocks
        if isinstance(block, ToolResult)
    ]


def calls(*tool_calls: tuple[str, Any] | dict[str, Any], text: str = "") -> dict[str, Any]:
    """An answer that calls tools."""
    return {"text": text, "tool_calls": list(tool_calls)}


async def dense(journal: Journal, run: Run) -> list[Event]:
    """A final run's events, after a look that they are dense and end once."""
    events = list(await journal.events(run.run_id, limit=2**31))
    assert [event.index for event in events] == list(range(1, run.last_index + 1))
    assert [event.index for event in events if event.type == "run_end"] == [run.last_index]
    return events


# Crashes

_COPY = "import shutil, sys; shutil.copyfile(sys.argv[1], sys.argv[2])"


def _copy(source: Path, target: Path) -> None:
    # In a process of its own: closing a descriptor of a database file drops the locks that SQLite has on it here.
    subprocess.run([sys.executable, "-c", _COPY, str(source), str(target)], check=True)


class Recording:
    """All commits of a journal from now on, as its write-ahead log holds them."""

    def __init__(self, root: Path, folder: Path) -> None:
        self._journal = root / ".pyflue" / "journal.db"
        self._folder = folder
        folder.mkdir()
        _copy(self._journal, folder / "journal.db")

    def end(self) -> None:
        """Take the log; before the journal is closed, which would empty it."""
        _copy(self._journal.with_name("journal.db-wal"), self._folder / "journal.db-wal")

    def crashes(self) -> Iterator[Path]:
        """Projects whose journal is what was on disk after each commit."""
        for number in range(self.commits):
            yield self.crash(number)

    def crash(self, number: int) -> Path:
        """The project as it was after one commit."""
        log = (self._folder / "journal.db-wal").read_bytes()
        root = self._folder / f"crash-{number}"
        (root / ".pyflue").mkdir(parents=True)
        shutil.copyfile(self._folder / "journal.db", root / ".pyflue" / "journal.db")
        (root / ".pyflue" / "journal.db-wal").write_bytes(log[: _commits(log)[number]])
        return root

    @property
    def commits(self) -> int:
        """How many there were."""
        return len(_commits((self._folder / "journal.db-wal").read_bytes()))


def _commits(log: bytes) -> list[int]:
    """Where each commit of a write-ahead log ends (https://sqlite.org/fileformat2.html#walformat)."""
    page_bytes = int.from_bytes(log[8:12], "big")
    salt = log[16:24]
    ends: list[int] = []
    at = 32
    while at + 24 + page_bytes <= len(log) and log[at + 8 : at + 16] == salt:
        is_commit = log[at + 4 : at + 8] != b"\0\0\0\0"
        at += 24 + page_bytes
        if is_commit:
            ends.append(at)
    return ends
