"""Tools: what a model may have done, defined by a Python function.

`@tool` takes name, description and arguments from the function itself; `define_tool` takes them as they are given. Both
make a `ToolDefinition`, which the harness offers to the model. `check_arguments` stands between the model and the
function, `normalise_result` between the function and the model. Running a tool is not done here.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import FrameType, MappingProxyType
from typing import Any, NotRequired, TypeAlias, overload

from .. import codec
from ..errors import AgentInvalid, NotSerializable
from ..typed import Misfit, Shape, check_schema, shape_of
from . import checking
from .bounded import bounded_misfits
from .content import Document, Image, Text

#: The tools that agents have without defining them; no other tool may have such a name.
BUILTIN_TOOLS = (
    "read",
    "write",
    "edit",
    "stat",
    "exists",
    "mkdir",
    "rm",
    "bash",
    "grep",
    "glob",
    "task",
    "skill",
)
#: What a tool can say to a model.
Content: TypeAlias = Text | Image | Document
Approval: TypeAlias = bool | Callable[[Mapping[str, Any]], bool]
_NO_ARGUMENTS: Mapping[str, Any] = MappingProxyType({"type": "object", "properties": {}})
#: How some formats begin, so that bytes can be shown as what they are.
_IMAGES = ((b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"GIF8", "image/gif"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolContext:
    """What a tool may know of its call: a parameter `ctx: ToolContext` of a tool's function gets it."""

    #: The model's id of this call.
    tool_call_id: str
    #: The same for every attempt of this call, and for no other call: an idempotency key for services.
    step_id: str
    #: The name of the session.
    session: str
    #: `info`, `warn` and `error`, as `ctx.log` of a workflow.
    log: Any
    #: The files of the agent's sandbox, as `harness.fs`.
    fs: Any
    #: `progress(fraction, message)`: shown to whoever watches the run.
    progress: Callable[..., Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolDefinition:
    """A tool. Calling it calls the function, as if it had not been made a tool: for tests and for other code."""

    name: str
    description: str
    #: JSON Schema (2020-12) of an object: the arguments.
    input_schema: Mapping[str, Any]
    execute: Callable[..., Any]
    #: Whether a person has to agree first; or a function of the arguments that says so.
    requires_approval: Approval = False
    #: Whether it does no harm if a call is made twice, because the program was interrupted in between.
    is_idempotent: bool = False
    #: Whether it may run beside other calls of the same turn.
    is_parallel: bool = False
    timeout_s: float | None = None
    #: Whether calling it gives something to await; otherwise it may block, and wants a thread.
    is_async: bool = False
    #: Whether the function takes its arguments by keyword, and not as one dict.
    takes_keywords: bool = False
    #: The parameter that gets the `ToolContext`.
    context_parameter: str | None = None
    #: Whether it has a parameter `signal`, which gets None: for functions written for earlier versions.
    takes_signal: bool = False
    #: The arguments as types, if the function has any.
    shape: Shape | None = field(default=None, repr=False, compare=False)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.execute(*args, **kwargs)

    def call(self, arguments: Mapping[str, Any], ctx: ToolContext | None = None) -> Any:
        """Call the function with arguments that `check_arguments` gave. An awaitable if `is_async`."""
        more: dict[str, Any] = {} if self.context_parameter is None else {self.context_parameter: ctx}
        if self.takes_keywords:
            return self.execute(**arguments, **more)
        if self.takes_signal:
            more["signal"] = None
        return self.execute(dict(arguments), **more)

    def needs_approval(self, arguments: Mapping[str, Any]) -> bool:
        """Whether a call with these arguments has to wait for a person. Whatever is not False is taken for yes."""
        if callable(self.requires_approval):
            return self.requires_approval(arguments) is not False
        return self.requires_approval


@overload
def define_tool(
    name: str,
    execute: Callable[..., Any],
    *,
    description: str = "",
    parameters: Mapping[str, Any] | None = None,
    requires_approval: Approval = False,
    idempotent: bool = False,
    parallel: bool | None = None,
    timeout_s: float | None = None,
) -> ToolDefinition: ...
@overload
def define_tool(
    name: str,
    execute: None = None,
    *,
    description: str = "",
    parameters: Mapping[str, Any] | None = None,
    requires_approval: Approval = False,
    idempotent: bool = False,
    parallel: bool | None = None,
    timeout_s: float | None = None,
) -> Callable[[Callable[..., Any]], ToolDefinition]: ...
def define_tool(
    name: str,
    execute: Callable[..., Any] | None = None,
    *,
    description: str = "",
    parameters: Mapping[str, Any] | None = None,
    requires_approval: Approval = False,
    idempotent: bool = False,
    parallel: bool | None = None,
    timeout_s: float | None = None,
) -> ToolDefinition | Callable[[Callable[..., Any]], ToolDefinition]:
    """Define a tool whose function takes one dict, the arguments; without `execute` this is a decorator for it.

    `parameters` is the JSON Schema of that dict. The docstring is the description if there is no other. A second
    parameter `ctx` gets the `ToolContext`.

    Raises:
        AgentInvalid: naming what cannot be used.
    """
    if execute is None:
        return functools.partial(  # pyright: ignore[reportReturnType]  (a call with the function is the other overload)
            define_tool,
            name,
            description=description,
            parameters=parameters,
            requires_approval=requires_approval,
            idempotent=idempotent,
            parallel=parallel,
            timeout_s=timeout_s,
        )
    what = f"Tool {checking.shown(name)}"
    if not callable(execute):
        checking.refuse(what, "execute", execute, "it must be a function")
    if not isinstance(description, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        checking.refuse(what, "description", description, "it must be a string")
    names = _parameters(execute)
    return _defined(
        what,
        name=name,
        description=description.strip() or inspect.cleandoc(getattr(execute, "__doc__", None) or ""),
        input_schema=_checked_schema(what, parameters),
        execute=execute,
        requires_approval=requires_approval,
        idempotent=idempotent,
        parallel=parallel,
        timeout_s=timeout_s,
        context_parameter="ctx" if "ctx" in names[1:] else None,
        takes_signal="signal" in names[1:],
    )


@overload
def tool(function: Callable[..., Any], /) -> ToolDefinition: ...
@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    requires_approval: Approval = False,
    idempotent: bool = False,
    parallel: bool | None = None,
    timeout_s: float | None = None,
) -> Callable[[Callable[..., Any]], ToolDefinition]: ...
def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    requires_approval: Approval = False,
    idempotent: bool = False,
    parallel: bool | None = None,
    timeout_s: float | None = None,
) -> ToolDefinition | Callable[[Callable[..., Any]], ToolDefinition]:
    """Make a tool of a function: `@tool`, or `@tool(requires_approval=True)`.

    Its name, docstring and signature are the tool's name, description and arguments. What the docstring says of each
    parameter (in the style of Google, NumPy or Sphinx) is what the model is told of it. A parameter `ctx: ToolContext`
    is not the model's.

    Raises:
        AgentInvalid: naming the parameter that cannot be used.
    """

    def decorate(function: Callable[..., Any]) -> ToolDefinition:
        return _of_function(
            function,
            _locals_of_caller(inspect.currentframe()),
            name=name,
            description=description,
            requires_approval=requires_approval,
            idempotent=idempotent,
            parallel=parallel,
            timeout_s=timeout_s,
        )

    if function is None:
        return decorate
    return _of_function(
        function,
        _locals_of_caller(inspect.currentframe()),
        name=name,
        description=description,
        requires_approval=requires_approval,
        idempotent=idempotent,
        parallel=parallel,
        timeout_s=timeout_s,
    )


