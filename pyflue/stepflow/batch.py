"""Runs a flow once for each of several inputs: what a run, a sub-flow, `map` and a batch are alike.

As many items are under way as steps may be in flight; results stand in the order of the inputs. Called by
`workflow.py` for runs and by `services.py` for flows that components ask for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .document import Flow
from .keeper import Place
from .limits import Limit
from .outcome import Outcome
from .scheduler import Around, FlowRun, FlowState
from .turns import turns

#: Steps in flight if nobody says anything else.
DEFAULT_CONCURRENCY = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A flow and what it is run with."""

    flow: Flow
    flow_id: str
    inputs: Sequence[Any]
    variables: Mapping[str, Any]
    #: Steps in flight, over all items.
    max_concurrency: int = DEFAULT_CONCURRENCY
    #: The number of the first input.
    first: int = 0
    #: Whether the items have places of their own even if there is but one.
    is_list: bool = True


async def run_batch(
    batch: Batch, around: Around, place: Place, *, on_end: Callable[[int, Outcome], None] | None = None
) -> list[Outcome]:
    """The outcomes, in the order of the inputs. `on_end` is told the position of each as it ends.

    Raises:
        FlowStuck; whatever the keeper lets pass.
    """
    limit = Limit(max(1, batch.max_concurrency))
    outcomes: list[Outcome | None] = [None] * len(batch.inputs)

    async def run_item(position: int) -> None:
        state = FlowState(batch.flow, batch.inputs[position], batch.variables)
        where = place.item(batch.first + position) if batch.is_list else place
        run = FlowRun(batch.flow, batch.flow_id, state, around=around, place=where, limit=limit, order=position)
        outcome = outcomes[position] = await run.outcome()
        if on_end is not None:
            on_end(position, outcome)

    if len(batch.inputs) == 1:
        await run_item(0)
    elif batch.inputs:
        await _run_all(run_item, len(batch.inputs), batch.max_concurrency)
    return [outcome for outcome in outcomes if outcome is not None]


async def _run_all(run_item: Callable[[int], Any], count: int, at_once: int) -> None:
    left = iter(range(count))
    turn = turns()

    async def work() -> None:
        for position in left:
            await run_item(position)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(max(1, min(at_once, count))):
                if turn.is_over:
                    await turn.next()
                group.create_task(work())
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
