"""A Python file of the project as a module of its own: what loading any kind of Python file begins with.

Called by the loaders of Python workflows and of agent files. Reads the file and what it imports of the project
(`project_code`) and runs that in a namespace of its own (`namespaces`). Whatever goes wrong on the way is one
`WorkflowInvalid` that says in which line. Does not know what the module is for.
"""

from __future__ import annotations

import sys
import traceback
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, TracebackType

from ..errors import WorkflowInvalid
from ..settings import WORKFLOW_FOLDERS
from .dialect import Source
from .discovery import shown_path
from .namespaces import Namespace, Namespaces, readable, run_module
from .project_code import ProjectCode, append_to_sys_path


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModule:
    """A file that has been run, in one version."""

    module: ModuleType
    #: A hash of its source and of all it imports from the project.
    version: str
    #: To be held for as long as code of the module may run: late imports find the modules of this version through it.
    namespace: Namespace

    def keep_for(self, owner: object) -> None:
        """Let the module stay known for as long as `owner`, the thing that was made of it, is there."""
        weakref.finalize(owner, sys.modules.pop, self.module.__name__, None).atexit = False

    def drop(self) -> None:
        """Forget the module: nothing could be made of it."""
        sys.modules.pop(self.module.__name__, None)


class ModuleLoader:
    """Loads `.py` files of one kind of folder, for any number of projects."""

    def __init__(self, folders: Sequence[str] = WORKFLOW_FOLDERS) -> None:
        """`folders` are the ones that such files are in; what a file imports is looked for there, too."""
        self._folders = tuple(folders)
        self._projects: dict[Path, tuple[ProjectCode, Namespaces]] = {}

    def inputs(self, source: Source) -> Iterable[Path]:
        """All files that decide what loading this one gives."""
        return self._project(source.root)[0].closure(source.path).inputs

    def load(self, source: Source) -> LoadedModule:
        """Run a file as it is now.

        Raises:
            WorkflowInvalid: with file, line and what is wrong.
        """
        code, namespaces = self._project(source.root)
        append_to_sys_path(source.root)
        try:
            closure = code.closure(source.path)
        except OSError as error:
            raise WorkflowInvalid(shown(source), f"the file cannot be read: {error.strerror}.") from error
        namespace = namespaces.enter(closure)
        module = namespace.make_module(closure, source.name)
        try:
            _run(source, module)
        except BaseException:
            sys.modules.pop(module.__name__, None)
            raise
        return LoadedModule(module=module, version=closure.version, namespace=namespace)

    def _project(self, root: Path) -> tuple[ProjectCode, Namespaces]:
        known = self._projects.get(root)
        if known is None:
            code = ProjectCode(root, self._folders)
            known = self._projects.setdefault(root, (code, Namespaces(code)))
        return known


def shown(source: Source) -> str:
    """The file as messages show it."""
    return shown_path(source.path, source.root)


def _run(source: Source, module: ModuleType) -> None:
    try:
        run_module(module)
    except SyntaxError as error:
        raise _from_syntax_error(source, error) from error
    except SystemExit as error:
        problem = f"it called sys.exit({'' if error.code is None else repr(error.code)}) while it was imported."
        raise WorkflowInvalid(shown(source), problem, line=_line_in(source.path, error.__traceback__)) from error
    except Exception as error:  # the author's code
        raise _from_import_error(source, error) from error


def _from_syntax_error(source: Source, error: SyntaxError) -> WorkflowInvalid:
    line = _line_in(source.path, error.__traceback__)
    where = ""
    if error.filename == str(source.path):
        line = error.lineno
    elif error.filename:
        where = f" in {shown_path(Path(error.filename), source.root)}:{error.lineno}"
    return WorkflowInvalid(
        shown(source), f"SyntaxError{where}: {error.msg}", line=line, details=_details(source, error)
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
    return WorkflowInvalid(shown(source), problem, line=line, details=_details(source, error))


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
