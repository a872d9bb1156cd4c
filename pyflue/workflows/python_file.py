"""The Python kind of workflow: a module with `run(ctx)`.

Called by the catalog through `python_dialect()`, as any dialect is. `PythonLoader` has the file run in a namespace of
its own (`modules`), looks at the signature of `run`, and makes a `PythonWorkflow`. Types are the business of `typed`.
Knows neither the catalog nor the engine's insides.

What a file may rely on: `run` is async, or a plain function that then gets a thread of its own, and a context whose
calls block. The module's variables `recovery` ("resume", "restart" or "fail") and `strict` (True or False) say what
becomes of runs that are taken up again. The project folder and its `src` are importable, also with relative imports;
helpers live in any folder whose name starts with `_`. The file is a module of its own under a private name, so
dataclasses, postponed annotations and pickle work as usual.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from ..engine import BlockingContext, FlueContext, Graph, Recovery
from ..errors import PayloadInvalid, ResultInvalid, WorkflowInvalid
from ..typed import Misfit, Shape, shape_of
from .dialect import Dialect, Source
from .modules import LoadedModule, ModuleLoader, shown
from .namespaces import Namespace
from .variables import recovery_of, strictness_of

KIND = "python"


def python_dialect() -> Dialect:
    """The dialect of plain Python files."""
    return Dialect(kind=KIND, loader=PythonLoader(), takes_the_rest=True)


@dataclass(frozen=True, slots=True, kw_only=True, weakref_slot=True, eq=False)
class PythonWorkflow:
    """One version of a Python file."""

    name: str
    path: Path
    version: str
    description: str
    function: Callable[[Any], Any]
    is_async: bool
    recovery: Recovery
    is_strict: bool
    payload: Shape
    result: Shape
    #: Held so that late imports of a run under way find the modules of this version.
    namespace: Namespace
    kind: str = KIND

    @property
    def input_schema(self) -> Mapping[str, Any]:
        return self.payload.schema

    @property
    def output_schema(self) -> Mapping[str, Any]:
        return self.result.schema

    def parse(self, payload: Any) -> Any:
        try:
            return self.payload.load(payload)
        except Misfit as misfit:
            raise PayloadInvalid(self.name, misfit.problems) from misfit.__cause__

    def graph(self) -> Graph | None:
        return None

    async def run(self, ctx: FlueContext[Any]) -> Any:
        if self.is_async:
            value = await self.function(ctx)
        else:
            value = await ctx.in_thread(self.function)
            if inspect.isawaitable(value):  # a plain wrapper around an async function
                value = await value
        try:
            return self.result.dump(value)
        except Misfit as misfit:
            raise ResultInvalid(f"workflow {self.name!r}", misfit.problems) from misfit.__cause__


class PythonLoader:
    """Makes workflows of `.py` files."""

    def __init__(self) -> None:
        self._modules = ModuleLoader()

    def claims(self, path: Path) -> bool:
        return path.suffix == ".py"

    def inputs(self, source: Source) -> Iterable[Path]:
        return self._modules.inputs(source)

    def load(self, source: Source) -> PythonWorkflow:
        loaded = self._modules.load(source)
        try:
            workflow = _workflow(source, loaded)
        except BaseException:
            loaded.drop()
            raise
        loaded.keep_for(workflow)
        return workflow


def _workflow(source: Source, loaded: LoadedModule) -> PythonWorkflow:
    module = loaded.module
    function = _run_function(source, module)
    payload, result = _annotations(source, function)
    return PythonWorkflow(
        name=source.name,
        path=source.path,
        version=loaded.version,
        description=inspect.cleandoc(getattr(function, "__doc__", None) or module.__doc__ or "").strip(),
        function=function,
        is_async=_is_async(function),
        recovery=recovery_of(source, module),
        is_strict=strictness_of(source, module),
        payload=_shape(source, function, payload, "payload"),
        result=_shape(source, function, result, "result"),
        namespace=loaded.namespace,
    )


def _run_function(source: Source, module: ModuleType) -> Callable[[Any], Any]:
    function = vars(module).get("run")
    if function is None:
        raise WorkflowInvalid(
            shown(source),
            "it has no function `run(ctx)`. Add one, or move the file into a folder that starts with '_'.",
            line=1,
        )
    problem = None
    if not callable(function) or inspect.isclass(function):
        problem = f"`run` is a {'class' if inspect.isclass(function) else type(function).__name__}, not a function."
    elif inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        problem = "`run` is a generator (it has a `yield`). Return the result, and use ctx.emit on the way."
    elif not _takes_one_argument(function):
        problem = f"`run{inspect.signature(function)}` cannot be called with one argument; write `run(ctx)`."
    if problem:
        raise WorkflowInvalid(shown(source), problem, line=_line_of(source, function) or 1)
    return function


def _takes_one_argument(function: Callable[..., Any]) -> bool:
    try:
        inspect.signature(function).bind(None)
    except TypeError:
        return False
    return True


def _annotations(source: Source, function: Callable[..., Any]) -> tuple[Any, Any]:
    """The payload's and the result's type, `Any` where none is written."""
    plain = inspect.unwrap(_plain_function(function))
    # Names that only a type checker imports: nearly everybody who writes `if TYPE_CHECKING:` has these in it.
    ours = {"FlueContext": FlueContext, "BlockingContext": BlockingContext}
    names = {**ours, "Any": Any, **getattr(plain, "__globals__", {})}
    try:
        hints = typing.get_type_hints(plain, globalns=names, include_extras=True)
    except (NameError, TypeError, SyntaxError, AttributeError) as error:
        problem = f"the types of `run` cannot be read: {error}. They must be importable at run time."
        raise WorkflowInvalid(shown(source), problem, line=_line_of(source, function)) from error
    first = next(iter(inspect.signature(function).parameters))
    context = hints.get(first)
    is_typed = typing.get_origin(context) in (FlueContext, BlockingContext)
    return (typing.get_args(context)[0] if is_typed else Any), hints.get("return", Any)


def _shape(
    source: Source, function: Callable[..., Any], annotation: Any, direction: typing.Literal["payload", "result"]
) -> Shape:
    try:
        return shape_of(annotation, direction)
    except TypeError as error:
        problem = f"the {direction} type of `run` has no JSON form: {error}"
        raise WorkflowInvalid(shown(source), problem, line=_line_of(source, function)) from error


def _plain_function(function: Any) -> Any:
    while isinstance(function, functools.partial):
        function = function.func  # pyright: ignore[reportUnknownMemberType,reportUnknownVariableType]
    is_function = inspect.isroutine(function)  # pyright: ignore[reportUnknownArgumentType]
    return function if is_function else type(function).__call__  # pyright: ignore[reportUnknownArgumentType,reportUnknownVariableType]


def _is_async(function: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(_plain_function(function))


def _line_of(source: Source, function: Any) -> int | None:
    code = getattr(inspect.unwrap(_plain_function(function)), "__code__", None)
    return code.co_firstlineno if code is not None and code.co_filename == str(source.path) else None