def create_tools(*definitions: Any) -> list[ToolDefinition]:
    """Tools out of tools, functions, lists of them, and mappings of a name to one of them.

    In a mapping a tool may also be a mapping of `define_tool`'s arguments: `{"add": {"execute": add, …}}`.

    Raises:
        AgentInvalid: something is none, or two have one name.
    """
    made: list[ToolDefinition] = []
    for definition in definitions:
        if isinstance(definition, Mapping):
            made += [_named(name, each) for name, each in definition.items()]  # pyright: ignore[reportUnknownVariableType,reportUnknownArgumentType]
        elif isinstance(definition, ToolDefinition):
            made.append(definition)
        elif callable(definition):
            made.append(tool(definition))
        else:
            made += create_tools(*checking.items("create_tools", "an argument", definition))
    checking.refuse_duplicates("create_tools", "tool", [each.name for each in made])
    return made


def checked_tools(what: str, value: Any) -> tuple[ToolDefinition, ...]:
    """The `tools` of an agent, a profile or a call.

    Raises:
        AgentInvalid: one is no tool, has no description, or has a name that is taken.
    """
    tools: list[ToolDefinition] = []
    for each in checking.items(what, "tools", value):
        if not isinstance(each, ToolDefinition):
            checking.refuse(what, "a tool", each, "make it one with @tool or define_tool")
        if not each.description:
            raise AgentInvalid(
                f"{what}: the tool {each.name!r} has an empty description, and a model chooses by it.",
                hint="Write a docstring, or give description=….",
            )
        tools.append(each)
    refuse_taken_names(what, [each.name for each in tools])
    return tuple(tools)


