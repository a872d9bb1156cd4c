"""What the HTTP API asks of whatever runs flows, and what it is told: values with plain names, no wire spelling.

`http.py` speaks camelCase with clients and asks a `Backend`; `client.py` reads answers back into the same values.
Adapters implement `Backend` and do not inherit from it. Ids of runs are UUIDs (version 7) here; on a project's engine a
run id is `workflow:<name>:<ulid>`, and the UUID holds the same 128 bits as that ULID (`uuid_of`, `ulid_of`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol
from uuid import UUID

from ..errors import PyFlueError
from .outcome import Outcome
from .plugins.port import ComponentInfo

#: How many runs a list holds if it is not asked for fewer or more, and at the most.
DEFAULT_LIMIT = 100
LARGEST_LIMIT = 1000

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_VALUES = {letter: value for value, letter in enumerate(_CROCKFORD)}


class RunStatus(StrEnum):
    """The words for a run and for an item of it."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    PAUSED = "paused"

    @property
    def is_final(self) -> bool:
        return self is not RunStatus.RUNNING and self is not RunStatus.PAUSED


class StepStatus(StrEnum):
    """The words for a step."""

    BLOCKED = "blocked"
    RUNNABLE = "runnable"
    RUNNING = "running"
    COMPLETED = "completed"
    SKIPPED = "skipped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemCounts:
    """How far the items of a run are."""

    total: int
    completed: int = 0
    running: int = 0
    failed: int = 0
    cancelled: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """A run of one flow with one input or several. Times are RFC 3339 texts."""

    run_id: str
    flow_id: str
    status: RunStatus
    items: ItemCounts
    created_at: str
    flow_name: str | None = None
    flow_label: str | None = None
    completed_at: str | None = None
    #: The run that a person or program asked for, and the one right above; the former is this run itself at the top.
    root_run_id: str | None = None
    parent_run_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDetails:
    """A run with what it was given."""

    summary: RunSummary
    inputs: Sequence[Any]
    overrides: Mapping[str, Any] | None = None
    #: Secret ones are `[REDACTED]`.
    variables: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemView:
    """What became of one input; `outcome` is None until it has one."""

    item_index: int
    status: RunStatus
    outcome: Outcome | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepView:
    """A step of a run (of its first item, if it has several)."""

    step_index: int
    step_id: str
    component: str
    status: StepStatus
    outcome: Outcome | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowView:
    """A stored flow as it is written again, and the examples it offers (`{"name", "description"?, "input"}`)."""

    flow: Mapping[str, Any]
    flow_id: str
    examples: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFlow:
    """What came of storing a flow: no id if a diagnostic is fatal.

    `diagnostics` is what validation answers over the wire: `{"diagnostics", "numFatal", "numError", "numWarning"}`.
    """

    flow_id: str | None
    diagnostics: Mapping[str, Any]
    is_stored: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRun:
    """A run that is asked for: of a stored flow, once for each input."""

    flow_id: str
    inputs: Sequence[Any]
    #: As they came: by step id, with or without `steps` around that.
    overrides: Mapping[str, Any] | None = None
    variables: Mapping[str, Any] | None = None
    #: How many steps may be under way at once, over all items; None leaves it to the backend.
    max_concurrency: int | None = None
    #: Requests with the same key start one run.
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StartedRun:
    """A run as it is when its start is answered; `outcome` if it has ended and has one item."""

    run_id: str
    status: RunStatus
    outcome: Outcome | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunsWanted:
    """Which runs a list holds, newest first. With a root, that one and all below it, down to `max_depth`."""

    status: RunStatus | None = None
    flow_id: str | None = None
    flow_name: str | None = None
    flow_label: str | None = None
    root_run_id: str | None = None
    parent_run_id: str | None = None
    max_depth: int | None = None
    limit: int = DEFAULT_LIMIT
    offset: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentsFound:
    """The components that can be reached, by the paths that flows write; and the plugins that could not be asked."""

    components: Sequence[ComponentInfo]
    #: Why, by the name of the plugin.
    failures: Mapping[str, str] = field(default_factory=dict[str, str])


