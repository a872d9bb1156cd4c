"""What is wrong with a flow that has the right shape, as far as the document itself can tell.

`diagnose` looks at everything without running it, in branches not taken, too. Kinds, levels and texts are those of
stepflow-ai/stepflow `crates/stepflow-analysis`, in two written forms: the one of its time (`to_base`) and the newer one
with numbers (`to_next`). The kinds from 1900 are ours: keys that have no effect, and a component that wants a config.
What a config says of components comes in as a function (`Look`): nothing of it is known here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, TypeAlias, cast

from .document import FLOW_KEYS, FLOW_SCHEMA, ON_ERROR_KEYS, STEP_KEYS, Flow, FlowStep, read_flow
from .exceptions import FlowMalformed, Place, place_text
from .expressions import (
    COMPANIONS,
    SPECIAL_KEYS,
    Expression,
    Form,
    VariableReference,
    compile_expression,
    forms,
    special_key,
)
from .paths import WHOLE, read_path
from .variables import declared_variables

#: What a reference from the output is said to come from.
OUTPUT: Final = "workflow_output"

_TEST_KEYS: Final = ("cases", "config", "servers", "stepflow_config")
_CASE_KEYS: Final = ("name", "description", "input", "output")
_EXAMPLE_KEYS: Final = ("name", "description", "input")


class Level(StrEnum):
    """How bad it is."""

    FATAL = "fatal"  #: the flow is not stored and not run
    ERROR = "error"  #: it will fail where this is reached
    WARNING = "warning"  #: it may not do what was meant

    @property
    def number(self) -> int:
        """As the newer form has it."""
        return _LEVEL_NUMBERS[self]


_LEVEL_NUMBERS: Final = {Level.FATAL: 1, Level.ERROR: 2, Level.WARNING: 3}


class Kind(StrEnum):
    """What is wrong."""

    UNREACHABLE_STEP = "unreachableStep"
    MISSING_FLOW_NAME = "missingFlowName"
    MISSING_FLOW_DESCRIPTION = "missingFlowDescription"
    UNVALIDATED_FIELD_ACCESS = "unvalidatedFieldAccess"
    MISSING_VARIABLE_SCHEMA = "missingVariableSchema"
    NO_PLUGINS_CONFIGURED = "noPluginsConfigured"
    NO_ROUTING_RULES_CONFIGURED = "noRoutingRulesConfigured"
    UNUSED_PLUGIN = "unusedPlugin"
    UNKNOWN_KEY = "unknownKey"  #: ours: a field that is not one
    IGNORED_KEY = "ignoredKey"  #: ours: a key beside one that makes the object an expression
    MISSPELT_EXPRESSION = "misspeltExpression"  #: ours: `$steps`
    UNROUTED_COMPONENT = "unroutedComponent"  #: ours: it is not built in, and there is no config
    INVALID_SUBFLOW_LITERAL = "invalidSubflowLiteral"
    UNDEFINED_VARIABLE = "undefinedVariable"
    UNDEFINED_REQUIRED_VARIABLE = "undefinedRequiredVariable"
    INVALID_ROUTE_REFERENCE = "invalidRouteReference"
    INVALID_COMPONENT = "invalidComponent"
    DUPLICATE_STEP_ID = "duplicateStepId"
    EMPTY_STEP_ID = "emptyStepId"
    SELF_REFERENCE = "selfReference"
    UNDEFINED_STEP_REFERENCE = "undefinedStepReference"

    @property
    def code(self) -> int:
        """Its number in the newer form."""
        return _CODES[self]

    @property
    def level(self) -> Level:
        """The thousands of the number say how bad it is."""
        return (Level.WARNING, Level.ERROR, Level.FATAL)[self.code // 1000 - 1]


_CODES: Final[Mapping[Kind, int]] = {
    Kind.UNREACHABLE_STEP: 1000,
    Kind.MISSING_FLOW_NAME: 1001,
    Kind.MISSING_FLOW_DESCRIPTION: 1002,
    Kind.UNVALIDATED_FIELD_ACCESS: 1003,
    Kind.MISSING_VARIABLE_SCHEMA: 1004,
    Kind.NO_PLUGINS_CONFIGURED: 1200,
    Kind.NO_ROUTING_RULES_CONFIGURED: 1201,
    Kind.UNUSED_PLUGIN: 1202,
    Kind.UNKNOWN_KEY: 1900,
    Kind.IGNORED_KEY: 1901,
    Kind.MISSPELT_EXPRESSION: 1902,
    Kind.UNROUTED_COMPONENT: 1910,
    Kind.INVALID_SUBFLOW_LITERAL: 2003,
    Kind.UNDEFINED_VARIABLE: 2004,
    Kind.UNDEFINED_REQUIRED_VARIABLE: 2005,
    Kind.INVALID_ROUTE_REFERENCE: 2200,
    Kind.INVALID_COMPONENT: 2500,
    Kind.DUPLICATE_STEP_ID: 3000,
    Kind.EMPTY_STEP_ID: 3001,
    Kind.SELF_REFERENCE: 3002,
    Kind.UNDEFINED_STEP_REFERENCE: 3003,
}

_TEXTS: Final[Mapping[Kind, str]] = {
    Kind.UNREACHABLE_STEP: "Step '{stepId}' is not referenced by any other step or workflow output",
    Kind.MISSING_FLOW_NAME: "Workflow has no name",
    Kind.MISSING_FLOW_DESCRIPTION: "Workflow has no description",
    Kind.UNVALIDATED_FIELD_ACCESS: "Field access '{field}' on step '{stepId}' cannot be validated: {reason}",
    Kind.MISSING_VARIABLE_SCHEMA: "Workflow has no variable schema defined - variable references cannot be validated",
    Kind.NO_PLUGINS_CONFIGURED: "No plugins configured",
    Kind.NO_ROUTING_RULES_CONFIGURED: "No routing rules configured",
    Kind.UNUSED_PLUGIN: "Plugin '{plugin}' is not referenced by any routing rule",
    Kind.UNKNOWN_KEY: "`{key}` is not a field of {owner} and has no effect. {advice}",
    Kind.IGNORED_KEY: "`{key}` has no effect beside `{expression}`. {advice}",
    Kind.MISSPELT_EXPRESSION: "`{key}` is an ordinary key, not an expression. {advice}",
    Kind.UNROUTED_COMPONENT: "Component '{component}' in step '{stepId}' needs a config: {error}",
    Kind.INVALID_SUBFLOW_LITERAL: "Invalid subflow literal: {error}",
    Kind.UNDEFINED_VARIABLE: "Undefined variable '{variable}' referenced in {context}",
    Kind.UNDEFINED_REQUIRED_VARIABLE: "Undefined required variable '{variable}' referenced in {context}",
    Kind.INVALID_ROUTE_REFERENCE: "Routing rule {rule} for path '{routePath}' references unknown plugin '{plugin}'",
    Kind.INVALID_COMPONENT: "Invalid component '{component}' in step '{stepId}': {error}",
    Kind.DUPLICATE_STEP_ID: "Duplicate step ID: '{stepId}'",
    Kind.EMPTY_STEP_ID: "Step ID cannot be empty",
    Kind.SELF_REFERENCE: "Step '{stepId}' cannot reference itself",
    Kind.UNDEFINED_STEP_REFERENCE: "Step '{fromStep}' references undefined step '{referencedStep}'",
}

#: Texts that are longer in the older form.
_BASE_TEXTS: Final[Mapping[Kind, str]] = {
    Kind.MISSING_FLOW_NAME: "Workflow has no name defined",
    Kind.MISSING_FLOW_DESCRIPTION: "Workflow has no description defined",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """Where the path of a component leads."""

    #: Why it leads nowhere; empty if it leads to a component, or to a plugin that would have to be asked.
    problem: str = ""
    #: Whether a config says so. If not, the flow may be meant for one that is not here.
    is_certain: bool = True
    #: The built-in components that it may be, by their own paths.
    built_in: Set[str] = frozenset()


#: Says where the path of a component leads.
Look: TypeAlias = Callable[[str], Reach]

#: The fields of built-in components that hold a flow.
_FLOW_FIELDS: Final[Mapping[str, str]] = {"/map": "workflow", "/iterate": "flow"}


def without_config(component: str) -> Reach:
    """Built-in components by the paths that they usually have; nothing is said of others."""
    name = component.removeprefix("/builtin")
    return Reach(built_in=frozenset({name} & _FLOW_FIELDS.keys()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnostic:
    """One thing that is wrong, or may be."""

    kind: Kind
    path: Place = ()
    #: What it is about, by the names of the written forms.
    fields: Mapping[str, Any] = field(default_factory=dict[str, Any])
    #: Both from 1; None if the text is not known.
    line: int | None = None
    column: int | None = None
    #: What may have been meant, or has to be done: another sentence of the text.
    advice: str = ""

    @property
    def level(self) -> Level:
        """How bad it is."""
        return self.kind.level

    @property
    def code(self) -> int:
        """The number of its kind."""
        return self.kind.code

    @property
    def text(self) -> str:
        """A sentence for people."""
        rule = {"rule": self.fields["ruleIndex"] + 1} if "ruleIndex" in self.fields else {}
        text = _TEXTS[self.kind].format(**self.fields, **rule).rstrip()
        return f"{text}. {self.advice}" if self.advice else text

    @property
    def is_ignored(self) -> bool:
        """Whether it is left out where people look: it says only what could not be checked."""
        return self.kind is Kind.UNVALIDATED_FIELD_ACCESS

    def to_base(self) -> dict[str, Any]:
        """The form of the original's time; `line` and `column` are ours."""
        return {
            "message": {"type": self.kind.value, **self.fields},
            "level": self.level.value,
            "text": _BASE_TEXTS.get(self.kind, self.text),
            "path": [{"Index": part} if isinstance(part, int) else {"String": part} for part in self.path],
            "ignore": self.is_ignored,
            **self._place(),
        }

    def to_next(self) -> dict[str, Any]:
        """The newer form; `line` and `column` are ours."""
        data = {"data": {_snake(name): value for name, value in self.fields.items()}} if self.fields else {}
        return {
            "kind": self.kind.value,
            "code": self.code,
            "level": self.level.number,
            "formatted": self.text,
            **data,
            "path": place_text(self.path),
            **({"experimental": True} if self.is_ignored else {}),
            **self._place(),
        }

    def __str__(self) -> str:
        where = place_text(self.path) if self.line is None else f"line {self.line}, column {self.column}"
        return f"{self.level.value}: {where}: {self.text}"

    def _place(self) -> dict[str, Any]:
        return {} if self.line is None else {"line": self.line, "column": self.column}


