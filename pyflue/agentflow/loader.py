"""Files with step classes as workflows: which files they are, and what each of them promises.

Called by the catalog through `dialect.py`. The file is run as Python workflows are (`workflows.modules`); then the
class is found, checked as a whole, and its state's type becomes the payload's. `durable.py` does the running.
"""

from __future__ import annotations

import copy
import inspect
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from ..engine import FlueContext, Graph, GraphEdge, GraphNode, Recovery, Workflow
from ..errors import PayloadInvalid, WorkflowInvalid
from ..settings import WORKFLOW_FOLDERS
from ..typed import Misfit, Shape, shape_of
from ..workflows import Source
from ..workflows.modules import LoadedModule, ModuleLoader, shown
from ..workflows.namespaces import Namespace
from ..workflows.variables import recovery_of, strictness_of
from .dialect import KIND, WORD
from .exceptions import WorkflowDefinitionError
from .models import WorkflowDefinition, WorkflowStatus
from .validation import WORKFLOW_DEFINITION_ATTR, check_workflow, definition_of

if typing.TYPE_CHECKING:
    from .child_runs import Place

#: Step names are names of durable calls, with a word after them.
_LONGEST_NAME = 100


class AgentflowLoader:
    """Makes workflows of `.py` files with step classes."""

    def __init__(self) -> None:
        self._modules = ModuleLoader()

    def inputs(self, source: Source) -> Iterable[Path]:
        return self._modules.inputs(source)

    def load(self, source: Source) -> AgentflowWorkflow:
        loaded = self._modules.load(source)
        try:
            workflow = _workflow(source, loaded)
        except BaseException:
            loaded.drop()
            raise
        loaded.keep_for(workflow)
        return workflow


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """A workflow class of a file."""

    cls: type
    definition: WorkflowDefinition
    payload: Shape
    #: The same type, as results are written with it.
    state: Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class _ChildStart:
    """The parsed payload of a run of a further class of the file."""

    class_name: str
    state: Any


