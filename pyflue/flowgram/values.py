"""Values in a graph: constants, references to what other nodes gave, and templates.

Nodes' variables are kept in a `Scope`: one for the run, and one for each iteration of a loop below it. A reference is
looked up in the innermost scope that knows its node. `None` in the place of a `Variable` means "no value", which is
something else than a variable whose value is null.

Behaviour follows flowgram.ai's runtime; where that has JavaScript's or Python's own conversions, text is JSON here.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, cast

from .document import GLOBAL, LOCALS, Document, Node, as_object, properties
from .exceptions import NodeError

#: Nothing in it can match in two ways: a template is a stranger's text.
_TEMPLATE = re.compile(r"\{\{([^{}]*)\}\}")
_PARSED = frozenset({"object", "array", "map"})
_NUMBERS = frozenset({"number", "integer"})
_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:?\d\d)?")


class Variable:
    """A value and its type. `items` is the JSON schema of an array's items, as far as that is known."""

    __slots__ = ("items", "type", "value")

    def __init__(self, value: Any, type_: str, items: Mapping[str, Any] | None = None) -> None:
        self.value = value
        self.type = type_
        self.items = items

    def __repr__(self) -> str:
        return f"Variable({self.value!r}, {self.type!r})"


class Scope:
    """The variables of the run, or of one iteration of a loop."""

    __slots__ = ("nodes", "parent", "path")

    def __init__(self, parent: Scope | None = None, path: str = "") -> None:
        self.parent = parent
        #: Where in the run this is, such as `loop_0[3]/`; empty for the run itself.
        self.path = path
        self.nodes: dict[str, dict[str, Variable]] = {}

    def find(self, node_id: str, name: str) -> Variable | None:
        """A node's variable; None if there is none."""
        scope: Scope | None = self
        while scope is not None:
            variables = scope.nodes.get(node_id)
            if variables is not None:
                return variables.get(name)
            scope = scope.parent
        return None

    def holder(self, node_id: str) -> dict[str, Variable] | None:
        """The variables of a node, where they are kept."""
        scope: Scope | None = self
        while scope is not None:
            if node_id in scope.nodes:
                return scope.nodes[node_id]
            scope = scope.parent
        return None


