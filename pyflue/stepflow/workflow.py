"""The stepflow kind of workflow: a YAML or JSON file with `steps`.

Made by the loader in `dialect.py` when a flow is first asked for. A file becomes a `FlowWorkflow`, which the engine
runs like every other: the payload is the flow's input, the result what its `output` comes to. Flows that come with a
request are in `inline.py`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import workflows
from ..engine import FlueContext, Graph, GraphEdge, GraphNode, Recovery, calls_of
from ..errors import PayloadInvalid, PyFlueError, WorkflowInvalid
from ..typed import misfits
from ..workflows import Finding, Source
from .batch import Batch, run_batch
from .blobs import Blobs, JournalShelves
from .config import ConfigInvalid, default_config, find_config, read_config
from .dialect import KIND
from .document import Flow, flow_id, read_flow_text
from .durable import DurableKeeper
from .environments import environments_of
from .exceptions import DocumentMalformed, FlowMalformed, MissingVariable
from .failures import FlowStuck
from .keeper import Place
from .outcome import Failed, Outcome, Skipped, Success
from .services import surround
from .standalone import standalone
from .validation import Diagnostics, Level, Look, diagnose, without_config
from .variables import declared_variables, resolve_variables, secrets_among

#: Variables of flows in files: this and the name in capitals.
_VARIABLE = "STEPFLOW_VAR_"


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowWorkflow:
    """One version of a flow's file."""

    name: str
    path: Path
    version: str
    flow: Flow
    input_schema: Mapping[str, Any]
    output_schema: Mapping[str, Any]
    #: What was found in it when it was loaded, with the config of that time.
    found: Diagnostics
    kind: str = KIND
    recovery: Recovery = Recovery.RESUME
    is_strict: bool = False

    @property
    def description(self) -> str:
        return self.flow.description or self.flow.name or ""

    @property
    def findings(self) -> Sequence[Finding]:
        """What the author should look at, though the flow runs."""
        return [
            Finding(
                message=one.text,
                level=workflows.Level(one.level.value),
                line=one.line,
                column=one.column,
                code=one.code,
            )
            for one in self.found.shown
        ]

    def parse(self, payload: Any) -> Any:
        problems = misfits(payload, self.input_schema) if self.input_schema else []
        if problems:
            raise PayloadInvalid(self.name, problems)
        return payload

    def graph(self) -> Graph | None:
        return graph_of(self.flow)

    async def run(self, ctx: FlueContext[Any]) -> Any:
        batch = Batch(
            flow=self.flow,
            flow_id=flow_id(self.flow),
            inputs=[ctx.payload],
            variables=variables_of(self.flow, environment_variables(self.flow, os.environ)),
            is_list=False,
        )
        [outcome] = await run_durably(batch, ctx, folder=self.path.parent)
        return result_of(outcome)


async def run_durably(
    batch: Batch,
    ctx: FlueContext[Any],
    *,
    folder: Path | None,
    run_id: str | None = None,
    config: Path | None = None,
    on_end: Any = None,
) -> list[Outcome]:
    """Run a flow as a run of the engine; the outcomes of its items.

    `run_id` is how components hear of the run, if they know it by another id; `config` one that was named with it.

    Raises:
        PyFlueError: steps wait for one another; what ends the run as a whole.
    """
    calls = calls_of(ctx)
    blobs = blobs_of(calls.resources, calls.journal)
    root = calls.root
    async with environments_of(calls.resources).use(folder or root or Path.cwd(), root, config) as environment:
        around = surround(
            run_id=run_id or ctx.id,
            router=environment.router,
            keeper=DurableKeeper(ctx),
            blobs=blobs,
            ctx=ctx,
            backoff=environment.config.backoff,
            secrets=secrets_among(batch.flow, batch.variables),
        )
        try:
            return await run_batch(batch, around, Place(), on_end=on_end)
        except FlowStuck as error:
            raise PyFlueError(str(error), type="flow_stuck", details={"steps": list(error.steps)}) from None


def blobs_of(resources: Any, journal: Any) -> Blobs:
    """The blobs of an engine's journal, with the flows among them as they were read."""
    return resources.get("stepflow.blobs", lambda: _SharedBlobs(JournalShelves(journal)))


class _SharedBlobs(Blobs):
    """Blobs as a resource of the engine."""

    async def close(self) -> None:
        """The journal is not theirs."""


