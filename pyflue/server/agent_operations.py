"""What the server answers to about continuing agents, as `operations.py` has it of workflows and runs."""

from __future__ import annotations

from collections.abc import Sequence

from .. import errors
from ..errors import PyFlueError
from .operation import (
    AFTER,
    EVENT_STREAM,
    IDEMPOTENCY_KEY,
    JSON,
    LAST_EVENT_ID,
    TEXT,
    WORDS,
    Body,
    Operation,
    Parameter,
    Reply,
    query,
)

_NAME = Parameter(name="name", place="path", about="The name of an agent.", schema=TEXT, example="assistant")
_INSTANCE_ID = Parameter(
    name="instance_id",
    place="path",
    about="The id of an instance, which callers choose: 1 to 128 letters, digits and `._~@+=-`.",
    schema=TEXT,
    example="customer-42",
)
_SESSION = Parameter(name="session", place="path", about="The name of a session.", schema=TEXT, example="default")
_DISPATCH_ID = Parameter(
    name="dispatch_id",
    place="path",
    about="The id of a prompt or dispatch, a ULID.",
    schema=TEXT,
    example="01KAJ5V3W8Y3N5QZ6E4T9R2M1B",
)
_LIMIT = query("limit", "Most items to answer.", {"type": "integer", "minimum": 1, "maximum": 200, "default": 50})
_BEFORE = query("before", "The `next` of an earlier page.", {"type": "string", "pattern": "^a[0-9a-f]{1,15}$"})
_HERE = (_NAME, _INSTANCE_ID)

#: Whether there is such an agent, and who may talk to it.
_FINDING: Sequence[type[PyFlueError]] = (
    errors.AgentNotFound,
    errors.RouteNotFound,
    errors.AgentInvalid,
    errors.AccessRefused,
)
_ASKING: Sequence[type[PyFlueError]] = (
    *_FINDING,
    errors.InvalidJson,
    errors.TooDeep,
    errors.TooLarge,
    errors.UnsupportedMediaType,
    errors.PayloadInvalid,
    errors.IdempotencyConflict,
    errors.JournalFull,
)
_READING: Sequence[type[PyFlueError]] = (*_FINDING, errors.InstanceNotFound)
_CHANGING: Sequence[type[PyFlueError]] = (*_READING, errors.UnsupportedMediaType, errors.JournalFull)

