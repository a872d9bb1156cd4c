"""The catalog: every workflow of a project by name, each in its newest version that works.

Made by `main.py`; asked by the engine, the server and the CLI; `watch` keeps it up to date in `pyflue dev`. It calls
`discovery` for the files, the dialects' loaders for what is in them, and `files` to see what has changed. It does not
know what is in a file, nor what a run is.

Threads: everything may be called from any thread. Once a name is loaded, `find` is one dictionary look-up and never
waits for an import that goes on elsewhere. `refresh` and first loads block; keep them off the event loop.
"""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, cast, runtime_checkable

from ..engine import Workflow
from ..errors import WorkflowInvalid, WorkflowNotFound
from ..settings import STATE_FOLDER, WORKFLOW_FOLDERS
from .attempts import Attempt
from .dialect import Dialect, Finding, HasFindings, Level, Loader, Source
from .discovery import Diagnostic, Discovery, Found, discover, shown_path
from .files import FileState, is_same, read_states, refresh_states
from .registered import registered_dialects

#: An import that takes longer is waited for while the next ones are under way.
PATIENCE_S = 0.5


@runtime_checkable
class ReadsOtherFiles(Protocol):
    """What a loader has besides, if its workflows are made of more than their own file."""

    def inputs(self, source: Source) -> Iterable[Path]:
        """The files that decide what `load` returns; also those that do not exist, if it would matter that they did."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A name of the catalog. Both `workflow` and `error` are there if an edit broke a file that worked before."""

    name: str
    kind: str
    path: Path
    workflow: Workflow | None
    error: WorkflowInvalid | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Slot:
    """What is known about a name."""

    found: Found
    is_loaded: bool = False
    #: The newest version that could be loaded.
    workflow: Workflow | None = None
    #: Why the file as it is now cannot be used.
    error: WorkflowInvalid | None = None
    #: The files of the last try.
    states: Mapping[Path, FileState] = field(default_factory=lambda: MappingProxyType({}))

    def entry(self, name: str) -> Entry:
        return Entry(
            name=name, kind=self.found.kind, path=self.found.source.path, workflow=self.workflow, error=self.error
        )


