"""How runs of flows ended, on stdout or in a file: outcomes as JSON, and an exit code that says whether one failed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from ... import codec
from ..errors import FAILED, Problem
from ..output import print_json, safe_json, say
from .options import Order

if TYPE_CHECKING:
    from ...stepflow.backend import ItemView, RunStatus
    from ...stepflow.outcome import Outcome

_CANCELLED = 499
_LOST = 500
#: What a failure says of a component that is not among the built-in ones.
_UNKNOWN = "There is no built-in component"
_NO_CONFIG = "There is no stepflow-config.yml beside the flow or in the current folder. Name one with --config."


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a run ended."""

    #: A UUID.
    run_id: str
    status: RunStatus
    outcomes: Sequence[Outcome]
    #: Its id in the project's journal, if it is there.
    recorded_as: str | None = None


def outcomes_of(items: Sequence[ItemView], status: RunStatus) -> list[Outcome]:
    """What came of each item; of those that came to nothing, a failure that says so."""
    from ...stepflow.outcome import Failed

    rest = (
        Failed(_CANCELLED, "The run was cancelled")
        if status == "cancelled"
        else Failed(_LOST, "The run ended without a result")
    )
    return [item.outcome or rest for item in items]


def tell_run(run_id: str, recorded_as: str | None = None) -> None:
    """Say on stderr which run it is."""
    say(f"run_id: {run_id.replace('-', '')}")
    if recorded_as is not None:
        say(f"run {recorded_as}")


def report(ended: Ended, order: Order, *, has_config: bool = True) -> None:
    """Write the outcome, or the outcomes of a batch. Without a config, a component that is not found is explained.

    Raises:
        Problem: the run failed, or one of its items.
    """
    from ...stepflow.outcome import Failed, to_wire

    values = [to_wire(outcome) for outcome in ended.outcomes]
    if order.as_json and order.output is None:
        results = {"outcomes": values} if order.is_batch else {"outcome": values[0]}
        run = {} if ended.recorded_as is None else {"run": ended.recorded_as}
        print_json({"run_id": ended.run_id.replace("-", ""), **run, "status": ended.status.value, **results})
    elif order.output is not None:
        order.output.write_bytes(_written(values, order))
        say(f"wrote {order.output}")
    elif order.is_batch:
        click.echo(b"\n".join(safe_json(codec.encode(value)) for value in values))
    else:
        print_json(values[0])
    failed = [outcome for outcome in ended.outcomes if isinstance(outcome, Failed)]
    if not failed:
        return
    hint = None if ended.recorded_as is None else f"pyflue logs {ended.recorded_as}"
    if not has_config and _UNKNOWN in failed[0].message:
        hint = _NO_CONFIG
    if order.is_batch:
        message = f"{len(failed)} of {len(values)} items failed. The first: {in_one_line(failed[0].message)}"
    else:
        message = f"The flow failed: {in_one_line(failed[0].message)}"
    raise Problem(message, hint=hint, exit_code=FAILED)


def in_one_line(text: str) -> str:
    """A message with its line breaks as ` | `: what programs say last is often a traceback."""
    return " | ".join(line.strip() for line in text.splitlines() if line.strip()).replace(": | ", ": ")


def _written(values: Sequence[Any], order: Order) -> bytes:
    suffix = "" if order.output is None else order.output.suffix.lower()
    if suffix in {".yaml", ".yml"}:
        import yaml

        whole: Any = list(values) if order.is_batch else values[0]
        text = yaml.safe_dump(whole, sort_keys=False, allow_unicode=True, default_flow_style=False)
        return text.encode()
    if not order.is_batch:
        return codec.indented(codec.encode(values[0])) + b"\n"
    if suffix == ".json":
        return codec.indented(codec.encode(list(values))) + b"\n"
    return b"".join(codec.encode(value) + b"\n" for value in values)