@dataclass(frozen=True, slots=True)
class Diagnostics:
    """All that was found."""

    diagnostics: tuple[Diagnostic, ...] = ()

    @property
    def num_fatal(self) -> int:
        return self._count(Level.FATAL)

    @property
    def num_error(self) -> int:
        return self._count(Level.ERROR)

    @property
    def num_warning(self) -> int:
        return self._count(Level.WARNING)

    @property
    def has_fatal(self) -> bool:
        """The flow must not be stored or run."""
        return self.num_fatal > 0

    @property
    def has_errors(self) -> bool:
        """Something is fatal, or will fail."""
        return any(diagnostic.level is not Level.WARNING for diagnostic in self.diagnostics)

    @property
    def shown(self) -> tuple[Diagnostic, ...]:
        """Those that people should see."""
        return tuple(diagnostic for diagnostic in self.diagnostics if not diagnostic.is_ignored)

    def to_base(self) -> dict[str, Any]:
        """The form of the original's time."""
        return self._written([diagnostic.to_base() for diagnostic in self.diagnostics])

    def to_next(self) -> dict[str, Any]:
        """The newer form."""
        return self._written([diagnostic.to_next() for diagnostic in self.diagnostics])

    def _written(self, diagnostics: list[dict[str, Any]]) -> dict[str, Any]:
        counts = {"numFatal": self.num_fatal, "numError": self.num_error, "numWarning": self.num_warning}
        return {"diagnostics": diagnostics, **counts}

    def _count(self, level: Level) -> int:
        return sum(diagnostic.level is level for diagnostic in self.diagnostics)


