"""A host's folder as a sandbox's files: nothing from outside, whatever changes meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from pyflue.agents.sandboxes import Sandbox, SandboxLimits, make_sandbox
from pyflue.agents.sandboxes.folder import Folder
from pyflue.agents.sandboxes.local import local_sandbox
from pyflue.errors import PyFlueError, TooLarge
from tests.agents.sandboxes.kinds import HOSTED, sandbox_of

SECRET = b"not-for-any-model"
TRIES = 20_000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "real").mkdir(parents=True)
    (root / "real" / "x.txt").write_bytes(b"inside")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "x.txt").write_bytes(SECRET)
    return root


@pytest.fixture(params=HOSTED)
async def sandbox(request: pytest.FixtureRequest, root: Path) -> AsyncIterator[Sandbox]:
    sandbox = await sandbox_of(request.param, root)
    yield sandbox
    await sandbox.close()


@pytest.fixture
def swapping(root: Path, tmp_path: Path) -> Iterator[None]:
    """All the while, `d` is in turn a folder, and a link to the folder outside; `f` likewise a file and a link."""
    is_over = threading.Event()

    def move(old: str, new: str) -> None:
        try:
            os.rename(root / old, root / new)
        except OSError:
            # Meanwhile the sandbox has made a folder there, which is in the way.
            shutil.rmtree(root / "d", ignore_errors=True)

    def swap() -> None:
        (root / "folder").mkdir()
        (root / "folder" / "x.txt").write_bytes(b"inside")
        (root / "file").write_bytes(b"inside")
        os.symlink(tmp_path / "outside", root / "link")
        os.symlink(tmp_path / "outside" / "x.txt", root / "flink")
        while not is_over.is_set():
            for real, link, name in (("folder", "link", "d"), ("file", "flink", "f")):
                for held in (real, link):
                    move(held, name)
                    move(name, held)

    thread = threading.Thread(target=swap)
    thread.start()
    yield
    is_over.set()
    thread.join()


def test_a_folder_that_is_swapped_for_a_link_gives_nothing_away(root: Path, tmp_path: Path, swapping: None) -> None:
    folder = Folder(root, limits=SandboxLimits())
    seen: set[bytes] = set()
    for index in range(TRIES):
        for path in ("d/x.txt", "f"):
            with contextlib.suppress(OSError, PyFlueError):
                seen.add(folder.read_bytes(path, None))
        if index % 20 == 0:
            try:
                folder.write_bytes("d/x.txt", b"inside")
                folder.write_bytes("f", b"inside")
                folder.list_folder("d")
            except (OSError, PyFlueError):
                pass
        if index % 1000 == 0:
            assert folder.grep("not-for", ".", None, 10) == []

    assert seen <= {b"inside"}
    assert (tmp_path / "outside" / "x.txt").read_bytes() == SECRET
    assert os.listdir(tmp_path / "outside") == ["x.txt"]


def test_removing_a_folder_that_is_swapped_deletes_nothing_outside(root: Path, tmp_path: Path, swapping: None) -> None:
    folder = Folder(root, limits=SandboxLimits())
    for _ in range(300):
        with contextlib.suppress(OSError, PyFlueError):
            folder.remove("d/x.txt", recursive=True)

    assert (tmp_path / "outside" / "x.txt").read_bytes() == SECRET


async def test_pyflues_own_folder_does_not_exist(sandbox: Sandbox, root: Path) -> None:
    for place in (root, root / "sub"):
        (place / ".pyflue").mkdir(parents=True)
        (place / ".pyflue" / "journal.db").write_bytes(SECRET)

    for path in (".pyflue/journal.db", "sub/.pyflue/journal.db", ".pyflue", "real/../.pyflue/journal.db"):
        for call in (sandbox.read_bytes(path), sandbox.stat(path), sandbox.remove(path, recursive=True)):
            with pytest.raises(FileNotFoundError):
                await call

    assert await sandbox.grep("not-for") == []
    assert await sandbox.glob("**/*.db") == []
    assert [info.path for info in await sandbox.list_folder()] == ["/workspace/real", "/workspace/sub"]
    assert (root / ".pyflue" / "journal.db").read_bytes() == SECRET


async def test_a_file_with_another_name_outside_is_replaced_not_written_through(sandbox: Sandbox, root: Path) -> None:
    twin = root.parent / "outside" / "x.txt"
    os.link(twin, root / "twin")

    await sandbox.write_bytes("twin", b"changed")

    assert (twin.read_bytes(), await sandbox.read_bytes("twin")) == (SECRET, b"changed")


async def test_devices_are_refused(sandbox: Sandbox, root: Path) -> None:
    try:
        os.mknod(root / "zero", 0o666 | 0o020000, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("making a device needs root")

    for call in (sandbox.read_bytes("zero"), sandbox.write_bytes("zero", b"x")):
        with pytest.raises(PermissionError, match="device"):
            await call


async def test_a_large_file_is_read_only_with_a_limit(root: Path) -> None:
    with open(root / "large", "wb") as file:
        file.truncate(10**12)
    sandbox = local_sandbox(root)

    with pytest.raises(TooLarge):
        await sandbox.read_bytes("large")
    assert await sandbox.read_bytes("large", limit_bytes=4) == b"\0\0\0\0"
    assert await sandbox.grep("x") == []


async def test_the_hosts_own_path_of_the_workspace_is_understood(root: Path) -> None:
    sandbox = local_sandbox(root)
    shown = (await sandbox.exec("pwd", timeout_s=10)).stdout.strip()

    assert await sandbox.read_bytes(f"{shown}/real/x.txt") == b"inside"
    assert (await sandbox.stat(f"{shown}/real")).path == "/workspace/real"


async def test_no_descriptor_is_left_open(root: Path) -> None:
    sandbox = local_sandbox(root)

    async def use() -> None:
        await sandbox.write_bytes("a/b/c", b"x")
        await sandbox.read_bytes("a/b/c")
        await sandbox.list_folder("a")
        await sandbox.glob("**/*")
        await sandbox.grep("x", limit=1)
        await sandbox.exec("true", timeout_s=10, cwd="a")
        for path in ("nothing/at/all", "a/b/c/d", "../x"):
            with pytest.raises((OSError, PyFlueError)):
                await sandbox.read_bytes(path)

    await use()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        await use()

    assert len(os.listdir("/proc/self/fd")) == before


async def test_many_commands_run_side_by_side(root: Path) -> None:
    sandbox = await make_sandbox("local", root=root)

    async with asyncio.timeout(20):
        results = await asyncio.gather(*(sandbox.exec(f"sleep 0.2; echo {index}", timeout_s=10) for index in range(20)))

    assert [result.stdout for result in results] == [f"{index}\n" for index in range(20)]
