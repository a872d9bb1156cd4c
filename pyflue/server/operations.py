"""What the server answers to, as data: one table from which the routes are made and the OpenAPI document is written.

An operation lists the answers it gives and the errors it can raise; a test compares what is answered with what is
listed here.
"""

from __future__ import annotations

from collections.abc import Sequence

from .. import errors
from ..errors import PyFlueError
from ..journal import ApprovalState, RunStatus
from .agent_operations import AGENT_OPERATIONS
from .operation import (
    AFTER,
    EVENT_STREAM,
    IDEMPOTENCY_KEY,
    JSON,
    LAST_EVENT_ID,
    TEXT,
    TIME,
    WORDS,
    Body,
    Operation,
    Parameter,
    Reply,
    query,
)

RUN_ID = Parameter(
    name="run_id",
    place="path",
    about="`workflow:<name>:<ulid>`, with or without percent-encoding.",
    schema=TEXT,
    example="workflow:profile_csv:01KAJ5V3W8Y3N5QZ6E4T9R2M1B",
)
APPROVAL_ID = Parameter(
    name="approval_id",
    place="path",
    about="The id of an approval, a ULID.",
    schema=TEXT,
    example="01KAJ5V3W8Y3N5QZ6E4T9R2M1B",
)
WORKFLOW_NAME = Parameter(
    name="name", place="path", about="The name of a workflow.", schema=TEXT, example="profile_csv"
)
#: Errors of the server itself, which any operation can meet.
COMMON_ERRORS: Sequence[type[PyFlueError]] = (
    errors.InvalidRequest,
    errors.InvalidQuery,
    errors.Unauthorized,
    errors.Forbidden,
    errors.OriginRefused,
    errors.RequestTooSlow,
    errors.HostRefused,
    errors.HeadersTooLarge,
    errors.PyFlueError,
    errors.EngineStopping,
    errors.TooManyConnections,
    errors.JournalBusy,
)

