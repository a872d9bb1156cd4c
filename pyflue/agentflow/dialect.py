"""The door through which PyFlue finds files with step classes; named in the entry points of the package.

Each command of a project passes here, also where there are no such files: what takes long to import is imported when
the first of them is loaded.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..workflows import Dialect, Source

if TYPE_CHECKING:
    from .loader import AgentflowLoader, AgentflowWorkflow

KIND = "agentflow"
#: The decorator of such classes, and the variable that names one of several.
WORD = "workflow"


def agentflow_dialect() -> Dialect:
    """The dialect of files with a `@workflow` class."""
    return Dialect(kind=KIND, loader=_Loader())


class _Loader:
    """Says which files have step classes, and leaves the rest to `loader.py`."""

    @functools.cached_property
    def _loader(self) -> AgentflowLoader:
        from .loader import AgentflowLoader

        return AgentflowLoader()

    def claims(self, path: Path) -> bool:
        return path.suffix == ".py" and has_step_class(path.read_bytes())

    def inputs(self, source: Source) -> Iterable[Path]:
        return self._loader.inputs(source)

    def load(self, source: Source) -> AgentflowWorkflow:
        return self._loader.load(source)


@functools.lru_cache(maxsize=256)
def has_step_class(text: bytes) -> bool:
    """Whether a source text has a class that is decorated with `workflow`, and no `run` of its own beside it.

    Read, not run: a module-level `run` makes the file a Python workflow, whatever classes it has.
    """
    if WORD.encode() not in text or b"class " not in text or b"@" not in text:
        return False
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False  # whoever takes it says what is wrong
    aliases = {WORD}
    for node in body:
        if isinstance(node, ast.ImportFrom):
            aliases |= {alias.asname or alias.name for alias in node.names if alias.name == WORD}
    return any(_is_step_class(node, aliases) for node in body) and "run" not in _bound_by(body)


def _is_step_class(node: ast.stmt, aliases: set[str]) -> bool:
    for decorator in node.decorator_list if isinstance(node, ast.ClassDef) else ():
        named = decorator.func if isinstance(decorator, ast.Call) else decorator
        if isinstance(named, ast.Name) and named.id in aliases:
            return True
        if isinstance(named, ast.Attribute) and named.attr == WORD:
            return True
    return False


def _bound_by(body: list[ast.stmt]) -> Iterator[str]:
    """The names that the statements of a module bind, as far as that is plain to see."""
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from (alias.asname or alias.name for alias in node.names)
