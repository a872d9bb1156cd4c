"""A flow document: from a JSON value to a `Flow` that can be run, and back.

`read_flow` checks the shape and compiles all expressions; `validation.py` says what else is wrong, the scheduler runs
what comes out. `flow_to_value` writes a flow in the one form that its id is made from. Fields and their order are those
of stepflow-ai/stepflow `crates/stepflow-core/src/workflow/{flow,step}.rs`. Read besides what the original reads:
`steps` as a mapping, `schema: flow/v1`, `input` at the top as the input's schema, and documents of the older kind.

A document is **legacy** if it uses a key of releases up to 0.8.0: `$from`, `skipIf`, `onError: {action: skip}`,
`inputSchema`, `outputSchema`, or `variables` at the top. Only there can a step be skipped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, cast

from .content import content_id
from .exceptions import FlowMalformed, Place, Problem
from .expressions import Compiler, Constant, Expression, literal, rewritten

if TYPE_CHECKING:
    from .yaml_reader import Marks

#: The schema by which the original recognises a flow.
FLOW_SCHEMA: Final = "https://stepflow.org/schemas/v1/flow.json"
#: What a document may say that it is; it may also say nothing.
ACCEPTED_SCHEMAS: Final = (FLOW_SCHEMA, "flow/v1")

FLOW_KEYS: Final = (
    "schema",
    "name",
    "description",
    "version",
    "schemas",
    "steps",
    "output",
    "test",
    "examples",
    "metadata",
    "input",
    "inputSchema",
    "input_schema",
    "outputSchema",
    "output_schema",
    "variables",
)
STEP_KEYS: Final = (
    "id",
    "component",
    "input",
    "onError",
    "mustExecute",
    "metadata",
    "skipIf",
    "inputSchema",
    "outputSchema",
)
ON_ERROR_KEYS: Final = ("action", "defaultValue", "maxRetries")

DEFAULT_MAX_RETRIES: Final = 3

_LEGACY_FLOW_KEYS = ("inputSchema", "outputSchema", "variables")
_LEGACY_STEP_KEYS = ("skipIf", "inputSchema", "outputSchema")


class OnErrorAction(StrEnum):
    """What happens when the component of a step fails; the values are the words of documents."""

    FAIL = "fail"  #: the step fails
    USE_DEFAULT = "useDefault"  #: the step succeeds with a default
    RETRY = "retry"  #: it is tried again
    SKIP = "skip"  #: the step counts as skipped (legacy)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OnError:
    """The answer of a step to its failure."""

    action: OnErrorAction = OnErrorAction.FAIL
    #: For `USE_DEFAULT`. A constant, except in legacy documents.
    default: Expression = field(default_factory=lambda: literal(None))
    #: For `RETRY`: how often it is tried again after the first time.
    max_retries: int = DEFAULT_MAX_RETRIES

    @property
    def answers(self) -> bool:
        """Whether a step whose component has failed counts as something else."""
        return self.action in {OnErrorAction.USE_DEFAULT, OnErrorAction.SKIP}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FlowStep:
    """A step of a flow."""

    id: str
    component: str
    input: Expression
    #: Its place among the steps, from 0.
    index: int
    #: Where it stands in the document: `("steps", 0)`, or `("steps", "greet")` if `steps` is a mapping.
    path: Place
    on_error: OnError
    must_execute: bool = False
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    #: The step is skipped if this holds (legacy).
    skip_if: Expression | None = None
    #: The step as it was read.
    source: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class Flow:
    """A flow that has the right shape, with its expressions compiled. Nothing in it may be changed."""

    name: str | None = None
    description: str | None = None
    version: str | None = None
    #: One JSON Schema: `$defs`, and `input`, `output`, `variables` and `steps` under `properties`. Empty if there are
    #: none. What older documents have in other places is in here.
    schemas: Mapping[str, Any] = field(default_factory=dict[str, Any])
    input_schema: Any = None
    output_schema: Any = None
    variables_schema: Any = None
    #: The schemas of what steps come to.
    step_schemas: Mapping[str, Any] = field(default_factory=dict[str, Any])
    steps: tuple[FlowStep, ...] = ()
    #: Of steps with the same id, the first.
    by_id: Mapping[str, FlowStep] = field(default_factory=dict[str, "FlowStep"], repr=False)
    output: Expression = field(default_factory=lambda: Constant(None, None))
    test: Mapping[str, Any] | None = None
    examples: Sequence[Mapping[str, Any]] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    is_legacy: bool = False
    #: The value as it was read.
    source: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False)
    #: Where in the text everything is, if it was read from one.
    marks: Marks | None = field(default=None, repr=False)
    _found: dict[str, Any] = field(default_factory=dict[str, Any], repr=False)


def read_flow(value: Any, marks: Marks | None = None) -> Flow:
    """The flow that a JSON value describes. The value is kept, and must not be changed any more.

    Raises:
        FlowMalformed: it does not have the shape of a flow.
    """
    reader = _Reader(marks)
    flow = reader.read(value)
    if flow is None or reader.problems:
        raise FlowMalformed([_marked(problem, marks) for problem in reader.problems])
    return flow


def read_flow_text(text: str | bytes, suffix: str = ".yaml") -> Flow:
    """The flow in a document of a file; `suffix` says whether it is JSON (`.json`) or YAML.

    Raises:
        DocumentMalformed: it is no YAML or JSON.
        FlowMalformed: it is no flow.
    """
    from .yaml_reader import read_document

    document = read_document(text, suffix)
    return read_flow(document.value, document.marks)


def flow_id(flow: Flow) -> str:
    """The content id of the flow as `flow_to_value` writes it."""
    found = flow._found.get("flow_id")  # pyright: ignore[reportPrivateUsage]  (a part of the flow, kept here)
    if found is None:
        found = content_id(flow_to_value(flow))
        flow._found["flow_id"] = found  # pyright: ignore[reportPrivateUsage]
    return found


def flow_to_value(flow: Flow) -> dict[str, Any]:
    """The flow as one JSON value, in the form that the original stores: its order of fields, nothing that is not set.

    Reading it again gives the same flow, and the same form.
    """
    value: dict[str, Any] = {"schema": FLOW_SCHEMA}
    value |= {key: text for key in ("name", "description", "version") if (text := getattr(flow, key)) is not None}
    value |= _schemas_to_value(flow)
    if flow.steps:
        value["steps"] = [step_to_value(step) for step in flow.steps]
    if flow.output.source is not None:
        value["output"] = rewritten(flow.output.source)
    if flow.test is not None:
        value["test"] = flow.test
    if flow.source.get("examples") is not None:
        value["examples"] = list(flow.examples)
    if flow.metadata:
        value["metadata"] = flow.metadata
    return value


def step_to_value(step: FlowStep) -> dict[str, Any]:
    """One step as `flow_to_value` writes it."""
    source = step.source
    value: dict[str, Any] = {"id": step.id, "component": step.component}
    value |= {key: source[key] for key in ("inputSchema", "outputSchema") if source.get(key) is not None}
    if step.skip_if is not None:
        value["skipIf"] = rewritten(step.skip_if.source)
    if source.get("onError") is not None:
        value["onError"] = _on_error_to_value(step)
    if step.input.source is not None:
        value["input"] = rewritten(step.input.source)
    if source.get("mustExecute") is not None:
        value["mustExecute"] = step.must_execute
    if step.metadata:
        value["metadata"] = step.metadata
    return value


def all_examples(flow: Flow) -> list[Mapping[str, Any]]:
    """The examples of the flow, then its test cases as further ones, unless their name is taken."""
    examples = list(flow.examples)
    names = {example["name"] for example in examples}
    cases: Sequence[Mapping[str, Any]] = (flow.test or {}).get("cases") or ()
    for case in cases:
        if case["name"] not in names:
            names.add(case["name"])
            examples.append({key: case[key] for key in ("name", "description", "input") if key in case})
    return examples


def _schemas_to_value(flow: Flow) -> dict[str, Any]:
    if not flow.is_legacy:
        return {"schemas": flow.schemas} if flow.schemas else {}
    # Older documents have these at the top; they stay there, so that the document stays an older one.
    moved = {
        "inputSchema": flow.input_schema,
        "outputSchema": flow.output_schema,
        "variables": flow.variables_schema,
    }
    rest = _schemas(flow.schemas.get("$defs") or {}, {}, flow.step_schemas)
    return ({"schemas": rest} if rest else {}) | {key: schema for key, schema in moved.items() if schema is not None}


def _on_error_to_value(step: FlowStep) -> dict[str, Any]:
    source = cast("Mapping[str, Any]", step.source["onError"])
    value: dict[str, Any] = {"action": step.on_error.action.value}
    if step.on_error.action is OnErrorAction.USE_DEFAULT and source.get("defaultValue") is not None:
        default = source["defaultValue"]
        # Only in older documents is it an expression, and compiled as one.
        value["defaultValue"] = rewritten(default) if step.on_error.default.source is default else default
    if step.on_error.action is OnErrorAction.RETRY and source.get("maxRetries") is not None:
        value["maxRetries"] = step.on_error.max_retries
    return value


def _marked(problem: Problem, marks: Marks | None) -> Problem:
    if marks is None:
        return problem
    line, column = marks.position(problem.path)
    return Problem(path=problem.path, message=problem.message, line=line, column=column)


def _schemas(defs: Mapping[str, Any], named: Mapping[str, Any], steps: Mapping[str, Any]) -> dict[str, Any]:
    properties = {name: schema for name, schema in named.items() if schema is not None}
    if steps:
        properties["steps"] = {"type": "object", "properties": steps}
    if not defs and not properties:
        return {}
    return {"type": "object"} | ({"$defs": defs} if defs else {}) | ({"properties": properties} if properties else {})


_NO_FIELDS: Final[Mapping[str, Any]] = {}


class _Reader:
    """Reads one document, and collects what is wrong with it."""

    def __init__(self, marks: Marks | None) -> None:
        self._marks = marks
        self._compiler = Compiler(legacy=True)
        self.problems: list[Problem] = self._compiler.problems

    def read(self, value: Any) -> Flow | None:
        if not isinstance(value, dict):
            self._refuse((), "A flow is an object with `steps` and `output`.")
            return None
        source = cast("dict[str, Any]", value)
        self._check_schema(source.get("schema"))
        sources = self._step_sources(source.get("steps"))
        inputs = [self._compile(step.get("input"), (*path, "input")) for path, step in sources]
        skips = [
            None if step.get("skipIf") is None else self._compile(step["skipIf"], (*path, "skipIf"))
            for path, step in sources
        ]
        output = self._compile(source.get("output"), ("output",))
        # Whether defaults are expressions is known only after all `$from`s were met.
        is_legacy = self._compiler.saw_legacy or _has_legacy_key(source, [step for _, step in sources])
        steps = tuple(
            self._step(index, path, step, inputs[index], skips[index], is_legacy=is_legacy)
            for index, (path, step) in enumerate(sources)
        )
        by_id: dict[str, FlowStep] = {}
        for step in steps:
            by_id.setdefault(step.id, step)
        return Flow(
            name=self._text(source, "name"),
            description=self._text(source, "description"),
            version=self._text(source, "version"),
            **self._read_schemas(source),
            steps=steps,
            by_id=by_id,
            output=output,
            test=self._test(source.get("test")),
            examples=self._examples(source.get("examples")),
            metadata=self._object(source, "metadata", ()),
            is_legacy=is_legacy,
            source=source,
            marks=self._marks,
        )

    def _compile(self, value: Any, path: Place) -> Expression:
        return self._compiler.compile(value, path)

    def _refuse(self, path: Place, message: str) -> None:
        self.problems.append(Problem(path=path, message=message))

    def _check_schema(self, schema: Any) -> None:
        if schema is not None and schema not in ACCEPTED_SCHEMAS:
            self._refuse(
                ("schema",),
                f"`schema` can be `{ACCEPTED_SCHEMAS[0]}` or `{ACCEPTED_SCHEMAS[1]}`, not {_shown(schema)}; "
                "or leave it out.",
            )

    def _text(self, fields: Mapping[str, Any], key: str, path: Place = ()) -> str | None:
        value = fields.get(key)
        if value is None or isinstance(value, str):
            return value
        self._refuse((*path, key), f"`{key}` must be a text, not {_shown(value)}; write it in quotes.")
        return None

    def _required_text(self, fields: Mapping[str, Any], key: str, path: Place) -> str:
        if fields.get(key) is None:
            self._refuse(path, f"A step needs `{key}`.")
        return self._text(fields, key, path) or ""

    def _object(self, fields: Mapping[str, Any], key: str, path: Place) -> Mapping[str, Any]:
        value = fields.get(key)
        if value is None:
            return _NO_FIELDS
        if not isinstance(value, dict):
            self._refuse((*path, key), f"`{key}` must be an object, not {_shown(value)}.")
            return _NO_FIELDS
        return cast("dict[str, Any]", value)

    # Steps

    def _step_sources(self, steps: Any) -> list[tuple[Place, Mapping[str, Any]]]:
        """Each step with its place; a mapping of steps gives them its keys as ids."""
        entries: Iterator[tuple[str | int, Any]]
        if steps is None:
            return []
        if isinstance(steps, dict):
            entries = iter(cast("dict[str, Any]", steps).items())
        elif isinstance(steps, list):
            entries = enumerate(cast("list[Any]", steps))
        else:
            self._refuse(("steps",), f"`steps` must be a list, or a mapping of ids to steps, not {_shown(steps)}.")
            return []
        found: list[tuple[Place, Mapping[str, Any]]] = []
        for key, step in entries:
            path = ("steps", key)
            if not isinstance(step, dict):
                self._refuse(path, f"A step is an object with a `component`, not {_shown(step)}.")
                continue
            fields = cast("dict[str, Any]", step)
            if isinstance(key, str):
                if fields.get("id", key) != key:
                    self._refuse((*path, "id"), f"The id of this step is its key, {key!r}: leave `id` out.")
                fields = {"id": key} | fields | {"id": key}
            found.append((path, fields))
        return found

    def _step(
        self,
        index: int,
        path: Place,
        fields: Mapping[str, Any],
        input_: Expression,
        skip_if: Expression | None,
        *,
        is_legacy: bool,
    ) -> FlowStep:
        must_execute = fields.get("mustExecute")
        if must_execute is not None and not isinstance(must_execute, bool):
            self._refuse((*path, "mustExecute"), f"`mustExecute` is true or false, not {_shown(must_execute)}.")
        return FlowStep(
            id=self._required_text(fields, "id", path),
            component=self._required_text(fields, "component", path),
            input=input_,
            index=index,
            path=path,
            on_error=self._on_error(fields.get("onError"), (*path, "onError"), is_legacy=is_legacy),
            must_execute=must_execute is True,
            metadata=self._object(fields, "metadata", path),
            skip_if=skip_if,
            source=fields,
        )

    def _on_error(self, value: Any, path: Place, *, is_legacy: bool) -> OnError:
        if value is None:
            return _FAIL
        if not isinstance(value, dict):
            self._refuse(path, f"`onError` is an object with an `action`, not {_shown(value)}.")
            return _FAIL
        fields = cast("dict[str, Any]", value)
        action = fields.get("action")
        if action == OnErrorAction.FAIL:
            return _FAIL
        if action == OnErrorAction.USE_DEFAULT:
            default = fields.get("defaultValue")
            compiled = self._compile(default, (*path, "defaultValue")) if is_legacy else literal(default)
            return OnError(action=OnErrorAction.USE_DEFAULT, default=compiled)
        if action == OnErrorAction.RETRY:
            retries = fields.get("maxRetries")
            if retries is not None and (not isinstance(retries, int) or isinstance(retries, bool) or retries < 0):
                self._refuse((*path, "maxRetries"), f"`maxRetries` is a whole number from 0, not {_shown(retries)}.")
                retries = None
            return OnError(action=OnErrorAction.RETRY, max_retries=DEFAULT_MAX_RETRIES if retries is None else retries)
        if action == OnErrorAction.SKIP:
            return OnError(action=OnErrorAction.SKIP)
        self._refuse(
            (*path, "action"),
            f"unknown variant `{action}`, expected one of `fail`, `useDefault`, `retry`"
            if isinstance(action, str)
            else "`onError` needs an `action`: `fail`, `useDefault` or `retry`.",
        )
        return _FAIL

    # Everything else

    def _read_schemas(self, source: Mapping[str, Any]) -> dict[str, Any]:
        schemas = self._object(source, "schemas", ())
        defs = self._object(schemas, "$defs", ("schemas",))
        properties = self._object(schemas, "properties", ("schemas",))
        of_steps = self._object(properties, "steps", ("schemas", "properties"))
        steps = self._object(of_steps, "properties", ("schemas", "properties", "steps"))
        # In rising priority.
        named = {
            "input": (("input",), ("inputSchema",), ("input_schema",), ("schemas", "properties", "input")),
            "output": (("outputSchema",), ("output_schema",), ("schemas", "properties", "output")),
            "variables": (("variables",), ("schemas", "properties", "variables")),
        }
        found: dict[str, Any] = {}
        for name, places in named.items():
            for place in places:
                schema = (source if len(place) == 1 else properties).get(place[-1])
                if schema is not None:
                    found[name] = self._schema(schema, place)
        return {
            "schemas": _schemas(defs, found, steps),
            "input_schema": found.get("input"),
            "output_schema": found.get("output"),
            "variables_schema": found.get("variables"),
            "step_schemas": steps,
        }

    def _schema(self, schema: Any, path: Place) -> Any:
        if not isinstance(schema, (dict, bool)):
            self._refuse(path, f"This must be a JSON Schema (an object such as `type: object`), not {_shown(schema)}.")
            return None
        return cast("Any", schema)

    def _test(self, value: Any) -> Mapping[str, Any] | None:
        if value is None:
            return None
        if not isinstance(value, dict):
            self._refuse(("test",), f"`test` is an object with `cases`, not {_shown(value)}.")
            return None
        fields = cast("dict[str, Any]", value)
        self._named_inputs(fields.get("cases"), ("test", "cases"), "A test case")
        return fields

    def _examples(self, value: Any) -> Sequence[Mapping[str, Any]]:
        self._named_inputs(value, ("examples",), "An example")
        return cast("list[Mapping[str, Any]]", value) if isinstance(value, list) else ()

    def _named_inputs(self, value: Any, path: Place, what: str) -> None:
        if value is None:
            return
        if not isinstance(value, list):
            self._refuse(path, f"This must be a list, not {_shown(value)}.")
            return
        for index, entry in enumerate(cast("list[Any]", value)):
            if not isinstance(entry, dict) or not isinstance(cast("dict[str, Any]", entry).get("name"), str):
                self._refuse((*path, index), f"{what} is an object with a `name` (a text) and an `input`.")
            elif "input" not in entry:
                self._refuse((*path, index), f"{what} needs an `input`.")


_FAIL: Final = OnError()


def _has_legacy_key(flow: Mapping[str, Any], steps: Sequence[Mapping[str, Any]]) -> bool:
    if any(flow.get(key) is not None for key in _LEGACY_FLOW_KEYS):
        return True
    for step in steps:
        if any(step.get(key) is not None for key in _LEGACY_STEP_KEYS):
            return True
        on_error = step.get("onError")
        if isinstance(on_error, dict) and cast("dict[str, Any]", on_error).get("action") == OnErrorAction.SKIP:
            return True
    return False


def _shown(value: object) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return "`true`" if value else "`false`"
        case int() | float():
            return "a number"
        case str():
            return f"`{value[:100]}`" if len(value) <= 100 else f"`{value[:100]}…`"
        case list():
            return "a list"
        case _:
            return "an object"
