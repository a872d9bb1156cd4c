"""A namespace of its own for each version of the project's modules.

Called by the Python loader. A namespace is a snapshot of project modules: its modules import one another out of the
snapshot, also later, when a run reaches an `import` inside a function. Workflows share a namespace as long as the
modules they share are unchanged; after a change the next load starts a new one, and runs that are under way keep the
old one to their end. So module state (a cache, a connection pool) is shared as usual until its code is edited.

How: a module is registered under a private name (`_pyflue_3.src.app.db`), and in its compiled code `import app.db` says
so. From there Python's own import system does the rest: locks, cycles, packages. The module is also put into
`sys.modules` under the name its author knows, the newest version last, so that pickle, logging and patching find it.

Limits: what is imported by a computed name (`importlib.import_module(name)`, `exec`) is the newest version, not the
run's own, and is not part of the workflow's version. A module that the program around PyFlue has imported itself is
used as it is, and not reloaded. An old run cannot pickle instances of helper classes that have been reloaded since.
Names in `sys.modules` are taken over by the newest of several projects in one process.
"""

from __future__ import annotations

import ast
import importlib.util
import itertools
import re
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

from .project_code import Closure, ModuleSource, ProjectCode, ProjectModule, module_file

_PREFIX = "_pyflue_"
_PRIVATE_NAME = re.compile(rf"{_PREFIX}\d+\.")
_numbers = itertools.count(1)


class Namespace:
    """One snapshot of project modules. They stay importable for as long as somebody holds this object."""

    def __init__(self, project: ProjectCode) -> None:
        self._prefix = f"{_PREFIX}{next(_numbers)}"
        self._snapshot = _Snapshot(project, self._prefix)
        _finder.add(self._snapshot)
        weakref.finalize(self, _finder.remove, self._prefix).atexit = False

    def fits(self, closure: Closure) -> bool:
        """Whether no module of the closure is here in another state."""
        return all(self._snapshot.sources.get(place, source) == source for place, source in closure.modules.items())

    def add(self, closure: Closure) -> None:
        """Take in the modules of a closure that fits."""
        self._snapshot.sources.update(closure.modules)

    def make_module(self, closure: Closure, label: str) -> ModuleType:
        """A new, empty module for the closure's main file, under a name that no other module will have.

        Whoever asked for it takes it out of `sys.modules` when it is no longer needed.
        """
        source = closure.main
        name = f"{_PREFIX}workflow_{next(_numbers)}_{re.sub(r'[^A-Za-z0-9]', '_', label)}"
        package = f"{self._prefix}.{source.place}".rpartition(".")[0]
        loader = _Loader(name, self._snapshot, source, shown_name=name)
        spec = _MainSpec(name, loader, package, origin=str(source.path))
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        return module


class Namespaces:
    """The newest namespace of a project, replaced when a module in it has changed."""

    def __init__(self, project: ProjectCode) -> None:
        self._project = project
        self._lock = threading.Lock()
        self._newest = Namespace(project)

    def enter(self, closure: Closure) -> Namespace:
        """The namespace to load a file in."""
        with self._lock:
            if not self._newest.fits(closure):
                self._newest = Namespace(self._project)
            self._newest.add(closure)
            return self._newest


def run_module(module: ModuleType) -> None:
    """Run the code of a module from `Namespace.make_module`."""
    vars(module)["__loader__"].exec_module(module)


def readable(text: str) -> str:
    """A message without the private names of modules."""
    return _PRIVATE_NAME.sub("", text)


class _Snapshot:
    """The sources of a namespace: those found by reading, and those that were asked for later by a computed name."""

    def __init__(self, project: ProjectCode, prefix: str) -> None:
        self.project = project
        self.prefix = prefix
        self.sources: dict[str, ModuleSource] = {}

    def source(self, place: str, folder: Path) -> ModuleSource | None:
        known = self.sources.get(place)
        if known is None and (file := module_file(folder / place.rpartition(".")[2].replace("%2e", "."))):
            known = self.sources.setdefault(place, self.project.module(file))
        return known