OPERATIONS: Sequence[Operation] = (
    Operation(
        id="list_workflows",
        method="GET",
        path="/workflows",
        tag="workflows",
        summary="List the workflows",
        about="Files that cannot be used are listed with what is wrong with them.",
        replies={200: Reply(about="The workflows.", content={JSON: "WorkflowList"})},
    ),
    Operation(
        id="get_workflow",
        method="GET",
        path="/workflows/{name}",
        tag="workflows",
        summary="Show a workflow",
        parameters=(WORKFLOW_NAME,),
        replies={200: Reply(about="The workflow.", content={JSON: "WorkflowDetail"})},
        errors=(errors.WorkflowNotFound, errors.RouteNotFound, errors.WorkflowInvalid),
    ),
    Operation(
        id="start_run",
        method="POST",
        path="/workflows/{name}",
        tag="workflows",
        summary="Run a workflow",
        about=(
            "The body is the payload; no body is `{}`. By default the answer is 202 as soon as the run is recorded on "
            "disk. With `wait=result` it is the result, or 202 if that takes too long. With "
            "`Accept: text/event-stream` it is the run's events until its end; a run that fails adds a frame "
            "`event: error`. The same address is a WebSocket: send the payload, receive the events and the result. "
            "A run that fails while its caller waits is 500 `run_failed`, or the status its author chose."
        ),
        parameters=(
            WORKFLOW_NAME,
            query("wait", "Wait for the result.", {"type": "string", "enum": ["result"]}),
            query("tags", "Tags of the run, separated by commas.", WORDS, ["nightly"]),
            query(
                "deadline_s",
                "Seconds from now after which the run is ended.",
                {"type": "number", "exclusiveMinimum": 0, "maximum": 10 * 365 * 86400},
                300,
            ),
            IDEMPOTENCY_KEY,
        ),
        body=Body(),
        has_chosen_status=True,
        replies={
            200: Reply(
                about="The run has completed, or these are its events.",
                content={JSON: "Completed", EVENT_STREAM: None},
                names_run=True,
            ),
            202: Reply(about="The run is recorded.", content={JSON: "Accepted"}, names_run=True),
        },
        errors=(
            errors.InvalidJson,
            errors.TooDeep,
            errors.WorkflowNotFound,
            errors.RouteNotFound,
            errors.RunCancelled,
            errors.TooLarge,
            errors.UnsupportedMediaType,
            errors.PayloadInvalid,
            errors.IdempotencyConflict,
            errors.RunFailed,
            errors.WorkflowInvalid,
            errors.JournalFull,
        ),
    ),
    Operation(
        id="list_runs",
        method="GET",
        path="/runs",
        tag="runs",
        summary="List runs, newest first",
        parameters=(
            query("workflow", "Only runs of these workflows.", WORDS, ["profile_csv"]),
            query(
                "status",
                "Only runs in one of these states.",
                {"type": "array", "items": {"type": "string", "enum": [status.value for status in RunStatus]}},
                ["failed", "cancelled"],
            ),
            query("tag", "Only runs with all of these tags.", WORDS, ["nightly"]),
            query("kind", "Only runs of this kind of workflow file.", TEXT, "python"),
            query("parent_run_id", "Only runs that this run started.", TEXT),
            query("created_after", "Only runs accepted at or after this time.", TIME, "2026-11-21T05:00:00Z"),
            query("created_before", "Only runs accepted before this time.", TIME, "2026-11-22T05:00:00Z"),
            query("finished_after", "Only runs that ended at or after this time.", TIME, "2026-11-21T05:00:00Z"),
            query("error", "Only runs whose error contains this text.", TEXT, "timeout"),
            query("limit", "Most runs to answer.", {"type": "integer", "minimum": 1, "maximum": 200, "default": 50}),
            query("before", "The `next` of an earlier page.", {"type": "string", "pattern": "^r[0-9a-f]{1,15}$"}),
        ),
        replies={200: Reply(about="A page of runs.", content={JSON: "RunList"})},
    ),
    Operation(
        id="get_run",
        method="GET",
        path="/runs/{run_id}",
        tag="runs",
        summary="Show a run",
        parameters=(RUN_ID,),
        replies={200: Reply(about="The run.", content={JSON: "RunRecord"}, names_run=True)},
        errors=(errors.RunNotFound, errors.RouteNotFound),
    ),
    Operation(
        id="delete_run",
        method="DELETE",
        path="/runs/{run_id}",
        tag="runs",
        summary="Delete a run that has ended",
        parameters=(RUN_ID,),
        replies={204: Reply(about="It is gone, with its events and values.", names_run=True)},
        errors=(
            errors.RunNotFound,
            errors.RouteNotFound,
            errors.RunNotFinished,
            errors.UnsupportedMediaType,
            errors.JournalFull,
        ),
    ),
    Operation(
        id="list_events",
        method="GET",
        path="/runs/{run_id}/events",
        tag="runs",
        summary="Read a run's events",
        parameters=(
            RUN_ID,
            AFTER,
            query(
                "limit", "Most events to answer.", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 1000}
            ),
            query("types", "Only events of these types.", WORDS, ["log"]),
        ),
        replies={200: Reply(about="Events above `after`.", content={JSON: "EventList"}, names_run=True)},
        errors=(errors.RunNotFound, errors.RouteNotFound),
    ),
    Operation(
        id="stream_events",
        method="GET",
        path="/runs/{run_id}/stream",
        tag="runs",
        summary="Follow a run's events",
        about=(
            "Server-sent events until the run's end: `id` is the event's index, `event` its type, `data` the event. A "
            "reader that was cut off continues with `Last-Event-ID` or `after`. One that has seen the end is answered "
            "204, by which a browser's `EventSource` knows not to come back. A cursor that the run has not reached is "
            "answered with one frame `event: error`."
        ),
        parameters=(
            RUN_ID,
            AFTER,
            LAST_EVENT_ID,
        ),
        replies={
            200: Reply(about="The events.", content={EVENT_STREAM: None}, names_run=True),
            204: Reply(about="The run has ended, and there are no events after the cursor.", names_run=True),
        },
        errors=(errors.RunNotFound, errors.RouteNotFound),
    ),
    Operation(
        id="get_blob",
        method="GET",
        path="/runs/{run_id}/blobs/{digest}",
        tag="runs",
        summary="Read a value that was too large for its event",
        parameters=(
            RUN_ID,
            Parameter(name="digest", place="path", about="As the event names it.", schema=TEXT),
        ),
        replies={200: Reply(about="The value.", content={"application/octet-stream": None})},
        errors=(errors.RunNotFound, errors.RouteNotFound),
    ),
    Operation(
        id="list_steps",
        method="GET",
        path="/runs/{run_id}/steps",
        tag="runs",
        summary="Read what a run has recorded of its steps and its other durable calls",
        about="In the order in which they were recorded; what the run still waits for comes last.",
        parameters=(
            RUN_ID,
            query("after", "The `next_after` of an earlier page.", TEXT, "charge"),
            query("limit", "Most steps to answer.", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}),
        ),
        replies={200: Reply(about="Steps after `after`.", content={JSON: "StepList"}, names_run=True)},
        errors=(errors.RunNotFound, errors.RouteNotFound),
    ),
    Operation(
        id="send_signal",
        method="POST",
        path="/runs/{run_id}/signals/{name}",
        tag="runs",
        summary="Send a signal to a run",
        about=(
            "The body is the signal's data; no body is null. An open wait for the name is answered with it; without "
            "one it is kept, and the run's next wait for the name takes it."
        ),
        parameters=(
            RUN_ID,
            Parameter(
                name="name", place="path", about="The signal's name, percent-encoded.", schema=TEXT, example="paid"
            ),
            Parameter(
                name="Signal-Id",
                place="header",
                about="Signals with the same id are one, whatever becomes of the answers.",
                schema={"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
                example="payment-4711",
            ),
        ),
        body=Body(),
        replies={202: Reply(about="The signal is recorded.", content={JSON: "SignalAccepted"}, names_run=True)},
        errors=(
            errors.InvalidJson,
            errors.TooDeep,
            errors.RunNotFound,
            errors.RouteNotFound,
            errors.RunFinished,
            errors.SignalConflict,
            errors.TooLarge,
            errors.UnsupportedMediaType,
            errors.SignalInvalid,
            errors.JournalFull,
        ),
    ),
    Operation(
        id="cancel_run",
        method="POST",
        path="/runs/{run_id}/cancel",
        tag="runs",
        summary="End a run",
        parameters=(RUN_ID,),
        replies={
            200: Reply(about="The run has ended.", content={JSON: "RunRecord"}, names_run=True),
            202: Reply(about="The run is being ended by another process.", content={JSON: "RunRecord"}, names_run=True),
        },
        errors=(
            errors.RunNotFound,
            errors.RouteNotFound,
            errors.RunFinished,
            errors.UnsupportedMediaType,
            errors.JournalFull,
        ),
    ),
    Operation(
        id="retry_run",
        method="POST",
        path="/runs/{run_id}/retry",
        tag="runs",
        summary="Run again what failed or was cancelled",
        about=(
            "A new run with the same payload and tags. It takes over what was recorded before the step began that "
            "failed last, and goes on from there."
        ),
        parameters=(RUN_ID, IDEMPOTENCY_KEY),
        replies={202: Reply(about="A new run is recorded.", content={JSON: "Accepted"}, names_run=True)},
        errors=(
            errors.RunNotFound,
            errors.WorkflowNotFound,
            errors.RouteNotFound,
            errors.RunFinished,
            errors.RunNotFinished,
            errors.UnsupportedMediaType,
            errors.PayloadInvalid,
            errors.IdempotencyConflict,
            errors.WorkflowInvalid,
            errors.JournalFull,
        ),
    ),
    Operation(
        id="fork_run",
        method="POST",
        path="/runs/{run_id}/fork",
        tag="runs",
        summary="Run again from a step",
        about=(
            "A new run that takes over what a run that has ended recorded before the step began, and goes on from "
            "there, with a changed payload if there is a `payload_patch`."
        ),
        parameters=(RUN_ID, IDEMPOTENCY_KEY),
        body=Body(shape="Fork", is_required=True),
        replies={202: Reply(about="A new run is recorded.", content={JSON: "Accepted"}, names_run=True)},
        errors=(
            errors.InvalidJson,
            errors.TooDeep,
            errors.RunNotFound,
            errors.StepNotFound,
            errors.WorkflowNotFound,
            errors.RouteNotFound,
            errors.RunNotFinished,
            errors.TooLarge,
            errors.UnsupportedMediaType,
            errors.PayloadInvalid,
            errors.IdempotencyConflict,
            errors.WorkflowInvalid,
            errors.JournalFull,
        ),
    ),
    Operation(
        id="list_approvals",
        method="GET",
        path="/approvals",
        tag="approvals",
        summary="List approvals, newest first",
        parameters=(
            query(
                "state",
                "Only approvals in one of these states; otherwise the open ones.",
                {
                    "type": "array",
                    "items": {"type": "string", "enum": [state.value for state in ApprovalState]},
                },
                ["open"],
            ),
            query("workflow", "Only approvals of runs of these workflows.", WORDS, ["fulfil"]),
            query("run_id", "Only approvals of this run.", TEXT),
            query("name", "Only approvals of this name.", TEXT, "ship"),
            query(
                "limit", "Most approvals to answer.", {"type": "integer", "minimum": 1, "maximum": 200, "default": 50}
            ),
            query(
                "before",
                "The `next` of an earlier page.",
                {"type": "string", "pattern": "^[0-7][0-9A-HJKMNP-TV-Z]{25}$"},
            ),
        ),
        replies={200: Reply(about="A page of approvals.", content={JSON: "ApprovalList"})},
    ),
    Operation(
        id="get_approval",
        method="GET",
        path="/approvals/{approval_id}",
        tag="approvals",
        summary="Show an approval",
        parameters=(APPROVAL_ID,),
        replies={200: Reply(about="The approval.", content={JSON: "ApprovalRecord"}, names_run=True)},
        errors=(errors.ApprovalNotFound, errors.RouteNotFound),
    ),
    Operation(
        id="decide_approval",
        method="POST",
        path="/approvals/{approval_id}",
        tag="approvals",
        summary="Approve or reject",
        about=(
            "The first decision counts. The same one once more is answered in the same way; another one is 409 "
            "`approval_closed`, whose `details` are the approval as it is. So is one that comes after the approval's "
            "time, or after its run has ended."
        ),
        parameters=(APPROVAL_ID,),
        body=Body(shape="Decision", is_required=True),
        replies={200: Reply(about="The approval, decided.", content={JSON: "ApprovalRecord"}, names_run=True)},
        errors=(
            errors.InvalidJson,
            errors.TooDeep,
            errors.ApprovalNotFound,
            errors.RouteNotFound,
            errors.ApprovalClosed,
            errors.TooLarge,
            errors.UnsupportedMediaType,
            errors.DecisionInvalid,
            errors.JournalFull,
        ),
    ),
    *AGENT_OPERATIONS,
    Operation(
        id="health",
        method="GET",
        path="/health",
        tag="server",
        summary="Say that the server answers",
        about="Needs no token.",
        replies={200: Reply(about="It does.", content={JSON: "Health"})},
    ),
    Operation(
        id="openapi",
        method="GET",
        path="/openapi.json",
        tag="server",
        summary="Describe this server",
        replies={200: Reply(about="An OpenAPI 3.1 document.", content={JSON: None})},
    ),
)
