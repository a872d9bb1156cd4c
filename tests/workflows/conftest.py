"""Projects on disk, and a context that keeps what a workflow records."""

from __future__ import annotations

import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pyflue import codec
from pyflue.clock import SystemClock
from pyflue.codec import Raw
from pyflue.engine import FlueContext
from pyflue.engine.calls import Calls
from pyflue.engine.context import Written
from pyflue.engine.slots import Slots
from pyflue.journal import Fence, open_journal
from pyflue.settings import Limits
from pyflue.workflows import Catalog


class Recorded:
    """A recorder that keeps events in a list."""

    log_bytes = 1000
    event_bytes = 10_000

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []

    def event(self, type: str, data: Raw, *, more: Raw | None = None) -> Written:  # noqa: A002  (the port's name)
        self.events.append((type, codec.load(data)))
        return Written()


class ProjectFolder:
    """A project folder to write files into."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, path: str, text: str = "async def run(ctx):\n    return 1\n") -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text), encoding="utf-8")
        return file

    def catalog(self, **options: Any) -> Catalog:
        return Catalog(self.root, **options)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[ProjectFolder]:
    path_before = list(sys.path)
    yield ProjectFolder(tmp_path)
    sys.path[:] = path_before


@pytest.fixture
def signals(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module of the program around, with an event that workflow files can set: `signals.reached`."""
    module = ModuleType("signals")
    module.reached = threading.Event()
    monkeypatch.setitem(sys.modules, "signals", module)
    return module


@pytest.fixture
def recorded() -> Recorded:
    return Recorded()


class Undisturbed:
    """What durable calls need of an engine, for a run that nobody stops."""

    stopped_because = None


@pytest.fixture
async def context(recorded: Recorded) -> AsyncIterator[Callable[..., FlueContext[Any]]]:
    journal = open_journal("memory:")
    fence = Fence(run_id="workflow:x:01", owner="engine-1", attempt=1)

    def make(payload: Any = None) -> FlueContext[Any]:
        calls = Calls(
            fence=fence,
            journal=journal,
            recorder=recorded,
            clock=SystemClock(),
            limits=Limits(),
            slots=Slots(None),
            host=Undisturbed(),
            root=None,
            accepted=None,
            is_strict=False,
        )
        return FlueContext(run_id=fence.run_id, workflow="x", payload=payload, recorder=recorded, calls=calls)

    yield make
    await journal.close()