class _MainSpec(ModuleSpec):
    """The spec of a workflow file: its name has no package, its relative imports have."""

    def __init__(self, name: str, loader: SourceFileLoader, package: str, *, origin: str) -> None:
        super().__init__(name, loader, origin=origin)
        self.has_location = True
        self._package = package

    @property
    def parent(self) -> str:
        return self._package


class _Finder:
    """Finds modules by their private names; part of `sys.meta_path`."""

    def __init__(self) -> None:
        self._snapshots: dict[str, _Snapshot] = {}

    def add(self, snapshot: _Snapshot) -> None:
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)
        self._snapshots[snapshot.prefix] = snapshot
        spec = ModuleSpec(snapshot.prefix, None, is_package=True)
        spec.submodule_search_locations = [str(snapshot.project.root)]
        sys.modules[snapshot.prefix] = importlib.util.module_from_spec(spec)

    def remove(self, prefix: str) -> None:
        self._snapshots.pop(prefix, None)
        for name in [name for name in list(sys.modules) if name == prefix or name.startswith(f"{prefix}.")]:
            sys.modules.pop(name, None)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not path or not fullname.startswith(_PREFIX):
            return None
        prefix, _, place = fullname.partition(".")
        snapshot = self._snapshots.get(prefix)
        source = snapshot and snapshot.source(place, Path(path[0]))
        if snapshot is None or source is None:
            raise ModuleNotFoundError(f"No module named {readable(fullname)!r}", name=fullname)
        loader = _Loader(fullname, snapshot, source, shown_name=source.name)
        folders = [str(source.path if source.path.suffix != ".py" else source.path.parent)]
        return importlib.util.spec_from_file_location(
            fullname, source.path, loader=loader, submodule_search_locations=folders if source.is_package else None
        )


_finder = _Finder()


class _Loader(SourceFileLoader):
    """Runs a module from its snapshot. Bytecode files are not used: their time stamps miss quick edits."""

    def __init__(self, fullname: str, snapshot: _Snapshot, source: ModuleSource, *, shown_name: str) -> None:
        super().__init__(fullname, str(source.path))
        self._snapshot = snapshot
        self._source = source
        self._shown_name = shown_name

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = ProjectModule(spec.name)
        module.__spec__ = spec
        return module

    def get_code(self, fullname: str) -> CodeType:
        path = str(self._source.path)
        tree = ast.parse(self._source.text, path)
        homes = {top: f"{self._snapshot.prefix}.{place}" for top, place in self._source.homes.items()}
        return compile(_PrivateImports(homes).visit(tree) if homes else tree, path, "exec", dont_inherit=True)

    def exec_module(self, module: ModuleType) -> None:
        code = self.get_code(module.__name__)
        vars(module)["__name__"] = self._shown_name
        before = sys.modules.get(self._shown_name)
        if before is None or isinstance(before, ProjectModule):
            sys.modules[self._shown_name] = module
        try:
            exec(code, vars(module))  # noqa: S102  (this is how a module is run)
        except BaseException:
            if sys.modules.get(self._shown_name) is module:
                del sys.modules[self._shown_name]
            raise


class _PrivateImports(ast.NodeTransformer):
    """Makes a module's absolute imports of project modules say the private names. Relative imports do so anyway."""

    def __init__(self, homes: Mapping[str, str]) -> None:
        self._homes = homes

    def visit_Import(self, node: ast.Import) -> ast.Import:
        node.names = [private for alias in node.names for private in self._aliases(alias)]
        return node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.ImportFrom:
        if node.level == 0 and node.module:
            top, dot, rest = node.module.partition(".")
            if home := self._homes.get(top):
                node.module = f"{home}{dot}{rest}"
        return node

    def _aliases(self, alias: ast.alias) -> list[ast.alias]:
        top, dot, rest = alias.name.partition(".")
        home = self._homes.get(top)
        if home is None:
            return [alias]
        if alias.asname or not dot:
            return [_at(alias, f"{home}{dot}{rest}", alias.asname or top)]
        # `import app.db` loads `app.db` and binds `app`.
        return [_at(alias, f"{home}.{rest}", top), _at(alias, home, top)]


def _at(where: ast.alias, name: str, asname: str) -> ast.alias:
    return ast.copy_location(ast.alias(name=name, asname=asname), where)
