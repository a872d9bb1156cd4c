"""Sandboxes by name and by factory."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest

from pyflue.agents.sandboxes import Sandbox, SandboxPolicy, isolated, local, make_sandbox, virtual
from pyflue.agents.sandboxes.virtual import VirtualSandbox
from pyflue.errors import AgentInvalid, SandboxUnavailable
from tests.agents.sandboxes.kinds import sandbox_of


class Elsewhere(VirtualSandbox):
    kind = "elsewhere"


def test_the_names_of_sandboxes_are_functions_whatever_was_imported_before() -> None:
    """`local`, `virtual` and `isolated` are modules, too."""
    program = """
import pyflue.agents.sandboxes.local
from pyflue.agents.sandboxes import isolated, local, virtual
import pyflue.agents.sandboxes.isolated
import pyflue.agents.sandboxes.virtual
from pyflue.agents import sandboxes
print([callable(one) for one in (isolated, local, virtual, sandboxes.isolated, sandboxes.local, sandboxes.virtual)])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[True, True, True, True, True, True]\n"


async def test_a_factory_gets_what_it_has_parameters_for(tmp_path: Path) -> None:
    seen: dict[str, Any] = {}

    def plain(root: Path, env: dict[str, str]) -> Sandbox:
        seen.update(root=root, env=env)
        return Elsewhere()

    async def awaited(**given: Any) -> Sandbox:
        seen["names"] = sorted(given)
        return Elsewhere()

    made = [await make_sandbox(factory, root=tmp_path, env={"A": "1"}) for factory in (plain, awaited)]

    assert [sandbox.kind for sandbox in made] == ["elsewhere", "elsewhere"]
    assert seen == {
        "root": tmp_path,
        "env": {"A": "1"},
        "names": ["commands", "cwd", "env", "limits", "policy", "root"],
    }


async def test_a_factory_that_fails_is_told_as_such(tmp_path: Path) -> None:
    def broken() -> Sandbox:
        raise RuntimeError("no key")

    with pytest.raises(SandboxUnavailable, match="could not be made: no key"):
        await make_sandbox(broken, root=tmp_path)


async def test_a_plugged_in_kind_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("elsewhere", f"{__name__}:Elsewhere", "pyflue.sandboxes")
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: EntryPoints([entry]).select(group=group))

    assert (await make_sandbox("elsewhere", root=tmp_path)).kind == "elsewhere"
    with pytest.raises(AgentInvalid, match=r"^Unknown sandbox provider: 'nowhere'\. Known: .*elsewhere\.$"):
        await make_sandbox("nowhere", root=tmp_path)


async def test_a_local_sandbox_in_a_folder_of_the_authors(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "x").write_text("1")

    sandbox = await make_sandbox(local(cwd=tmp_path / "mine", env={"TOKEN": "granted"}), root=tmp_path / "root")

    assert await sandbox.read_bytes("x") == b"1"
    assert (await sandbox.exec('echo "$TOKEN"', timeout_s=10)).stdout == "granted\n"
    assert not (tmp_path / "root").exists()
    with pytest.raises(SandboxUnavailable, match="There is no folder"):
        await make_sandbox(local(cwd=tmp_path / "nothing"), root=tmp_path)


@pytest.mark.parametrize("kind", ["virtual", "local"])
async def test_relative_paths_count_from_the_folder_that_was_asked_for(kind: str, tmp_path: Path) -> None:
    sandbox = await make_sandbox(kind, root=tmp_path / "root", cwd="deep/er")

    await sandbox.write_bytes("x.py", b"needle")

    assert (sandbox.cwd, await sandbox.glob("*.py")) == ("/workspace/deep/er", ["x.py"])
    assert (await sandbox.exec("ls", timeout_s=10)).stdout == "x.py\n"
    assert await sandbox.read_bytes("/workspace/deep/er/x.py") == b"needle"
    assert await sandbox.read_bytes("../er/x.py") == b"needle"


async def test_isolated_without_bubblewrap_is_unavailable_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(SandboxUnavailable, match=r"bubblewrap, which is not installed.*apt install bubblewrap"):
        await make_sandbox("isolated", root=tmp_path / "root")