def refuse_taken_names(what: str, names: Sequence[str]) -> None:
    """Refuse the name of a built-in tool, and a name given twice.

    Raises:
        AgentInvalid: naming it.
    """
    for name in names:
        if name in BUILTIN_TOOLS:
            raise AgentInvalid(f'{what}: Custom tool "{name}" conflicts with a built-in tool. Rename it.')
    checking.refuse_duplicates(what, "tool", names)


def check_schemas(what: str, tools: Iterable[ToolDefinition]) -> None:
    """Refuse tools whose `parameters` are no JSON Schema. Not done when a tool is defined: it takes a library.

    Raises:
        AgentInvalid: naming the tool.
    """
    for each in tools:
        if _has_schema(each):
            try:
                check_schema(each.input_schema)
            except ValueError as error:
                problem = str(error).removeprefix("schema=… is no JSON Schema: ")
                raise AgentInvalid(
                    f"{what}: parameters of the tool {each.name!r} are no JSON Schema: {problem}"
                ) from error


def has_schemas(tools: Iterable[ToolDefinition]) -> bool:
    """Whether `check_schemas` has anything to do."""
    return any(map(_has_schema, tools))


def _has_schema(tool: ToolDefinition) -> bool:
    return tool.shape is None and tool.input_schema != _NO_ARGUMENTS


def check_arguments(tool: ToolDefinition, arguments: Any) -> Mapping[str, Any]:
    """What to call a tool with, of the arguments that a model gave. Typed functions get typed values.

    Raises:
        Misfit: with what does not fit, and where, in words that the model can act on.
    """
    if not isinstance(arguments, Mapping):
        raise Misfit([{"path": "$", "message": "The arguments must be a JSON object."}])
    try:
        _, plain = codec.round_trip(arguments, "The arguments")
    except NotSerializable as error:
        raise Misfit([{"path": error.path, "message": str(error)}]) from error
    if tool.shape is not None:
        return tool.shape.load(plain)
    if problems := bounded_misfits(plain, tool.input_schema):
        raise Misfit(problems)
    return plain


def normalise_result(value: Any, what: str = "The result") -> tuple[Content, ...]:
    """What a tool returned, as the model is told. Nothing for None and "".

    Text stays text; everything else is told as JSON, models and dataclasses as objects, tuples as lists. Images and
    documents (`Image`, `Document`, or the bytes of a PNG, JPEG, GIF, WebP or PDF), also in a list, stay what they are.

    Raises:
        NotSerializable: with the path of the first value that is nothing of the kind.
    """
    if value is None:
        return ()
    if isinstance(value, (Text, Image, Document, bytes, bytearray)):
        return (_block(value, what, "$"),)
    if isinstance(value, (list, tuple)) and any(isinstance(each, (Text, Image, Document, bytes)) for each in value):  # pyright: ignore[reportUnknownVariableType]
        return tuple(_block(each, what, f"$[{i}]") for i, each in enumerate(value))  # pyright: ignore[reportUnknownVariableType,reportUnknownArgumentType]
    raw, plain = codec.round_trip(value, what)
    text = plain if isinstance(plain, str) else bytes(raw).decode()
    return (Text(text),) if text else ()