def diagnose(flow: Flow, look: Look = without_config) -> Diagnostics:
    """Everything that can be said about a flow without running it; `look` is what its config says."""
    return Diagnostics(tuple(_Diagnosis(flow, look).run()))


def diagnose_config(
    plugins: Iterable[str], routes: Mapping[str, Sequence[str]], *, place: Place = ("routes",)
) -> Diagnostics:
    """What is wrong with the plugins and routes of a config: `routes` are patterns with the plugins of their rules."""
    names = list(plugins)
    used = {plugin for rules in routes.values() for plugin in rules}
    found: list[Diagnostic] = []
    if not names:
        found.append(Diagnostic(kind=Kind.NO_PLUGINS_CONFIGURED, path=("plugins",)))
    if not used:
        found.append(Diagnostic(kind=Kind.NO_ROUTING_RULES_CONFIGURED, path=place))
    for pattern, rules in routes.items():
        for index, plugin in enumerate(rules):
            if plugin not in names:
                fields = {"routePath": pattern, "ruleIndex": index, "plugin": plugin}
                path = (*place, pattern, index)
                found.append(Diagnostic(kind=Kind.INVALID_ROUTE_REFERENCE, path=path, fields=fields))
    unused = [name for name in names if used and name not in used]
    found += [Diagnostic(kind=Kind.UNUSED_PLUGIN, path=("plugins", name), fields={"plugin": name}) for name in unused]
    return Diagnostics(tuple(found))


