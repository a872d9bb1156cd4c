"""Child workflows of durable steps: as runs of their own, or inside of the step.

A child is a child run if its class is at home in a workflow file, so that whoever takes it up finds it by name: a class
of the same file, or the one that another file of the project is about. Any other is done inside of its parent's step,
with durable steps of its own. Used by `durable.py`; where classes are at home is for `loader.py` to say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from .. import codec
from ..engine import calls_of
from ..errors import RunCancelled, RunFailed, WorkflowNotFound
from ..typed import Misfit, Shape
from .durable import Durable, own_copy
from .exceptions import StateValidationError
from .execution import Execution
from .executor import Children
from .models import ChildOptions, StepResult, WorkflowResult, WorkflowStatus
from .records import result_from_dict
from .validation import definition_of

if TYPE_CHECKING:
    from ..engine import FlueContext, Workflow


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the class of a child workflow is found by name: the workflow to call, and how its payload is made."""

    workflow: str
    #: The class, if it is one of the same file; None: the one that another file is about.
    class_name: str | None
    shape: Shape

    def payload(self, state: Any) -> Any:
        return state if self.class_name is None else child_payload(self.class_name, state)


class Homes(Protocol):
    """Where classes are at home. Implemented by `loader.py`."""

    def place(self, cls: type) -> Place | None:
        """The place of a class of this file."""
        ...

    def elsewhere(self, cls: type) -> str | None:
        """The name of the workflow file that defines the class, if it is another one of this project."""
        ...

    def place_in(self, workflow: Workflow, cls: type) -> Place | None:
        """The place of a class that another file is about."""
        ...

    def shape_of(self, cls: type) -> Shape:
        """The type of a class's state."""
        ...


def child_payload(class_name: str, state: Any) -> dict[str, Any]:
    """The payload of a child of the same file. Such runs are only started by runs of that file.

    Also where the class is the one that the file is about: a state comes from outside, and may look like this.
    """
    return {"$workflow": class_name, "$state": state}


class ChildRuns(Children):
    """Runs the children of a durable step: as child runs if their class is at home in a file, else in here."""

    __slots__ = ("_ctx", "_means")

    def __init__(self, run: Execution, result: StepResult, means: Durable, ctx: Any) -> None:
        super().__init__(run, result)
        self._means = means
        #: That of the step: it blocks in plain functions, and is awaited in async ones.
        self._ctx = ctx

    def run(self, instance: object, state: object, options: ChildOptions) -> WorkflowResult:
        ctx = self._ctx
        place = calls_of(ctx).block(self._find(instance, options))
        if place is None:
            done = ctx.step(_inline_name(instance), self._inline, instance, state, options)
        else:
            payload = place.payload(_dumped(place.shape, instance, state))
            try:
                done = ctx.call(place.workflow, payload)
            except (RunFailed, RunCancelled) as error:
                return self.take(calls_of(ctx).block(self._failed(error, instance, state)), options)
        return self.take(self._done(instance, place, done), options)

    async def arun(self, instance: object, state: object, options: ChildOptions) -> WorkflowResult:
        ctx = self._ctx
        place = await self._find(instance, options)
        if place is None:
            done = await ctx.step(_inline_name(instance), self._inline, instance, state, options)
        else:
            payload = place.payload(_dumped(place.shape, instance, state))
            try:
                done = await ctx.call(place.workflow, payload)
            except (RunFailed, RunCancelled) as error:
                return self.take(await self._failed(error, instance, state), options)
        return self.take(self._done(instance, place, done), options)

    async def _find(self, instance: object, options: ChildOptions) -> Place | None:
        """Where the child runs as a run of its own; None if it cannot."""
        attributes = {name for name in getattr(instance, "__dict__", {}) if name != "state"}
        if attributes or options.approval_handler is not None or options.hooks:
            return None  # what was put on the object, and functions, exist in this process only
        homes, cls = self._means.homes, type(instance)
        name = homes.elsewhere(cls)
        if name is None:
            return homes.place(cls)
        try:
            return homes.place_in(await calls_of(self._ctx).host.find(name), cls)
        except WorkflowNotFound:
            return None

    async def _inline(self, instance: object, state: object, options: ChildOptions) -> dict[str, Any]:
        """Do a child inside of this step, with durable steps of its own."""
        homes = self._means.homes
        shape = homes.shape_of(type(instance))
        means = Durable(self._means.ctx, shape, homes)
        inherited = self.inherited(options)
        run = Execution(instance, means, run_id=self._run.run_id, **inherited)
        _dumped(shape, instance, state)  # says what is wrong with it
        # Its own copy, as if it were a run of its own.
        result = await run.go(own_copy(shape, state, run.definition.name))
        return means.dumped(run, result)

    def _done(self, instance: object, place: Place | None, done: dict[str, Any]) -> WorkflowResult:
        shape = self._means.homes.shape_of(type(instance)) if place is None else place.shape
        result = result_from_dict(done)
        result.state = shape.load(result.state)
        return result

    async def _failed(self, error: RunFailed | RunCancelled, instance: object, state: object) -> WorkflowResult:
        """The result of a child run that failed: as it wrote it down at its end, as far as it came to that."""
        run_id = error.run_id or ""
        definition = definition_of(instance)
        name = type(instance).__name__ if definition is None else definition.name
        result = WorkflowResult(name, state, run_id=run_id)
        for event in await calls_of(self._ctx).journal.events(run_id, types=["workflow_finished"]):
            told = codec.load(event.data)
            # Those of its own inline children are there, too; and what is too large for an event has no steps.
            if told.get("workflow_name") == name and "steps" in told:
                result = result_from_dict(told)
                result.state = state if result.state is None else self._loaded(instance, result.state, state)
        result.status, result.error = WorkflowStatus.FAILED, error
        return result

    def _loaded(self, instance: object, recorded: Any, state: object) -> Any:
        try:
            return self._means.homes.shape_of(type(instance)).load(recorded)
        except Misfit:
            return state


async def parent_of(ctx: FlueContext[Any]) -> str | None:
    """The id of the run that started this one."""
    calls = calls_of(ctx)
    await calls.ready()
    run = await calls.journal.run(ctx.id, values=False)
    return None if run is None else run.parent_run_id


def _inline_name(instance: object) -> str:
    return f"child {type(instance).__name__}"[:128]


def _dumped(shape: Shape, instance: object, state: object) -> Any:
    try:
        return shape.dump(state)
    except Misfit as misfit:
        listed = "; ".join(f"{problem['path']}: {problem['message']}" for problem in misfit.problems[:5])
        name = type(instance).__name__
        raise StateValidationError(f"The state of child workflow '{name}' does not fit its type: {listed}.") from misfit