def schema_of(name: str, function: Callable[..., Any]) -> Mapping[str, Any]:
    """The JSON Schema of a function's arguments, as `@tool` makes it.

    Raises:
        AgentInvalid: naming the parameter that cannot be used.
    """
    return _signature(f"Command {name!r}", function, {}).shape.schema


def _block(value: Any, what: str, path: str) -> Content:
    if isinstance(value, (Text, Image, Document)):
        return value
    if isinstance(value, str):
        return Text(value)
    if isinstance(value, (bytes, bytearray)):
        data = bytes(value)
        for start, mime_type in _IMAGES:
            if data.startswith(start):
                return Image(mime_type=mime_type, data=data)
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return Image(mime_type="image/webp", data=data)
        if data.startswith(b"%PDF-"):
            return Document(mime_type="application/pdf", data=data)
        raise NotSerializable(
            what, path, "bytes that are no image and no PDF (decode text, or return an Image or a Document)"
        )
    raise NotSerializable(what, path, f"a value of type {type(value).__name__} beside images or documents")


def _named(name: Any, value: Any) -> ToolDefinition:
    if isinstance(value, ToolDefinition):
        return replace(value, name=checking.call_name(f"Tool {checking.shown(name)}", name))
    fields = checking.fields(value)
    if fields is not None:
        known = ("execute", "description", "parameters", "requires_approval", "idempotent", "parallel", "timeout_s")
        checking.refuse_unknown(f"Tool {checking.shown(name)}", "tool", fields, known)
        options: dict[str, Any] = dict(fields)
        execute = options.pop("execute", None)
        if not callable(execute):
            checking.refuse(f"Tool {checking.shown(name)}", "execute", execute, "it must be a function")
        return define_tool(name, execute, **options)
    if not callable(value):
        checking.refuse(
            f"Tool {checking.shown(name)}", "the value", value, "it must be a tool, a function or a mapping"
        )
    decorate = tool(name=name)
    return decorate(value)  # pyright: ignore[reportReturnType]  (the function may be any)


def _checked_schema(what: str, parameters: Any) -> Mapping[str, Any]:
    if parameters is None:
        return _NO_ARGUMENTS
    schema = checking.mapping(what, "parameters", parameters)
    if schema.get("type") != "object":
        checking.refuse(what, "parameters", parameters, 'it must be a JSON Schema with "type": "object"')
    try:
        return codec.round_trip(schema, "The schema")[1]
    except NotSerializable as error:
        raise AgentInvalid(f"{what}: parameters: {error}") from error


def _defined(
    what: str,
    *,
    name: Any,
    execute: Callable[..., Any],
    requires_approval: Any,
    idempotent: Any,
    parallel: Any,
    timeout_s: Any,
    **more: Any,
) -> ToolDefinition:
    checking.call_name(what, name)
    _check_approval(what, requires_approval)
    checking.truth(what, "idempotent", idempotent)
    return ToolDefinition(
        name=name,
        execute=execute,
        requires_approval=requires_approval,
        is_idempotent=idempotent,
        is_parallel=idempotent if parallel is None else checking.truth(what, "parallel", parallel),
        timeout_s=None if timeout_s is None else checking.number(what, "timeout_s", timeout_s),
        is_async=_is_async(execute),
        **more,
    )


def _check_approval(what: str, value: Any) -> None:
    if not isinstance(value, bool) and not callable(value):
        checking.refuse(what, "requires_approval", value, "it must be True, False, or a function of the arguments")


