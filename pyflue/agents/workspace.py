"""The files an agent works with in one run: its sandbox, kept in step with what the journal holds of it.

The sandbox is made when something first needs it. One in memory is journaled: what a call changed is recorded together
with the call, and when the run is replayed the changes are made again as the recorded calls are asked for. A sandbox on
the host keeps its files itself. Calls that change something take their turns, so each one's changes are its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from ..journal import FileRecord, FileVersion
from .conversation import SKIPPED, keys_above
from .sandboxes.port import FileChange, Sandbox

if TYPE_CHECKING:
    from .file_tools import BuiltinTool


class Workspace:
    """One harness's sandbox in one run; sessions and tasks of the harness share it."""

    def __init__(
        self,
        name: str,
        make: Callable[[], Awaitable[Sandbox]],
        read_versions: Callable[[str], Awaitable[Sequence[FileVersion]]] | None,
        *,
        run_id: str,
        given: Mapping[str, str],
    ) -> None:
        """`read_versions` reads what the journal holds of a workspace; None if that is nothing.

        `given` holds the keys of the durable calls that gave back what they gave, in their order, with their kinds.
        """
        #: Its name in the journal.
        self.name = name
        self._make = make
        self._read_versions = read_versions
        self._run_id = run_id
        self._sandbox: Sandbox | None = None
        self._opening = asyncio.Lock()
        self._turn = asyncio.Lock()
        self._recorded: deque[FileVersion] = deque()
        #: The position of the last change that was made by a call, and inside of one.
        self._made_by: dict[str, int] = {}
        self._made_in: dict[str, int] = {}
        self._given = given
        self._given_seen = 0
        self._replayed_to = 0
        self._is_past = False
        self._is_closed = False
        #: The built-in tools that were used on it, by what they may do; see `toolbox.shared_builtins`.
        self.builtins: dict[object, Mapping[str, BuiltinTool]] = {}

    def late(self, kind: str) -> Sandbox:
        """The sandbox, to be made when it is first asked for something; `kind` is what it will be."""
        return cast("Sandbox", _Late(self, kind))

    async def sandbox(self) -> Sandbox:
        """The sandbox, with the files it has at this point of the run.

        Raises:
            SandboxUnavailable: it cannot be made here.
        """
        if self._sandbox is None:
            async with self._opening:
                if self._sandbox is None:
                    self._sandbox = await self._open()
        await self._catch_up()
        return self._sandbox

    async def _open(self) -> Sandbox:
        sandbox = await self._make()
        if sandbox.is_journaled and self._read_versions is not None:
            earlier: list[FileChange] = []
            for version in await self._read_versions(self.name):
                if version.run_id == self._run_id:
                    self._remember(version)
                else:
                    # What other runs left in it is there from the beginning.
                    earlier.append(_change(version.file))
            if earlier:
                await sandbox.apply(earlier)
        return sandbox

    def _remember(self, version: FileVersion) -> None:
        self._recorded.append(version)
        self._made_by[version.step_key] = version.position
        for key in keys_above(version.step_key):
            self._made_in[key] = version.position

    def go_on(self) -> None:
        """From now on something new is done: whatever was recorded has been done before."""
        self._is_past = True

    async def _catch_up(self) -> None:
        recorded = self._recorded
        if not recorded or self._sandbox is None:
            return
        for key in list(itertools.islice(self._given, self._given_seen, None)):
            made = self._made_by.get(key, 0)
            if self._given[key] in SKIPPED:
                made = max(made, self._made_in.get(key, 0))
            self._replayed_to = max(self._replayed_to, made)
        self._given_seen = len(self._given)
        changes: list[FileChange] = []
        while recorded and (self._is_past or recorded[0].position <= self._replayed_to):
            changes.append(_change(recorded.popleft().file))
        if changes:
            await self._sandbox.apply(changes)

    @contextlib.asynccontextmanager
    async def changing(self) -> AsyncGenerator[None]:
        """While inside, nothing else changes the files. Record what was `taken` before leaving."""
        async with self._turn:
            self.go_on()
            yield

    async def taken(self) -> Sequence[FileRecord]:
        """What has changed since this was last asked, to be recorded."""
        if self._sandbox is None:
            return ()
        return [_record(self.name, change) for change in await self._sandbox.take_changes()]

    async def close(self) -> None:
        """Let the sandbox go."""
        self.builtins.clear()  # they hold it: nothing would free the two but a collection
        if self._sandbox is not None and not self._is_closed:
            self._is_closed = True
            await self._sandbox.close()


class Nature:
    """What a sandbox of a built-in kind is, before there is one."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.is_journaled = kind == "virtual"
        #: Without a factory that opens it, only the policy can.
        self.reaches_out = kind != "virtual"


class _Late(Nature):
    """A sandbox of a built-in kind that need not be there yet. All methods of the port are async."""

    def __init__(self, workspace: Workspace, kind: str) -> None:
        super().__init__(kind)
        self._workspace = workspace

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def ask(*args: Any, **kwargs: Any) -> Any:
            return await getattr(await self._workspace.sandbox(), name)(*args, **kwargs)

        return ask


def _change(file: FileRecord) -> FileChange:
    return FileChange(path=file.path, is_gone=file.is_gone, data=file.data, target=file.target, mode=file.mode)


def _record(workspace: str, change: FileChange) -> FileRecord:
    return FileRecord(
        workspace=workspace,
        path=change.path,
        is_gone=change.is_gone,
        data=change.data,
        target=change.target,
        mode=change.mode,
    )