async def test_isolated_that_is_not_permitted_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bwrap"
    program.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    with pytest.raises(SandboxUnavailable, match=r"cannot be made here: bwrap: No permissions.*user namespaces"):
        await make_sandbox("isolated", root=tmp_path / "root")


async def test_isolated_sees_the_system_read_only_and_nothing_of_the_host(tmp_path: Path) -> None:
    sandbox = await sandbox_of("isolated", tmp_path / "root")
    (tmp_path / "root" / ".pyflue").mkdir(parents=True)
    (tmp_path / "root" / ".pyflue" / "journal.db").write_text("hidden")

    result = await sandbox.exec(
        "pwd; id -u; hostname; ls -A .pyflue; ls /home /root /var /srv /run 2>/dev/null; cat /etc/shadow 2>/dev/null; "
        "touch /x /usr/x /etc/x 2>/dev/null || echo read-only; touch /tmp/t x && echo writable; "
        "ls /proc | grep -c '^[0-9]'; "
        "unshare -Ur true 2>/dev/null || echo no-namespaces; grep CapEff /proc/self/status",
        timeout_s=10,
    )
    after = await sandbox.exec("ls /tmp", timeout_s=10)

    lines = result.stdout.splitlines()
    assert lines[:3] == ["/workspace", "1000", "sandbox"]
    assert lines[3:5] == ["read-only", "writable"]
    assert int(lines[5]) < 10
    assert lines[-1].split() == ["CapEff:", "0000000000000000"]
    assert after.stdout == ""


async def test_isolated_reaches_no_network_unless_it_is_allowed(tmp_path: Path) -> None:
    await sandbox_of("isolated", tmp_path / "root")
    greeted = asyncio.Event()

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        greeted.set()
        writer.write(b"hello\n")
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    command = f"exec 3<>/dev/tcp/127.0.0.1/{port} && cat <&3"
    closed = await make_sandbox("isolated", root=tmp_path / "closed")
    opened = await make_sandbox("isolated", root=tmp_path / "open", policy=SandboxPolicy(network=True))
    async with server:
        refused = await closed.exec(command, timeout_s=10)
        was_greeted = greeted.is_set()
        allowed = await opened.exec(command, timeout_s=10)

    assert (refused.stdout, was_greeted) == ("", False)
    assert allowed.stdout == "hello\n"


async def test_isolated_can_be_given_further_folders_to_read(tmp_path: Path) -> None:
    await sandbox_of("isolated", tmp_path / "root")
    (tmp_path / "books").mkdir()
    (tmp_path / "books" / "a").write_text("text")

    sandbox = await make_sandbox(isolated(read_only=[tmp_path / "books"]), root=tmp_path / "root")
    result = await sandbox.exec(f"cat {tmp_path}/books/a; touch {tmp_path}/books/b", timeout_s=10)

    assert (result.stdout, result.exit_code) == ("text", 1)


async def test_virtual_can_be_given_variables(tmp_path: Path) -> None:
    sandbox = await make_sandbox(virtual(env={"A": "1", "B": "2"}), root=tmp_path, env={"B": "3"})

    assert (await sandbox.exec("echo $A $B $C", timeout_s=5, env={"C": "4"})).stdout == "1 3 4\n"


def test_importing_the_room_imports_no_bashkit() -> None:
    code = (
        "import sys, pyflue.agents.sandboxes as room; room.make_sandbox, room.SandboxPolicy, room.virtual(); "
        "import pyflue.agents.file_tools; print('bashkit' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


async def test_the_virtual_shell_takes_commands_of_its_owner(tmp_path: Path) -> None:
    async def count(argv: list[str], stdin: str) -> str:
        return f"{len(stdin.split())} {' '.join(argv)}\n"

    sandbox = await make_sandbox(virtual(commands={"count": count}), root=tmp_path)

    result = await sandbox.exec("echo one two three | count words", timeout_s=5)

    assert (result.stdout, result.exit_code) == ("3 words\n", 0)
    await sandbox.close()
