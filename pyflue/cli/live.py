"""What `pyflue run` shows on stderr while the run goes on: a line that changes, lines as they happen, or nothing."""

from __future__ import annotations

import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..journal import EventType
from .events import EventJson, plain_detail, pretty_line
from .output import say, shown

if TYPE_CHECKING:
    from rich.progress import Progress

#: Events of durable calls that a watcher wants to see while they last, and what to put before them.
_SHOWN = {
    EventType.STEP_START: "",
    EventType.STEP_RETRY: "",
    EventType.RUN_WAITING: "waits ",
    EventType.TURN_REQUEST: "",
    EventType.TOOL_START: "",
}
#: Runs that end sooner are shown without a line that flashes up (and without the time it takes to import rich).
_QUIET_S = 0.3


class Reporter:
    """Tells the person at the terminal what concerns them; of the run's events nobody would see anything."""

    #: Whether `show` is to be called with the run's events.
    wants_events = False

    def show(self, event: EventJson) -> None:
        """Show an event."""

    def say(self, line: str) -> None:
        """Write a line to stderr."""
        say(line)


@contextmanager
def reporter(workflow: str, *, stream: bool) -> Generator[Reporter, None, None]:
    """What shows a run, for its length."""
    if stream:
        yield _Lines()
    elif not sys.stderr.isatty():
        yield Reporter()
    else:
        line = _LiveLine(workflow)
        try:
            yield line
        finally:
            line.close()


class _Lines(Reporter):
    """A line for each event."""

    wants_events = True

    def show(self, event: EventJson) -> None:
        say(pretty_line(event))


class _LiveLine(Reporter):
    """Name, progress, latest message and elapsed time of a run, on one line.

    It is drawn by threads of its own, so that it goes on while a workflow blocks the event loop.
    """

    wants_events = True

    def __init__(self, workflow: str) -> None:
        self._workflow = workflow
        self._fraction: float | None = None
        self._message = ""
        self._progress: Progress | None = None
        self._lock = threading.Lock()
        self._is_closed = False
        self._opening = threading.Timer(_QUIET_S, self._open)
        self._opening.daemon = True
        self._opening.start()

    def _open(self) -> None:
        progress = _new_progress()
        with self._lock:
            if not self._is_closed:
                self._progress = progress
                progress.add_task(self._text())
                progress.start()

    def close(self) -> None:
        """Take the line away."""
        self._opening.cancel()
        with self._lock:
            self._is_closed = True
            if self._progress is not None:
                self._progress.stop()

    def show(self, event: EventJson) -> None:
        data = event["data"]
        if event["type"] == "progress":
            self._fraction = data["fraction"]
            self._message = data["message"] or self._message
        elif event["type"] == "log":
            self._message = data["message"]
        elif event["type"] in _SHOWN:
            self._message = _SHOWN[event["type"]] + plain_detail(event)
        else:
            return
        if self._progress is not None:
            self._progress.update(self._progress.task_ids[0], description=self._text())

    def say(self, line: str) -> None:
        """Write a line to stderr, above the one that changes."""
        with self._lock:
            if self._progress is None:
                say(line)
            else:
                self._progress.console.print(line, markup=False, emoji=False, soft_wrap=True)

    def _text(self) -> str:
        parts = [self._workflow, "" if self._fraction is None else f"{self._fraction:.0%}", self._message[:200]]
        return shown("  ".join(part for part in parts if part))


def _new_progress() -> Progress:
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.table import Column

    text = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis"))
    # The run's own prints go to stderr anyway; rich must not put itself in their way.
    return Progress(
        SpinnerColumn(),
        text,
        TimeElapsedColumn(),
        console=Console(stderr=True, highlight=False),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=True,
    )
