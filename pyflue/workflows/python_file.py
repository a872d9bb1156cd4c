"""The Python kind of workflow: a module with `run(ctx)`.

Called by the catalog through `python_dialect()`, as any dialect is. `PythonLoader` reads the file and what it imports
of the project (`project_code`), runs that in a namespace of its own (`namespaces`), looks at the signature of `run`,
and makes a `PythonWorkflow`. Types are the business of `typed`. Knows neither the catalog nor the engine's insides.

What a file may rely on: `run` is async, or a plain function that then gets a thread of its own, and a context whose
calls block. The module's variables `recovery` ("resume", "restart" or "fail") and `strict` (True or False) say what
becomes of runs that are taken up again. The project folder and its `src` are importable, also with relative imports;
helpers live in any folder whose name starts with `_`. The file is a module of its own under a private name, so
dataclasses, postponed annotations and pickle work as usual.
"""

from __future__ import annotations

import functools
import inspect
import sys
import traceback
import typing
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from ..engine import BlockingContext, FlueContext, Graph, Recovery
from ..errors import PayloadInvalid, ResultInvalid, WorkflowInvalid
from ..typed import Misfit, Shape, shape_of
from .dialect import Dialect, Source
from .discovery import shown_path
from .namespaces import Namespace, Namespaces, readable, run_module
from .project_code import Closure, ProjectCode, append_to_sys_path

KIND = "python"


def python_dialect() -> Dialect:
    """The dialect of plain Python files."""
    return Dialect(kind=KIND, loader=PythonLoader())


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
        self._projects: dict[Path, tuple[ProjectCode, Namespaces]] = {}

    def claims(self, path: Path) -> bool:
        return path.suffix == ".py"

    def inputs(self, source: Source) -> Iterable[Path]:
        return self._project(source.root)[0].closure(source.path).inputs

    def load(self, source: Source) -> PythonWorkflow:
        code, namespaces = self._project(source.root)
        append_to_sys_path(source.root)
        try:
            closure = code.closure(source.path)
        except OSError as error:
            raise WorkflowInvalid(_shown(source), f"the file cannot be read: {error.strerror}.") from error
        namespace = namespaces.enter(closure)
        module = namespace.make_module(closure, source.name)
        try:
            workflow = _workflow(source, closure, namespace, _import(source, module))
        except BaseException:
            sys.modules.pop(module.__name__, None)
            raise
        weakref.finalize(workflow, sys.modules.pop, module.__name__, None).atexit = False
        return workflow

    def _project(self, root: Path) -> tuple[ProjectCode, Namespaces]:
        known = self._projects.get(root)
        if known is None:
            code = ProjectCode(root)
            known = self._projects.setdefault(root, (code, Namespaces(code)))
        return known


def _import(source: Source, module: ModuleType) -> ModuleType:
    try:
        run_module(module)
    except SyntaxError as error:
        raise _from_syntax_error(source, error) from error
    except SystemExit as error:
        problem = f"it called sys.exit({'' if error.code is None else repr(error.code)}) while it was imported."
        raise WorkflowInvalid(_shown(source), problem, line=_line_in(source.path, error.__traceback__)) from error
    except Exception as error:  # the author's code
        raise _from_import_error(source, error) from error
    return module


def _workflow(source: Source, closure: Closure, namespace: Namespace, module: ModuleType) -> PythonWorkflow:
    function = _run_function(source, module)
    payload, result = _annotations(source, function)
    return PythonWorkflow(
        name=source.name,
        path=source.path,
        version=closure.version,
        description=inspect.cleandoc(getattr(function, "__doc__", None) or module.__doc__ or "").strip(),
        function=function,
        is_async=_is_async(function),
        recovery=_recovery(source, module),
        is_strict=_is_strict(source, module),
        payload=_shape(source, function, payload, "payload"),
        result=_shape(source, function, result, "result"),
        namespace=namespace,
    )


def _run_function(source: Source, module: ModuleType) -> Callable[[Any], Any]:
    function = vars(module).get("run")
    if function is None:
        raise WorkflowInvalid(
            _shown(source),
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
        raise WorkflowInvalid(_shown(source), problem, line=_line_of(source, function) or 1)
    return function


def _recovery(source: Source, module: ModuleType) -> Recovery:
    value = vars(module).get("recovery", Recovery.RESUME)
    if callable(value):  # a function of that name, which means something else
        return Recovery.RESUME
    try:
        return Recovery(value)
    except ValueError as error:
        known = ", ".join(repr(word.value) for word in Recovery)
        raise WorkflowInvalid(_shown(source), f"its `recovery` is {value!r}; known are {known}.") from error


def _is_strict(source: Source, module: ModuleType) -> bool:
    value = vars(module).get("strict", False)
    if isinstance(value, bool):
        return value
    raise WorkflowInvalid(_shown(source), f"its `strict` is {value!r}; it is True or False.")


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
        raise WorkflowInvalid(_shown(source), problem, line=_line_of(source, function)) from error
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
        raise WorkflowInvalid(_shown(source), problem, line=_line_of(source, function)) from error


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


def _from_syntax_error(source: Source, error: SyntaxError) -> WorkflowInvalid:
    line = _line_in(source.path, error.__traceback__)
    where = ""
    if error.filename == str(source.path):
        line = error.lineno
    elif error.filename:
        where = f" in {shown_path(Path(error.filename), source.root)}:{error.lineno}"
    return WorkflowInvalid(
        _shown(source), f"SyntaxError{where}: {error.msg}", line=line, details=_details(source, error)
    )


def _from_import_error(source: Source, error: Exception) -> WorkflowInvalid:
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(source.root)
    ]
    where = ""
    if frames and frames[-1].filename != str(source.path):
        where = f" in {shown_path(Path(frames[-1].filename), source.root)}:{frames[-1].lineno}"
    problem = f"importing it failed{where}: {type(error).__name__}: {readable(str(error))}"
    line = _line_in(source.path, error.__traceback__)
    return WorkflowInvalid(_shown(source), problem, line=line, details=_details(source, error))


def _details(source: Source, error: BaseException) -> dict[str, str]:
    """The traceback, from the workflow file on."""
    trace = error.__traceback__
    start = trace
    while start is not None and start.tb_frame.f_code.co_filename != str(source.path):
        start = start.tb_next
    lines = traceback.format_exception(type(error), error, start)
    return {"traceback": readable("".join(lines))}


def _line_in(path: Path, trace: TracebackType | None) -> int | None:
    """The last line of a file in a traceback."""
    lines = [frame.lineno for frame in traceback.extract_tb(trace) if frame.filename == str(path)]
    return lines[-1] if lines else None


def _shown(source: Source) -> str:
    return shown_path(source.path, source.root)
