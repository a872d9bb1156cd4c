"""Tools: schemas out of signatures, arguments that a model gave, and results for it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from pyflue.agents import ToolContext, ToolDefinition, create_tools, define_command, define_tool, tool
from pyflue.agents.commands import checked_commands
from pyflue.agents.content import Document, Image, Text
from pyflue.agents.tools import (
    BUILTIN_TOOLS,
    check_arguments,
    check_schemas,
    checked_tools,
    normalise_result,
)
from pyflue.errors import AgentInvalid, NotSerializable
from pyflue.typed import Misfit

from .conftest import AgentProject


class Unit(Enum):
    CELSIUS = "c"
    FAHRENHEIT = "f"


class Place(BaseModel):
    title: str
    zip_code: int | None = None


@dataclass
class Span:
    start: date
    days: int = 1


CONTEXT = ToolContext(
    tool_call_id="call_1", step_id="step-1", session="main", log=None, fs=None, progress=lambda *_: None
)


def test_the_schema_of_a_tool_follows_from_signature_and_docstring() -> None:
    @tool
    async def forecast(
        place: Place,
        ctx: ToolContext,
        span: Span | None = None,
        unit: Unit = Unit.CELSIUS,
        detail: Literal["short", "long"] = "short",
        limit: Annotated[int, Field(ge=1, description="At most this many.")] = 3,
    ) -> str:
        """Forecast the weather.

        Asks the service.

        Args:
            place: Where,
                in words.
            limit: Not this: the annotation says it better.
            detail: How much of it.
        """
        return f"{place.title} {span} {unit} {detail} {limit} {ctx.step_id}"

    assert (forecast.name, forecast.description) == ("forecast", "Forecast the weather.\n\nAsks the service.")
    assert (forecast.is_async, forecast.context_parameter, forecast.takes_keywords) == (True, "ctx", True)
    assert forecast.input_schema == {
        "$defs": {
            "Place": {
                "properties": {
                    "title": {"type": "string"},
                    "zip_code": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None},
                },
                "required": ["title"],
                "title": "Place",
                "type": "object",
            },
            "Span": {
                "additionalProperties": False,
                "properties": {
                    "start": {"format": "date", "type": "string"},
                    "days": {"default": 1, "type": "integer"},
                },
                "required": ["start"],
                "title": "Span",
                "type": "object",
            },
            "Unit": {"enum": ["c", "f"], "title": "Unit", "type": "string"},
        },
        "additionalProperties": False,
        "properties": {
            "place": {"$ref": "#/$defs/Place", "description": "Where, in words."},
            "span": {"anyOf": [{"$ref": "#/$defs/Span"}, {"type": "null"}], "default": None},
            "unit": {"$ref": "#/$defs/Unit", "default": "c"},
            "detail": {
                "enum": ["short", "long"],
                "type": "string",
                "description": "How much of it.",
                "default": "short",
            },
            "limit": {"description": "At most this many.", "minimum": 1, "type": "integer", "default": 3},
        },
        "required": ["place"],
        "type": "object",
    }


@pytest.mark.parametrize(
    "doc",
    [
        "Look it up.\n\nArgs:\n    key: What to look up.\n",
        "Look it up.\n\nParameters\n----------\nkey : str\n    What to look up.\n",
        "Look it up.\n\n:param key: What to look up.\n:type key: str\n",
    ],
    ids=["google", "numpy", "sphinx"],
)
def test_parameters_are_described_in_any_of_three_styles(doc: str) -> None:
    def look(key: str) -> None: ...

    look.__doc__ = doc
    made = tool(look)
    assert made.description == "Look it up."
    assert made.input_schema["properties"] == {"key": {"type": "string", "description": "What to look up."}}


def test_types_of_the_function_around_are_known() -> None:
    class Local(BaseModel):
        number: int

    @tool()
    def double(local: Local) -> int:
        """Double it."""
        return 2 * local.number

    assert double.call(check_arguments(double, {"local": {"number": "4"}})) == 8
    assert double(Local(number=5)) == 10


def test_parameters_may_have_names_that_models_use_themselves() -> None:
    @tool
    def odd(schema: str, copy: int, json: bool = False, model_dump: str = "", **more: int) -> str:
        """Odd."""
        return f"{schema} {copy} {json} {model_dump} {more}"

    given = check_arguments(odd, {"schema": "s", "copy": 1, "extra": 5})
    assert odd.call(given) == "s 1 False  {'extra': 5}"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("arguments", "problems"),
    [
        ({}, [{"path": "$.count", "message": "Field required"}]),
        (
            {"count": "many", "more": 1},
            [
                {
                    "path": "$.count",
                    "message": "Input should be a valid integer, unable to parse string as an integer",
                },
                {"path": "$.more", "message": "Extra inputs are not permitted"},
            ],
        ),
        ([1], [{"path": "$", "message": "The arguments must be a JSON object."}]),
        ("{}", [{"path": "$", "message": "The arguments must be a JSON object."}]),
        (None, [{"path": "$", "message": "The arguments must be a JSON object."}]),
    ],
)
def test_arguments_that_do_not_fit_are_told_with_their_place(arguments: Any, problems: list[dict[str, str]]) -> None:
    @tool
    def repeat(count: int) -> None:
        """Repeat."""

    with pytest.raises(Misfit) as misfit:
        check_arguments(repeat, arguments)
    assert misfit.value.problems == problems


@pytest.mark.parametrize("value", [float("nan"), "\ud800", {1, 2}, functools.reduce(lambda x, _: [x], range(500), 0)])
def test_arguments_that_are_no_json_are_refused(value: Any) -> None:
    @tool
    def anything(value: Any) -> None:
        """Takes anything."""

    with pytest.raises(Misfit, match="The arguments"):
        check_arguments(anything, {"value": value})


def test_a_tool_with_a_schema_takes_one_dict_that_fits_it() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}

    @define_tool("square", description="Squares.", parameters=schema, idempotent=True, timeout_s=5)
    def square(arguments: dict[str, Any], signal: Any = "unset") -> Any:
        return arguments["n"] ** 2, signal

    assert (square.input_schema, square.timeout_s, square.is_idempotent, square.is_parallel) == (
        schema,
        5.0,
        True,
        True,
    )
    assert square.call(check_arguments(square, {"n": 3})) == (9, None)
    with pytest.raises(Misfit) as misfit:
        check_arguments(square, {"n": "3"})
    assert misfit.value.problems == [{"path": "$.n", "message": "'3' is not of type 'integer'"}]


def test_a_tool_with_a_schema_may_ask_for_its_context() -> None:
    made = define_tool("where", lambda arguments, ctx: ctx.step_id, description="Where.")
    assert made.call({}, CONTEXT) == "step-1"
    assert made.input_schema == {"type": "object", "properties": {}}


def test_the_description_is_the_docstring_unless_one_is_given() -> None:
    def look(arguments: Mapping[str, Any]) -> None:
        """Look around."""

    assert define_tool("look", look).description == "Look around."
    assert define_tool("look", look, description="Look up.").description == "Look up."


def test_only_what_is_declared_idempotent_runs_beside_others_unless_it_says_so() -> None:
    def make(**options: Any) -> ToolDefinition:
        return define_tool("x", lambda arguments: "", description="X.", **options)

    assert [make().is_parallel, make(idempotent=True).is_parallel] == [False, True]
    assert [make(parallel=True).is_parallel, make(idempotent=True, parallel=False).is_parallel] == [True, False]


def test_whether_a_call_needs_approval_may_depend_on_its_arguments() -> None:
    @tool(requires_approval=lambda arguments: arguments["amount"] > 100)
    def pay(amount: int) -> None:
        """Pay."""

    assert [pay.needs_approval({"amount": 100}), pay.needs_approval({"amount": 101})] == [False, True]
    careless = define_tool("x", lambda arguments: "", requires_approval=lambda arguments: None)  # type: ignore[arg-type,return-value]  (that is the point)
    assert careless.needs_approval({})


def test_async_functions_are_known_through_partials_and_objects() -> None:
    async def run(arguments: Mapping[str, Any], more: int = 0) -> None: ...

    class Runner:
        async def __call__(self, arguments: Mapping[str, Any]) -> None: ...

    kinds: list[Callable[..., Any]] = [run, functools.partial(run, more=1), Runner(), lambda arguments: None]
    assert [define_tool("x", kind).is_async for kind in kinds] == [True, True, True, False]


def test_tools_are_made_of_functions_lists_and_mappings() -> None:
    def add(a: int, b: int) -> int:
        """Add."""
        return a + b

    made = create_tools(
        add, [tool(name="plus")(add)], {"sum": tool(add), "total": add, "one": {"execute": lambda a: a}}
    )
    assert [each.name for each in made] == ["add", "plus", "sum", "total", "one"]
    assert [made[0].call({"a": 1, "b": 2}), made[4].call({"a": 1})] == [3, {"a": 1}]
    with pytest.raises(AgentInvalid, match="duplicate tool name 'add'"):
        create_tools(add, add)
    with pytest.raises(AgentInvalid, match="an argument is 3; it must be a list"):
        create_tools(3)
    with pytest.raises(AgentInvalid, match="unknown tool field 'exec'"):
        create_tools({"x": {"exec": add}})


@pytest.mark.parametrize("name", BUILTIN_TOOLS)
def test_the_name_of_a_built_in_tool_is_taken(name: str) -> None:
    made = define_tool(name, lambda arguments: "", description="Mine.")
    with pytest.raises(AgentInvalid, match=f'Custom tool "{name}" conflicts with a built-in tool'):
        checked_tools("Agent", [made])


def test_a_tool_without_a_description_is_refused() -> None:
    with pytest.raises(AgentInvalid, match="the tool 'x' has an empty description"):
        checked_tools("Agent", [define_tool("x", lambda arguments: "")])


def test_a_schema_that_is_none_is_refused_when_the_agent_is_made() -> None:
    made = define_tool("x", lambda a: "", description="X.", parameters={"type": "object", "properties": 3})
    with pytest.raises(AgentInvalid, match=r"parameters of the tool 'x' are no JSON Schema: \$\.properties: 3 is not"):
        check_schemas("Agent", [made])


async def test_an_agent_refuses_such_a_schema_also_in_a_subagent(project: AgentProject) -> None:
    made = define_tool("x", lambda a: "", description="X.", parameters={"type": "object", "properties": 3})
    with pytest.raises(AgentInvalid, match="subagent 'scout': parameters of the tool 'x' are no JSON Schema"):
        await project.resolve({"subagents": [{"name": "scout", "tools": [made]}]})


def _positional(a: int, /) -> None:
    """A."""


def _several(*a: int) -> None:
    """A."""


def _untyped_context(ctx) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001, RUF100  (that is the point)
    """A."""


def _no_json(a: Callable[[], None]) -> None:
    """A."""


def _unknown(a: "Missing") -> None:  # type: ignore[name-defined]  # noqa: F821, UP037  (that is the point)
    """A."""


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: tool(_positional), "its parameter 'a' cannot be given by keyword"),
        (lambda: tool(_several), "its parameter 'a' cannot be given by keyword"),
        (lambda: tool(_untyped_context), "its parameter ctx has no type. Write `ctx: ToolContext`"),
        (lambda: tool(_no_json), "the type of its parameter 'a' has no JSON form"),
        (lambda: tool(_unknown), "its types cannot be read: name 'Missing' is not defined"),
        (lambda: tool(3), "what it stands above is 3; it must be a function"),
        (lambda: tool(Place), "it must be a function"),
        (lambda: tool(lambda a: a), "name is '<lambda>'; a name has 1 to 64 letters"),
        (lambda: tool(functools.partial(_no_json, a=print)), "Tool None"),
        (lambda: define_tool("a b", print), "name is 'a b'"),
        (lambda: define_tool("a" * 65, print), "a name has 1 to 64 letters"),
        (lambda: define_tool("x", 3), "execute is 3; it must be a function"),
        (lambda: define_tool("x", print, description=3), "description is 3"),
        (lambda: define_tool("x", print, parameters=[]), "parameters is \\[\\]; it must be a mapping"),
        (lambda: define_tool("x", print, parameters={"type": "array"}), 'JSON Schema with "type": "object"'),
        (lambda: define_tool("x", print, parameters={"type": "object", "x": {1}}), "parameters: The schema cannot"),
        (lambda: define_tool("x", print, requires_approval="yes"), "requires_approval is 'yes'"),
        (lambda: define_tool("x", print, idempotent="yes"), "idempotent is 'yes'"),
        (lambda: define_tool("x", print, parallel=1), "parallel is 1"),
        (lambda: define_tool("x", print, timeout_s=0), "timeout_s is 0; it must be a number above 0"),
    ],
)
def test_what_cannot_be_a_tool_is_refused_by_name(make: Callable[[], Any], problem: str) -> None:
    with pytest.raises(AgentInvalid, match=problem):
        make()


PNG = b"\x89PNG\r\n\x1a\n..."
PDF = b"%PDF-1.7 ..."


@pytest.mark.parametrize(
    ("value", "content"),
    [
        ("sunny", (Text("sunny"),)),
        (None, ()),
        ("", ()),
        (3, (Text("3"),)),
        (False, (Text("false"),)),
        ({"a": (1, 2)}, (Text('{"a":[1,2]}'),)),
        (Place(title="Bern"), (Text('{"title":"Bern","zip_code":null}'),)),
        ([Place(title="Bern", zip_code=3000)], (Text('[{"title":"Bern","zip_code":3000}]'),)),
        (Unit.CELSIUS.value, (Text("c"),)),
        (Text("plain"), (Text("plain"),)),
        (PNG, (Image(mime_type="image/png", data=PNG),)),
        (b"\xff\xd8\xff\xe0", (Image(mime_type="image/jpeg", data=b"\xff\xd8\xff\xe0"),)),
        (b"RIFF0000WEBPVP8 ", (Image(mime_type="image/webp", data=b"RIFF0000WEBPVP8 "),)),
        (PDF, (Document(mime_type="application/pdf", data=PDF),)),
        (["see:", Image(data=PNG)], (Text("see:"), Image(data=PNG))),
        (["just", "text"], (Text('["just","text"]'),)),
    ],
)
def test_a_result_is_told_as_text_or_shown_as_it_is(value: Any, content: tuple[Any, ...]) -> None:
    assert normalise_result(value) == content


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (object(), r"a value of type object at \$\."),
        ({"at": date(2026, 1, 1)}, r"a value of type date at \$\.at\."),
        (b"\0\1", r"bytes that are no image and no PDF .* at \$\."),
        ([PNG, 3], r"a value of type int beside images or documents at \$\[1\]\."),
        (float("inf"), r"the number inf at \$\."),
        ("\ud800", r"a string with a lone surrogate at \$\."),
    ],
)
def test_a_result_that_cannot_be_told_is_refused_by_its_place(value: Any, problem: str) -> None:
    with pytest.raises(NotSerializable, match=problem):
        normalise_result(value)


def test_a_command_is_a_shell_command_or_a_function() -> None:
    def lint(path: str, strict: bool = False) -> str:
        """Check a file."""
        return path

    shell = define_command("tests", "pytest -q", env={"CI": "hush"}, cwd="site")
    assert (shell.executable, shell.shell_text({"args": ["a b.py", "; rm x"]})) == (
        "pytest",
        "pytest -q 'a b.py' '; rm x'",
    )
    assert "hush" not in repr(shell)
    function = define_command("lint", lint)
    assert (function.description, function.executable) == ("Check a file.", None)
    assert function.input_schema == {
        "additionalProperties": False,
        "properties": {"path": {"type": "string"}, "strict": {"type": "boolean", "default": False}},
        "required": ["path"],
        "type": "object",
    }
    assert define_command("tests", {"command": "pytest -q", "env": {"CI": "hush"}, "cwd": "site"}) == shell
    assert checked_commands("Agent", ["git", shell]) == ("git", shell)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: define_command("x"), "it needs either a shell command or a callable, and has neither"),
        (lambda: define_command("x", "ls", callable=print), "and has both"),
        (lambda: define_command("x y", "ls"), "name is 'x y'"),
        (lambda: define_command("x", "'ls"), "is no shell command: No closing quotation"),
        (lambda: define_command("x", " "), "command is ' '; it must be a string that is not empty"),
        (lambda: define_command("x", "ls", schema={}), "schema goes with a callable"),
        (lambda: define_command("x", lambda: 1, env={"A": "b"}), "env goes with a shell command"),
        (lambda: define_command("x", {"comand": "ls"}), "unknown command field 'comand'. Did you mean 'command'"),
        (lambda: define_command("x", callable=3), "callable is 3; it must be a function"),
        (lambda: define_command("x", "ls", timeout_s=-1), "timeout_s is -1"),
        (lambda: checked_commands("Agent", [define_command("bash", "ls")]), "conflicts with a built-in tool"),
    ],
)
def test_what_cannot_be_a_command_is_refused(make: Callable[[], Any], problem: str) -> None:
    with pytest.raises(AgentInvalid, match=problem):
        make()