def _of_function(
    function: Any, names: Mapping[str, Any], *, name: str | None, description: str | None, **options: Any
) -> ToolDefinition:
    if isinstance(function, ToolDefinition) or not callable(function) or inspect.isclass(function):
        checking.refuse("@tool", "what it stands above", function, "it must be a function")
    given = name if name is not None else getattr(function, "__name__", None)
    what = f"Tool {checking.shown(given)}"
    signature = _signature(what, function, names)
    return _defined(
        what,
        name=given,
        description=signature.description if description is None else checking.text(what, "description", description),
        input_schema=signature.shape.schema,
        execute=function,
        takes_keywords=True,
        context_parameter=signature.context_parameter,
        shape=signature.shape,
        **options,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Signature:
    """A function's signature and docstring, as a tool's."""

    description: str
    shape: Shape
    context_parameter: str | None


class _Arguments:
    """The arguments of a function as a shape."""

    def __init__(self, inner: Shape, schema: Mapping[str, Any]) -> None:
        self.schema = schema
        self._inner = inner

    def load(self, value: Any) -> Any:
        return self._inner.load(value)

    def dump(self, value: Any) -> Any:
        return self._inner.dump(value)


def _signature(what: str, function: Callable[..., Any], names: Mapping[str, Any]) -> _Signature:
    parameters = _own_parameters(what, function)
    hints = _hints(what, function, names)
    context = next((name for name in parameters if hints.get(name) is ToolContext), None)
    if context is None and "ctx" in parameters and "ctx" not in hints:
        raise AgentInvalid(f"{what}: its parameter ctx has no type. Write `ctx: ToolContext`, or give it another type.")
    description, documented = _documentation(function)
    fields: dict[str, Any] = {}
    takes_more = False
    for name, parameter in parameters.items():
        if name == context:
            continue
        if parameter.kind is parameter.VAR_KEYWORD:
            takes_more = True
            continue
        fields[name] = hints.get(name, Any)
    shape = _shape(what, fields, parameters, documented, takes_more=takes_more)
    return _Signature(description=description, shape=shape, context_parameter=context)


def _own_parameters(what: str, function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError) as error:
        raise AgentInvalid(f"{what}: {checking.shown(function)} has no signature that could be read.") from error
    for name, parameter in parameters.items():
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
            raise AgentInvalid(f"{what}: its parameter {name!r} cannot be given by keyword, as tools get them.")
    return parameters


def _hints(what: str, function: Any, names: Mapping[str, Any]) -> dict[str, Any]:
    plain = function
    while isinstance(plain, functools.partial):
        plain = plain.func  # pyright: ignore[reportUnknownMemberType,reportUnknownVariableType]
    plain = inspect.unwrap(plain if inspect.isroutine(plain) else type(plain).__call__)  # pyright: ignore[reportUnknownArgumentType,reportUnknownVariableType]
    # What only a type checker imports, then what the function around has, then what the module has.
    known = {"ToolContext": ToolContext, "Any": Any, **names, **getattr(plain, "__globals__", {})}
    try:
        return typing.get_type_hints(plain, globalns=known, include_extras=True)
    except (NameError, TypeError, SyntaxError, AttributeError) as error:
        raise AgentInvalid(f"{what}: its types cannot be read: {error}. They must be there at run time.") from error


def _shape(
    what: str,
    fields: Mapping[str, Any],
    parameters: Mapping[str, inspect.Parameter],
    documented: Mapping[str, str],
    *,
    takes_more: bool,
) -> Shape:
    """The arguments as one type: a dict with a key for each parameter, checked by pydantic."""
    from typing_extensions import TypedDict  # comes with pydantic, which cannot use that of Python 3.11

    annotations = {
        name: annotation if parameters[name].default is inspect.Parameter.empty else NotRequired[annotation]
        for name, annotation in fields.items()
    }
    # Not of a class statement: parameters may have any name.
    arguments: Any = TypedDict("Arguments", annotations)  # pyright: ignore[reportArgumentType,reportGeneralTypeIssues]
    arguments.__pydantic_config__ = {"extra": "allow" if takes_more else "forbid"}
    try:
        inner = shape_of(arguments, "payload")
    except TypeError as error:
        for name, annotation in fields.items():
            try:
                shape_of(annotation, "payload")
            except TypeError as cause:
                raise AgentInvalid(f"{what}: the type of its parameter {name!r} has no JSON form: {cause}") from cause
        raise AgentInvalid(f"{what}: its parameters have no JSON form: {error}") from error
    return _Arguments(inner, _told_schema(inner.schema, parameters, documented))


def _told_schema(
    schema: Mapping[str, Any], parameters: Mapping[str, inspect.Parameter], documented: Mapping[str, str]
) -> Mapping[str, Any]:
    """The schema with what the docstring and the defaults say, and without titles that only repeat a name."""
    from pydantic_core import to_jsonable_python

    told: dict[str, Any] = _without_titles(schema)
    told.pop("title", None)
    for name, each in told.setdefault("properties", {}).items():
        if name in documented and "description" not in each:
            each["description"] = documented[name]
        default = parameters[name].default
        if default is not inspect.Parameter.empty and "default" not in each:
            try:
                each["default"] = codec.round_trip(to_jsonable_python(default), "The default")[1]
            except (ValueError, NotSerializable):
                continue  # the function has it all the same
    return told


def _without_titles(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_without_titles(each) for each in schema]  # pyright: ignore[reportUnknownVariableType]
    if not isinstance(schema, Mapping):
        return schema
    kept: dict[str, Any] = {}
    for key, value in schema.items():  # pyright: ignore[reportUnknownVariableType]
        if key == "properties" and isinstance(value, Mapping):
            kept[key] = {name: _without_own_title(name, each) for name, each in value.items()}  # pyright: ignore[reportUnknownVariableType,reportUnknownArgumentType]
        elif key in ("default", "const", "enum", "examples"):
            kept[key] = value
        else:
            kept[str(key)] = _without_titles(value)  # pyright: ignore[reportUnknownArgumentType]
    return kept


def _without_own_title(name: str, schema: Any) -> Any:
    kept = _without_titles(schema)
    if isinstance(kept, dict) and str(kept.get("title", "")).replace(" ", "").lower() == name.replace("_", "").lower():  # pyright: ignore[reportUnknownMemberType,reportUnknownArgumentType]
        del kept["title"]
    return kept  # pyright: ignore[reportUnknownVariableType]


def _documentation(function: Any) -> tuple[str, Mapping[str, str]]:
    """What a docstring says of the function, and of each parameter."""
    doc = inspect.cleandoc(getattr(function, "__doc__", None) or "")
    if not doc:
        return "", {}
    import docstring_parser  # comes with the Anthropic library

    try:
        parsed = docstring_parser.parse(doc)
    except docstring_parser.ParseError:
        return doc, {}
    of_parameters = {each.arg_name: each.description or "" for each in parsed.params}
    if not of_parameters:
        return doc, {}
    said = [part for part in (parsed.short_description, parsed.long_description) if part]
    returns = parsed.returns.description if parsed.returns is not None else None
    if returns:
        said.append(f"Returns: {returns}")
    named = {name.lstrip("*").partition(" ")[0]: " ".join(text.split()) for name, text in of_parameters.items()}
    return "\n\n".join(said), {name: text for name, text in named.items() if text}


def _parameters(function: Callable[..., Any]) -> list[str]:
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return []


def _is_async(function: Any) -> bool:
    while isinstance(function, functools.partial):
        function = function.func  # pyright: ignore[reportUnknownMemberType,reportUnknownVariableType]
    if inspect.isroutine(function):
        return inspect.iscoroutinefunction(function)
    return inspect.iscoroutinefunction(type(function).__call__)  # pyright: ignore[reportUnknownMemberType,reportUnknownArgumentType]


def _locals_of_caller(frame: FrameType | None) -> Mapping[str, Any]:
    """The names that a decorated function sees in the function around it: types in text may be among them."""
    above = None if frame is None else frame.f_back
    return {} if above is None else dict(above.f_locals)
