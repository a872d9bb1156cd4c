"""What tests of several rooms share: values for the journal, workflows made of functions, clocks that can be moved."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyflue import codec
from pyflue.codec import Raw
from pyflue.engine import EmbeddedEngine, FlueContext, Graph, Recovery, Submission, Workflow
from pyflue.errors import WorkflowNotFound
from pyflue.ids import new_run_id
from pyflue.journal import Event, Fence, Journal, NewEvent, NewRun, open_journal
from pyflue.settings import EngineSettings, JournalSettings, Limits


def raw(value: Any) -> Raw:
    """A value as stored JSON."""
    return Raw(codec.encode(value))


def new_run(*, owner: str | None = "engine-1", payload: Any = None, **fields: Any) -> NewRun:
    """A run to accept, of the workflow `greet` unless said otherwise."""
    fields = {"workflow": "greet", "kind": "python", **fields}
    return NewRun(run_id=new_run_id(fields["workflow"]), payload=raw(payload), owner=owner, **fields)


def fence_of(new: NewRun, *, attempt: int = 1) -> Fence:
    """The right to write for a run that was accepted with an owner."""
    assert new.owner is not None
    return Fence(run_id=new.run_id, owner=new.owner, attempt=attempt)


def new_event(kind: str = "log", data: Any = None, *, at_us: int | None = None) -> NewEvent:
    """An event to append."""
    return NewEvent(type=kind, at_us=time.time_ns() // 1000 if at_us is None else at_us, data=raw(data or {}))


def summary(events: list[Event] | tuple[Event, ...]) -> list[tuple[int, str]]:
    """Events as (index, type)."""
    return [(event.index, event.type) for event in events]


@dataclass
class FunctionWorkflow:
    """A workflow as a plug-in might make one: from a function."""

    function: Callable[[FlueContext[Any]], Awaitable[Any]]
    name: str
    version: str = "1"
    kind: str = "function"
    path: Path = Path("function.py")
    description: str = ""
    recovery: Recovery = Recovery.RESUME
    is_strict: bool = False
    input_schema: Mapping[str, Any] = field(default_factory=dict)
    output_schema: Mapping[str, Any] = field(default_factory=dict)

    def parse(self, payload: Any) -> Any:
        return payload

    def graph(self) -> Graph | None:
        return None

    async def run(self, ctx: FlueContext[Any]) -> Any:
        return await self.function(ctx)


class Functions:
    """A workflow source made of functions, by their names."""

    def __init__(self, *functions: Callable[[FlueContext[Any]], Awaitable[Any]]) -> None:
        self.workflows: dict[str, Workflow] = {f.__name__: FunctionWorkflow(f, f.__name__) for f in functions}

    def find(self, name: str) -> Workflow:
        try:
            return self.workflows[name]
        except KeyError:
            raise WorkflowNotFound(name, sorted(self.workflows)) from None

    def refresh(self) -> bool:
        return False


def submission(workflow: Workflow, payload: Any = None, **fields: Any) -> Submission:
    """A request to run a workflow."""
    return Submission(workflow=workflow, payload=raw(payload), parsed=workflow.parse(payload), **fields)


class MovableClock:
    """A clock whose wall time can be set to jump; the monotonic reading goes on as it does."""

    def __init__(self) -> None:
        self.offset_us = 0

    def now_us(self) -> int:
        return time.time_ns() // 1000 + self.offset_us

    def monotonic(self) -> float:
        return time.monotonic()


def journal_at(folder: Path, **settings: Any) -> Journal:
    """A SQLite journal in a folder."""
    return open_journal(f"sqlite:///{folder / '.pyflue' / 'journal.db'}", settings=JournalSettings(**settings))


@asynccontextmanager
async def engine_on(
    journal: Journal, functions: Functions, *, limits: Limits | None = None, adopts: bool = True, **options: Any
) -> AsyncIterator[EmbeddedEngine]:
    """An engine that looks for lost runs often, so that tests need not wait long."""
    settings = options.pop("settings", None) or EngineSettings(adopt_every_s=0.05, cancel_grace_s=0.2, stop_s=1.0)
    engine = EmbeddedEngine(journal, functions, settings=settings, limits=limits, adopts=adopts, **options)
    async with engine:
        yield engine