@dataclass(frozen=True, slots=True, kw_only=True, weakref_slot=True, eq=False)
class AgentflowWorkflow:
    """One version of a file with step classes."""

    name: str
    path: Path
    version: str
    description: str
    root: Path
    #: What `workflow` is in the file if it is an object, not a class; each run gets a copy.
    instance: object | None
    main: _Kind
    #: Every workflow class of the file, by name.
    kinds: Mapping[str, _Kind]
    recovery: Recovery
    is_strict: bool
    #: Held so that late imports of a run under way find the modules of this version.
    namespace: Namespace
    kind: str = KIND

    @property
    def input_schema(self) -> Mapping[str, Any]:
        return self.main.payload.schema

    @property
    def output_schema(self) -> Mapping[str, Any]:
        return _result_schema(self.main.state.schema)

    def parse(self, payload: Any) -> Any:
        if isinstance(payload, dict) and payload.keys() == {"$workflow", "$state"}:  # pyright: ignore[reportUnknownMemberType]
            return self._parse_child(cast("dict[str, Any]", payload))
        return self._parse(self.main, payload)

    def _parse(self, kind: _Kind, payload: Any) -> Any:
        try:
            return kind.payload.load(payload)
        except Misfit as misfit:
            raise PayloadInvalid(self.name, misfit.problems) from misfit.__cause__

    def _parse_child(self, payload: dict[str, Any]) -> _ChildStart:
        name = payload["$workflow"]
        kind = self.kinds.get(name) if isinstance(name, str) else None
        if kind is None:
            raise PayloadInvalid(self.name, [{"path": "$['$workflow']", "message": "No such class in this file"}])
        return _ChildStart(class_name=name, state=self._parse(kind, payload["$state"]))

    def graph(self) -> Graph:
        from .graph import graph_of

        graph = graph_of(self.main.definition)
        return Graph(
            nodes=[
                GraphNode(id=node.id, label=node.label, kind="approval" if node.requires_approval else node.kind)
                for node in graph.nodes
            ],
            edges=[
                GraphEdge(source=edge.source, target=edge.target, label=edge.route_key or "") for edge in graph.edges
            ],
        )

    async def run(self, ctx: FlueContext[Any]) -> Any:
        from .durable import Durable, journal, own_copy
        from .execution import Execution

        kind, state = self.main, ctx.payload
        if isinstance(state, _ChildStart):
            await self._check_parent(ctx)
            kind, state = self.kinds[state.class_name], state.state
        means = Durable(ctx, kind.state, self)
        run = Execution(self._make(kind), means, run_id=ctx.id, hooks=(journal,))
        # The payload stays as it came: the steps change their own copy.
        result = await run.go(own_copy(kind.state, state, self.name))
        if result.status is WorkflowStatus.FAILED and result.error is not None:
            raise result.error
        return means.dumped(run, result)

    async def _check_parent(self, ctx: FlueContext[Any]) -> None:
        """Let nobody from outside start a class that the file's own workflow keeps for its steps."""
        from .child_runs import parent_of

        parent = await parent_of(ctx)
        if parent is None or not parent.startswith(f"workflow:{self.name}:"):
            problem = {"path": "$['$workflow']", "message": "Only runs of this workflow start its other classes"}
            raise PayloadInvalid(self.name, [problem])

    def _make(self, kind: _Kind) -> object:
        return kind.cls() if self.instance is None or kind is not self.main else copy.copy(self.instance)

    # Where classes are at home (`child_runs.Homes`)

    def place(self, cls: type) -> Place | None:
        from .child_runs import Place

        if cls is self.main.cls and self.instance is not None:
            return None  # runs of the file begin with a copy of that object
        for name, kind in self.kinds.items():
            if kind.cls is cls and _can_be_made(cls):
                return Place(workflow=self.name, class_name=name, shape=kind.state)
        return None

    def elsewhere(self, cls: type) -> str | None:
        code = next((code for value in vars(cls).values() if (code := getattr(value, "__code__", None))), None)
        path = Path(code.co_filename) if code is not None else self.path
        for folder in WORKFLOW_FOLDERS:
            home = self.root / folder
            if path != self.path and path.is_relative_to(home):
                parts = path.relative_to(home).with_suffix("").parts
                return None if any(part.startswith("_") for part in parts) else ".".join(parts)
        return None

    def place_in(self, workflow: Workflow, cls: type) -> Place | None:
        from .child_runs import Place

        if not isinstance(workflow, AgentflowWorkflow) or workflow.instance is not None:
            return None
        if workflow.main.cls.__qualname__ != cls.__qualname__:
            return None
        # The type is this file's: it knows the classes of another version of that one.
        return Place(workflow=workflow.name, class_name=None, shape=self.shape_of(cls))

    def shape_of(self, cls: type) -> Shape:
        for kind in self.kinds.values():
            if kind.cls is cls:
                return kind.state
        return shape_of(_state_type(cls, vars(inspect.getmodule(cls) or ModuleType("none"))), "result")


def _workflow(source: Source, loaded: LoadedModule) -> AgentflowWorkflow:
    module = loaded.module
    classes = {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, type) and WORKFLOW_DEFINITION_ATTR in vars(value)
    }
    main, instance = _main(source, module, classes)
    kinds = {name: _kind(source, module, cls) for name, cls in {**classes, main.__name__: main}.items()}
    if instance is None and not _can_be_made(main):
        problem = (
            f"{main.__name__} cannot be made without arguments. Make the object here: `workflow = {main.__name__}(…)`."
        )
        raise WorkflowInvalid(shown(source), problem, line=_line_of(source, main))
    return AgentflowWorkflow(
        name=source.name,
        path=source.path,
        version=loaded.version,
        description=inspect.cleandoc(main.__doc__ or module.__doc__ or "").strip(),
        root=source.root,
        instance=instance,
        main=kinds[main.__name__],
        kinds=kinds,
        recovery=recovery_of(source, module),
        is_strict=strictness_of(source, module),
        namespace=loaded.namespace,
    )


