"""`pyflue flow run`: one run of a flow in this process."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import click

from ...errors import PyFlueError, RunFinished
from ..output import prints_aside, say
from .documents import config_for, of_config, say_findings
from .opening import Place, opened, root_of
from .options import Order, config_option, order_options, read_order
from .outcomes import Ended, outcomes_of, report, tell_run

if TYPE_CHECKING:
    from pathlib import Path

    from ...stepflow.config import StepflowConfig

#: A run is asked about again after this time.
_WAIT_S = 3600.0


@click.command("run")
@order_options
@config_option
@click.pass_context
def run_flow(ctx: click.Context, config: Path | None, **given: Any) -> None:
    """Run a flow here and print its outcome.

    The outcome goes to stdout as JSON: `{"outcome": "success", "result": …}`, or a failure with code and message and
    exit code 1. The outcomes of a batch (--inputs) are one line each. What is wrong with the flow is told on stderr as
    file:line:column; if that is fatal or an error, the flow is not run. Ctrl-C cancels the run and ends its plugins.

    In a project the run is recorded: `pyflue logs` shows it.
    """
    order = read_order(given, refuse=lambda level: level != "warning")
    root = root_of(ctx)
    found = config_for(config, beside=order.path, root=root)
    say_findings([finding for finding in of_config(found) if finding.code is None])
    from ...engine import loops

    report(loops.run(_run(order, root, found)), order, has_config=found.path is not None)


async def _run(order: Order, root: Path | None, config: StepflowConfig) -> Ended:
    with prints_aside():
        async with opened(root, config) as place:
            return await _see_through(order, place)


async def _see_through(order: Order, place: Place) -> Ended:
    """Run a flow to its end. Being cancelled (Ctrl-C) cancels the run."""
    from ...stepflow.backend import NewRun

    backend = place.backend
    stored = await backend.store_flow(order.flow.source)
    if stored.flow_id is None:
        raise PyFlueError(f"{order.path} cannot be run.")  # it was looked over before
    run_id = await backend.submit(
        NewRun(
            flow_id=stored.flow_id,
            inputs=order.inputs,
            overrides=order.overrides,
            variables=order.variables or None,
            max_concurrency=order.max_concurrency,
        )
    )
    recorded_as = place.recorded_as(run_id)
    tell_run(run_id, recorded_as)
    try:
        await _end_of(run_id, place)
    except asyncio.CancelledError:
        with contextlib.suppress(RunFinished):
            await backend.cancel(run_id)
            say(f"run {recorded_as or run_id.replace('-', '')} cancelled")
        raise
    status = (await backend.run(run_id)).summary.status
    outcomes = outcomes_of(await backend.items(run_id), status)
    return Ended(run_id=run_id, status=status, outcomes=outcomes, recorded_as=recorded_as)


async def _end_of(run_id: str, place: Place) -> None:
    """Wait for the end of a run, and tell meanwhile what it waits for: an approval, say."""
    recorded_as = place.recorded_as(run_id)
    if place.journal is None or recorded_as is None:
        await _wait(run_id, place)
        return
    from ..live import Reporter
    from ..running import tell_waits

    failure: PyFlueError | None = None
    async with asyncio.TaskGroup() as tasks:
        telling = tasks.create_task(tell_waits(place.journal, recorded_as, Reporter()))
        try:
            await _wait(run_id, place)
        except PyFlueError as error:  # not raised in here, because a task group would wrap it
            failure = error
        telling.cancel()
    if failure is not None:
        raise failure


async def _wait(run_id: str, place: Place) -> None:
    while not await place.backend.wait(run_id, _WAIT_S):
        pass
