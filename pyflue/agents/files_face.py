"""`harness.fs`: the agent's files, for the workflow. Always allowed, and never part of a conversation.

What changes something is a durable call: done once, recorded with the files it changed. Reading a journaled sandbox
gives what was there at that point of the run, also when it is replayed; what is read from a host's folder is recorded.
"""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from .. import codec
from ..clock import rfc3339
from ..codec import Raw
from ..engine import raised, values
from ..engine.calls import Call, Calls
from ..journal import Attached, EventType, NewEvent, NewStep, Step, StepStatus
from .sandboxes.port import FileInfo, Sandbox
from .workspace import Workspace

if TYPE_CHECKING:
    from .harness import Harness

T = TypeVar("T")


class Files:
    """The files of one harness.

    Raises (all methods): FileNotFoundError, IsADirectoryError, NotADirectoryError, FileExistsError; SandboxRefused.
    """

    def __init__(self, harness: Harness, workspace: Workspace) -> None:
        self._harness = harness
        self._workspace = workspace

    def read_file(self, path: str) -> Coroutine[Any, Any, str]:
        """A file's text, UTF-8; what is not is replaced by `\\ufffd`."""

        async def read(sandbox: Sandbox) -> str:
            return (await sandbox.read_bytes(path)).decode(errors="replace")

        return self._read("fs.read_file", [path], read, _same, _same)

    def read_bytes(self, path: str) -> Coroutine[Any, Any, bytes]:
        """A file's content."""

        async def read(sandbox: Sandbox) -> bytes:
            return await sandbox.read_bytes(path)

        return self._read("fs.read_bytes", [path], read, lambda data: base64.b64encode(data).decode(), base64.b64decode)

    def stat(self, path: str) -> Coroutine[Any, Any, FileInfo]:
        """What is at a path."""

        async def read(sandbox: Sandbox) -> FileInfo:
            return await sandbox.stat(path)

        return self._read("fs.stat", [path], read, _info_told, _info_of)

    def exists(self, path: str) -> Coroutine[Any, Any, bool]:
        """Whether anything is at a path."""

        async def read(sandbox: Sandbox) -> bool:
            try:
                await sandbox.stat(path)
            except (FileNotFoundError, NotADirectoryError):
                return False
            return True

        return self._read("fs.exists", [path], read, _same, _same)

    def readdir(self, path: str = ".") -> Coroutine[Any, Any, list[str]]:
        """The names in a folder, sorted."""

        async def read(sandbox: Sandbox) -> list[str]:
            return [info.path.rpartition("/")[2] for info in await sandbox.list_folder(path)]

        return self._read("fs.readdir", [path], read, _same, _same)

    def write_file(self, path: str, content: str | bytes) -> Coroutine[Any, Any, None]:
        """Write a file, and the folders above it."""
        data = content.encode() if isinstance(content, str) else bytes(content)

        async def change(sandbox: Sandbox) -> None:
            await sandbox.write_bytes(path, data)

        return self._change("fs.write_file", [path, values.digest(data)], change)

    def mkdir(self, path: str, *, recursive: bool = True) -> Coroutine[Any, Any, None]:
        """Make a folder."""

        async def change(sandbox: Sandbox) -> None:
            await sandbox.mkdir(path, parents=recursive)

        return self._change("fs.mkdir", [path, recursive], change)

    def rm(self, path: str, *, recursive: bool = False, force: bool = False) -> Coroutine[Any, Any, None]:
        """Delete a file, or a folder (a full one if `recursive`). With `force` it may be gone already."""

        async def change(sandbox: Sandbox) -> None:
            try:
                await sandbox.remove(path, recursive=recursive)
            except FileNotFoundError:
                if not force:
                    raise

        return self._change("fs.rm", [path, recursive, force], change)

    def _read(
        self,
        name: str,
        args: Sequence[Any],
        read: Callable[[Sandbox], Awaitable[T]],
        told: Callable[[T], Any],
        back: Callable[[Any], T],
    ) -> Coroutine[Any, Any, T]:
        call = self._calls.begin(name, "fs")
        return self._do_read(call, values.digest(codec.encode([name, *args])), read, told, back)

    def _change(
        self, name: str, args: Sequence[Any], change: Callable[[Sandbox], Awaitable[None]]
    ) -> Coroutine[Any, Any, None]:
        call = self._calls.begin(name, "fs")
        return self._do_change(call, values.digest(codec.encode([name, *args])), change)

    @property
    def _calls(self) -> Calls:
        return self._harness.calls

    async def _do_read(
        self,
        call: Call,
        digest: str,
        read: Callable[[Sandbox], Awaitable[T]],
        told: Callable[[T], Any],
        back: Callable[[Any], T],
    ) -> T:
        record = self._calls.recorded(call, digest)
        if isinstance(record, Step):
            if record.status is StepStatus.FAILED and record.error is not None:
                raise raised.raise_again(record.error, call.key, read)
            return back(codec.load(record.value or codec.NULL))
        sandbox = await self._workspace.sandbox()
        if sandbox.is_journaled:
            return await read(sandbox)
        await self._calls.ready()
        try:
            value = await read(sandbox)
        except OSError as error:
            self._note(call, digest, error=raised.record_of(error, self._calls.root))
            raise
        self._note(call, digest, value=Raw(codec.encode(told(value))))
        return value

    async def _do_change(self, call: Call, digest: str, change: Callable[[Sandbox], Awaitable[None]]) -> None:
        calls = self._calls
        record = calls.recorded(call, digest)
        if isinstance(record, Step):
            if record.status is StepStatus.FAILED and record.error is not None:
                raise raised.raise_again(record.error, call.key, change)
            return
        with calls.parking.calling():
            await calls.ready()
            await calls.settle()
            async with self._workspace.changing():
                try:
                    await change(await self._workspace.sandbox())
                except OSError as error:
                    step = self._step(call, digest, error=raised.record_of(error, calls.root))
                    await calls.record(step, self._told(step))
                    raise
                attached = Attached(files=await self._workspace.taken())
                step = self._step(call, digest, value=codec.NULL)
                await calls.record(step, self._told(step), attached=attached)

    def _note(self, call: Call, digest: str, *, value: Raw | None = None, error: Raw | None = None) -> None:
        step = self._step(call, digest, value=value, error=error)
        self._calls.record_soon(step, self._told(step))

    def _told(self, step: NewStep) -> NewEvent:
        # Also so that each record has an index of its own, by which a fork knows what came before what.
        told = {"step": step.key, "name": step.name, "kind": step.kind, "status": step.status.value, "attempts": 1}
        return self._calls.event(EventType.STEP_END, told)

    def _step(self, call: Call, digest: str, *, value: Raw | None = None, error: Raw | None = None) -> NewStep:
        return NewStep(
            key=call.key,
            kind="fs",
            name=call.name,
            position=call.position,
            status=StepStatus.FAILED if error is not None else StepStatus.COMPLETED,
            input_digest=digest,
            value=value,
            error=error,
            started_us=self._calls.clock.now_us(),
            started_index=self._calls.index,
        )


def _same(value: Any) -> Any:
    return value


def _info_told(info: FileInfo) -> dict[str, Any]:
    return {
        "path": info.path,
        "is_file": info.is_file,
        "is_folder": info.is_folder,
        "is_link": info.is_link,
        "size_bytes": info.size_bytes,
        "modified_at": None if info.modified_at is None else rfc3339(info.modified_at),
        "mode": info.mode,
    }


def _info_of(told: Any) -> FileInfo:
    at = told["modified_at"]
    modified_at = None if at is None else datetime.fromisoformat(at)
    return FileInfo(
        path=told["path"],
        is_file=told["is_file"],
        is_folder=told["is_folder"],
        is_link=told["is_link"],
        size_bytes=told["size_bytes"],
        modified_at=modified_at,
        mode=told["mode"],
    )