def result_of(outcome: Outcome) -> Any:
    """The result of a run of one item.

    Raises:
        PyFlueError: the flow failed; `flow_failed`, with the failure.
    """
    match outcome:
        case Success(value):
            return value
        case Failed():
            raise PyFlueError(outcome.message, type="flow_failed", details=outcome.to_error())
        case Skipped():
            return None


def variables_of(flow: Flow, given: Mapping[str, Any]) -> Mapping[str, Any]:
    """The variables of a run.

    Raises:
        PyFlueError: one that the flow requires is not given.
    """
    try:
        return resolve_variables(flow, given)
    except MissingVariable as error:
        raise PyFlueError(
            f"{error}. Set {_VARIABLE}{error.name.upper()}, or give it with the run.",
            type="variable_missing",
            details={"variable": error.name},
        ) from None


def environment_variables(flow: Flow, env: Mapping[str, str]) -> dict[str, Any]:
    """The flow's variables that the environment has, as JSON where it is JSON, else as text."""
    from .. import codec

    found: dict[str, Any] = {}
    for name in declared_variables(flow):
        text = env.get(f"{_VARIABLE}{name.upper()}")
        if text is None:
            continue
        try:
            found[name] = codec.decode(text.encode(), f"{_VARIABLE}{name.upper()}")
        except PyFlueError:
            found[name] = text
    return found


def load_flow(source: Source) -> FlowWorkflow:
    """Make a workflow of a flow's file.

    Raises:
        WorkflowInvalid: it is none, or one that cannot be run; or its config cannot be used.
    """
    from ..workflows.modules import shown

    where = shown(source)
    try:
        data = source.path.read_bytes()
    except OSError as error:
        raise WorkflowInvalid(where, f"it cannot be read: {error.strerror}.") from error
    try:
        flow = read_flow_text(data, source.path.suffix)
    except DocumentMalformed as error:
        problem = {"message": error.message, "line": error.line, "column": error.column}
        raise WorkflowInvalid(
            where, f"column {error.column}: {error.message}", line=error.line, details={"problems": [problem]}
        ) from error
    except FlowMalformed as error:
        first = error.problems[0]
        details = {"problems": [problem.to_dict() for problem in error.problems]}
        raise WorkflowInvalid(where, str(error), line=first.line, details=details) from error
    look, unusable = _look(source)
    found = diagnose(flow, look)
    fatal = [one for one in found.diagnostics if one.level is Level.FATAL]
    if fatal:
        problem = "; ".join(one.text for one in fatal)
        problems = [{"message": one.text, "code": one.code, "line": one.line, "column": one.column} for one in fatal]
        raise WorkflowInvalid(where, f"{problem}.", line=fatal[0].line, details={"problems": problems})
    if unusable is not None:
        raise WorkflowInvalid(where, f"its config cannot be used: {unusable}") from unusable
    return FlowWorkflow(
        name=source.name,
        path=source.path,
        version=hashlib.sha256(data).hexdigest(),
        flow=flow,
        input_schema=standalone(flow.input_schema, flow.schemas.get("$defs") or {}),
        output_schema=standalone(flow.output_schema, flow.schemas.get("$defs") or {}),
        found=found,
    )


def _look(source: Source) -> tuple[Look, ConfigInvalid | None]:
    """Where components lead by the config that the flow is going to run with, or why that cannot be used."""
    from .reach import look_of

    try:
        path = find_config(source.path.parent, source.root)
        return look_of(default_config(source.path.parent) if path is None else read_config(path)), None
    except ConfigInvalid as error:
        return without_config, error


def graph_of(flow: Flow) -> Graph:
    """The steps of a flow, and which of them uses what another one gives."""
    nodes = [GraphNode(id=step.id, label=step.id, kind=step.component) for step in flow.steps]
    nodes.append(GraphNode(id="output", label="output", kind="output"))
    edges: list[GraphEdge] = []
    for step in flow.steps:
        edges += [GraphEdge(source=one, target=step.id) for one in _references(step.input.references, flow)]
        if step.skip_if is not None:
            more = _references(step.skip_if.references, flow)
            edges += [GraphEdge(source=one, target=step.id, label="skipIf") for one in more]
    edges += [GraphEdge(source=one, target="output") for one in _references(flow.output.references, flow)]
    return Graph(nodes=nodes, edges=edges)


def _references(references: frozenset[str], flow: Flow) -> list[str]:
    return sorted((one for one in references if one in flow.by_id), key=lambda one: flow.by_id[one].index)
