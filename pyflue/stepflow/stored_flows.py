"""Flows that were stored, as both backends give and take them."""

from __future__ import annotations

from typing import Any

from .. import codec
from .backend import FlowNotFound, FlowView, NewRun, NotAFlow, RunRefused, StoredFlow
from .blobs import Blobs
from .document import Flow, all_examples, flow_id, flow_to_value, read_flow
from .exceptions import LanguageError
from .overrides import apply_overrides
from .plugins.port import BlobType
from .sizes import LARGE, aside, is_larger
from .validation import Diagnostics, Look, diagnose
from .variables import resolve_variables

_KNOWN = 256
_LONGEST_KNOWN_BYTES = 64 * 1024
#: To write or change a flow of more takes a while.
_MANY_STEPS = 1000


async def store_flow(blobs: Blobs, value: Any, *, look: Look, dry_run: bool) -> StoredFlow:
    """Look a flow over and keep it. As `Backend.store_flow`; `look` is what its config says of components.

    Callers that run a flow again and again give it each time: what was found in the same text is known.
    """
    text = _text_of(value)
    known = None if text is None or dry_run else blobs.known.get(text)
    if known is not None and known[0] is look:
        return known[1]
    flow, found = await aside(_looked_over, value, look, is_large=is_larger(value, LARGE))
    if found.num_fatal:
        return StoredFlow(flow_id=None, diagnostics=found.to_base(), is_stored=False)
    is_large = len(flow.steps) > _MANY_STEPS
    if dry_run:
        stored = await aside(flow_id, flow, is_large=is_large)
    else:
        stored = await blobs.put(await aside(flow_to_value, flow, is_large=is_large), BlobType.FLOW)
    answer = StoredFlow(flow_id=stored, diagnostics=found.to_base(), is_stored=not dry_run)
    if text is not None and not dry_run:
        if len(blobs.known) >= _KNOWN:
            blobs.known.clear()
        blobs.known[text] = look, answer
    return answer


def _looked_over(value: Any, look: Look) -> tuple[Flow, Diagnostics]:
    flow = read_flow(value)
    return flow, diagnose(flow, look)


def _text_of(value: Any) -> bytes | None:
    """What tells a flow from others; None if it is too large to be kept, or no JSON."""
    try:
        text = bytes(memoryview(codec.encode(value)))
    except (TypeError, ValueError, OverflowError, RecursionError):
        return None
    return text if len(text) <= _LONGEST_KNOWN_BYTES else None


async def find_flow(blobs: Blobs, wanted: str) -> Flow:
    """A stored flow.

    Raises:
        FlowNotFound, NotAFlow.
    """
    try:
        return await blobs.flow(wanted)
    except LookupError:
        raise FlowNotFound(wanted) from None
    except ValueError as error:
        raise NotAFlow(str(error)) from error


async def view_flow(blobs: Blobs, wanted: str) -> FlowView:
    """A stored flow as it is written. Raises as `find_flow`."""
    flow = await find_flow(blobs, wanted)
    value = await aside(flow_to_value, flow, is_large=len(flow.steps) > _MANY_STEPS)
    return FlowView(flow=value, flow_id=wanted, examples=all_examples(flow))


async def checked(flow: Flow, new: NewRun) -> tuple[Flow, dict[str, Any]]:
    """The flow with the overrides of a run, and its variables.

    Raises:
        RunRefused: they do not fit the flow.
    """
    try:
        is_large = len(flow.steps) > _MANY_STEPS
        patched = await aside(apply_overrides, flow, new.overrides, is_large=is_large) if new.overrides else flow
        return patched, resolve_variables(patched, new.variables or {})
    except LanguageError as error:
        raise RunRefused(str(error)) from error
