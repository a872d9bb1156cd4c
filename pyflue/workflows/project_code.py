"""Which modules of the project a Python file is made of, found out by reading, not by running.

Called by the Python loader: for a workflow's version, for what a reload has to look at, and for what `namespaces` gives
each version a copy of. Reads files and asks Python's own finders where a module is; imports and runs nothing.

Where a workflow's imports are looked for: on `sys.path`, then in the project folder, in its `src`, and in the workflow
folder itself. So `src/workflows/_lib/text.py` is importable as `src.workflows._lib.text`, as `workflows._lib.text`, as
`_lib.text`, and by its neighbours as `._lib.text`; it is one module however it is spelled, known by its *place*: the
path from the project folder, with dots. Not project code: the standard library, installed packages, `node_modules`,
hidden folders (other than `.pyflue/workflows`), PyFlue itself, and modules that are no `.py` files.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

from ..settings import WORKFLOW_FOLDERS

_FOREIGN_FOLDERS = frozenset({"site-packages", "dist-packages", "node_modules"})
_OWN_PACKAGE = __name__.partition(".")[0]


class ProjectModule(ModuleType):
    """A module that PyFlue made from project code.

    It is registered under a private name, one for each version; `__name__` in its code is the name its author knows.
    """

    @property
    def __name__(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]  (Python looks here for submodules)
        return self.__dict__["__spec__"].name


@dataclass(frozen=True, slots=True)
class Import:
    """One `import` (no names) or `from … import` (names) of a source text."""

    level: int
    module: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleSource:
    """The text of a module at the time it was read."""

    place: str
    #: The file; a folder for a package without `__init__.py`.
    path: Path
    is_package: bool
    text: bytes
    digest: str
    #: The name it is imported by from elsewhere, `app.db` for `src/app/db.py`.
    name: str
    #: For each first part of a dotted name that this module imports from the project: its place.
    homes: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Closure:
    """A file and all project modules it imports, directly or through others."""

    main: ModuleSource
    modules: Mapping[str, ModuleSource]
    #: Every file that was read, and those that were looked for in vain: if one of them turns up, the answer changes.
    inputs: frozenset[Path]

    @property
    def version(self) -> str:
        """A hash of all the source."""
        total = hashlib.sha256()
        for place, source in sorted({**self.modules, self.main.place: self.main}.items()):
            total.update(f"{place} {source.digest}\n".encode())
        return total.hexdigest()[:16]


class ProjectCode:
    """Reads the Python files of one project."""

    def __init__(self, root: Path, folders: Sequence[str] = WORKFLOW_FOLDERS) -> None:
        """`folders` are the workflow folders (or those of another kind of file)."""
        self.root = root
        self._folders = [root / name for name in folders]
        self._import_folders = frozenset({root, root / "src"})

    def closure(self, path: Path) -> Closure:
        """Read a file and everything of the project that it imports.

        Raises:
            OSError: the file itself cannot be read.
        """
        reading = _Reading(self)
        main = reading.read(path)
        modules = reading.follow(main)
        return Closure(main=main, modules=modules, inputs=frozenset(reading.inputs))

    def module(self, path: Path) -> ModuleSource:
        """Read one module."""
        return _Reading(self).read(path)

    def place(self, base: Path) -> str:
        """The place of a module, from its path without suffix. Dots in folder names are written as `%2e`."""
        return ".".join(part.replace(".", "%2e") for part in base.relative_to(self.root).parts)

    def is_project(self, path: Path) -> bool:
        """Whether a file or folder is project code."""
        if not path.is_relative_to(self.root) or path == self.root:
            return False
        if path.is_relative_to(hidden := self.root / WORKFLOW_FOLDERS[-1]):
            path = self.root / path.relative_to(hidden)
        return not any(part.startswith(".") or part in _FOREIGN_FOLDERS for part in path.relative_to(self.root).parts)

    def workflow_folder(self, path: Path) -> Path | None:
        """The workflow folder that a file is in."""
        return next((folder for folder in self._folders if path.is_relative_to(folder)), None)

    def name(self, base: Path) -> str:
        """The name under which a module would be imported, given the deepest import folder it is in."""
        folders = [folder for folder in self._import_folders if base.is_relative_to(folder) and base != folder]
        return ".".join(base.relative_to(max(folders, key=lambda folder: len(folder.parts))).parts)

    def search_path(self, path: Path) -> list[str]:
        """Where imports of a file are looked for: `sys.path` without what we appended for any project, then our own."""
        own = [str(self.root), str(self.root / "src")]
        if folder := self.workflow_folder(path):
            own.append(str(folder))
        return [entry for entry in sys.path if entry not in _appended] + own

    def learn_import_folder(self, folder: Path) -> None:
        if self.workflow_folder(folder / "_") != folder:
            self._import_folders |= {folder}


_appended: set[str] = set()


def append_to_sys_path(root: Path) -> None:
    """Make the project folder and its `src` importable for the whole process, behind everything else, once."""
    for folder in (root, root / "src"):
        entry = str(folder)
        if entry not in sys.path and folder.is_dir():
            _appended.add(entry)
            sys.path.append(entry)


class _Reading:
    """One look at a file and what it imports."""

    def __init__(self, project: ProjectCode) -> None:
        self._project = project
        self._homes: dict[tuple[str, Path | None], Path | None] = {}
        self.inputs: set[Path] = set()

    def read(self, path: Path) -> ModuleSource:
        project = self._project
        is_folder = path.is_dir()
        if not is_folder:
            self.inputs.add(path)
        text = b"" if is_folder else path.read_bytes()
        base = _base_of(path)
        homes: dict[str, str] = {}
        for wanted in _imports(text):
            if wanted.level == 0 and wanted.module:
                top = wanted.module.partition(".")[0]
                home = self._home(top, path)
                if home is not None and not _is_taken(top):
                    homes[top] = project.place(home)
        return ModuleSource(
            place=project.place(base),
            path=path,
            is_package=is_folder or path.name == "__init__.py",
            text=text,
            digest=hashlib.sha256(text).hexdigest(),
            name=project.name(base),
            homes=homes,
        )

    def follow(self, main: ModuleSource) -> dict[str, ModuleSource]:
        """Every project module that `main` imports, through however many others."""
        modules: dict[str, ModuleSource] = {}
        waiting = [main]
        while waiting:
            for path in self._imported(waiting.pop()):
                place = self._project.place(_base_of(path))
                if place in modules:
                    continue
                try:
                    modules[place] = self.read(path)
                except OSError:
                    continue  # importing it will say so
                waiting.append(modules[place])
        return modules

    def _imported(self, source: ModuleSource) -> Iterator[Path]:
        for wanted in _imports(source.text):
            base = self._base(source, wanted)
            if base is None:
                continue
            yield from self._with_parents(base)
            if _is_package(base):
                for name in wanted.names:
                    yield from self._with_parents(base / name)

    def _base(self, source: ModuleSource, wanted: Import) -> Path | None:
        """The path, without suffix, of what is imported; None if it is not of the project."""
        parts = wanted.module.split(".") if wanted.module else []
        if wanted.level:
            folder = source.path if source.path.is_dir() else source.path.parent
            for _ in range(wanted.level - 1):
                folder = folder.parent
            base = folder.joinpath(*parts)
            return base if self._project.is_project(base) else None
        home = self._home(parts[0], source.path)
        return None if home is None else home.joinpath(*parts[1:])

    def _with_parents(self, base: Path) -> Iterator[Path]:
        """The file of a module and the `__init__.py` files that are run before it, as far as they exist."""
        root = self._project.root
        for folder in reversed(base.relative_to(root).parents[:-1]):
            init = root / folder / "__init__.py"
            self.inputs.add(init)
            if init.is_file():
                yield init
        found = module_file(base)
        if found is None or found.is_dir():
            self.inputs.update((base.with_name(f"{base.name}.py"), base / "__init__.py"))
        if found is not None:
            yield found

    def _home(self, top: str, path: Path) -> Path | None:
        key = (top, self._project.workflow_folder(path))
        if key not in self._homes:
            self._homes[key] = self._find_home(top, path)
        return self._homes[key]

    def _find_home(self, top: str, path: Path) -> Path | None:
        if top == _OWN_PACKAGE or top in sys.stdlib_module_names:
            return None
        if spec := _find_by_hooks(top):
            return self._own(spec.origin)
        folder_only: Path | None = None
        for entry in self._project.search_path(path):
            folder = Path(os.path.realpath(entry))
            if folder == self._project.root or self._project.is_project(folder):
                # Not through Python's finder: it remembers what was in a folder a moment ago.
                found = module_file(folder / top)
                self.inputs.update((folder / f"{top}.py", folder / top, folder / top / "__init__.py"))
                if found is not None and found.is_dir():
                    folder_only = folder_only or found
                elif found is not None:
                    return self._own(str(found))
            elif (spec := PathFinder.find_spec(top, [entry])) and spec.loader is not None:
                return self._own(spec.origin)
        return folder_only

    def _own(self, origin: str | None) -> Path | None:
        """The home of a top-level module, if its file is of the project."""
        file = Path(os.path.realpath(origin or ""))
        home = _base_of(file)
        if file.suffix != ".py" or not self._project.is_project(home):
            return None
        self._project.learn_import_folder(home.parent)
        return home


def module_file(base: Path) -> Path | None:
    """What Python would import for a path without suffix: a package, a file, or a folder without `__init__.py`."""
    for candidate in (base / "__init__.py", base.with_name(f"{base.name}.py")):
        if candidate.is_file():
            return candidate
    return base if base.is_dir() else None


def _is_package(base: Path) -> bool:
    found = module_file(base)
    return found is not None and (found.name == "__init__.py" or found.is_dir())


def _base_of(path: Path) -> Path:
    """The path of a module without suffix."""
    if path.name == "__init__.py":
        return path.parent
    return path if path.is_dir() else path.with_suffix("")


@functools.lru_cache(maxsize=2048)
def _imports(text: bytes) -> tuple[Import, ...]:
    """The imports in a source text, wherever in it they stand; none if it is no Python."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()  # loading the file says what is wrong with it
    found: list[Import] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += (Import(0, alias.name, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names = tuple(alias.name for alias in node.names if alias.name != "*")
            found.append(Import(node.level, node.module or "", names))
    return tuple(found)


def _is_taken(top: str) -> bool:
    """Whether the program around us has imported such a module itself: then it is its own, and workflows share it."""
    module = sys.modules.get(top)
    return module is not None and not isinstance(module, ProjectModule)


def _find_by_hooks(top: str) -> ModuleSpec | None:
    """What import hooks other than Python's own say, such as those of editable installs."""
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        if find is not None and finder is not PathFinder and (spec := find(top, None)) is not None:
            return spec
    return None
