"""`pyflue flow submit`: one run of a flow on a server that has stepflow's HTTP API."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import click

from ..errors import FAILED, NOT_FOUND, REFUSED, USAGE, Problem
from ..output import counted, say, shown
from ..project import token_of
from .options import Order, order_options, read_order
from .outcomes import Ended, outcomes_of, report, tell_run

if TYPE_CHECKING:
    from ...stepflow.backend import StartedRun
    from ...stepflow.client import StepflowClient, StepflowClientError

#: How long an answer is waited for after Ctrl-C.
_ANSWER_S = 2.0
_DEFAULT_URL = "http://localhost:7837"
#: The exit codes of refusals, by status; any other is FAILED.
_EXIT_CODES = {400: USAGE, 401: REFUSED, 403: REFUSED, 404: NOT_FOUND, 409: REFUSED, 413: USAGE}


@click.command("submit")
@order_options
@click.option("--url", default=_DEFAULT_URL, metavar="URL", help=f"The server's address. [{_DEFAULT_URL}]")
@click.pass_context
def submit_flow(ctx: click.Context, url: str, **given: Any) -> None:
    """Run a flow on a server and print its outcome.

    As `flow run`, with the plugins and the config of the server: one started by `flow serve`, or another of that
    generation. The token is PYFLUE_TOKEN, or server.token of the project. Ctrl-C cancels the run.
    """
    order = read_order(given, refuse=lambda level: level == "fatal")
    from ...stepflow.client import StepflowClient, StepflowClientError

    try:
        client = StepflowClient(url, token=token_of(ctx) or None)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="'--url'") from error
    try:
        ended = asyncio.run(_submit(client, order))
    except StepflowClientError as error:
        raise _problem(error, url) from error
    report(ended, order)


async def _submit(client: StepflowClient, order: Order) -> Ended:
    async with client:
        stored = await client.store_flow(order.flow.source)
        if stored.flow_id is None:
            raise _refused(order, stored.diagnostics.get("diagnostics") or [])
        started = await _started(client, stored.flow_id, order)
        tell_run(started.run_id)
        try:
            status = started.status
            while not status.is_final:
                status = (await client.get_run(started.run_id, wait=True)).summary.status
            outcomes = outcomes_of(await client.get_run_items(started.run_id), status)
        except asyncio.CancelledError:
            await _cancel(client, started.run_id)
            raise
        return Ended(run_id=started.run_id, status=status, outcomes=outcomes)


async def _started(client: StepflowClient, flow_id: str, order: Order) -> StartedRun:
    """Start the run. Being cancelled meanwhile cancels it, too: the server may have begun with it already."""
    starting = asyncio.ensure_future(
        client.create_run(
            flow_id,
            list(order.inputs),
            overrides=order.overrides,
            variables=order.variables or None,
            max_concurrency=order.max_concurrency,
            wait=False,
        )
    )
    from ...stepflow.client import StepflowClientError

    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        try:
            async with asyncio.timeout(_ANSWER_S):
                await _cancel(client, (await starting).run_id)
        except (TimeoutError, StepflowClientError):
            say(f"no answer from {client.url}: the run may go on there")
        raise


async def _cancel(client: StepflowClient, run_id: str) -> None:
    from ...stepflow.client import StepflowClientError

    with contextlib.suppress(StepflowClientError):  # it has ended, or the server is gone
        await client.cancel_run(run_id)
        say(f"run {run_id.replace('-', '')} cancelled")


def _refused(order: Order, diagnostics: list[Any]) -> Problem:
    for found in diagnostics:
        if found.get("level") == "fatal":
            say(shown(f"{order.path}: fatal: {found.get('text')}"))
    return Problem(f"The server refused {order.path}: {counted(len(diagnostics), 'finding')}.", exit_code=FAILED)


def _problem(error: StepflowClientError, url: str) -> Problem:
    code = NOT_FOUND if error.status_code is None else _EXIT_CODES.get(error.status_code, FAILED)
    hint = None
    if error.status_code is None:
        hint = "Is it running? `pyflue flow serve` starts one; --url names another."
    elif error.status_code == 401:
        hint = "Set the variable PYFLUE_TOKEN, or server.token in pyflue.toml."
    elif error.details is None:
        hint = f"That is not how a server of flows answers: is {url} one?"
    return Problem(f"{error.message}.".replace("..", "."), hint=hint, exit_code=code)