class _Diagnosis:
    """Looks at one flow."""

    def __init__(self, flow: Flow, look: Look, *, is_a_part: bool = False) -> None:
        """`is_a_part`: it is what a step does, and has its name from there."""
        self._flow = flow
        self._look = look
        self._is_a_part = is_a_part
        self._found: list[Diagnostic] = []
        self._says_no_variables = False

    def run(self) -> list[Diagnostic]:
        self._structure()
        available: set[str] = set()
        for step in self._flow.steps:
            for expression, path in _expressions(step):
                self._references(expression, path, step.id, available)
            available.add(step.id)
        self._references(self._flow.output, ("output",), OUTPUT, available)
        self._components()
        self._reachability()
        self._keys()
        for step in self._flow.steps:
            self._sub_flows(step)
        return self._found

    def _add(self, kind: Kind, path: Place, *, of_key: bool = False, hint: str = "", **fields: Any) -> None:
        line = column = None
        if self._flow.marks is not None:
            line, column = self._flow.marks.position(path, of_key=of_key)
        self._found.append(Diagnostic(kind=kind, path=path, fields=fields, line=line, column=column, advice=hint))

    def _structure(self) -> None:
        seen: set[str] = set()
        for step in self._flow.steps:
            if step.id in seen:
                self._add(Kind.DUPLICATE_STEP_ID, (*step.path, "id"), stepId=step.id)
            seen.add(step.id)
        for step in self._flow.steps:
            if not step.id.strip():
                self._add(Kind.EMPTY_STEP_ID, (*step.path, "id"))
        if self._is_a_part:
            return
        if not (self._flow.name or "").strip():
            self._add(Kind.MISSING_FLOW_NAME, ("name",))
        if self._flow.description is None:
            self._add(Kind.MISSING_FLOW_DESCRIPTION, ("description",))

    # References

    def _references(self, expression: Expression, path: Place, from_step: str, available: set[str]) -> None:
        if expression.is_constant:
            return
        for form in forms(expression.source, path):
            step_id = _step_of(form)
            if step_id is not None:
                self._step_reference(form, step_id, from_step, available)
            elif form.key == "$input" or (form.key == "$from" and "workflow" in form.value["$from"]):
                self._input_reference(form)
            elif form.key in ("$variable", "$from"):
                self._variable_reference(form, from_step)

    def _step_reference(self, form: Form, step_id: str, from_step: str, available: set[str]) -> None:
        if step_id == from_step:
            self._add(Kind.SELF_REFERENCE, form.path, stepId=step_id)
        elif step_id not in available:
            hint = self._hint(form.path, step_id, available)
            self._add(Kind.UNDEFINED_STEP_REFERENCE, form.path, hint=hint, fromStep=from_step, referencedStep=step_id)
        elif (path := read_path(form.value.get("path"))) is not WHOLE:
            reason = "no output schema available"
            self._add(Kind.UNVALIDATED_FIELD_ACCESS, form.path, stepId=step_id, field=path.shown, reason=reason)

    def _hint(self, path: Place, step_id: str, available: set[str]) -> str:
        """Why a step is not known where it is referred to, and what to do."""
        if any(step.id == step_id for step in self._flow.steps):
            return "It comes later in the document: move it up."
        value: Any = self._flow.source
        for depth, part in enumerate(path):
            try:
                value = value[part]
            except (LookupError, TypeError):  # the flow was not read from a document
                break
            # Past the flow's own steps: one of a flow that is the input of a step.
            if depth > 1 and step_id in _ids(value):
                return "It is a step of an inner flow: put that flow in a `$literal`."
        return _advice(step_id, sorted(available))

    def _input_reference(self, form: Form) -> None:
        path = read_path(form.value["$input"] if form.key == "$input" else form.value.get("path"))
        if path is not WHOLE and self._flow.input_schema is None:
            reason = "no input schema available"
            self._add(
                Kind.UNVALIDATED_FIELD_ACCESS, form.path, stepId="workflow_input", field=path.shown, reason=reason
            )

    def _variable_reference(self, form: Form, from_step: str) -> None:
        if self._flow.variables_schema is None:
            if not self._says_no_variables:
                self._says_no_variables = True
                self._add(Kind.MISSING_VARIABLE_SCHEMA, form.path)
            return
        reference = cast("VariableReference", compile_expression(form.value, legacy=True))
        declared = declared_variables(self._flow)
        if not any(name in declared for name in reference.names):
            kind = Kind.UNDEFINED_REQUIRED_VARIABLE if reference.default is None else Kind.UNDEFINED_VARIABLE
            self._add(kind, form.path, variable=reference.name, context=f"step '{from_step}'")
        elif reference.name in declared and len(reference.path.nested or reference.path.parts) > 1:
            self._add(
                Kind.UNVALIDATED_FIELD_ACCESS,
                form.path,
                stepId=f"variable_{reference.name}",
                field=reference.path.shown,
                reason="variable field type validation not yet implemented",
            )

    def _components(self) -> None:
        for step in self._flow.steps:
            reach = Reach(problem="Component path must start with '/'")
            if step.component.startswith("/"):
                reach = self._look(step.component)
            if reach.problem:
                kind = Kind.INVALID_COMPONENT if reach.is_certain else Kind.UNROUTED_COMPONENT
                self._add(
                    kind,
                    (*step.path, "component"),
                    stepId=step.id,
                    component=step.component,
                    error=reach.problem,
                )

    def _reachability(self) -> None:
        referenced = set(self._flow.output.references)
        for step in self._flow.steps:
            referenced.update(*(expression.references for expression, _ in _expressions(step)))
        for step in self._flow.steps:
            # The original warns of steps that must run, too; they do not wait for anybody to refer to them.
            if step.id not in referenced and not step.must_execute:
                self._add(Kind.UNREACHABLE_STEP, step.path, stepId=step.id)

    # Keys without effect

    def _keys(self) -> None:
        flow = self._flow
        self._unknown(flow.source, FLOW_KEYS, (), "a flow")
        for step in flow.steps:
            self._unknown(step.source, STEP_KEYS, step.path, "a step")
            self._unknown(step.source.get("onError"), ON_ERROR_KEYS, (*step.path, "onError"), "`onError`")
            for expression, path in _expressions(step):
                self._misspelt(expression, path)
        self._misspelt(flow.output, ("output",))
        self._unknown(flow.test, _TEST_KEYS, ("test",), "`test`")
        cases: Sequence[Any] = (flow.test or {}).get("cases") or ()
        for index, case in enumerate(cases):
            self._unknown(case, _CASE_KEYS, ("test", "cases", index), "a test case")
        for index, example in enumerate(flow.examples):
            self._unknown(example, _EXAMPLE_KEYS, ("examples", index), "an example")

    def _unknown(self, value: Any, known: Sequence[str], path: Place, owner: str) -> None:
        if not isinstance(value, Mapping):
            return
        for key in cast("Mapping[str, Any]", value):
            if key in known:
                continue
            if key == "skip" and known is STEP_KEYS:
                advice = "Write `$if` where the step's value is used."
            else:
                advice = _advice(key, known)
            self._add(Kind.UNKNOWN_KEY, (*path, key), of_key=True, key=key, owner=owner, advice=advice)

    def _misspelt(self, expression: Expression, path: Place) -> None:
        for form in forms(expression.source, path):
            for key in form.value:
                if key != form.key and key not in COMPANIONS[form.key]:
                    path = (*form.path, key)
                    advice = _advice_beside(key, form)
                    self._add(Kind.IGNORED_KEY, path, of_key=True, key=key, expression=form.key, advice=advice)
        for key, place in _dollar_keys(expression.source, path):
            advice = _advice(key, SPECIAL_KEYS)
            if advice:
                self._add(Kind.MISSPELT_EXPRESSION, place, of_key=True, key=key, advice=advice)

    # Sub-flows

    def _sub_flows(self, step: FlowStep) -> None:
        expected = self._flow_places(step)
        for form in forms(step.input.source, (*step.path, "input")):
            if form.key != "$literal":
                continue
            for sub_flow, place in _flows_in(form.value["$literal"], (*form.path, "$literal"), expected):
                self._sub_flow(sub_flow, place)

    def _sub_flow(self, value: Any, place: Place) -> None:
        try:
            flow = read_flow(value)
        except FlowMalformed as error:
            self._add(Kind.INVALID_SUBFLOW_LITERAL, place, error=f"Failed to parse subflow: {error}")
            return
        for found in _Diagnosis(flow, self._look, is_a_part=_is_no_flow(value)).run():
            of_key = found.kind in (Kind.UNKNOWN_KEY, Kind.IGNORED_KEY, Kind.MISSPELT_EXPRESSION)
            self._add(found.kind, (*place, *found.path), of_key=of_key, hint=found.advice, **found.fields)

    def _flow_places(self, step: FlowStep) -> Set[Place]:
        """Where in the literals of a step's input its component expects a flow."""
        source, path = step.input.source, (*step.path, "input")
        if not isinstance(source, dict):
            return frozenset()
        fields = cast("dict[str, Any]", source)
        places: set[Place] = set()
        for component in self._look(step.component).built_in & _FLOW_FIELDS.keys():
            name = _FLOW_FIELDS[component]
            if special_key(fields) is not None:
                places.update((*place, name) for place in _literals(fields, path))
            elif name in fields:
                places.update(_literals(fields[name], (*path, name)))
        return places


