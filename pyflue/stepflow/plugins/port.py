"""What a plugin is to a flow, and what a component may ask of the run that calls it.

`scheduler.py` calls plugins through `routing.py`. Adapters are the modules beside this one; they pass
`tests/contracts/test_stepflow_plugins.py` and do not inherit from anything here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

import msgspec

from ..outcome import Failed, Outcome


class BlobType(StrEnum):
    """What a blob was stored as. The type is no part of its id."""

    DATA = "data"  #: any JSON value
    FLOW = "flow"  #: a flow document


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentInfo:
    """A component as its plugin describes it; schemas are JSON Schema, None if it does not say."""

    #: With a leading `/`; as the plugin names it, before routes are applied.
    path: str
    description: str | None = None
    input_schema: Mapping[str, Any] | None = None
    output_schema: Mapping[str, Any] | None = None


class ComponentFailed(Exception):
    """A component did not do its work. Raised by plugins, made a `Failed` by the scheduler.

    `failure` is a flow failure that the component itself gave, to be handed through as it is (mocks and `map` do); None
    for all others. `attachments` are the texts of the layers it went through, outermost first. A retry makes sense if
    `is_retryable`.
    """

    def __init__(
        self,
        message: str,
        *,
        failure: Failed | None = None,
        attachments: Sequence[str] = (),
        is_retryable: bool = True,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.failure = failure
        self.attachments = tuple(attachments)
        self.is_retryable = is_retryable


class ComponentSkipped(Exception):
    """A component says that there is nothing to do (older documents; `SkipStep` in the Python SDK)."""

    def __init__(self, reason: str | None = None) -> None:
        super().__init__(reason or "skipped")
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class SubRun:
    """A run of a flow that a component has asked for, as `runs/get` tells of it."""

    run_id: str
    flow_id: str
    flow_name: str | None
    #: One for each input, in the order of the inputs; None while it goes on.
    outcomes: Sequence[Outcome | None]
    #: Positions of the inputs in the order in which they ended.
    ended: Sequence[int]
    #: RFC 3339 texts.
    created_at: str
    completed_at: str | None = None


class RunServices(Protocol):
    """What a component may ask of the run that calls it. All of it may be called from any task of the event loop.

    What is asked here is a part of the step: if the step is repeated after a crash, runs that it has asked for give
    back what they gave.
    """

    async def put_blob(self, data: Any, blob_type: BlobType) -> str:
        """Keep a JSON value; its id, the SHA-256 of its compact text (`content.py`).

        Raises:
            ValueError: stored as a flow and not one.
        """
        ...

    async def get_blob(self, blob_id: str) -> tuple[Any, BlobType]:
        """A blob and what it was stored as.

        Raises:
            ValueError: not an id; LookupError: there is no such blob.
        """
        ...

    async def stored_flow(self, flow_id: str) -> Any:
        """A stored flow, for `run_flows`; it is read once, however often it is asked for.

        Raises:
            ValueError: not an id, or not a flow; LookupError: there is no such blob.
        """
        ...

    async def run_flows(
        self,
        flow: Any,
        inputs: Sequence[Any],
        *,
        max_concurrency: int | None = None,
        overrides: Mapping[str, Any] | None = None,
        first: int | None = None,
    ) -> list[Outcome]:
        """Run a flow (a document as a JSON value, or a `Flow`) once for each input and wait for all outcomes.

        `first` is the number of the first input among those of the step, for components that count by themselves; else
        a use is known by its flow and inputs, and by which use of these it is.

        Raises:
            ValueError: it is no flow, or has an error.
        """
        ...

    async def submit(
        self,
        flow_id: str,
        inputs: Sequence[Any],
        *,
        max_concurrency: int | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> SubRun:
        """Start runs of a stored flow and go on; they belong to the step and end with it at the latest.

        Raises:
            ValueError, LookupError: as `get_blob`, and overrides that do not fit.
        """
        ...

    async def sub_run(self, run_id: str, *, wait: bool = False) -> SubRun:
        """What became of runs that this step has submitted; with `wait` when they have ended.

        Raises:
            LookupError: this step has submitted no such run.
        """
        ...

    def begin_again(self) -> None:
        """The component is about to be called once more in this attempt, because it was lost while it worked.

        Runs that it asks for again are those that it has asked for before.
        """
        ...

    async def flow_metadata(
        self, step_id: str | None = None, *, flow_id: str | None = None
    ) -> tuple[Mapping[str, Any], Mapping[str, Any] | None]:
        """The metadata of the flow, or of a stored one, and that of one of its steps.

        Raises:
            LookupError: no such flow or step. ValueError: it is no id, or that of no flow.
        """
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait, durably where the run is durable. Only for plugins whose component `is_composite`."""
        ...

    async def call_workflow(self, name: str, payload: Any) -> Any:
        """The result of a workflow of the project, as a child run. Only for components that are composite.

        Raises:
            ComponentFailed: there is no project or no such workflow, or it failed.
        """
        ...

    async def prompt_agent(self, name: str, text: str, *, session: str | None = None) -> Any:
        """What an agent of the project answers. Only for components that are composite.

        Raises:
            ComponentFailed: as `call_workflow`.
        """
        ...


class ComponentCall(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt at one step."""

    #: As the route gives it to the plugin, with a leading `/`.
    component: str
    input: Any
    #: 1 at first.
    attempt: int
    run_id: str
    flow_id: str
    step_id: str
    services: RunServices


class Plugin(Protocol):
    """A source of components. Made from the config without doing anything; starts with its first use."""

    def is_composite(self, component: str) -> bool:
        """Whether the component's work is made of calls that are durable by themselves (flows, waits, child runs).

        It is then walked through again when a run is taken up again, and may use all of `RunServices`. So is one that
        does nothing but look at its input: making its value again costs less than waiting for the disk.
        """
        ...

    async def components(self) -> Sequence[ComponentInfo]:
        """What it offers. May start it.

        Raises:
            ComponentFailed: it cannot be started or understood.
        """
        ...

    async def execute(self, call: ComponentCall) -> Any:
        """Do the work of a component and return its output, a JSON value. Calls may overlap.

        If the caller is cancelled, so is the work, as far as the transport can say so.

        Raises:
            ComponentFailed, ComponentSkipped.
        """
        ...

    async def close(self) -> None:
        """Let go of everything; no process is left. May be called without a start, and twice."""
        ...
