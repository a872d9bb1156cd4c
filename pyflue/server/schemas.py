"""The shapes of answers, as pydantic models: what the OpenAPI document is generated from (with `inputs.py`).

Nothing is validated with these when a request is answered (answers are made from our own records); the tests check
that what is answered fits them.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

_RUN_ID = "workflow:profile_csv:01KAJ5V3W8Y3N5QZ6E4T9R2M1B"
_AT = "2026-11-21T05:12:44.498334Z"


def _shape(**example: Any) -> ConfigDict:
    return ConfigDict(extra="forbid", json_schema_extra={"examples": [example]})


class Accepted(BaseModel):
    """The run is recorded and will be driven to its end; look at it with its id."""

    model_config = _shape(status="accepted", run_id=_RUN_ID)
    status: Literal["accepted"]
    run_id: str


class Completed(BaseModel):
    """The run has completed."""

    model_config = _shape(status="completed", run_id=_RUN_ID, result={"rows": 3})
    status: Literal["completed"]
    run_id: str
    result: Any


class ErrorBody(BaseModel):
    """What went wrong. `type` is a stable word; `message` is a sentence for people."""

    model_config = _shape(type="run_not_found", message="There is no run 'x'.")
    type: str
    message: str
    details: Any = None
    run_id: str = Field(default="", description="The run this is about, if it is about one.")
    dispatch_id: str = Field(default="", description="The prompt or dispatch this is about, if it is about one.")
    ref: str = Field(default="", description="Only with internal errors: find this in the server's log.")


class ErrorEnvelope(BaseModel):
    """The body of every answer that is an error."""

    model_config = _shape(error={"type": "run_not_found", "message": "There is no run 'x'."})
    error: ErrorBody


class Request(BaseModel):
    """The HTTP request that started a run, without credentials."""

    model_config = ConfigDict(extra="forbid")
    method: str
    url: str
    headers: dict[str, str]
    client: str | None
    #: The name of the token that the caller showed.
    token_name: str | None = None


class RunSummary(BaseModel):
    """A run without its values, as lists show it. Times are RFC 3339 in UTC."""

    model_config = ConfigDict(extra="forbid")
    run_id: str
    workflow: str
    kind: str
    status: Literal["queued", "running", "waiting", "completed", "failed", "cancelled"]
    error: Any = Field(description="Why it failed: `type`, `message` and more; null otherwise.")
    tags: list[str]
    attempt: int = Field(description="Times the run was started: 1, and one more after each crash or stop.")
    owner: str | None = Field(description="The engine that drives it.")
    workflow_version: str
    parent_run_id: str | None
    retried_from: str | None
    forked_from: str | None
    idempotency_key: str | None
    created_at: str = Field(examples=[_AT])
    started_at: str | None
    finished_at: str | None
    deadline_at: str | None
    cancel_requested_at: str | None
    usage: Any
    last_index: int = Field(description="The index of its newest event.")


class WaitRecord(BaseModel):
    """Something that a run waits for."""

    model_config = _shape(
        step="ship", kind="approval", name="ship", since=_AT, due_at=None, approval_id="01KAJ5V3W8Y3N5QZ6E4T9R2M1B"
    )
    step: str = Field(description="The key of the call that waits.")
    kind: Literal["timer", "signal", "approval", "child"]
    name: str = Field(description="The name of the signal or approval, or the id of the run that is waited for.")
    since: str
    due_at: str | None = Field(description="When the wait ends by itself.")
    approval_id: str = Field(default="", description="Only of approvals: what decides it.")


class RunRecord(RunSummary):
    """A run, whole."""

    payload: Any
    result: Any
    request: Request | None
    waiting_for: list[WaitRecord] = Field(description="What a run that is `waiting` waits for; else empty.")


class RunList(BaseModel):
    """Runs, newest first."""

    model_config = ConfigDict(extra="forbid")
    runs: list[RunSummary]
    next: str | None = Field(description="Pass it as `before` for the next page; null at the end.")


class EventRecord(BaseModel):
    """One numbered fact of a run."""

    model_config = _shape(
        stream_id=_RUN_ID, index=2, type="log", at=_AT, data={"level": "info", "message": "3 rows read"}
    )
    stream_id: str
    index: int = Field(description="1, 2, 3 … without gaps; the cursor of every way to read events.")
    type: str
    at: str
    data: Any
    step: str = Field(
        default="",
        description="The attempt at a step that said it, such as `charge/attempt-1`; not there outside of one.",
    )
    interaction_id: str = Field(
        default="", description="The prompt or dispatch that it belongs to; only on the stream of an agent's instance."
    )


class EventList(BaseModel):
    """A part of a run's events, in order."""

    model_config = ConfigDict(extra="forbid")
    events: list[EventRecord]
    next_after: int = Field(description="Pass it as `after` to go on.")


