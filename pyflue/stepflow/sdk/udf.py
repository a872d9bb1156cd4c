"""`/udf`: a function whose code is in a blob, `{"code": …, "input_schema": …}`.

A component like any other; `StepflowServer` adds it. The code may be definitions that leave one function, an expression
that gives one, an expression over `input`, or the body of a function of `input` and `context`. It is compiled once for
each blob. This is **no sandbox**: whoever can store blobs and run flows can run code here.

Forms and names as in stepflow-ai/stepflow, `sdks/python/stepflow-server` (`udf.py`).
"""

from __future__ import annotations

import ast
import builtins
import inspect
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import msgspec

from .context import StepflowContext, in_thread
from .exceptions import CodeCompilationError, SkipStep, StepflowError, StepflowValueError

if TYPE_CHECKING:
    import asyncio

_MOST_FUNCTIONS = 256
#: There are ways around all of this: it keeps honest code from surprises, not hostile code from anything.
_MISSING_NAMES = frozenset(
    {
        "breakpoint",
        "compile",
        "copyright",
        "credits",
        "eval",
        "exec",
        "exit",
        "help",
        "input",
        "license",
        "open",
        "quit",
    }
)


class UdfInput(msgspec.Struct, frozen=True):
    """Which function to call, and with what."""

    blob_id: str
    input: Any = None


class UserFunctions:
    """The functions that were compiled, and how to call them."""

    def __init__(self) -> None:
        self._ready: OrderedDict[str, _Function] = OrderedDict()
        self._under_way: dict[str, asyncio.Lock] = {}

    async def run(self, input: UdfInput, context: StepflowContext) -> Any:  # noqa: A002  (the input)
        """Execute user-defined function (UDF) code that is stored in a blob."""
        function = self._ready.get(input.blob_id)
        if function is None:
            function = await self._load(input.blob_id, context)
        else:
            self._ready.move_to_end(input.blob_id)
        try:
            return await self._call(function, input.input, context)
        except SkipStep:
            raise
        except Exception as error:  # the code is an author's and may raise anything
            raise StepflowValueError(f"Function execution failed: {_told(error)}") from error

    async def _load(self, blob_id: str, context: StepflowContext) -> _Function:
        import asyncio

        lock = self._under_way.setdefault(blob_id, asyncio.Lock())
        async with lock:
            function = self._ready.get(blob_id)
            if function is None:
                code, schema = _content(blob_id, await self._fetch(blob_id, context))
                # What the code does when it is read may take its time, too.
                function = await in_thread(context, _compile, code, schema)
                self._ready[blob_id] = function
                if len(self._ready) > _MOST_FUNCTIONS:
                    self._ready.popitem(last=False)
        self._under_way.pop(blob_id, None)
        return function

    async def _fetch(self, blob_id: str, context: StepflowContext) -> Any:
        try:
            return await context.get_blob(blob_id)
        except StepflowError as error:
            raise StepflowValueError(f"Failed to retrieve blob {blob_id}: {error.message}") from error

    async def _call(self, function: _Function, value: Any, context: StepflowContext) -> Any:
        function.check(value)
        given = (_opened(value), context)[: function.takes]
        if function.is_async:
            result = await function.function(*given)
        else:
            result = await in_thread(context, function.function, *given)
            if inspect.isawaitable(result):
                result = await result
        if hasattr(result, "ainvoke"):  # a LangChain runnable, which wants to be called with the input
            result = await result.ainvoke(value)
        return result


class _Function:
    """A function that was compiled."""

    __slots__ = ("_validator", "function", "is_async", "takes")

    def __init__(self, function: Callable[..., Any], validator: Any) -> None:
        self.function = function
        self._validator = validator
        self.is_async = inspect.iscoroutinefunction(function)
        #: How many of input and context it takes.
        self.takes = _takes(function)

    def check(self, value: Any) -> None:
        if self._validator is None:
            return
        import jsonschema.exceptions

        best_match = cast("Callable[[Any], Any]", jsonschema.exceptions.best_match)  # pyright: ignore[reportUnknownMemberType]  (half typed)
        problem = best_match(self._validator.iter_errors(value))
        if problem is not None:
            raise StepflowValueError(f"Input validation failed: {problem.message} - at `{problem.json_path}`")