class FlowNotFound(PyFlueError):
    """There is no flow of this id."""

    type = "flow_not_found"

    def __init__(self, flow_id: str) -> None:
        super().__init__(f"Workflow '{flow_id}' not found")


class NotAFlow(PyFlueError):
    """What is stored under this id is not a flow, or the id is not one."""

    type = "not_a_flow"


class RunRefused(PyFlueError):
    """A run that cannot be built: its overrides or variables do not fit the flow."""

    type = "run_refused"


class Backend(Protocol):
    """Stores flows and runs them.

    Raises (wherever an id is given): `FlowNotFound`, `NotAFlow`, `RunNotFound` of `pyflue.errors`.
    """

    #: The largest body of a request.
    limit_bytes: int

    async def components(self) -> ComponentsFound:
        """What flows can call. Plugins that have not been used yet are started by this."""
        ...

    async def store_flow(self, flow: Any, *, dry_run: bool = False) -> StoredFlow:
        """Look a flow over, and keep it if nothing about it is fatal; with `dry_run` it is only looked over.

        Raises:
            FlowMalformed: it is no flow.
        """
        ...

    async def flow(self, flow_id: str) -> FlowView:
        """A stored flow."""
        ...

    async def submit(self, new: NewRun) -> str:
        """Start a run and return its id once it is recorded.

        Raises:
            RunRefused, LanguageError; EngineStopping, IdempotencyConflict (of `pyflue.errors`).
        """
        ...

    async def start(self, new: NewRun, *, wait_s: float | None = None) -> StartedRun:
        """As `submit`; with `wait_s` it returns once the run has ended, or that time is over.

        What a client that waits for one answer is given, so worth a short way. A server that is about to stop does not
        wait any longer. Who stops waiting leaves the run as it is.
        """
        ...

    async def wait(self, run_id: str, timeout_s: float) -> bool:
        """Wait for the end of a run; False if it has not come by then, or the server is about to stop."""
        ...

    async def run(self, run_id: str) -> RunDetails:
        """A run as it is now."""
        ...

    async def items(self, run_id: str) -> Sequence[ItemView]:
        """All items of a run by their index, those without an outcome yet as well."""
        ...

    async def steps(self, run_id: str) -> Sequence[StepView]:
        """The steps of a run in the order of the document, as far as they are known."""
        ...

    async def run_flow(self, run_id: str) -> FlowView:
        """The flow of a run, before overrides."""
        ...

    async def runs(self, wanted: RunsWanted) -> Sequence[RunSummary]:
        """Runs, newest first."""
        ...

    async def cancel(self, run_id: str) -> RunSummary:
        """Ask for the end of a run.

        Raises:
            RunFinished: it has ended.
        """
        ...

    async def delete(self, run_id: str) -> None:
        """Remove a run that has ended.

        Raises:
            RunNotFinished: it has not.
        """
        ...


async def start_by_parts(backend: Backend, new: NewRun, *, wait_s: float | None) -> StartedRun:
    """`Backend.start` for backends without a shorter way."""
    run_id = await backend.submit(new)
    if wait_s is None or not await backend.wait(run_id, wait_s):
        return StartedRun(run_id=run_id, status=RunStatus.RUNNING)
    status = (await backend.run(run_id)).summary.status
    outcome = (await backend.items(run_id))[0].outcome if len(new.inputs) == 1 else None
    return StartedRun(run_id=run_id, status=status, outcome=outcome)


def ulid_of(uuid: str) -> str | None:
    """The ULID of the same 128 bits, to make a run id of; None if the text is no UUID in its usual form."""
    try:
        bits = UUID(uuid)
    except ValueError:
        return None
    if len(uuid) not in {32, 36}:  # `UUID` also takes braces and `urn:uuid:`
        return None
    return "".join(_CROCKFORD[bits.int >> shift & 31] for shift in range(125, -1, -5))


def uuid_of(ulid: str) -> str:
    """The UUID of the same 128 bits as a ULID. Of version 7 if that was made of one."""
    bits = 0
    for letter in ulid:
        bits = bits << 5 | _VALUES[letter]
    text = f"{bits & (1 << 128) - 1:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
