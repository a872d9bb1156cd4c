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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, runtime_checkable

from ..engine import Workflow
from ..errors import WorkflowInvalid, WorkflowNotFound
from .attempts import Attempt
from .dialect import Dialect, Source
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
        self, root: Path, *, dialects: Sequence[Dialect] | None = None, import_timeout_s: float = 20.0
    ) -> None:
        self.root = Path(os.path.realpath(root))
        self._given_dialects = dialects
        self._import_timeout_s = import_timeout_s
        self._dialects: Sequence[Dialect] | None = None
        self._dialect_diagnostics: Sequence[Diagnostic] = ()
        self._discovery: Discovery | None = None
        self._slots: dict[str, _Slot] = {}
        self._served: dict[str, Workflow] = {}
        self._loading = threading.RLock()

    def find(self, name: str) -> Workflow:
        """The newest version of a workflow that could be loaded; loads its file (and no other) at first use.

        Raises:
            WorkflowNotFound: no file has this name.
            WorkflowInvalid: the file is there but cannot be used.
        """
        workflow = self._served.get(name)
        if workflow is not None:
            return workflow
        self._scan_once()
        slot = self._slots.get(name)
        if slot is not None and not slot.is_loaded:
            with self._loading:
                slot = self._slots.get(name)
                if slot is not None and not slot.is_loaded:
                    slot = self._publish(name, self._result_of(slot, self._start(slot)))
        if slot is None:
            raise WorkflowNotFound(name, self.names())
        if slot.workflow is None:
            raise _again(slot)
        return slot.workflow

    def names(self) -> list[str]:
        """The names there are, in order. Imports nothing."""
        self._scan_once()
        return sorted(self._slots)

    def entries(self) -> list[Entry]:
        """Every name with its workflow or what is wrong with it, in order of names. Loads what is not loaded yet."""
        self._scan_once()
        if not all(slot.is_loaded for slot in self._slots.values()):
            with self._loading:
                self._load({name: slot for name, slot in self._slots.items() if not slot.is_loaded})
        return [slot.entry(name) for name, slot in sorted(self._slots.items())]

    def diagnostics(self) -> list[Diagnostic]:
        """What the author should know: files left out, names given twice, and files found to be broken so far."""
        self._scan_once()
        found = self._discovery.diagnostics if self._discovery else ()
        broken = [
            Diagnostic(path=slot.error.path, line=slot.error.line, message=slot.error.problem)
            for _, slot in sorted(self._slots.items())
            if slot.error is not None
        ]
        return [*self._dialect_diagnostics, *found, *broken]

    def refresh(self) -> bool:
        """Look at the files again and load all that is new or changed. Blocks. True if anything is different now."""
        with self._loading:
            before = (self._slots, self._discovery)
            discovery = self._scan()
            slots: dict[str, _Slot] = {}
            stale: dict[str, _Slot] = {}
            for name, found in discovery.found.items():
                slot = self._slots.get(name)
                if slot is None or slot.found.error or found.error or slot.found.source != found.source:
                    slot = _Slot(found=found)
                states = refresh_states(slot.states)
                if slot.is_loaded and is_same(states, slot.states):
                    slots[name] = dataclasses.replace(slot, states=states)
                else:
                    stale[name] = slot
                    if slot.is_loaded:
                        slots[name] = slot  # served as it is until the new version is there
            self._replace(slots, discovery)
            loaded = self._load(stale)
            gone = before[0].keys() - discovery.found.keys()
            is_first = before[1] is None
            return bool(loaded or gone or is_first or before[1].diagnostics != discovery.diagnostics)