AGENT_OPERATIONS: Sequence[Operation] = (
    Operation(
        id="list_agents",
        method="GET",
        path="/agents",
        tag="agents",
        summary="List the agents",
        about="Files that cannot be used are listed with what is wrong with them.",
        replies={200: Reply(about="The agents.", content={JSON: "AgentList"})},
    ),
    Operation(
        id="get_agent",
        method="GET",
        path="/agents/{name}",
        tag="agents",
        summary="Show an agent",
        parameters=(_NAME,),
        replies={200: Reply(about="The agent.", content={JSON: "AgentDetail"})},
        errors=(errors.AgentNotFound, errors.RouteNotFound, errors.AgentInvalid),
    ),
    Operation(
        id="list_instances",
        method="GET",
        path="/agents/{name}/instances",
        tag="agents",
        summary="List the instances of an agent, newest first",
        about="Those that the agent's file does not let the caller read are left out.",
        parameters=(_NAME, _LIMIT, _BEFORE),
        replies={200: Reply(about="A page of instances.", content={JSON: "InstanceList"})},
        errors=(errors.AgentNotFound, errors.RouteNotFound, errors.AgentInvalid),
    ),
    Operation(
        id="get_instance",
        method="GET",
        path="/agents/{name}/{instance_id}",
        tag="agents",
        summary="Show an instance with its sessions",
        parameters=_HERE,
        replies={200: Reply(about="The instance.", content={JSON: "InstanceDetail"})},
        errors=_READING,
    ),
    Operation(
        id="prompt_agent",
        method="POST",
        path="/agents/{name}/{instance_id}",
        tag="agents",
        summary="Say something to an agent",
        about=(
            "The answer is what the agent says; 202 with the receipt if that takes too long. With "
            "`Accept: text/event-stream` it is the events of this prompt until its end, with the text as it is "
            "written (`text_delta`, without id); one that fails adds a frame `event: error`. A session that is at work "
            "is 409 `session_busy`. The same address is a WebSocket for several prompts. A prompt that fails is "
            "answered with the status of what happened, such as 502 `model_failed`, or 500 `dispatch_failed`; "
            "`dispatch_id` says which one it is."
        ),
        parameters=(*_HERE, IDEMPOTENCY_KEY),
        body=Body(shape="Prompt", is_required=True),
        has_chosen_status=True,
        replies={
            200: Reply(
                about="The agent has answered, or these are the events.", content={JSON: "Prompted", EVENT_STREAM: None}
            ),
            202: Reply(about="The agent goes on.", content={JSON: "Receipt"}),
        },
        errors=(
            *_ASKING,
            errors.SessionBusy,
            errors.DispatchCancelled,
            errors.DispatchFailed,
            errors.ModelError,
            errors.ModelKeyMissing,
            errors.ModelUnknown,
            errors.ModelRefused,
            errors.ModelFailed,
            errors.ContextOverflow,
            errors.NameUnknown,
            errors.SandboxUnavailable,
            errors.McpFailed,
        ),
    ),
    Operation(
        id="delete_instance",
        method="DELETE",
        path="/agents/{name}/{instance_id}",
        tag="agents",
        summary="Delete an instance with its conversations, files, events and dispatches",
        parameters=_HERE,
        replies={204: Reply(about="It is gone.")},
        errors=(*_CHANGING, errors.InstanceBusy),
    ),
    Operation(
        id="dispatch_agent",
        method="POST",
        path="/agents/{name}/{instance_id}/dispatch",
        tag="agents",
        summary="Hand an agent some work",
        about=(
            "Answered as soon as it is on disk. It waits for its turn in its session. Text is said to the agent as it "
            "is, any other input as JSON."
        ),
        parameters=(*_HERE, IDEMPOTENCY_KEY),
        body=Body(shape="Dispatch", is_required=True),
        has_chosen_status=True,
        replies={202: Reply(about="It is recorded.", content={JSON: "Receipt"})},
        errors=_ASKING,
    ),
    Operation(
        id="list_dispatches",
        method="GET",
        path="/agents/{name}/{instance_id}/dispatches",
        tag="agents",
        summary="List what was asked of an instance, newest first",
        parameters=(*_HERE, _LIMIT, _BEFORE),
        replies={200: Reply(about="A page of prompts and dispatches.", content={JSON: "DispatchList"})},
        errors=_READING,
    ),
    Operation(
        id="get_dispatch",
        method="GET",
        path="/agents/{name}/{instance_id}/dispatches/{dispatch_id}",
        tag="agents",
        summary="Show a prompt or dispatch: its status, and its result or error",
        parameters=(
            *_HERE,
            _DISPATCH_ID,
            query("wait", "Wait for its end.", {"type": "string", "enum": ["result"]}),
        ),
        replies={200: Reply(about="It, ended or not.", content={JSON: "DispatchRecord"})},
        errors=(*_FINDING, errors.DispatchNotFound),
    ),
    Operation(
        id="cancel_dispatch",
        method="POST",
        path="/agents/{name}/{instance_id}/dispatches/{dispatch_id}/cancel",
        tag="agents",
        summary="End a prompt or dispatch",
        parameters=(*_HERE, _DISPATCH_ID),
        replies={
            200: Reply(about="It has ended.", content={JSON: "DispatchRecord"}),
            202: Reply(about="It is being ended by another process.", content={JSON: "DispatchRecord"}),
        },
        errors=(
            *_FINDING,
            errors.DispatchNotFound,
            errors.DispatchFinished,
            errors.UnsupportedMediaType,
            errors.JournalFull,
        ),
    ),
    Operation(
        id="list_instance_events",
        method="GET",
        path="/agents/{name}/{instance_id}/events",
        tag="agents",
        summary="Read an instance's events",
        parameters=(
            *_HERE,
            AFTER,
            query(
                "limit", "Most events to answer.", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 1000}
            ),
            query("types", "Only events of these types.", WORDS, ["turn"]),
        ),
        replies={200: Reply(about="Events above `after`.", content={JSON: "EventList"})},
        errors=_READING,
    ),
    Operation(
        id="stream_instance_events",
        method="GET",
        path="/agents/{name}/{instance_id}/stream",
        tag="agents",
        summary="Follow an instance's events",
        about=(
            "Server-sent events without end: those of all prompts and dispatches, each with its `interaction_id`. Text "
            "comes as it is written, in frames `text_delta` without id. A reader that was cut off continues with "
            "`Last-Event-ID` or `after`."
        ),
        parameters=(*_HERE, AFTER, LAST_EVENT_ID),
        replies={200: Reply(about="The events.", content={EVENT_STREAM: None})},
        errors=_READING,
    ),
    Operation(
        id="get_instance_blob",
        method="GET",
        path="/agents/{name}/{instance_id}/blobs/{digest}",
        tag="agents",
        summary="Read a value that was too large for its event",
        parameters=(
            *_HERE,
            Parameter(name="digest", place="path", about="As the event names it.", schema=TEXT),
        ),
        replies={200: Reply(about="The value.", content={"application/octet-stream": None})},
        errors=_READING,
    ),
    Operation(
        id="list_sessions",
        method="GET",
        path="/agents/{name}/{instance_id}/sessions",
        tag="agents",
        summary="List an instance's sessions",
        about="Those of tasks, which an agent's sessions start by themselves, say of which session in `task_of`.",
        parameters=_HERE,
        replies={200: Reply(about="The sessions, by name.", content={JSON: "SessionList"})},
        errors=_READING,
    ),
    Operation(
        id="get_history",
        method="GET",
        path="/agents/{name}/{instance_id}/sessions/{session}/history",
        tag="agents",
        summary="Read a session's conversation",
        parameters=(
            *_HERE,
            _SESSION,
            query("after", "The last `position` that was seen; 0 reads from the start.", AFTER.schema, 0),
            query(
                "limit", "Most entries to answer.", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}
            ),
        ),
        replies={200: Reply(about="Entries above `after`.", content={JSON: "History"})},
        errors=(*_READING, errors.SessionNotFound),
    ),
    Operation(
        id="delete_session",
        method="DELETE",
        path="/agents/{name}/{instance_id}/sessions/{session}",
        tag="agents",
        summary="Forget a session's conversation",
        parameters=(*_HERE, _SESSION),
        replies={204: Reply(about="It is gone.")},
        errors=(*_CHANGING, errors.SessionNotFound, errors.InstanceBusy),
    ),
    Operation(
        id="abort_session",
        method="POST",
        path="/agents/{name}/{instance_id}/sessions/{session}/abort",
        tag="agents",
        summary="End what is under way in a session",
        parameters=(*_HERE, _SESSION),
        replies={200: Reply(about="Whether there was something.", content={JSON: "Aborted"})},
        errors=_CHANGING,
    ),
)