class StepRecord(BaseModel):
    """What a run has recorded of one of its durable calls: a step, a wait, or a value that a replay must find again."""

    model_config = _shape(
        step="charge",
        kind="step",
        name="charge",
        status="completed",
        value={"charged": 42},
        error=None,
        attempts=1,
        started_at=_AT,
        finished_at=_AT,
    )
    step: str = Field(description="Its key: the name, and where in the run it is.")
    kind: str = Field(description="`step`, `sleep`, `signal`, `approval`, `child`, `start`, `now`, `random` or `uuid`.")
    name: str
    status: Literal["completed", "failed", "retrying", "cancelled", "waiting", "expired"]
    value: Any = Field(description="Its result: the data of a signal, the decision on an approval, the child's result.")
    error: Any = Field(description="What it raised: `type`, `message` and more; null otherwise.")
    attempts: int
    started_at: str
    finished_at: str | None


class StepList(BaseModel):
    """A part of a run's durable calls, in the order in which they were recorded; what is waited for comes last."""

    model_config = ConfigDict(extra="forbid")
    steps: list[StepRecord]
    next_after: str | None = Field(description="Pass it as `after` to go on; null if there are no steps.")


class SignalAccepted(BaseModel):
    """The signal is recorded."""

    model_config = _shape(status="delivered", run_id=_RUN_ID, signal="paid")
    status: Literal["delivered", "kept", "repeated"] = Field(
        description="A wait was answered with it; it is kept for the next one; or it had been sent before."
    )
    run_id: str
    signal: str


class DecisionRecord(BaseModel):
    """What somebody has decided."""

    model_config = ConfigDict(extra="forbid")
    approved: bool
    by: str
    at: str
    reason: str | None
    data: Any = Field(description="What was approved: what was asked, unless the decision brought something else.")


class ApprovalRecord(BaseModel):
    """Something that a run asks of people."""

    model_config = ConfigDict(extra="forbid")
    approval_id: str = Field(examples=["01KAJ5V3W8Y3N5QZ6E4T9R2M1B"])
    run_id: str
    workflow: str
    name: str
    step: str
    state: Literal["open", "approved", "rejected", "expired", "cancelled"]
    request: Any = Field(description="What is asked.")
    schema_: dict[str, Any] | None = Field(
        alias="schema", description="The JSON Schema that the data of a decision has to fit, if any."
    )
    digest: str | None = Field(description="Of the request: a decision is for this one and no other.")
    created_at: str
    due_at: str | None = Field(description="After this it cannot be decided any more.")
    decision: DecisionRecord | None


class ApprovalList(BaseModel):
    """Approvals, newest first."""

    model_config = ConfigDict(extra="forbid")
    approvals: list[ApprovalRecord]
    next: str | None = Field(description="Pass it as `before` for the next page; null at the end.")


class WorkflowError(BaseModel):
    """Why a file cannot be used."""

    model_config = ConfigDict(extra="forbid")
    type: str
    message: str
    line: int | None


class WorkflowSummary(BaseModel):
    """A workflow file."""

    model_config = ConfigDict(extra="forbid")
    name: str
    kind: str
    path: str
    description: str
    version: str | None
    error: WorkflowError | None = Field(description="Set if the file cannot be used; the others are not affected.")


class Diagnostic(BaseModel):
    """Something that is wrong with the project's files."""

    model_config = ConfigDict(extra="forbid")
    path: str
    line: int | None
    message: str


class WorkflowList(BaseModel):
    """The project's workflows."""

    model_config = ConfigDict(extra="forbid")
    workflows: list[WorkflowSummary]
    diagnostics: list[Diagnostic]


class GraphNode(BaseModel):
    """A unit of work that the file declares."""

    model_config = ConfigDict(extra="forbid")
    id: str
    label: str
    kind: str


class GraphEdge(BaseModel):
    """One node may follow another."""

    model_config = ConfigDict(extra="forbid")
    source: str
    target: str
    label: str


class Graph(BaseModel):
    """The order of work as far as the file declares it."""

    model_config = ConfigDict(extra="forbid")
    nodes: list[GraphNode]
    edges: list[GraphEdge]


class WorkflowDetail(BaseModel):
    """A workflow with the schemas of its payload and result."""

    model_config = ConfigDict(extra="forbid")
    name: str
    kind: str
    path: str
    description: str
    version: str
    input_schema: dict[str, Any]
    output_schema: dict[str, Any]
    graph: Graph | None


_DISPATCH_ID = "01KAJ5V3W8Y3N5QZ6E4T9R2M1B"
_STREAM_ID = "agent:assistant:customer-42"


class AgentError(BaseModel):
    """Why a file cannot be used."""

    model_config = ConfigDict(extra="forbid")
    type: str
    message: str
    line: int | None


class AgentSummary(BaseModel):
    """An agent file."""

    model_config = ConfigDict(extra="forbid")
    name: str
    path: str
    description: str
    version: str | None
    error: AgentError | None = Field(description="Set if the file cannot be used; the others are not affected.")


class AgentList(BaseModel):
    """The project's agents."""

    model_config = ConfigDict(extra="forbid")
    agents: list[AgentSummary]
    diagnostics: list[Diagnostic]


