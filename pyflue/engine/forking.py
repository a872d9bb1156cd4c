"""New runs out of old ones: what a retry or a fork is to run, and which records it takes over.

Called by the engine for servers, and by the command line that only queues the new run. Retry goes on where a run
failed; fork goes on from a chosen step, with a changed payload if wanted. Either makes a new run: the old one stays as
it is. The copying itself happens in the transaction that accepts the new run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, cast

from .. import codec
from ..codec import Raw
from ..errors import RunFinished, RunNotFinished, RunNotFound, StepNotFound, TooLarge
from ..journal import Copies, History, Journal, Run, RunStatus, Step, StepStatus, Wait, WaitKind, WaitState
from ..settings import Limits
from .port import NO_PATCH, Submission
from .workflow import WorkflowSource

_KNOWN_SHOWN = 50


async def retry_of(
    journal: Journal, workflows: WorkflowSource, run_id: str, *, idempotency_key: str | None = None
) -> Submission:
    """What to submit to try a failed or cancelled run again.

    It takes over what was recorded before the call began that failed last. If none failed, or if the run went on after
    that, everything that was completed. Signals that were sent and not taken by what it takes over are sent to it, too.

    Raises:
        RunNotFound; RunNotFinished; RunFinished: it completed; WorkflowNotFound; WorkflowInvalid; PayloadInvalid.
    """
    run = await _final_run(journal, run_id, "retried")
    if run.status is RunStatus.COMPLETED:
        raise RunFinished(run_id, run.status)
    history = await journal.history(run_id)
    return await _submission(
        journal,
        workflows,
        run,
        payload=run.payload or codec.NULL,
        copies=Copies(run_id=run_id, until_index=_failed_at(history), keeps_signals=True),
        retried_from=run_id,
        idempotency_key=idempotency_key,
    )


async def fork_of(
    journal: Journal,
    workflows: WorkflowSource,
    run_id: str,
    *,
    from_step: str,
    payload_patch: Any = NO_PATCH,
    idempotency_key: str | None = None,
    limits: Limits,
) -> Submission:
    """What to submit to run again from a step of a run that has ended, however it ended.

    `from_step` is the step's key, or its name if only one step has that. `payload_patch` is a JSON merge patch
    (RFC 7396) of the payload.

    Raises:
        As `retry_of`, and StepNotFound; TooLarge: the patched payload is.
    """
    run = await _final_run(journal, run_id, "forked")
    start = _find(run_id, await journal.history(run_id), from_step)
    payload = run.payload or codec.NULL
    if payload_patch is not NO_PATCH:
        payload = codec.encode_value(merge_patch(codec.load(payload), payload_patch), "The patched payload")
        size = len(memoryview(payload))
        if size > limits.payload_bytes:
            raise TooLarge("The patched payload", size, limits.payload_bytes, "limits.payload_bytes")
    return await _submission(
        journal,
        workflows,
        run,
        payload=payload,
        copies=Copies(run_id=run_id, until_index=start.started_index),
        forked_from=run_id,
        idempotency_key=idempotency_key,
    )


def merge_patch(value: Any, patch: Any) -> Any:
    """A JSON value after a merge patch (RFC 7396): objects are merged, null removes a key, anything else replaces."""
    if not isinstance(patch, Mapping):
        return patch
    merged: dict[str, Any] = dict(cast("Mapping[str, Any]", value)) if isinstance(value, Mapping) else {}
    for key, change in cast("Mapping[str, Any]", patch).items():
        if change is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), change)
    return merged


def _failed_at(history: History) -> int | None:
    """Up to where the records are good that a retry takes over; None: all of them."""
    failed: list[Step | Wait] = [
        step for step in history.steps if step.status in (StepStatus.FAILED, StepStatus.RETRYING)
    ]
    failed += [wait for wait in history.waits if has_failed(wait)]
    last = max(failed, key=lambda record: record.recorded_index, default=None)
    if last is None:
        return None
    good: list[Step | Wait] = [step for step in history.steps if step.status is StepStatus.COMPLETED]
    good += [wait for wait in history.waits if wait.state is WaitState.ANSWERED and not has_failed(wait)]
    # What began after it had failed shows that the workflow lived with that.
    return None if any(record.started_index >= last.recorded_index for record in good) else last.started_index


def has_failed(wait: Wait) -> bool:
    """Whether a wait ended in a way that raises."""
    if wait.state is WaitState.EXPIRED:
        return wait.kind is not WaitKind.TIMER
    if wait.kind is not WaitKind.CHILD or wait.answer is None:
        return False
    return codec.load(wait.answer)["status"] != RunStatus.COMPLETED


async def _final_run(journal: Journal, run_id: str, verb: str) -> Run:
    run = await journal.run(run_id)
    if run is None:
        raise RunNotFound(run_id)
    if not run.is_final:
        raise RunNotFinished(run_id, run.status, verb)
    return run


def _find(run_id: str, history: History, wanted: str) -> Step | Wait:
    calls: Sequence[Step | Wait] = [*history.steps, *history.waits]
    found = [call for call in calls if call.key == wanted] or [call for call in calls if call.name == wanted]
    if len(found) != 1:
        known = sorted((call for call in calls), key=lambda call: (call.started_index, call.key))
        raise StepNotFound(run_id, wanted, [call.key for call in known[:_KNOWN_SHOWN]])
    return found[0]


async def _submission(
    journal: Journal,
    workflows: WorkflowSource,
    run: Run,
    *,
    payload: Raw,
    copies: Copies,
    retried_from: str | None = None,
    forked_from: str | None = None,
    idempotency_key: str | None,
) -> Submission:
    workflow = await asyncio.to_thread(workflows.find, run.workflow)
    return Submission(
        workflow=workflow,
        payload=payload,
        parsed=workflow.parse(codec.load(payload)),
        tags=run.tags,
        request=run.request,
        retried_from=retried_from,
        forked_from=forked_from,
        copies=copies,
        definition=await journal.definition(run.run_id),
        idempotency_key=idempotency_key,
    )