class Catalog:
    """The workflows of one project."""

    def __init__(
        self,
        root: Path,
        *,
        dialects: Sequence[Dialect] | None = None,
        import_timeout_s: float = 20.0,
        folders: Sequence[str] = WORKFLOW_FOLDERS,
        what: str = "workflow",
    ) -> None:
        """`folders` and `what` are for other kinds of files that are found and loaded in the same way."""
        self._home_names = tuple(folders)
        self._what = what
        self.root = Path(os.path.realpath(root))
        self._given_dialects = dialects
        self._import_timeout_s = import_timeout_s
        # Replaced, never changed in place: readers take no lock.
        self._slots: Mapping[str, _Slot] = {}
        self._served: Mapping[str, Workflow] = {}
        self._reserved: Mapping[str, Callable[[], Workflow]] = {}
        self._discovery: Discovery | None = None
        self._dialects: Sequence[Dialect] | None = None
        self._dialect_diagnostics: Sequence[Diagnostic] = ()
        #: The newest load of each name that has not come to an end.
        self._loads: dict[str, _Load] = {}
        self._lock = threading.Lock()

    def find(self, name: str) -> Workflow:
        """The newest version of a workflow that could be loaded; loads its file (and no other) at first use.

        Raises:
            WorkflowNotFound: no file has this name.
            WorkflowInvalid: the file is there but cannot be used.
        """
        workflow = self._served.get(name)
        return workflow if workflow is not None else self._find_unserved(name)

    @property
    def dialects(self) -> Sequence[Dialect]:
        """The kinds of file this catalog knows."""
        self._scan_once()
        return self._dialects or ()

    def names(self) -> list[str]:
        """The names there are, in order. Imports nothing."""
        self._scan_once()
        return sorted(self._slots)

    def entries(self) -> list[Entry]:
        """Every name with its workflow or what is wrong with it, in order of names. Loads what is not loaded yet."""
        self._scan_once()
        self._load([name for name, slot in sorted(self._slots.items()) if not slot.is_loaded])
        return [slot.entry(name) for name, slot in sorted(self._slots.items())]

    def diagnostics(self) -> list[Diagnostic]:
        """What the author should know: files left out, names given twice, and files found to be broken so far."""
        self._scan_once()
        found = self._discovery.diagnostics if self._discovery else ()
        errors = [slot.error for _, slot in sorted(self._slots.items()) if slot.error is not None]
        broken = [diagnostic for error in errors for diagnostic in _what_is_wrong(error)]
        return [*self._dialect_diagnostics, *found, *broken]

    def findings(self) -> list[Diagnostic]:
        """What their authors should look at in the files that are loaded and can be used."""
        found: list[Diagnostic] = []
        for _, slot in sorted(self._slots.items()):
            if isinstance(slot.workflow, HasFindings):
                path = shown_path(slot.workflow.path, self.root)
                found += [_at(path, finding) for finding in slot.workflow.findings]
        return found

    def refresh(self) -> bool:
        """Look at the files again and load all that is new or changed. Blocks. True if anything is different now.

        What loads quickly is served at once; the slow rest is waited for at the end, at most for the import timeout.
        """
        before = self._face()
        with self._lock:
            self._scan()
            stale = [name for name, slot in sorted(self._slots.items()) if self._is_stale(name, slot)]
        self._load(stale)
        return self._face() != before

    def folders(self) -> frozenset[Path]:
        """The folders in which a change may concern this catalog, those of imported project modules included."""
        self._scan_once()
        found = self._discovery.folders if self._discovery else frozenset[Path]()
        files = {path for slot in self._slots.values() for path in slot.states}
        homes = {self.root / folder for folder in ("", "src", *self._home_names)}
        every = {*found, *homes, *(path.parent for path in files)}
        # Where a missing folder would turn up is in the one above it.
        return frozenset(
            folder for folder in {*every, *(folder.parent for folder in every)} if self._is_watchable(folder)
        )

    def _is_watchable(self, folder: Path) -> bool:
        return folder.is_relative_to(self.root) and folder != self.root / STATE_FOLDER and folder.is_dir()

    def _find_unserved(self, name: str) -> Workflow:
        self._scan_once()
        if name in self._reserved:
            return self._reserved[name]()
        slot = self._slots.get(name)
        if slot is not None and not slot.is_loaded:
            self._load([name])
            slot = self._slots.get(name)
        if slot is not None and slot.workflow is not None:
            return slot.workflow
        if slot is not None and slot.error is not None:
            # A new instance: a raised one collects the tracebacks of everybody who asked.
            raise WorkflowInvalid(slot.error.path, slot.error.problem, line=slot.error.line, details=slot.error.details)
        raise WorkflowNotFound(name, self.names())

    def _scan_once(self) -> None:
        if self._discovery is None:
            with self._lock:
                if self._discovery is None:
                    self._scan()

    def _scan(self) -> None:
        """Look through the workflow folders. Loads nothing; names whose file is as before keep what is known."""
        if self._dialects is None:
            self._dialects = self._given_dialects
            if self._dialects is None:
                self._dialects, self._dialect_diagnostics = registered_dialects()
        discovery = discover(self.root, self._dialects, self._home_names, self._what)
        slots: dict[str, _Slot] = {}
        for name, found in discovery.found.items():
            known = self._slots.get(name)
            if found.error is not None:
                slots[name] = _Slot(found=found, is_loaded=True, error=found.error)
            elif known is not None and known.found == found:
                slots[name] = known
            else:
                slots[name] = _Slot(found=found)
        for name in self._loads.keys() - {name for name, slot in slots.items() if slot.found.error is None}:
            self._loads.pop(name).attempt.abandon()
        self._replace(slots)
        self._discovery = discovery

    def _is_stale(self, name: str, slot: _Slot) -> bool:
        """Whether a name has to be loaded (again)."""
        if slot.found.error is not None:
            return False
        load = self._loads.get(name)
        known = load.states if load is not None else slot.states
        if load is None and not slot.is_loaded:
            return True
        states = refresh_states(known)
        is_changed = not is_same(states, known)
        if load is None and not is_changed:
            self._put(name, dataclasses.replace(slot, states=states))
        return is_changed

    def _load(self, names: Sequence[str]) -> None:
        """Load some names and wait for them, each at most until its deadline."""
        slow: list[tuple[str, _Load]] = []
        for name in names:
            with self._lock:
                load = self._start(name)
            if load is None:
                continue
            if load.attempt.wait(PATIENCE_S):
                self._settle(name, load)
            else:
                slow.append((name, load))
                self._mark_slow(name, load)
        for name, load in slow:
            self._settle(name, load)

    def _start(self, name: str) -> _Load | None:
        slot = self._slots.get(name)
        if slot is None or slot.found.dialect is None:
            return None
        loader, source = slot.found.dialect.loader, slot.found.source
        earlier = self._loads.get(name)
        states = read_states({source.path, *_inputs(loader, source)})
        if earlier is not None:
            if is_same(earlier.states, states):
                return earlier
            earlier.attempt.abandon()
        elif slot.is_loaded and is_same(slot.states, states):
            return None  # somebody else has just loaded it
        attempt = Attempt(lambda: loader.load(source), name=name, timeout_s=self._import_timeout_s)
        load = self._loads[name] = _Load(attempt=attempt, states=states)
        return load

    def _settle(self, name: str, load: _Load) -> None:
        """Take over what a load came to, unless a newer one of the same name has begun."""
        workflow: Workflow | None = None
        error: WorkflowInvalid | None = None
        shown = shown_path(self._slots[name].found.source.path, self.root) if name in self._slots else name
        try:
            workflow = load.attempt.result()
        except WorkflowInvalid as invalid:
            error = invalid.with_traceback(None)
        except TimeoutError:
            problem = f"importing it took longer than {self._import_timeout_s:g} s; is there an endless loop in it?"
            error = WorkflowInvalid(shown, problem)
        except BaseException as other:  # noqa: BLE001  (foreign code: one file must not take the others with it)
            error = WorkflowInvalid(shown, f"loading it failed: {type(other).__name__}: {other}")
        with self._lock:
            slot = self._slots.get(name)
            if slot is None or self._loads.get(name) is not load:
                return
            del self._loads[name]
            newest = slot.workflow if workflow is None else workflow
            self._put(name, _Slot(found=slot.found, is_loaded=True, workflow=newest, error=error, states=load.states))

    def _mark_slow(self, name: str, load: _Load) -> None:
        """Let nobody else wait for a slow first load: until it ends, the name has an error that says so."""
        with self._lock:
            slot = self._slots.get(name)
            if slot is not None and slot.workflow is None and self._loads.get(name) is load:
                shown = shown_path(slot.found.source.path, self.root)
                error = WorkflowInvalid(shown, "it is still being imported; try again in a moment.")
                self._put(name, dataclasses.replace(slot, is_loaded=True, error=error))

    def _put(self, name: str, slot: _Slot) -> None:
        self._replace({**self._slots, name: slot})

    def _replace(self, slots: Mapping[str, _Slot]) -> None:
        self._slots = slots
        self._reserved = {name: make for dialect in self._dialects or () for name, make in dialect.reserved.items()}
        loaded = {name: slot.workflow for name, slot in slots.items() if slot.workflow is not None}
        self._served = {name: workflow for name, workflow in loaded.items() if name not in self._reserved}

    def _face(self) -> object:
        """Everything of this catalog that others can see."""
        shown = {name: (slot.workflow, str(slot.error)) for name, slot in self._slots.items()}
        return shown, self._discovery and self._discovery.diagnostics


