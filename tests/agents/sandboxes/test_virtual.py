"""The virtual sandbox: its journal, its own commands, its limits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyflue.agents.sandboxes import FileChange, SandboxLimits, make_sandbox
from pyflue.agents.sandboxes.virtual import VirtualSandbox
from pyflue.errors import SandboxRefused, TooLarge

NAMES = st.sampled_from(["a", "b", "c"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)


def step_of(kind: str, path: str, other: str, data: bytes) -> str:
    text = data.decode("latin-1").encode("unicode_escape").decode().replace("'", "x")
    return {
        "write": f"mkdir -p $(dirname {path}); printf '%s' '{text}' > {path}",
        "append": f"printf '%s' '{text}' >> {path}",
        "mkdir": f"mkdir -p {path}",
        "rm": f"rm -rf {path}",
        "mv": f"mv {path} {other}",
        "cp": f"cp -r {path} {other}",
        "link": f"ln -s {other} {path}",
        "chmod": f"chmod 7{len(data) % 8}5 {path}",
        "old": f"touch -d 2020-01-01 {path}",
        "swap": f"mv {path} /tmp/held; mv {other} {path}; mv /tmp/held {other}",
    }[kind]


KINDS = st.sampled_from(["write", "append", "mkdir", "rm", "mv", "cp", "link", "chmod", "old", "swap"])
STEPS = st.lists(st.tuples(KINDS, PATHS, PATHS, st.binary(max_size=6)), max_size=8)


async def contents(sandbox: VirtualSandbox) -> dict[str, tuple[object, ...]]:
    """All that a new sandbox would be told to be the same."""
    told = VirtualSandbox()
    told._files = sandbox._files  # a fresh look at the same files
    told._look_everywhere = True
    return {change.path: (change.data, change.target, change.mode) for change in await told.take_changes()}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(batches=st.lists(STEPS, min_size=1, max_size=4), is_merged=st.booleans())
async def test_changes_applied_elsewhere_give_the_same_files(
    batches: list[list[tuple[str, str, str, bytes]]], is_merged: bool
) -> None:
    original = VirtualSandbox()
    taken: list[FileChange] = []
    for batch in batches:
        for kind, path, other, data in batch:
            await original.exec(step_of(kind, path, other, data), timeout_s=5)
        taken += await original.take_changes()
    expected = await contents(original)

    restored = VirtualSandbox()
    if is_merged:
        # As a journal that keeps the newest of each path does.
        taken = list({change.path: change for change in taken}.values())
    await restored.apply(taken)

    assert await contents(restored) == expected
    assert await restored.take_changes() == []
    assert await original.take_changes() == []


async def test_changes_name_only_what_has_changed() -> None:
    sandbox = VirtualSandbox()
    await sandbox.exec("mkdir -p d/empty; for i in $(seq 50); do echo $i > d/f$i; done; ln -s f1 d/l", timeout_s=5)
    first = await sandbox.take_changes()

    await sandbox.exec("cat d/*; ls -R; touch d/f2; echo 3 > d/f3", timeout_s=5)
    nothing = await sandbox.take_changes()
    await sandbox.exec("echo new > d/f3; chmod 600 d/f4; rm -r d/f5 d/empty; echo t > /tmp/t", timeout_s=5)
    second = await sandbox.take_changes()
    await sandbox.write_bytes("x/y", b"1")
    await sandbox.write_bytes("d/f6", b"6\n")
    await sandbox.remove("d/l")
    third = await sandbox.take_changes()

    assert len(first) == 53
    assert (first[0].path, first[1].path) == ("/workspace/d", "/workspace/d/empty")
    assert nothing == []
    assert second == [
        FileChange(path="/workspace/d/f5", is_gone=True),
        FileChange(path="/workspace/d/empty", is_gone=True),
        FileChange(path="/tmp/t", data=b"t\n"),
        FileChange(path="/workspace/d/f3", data=b"new\n"),
        FileChange(path="/workspace/d/f4", data=b"4\n", mode=0o600),
    ]
    assert third == [
        FileChange(path="/workspace/d/l", is_gone=True),
        FileChange(path="/workspace/x", mode=0o755),
        FileChange(path="/workspace/x/y", data=b"1"),
    ]


async def test_a_change_is_seen_though_its_time_is_set_back() -> None:
    sandbox = VirtualSandbox()
    await sandbox.exec("echo one > a; touch -d 2020-01-01 a; touch -r a ref", timeout_s=5)
    await sandbox.take_changes()

    await sandbox.exec("echo two > a; touch -r ref a", timeout_s=5)
    rewritten = await sandbox.take_changes()
    await sandbox.exec("truncate -s 0 a; echo six >> a; touch -r ref a", timeout_s=5)
    regrown = await sandbox.take_changes()
    await sandbox.exec("printf X | dd of=a conv=notrunc; touch -r ref a", timeout_s=5)
    patched = await sandbox.take_changes()

    assert [[(change.path, change.data) for change in seen] for seen in (rewritten, regrown, patched)] == [
        [("/workspace/a", b"two\n")],
        [("/workspace/a", b"six\n")],
        [("/workspace/a", b"Xix\n")],
    ]


async def test_asking_for_changes_after_reading_costs_next_to_nothing() -> None:
    sandbox = VirtualSandbox()
    for index in range(1000):
        await sandbox.write_bytes(f"f{index}", b"x" * 1000)
    await sandbox.take_changes()

    started = time.perf_counter()
    for _ in range(100):
        await sandbox.read_bytes("f1")
        assert await sandbox.take_changes() == []

    assert (time.perf_counter() - started) / 100 < 0.001


@pytest.mark.parametrize(
    "change",
    [
        FileChange(path="/etc/passwd", data=b"x"),
        FileChange(path="/workspace/../x", data=b"x"),
        FileChange(path="/workspace", is_gone=True),
    ],
)
async def test_changes_outside_of_the_workspace_are_not_applied(change: FileChange) -> None:
    with pytest.raises(SandboxRefused):
        await VirtualSandbox().apply([change])


async def test_an_agents_own_commands_run_in_the_shell(tmp_path: Path) -> None:
    seen: list[tuple[Sequence[str], str]] = []

    async def shout(argv: list[str], stdin: str) -> str:
        seen.append((argv, stdin))
        return stdin.upper()

    def fail(argv: list[str], stdin: str) -> tuple[str, str, int]:
        return ("some", "bad\n", 3)

    def boom(argv: list[str], stdin: str) -> None:
        raise RuntimeError("broken inside")

    commands = {"shout": shout, "fail": fail, "boom": boom}
    sandbox = await make_sandbox("virtual", root=tmp_path, commands=commands)

    result = await sandbox.exec("echo hi | shout 'a b' c | tr I O; fail || echo $?; boom; echo $?", timeout_s=5)

    assert result.stdout == "HO\nsome3\n1\n"
    assert "bad\n" in result.stderr
    assert "broken inside" in result.stderr
    assert seen == [(["a b", "c"], "hi\n")]


async def test_an_own_command_that_hangs_is_cancelled_with_its_shell(tmp_path: Path) -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def hang(argv: list[str], stdin: str) -> str:
        begun.set()
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return ""

    sandbox = await make_sandbox("virtual", root=tmp_path, commands={"hang": hang})
    running = asyncio.ensure_future(sandbox.exec("hang; echo late > late", timeout_s=1000))
    async with asyncio.timeout(5):
        await begun.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await cancelled.wait()

    assert await sandbox.list_folder() == []


async def test_jq_works_and_has_a_deadline_of_its_own() -> None:
    sandbox = VirtualSandbox()
    await sandbox.write_bytes("x.json", b'{"a": [1, 2]}')

    shown = await sandbox.exec(
        "jq -c .a x.json; cat x.json | jq '.a | length'; echo '1' | jq --arg v \"a b\" '$v'", timeout_s=5
    )
    started = time.monotonic()
    endless = await sandbox.exec("jq -n 'def f: f; f'; echo $?", timeout_s=60)

    assert (shown.stdout, shown.stderr) == ('[1,2]\n2\n"a b"\n', "")
    assert time.monotonic() - started < 3
    assert endless.stdout == "5\n"


async def test_there_is_no_network_unless_it_is_allowed() -> None:
    result = await VirtualSandbox().exec("curl -s http://127.0.0.1:9/", timeout_s=5)

    assert result.exit_code != 0
    assert "network" in result.stderr


async def test_sizes_and_counts_are_limited() -> None:
    sandbox = VirtualSandbox(limits=SandboxLimits(file_bytes=1000))

    with pytest.raises(TooLarge):
        await sandbox.write_bytes("x", b"x" * 1001)
    with pytest.raises(TooLarge):
        await VirtualSandbox().write_bytes("x", b"x" * 11_000_000)
    with pytest.raises(SandboxRefused, match="too many files"):
        for index in range(10_001):
            await sandbox.write_bytes(f"f{index}", b"")


async def test_a_deleted_workspace_is_there_again_and_empty() -> None:
    sandbox = VirtualSandbox()
    await sandbox.write_bytes("x", b"1")
    await sandbox.take_changes()

    result = await sandbox.exec("rm -rf /workspace", timeout_s=5)

    assert result.stderr == "/workspace itself was deleted; it is there again, and empty.\n"
    assert await sandbox.take_changes() == [FileChange(path="/workspace/x", is_gone=True)]
    assert (await sandbox.exec("echo 1 > y; ls", timeout_s=5)).stdout == "y\n"
