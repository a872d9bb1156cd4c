"""One attempt at one run: calls the workflow, notes why it was stopped, and knows how it ended.

Made by the engine, which also commits the outcome. Knows nothing of other runs.
"""

from __future__ import annotations

import asyncio
from enum import StrEnum
from pathlib import Path
from typing import Any

from .. import codec
from ..clock import rfc3339, to_datetime
from ..errors import PyFlueError, RunStopped, RunTimedOut, TooLarge
from ..journal import Fence, Outcome, RunStatus
from ..settings import Limits
from . import failures
from .calls import Calls
from .context import FlueContext
from .recorder import JournalRecorder
from .scopes import inside
from .workflow import Workflow


class StopReason(StrEnum):
    """Why an attempt is ended from outside."""

    CANCEL = "it was cancelled"
    DEADLINE = "it passed its deadline"
    SHUTDOWN = "the engine is stopping"
    LOST = "it belongs to another engine"
    UNWRITTEN = "its record could not be written"
    FAILED = "it has failed"


class Drive:
    """The work on one attempt, and those who wait for its end."""

    __slots__ = (
        "__weakref__",
        "_has_begun",
        "_root",
        "_settled",
        "_waiters",
        "calls",
        "context",
        "deadline_us",
        "error",
        "failure",
        "fence",
        "is_over",
        "recorder",
        "stop_reason",
        "task",
        "workflow",
    )

    def __init__(
        self,
        *,
        fence: Fence,
        workflow: Workflow,
        deadline_us: int | None,
        root: Path | None = None,
    ) -> None:
        self.fence = fence
        self.workflow = workflow
        #: Set by the engine before the work begins.
        self.context: FlueContext[Any]
        self.recorder: JournalRecorder
        self.calls: Calls
        self.deadline_us = deadline_us
        self._root = root
        self.task: asyncio.Task[None] | None = None
        self.stop_reason: StopReason | None = None
        #: What the journal said when a record of this attempt could not be stored.
        self.error: Exception | None = None
        #: What the run fails with, whatever its code makes of it.
        self.failure: PyFlueError | None = None
        #: Set by whoever commits the end, so that it is done once.
        self.is_over = False
        self._has_begun = False
        self._settled: Outcome | Exception | None = None
        self._waiters: list[asyncio.Future[Outcome]] = []

    def when_over(self) -> asyncio.Future[Outcome]:
        """Resolves with the outcome once that is committed; cancelling the future leaves the attempt alone.

        Raises (from the future): `RunStopped` if the run goes on elsewhere or later, or the journal's error.
        """
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        if self._settled is None:
            self._waiters.append(future)
        else:
            _settle(future, self._settled)
        return future

    def settle(self, end: Outcome | Exception) -> None:
        """Tell everybody who waits."""
        self._settled = end
        for future in self._waiters:
            if not future.done():
                _settle(future, end)
        self._waiters.clear()

    def stop(self, reason: StopReason) -> None:
        """End the work for a reason; the first reason counts. To be called on the event loop."""
        if self.stop_reason is not None:
            return  # it is ending; a second cancellation would cut its cleaning up short
        self.stop_reason = reason
        # A task that is cancelled before its first step would end without a trace: `work` sees the reason instead.
        if self.task is not None and self._has_begun and not self.is_over:
            self.task.cancel()

    def fail(self, failure: PyFlueError) -> None:
        """End the run with an error of ours, whatever its code makes of that."""
        self.failure = self.failure or failure
        self.stop(StopReason.FAILED)

    def give_up(self, error: Exception) -> None:
        """End the attempt, because a record of it was refused."""
        if isinstance(error, RunStopped):
            self.stop(StopReason.LOST)
        else:
            self.error = self.error or error
            self.stop(StopReason.UNWRITTEN)

    async def work(self, limits: Limits) -> Outcome | None:
        """Run the workflow to its outcome; None if the run does not end here (it is handed back, or lost).

        Whatever a workflow raises ends up in its record, `SystemExit` and `KeyboardInterrupt` included: this is the
        boundary to foreign code.
        """
        if self.stop_reason is not None:
            return self.stopped()
        self._has_begun = True
        name = self.workflow.name
        try:
            with inside(self.calls.scope):
                value = await self.workflow.run(self.context)
            result = codec.encode_value(value, f"The result of workflow {name!r}", max_depth=limits.json_depth)
            size = len(memoryview(result))
            if size > limits.payload_bytes:
                raise TooLarge(f"The result of workflow {name!r}", size, limits.payload_bytes, "limits.payload_bytes")
            outcome = Outcome(status=RunStatus.COMPLETED, result=result)
        except asyncio.CancelledError as error:
            outcome = self.stopped() if self.stop_reason is not None else _author_cancelled(error, self._root)
        except BaseException as error:  # noqa: BLE001
            outcome = Outcome(status=RunStatus.FAILED, error=failures.describe(error, self._root))
        if self.failure is not None:
            return failed(self.failure, self._root)
        if self.stop_reason is None or outcome is None:
            return outcome
        # What it made of being stopped is not its outcome, not even a result.
        return self.stopped()

    def stopped(self) -> Outcome | None:
        """The outcome that follows from the reason this attempt was stopped for."""
        match self.stop_reason:
            case StopReason.CANCEL:
                return Outcome(status=RunStatus.CANCELLED)
            case StopReason.DEADLINE:
                at = rfc3339(to_datetime(self.deadline_us or 0))
                return failed(RunTimedOut(self.fence.run_id, at))
            case StopReason.FAILED if self.failure is not None:
                return failed(self.failure, self._root)
            case _:
                return None


def failed(error: PyFlueError, root: Path | None = None) -> Outcome:
    """The outcome of a run that we end with one of our errors."""
    return Outcome(status=RunStatus.FAILED, error=failures.describe(error, root))


def _settle(future: asyncio.Future[Outcome], end: Outcome | Exception) -> None:
    if isinstance(end, Exception):
        future.set_exception(end)
        future.exception()  # not everybody who asked still listens, and asyncio would complain of that
    else:
        future.set_result(end)


def _author_cancelled(error: asyncio.CancelledError, root: Path | None) -> Outcome:
    reason = PyFlueError(
        "The workflow raised asyncio.CancelledError, though nobody had cancelled it.", type="exception"
    )
    return Outcome(status=RunStatus.FAILED, error=failures.describe(reason.with_traceback(error.__traceback__), root))
