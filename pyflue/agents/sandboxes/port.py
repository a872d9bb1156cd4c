"""The sandbox port: the files and the shell an agent works with, wherever they are.

`virtual.py` keeps them in memory, `local.py` in a folder of the host, `isolated.py` in a folder behind namespaces. The
harness and the built-in tools use this port; what a *model* may do with it is decided above, by `policy.py`.

Paths are text with `/`. A relative one counts from the sandbox's `cwd`; an absolute one is a path inside of the
sandbox, whose workspace is `/workspace`. Nothing outside is ever read, written or told of, whatever a path, a link or
a command says. `tests/contracts/test_sandboxes.py` is the exact contract; every adapter passes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

#: Where an agent's files are, in every sandbox.
WORKSPACE = "/workspace"


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandResult:
    """What a command did. Output above the limit is cut in the middle, and `is_truncated` says so."""

    stdout: str
    stderr: str
    exit_code: int
    is_truncated: bool = False
    #: It was stopped because its time was over; `exit_code` is 124 then.
    is_timed_out: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FileInfo:
    """A file, folder or link."""

    path: str
    is_file: bool
    is_folder: bool
    is_link: bool
    size_bytes: int
    modified_at: datetime | None
    #: Permission bits.
    mode: int = 0o644


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A line that `grep` found. Lines count from 1."""

    path: str
    line: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FileChange:
    """What became of one path: the file, folder or link that is there now, or that nothing is.

    `data` is the content of a file, `target` that of a link; neither is set for a folder.
    """

    path: str
    is_gone: bool = False
    data: bytes | None = None
    target: str | None = None
    mode: int = 0o644


class Sandbox(Protocol):
    """Files and a shell. One call that changes something at a time; whoever shares a sandbox sees to that.

    Raises (all file methods): FileNotFoundError, IsADirectoryError, NotADirectoryError, FileExistsError: as they mean
    elsewhere; SandboxRefused: the path leads out, or is nothing a tool may open (a device, a pipe); TooLarge.
    """

    @property
    def kind(self) -> str:
        """`virtual`, `local`, `isolated`, or the name of a plugged-in one."""
        ...

    @property
    def cwd(self) -> str:
        """The folder that relative paths count from."""
        ...

    @property
    def is_journaled(self) -> bool:
        """Whether its files live in the journal: `take_changes` reports them, and `apply` brings them back."""
        ...

    async def exec(
        self,
        command: str | Sequence[str],
        *,
        timeout_s: float,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> CommandResult:
        """Run a command: text is for the shell, a sequence is run as it is, without one.

        `env` is all it sees, besides what the sandbox itself sets (`PATH`, `HOME`, …): nothing of the host's own.
        Returns within `timeout_s` and 2 s, with no process of it left; cancelling it ends the command likewise.

        Raises:
            SandboxUnavailable: there is no shell here.
        """
        ...

    async def read_bytes(self, path: str, *, limit_bytes: int | None = None) -> bytes:
        """A file's content; with a limit, no more of it than that."""
        ...

    async def write_bytes(self, path: str, data: bytes) -> None:
        """Write a file, folders above it included. Replaces it as a whole."""
        ...

    async def stat(self, path: str) -> FileInfo:
        """What is at a path, links not followed."""
        ...

    async def list_folder(self, path: str = ".") -> Sequence[FileInfo]:
        """What is in a folder, sorted by name."""
        ...

    async def mkdir(self, path: str, *, parents: bool = True) -> None:
        """Make a folder. With `parents` it may be there already."""
        ...

    async def remove(self, path: str, *, recursive: bool = False) -> None:
        """Delete a file, a link (not what it leads to), or a folder; a full one only if `recursive`."""
        ...

    async def glob(self, pattern: str, *, limit: int = 1000) -> Sequence[str]:
        """Paths of files below `cwd` that a pattern fits (`*`, `?`, `[…]`, `**`), sorted, `limit` at most."""
        ...

    async def grep(
        self, pattern: str, *, path: str = ".", include: str | None = None, limit: int = 1000
    ) -> Sequence[Match]:
        """Lines that a regular expression is found in, in files (whose name fits `include`) below a path.

        Binary files are passed over.

        Raises:
            ValueError: not a regular expression. TimeoutError: it took longer than 2 s.
        """
        ...

    async def take_changes(self) -> Sequence[FileChange]:
        """What has changed since this was last asked (or `apply` was called), folders before what is in them.

        Always empty unless `is_journaled`.
        """
        ...

    async def apply(self, changes: Sequence[FileChange]) -> None:
        """Make changes that were taken before; they count as seen."""
        ...

    async def close(self) -> None:
        """Let go of everything. A host's folder stays, the files in memory go."""
        ...
