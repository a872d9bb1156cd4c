"""The engine port: what servers and commands may ask of whatever drives the runs.

`embedded.py` drives runs in this process. A caller submits a workflow with a payload it has parsed, gets a handle, and
waits on the handle or reads the run's events; which process does the work is not its business.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from .. import codec, ids
from ..codec import Raw
from ..journal import Event, Outcome, Run
from .workflow import Workflow

if TYPE_CHECKING:
    from ..journal import Approval, Copies, SignalAnswer
    from .live import Live
    from .resources import Resources

#: Stands for a payload patch that was not given; None is a patch.
NO_PATCH: Any = object()
#: Stands for the data of a decision that was not given; None is a value.
NOT_GIVEN: Any = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A run somebody asks for.

    `payload` is the JSON as it will be stored, `parsed` what `workflow.parse` made of it. `request` is the frozen HTTP
    request (`RequestInfo.to_raw`), None for other callers. `deadline_s` counts from acceptance.
    """

    workflow: Workflow
    payload: Raw
    parsed: Any
    tags: tuple[str, ...] = ()
    deadline_s: float | None = None
    idempotency_key: str | None = None
    request: Raw | None = None
    parent_run_id: str | None = None
    #: How many runs stand above this one.
    depth: int = 0
    retried_from: str | None = None
    forked_from: str | None = None
    #: The records of an earlier run that this one begins with.
    copies: Copies | None = None
    #: What is to be run, if that comes with the request and not from a file: JSON that `definition_of` gives the
    #: workflow. No list of runs and no answer about a run shows it.
    definition: Raw | None = None
    #: The instance of a continuing agent whose interaction this is.
    stream_id: str | None = None
    #: Runs of one lane go one after the other, in the order they were accepted.
    lane: str | None = None
    #: Refuse it if its lane has an unfinished run.
    needs_free_lane: bool = False

    def new_run_id(self) -> str:
        """The id for its run."""
        return ids.new_run_id(self.workflow.name) if self.stream_id is None else ids.new_interaction_id(self.stream_id)

    def digest(self) -> str:
        """What two requests with the same `Idempotency-Key` must have in common."""
        request = [
            self.workflow.name,
            self.retried_from,
            self.forked_from,
            None if self.copies is None else self.copies.until_index,
            Raw(codec.canonical(self.payload)),
            self.tags,
            self.deadline_s,
        ]
        if self.definition is not None:
            request.append(Raw(codec.canonical(self.definition)))
        return hashlib.sha256(codec.encode(request)).hexdigest()


class RunHandle(Protocol):
    """A submitted run, as its submitter sees it."""

    @property
    def run_id(self) -> str: ...

    @property
    def is_repeat(self) -> bool:
        """Whether this is an earlier run with the same `Idempotency-Key`."""
        ...

    async def accepted(self) -> None:
        """Return once the run's record is on disk (for handles of an eager submit; others have waited for it).

        Raises:
            JournalFull, JournalBusy: it could not be written; there is no such run.
        """
        ...

    async def outcome(self) -> Outcome:
        """How the run ended, once that is committed; cancelling the wait leaves the run alone.

        Raises:
            RunStopped: the run goes on in another engine, or after a restart.
            JournalFull, JournalBusy: its record could not be written.
        """
        ...


class Engine(Protocol):
    """Drives runs from acceptance to their end."""

    @property
    def resources(self) -> Resources:
        """What its runs share, closed when they have stopped."""
        ...

    async def submit(self, submission: Submission, *, eager: bool = False) -> RunHandle:
        """Accept a run. Returns after its record is on disk.

        `eager` returns at once and lets the run start while its record is being written: for callers who answer with
        the run's outcome or events. With an idempotency key `eager` is ignored.

        Raises:
            EngineStopping, IdempotencyConflict, SessionBusy, TooLarge, JournalFull, JournalBusy.
        """
        ...

    async def wait(self, run_id: str) -> Run:
        """The run, once it is final, whoever drives it. Bound it with `asyncio.timeout`.

        Raises:
            RunNotFound: no run has this id.
        """
        ...

    async def wait_while_running(self, run_id: str) -> Run:
        """As `wait`, but no longer than this engine runs.

        Raises:
            RunStopped: the engine has stopped before; the run goes on in another one, or after a restart.
        """
        ...

    def events(self, run_id: str, *, after: int = 0) -> AsyncIterator[Event]:
        """A run's events in order, then new ones as they are committed, until `run_end`; each exactly once."""
        ...

    async def cancel(self, run_id: str) -> Run:
        """End a run. Returns it as it is a moment later: final, or still ending in another process.

        Raises:
            RunNotFound; RunFinished: it was final before.
        """
        ...

    async def retry(self, run_id: str, *, idempotency_key: str | None = None) -> RunHandle:
        """Start a new run with the payload and tags of one that failed or was cancelled.

        It takes over what was recorded before the step began that failed.

        Raises:
            IdempotencyConflict: the key was used with another request.
            RunNotFound; RunNotFinished; RunFinished: it completed; WorkflowNotFound; WorkflowInvalid; PayloadInvalid.
        """
        ...

    async def fork(
        self,
        run_id: str,
        *,
        from_step: str,
        payload_patch: Any = NO_PATCH,
        idempotency_key: str | None = None,
    ) -> RunHandle:
        """Start a new run that begins at a step of one that has ended, and takes over what was recorded before.

        `payload_patch` is a JSON merge patch (RFC 7396).

        Raises:
            As `retry`, for completed runs, too; StepNotFound; TooLarge.
        """
        ...

    async def signal(self, run_id: str, name: str, data: Any, *, signal_id: str | None = None) -> SignalAnswer:
        """Send a signal to a run, which its next wait for that name takes. Two with the same id are one.

        Raises:
            RunNotFound; RunFinished; SignalInvalid; SignalConflict.
        """
        ...

    async def decide(
        self, approval_id: str, *, approved: bool, by: str, reason: str | None = None, data: Any = NOT_GIVEN
    ) -> Approval:
        """Decide an approval; returns it as it is then. The same decision once more changes nothing.

        `data` replaces what was asked for, if that can be edited.

        Raises:
            ApprovalNotFound; ApprovalClosed; DecisionInvalid.
        """
        ...

    @property
    def live(self) -> Live:
        """What models are writing in the runs that are driven here."""
        ...

    @property
    def is_accepting(self) -> bool:
        """False once a stop has begun."""
        ...

    def stats(self) -> dict[str, Any]:
        """Numbers for `/health`: `running`, `limit`, `engine_id`."""
        ...