def type_of(value: Any) -> str:
    """The type of a value that nobody has declared."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number"
    if isinstance(value, str):
        return "string"
    if isinstance(value, (list, tuple)):
        return "array"
    if isinstance(value, datetime):
        return "date-time"
    return "object"


def variable_of(value: Any) -> Variable:
    """A variable whose type is derived from its value."""
    kind = type_of(value)
    items = None
    if kind == "array":
        items = {"type": type_of(value[0]) if value else "null", "derived": True}
    return Variable(value, kind, items)


def declared(value: Any, schema: Mapping[str, Any]) -> Variable:
    """A variable of a declared type, which is not compared with the value."""
    items = schema.get("items")
    return Variable(value, schema["type"], as_object(items) if isinstance(items, Mapping) else None)


def fits(found: str, wanted: str) -> bool:
    """Whether a value of one type is taken for another; numbers and integers are, for each other."""
    return found == wanted or (found in _NUMBERS and wanted in _NUMBERS)


def fits_value(variable: Variable, wanted: str) -> bool:
    """As `fits`; a text that is a time is taken for one where it was not declared as text."""
    if fits(variable.type, wanted):
        return True
    return wanted == "date-time" and isinstance(variable.value, str) and bool(_DATE_TIME.fullmatch(variable.value))


def resolve(content: Any, scope: Scope) -> Variable | None:
    """What a reference refers to: a list of a node id, a variable, and maybe a path into its value."""
    if not isinstance(content, (list, tuple)):
        return None
    path = [str(part) for part in cast("Sequence[Any]", content)]
    if len(path) < 2:
        return None
    variable = scope.find(path[0], path[1])
    if variable is None or len(path) == 2:
        return variable
    value = variable.value
    for part in path[2:]:
        if isinstance(value, Mapping):
            value = cast("Mapping[str, Any]", value).get(part)
        elif isinstance(value, (list, tuple)) and part.isascii() and part.isdigit():
            values = cast("Sequence[Any]", value)
            value = values[int(part)] if len(part) < 16 and int(part) < len(values) else None
        else:
            value = None
        if value is None:
            break
    return variable_of(value)


def referred(value: Any, scope: Scope) -> Variable | None:
    """What a reference of the editor (`{"type": "ref", "content": …}`) refers to, where nothing else can stand.

    Raises:
        NodeError: it is no reference.
    """
    fields = as_object(value)
    if fields.get("type") != "ref":
        raise NodeError(f"Invalid ref value: {value!r}")
    return resolve(fields.get("content"), scope)


def evaluate(value: Any, schema: Mapping[str, Any] | None, scope: Scope) -> Variable | None:
    """What a value of the editor (`{"type": …, "content": …}`) comes to; `schema` is its declared type, if it has one.

    Raises:
        NodeError: it is no such value.
    """
    if not isinstance(value, Mapping) or "type" not in value:
        raise NodeError(f"Invalid flow value type: {value!r}")
    fields = cast("Mapping[str, Any]", value)
    content = fields.get("content")
    match fields["type"]:
        case "ref":
            return resolve(content, scope)
        case "constant":
            return _constant(content, schema or fields.get("schema"))
        case "template":
            return render(fields, scope)
        case other:
            raise NodeError(f"Unknown flow value type: {other!r}")


def _constant(content: Any, schema: Any) -> Variable | None:
    if content is None:
        return None
    if not isinstance(schema, Mapping) or "type" not in schema:
        return variable_of(content)
    types = cast("Mapping[str, Any]", schema)
    if isinstance(content, str) and types["type"] in _PARSED:
        content = parsed(content)
    return declared(content, types)


def parsed(text: str) -> Any:
    """The JSON that a text is; the text itself if it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def render(value: Any, scope: Scope) -> Variable | None:
    """The text that a template comes to; None for an empty one.

    Raises:
        NodeError: it is no template.
    """
    fields = as_object(value)
    content = fields.get("content")
    if fields.get("type") != "template" or not (content is None or isinstance(content, str)):
        raise NodeError(f"Invalid template value: {value!r}")
    if not content:
        return None
    if "{{" not in content:
        return Variable(content, "string")
    pieces: list[str] = []
    for literal, path in template_parts(content):
        pieces.append(literal)
        if path is not None:
            variable = resolve(path, scope)
            pieces.append("" if variable is None else as_text(variable.value))
    return Variable("".join(pieces), "string")


@functools.lru_cache(maxsize=1024)
def template_parts(content: str) -> tuple[tuple[str, tuple[str, ...] | None], ...]:
    """A template as pieces of text, each followed by a reference (None after the last)."""
    parts: list[tuple[str, tuple[str, ...] | None]] = []
    position = 0
    for found in _TEMPLATE.finditer(content):
        if not found[1].strip():
            continue
        parts.append((content[position : found.start()], tuple(part.strip() for part in found[1].split("."))))
        position = found.end()
    parts.append((content[position:], None))
    return tuple(parts)


def as_text(value: Any) -> str:
    """A value inside of a text: strings as they are, nothing for null, and else JSON."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e16:
        return str(int(value))
    if isinstance(value, datetime):
        return value.isoformat()
    return json.dumps(_integral(value), ensure_ascii=False, default=str)


def _integral(value: Any) -> Any:
    """The value with whole numbers written without a fraction."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e16:
        return int(value)
    if isinstance(value, Mapping):
        return {str(name): _integral(item) for name, item in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, (list, tuple)):
        return [_integral(item) for item in cast("Sequence[Any]", value)]
    return value


