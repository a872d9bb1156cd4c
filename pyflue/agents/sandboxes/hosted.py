"""What the local and the isolated sandbox share: the files of a host folder, without blocking the event loop.

How a command is run is all that makes them different.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ParamSpec, Protocol, TypeVar

from ...errors import SandboxRefused, SandboxUnavailable
from .folder import Folder
from .limits import SandboxLimits
from .paths import working_folder
from .port import WORKSPACE, CommandResult, FileChange, FileInfo, Match
from .processes import Order, run

P = ParamSpec("P")
T = TypeVar("T")


class Launcher(Protocol):
    """How a command becomes a process."""

    def order(
        self, argv: Sequence[str], *, env: Mapping[str, str], root_fd: int, cwd_fd: int, cwd: str
    ) -> tuple[Sequence[str], Mapping[str, str]]:
        """The process's own command line and environment. `cwd` is the path of its folder in the sandbox."""
        ...

    @property
    def shell(self) -> Sequence[str]:
        """What a command's text is put behind."""
        ...


class HostedSandbox:
    """A folder of this machine, and processes in it. Raises as `port.py` says."""

    #: The files are on the disk already.
    is_journaled = False

    def __init__(self, kind: str, root: Path, launcher: Launcher, *, cwd: str, limits: SandboxLimits | None) -> None:
        self.kind = kind
        self.cwd = working_folder(cwd)
        self._launcher = launcher
        self._limits = limits or SandboxLimits()
        self._folder = Folder(root, cwd=self.cwd, limits=self._limits)
        self._is_made = False
        self._is_closed = False

    @property
    def root(self) -> Path:
        """The folder of the host that is the workspace."""
        return self._folder.root

    async def exec(
        self,
        command: str | Sequence[str],
        *,
        timeout_s: float,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> CommandResult:
        argv = [*self._launcher.shell, command] if isinstance(command, str) else list(command)
        if not argv or any("\0" in part for part in [*argv, *(env or {}), *(env or {}).values()]):
            raise SandboxRefused("A command is at least one word, and holds no NUL character.", hint="Leave it out.")
        with await self._opened(cwd or self.cwd) as opened:
            line, environment = self._launcher.order(
                argv, env=env or {}, root_fd=opened.root_fd, cwd_fd=opened.cwd_fd, cwd=opened.cwd
            )
            return await run(
                Order(
                    argv=line,
                    env=environment,
                    cwd_fd=opened.cwd_fd,
                    pass_fds=(opened.root_fd,),
                    timeout_s=timeout_s,
                    limits=self._limits,
                )
            )

    async def _opened(self, cwd: str) -> _Opened:
        return await self._in_thread(_Opened, self._folder, cwd)

    async def read_bytes(self, path: str, *, limit_bytes: int | None = None) -> bytes:
        return await self._in_thread(self._folder.read_bytes, path, limit_bytes)

    async def write_bytes(self, path: str, data: bytes) -> None:
        await self._in_thread(self._folder.write_bytes, path, data)

    async def stat(self, path: str) -> FileInfo:
        return await self._in_thread(self._folder.stat, path)

    async def list_folder(self, path: str = ".") -> Sequence[FileInfo]:
        return await self._in_thread(self._folder.list_folder, path)

    async def mkdir(self, path: str, *, parents: bool = True) -> None:
        await self._in_thread(self._folder.mkdir, path, parents=parents)

    async def remove(self, path: str, *, recursive: bool = False) -> None:
        await self._in_thread(self._folder.remove, path, recursive=recursive)

    async def glob(self, pattern: str, *, limit: int = 1000) -> Sequence[str]:
        return await self._in_thread(self._folder.glob, pattern, limit)

    async def grep(
        self, pattern: str, *, path: str = ".", include: str | None = None, limit: int = 1000
    ) -> Sequence[Match]:
        return await self._in_thread(self._folder.grep, pattern, path, include, limit)

    async def take_changes(self) -> Sequence[FileChange]:
        return []

    async def apply(self, changes: Sequence[FileChange]) -> None:
        if changes:
            raise SandboxUnavailable(f"The files of a sandbox of kind {self.kind!r} are not kept in the journal.")

    async def close(self) -> None:
        self._is_closed = True

    async def _in_thread(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        if self._is_closed:
            raise SandboxUnavailable("The sandbox is closed.")
        return await asyncio.to_thread(self._made, call, *args, **kwargs)

    def _made(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Make the folder before its first use, in the thread that uses it."""
        if not self._is_made:
            self._folder.make()
            self._is_made = True
        return call(*args, **kwargs)


class _Opened:
    """Descriptors of the workspace and of the folder a command runs in, while it runs."""

    def __init__(self, folder: Folder, cwd: str) -> None:
        self.cwd_fd, self.cwd = folder.open_folder(cwd)
        try:
            self.root_fd, _ = folder.open_folder(WORKSPACE)
        except BaseException:
            folder.close_folder(self.cwd_fd)
            raise
        self._folder = folder

    def __enter__(self) -> _Opened:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.close_folder(self.cwd_fd)
        self._folder.close_folder(self.root_fd)
