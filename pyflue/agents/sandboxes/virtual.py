"""The virtual sandbox: an in-memory bash and file system, with no process of the host and nothing of its files.

Made by `factory.py`. bashkit does the work; each command gets an interpreter of its own over the same two file
systems, `/workspace` and `/tmp`, so nothing but files lasts from one command to the next, as after a restart. Both are
journaled: `take_changes` tells what is new by the stamps of files, `apply` brings it back.

Limits of bashkit: files of 10 MB, 100 MB and 10,000 files for each of the two, no names with control characters.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import shlex
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from ...errors import SandboxRefused, SandboxUnavailable, TooLarge
from .limits import SandboxLimits
from .paths import escaping, fits, joined, name_pattern, parts_of, pattern_parts, refused, relative, working_folder
from .port import WORKSPACE, CommandResult, FileChange, FileInfo, Match
from .searching import search

if TYPE_CHECKING:
    from bashkit import Bash, BuiltinContext, BuiltinResult, FileSystem

#: What a command of an agent's own gives back: its output, or output, error output and exit code.
CommandOutcome: TypeAlias = str | tuple[str, str, int] | None
#: Such a command: gets its arguments and its standard input.
Command: TypeAlias = Callable[[list[str], str], CommandOutcome | Awaitable[CommandOutcome]]

_TMP = "/tmp"  # noqa: S108  (a name in the virtual file system)
_TOPS = (WORKSPACE, _TMP)
_MOST_LINKS = 40
#: `jq` is the one command that only its own deadline stops, so it gets a short one.
_JQ_S = 1.5
#: How long is waited for an interpreter that was told to stop.
_STOP_S = 2.0
#: Above this many bytes a copy is made in a thread.
_LARGE_BYTES = 1024 * 1024
_MANY_FILES = 500
_MOST_COMMANDS = 1_000_000
_CUT = "\n[the rest was left out]\n"
_LINK, _FOLDER, _FILE = "symlink", "directory", "file"


@dataclass(frozen=True, slots=True)
class _Stamp:
    """What is known of a path without its content.

    `created` is what makes it a proof: bashkit sets it anew whenever a file is overwritten, and nothing in the sandbox
    can set it. So a file with the same stamp has the same content, whatever `touch` says.
    """

    type: str
    size: int
    mode: int
    modified: float
    created: float


class VirtualSandbox:
    """Files in memory, and a bash that is a library. Raises as `port.py` says."""

    kind = "virtual"
    is_journaled = True

    def __init__(
        self,
        *,
        cwd: str = WORKSPACE,
        env: Mapping[str, str] | None = None,
        commands: Mapping[str, Command] | None = None,
        network: bool | Sequence[str] = False,
        limits: SandboxLimits | None = None,
    ) -> None:
        """`network` is whether commands may make requests, or to which addresses they may (`https://example.com`)."""
        self.cwd = working_folder(cwd)
        self._env = dict(env or {})
        self._commands = dict(commands or {})
        self._network = network
        self._limits = limits or SandboxLimits()
        self._files = {top: _new_files() for top in _TOPS}
        self._seen: dict[str, _Stamp] = {}
        self._digests: dict[str, bytes] = {}
        #: Paths that file methods have changed since the last look; `_look_everywhere` after anything less certain.
        self._touched: set[str] = set()
        self._look_everywhere = False
        self._is_closed = False
        if self.cwd != WORKSPACE:
            self._files[WORKSPACE].mkdir(self.cwd[len(WORKSPACE) :], True)
            self._look_everywhere = True

    @property
    def reaches_out(self) -> bool:
        """Whether its commands can do more than change its files: reach the network, or run functions of the host."""
        return self._network is not False or bool(self._commands)

    # --- commands

    async def exec(
        self,
        command: str | Sequence[str],
        *,
        timeout_s: float,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> CommandResult:
        text = command if isinstance(command, str) else shlex.join(command)
        if "\0" in text:
            raise SandboxRefused("A command cannot hold a NUL character.", hint="Leave it out.")
        folder = self._folder(cwd)
        outputs = _Outputs(self._limits.output_bytes)
        bash = self._bash(folder, {**self._env, **(env or {})}, timeout_s)
        self._look_everywhere = True
        try:
            result = await bash.execute(text, outputs.add)
        except asyncio.CancelledError:
            bash.cancel()
            await _stopped(bash)
            raise
        finally:
            lost = self._repair()
        if result.error is not None and "execution timeout" in result.error:
            # What was said until then is only known from the parts as they came.
            return CommandResult(
                stdout=outputs.stdout,
                stderr=f"{outputs.stderr}The command was stopped after {timeout_s:g} s.\n",
                exit_code=124,
                is_truncated=outputs.is_cut,
                is_timed_out=True,
            )
        stderr = result.stderr
        if result.error is not None and result.error not in stderr:
            stderr = f"{stderr}{result.error}\n"
        limit = self._limits.output_bytes
        stdout, is_stdout_cut = _kept(result.stdout, limit, is_cut=result.stdout_truncated)
        stderr, is_stderr_cut = _kept(stderr, limit, is_cut=result.stderr_truncated)
        return CommandResult(
            stdout=stdout,
            stderr=stderr + lost,
            exit_code=result.exit_code,
            is_truncated=is_stdout_cut or is_stderr_cut,
        )

    def _bash(self, folder: str, env: Mapping[str, str], timeout_s: float) -> Bash:
        if self._is_closed:
            raise SandboxUnavailable("The sandbox is closed.")
        from bashkit import Bash

        commands: dict[str, Callable[[BuiltinContext], Awaitable[str | BuiltinResult]]] = {"jq": self._jq}
        for name, run in self._commands.items():
            commands[name] = _adapted(run)
        bash = Bash(
            username="agent",
            hostname="sandbox",
            cwd=folder,
            env={"HOME": WORKSPACE, "USER": "agent", "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", **env},
            max_commands=_MOST_COMMANDS,
            max_loop_iterations=_MOST_COMMANDS,
            timeout_seconds=timeout_s,
            custom_builtins=commands,
            **self._network_arguments(),
        )
        self._mount(bash)
        return bash

    def _mount(self, bash: Bash) -> None:
        for top, files in self._files.items():
            bash.mount(top, files)

    def _network_arguments(self) -> dict[str, Any]:
        if self._network is False:
            return {}
        if self._network is True:
            # Addresses of private networks stay closed: what a model writes must not reach what only this host can.
            return {"network": {"allow_all": True, "block_private_ips": True}}
        return {"network": {"allow": list(self._network), "block_private_ips": True}}

    async def _jq(self, context: BuiltinContext) -> BuiltinResult:
        """Run bashkit's `jq` in an interpreter of its own, for the sake of its deadline."""
        from bashkit import Bash, BuiltinResult

        given = context.stdin
        bash = Bash(
            cwd=context.cwd,
            env=dict(context.env),
            timeout_seconds=_JQ_S,
            custom_builtins={"__given": lambda _: given or ""},
        )
        self._mount(bash)
        call = shlex.join(["jq", *context.argv])
        result = await bash.execute(call if given is None else f"__given | {call}")
        if result.error is not None:
            return BuiltinResult(result.stdout, f"jq: {result.error}\n", 5)
        return BuiltinResult(result.stdout, result.stderr, result.exit_code)

    def _folder(self, cwd: str | None) -> str:
        place = self._place(cwd or self.cwd, follow=True)
        if place.stamp is None:
            raise FileNotFoundError(f"There is no folder {cwd or self.cwd}.")
        if place.stamp.type != _FOLDER:
            raise NotADirectoryError(f"{cwd or self.cwd} is not a folder.")
        return place.path

    def _repair(self) -> str:
        """Make the tops again if a command has deleted one, which leaves bashkit without a root for it."""
        lost = [top for top, files in self._files.items() if not files.exists("/")]
        for top in lost:
            self._files[top] = _new_files()
        return "".join(f"{top} itself was deleted; it is there again, and empty.\n" for top in lost)

    # --- files

    async def read_bytes(self, path: str, *, limit_bytes: int | None = None) -> bytes:
        place = self._existing(path, follow=True)
        stamp = place.stamp
        if stamp is None or stamp.type == _FOLDER:
            raise IsADirectoryError(f"{path} is a folder.")
        if stamp.type != _FILE:
            raise refused(path, "is neither a file nor a folder")
        if limit_bytes is None and stamp.size > self._limits.file_bytes:
            raise TooLarge(f"The file {path}", stamp.size, self._limits.file_bytes, "sandbox.file_bytes")
        if stamp.size > _LARGE_BYTES:
            data = await asyncio.to_thread(_call, path, place.files.read_file, place.inner)
        else:
            data = _call(path, place.files.read_file, place.inner)
        return data if limit_bytes is None else data[:limit_bytes]

    async def write_bytes(self, path: str, data: bytes) -> None:
        if len(data) > self._limits.file_bytes:
            raise TooLarge(f"The file {path}", len(data), self._limits.file_bytes, "sandbox.file_bytes")
        place = self._place(path, follow=True, make_parents=True)
        if place.stamp is not None and place.stamp.type == _FOLDER:
            raise IsADirectoryError(f"{path} is a folder.")
        if place.stamp is not None and place.stamp.type != _FILE:
            raise refused(path, "is neither a file nor a folder")
        self._touched.add(place.path)
        if len(data) > _LARGE_BYTES:
            await asyncio.to_thread(_call, path, place.files.write_file, place.inner, data)
        else:
            _call(path, place.files.write_file, place.inner, data)
        if place.stamp is not None:
            _call(path, place.files.chmod, place.inner, place.stamp.mode)

    async def stat(self, path: str) -> FileInfo:
        place = self._existing(path, follow=False)
        if place.stamp is None:
            return FileInfo(
                path=place.path,
                is_file=False,
                is_folder=True,
                is_link=False,
                size_bytes=0,
                modified_at=None,
                mode=0o755,
            )
        return _info(place.path, place.stamp)

    async def list_folder(self, path: str = ".") -> Sequence[FileInfo]:
        place = self._existing(path, follow=True)
        if place.stamp is not None and place.stamp.type != _FOLDER:
            raise NotADirectoryError(f"{path} is not a folder.")
        entries = _entries(place.files, place.inner)
        return [_info(f"{place.path}/{name}", stamp) for name, stamp in entries]

    async def mkdir(self, path: str, *, parents: bool = True) -> None:
        place = self._place(path, follow=True, make_parents=parents)
        if place.inner == "/":
            if not parents:
                raise FileExistsError(f"{path} is there already.")
            return
        if place.stamp is not None:
            if parents and place.stamp.type == _FOLDER:
                return
            raise FileExistsError(f"{path} is there already.")
        self._touched.add(place.path)
        _call(path, place.files.mkdir, place.inner)

    async def remove(self, path: str, *, recursive: bool = False) -> None:
        place = self._existing(path, follow=False)
        if place.inner == "/":
            raise refused(path, "is the workspace itself", "Remove what is in it.")
        is_folder = place.stamp is not None and place.stamp.type == _FOLDER
        if is_folder and not recursive and _entries(place.files, place.inner):
            raise OSError(39, "The folder is not empty", path)  # ENOTEMPTY
        self._look_everywhere = self._look_everywhere or is_folder
        self._touched.add(place.path)
        _call(path, place.files.remove, place.inner, is_folder)

    async def glob(self, pattern: str, *, limit: int = 1000) -> Sequence[str]:
        parts = pattern_parts(pattern, cwd=self.cwd)
        found = [
            shown
            for path, stamp in self._below(self.cwd)
            if stamp.type == _FILE and fits(shown := relative(path, self.cwd), parts)
        ]
        return sorted(found)[:limit]

    async def grep(
        self, pattern: str, *, path: str = ".", include: str | None = None, limit: int = 1000
    ) -> Sequence[Match]:
        place = self._existing(path, follow=True)
        if place.stamp is not None and place.stamp.type not in (_FILE, _FOLDER):
            raise refused(path, "is neither a file nor a folder")
        return await asyncio.to_thread(search, pattern, self._searched(place, include), limit)

    def _searched(self, place: _Place, include: str | None) -> Iterator[tuple[str, bytes]]:
        wanted = None if include is None else name_pattern(include)
        if place.stamp is not None and place.stamp.type == _FILE:
            found: Iterator[tuple[str, _Stamp]] = iter([(place.path, place.stamp)])
        else:
            found = iter(sorted(self._below(place.path)))
        for path, stamp in found:
            if stamp.type == _FILE and (wanted is None or wanted.match(path.rpartition("/")[2])):
                top, inner = _split(path)
                try:
                    yield relative(path, self.cwd), self._files[top].read_file(inner)
                except RuntimeError:
                    continue  # deleted meanwhile

    # --- the journal

    async def take_changes(self) -> Sequence[FileChange]:
        if self._look_everywhere:
            if len(self._seen) > _MANY_FILES:
                changes, now = await asyncio.to_thread(self._compare)
            else:
                changes, now = self._compare()
            self._seen = now
        elif self._touched:
            changes = self._compare_touched()
        else:
            return []
        self._look_everywhere = False
        self._touched.clear()
        return changes

    def _compare(self) -> tuple[list[FileChange], dict[str, _Stamp]]:
        now = {path: stamp for top in _TOPS for path, stamp in self._below(top)}
        gone = [path for path in self._seen if path not in now]
        for path in gone:
            self._digests.pop(path, None)
        changes = [FileChange(path=path, is_gone=True) for path in sorted(gone, reverse=True)]
        for path in sorted(now):
            change = self._change(path, now[path])
            if change is not None:
                changes.append(change)
        return changes, now

    def _compare_touched(self) -> list[FileChange]:
        gone: list[FileChange] = []
        changes: list[FileChange] = []
        for path in sorted(self._touched):
            top, inner = _split(path)
            stamp = _stamp(self._files[top], inner)
            if stamp is None:
                if self._seen.pop(path, None) is not None:
                    self._digests.pop(path, None)
                    gone.append(FileChange(path=path, is_gone=True))
                continue
            change = self._change(path, stamp)
            if change is not None:
                changes.append(change)
            self._seen[path] = stamp
        return [*reversed(gone), *changes]

    def _change(self, path: str, stamp: _Stamp) -> FileChange | None:
        """What to tell of a path that is there; nothing if it is as it was."""
        before = self._seen.get(path)
        if before == stamp or stamp.type not in (_FILE, _FOLDER, _LINK):
            return None
        is_same = before is not None and (before.type, before.mode) == (stamp.type, stamp.mode)
        top, inner = _split(path)
        files = self._files[top]
        if stamp.type == _FOLDER:
            return None if is_same else FileChange(path=path, mode=stamp.mode)
        if stamp.type == _LINK:
            target = files.read_link(inner)
            digest = hashlib.blake2b(target.encode(), digest_size=16).digest()
            is_known = self._digests.get(path) == digest
            self._digests[path] = digest
            return None if is_same and is_known else FileChange(path=path, target=target, mode=stamp.mode)
        data = files.read_file(inner)
        digest = hashlib.blake2b(data, digest_size=16).digest()
        is_known = self._digests.get(path) == digest
        self._digests[path] = digest
        return None if is_same and is_known else FileChange(path=path, data=data, mode=stamp.mode)

    async def apply(self, changes: Sequence[FileChange]) -> None:
        if sum(len(change.data or b"") for change in changes) > _LARGE_BYTES or len(changes) > _MANY_FILES:
            await asyncio.to_thread(self._apply, changes)
        else:
            self._apply(changes)

    def _apply(self, changes: Sequence[FileChange]) -> None:
        for change in changes:
            top, names = parts_of(change.path, cwd=WORKSPACE, tops=_TOPS)
            if ".." in names or not names:
                raise escaping(change.path)
            files, inner, path = self._files[top], "/" + "/".join(names), joined(top, names)
            before = _stamp(files, inner)
            wanted = _wanted(change)
            if before is not None and before.type != wanted:
                _call(path, files.remove, inner, True)
                self._forget(path)
            if wanted is None:
                continue
            if len(names) > 1:
                _call(path, files.mkdir, "/" + "/".join(names[:-1]), True)
            if wanted == _LINK:
                _call(path, files.symlink, change.target, inner)
            elif wanted == _FILE:
                _call(path, files.write_file, inner, change.data)
                _call(path, files.chmod, inner, change.mode)
            else:
                _call(path, files.mkdir, inner, True)
                _call(path, files.chmod, inner, change.mode)
            content = change.data if change.target is None else change.target.encode()
            if content is not None:
                self._digests[path] = hashlib.blake2b(content, digest_size=16).digest()
            # Folders above it may be new, too.
            for depth in range(1, len(names) + 1):
                stamp = _stamp(files, "/" + "/".join(names[:depth]))
                if stamp is not None:
                    self._seen[joined(top, names[:depth])] = stamp

    def _forget(self, path: str) -> None:
        for known in [known for known in self._seen if known == path or known.startswith(f"{path}/")]:
            del self._seen[known]
            self._digests.pop(known, None)

    async def close(self) -> None:
        self._is_closed = True
        self._files = {top: _new_files() for top in _TOPS}
        self._seen.clear()
        self._digests.clear()
        self._touched.clear()
        self._look_everywhere = False

    # --- paths

    def _existing(self, path: str, *, follow: bool) -> _Place:
        place = self._place(path, follow=follow)
        if place.stamp is None and place.inner != "/":
            raise FileNotFoundError(f"There is no {path}.")
        return place

    def _place(self, path: str, *, follow: bool, make_parents: bool = False) -> _Place:
        """Where a path leads, link by link. Only its last part may be missing (or more, with `make_parents`)."""
        if self._is_closed:
            raise SandboxUnavailable("The sandbox is closed.")
        top, names = parts_of(path, cwd=self.cwd, tops=_TOPS)
        pending = list(reversed(names))
        at: list[str] = []
        links = 0
        while pending:
            name = pending.pop()
            if name == "..":
                if not at:
                    raise escaping(path)
                at.pop()
                continue
            inner = "/" + "/".join([*at, name])
            stamp = _stamp(self._files[top], inner, shown=path)
            if stamp is not None and stamp.type == _LINK and (pending or follow):
                links += 1
                if links > _MOST_LINKS:
                    raise refused(path, "leads through too many links")
                target = self._files[top].read_link(inner)
                if target.startswith("/"):
                    top, at = parts_of(target, cwd=WORKSPACE, tops=_TOPS)[0], []
                    target = target[len(top) :]
                pending.extend(part for part in reversed(target.split("/")) if part not in ("", "."))
                continue
            if pending and stamp is None:
                if not make_parents:
                    raise FileNotFoundError(f"There is no {path}.")
                _call(path, self._files[top].mkdir, inner)
                self._touched.add(joined(top, [*at, name]))
            elif pending and stamp is not None and stamp.type != _FOLDER:
                raise NotADirectoryError(f"{joined(top, [*at, name])} is not a folder.")
            at.append(name)
        inner = "/" + "/".join(at)
        return _Place(
            path=joined(top, at), files=self._files[top], inner=inner, stamp=_stamp(self._files[top], inner, shown=path)
        )

    def _below(self, path: str) -> Iterator[tuple[str, _Stamp]]:
        """All that is below a folder, links not followed, no more of it than is searched."""
        top, inner = _split(path)
        files = self._files[top]
        pending = [inner.rstrip("/")]
        while pending:
            folder = pending.pop()
            try:
                entries = _entries(files, folder or "/")
            except OSError:
                continue  # deleted meanwhile
            for name, stamp in entries:
                yield f"{top}{folder}/{name}", stamp
                if stamp.type == _FOLDER:
                    pending.append(f"{folder}/{name}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where a path leads: its text without links, and what is there."""

    path: str
    files: FileSystem
    inner: str
    stamp: _Stamp | None


def _kept(text: str, limit_bytes: int, *, is_cut: bool) -> tuple[str, bool]:
    """As much of an output as is kept, and whether that is less than there was."""
    data = text.encode(errors="replace")
    if len(data) > limit_bytes:
        text, is_cut = data[:limit_bytes].decode(errors="ignore"), True
    return (f"{text}{_CUT}" if is_cut else text), is_cut


class _Outputs:
    """What a command says while it runs, in the thread it runs in."""

    def __init__(self, limit_bytes: int) -> None:
        self._lock = threading.Lock()
        self._left = [limit_bytes, limit_bytes]
        self._parts: tuple[list[str], list[str]] = ([], [])
        self.is_cut = False

    def add(self, stdout: str, stderr: str) -> None:
        with self._lock:
            for index, text in enumerate((stdout, stderr)):
                kept = text[: self._left[index]]
                self.is_cut = self.is_cut or len(kept) < len(text)
                self._left[index] -= len(kept)
                self._parts[index].append(kept)

    @property
    def stdout(self) -> str:
        with self._lock:
            return "".join(self._parts[0])

    @property
    def stderr(self) -> str:
        with self._lock:
            return "".join(self._parts[1])


def _adapted(run: Command) -> Callable[[BuiltinContext], Awaitable[BuiltinResult]]:
    """An agent's own command as bashkit calls it, on the event loop; one that blocks runs in a thread."""

    async def call(context: BuiltinContext) -> BuiltinResult:
        from bashkit import BuiltinResult

        argv, stdin = list(context.argv), context.stdin or ""
        if inspect.iscoroutinefunction(run):
            outcome: Any = await run(argv, stdin)
        else:
            outcome = await asyncio.to_thread(run, argv, stdin)
            if inspect.isawaitable(outcome):
                outcome = await outcome
        if isinstance(outcome, tuple):
            stdout, stderr, exit_code = cast("tuple[str, str, int]", outcome)
            return BuiltinResult(str(stdout), str(stderr), int(exit_code))
        return BuiltinResult("" if outcome is None else str(outcome), "", 0)

    return call


async def _stopped(bash: Bash) -> None:
    """Wait until a cancelled interpreter has let go of the files: only then can they be unmounted."""
    unmounting = asyncio.get_running_loop().run_in_executor(None, bash.unmount, WORKSPACE)
    try:
        async with asyncio.timeout(_STOP_S):
            await asyncio.shield(unmounting)
    except (TimeoutError, RuntimeError):
        return


def _new_files() -> FileSystem:
    from bashkit import FileSystem

    files = FileSystem()
    for entry in files.read_dir("/"):
        files.remove(f"/{entry['name']}", True)
    return files


def _split(path: str) -> tuple[str, str]:
    for top in _TOPS:
        if path == top or path.startswith(f"{top}/"):
            return top, path[len(top) :] or "/"
    raise escaping(path)


def _wanted(change: FileChange) -> str | None:
    if change.is_gone:
        return None
    if change.target is not None:
        return _LINK
    return _FOLDER if change.data is None else _FILE


def _stamp(files: FileSystem, inner: str, *, shown: str = "") -> _Stamp | None:
    try:
        return _stamp_of(files.stat(inner))
    except RuntimeError as error:
        if "not found" in str(error) or "not a directory" in str(error):
            return None
        raise _translated(error, shown or inner) from error


def _stamp_of(found: dict[str, Any]) -> _Stamp:
    return _Stamp(found["file_type"], found["size"], found["mode"], found["modified"], found["created"])


def _entries(files: FileSystem, inner: str) -> list[tuple[str, _Stamp]]:
    entries = _call(inner, files.read_dir, inner)
    return sorted((entry["name"], _stamp_of(entry["metadata"])) for entry in entries)


def _info(path: str, stamp: _Stamp) -> FileInfo:
    return FileInfo(
        path=path,
        is_file=stamp.type == _FILE,
        is_folder=stamp.type == _FOLDER,
        is_link=stamp.type == _LINK,
        size_bytes=stamp.size,
        modified_at=datetime.fromtimestamp(stamp.modified, UTC),
        mode=stamp.mode & 0o7777,
    )


def _call(path: str, method: Callable[..., Any], *arguments: Any) -> Any:
    """Call bashkit's file system; what it raises becomes what the port promises."""
    try:
        return method(*arguments)
    except RuntimeError as error:
        raise _translated(error, path) from error


def _translated(error: RuntimeError, path: str) -> Exception:
    text = str(error).removeprefix("io error: ")
    if "not a directory" in text:
        return NotADirectoryError(f"{path}: a part of it is not a folder.")
    if "not found" in text:
        return FileNotFoundError(f"There is no {path}.")
    if "is a directory" in text:
        return IsADirectoryError(f"{path} is a folder.")
    if "not empty" in text:
        return OSError(39, "The folder is not empty", path)
    if "exists" in text:
        return FileExistsError(f"{path} is there already.")
    if "limit" in text and "byte limit" in text and "filename" not in text:
        return TooLarge(f"The file {path}", None, 10_000_000, "sandbox='local' or 'isolated'")
    return refused(path, f"cannot be used here: {text}", "The virtual sandbox holds no more than that.")