@dataclass(frozen=True, slots=True, kw_only=True)
class _Load:
    """A load under way, and the files as they were when it began."""

    attempt: Attempt[Workflow]
    states: Mapping[Path, FileState]


def _what_is_wrong(error: WorkflowInvalid) -> list[Diagnostic]:
    """A diagnostic for each of the `problems` that a loader put into the details, else one with its sentence."""
    details: Any = error.details
    problems: Any = cast("Mapping[str, Any]", details).get("problems") if isinstance(details, Mapping) else None
    if not isinstance(problems, list) or not problems:
        return [Diagnostic(path=error.path, line=error.line, message=error.problem)]
    return [
        _at(
            error.path,
            Finding(
                message=problem["message"],
                level=Level(problem.get("level", Level.FATAL)),
                line=problem.get("line"),
                column=problem.get("column"),
                code=problem.get("code"),
            ),
        )
        for problem in cast("list[Mapping[str, Any]]", problems)
    ]


def _at(path: str, finding: Finding) -> Diagnostic:
    return Diagnostic(
        path=path,
        line=finding.line,
        column=finding.column,
        level=finding.level,
        code=finding.code,
        message=finding.message,
    )


def _inputs(loader: Loader, source: Source) -> Iterable[Path]:
    if not isinstance(loader, ReadsOtherFiles):
        return ()
    try:
        return loader.inputs(source)
    except Exception:  # noqa: BLE001  (foreign code; whatever is wrong with the file, loading it will say so)
        return ()