def inputs_of(node: Node, scope: Scope) -> tuple[dict[str, Any], list[str]]:
    """What a node is given, and the names of inputs that were left out because their type did not fit.

    Raises:
        NodeError: one of its values is none.
    """
    values = node.data.get("inputsValues")
    if not values or not isinstance(values, Mapping):
        return {}, []
    types = node.input_types
    inputs: dict[str, Any] = {}
    dropped: list[str] = []
    for name, value in cast("Mapping[str, Any]", values).items():
        schema = types.get(name)
        if schema is None:
            continue
        variable = evaluate(value, schema, scope)
        if variable is None:
            continue
        if fits_value(variable, schema["type"]):
            inputs[name] = variable.value
        elif variable.value is not None:
            dropped.append(f"Input {name!r} is declared as {schema['type']}, but was given {variable.type}")
    return inputs, dropped


def keep_outputs(node: Node, outputs: Mapping[str, Any], scope: Scope) -> None:
    """Make a node's declared outputs its variables."""
    types = node.output_types
    if types:
        scope.nodes[node.id] = {name: _output(name, schema, outputs) for name, schema in types.items()}


def _output(name: str, schema: Mapping[str, Any], outputs: Mapping[str, Any]) -> Variable:
    if name in outputs:
        return declared(outputs[name], schema)
    return declared(default_of(schema), schema)


def default_of(schema: Mapping[str, Any]) -> Any:
    """The default of a declared variable."""
    value = schema.get("default")
    return parsed(value) if isinstance(value, str) and schema["type"] in _PARSED else value


def global_variables(schema: Mapping[str, Any]) -> dict[str, Variable]:
    """The variables of `globalVariable`, with their defaults."""
    return {name: declared(default_of(part), part) for name, part in schema.items()}


def references(document: Document) -> Iterator[tuple[Node, Sequence[str]]]:
    """Every reference in a graph, in the nodes that run."""
    for node in document.nodes.values():
        waiting: list[Any] = [value for name, value in node.data.items() if name not in ("inputs", "outputs")]
        while waiting:
            value = waiting.pop()
            if isinstance(value, (list, tuple)):
                waiting.extend(cast("Sequence[Any]", value))
            elif isinstance(value, Mapping):
                fields = cast("Mapping[str, Any]", value)
                content, kind = fields.get("content"), fields.get("type")
                if kind == "ref" and isinstance(content, (list, tuple)):
                    path = [str(part) for part in cast("Sequence[Any]", content)]
                    if len(path) >= 2:
                        yield node, path
                elif kind == "template" and isinstance(content, str):
                    for _, found in template_parts(content):
                        if found is not None and len(found) >= 2:
                            yield node, found
                else:
                    waiting.extend(fields.values())


def declared_type(document: Document, value: Any) -> str | None:
    """The type that a value of the editor will have, as far as the graph declares it."""
    fields = as_object(value)
    content = fields.get("content")
    match fields.get("type"):
        case "template":
            return "string" if content else None
        case "ref" if isinstance(content, (list, tuple)) and len(cast("Sequence[Any]", content)) == 2:
            node_id, name = (str(part) for part in cast("Sequence[Any]", content))
        case _:
            return None
    if node_id == GLOBAL:
        return _type_in(properties(document.global_schema), name)
    node = document.nodes.get(node_id)
    return None if node is None else _type_in(node.output_types, name)


def _type_in(types: Mapping[str, Any], name: str) -> str | None:
    return as_object(types.get(name)).get("type")


def known_names(document: Document, node_id: str) -> frozenset[str] | None:
    """The names of variables that a node has; None if there is no such node."""
    if node_id == GLOBAL:
        return frozenset(properties(document.global_schema))
    loop = document.nodes.get(node_id.removesuffix(LOCALS))
    if node_id.endswith(LOCALS) and loop is not None and loop.type == "loop":
        return frozenset({"item", "index"})
    node = document.nodes.get(node_id)
    if node is None:
        return None
    names = set(node.output_types)
    outputs = node.data.get("loopOutputs")
    if isinstance(outputs, Mapping):
        names.update(cast("Mapping[str, Any]", outputs))
    return frozenset({*names, "error"})
