"""Commands on this machine: their limits, and that nothing of them is left, whoever dies first."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pyflue.agents.sandboxes import SandboxLimits
from tests.agents.sandboxes.kinds import HOSTED, new_mark, processes_with, sandbox_of

pytestmark = pytest.mark.parametrize("kind", HOSTED)


async def until_none_is_left(mark: str) -> None:
    async with asyncio.timeout(10):
        while processes_with(mark):
            await asyncio.sleep(0.02)


async def test_a_command_dies_with_the_process_that_ran_it(kind: str, tmp_path: Path) -> None:
    await sandbox_of(kind, tmp_path / "probe")
    mark = new_mark()
    program = f"""
import asyncio
from pathlib import Path
from pyflue.agents.sandboxes import make_sandbox

async def main():
    sandbox = await make_sandbox({kind!r}, root=Path({str(tmp_path / "root")!r}))
    await sandbox.exec("setsid sleep {mark} & trap '' TERM; sleep {mark}", timeout_s=1000)

asyncio.run(main())
"""
    process = subprocess.Popen([sys.executable, "-c", program])
    async with asyncio.timeout(20):
        while len([line for line in processes_with(mark) if line.startswith("sleep")]) < 2:
            await asyncio.sleep(0.02)

    os.kill(process.pid, signal.SIGKILL)
    process.wait()

    await until_none_is_left(mark)


async def test_a_command_that_kills_its_parents_leaves_nothing(kind: str, tmp_path: Path) -> None:
    sandbox = await sandbox_of(kind, tmp_path / "root")
    mark = new_mark()

    result = await sandbox.exec(f"setsid sleep {mark} & kill -9 $PPID; sleep {mark}", timeout_s=1)

    assert result.exit_code in (124, 137)
    await until_none_is_left(mark)


async def test_what_is_always_another_process_ends_with_its_group(kind: str, tmp_path: Path) -> None:
    # Whoever kills what he has just seen comes too late: each process has started the next one, and is gone.
    sandbox = await sandbox_of(kind, tmp_path / "root")
    mark = new_mark()

    result = await sandbox.exec(f"next() {{ next & exit; }}; next & kill -9 $PPID; sleep {mark}", timeout_s=1)

    assert result.exit_code in (124, 137)
    await until_none_is_left(mark)


async def test_too_many_processes_end_the_command(kind: str, tmp_path: Path) -> None:
    sandbox = await sandbox_of(kind, tmp_path / "root", limits=SandboxLimits(processes=20))
    mark = new_mark()

    result = await sandbox.exec(f"for i in $(seq 60); do sleep {mark} & done; wait", timeout_s=30)

    assert result.exit_code == 137
    assert result.stderr.endswith("The command was stopped: it had more than 20 processes.\n")
    assert processes_with(mark) == []


async def test_too_much_memory_ends_the_command(kind: str, tmp_path: Path) -> None:
    sandbox = await sandbox_of(kind, tmp_path / "root", limits=SandboxLimits(memory_bytes=64 * 1024**2))

    result = await sandbox.exec("x=$(head -c 200000000 /dev/zero | tr '\\0' x); sleep 30", timeout_s=30)

    assert result.exit_code == 137
    assert result.stderr.endswith("The command was stopped: it used more than 64 MiB of memory.\n")


async def test_a_file_cannot_grow_beyond_its_limit(kind: str, tmp_path: Path) -> None:
    sandbox = await sandbox_of(kind, tmp_path / "root", limits=SandboxLimits(written_file_bytes=1_000_000))

    result = await sandbox.exec("head -c 5000000 /dev/zero > x; exit $?", timeout_s=30)

    assert result.exit_code != 0
    assert (await sandbox.stat("x")).size_bytes <= 1_000_000


async def test_head_and_tail_of_a_long_output_are_kept(kind: str, tmp_path: Path) -> None:
    sandbox = await sandbox_of(kind, tmp_path / "root", limits=SandboxLimits(output_bytes=1000))

    result = await sandbox.exec("echo first; seq 100000; echo last", timeout_s=30)

    assert result.is_truncated
    assert result.stdout.startswith("first\n1\n2\n")
    assert result.stdout.endswith("99999\n100000\nlast\n")
    assert "\n[587,906 bytes were left out]\n" in result.stdout


async def test_a_command_that_cannot_be_found_or_run_says_so(kind: str, tmp_path: Path) -> None:
    sandbox = await sandbox_of(kind, tmp_path / "root")

    result = await sandbox.exec(["/nothing/here"], timeout_s=10)

    assert result.exit_code in ((127,) if kind == "local" else (1, 127))
    assert "/nothing/here: No such file or directory" in result.stderr


async def test_core_files_and_terminals_are_not_to_be_had(kind: str, tmp_path: Path) -> None:
    sandbox = await sandbox_of(kind, tmp_path / "root")

    result = await sandbox.exec("ulimit -c; ulimit -n; tty; : < /dev/tty", timeout_s=10)

    assert result.stdout == "0\n1024\nnot a tty\n"
    assert "/dev/tty" in result.stderr