def _expressions(step: FlowStep) -> Iterator[tuple[Expression, Place]]:
    yield step.input, (*step.path, "input")
    if step.skip_if is not None:
        yield step.skip_if, (*step.path, "skipIf")
    if not step.on_error.default.is_constant:
        yield step.on_error.default, (*step.path, "onError", "defaultValue")


def _ids(value: Any) -> list[str]:
    """The ids of the steps of what may be a flow."""
    steps = cast("Mapping[str, Any]", value).get("steps") if isinstance(value, Mapping) else None
    if isinstance(steps, Mapping):
        return list(cast("Mapping[str, Any]", steps))
    listed = cast("list[Any]", steps) if isinstance(steps, list) else []
    return [str(cast("dict[str, Any]", step).get("id")) for step in listed if isinstance(step, dict)]


def _step_of(form: Form) -> str | None:
    if form.key == "$step":
        return form.value["$step"]
    return form.value["$from"].get("step") if form.key == "$from" else None


def _objects(
    value: Any, path: Place, goes_into: Callable[[Mapping[str, Any]], bool]
) -> Iterator[tuple[Mapping[str, Any], Place]]:
    """All objects in a value, in order; not those inside of one that is not gone into."""
    pending: list[tuple[Any, Place]] = [(value, path)]
    while pending:
        value, path = pending.pop()
        inside: list[tuple[Any, Place]] = []
        if isinstance(value, dict):
            fields = cast("dict[str, Any]", value)
            yield fields, path
            if goes_into(fields):
                inside = [(item, (*path, key)) for key, item in fields.items()]
        elif isinstance(value, list):
            inside = [(item, (*path, index)) for index, item in enumerate(cast("list[Any]", value))]
        pending.extend(reversed(inside))