def _main(source: Source, module: ModuleType, classes: Mapping[str, type]) -> tuple[type, object | None]:
    """The class that the file is about, and the object if the file names one."""
    named: Any = vars(module).get(WORD)
    if definition_of(named) is not None:
        cls: type = named if isinstance(named, type) else type(named)
        return cls, None if cls is named else named
    # Those that it imports belong to other files.
    here = vars(module).get("__name__")
    own = {cls: name for name, cls in classes.items() if cls.__module__ == here}
    names = list(own.values())
    if len(names) == 1:
        return classes[names[0]], None
    if not names:
        raise WorkflowInvalid(shown(source), "it has no class with `@workflow` at its top level.", line=1)
    problem = (
        f"it has several workflow classes ({', '.join(names)}). Say at its end which one it is about: "
        f"`workflow = {names[-1]}`."
    )
    raise WorkflowInvalid(shown(source), problem, line=_line_of(source, classes[names[-1]]))


def _kind(source: Source, module: ModuleType, cls: type) -> _Kind:
    try:
        definition = check_workflow(cls)
        for step in definition.steps:
            if len(step.name) > _LONGEST_NAME or not step.name.isprintable():
                raise WorkflowDefinitionError(
                    f"Step name {step.name[:_LONGEST_NAME]!r}: in a file a name is at most {_LONGEST_NAME} printable "
                    "characters."
                )
    except (WorkflowDefinitionError, TypeError) as error:
        raise WorkflowInvalid(shown(source), f"{cls.__name__}: {error}", line=_line_of(source, cls)) from error
    try:
        annotation = _state_type(cls, vars(module))
        payload, state = shape_of(annotation, "payload"), shape_of(annotation, "result")
    except (TypeError, NameError, AttributeError, SyntaxError) as error:
        problem = f"the state of {cls.__name__} has no JSON form: {error}"
        raise WorkflowInvalid(shown(source), problem, line=_line_of(source, cls)) from error
    return _Kind(cls=cls, definition=definition, payload=payload, state=state)


def _state_type(cls: type, names: Mapping[str, Any]) -> Any:
    """The type of a class's state: as `@workflow(state=…)` or the class body says, or the file's class of that name."""
    definition = definition_of(cls)
    if definition is not None and definition.state is not None:
        return definition.state
    for base in cls.__mro__:
        if "state" in vars(base).get("__annotations__", {}):
            return typing.get_type_hints(base, localns=dict(names), include_extras=True)["state"]
    # stepflow-agent does not ask for the type, but its files have it: RefundState beside RefundWorkflow.
    beside = names.get(f"{cls.__name__.removesuffix('Workflow')}State")
    if isinstance(beside, type):
        return beside
    states = {value for name, value in names.items() if name.endswith("State") and isinstance(value, type)}
    flows = {value for value in names.values() if isinstance(value, type) and definition_of(value) is not None}
    return states.pop() if len(states) == 1 and len(flows) == 1 else dict[str, Any]


def _can_be_made(cls: type) -> bool:
    try:
        inspect.signature(cls).bind()
    except (TypeError, ValueError):
        return False
    return True


def _line_of(source: Source, cls: type) -> int | None:
    """The first line of a class, if it is in the file."""
    lines = [
        code.co_firstlineno
        for value in vars(cls).values()
        if (code := getattr(value, "__code__", None)) is not None and code.co_filename == str(source.path)
    ]
    return min(lines) if lines else None


def _result_schema(state: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON Schema of a result."""
    whole = dict(state)
    definitions = whole.pop("$defs", None)
    text, time, number = {"type": "string"}, {"type": "string", "format": "date-time"}, {"type": "integer"}
    step = {
        "type": "object",
        "required": ["step_name", "status", "attempts", "output"],
        "properties": {
            "step_name": text,
            "status": {"enum": ["succeeded", "skipped"]},
            "attempts": number,
            "output": {},
            "route_key": {"type": ["string", "null"]},
            "next_step": {"type": ["string", "null"]},
        },
    }
    schema: dict[str, Any] = {
        "type": "object",
        "required": ["workflow_name", "run_id", "status", "state", "steps"],
        "properties": {
            "workflow_name": text,
            "run_id": text,
            "status": {"const": "succeeded"},
            "state": whole,
            "steps": {"type": "array", "items": step},
            "started_at": time,
            "finished_at": time,
            "duration_ms": number,
        },
    }
    return schema if definitions is None else {**schema, "$defs": definitions}