class AgentDetail(BaseModel):
    """An agent."""

    model_config = _shape(name="assistant", path="src/agents/assistant.py", description="", version="4f1d9c0a")
    name: str
    path: str
    description: str
    version: str


class InstanceSummary(BaseModel):
    """An instance of an agent: there from the first time that somebody talked to it."""

    model_config = ConfigDict(extra="forbid")
    agent: str
    instance_id: str
    stream_id: str = Field(examples=[_STREAM_ID])
    last_index: int = Field(description="The index of its newest event.")
    created_at: str
    updated_at: str = Field(description="The time of its newest event.")


class InstanceList(BaseModel):
    """Instances, newest first."""

    model_config = ConfigDict(extra="forbid")
    instances: list[InstanceSummary]
    next: str | None = Field(description="Pass it as `before` for the next page; null at the end.")


class SessionSummary(BaseModel):
    """A session of an instance: one conversation."""

    model_config = ConfigDict(extra="forbid")
    session: str
    task_of: str | None = Field(description="The session whose task it was for, if it was for one.")
    entries: int
    created_at: str
    updated_at: str


class SessionList(BaseModel):
    """The sessions of an instance, by name."""

    model_config = ConfigDict(extra="forbid")
    sessions: list[SessionSummary]


class InstanceDetail(InstanceSummary):
    """An instance with its sessions."""

    sessions: list[SessionSummary]


class Usage(BaseModel):
    """Tokens and cost."""

    model_config = ConfigDict(extra="forbid")
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    total_tokens: int
    cost_usd: float | None = Field(description="Null if the model's price is not known.")


class AgentReply(BaseModel):
    """What an agent has answered."""

    model_config = ConfigDict(extra="forbid")
    text: str
    data: Any = Field(description="The data of the wanted `schema`; null without one.")
    usage: Usage
    model: str
    turns: int = Field(description="How many times a model was asked.")
    operation_id: str
    session: str


class Prompted(BaseModel):
    """The agent has answered."""

    model_config = ConfigDict(extra="forbid")
    status: Literal["completed"]
    dispatch_id: str = Field(examples=[_DISPATCH_ID])
    stream_id: str
    result: AgentReply


class Receipt(BaseModel):
    """It is recorded, and will be done."""

    model_config = _shape(status="accepted", dispatch_id=_DISPATCH_ID, stream_id=_STREAM_ID, accepted_at=_AT)
    status: Literal["accepted"]
    dispatch_id: str
    stream_id: str
    accepted_at: str


class DispatchSummary(BaseModel):
    """A prompt or dispatch without what was asked and answered, as lists show it."""

    model_config = ConfigDict(extra="forbid")
    dispatch_id: str
    stream_id: str
    status: Literal["queued", "running", "waiting", "completed", "failed", "cancelled"]
    error: Any = Field(description="Why it failed: `type`, `message` and more; null otherwise.")
    usage: Any
    created_at: str
    started_at: str | None
    finished_at: str | None


class DispatchRecord(DispatchSummary):
    """A prompt or dispatch."""

    session: str
    kind: Literal["prompt", "dispatch"]
    result: AgentReply | None
    waiting_for: list[WaitRecord] = Field(description="What one that is `waiting` waits for; else empty.")


class DispatchList(BaseModel):
    """Prompts and dispatches, newest first."""

    model_config = ConfigDict(extra="forbid")
    dispatches: list[DispatchSummary]
    next: str | None = Field(description="Pass it as `before` for the next page; null at the end.")


class HistoryEntry(BaseModel):
    """One entry of a conversation."""

    model_config = ConfigDict(extra="forbid")
    position: int = Field(description="1, 2, 3 … in its session.")
    dispatch_id: str = Field(description="The prompt or dispatch in which it was said.")
    at: str
    entry: dict[str, Any] = Field(description="A message (`role`, `blocks`), or a summary of what was said before.")


class History(BaseModel):
    """A part of a conversation, in order."""

    model_config = ConfigDict(extra="forbid")
    entries: list[HistoryEntry]
    next_after: int = Field(description="Pass it as `after` to go on.")


class Aborted(BaseModel):
    """Whether there was something to end."""

    model_config = _shape(aborted=True, dispatch_id=_DISPATCH_ID)
    aborted: bool
    dispatch_id: str | None


class Health(BaseModel):
    """The server answers."""

    model_config = _shape(ok=True, framework="pyflue", version="0.5.0", running=3, running_limit=1000)
    ok: Literal[True]
    framework: Literal["pyflue"]
    version: str
    running: int = Field(description="Runs that this server drives now.")
    running_limit: int


#: Every shape that the document names.
MODELS: tuple[type[BaseModel], ...] = (
    Aborted,
    Accepted,
    AgentDetail,
    AgentList,
    ApprovalList,
    ApprovalRecord,
    Completed,
    DispatchList,
    DispatchRecord,
    ErrorEnvelope,
    EventList,
    Health,
    History,
    InstanceDetail,
    InstanceList,
    Prompted,
    Receipt,
    RunList,
    RunRecord,
    SessionList,
    SignalAccepted,
    StepList,
    WorkflowDetail,
    WorkflowList,
)