def _dollar_keys(value: Any, path: Place) -> Iterator[tuple[str, Place]]:
    """Keys with a dollar sign that are none of the special ones."""
    for fields, place in _objects(value, path, _is_no_literal):
        if special_key(fields) is None:
            yield from ((key, (*place, key)) for key in fields if key.startswith("$"))


def _is_no_literal(fields: Mapping[str, Any]) -> bool:
    return "$literal" not in fields


def _literals(value: Any, path: Place) -> Iterator[Place]:
    """Where the literals are of which one becomes the value of an expression."""
    if not isinstance(value, dict):
        return
    fields = cast("dict[str, Any]", value)
    match special_key(fields):
        case "$literal":
            yield (*path, "$literal")
        case "$if":
            for name in ("then", "else"):
                yield from _literals(fields.get(name), (*path, name))
        case "$coalesce":
            for index, entry in enumerate(fields["$coalesce"]):
                yield from _literals(entry, (*path, "$coalesce", index))
        case "$variable":
            yield from _literals(fields.get("default"), (*path, "default"))
        case _:
            return


def _flows_in(value: Any, path: Place, expected: Set[Place]) -> Iterator[tuple[Any, Place]]:
    """The flows in a literal, known by their full schema or by their place; their own are looked at with them."""
    if path in expected:
        yield value, path
        return
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        inside = {name: (*path, name) for name in fields if (*path, name) in expected}
        yield from ((fields[name], place) for name, place in inside.items())
        value = {name: item for name, item in fields.items() if name not in inside}
    for fields, place in _objects(value, path, _is_no_flow):
        if not _is_no_flow(fields):
            yield fields, place


def _is_no_flow(fields: Mapping[str, Any]) -> bool:
    return fields.get("schema") != FLOW_SCHEMA


def _advice_beside(key: str, form: Form) -> str:
    if key in SPECIAL_KEYS:
        return "Use one of them."
    if key == "path" and form.key in ("$input", "$variable"):
        return f"Write the path as the value of `{form.key}`."
    return _advice(key, [name for name in COMPANIONS[form.key] if name not in form.value])


def _advice(key: str, known: Sequence[str]) -> str:
    import difflib

    plain = _plain(key)
    meant = [name for name in known if _plain(name) == plain] or difflib.get_close_matches(key, known, 1, 0.75)
    return f"Did you mean `{meant[0]}`?" if meant else ""


def _plain(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