class _Input(dict[str, Any]):
    """An object of the input, whose fields are attributes, too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"Input has no attribute '{name}'") from None


def _opened(value: Any) -> Any:
    if isinstance(value, dict):
        return _Input((name, _opened(part)) for name, part in cast("dict[str, Any]", value).items())
    if isinstance(value, list):
        return [_opened(part) for part in cast("list[Any]", value)]
    return value


def _content(blob_id: str, blob: Any) -> tuple[str, Any]:
    """
    Raises:
        StepflowValueError: the blob holds no function.
    """
    if not isinstance(blob, dict):
        raise StepflowValueError(f"Blob {blob_id} must contain a dictionary")
    fields = cast("dict[str, Any]", blob)
    code = fields.get("code")
    if not isinstance(code, str) or not code.strip():
        raise StepflowValueError(f"Blob {blob_id} must contain 'code' field")
    if fields.get("input_schema") is None:
        raise StepflowValueError(f"Blob {blob_id} must contain 'input_schema' field")
    return code, fields["input_schema"]


def _compile(code: str, schema: Any) -> _Function:
    """
    Raises:
        CodeCompilationError: the code is none of the four forms.
        StepflowValueError: the schema is none.
    """
    return _Function(_function_of(code), _validator_of(schema))


def _validator_of(schema: Any) -> Any:
    if schema in (True, {}):
        return None
    import jsonschema  # takes its time, and most functions come with a schema
    import referencing
    from jsonschema.validators import validator_for

    kind: Any = validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        kind.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise StepflowValueError(f"Invalid schema: {error.message}") from error
    make_registry: Any = referencing.Registry  # an empty one: nothing is fetched that the schema may refer to
    return kind(schema, registry=make_registry())


def _function_of(code: str) -> Callable[..., Any]:
    try:
        tree = ast.parse(code.strip("\n") if "\n" in code else code.strip(), "<udf>")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise CodeCompilationError(f"Unable to compile code. {error}", code) from error
    names = _names()
    if len(tree.body) == 1 and isinstance(tree.body[0], ast.Expr):
        return _from_expression(tree.body[0].value, names, code)
    if not any(isinstance(part, ast.Return) for part in _own_parts(tree.body)):
        found = _from_definitions(tree, names, code)
        if found is not None:
            return found
    if not any(isinstance(part, (ast.Return, ast.Raise, ast.If)) for part in _own_parts(tree.body)):
        raise CodeCompilationError(
            "Unable to compile code. It must be definitions that leave exactly one function, an expression that gives "
            "a function, an expression over `input`, or the body of a function (with return, raise or if).",
            code,
        )
    return _from_body(tree.body, names, code)


def _from_definitions(tree: ast.Module, names: dict[str, Any], code: str) -> Callable[..., Any] | None:
    """The one function that definitions leave, or the one that the last line names. None: these are none."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    if not any(isinstance(statement, kinds) for statement in tree.body):
        return None
    imported = {
        (alias.asname or alias.name).partition(".")[0]
        for statement in tree.body
        if isinstance(statement, (ast.Import, ast.ImportFrom))
        for alias in statement.names
    }
    before = set(names)
    last = tree.body[-1]
    try:
        exec(compile(tree, "<udf>", "exec", dont_inherit=True), names)  # noqa: S102  (what this component is for)
        if isinstance(last, ast.Expr) and isinstance(last.value, ast.Name) and callable(names.get(last.value.id)):
            return names[last.value.id]
    except NameError as error:
        if error.name in ("input", "context"):
            return None  # the body of a function that begins with an assignment
        raise CodeCompilationError(f"Unable to compile code. {error}", code) from error
    except Exception as error:
        raise CodeCompilationError(f"Unable to compile code. {_told(error)}", code) from error
    found = [
        value
        for name, value in names.items()
        if name not in before and name not in imported and not name.startswith("_") and callable(value)
    ]
    return found[0] if len(found) == 1 else None


def _from_expression(expression: ast.expr, names: dict[str, Any], code: str) -> Callable[..., Any]:
    """A function that an expression gives, or that gives the expression's value."""
    free = _free_names(expression)
    if not free & {"input", "context"}:
        try:
            value = eval(compile(ast.Expression(expression), "<udf>", "eval", dont_inherit=True), names)  # noqa: S307  (what this component is for)
        except Exception:  # noqa: BLE001, S110  (it may be one that fails when it is called, and is then told)
            pass
        else:
            if callable(value):
                return value
    return _from_body([ast.Return(expression)], names, code)


def _from_body(body: list[ast.stmt], names: dict[str, Any], code: str) -> Callable[..., Any]:
    is_async = any(isinstance(part, (ast.Await, ast.AsyncFor, ast.AsyncWith)) for part in _own_parts(body))
    head = "async def _udf(input, context): pass" if is_async else "def _udf(input, context): pass"
    module = ast.parse(head, "<udf>")
    cast("ast.FunctionDef", module.body[0]).body = body
    try:
        exec(compile(ast.fix_missing_locations(module), "<udf>", "exec", dont_inherit=True), names)  # noqa: S102  (what this component is for)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise CodeCompilationError(f"Unable to compile code. {error}", code) from error
    return names["_udf"]


def _own_parts(body: list[ast.stmt]) -> list[ast.AST]:
    """All parts of statements but those of functions and classes inside of them."""
    found: list[ast.AST] = []
    left: list[ast.AST] = list(body)
    while left:
        part = left.pop()
        found.append(part)
        if not isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            left.extend(ast.iter_child_nodes(part))
    return found


def _free_names(expression: ast.expr) -> set[str]:
    """Names in an expression that are not parameters of a lambda in it."""
    if isinstance(expression, ast.Lambda):
        return set()
    return {
        part.id
        for part in _own_parts([ast.Expr(expression)])
        if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Load)
    }


def _names() -> dict[str, Any]:
    """What the code of a function finds."""
    import json
    import math
    import re

    known = {name: value for name, value in vars(builtins).items() if name not in _MISSING_NAMES}
    return {"__builtins__": known, "__name__": "udf", "json": json, "math": math, "re": re, "SkipStep": SkipStep}


def _takes(function: Callable[..., Any]) -> int:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return 1  # one that is written in C
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        return 2
    return min(
        2,
        sum(parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD) for parameter in parameters),
    )


def _told(error: BaseException) -> str:
    text, kind = str(error), type(error).__name__
    # A KeyError says nothing but the key.
    return f"{kind}: {text}" if text and isinstance(error, KeyError) else text or kind
