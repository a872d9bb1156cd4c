"""Flows written in Python: `FlowBuilder` makes the document that a YAML file would hold.

Knows nothing of running: what `build` gives is plain JSON. References are checked as validation would, so a flow that
was built has no unknown steps and no references to later ones. Names as in stepflow-ai/stepflow,
`sdks/python/stepflow-server`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias, cast

import msgspec

from .exceptions import PathInvalid
from .paths import read_path, spell

SCHEMA = "https://stepflow.org/schemas/v1/flow.json"
_NOTHING: Final = object()
_EXPRESSIONS = ("$literal", "$if", "$coalesce", "$step", "$input", "$variable", "$from")
#: What stands for a value in a flow: JSON, in which references and other expressions may be anywhere. Dataclasses,
#: msgspec structs and pydantic models are taken for the objects that they are.
Valuable: TypeAlias = Any


class Expression:
    """A value that is known when the flow runs. Made by `Value`."""

    __slots__ = ("_document",)

    def __init__(self, document: Any) -> None:
        self._document = document

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {_document_of(self)!r}>"


class Reference(Expression):
    """What is at a path in the input, in the result of a step or in a variable.

    Attributes and indexes go deeper: `Value.input().user["first name"].letters[0]`.
    """

    __slots__ = ("_parts", "_rest", "_source", "_text")

    def __init__(
        self,
        source: tuple[str, str | None],
        parts: tuple[str | int, ...] = (),
        rest: Mapping[str, Any] | None = None,
        text: str | None = None,
    ) -> None:
        # (`$input`, None), (`$variable`, None) or (`$step`, its id).
        self._source = source
        self._parts = parts
        self._rest = rest or {}
        #: A bare name that would mean something else in another spelling.
        self._text = text

    def __getattr__(self, name: str) -> Reference:
        # Python asks for such names by itself (`__deepcopy__`), and no path has to look like that.
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return self[name]

    def __getitem__(self, part: str | int) -> Reference:
        if isinstance(part, bool) or not isinstance(part, (str, int)):  # pyright: ignore[reportUnnecessaryIsInstance]  (an author's)
            raise TypeError(f"A path goes on with a name or an index, not with {type(part).__name__}.")
        if isinstance(part, int) and part < 0:
            raise ValueError(f"A path counts from the start: [{part}] cannot be said.")
        if self._text is not None:
            raise ValueError(f"Write the path {self._text!r} as `$.name` if it is to go on.")
        parts = (*self._parts, part)
        if read_path(spell(parts)).parts != parts:
            raise ValueError(f"The name {part!r} cannot be written in a path.")
        return Reference(self._source, parts, self._rest)

    def __iter__(self) -> Iterator[Reference]:
        # With `__getitem__` alone, Python would count up without an end.
        raise TypeError("What is referred to is known only when the flow runs, so it cannot be iterated over.")

    __hash__ = None  # pyright: ignore[reportAssignmentType]  (`==` compares what they mean)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reference) and _document_of(self) == _document_of(other)


class Value:
    """Makes the values of a flow that are known when it runs."""

    @staticmethod
    def input(path: str | None = None) -> Reference:
        """The input of the flow, or what is at a path in it."""
        return _reference(("$input", None), path)

    @staticmethod
    def step(step_id: str, path: str | None = None) -> Reference:
        """The result of a step, or what is at a path in it."""
        return _reference(("$step", _checked_id(step_id)), path)

    @staticmethod
    def variable(name: str, default: Valuable = _NOTHING) -> Reference:
        """A variable; attributes and indexes go into its value. `default` is used if there is none."""
        if not isinstance(name, str) or not name:  # pyright: ignore[reportUnnecessaryIsInstance]  (an author's)
            raise ValueError("A variable has a name.")
        rest = {} if default is _NOTHING else {"default": _written(default)}
        return Reference(("$variable", None), (), rest)[name]

    @staticmethod
    def literal(value: Any) -> Expression:
        """A value as it is, whatever it looks like."""
        return Expression({"$literal": _plain(value)})

    @staticmethod
    def if_(condition: Valuable, then: Valuable, otherwise: Valuable = _NOTHING) -> Expression:
        """`then` if the condition holds, else `otherwise` (null if it is not given). One that fails does not hold."""
        document = {"$if": _written(condition), "then": _written(then)}
        return Expression(document if otherwise is _NOTHING else {**document, "else": _written(otherwise)})

    @staticmethod
    def coalesce(*values: Valuable) -> Expression:
        """The first of them that is not null."""
        return Expression({"$coalesce": [_written(value) for value in values]})


class StepHandle:
    """A step of a builder. Attributes and indexes refer into its result; where a value is wanted it is the result."""

    __slots__ = ("_builder", "_id")

    def __init__(self, builder: FlowBuilder, step_id: str) -> None:
        self._builder = builder
        self._id = step_id

    @property
    def id(self) -> str:
        """The id of the step. (A field of this name is `handle["id"]`.)"""
        return self._id

    def get_references(self) -> list[Reference]:
        """All that the step refers to."""
        return list(_references(_evaluated(self._builder.steps[self._id])))

    def __getattr__(self, name: str) -> Reference:
        return getattr(Value.step(self._id), name)

    def __getitem__(self, part: str | int) -> Reference:
        return Value.step(self._id)[part]

    def __iter__(self) -> Iterator[Reference]:
        return iter(Value.step(self._id))

    def __repr__(self) -> str:
        return f"<StepHandle {self._id!r}>"


class FlowBuilder:
    """Puts a flow together, step by step."""

    def __init__(
        self,
        name: str | None = None,
        description: str | None = None,
        version: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = name
        self.description = description
        self.version = version
        self.metadata: dict[str, Any] = dict(metadata or {})
        #: The steps as they will be in the document, by their ids.
        self.steps: dict[str, dict[str, Any]] = {}
        self._schemas: dict[str, Any] = {}
        self._step_schemas: dict[str, Any] = {}
        self._output: object = _NOTHING
        self._output_fields: dict[str, Any] = {}
        #: What a loaded document has beside that.
        self._others: dict[str, Any] = {}

    @classmethod
    def load(cls, flow: Mapping[str, Any]) -> FlowBuilder:
        """A builder that goes on from a document, as `build` or a YAML reader gives it.

        Raises:
            ValueError: it has no steps with ids, or two of the same.
        """
        document = cast("dict[str, Any]", _plain(flow))
        builder = cls(
            document.pop("name", None),
            document.pop("description", None),
            document.pop("version", None),
            document.pop("metadata", None),
        )
        for step in _listed(document.pop("steps", None) or []):
            builder._add(step)
        schemas = builder._schemas = _object(document.pop("schemas", None))
        properties = _object(schemas.pop("properties", None))
        builder._step_schemas = _object(_object(properties.pop("steps", None)).get("properties"))
        if properties:
            schemas["properties"] = properties
        if "output" in document:
            builder._output = document.pop("output")
        document.pop("schema", None)
        builder._others = document
        return builder

    def set_input_schema(self, schema: Mapping[str, Any]) -> FlowBuilder:
        """Say what the input of the flow is (JSON Schema)."""
        return self._set_schema("input", schema)

    def set_output_schema(self, schema: Mapping[str, Any]) -> FlowBuilder:
        """Say what the flow gives (JSON Schema)."""
        return self._set_schema("output", schema)

    def set_variables_schema(self, schema: Mapping[str, Any]) -> FlowBuilder:
        """Say what variables there are (the JSON Schema of an object)."""
        return self._set_schema("variables", schema)

    def set_metadata(self, metadata: Mapping[str, Any]) -> FlowBuilder:
        """Say what else is to be known about the flow."""
        self.metadata = dict(metadata)
        return self

    def add_step(
        self,
        *,
        id: str,  # noqa: A002  (the name of the original)
        component: str,
        input_data: Valuable = None,
        output_schema: Mapping[str, Any] | None = None,
        on_error: Mapping[str, Any] | None = None,
        must_execute: bool = False,
        metadata: Mapping[str, Any] | None = None,
    ) -> StepHandle:
        """Add a step. `on_error` is as in a document: `{"action": "useDefault", "defaultValue": …}`.

        Raises:
            ValueError: there is a step of this id, or the component's path does not begin with `/`.
        """
        step: dict[str, Any] = {"id": id, "component": component}
        written = _written(input_data)
        if written is not None:
            step["input"] = written
        if on_error is not None:
            step["onError"] = _plain(on_error)
        if must_execute:
            step["mustExecute"] = True
        if metadata:
            step["metadata"] = _plain(metadata)
        handle = self._add(step)
        if output_schema is not None:
            self._step_schemas[id] = _plain(output_schema)
        return handle

    def step(self, step_id: str) -> StepHandle:
        """A step that was added.

        Raises:
            KeyError: there is none of this id.
        """
        if step_id not in self.steps:
            raise KeyError(f"There is no step {step_id!r}.")
        return StepHandle(self, step_id)

    def set_output(self, output_data: Valuable) -> FlowBuilder:
        """Say what the flow gives."""
        self._output = _written(output_data)
        return self

    def add_output_field(self, key: str, value: Valuable) -> FlowBuilder:
        """Add a field to what the flow gives, which then is an object of such fields."""
        self._output_fields[key] = _written(value)
        return self

    def get_references(self) -> list[Reference]:
        """All that the steps and the output refer to."""
        output = None if self._output is _NOTHING else self._output
        return list(_references([*map(_evaluated, self.steps.values()), output, self._output_fields]))

    def build(self) -> dict[str, Any]:
        """The document.

        Raises:
            ValueError: there is no output, or something refers to a step that is not there or comes later.
        """
        output = self._whole_output()
        self._check(output)
        document: dict[str, Any] = {"schema": SCHEMA}
        told = {"name": self.name, "description": self.description, "version": self.version}
        document.update({field: text for field, text in told.items() if text is not None})
        schemas = self._whole_schemas()
        if schemas:
            document["schemas"] = schemas
        document["steps"] = list(self.steps.values())
        document["output"] = output
        document.update(self._others)
        if self.metadata:
            document["metadata"] = self.metadata
        return cast("dict[str, Any]", _plain(document))

    def _add(self, step: dict[str, Any]) -> StepHandle:
        step_id = _checked_id(step.get("id"))
        component = step.get("component")
        if step_id in self.steps:
            raise ValueError(f"There are two steps of the id {step_id!r}.")
        if not isinstance(component, str) or not component.startswith("/"):
            raise ValueError(f"Step {step_id!r}: the component path must start with '/', as `/my_component`.")
        self.steps[step_id] = step
        return StepHandle(self, step_id)

    def _set_schema(self, about: str, schema: Mapping[str, Any]) -> FlowBuilder:
        self._schemas.setdefault("properties", {})[about] = _plain(schema)
        return self

    def _whole_schemas(self) -> dict[str, Any]:
        properties = dict(self._schemas.get("properties") or {})
        if self._step_schemas:
            properties["steps"] = {"type": "object", "properties": self._step_schemas}
        if not properties:
            return dict(self._schemas)
        return {"type": "object", **self._schemas, "properties": properties}

    def _whole_output(self) -> Any:
        if not self._output_fields:
            if self._output is _NOTHING:
                raise ValueError("Flow output must be set before building: call set_output or add_output_field.")
            return self._output
        if self._output is _NOTHING:
            return dict(self._output_fields)
        output = _object(self._output)
        if isinstance(self._output, dict) and output.keys().isdisjoint(_EXPRESSIONS):
            return {**output, **self._output_fields}
        raise ValueError("The output that was set is no object, so add_output_field cannot add to it.")

    def _check(self, output: Any) -> None:
        before: set[str] = set()
        for step_id, step in self.steps.items():
            for wanted in _step_ids(_evaluated(step)):
                self._check_step(wanted, before, f"Step {step_id!r}")
            before.add(step_id)
        for wanted in _step_ids(output):
            self._check_step(wanted, before, "The output")

    def _check_step(self, wanted: str, before: set[str], who: str) -> None:
        if wanted in before:
            return
        if wanted in self.steps:
            raise ValueError(f"{who} refers to step {wanted!r}, which does not come before it.")
        raise ValueError(f"{who} refers to step {wanted!r}, which is not there.")


def _reference(source: tuple[str, str | None], path: str | None) -> Reference:
    try:
        found = read_path(path)
    except PathInvalid as error:
        raise ValueError(f"The path {path!r} cannot be read: {error}") from error
    if found.nested is not None or not found.text.startswith("$"):
        return Reference(source, found.parts, text=found.text)
    return Reference(source, found.parts)


def _checked_id(step_id: Any) -> str:
    if not isinstance(step_id, str) or not step_id.strip():
        raise ValueError("A step has an id, a text that is not empty.")
    return step_id


def _document_of(expression: Expression) -> Any:
    """An expression as it stands in a document."""
    if not isinstance(expression, Reference):
        return expression._document  # pyright: ignore[reportPrivateUsage]  (the same module)
    kind, step_id = expression._source  # pyright: ignore[reportPrivateUsage]  (the same module)
    parts, text = expression._parts, expression._text  # pyright: ignore[reportPrivateUsage]  (the same module)
    path = spell(parts) if text is None else text
    if step_id is None:
        return {kind: path, **expression._rest}  # pyright: ignore[reportPrivateUsage]  (the same module)
    return {kind: step_id} if path == "$" else {kind: step_id, "path": path}


def _written(value: Any) -> Any:
    """A value as it stands in a document, with its expressions."""
    if isinstance(value, Expression):
        return _document_of(value)
    if isinstance(value, StepHandle):
        return _document_of(Value.step(value.id))
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, Mapping):
        return {_name(key): _written(part) for key, part in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return [_written(part) for part in cast("Sequence[Any]", value)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {part.name: _written(getattr(value, part.name)) for part in dataclasses.fields(value)}
    if isinstance(value, msgspec.Struct):
        names = zip(value.__struct_encode_fields__, value.__struct_fields__, strict=True)
        return {name: _written(getattr(value, field)) for name, field in names}
    dump = getattr(value, "model_dump", None)
    if callable(dump):  # a pydantic model
        return dump(mode="json", by_alias=True)
    try:
        return msgspec.to_builtins(value)
    except TypeError as error:
        raise TypeError(f"{type(value).__name__} cannot stand in a flow: {error}") from error


def _plain(value: Any) -> Any:
    """A copy of a value without expressions, as plain JSON."""
    if isinstance(value, (Expression, StepHandle)):
        raise TypeError(f"{value!r} cannot stand here: this is taken as it is.")
    if isinstance(value, Mapping):
        return {_name(key): _plain(part) for key, part in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray)):
        return [_plain(part) for part in cast("Sequence[Any]", value)]
    return _written(value)


def _object(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _name(key: Any) -> str:
    if not isinstance(key, str):
        raise TypeError(f"The names of an object are texts, not {type(key).__name__} ({key!r}).")
    return key


def _listed(steps: Any) -> list[dict[str, Any]]:
    """The steps of a document, whether they are a list or a mapping by their ids."""
    if isinstance(steps, dict):
        return [{"id": step_id, **step} for step_id, step in cast("dict[str, Any]", steps).items()]
    return cast("list[dict[str, Any]]", steps)


def _evaluated(step: Mapping[str, Any]) -> list[Any]:
    """What of a step is evaluated when the flow runs; all else is taken as it is."""
    return [step.get("skipIf"), step.get("input")]


def _references(value: Any) -> Iterator[Reference]:
    """What a written value refers to, in document order."""
    if isinstance(value, list):
        for part in cast("list[Any]", value):
            yield from _references(part)
    if not isinstance(value, dict):
        return
    fields = cast("dict[str, Any]", value)
    kind = next((key for key in _EXPRESSIONS if key in fields), None)
    match kind:
        case "$literal":
            return
        case "$step":
            yield Value.step(fields["$step"], fields.get("path"))
        case "$input":
            yield Value.input(fields["$input"])
        case "$variable":
            rest = {"default": fields["default"]} if "default" in fields else {}
            yield Reference(("$variable", None), read_path(fields["$variable"]).parts, rest)
            yield from _references(fields.get("default"))
        case "$if":
            for part in ("$if", "then", "else"):
                yield from _references(fields.get(part))
        case "$coalesce":
            yield from _references(fields["$coalesce"])
        case "$from":
            yield from _older_references(fields)
        case _:
            for part in fields.values():
                yield from _references(part)


def _older_references(fields: dict[str, Any]) -> Iterator[Reference]:
    source = fields["$from"]
    if not isinstance(source, dict):
        return
    origin = cast("dict[str, Any]", source)
    if "step" in origin:
        yield Value.step(origin["step"], fields.get("path"))
    elif "workflow" in origin:
        yield Value.input(fields.get("path"))
    elif "variable" in origin:
        yield Value.variable(origin["variable"])


def _step_ids(value: Any) -> Iterator[str]:
    for reference in _references(value):
        step_id = reference._source[1]  # pyright: ignore[reportPrivateUsage]  (the same module)
        if step_id is not None:
            yield step_id
