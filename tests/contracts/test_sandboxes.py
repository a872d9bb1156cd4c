"""The contract of the `Sandbox` port, run against every adapter."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import time
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from uuid import uuid4

import pytest

from pyflue.agents.sandboxes import CommandResult, Match, Sandbox
from pyflue.errors import SandboxRefused, SandboxUnavailable
from tests.agents.sandboxes.kinds import KINDS, new_mark, processes_with, sandbox_of

SECRET = "not-for-any-model"


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder of the host beside the workspace, with a secret in it."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret.txt").write_text(SECRET)
    return folder


@pytest.fixture
async def sandbox(kind: str, tmp_path: Path) -> AsyncIterator[Sandbox]:
    sandbox = await sandbox_of(kind, tmp_path / "root")
    yield sandbox
    await sandbox.close()


async def texts(sandbox: Sandbox, folder: str = ".") -> list[str]:
    return [info.path.rpartition("/")[2] for info in await sandbox.list_folder(folder)]


async def ends_of(*calls: Awaitable[object]) -> list[object]:
    """What each call raised, or returned."""
    ends: list[object] = []
    for call in calls:
        try:
            ends.append(await call)
        except Exception as error:
            ends.append(error)
    return ends


async def test_it_says_which_kind_it_is(sandbox: Sandbox, kind: str) -> None:
    assert (sandbox.kind, sandbox.cwd, sandbox.is_journaled) == (kind, "/workspace", kind == "virtual")


async def test_a_written_file_is_read_back_by_methods_and_by_the_shell(sandbox: Sandbox) -> None:
    await sandbox.write_bytes("notes/today/a.txt", b"one\ntwo\n")

    shown = await sandbox.exec("cat notes/today/a.txt", timeout_s=10)

    assert await sandbox.read_bytes("/workspace/notes/today/a.txt") == b"one\ntwo\n"
    assert await sandbox.read_bytes("notes/today/a.txt", limit_bytes=3) == b"one"
    assert shown == CommandResult(stdout="one\ntwo\n", stderr="", exit_code=0)


async def test_what_the_shell_makes_is_there_for_the_methods(sandbox: Sandbox) -> None:
    await sandbox.exec(
        "mkdir -p a/b && printf hi > a/b/c.txt && chmod 750 a/b/c.txt && ln -s b/c.txt a/l", timeout_s=10
    )

    info = await sandbox.stat("a/b/c.txt")
    link = await sandbox.stat("a/l")

    assert (info.path, info.is_file, info.size_bytes, info.mode) == ("/workspace/a/b/c.txt", True, 2, 0o750)
    assert (link.is_link, link.is_file, link.is_folder) == (True, False, False)
    assert await sandbox.read_bytes("a/l") == b"hi"
    assert await texts(sandbox, "a") == ["b", "l"]


async def test_writing_replaces_a_file_as_a_whole_and_keeps_its_mode(sandbox: Sandbox) -> None:
    await sandbox.exec("printf 'a long text' > x; chmod 700 x", timeout_s=10)

    await sandbox.write_bytes("x", b"short")

    assert await sandbox.read_bytes("x") == b"short"
    assert (await sandbox.stat("x")).mode == 0o700
    assert await texts(sandbox) == ["x"]


async def test_a_root_path_and_the_workspace_are_the_same_folder(sandbox: Sandbox) -> None:
    await sandbox.write_bytes("x", b"1")

    listings = [await texts(sandbox, path) for path in ("/", "/.", "/workspace", "/workspace/", ".", "")[:5]]

    assert listings == [["x"]] * 5
    assert (await sandbox.stat("/")).is_folder


async def test_folders_are_made_and_removed(sandbox: Sandbox) -> None:
    await sandbox.mkdir("a/b")
    await sandbox.mkdir("a/b")
    with pytest.raises(FileExistsError):
        await sandbox.mkdir("a/b", parents=False)
    with pytest.raises(FileNotFoundError):
        await sandbox.mkdir("x/y", parents=False)
    with pytest.raises(OSError, match="not empty"):
        await sandbox.remove("a")
    await sandbox.remove("a", recursive=True)

    assert await texts(sandbox) == []


async def test_the_wrong_kind_of_thing_is_told_as_such(sandbox: Sandbox) -> None:
    await sandbox.write_bytes("file", b"")
    await sandbox.mkdir("folder")

    with pytest.raises(FileNotFoundError):
        await sandbox.read_bytes("nothing")
    with pytest.raises(FileNotFoundError):
        await sandbox.stat("nothing/at/all")
    with pytest.raises(FileNotFoundError):
        await sandbox.remove("nothing")
    with pytest.raises(IsADirectoryError):
        await sandbox.read_bytes("folder")
    with pytest.raises(IsADirectoryError):
        await sandbox.write_bytes("folder", b"")
    with pytest.raises(NotADirectoryError):
        await sandbox.read_bytes("file/below")
    with pytest.raises(NotADirectoryError):
        await sandbox.list_folder("file")
    with pytest.raises(FileNotFoundError):
        await sandbox.exec("true", timeout_s=5, cwd="nowhere")
    with pytest.raises(NotADirectoryError):
        await sandbox.exec("true", timeout_s=5, cwd="file")


@pytest.mark.parametrize(
    "path",
    [
        "../outside/secret.txt",
        "a/../../outside/secret.txt",
        "/etc/passwd",
        "/workspace/../etc/passwd",
        "/workspacex",
        "~/.ssh/id_rsa",
        "file:///etc/passwd",
        "FILE:/etc/passwd",
        "https://example.com/x",
        "nul\0byte",
        "x" * 300,
        "x/" * 3000,
        "d/" * 150 + "x",
        "",
        "\udc80",
        "/dev/zero",
        "/proc/self/environ",
    ],
)
async def test_a_path_that_leads_out_is_refused_with_words(sandbox: Sandbox, outside: Path, path: str) -> None:
    await sandbox.mkdir("a")
    ends = await ends_of(
        sandbox.read_bytes(path),
        sandbox.write_bytes(path, b"x"),
        sandbox.stat(path),
        sandbox.list_folder(path),
        sandbox.mkdir(path),
        sandbox.remove(path, recursive=True),
        sandbox.grep("x", path=path),
        sandbox.exec("true", timeout_s=5, cwd=path or "../outside"),
    )

    assert [type(end) for end in ends] == [SandboxRefused] * 8
    assert [
        str(end) for end in ends if not re.match(r"The path .+ (leads|is|begins|has|holds) .+ [A-Z].+\.$", str(end))
    ] == []
    assert (outside / "secret.txt").read_text() == SECRET
    assert await texts(sandbox) == ["a"]


async def test_glob_patterns_cannot_lead_out(sandbox: Sandbox) -> None:
    for pattern in ("../*", "/etc/*", "a/../../*", "~/*"):
        with pytest.raises(SandboxRefused):
            await sandbox.glob(pattern)


async def test_a_link_that_leads_out_is_never_followed(sandbox: Sandbox, outside: Path) -> None:
    made = await sandbox.exec(
        f"ln -s {outside}/secret.txt file; ln -s {outside} folder; ln -s ../../outside up; ln -s loop loop; mkdir d; "
        f"ln -s ../../outside/secret.txt d/up",
        timeout_s=10,
    )
    assert made.exit_code == 0

    for path in ("file", "folder/secret.txt", "up/secret.txt", "d/up", "loop"):
        ends = await ends_of(sandbox.read_bytes(path), sandbox.write_bytes(path, b"changed"), sandbox.list_folder(path))
        assert SECRET.encode() not in ends
        if sandbox.kind != "virtual":  # whose /tmp is its own
            assert [end for end in ends if not isinstance(end, (SandboxRefused, FileNotFoundError))] == []
    await sandbox.remove("folder", recursive=True)

    assert await sandbox.grep("model") == []
    assert await sandbox.glob("**/secret.txt") == []
    assert [info.is_link for info in await sandbox.list_folder(".")] == [False, True, True, True]
    assert (outside / "secret.txt").read_text() == SECRET


async def test_links_inside_lead_where_they_say(sandbox: Sandbox) -> None:
    await sandbox.write_bytes("a/real.txt", b"real")
    await sandbox.exec("ln -s a folder; ln -s ../a/real.txt a/self; ln -s folder/self far", timeout_s=10)

    assert await sandbox.read_bytes("far") == b"real"
    assert await sandbox.read_bytes("folder/../folder/real.txt") == b"real"
    await sandbox.write_bytes("far", b"new")
    assert await sandbox.read_bytes("a/real.txt") == b"new"


async def test_globs_and_greps_find_what_they_should(sandbox: Sandbox) -> None:
    files = {
        "src/a.py": b"import os\nprint('needle')\n",
        "src/deep/er/b.py": b"needle = 1\r\nx\n",
        "src/c.txt": b"needle\n",
        "top.py": "größe needle\n".encode(),
        ".hidden/x.py": b"needle hidden",
        "bin.py": b"\0needle",
        "bad.py": b"\xff\xfe needle",
    }
    for path, data in files.items():
        await sandbox.write_bytes(path, data)

    assert await sandbox.glob("**/*.py") == ["bad.py", "bin.py", "src/a.py", "src/deep/er/b.py", "top.py"]
    assert await sandbox.glob("src/*") == ["src/a.py", "src/c.txt"]
    assert await sandbox.glob("src/**") == ["src/a.py", "src/c.txt", "src/deep/er/b.py"]
    assert await sandbox.glob(".hidden/*") == [".hidden/x.py"]
    assert await sandbox.glob("[st]*/?.py") == ["src/a.py"]
    assert await sandbox.glob("/workspace/*.py", limit=1) == ["bad.py"]
    assert await sandbox.glob("nothing/*") == []
    assert await sandbox.grep(r"\bneedle\b") == [
        Match(path=".hidden/x.py", line=1, text="needle hidden"),
        Match(path="bad.py", line=1, text="\ufffd\ufffd needle"),
        Match(path="src/a.py", line=2, text="print('needle')"),
        Match(path="src/c.txt", line=1, text="needle"),
        Match(path="src/deep/er/b.py", line=1, text="needle = 1"),
        Match(path="top.py", line=1, text="größe needle"),
    ]
    assert await sandbox.grep("needle", path="src", include="*.txt") == [Match(path="src/c.txt", line=1, text="needle")]
    assert await sandbox.grep("needle", path="top.py") == [Match(path="top.py", line=1, text="größe needle")]
    assert len(await sandbox.grep("needle", limit=2)) == 2


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|a)*b", "^(a|aa)+$", "(.*a){25}$"])
async def test_no_regular_expression_takes_longer_than_two_seconds(sandbox: Sandbox, pattern: str) -> None:
    await sandbox.write_bytes("x", b"a" * 200_000 + b"!")
    started = time.monotonic()
    with contextlib.suppress(TimeoutError):
        await sandbox.grep(pattern)

    assert time.monotonic() - started < 3


@pytest.mark.parametrize("pattern", ["(", "a{1000}{1000}{1000}", "[z-a]", "(?=x)", "nul\0", "x" * 5000])
async def test_what_is_no_regular_expression_is_refused(sandbox: Sandbox, pattern: str) -> None:
    await sandbox.write_bytes("x", b"a")

    with pytest.raises(ValueError, match=r"^(The|A) pattern"):
        await sandbox.grep(pattern)


async def test_a_file_name_is_data_and_never_a_command(sandbox: Sandbox) -> None:
    names = ["; touch pwned", "$(touch pwned)", "`touch pwned`", "a b", "-rf", "'q'", "&& touch pwned", "*"]
    for name in names:
        await sandbox.write_bytes(name, b"needle")

    assert await texts(sandbox) == sorted(names)
    assert [match.path for match in await sandbox.grep("needle")] == sorted(names)
    for name in names:
        assert (await sandbox.exec(["cat", "--", name], timeout_s=10)).stdout == "needle"
        await sandbox.remove(name)
    assert await texts(sandbox) == []


async def test_a_sequence_runs_without_a_shell(sandbox: Sandbox) -> None:
    result = await sandbox.exec(["echo", "$HOME", ";", "touch", "pwned", ">", "x"], timeout_s=10)

    assert result == CommandResult(stdout="$HOME ; touch pwned > x\n", stderr="", exit_code=0)
    assert await texts(sandbox) == []


async def test_a_command_has_its_folder_its_variables_and_an_exit_code(sandbox: Sandbox) -> None:
    await sandbox.mkdir("sub")

    result = await sandbox.exec(
        'echo "$GIVEN"; echo oops >&2; ls -d ../sub; exit 7', timeout_s=10, cwd="sub", env={"GIVEN": "a 'b'"}
    )
    after = await sandbox.exec('echo "[$GIVEN]"', timeout_s=10)

    assert result == CommandResult(stdout="a 'b'\n../sub\n", stderr="oops\n", exit_code=7)
    assert after.stdout == "[]\n"


async def test_a_command_reads_nothing_from_standard_input(sandbox: Sandbox) -> None:
    async with asyncio.timeout(10):
        result = await sandbox.exec("cat; echo done", timeout_s=5)

    assert (result.stdout, result.exit_code) == ("done\n", 0)


async def test_no_secret_of_the_host_reaches_a_command(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    values = [f"planted-{index}-{uuid4().hex}" for index in range(20)]
    names = ["ANTHROPIC_API_KEY", "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "PYFLUE_TOKEN", "BASH_ENV", "LD_X"]
    for index, value in enumerate(values):
        monkeypatch.setenv(names[index] if index < len(names) else f"SECRET_{index}", value)

    result = await sandbox.exec(
        "env; set; export -p; "
        "cat /proc/self/environ /proc/$$/environ /proc/$PPID/environ /proc/1/environ | tr '\\0' '\\n'",
        timeout_s=10,
    )

    assert [value for value in values if value in result.stdout + result.stderr] == []
    assert "PATH=" in result.stdout


async def test_a_command_that_takes_too_long_is_stopped(sandbox: Sandbox) -> None:
    started = time.monotonic()

    result = await sandbox.exec("echo begun; sleep 600; echo never", timeout_s=0.5)

    assert time.monotonic() - started < 2.5
    assert (result.stdout, result.exit_code, result.is_timed_out) == ("begun\n", 124, True)
    assert result.stderr.endswith("stopped after 0.5 s.\n")


@pytest.mark.parametrize(
    "command",
    [
        "yes",
        "while true; do :; done",
        "head -c 10000000000 /dev/zero",
        "trap '' TERM INT HUP; while true; do sleep 1; done",
        ":(){ :|:& };:; sleep 20",
        "sleep MARK & setsid sleep MARK & sleep 30",
        "setsid sleep MARK & disown -a; exit 0",
        "x=a; while true; do x=$x$x; done",
        "cat /dev/zero | sort",
    ],
)
async def test_a_runaway_command_ends_in_time(sandbox: Sandbox, command: str) -> None:
    mark = new_mark()
    started = time.monotonic()

    result = await sandbox.exec(command.replace("MARK", mark), timeout_s=1.0)

    assert time.monotonic() - started < 3.0
    assert len(result.stdout) < 1_100_000
    # It is as good as new.
    assert (await sandbox.exec("echo fine", timeout_s=10)).stdout == "fine\n"
    assert processes_with(mark) == []


async def test_what_multiplies_in_sessions_of_its_own_comes_to_an_end(kind: str, sandbox: Sandbox) -> None:
    if kind == "virtual":
        pytest.skip("it has no processes")

    result = await sandbox.exec('echo "setsid sh b & setsid sh b &" > b; sh b; sleep 60', timeout_s=5)

    assert result.exit_code in (124, 137)
    assert (await sandbox.exec("echo fine", timeout_s=10)).stdout == "fine\n"


async def test_output_is_cut_with_a_mark(sandbox: Sandbox) -> None:
    result = await sandbox.exec("for i in $(seq 40); do head -c 100000 /dev/zero | tr '\\0' x; done", timeout_s=20)

    assert result.is_truncated
    assert len(result.stdout) < 1_100_000
    assert "left out]" in result.stdout
    assert result.exit_code == 0


@pytest.mark.parametrize(
    "command", ["sleep 987654321", "sleep 987654321 & wait", "while true; do :; done; sleep 987654321"]
)
async def test_a_cancelled_command_is_gone_within_two_seconds(sandbox: Sandbox, command: str) -> None:
    mark = new_mark()
    line = f"echo begun > begun; {command.replace('MARK', mark)}; echo late > late"
    running = asyncio.ensure_future(sandbox.exec(line, timeout_s=1000))
    async with asyncio.timeout(10):
        while not running.done() and await texts(sandbox) != ["begun"]:
            await asyncio.sleep(0.01)

    started = time.monotonic()
    if running.cancel():
        with pytest.raises(asyncio.CancelledError):
            await running
    took_s = time.monotonic() - started

    assert took_s < 2.0
    assert processes_with(mark) == []
    assert await texts(sandbox) in (["begun"], ["begun", "late"]) if "true" in command else ["begun"]


async def test_a_command_does_not_hold_the_event_loop(sandbox: Sandbox) -> None:
    running = asyncio.ensure_future(sandbox.exec("for i in $(seq 2000); do x=$(echo $i); done", timeout_s=1.0))
    longest_s, last = 0.0, time.monotonic()
    while not running.done():
        await asyncio.sleep(0.005)
        now = time.monotonic()
        longest_s, last = max(longest_s, now - last), now
    await running

    assert longest_s < 0.5


async def test_nul_characters_in_commands_are_refused(sandbox: Sandbox) -> None:
    for command in ("echo a\0b", ["echo", "a\0b"]):
        with pytest.raises(SandboxRefused):
            await sandbox.exec(command, timeout_s=5)


async def test_a_closed_sandbox_does_nothing_more(sandbox: Sandbox) -> None:
    await sandbox.close()

    ends = await ends_of(sandbox.exec("true", timeout_s=5), sandbox.read_bytes("x"), sandbox.write_bytes("x", b""))

    assert [type(end) for end in ends] == [SandboxUnavailable] * 3


async def test_two_sandboxes_share_nothing(kind: str, tmp_path: Path) -> None:
    one = await sandbox_of(kind, tmp_path / "one")
    two = await sandbox_of(kind, tmp_path / "two")

    await one.exec("echo mine > x; export LEAK=1", timeout_s=10)

    assert await texts(one) == ["x"]
    assert await texts(two) == []
    assert (await two.exec('echo "[$LEAK]"; ls', timeout_s=10)).stdout == "[]\n"


async def test_pipes_and_devices_are_refused_unopened(sandbox: Sandbox) -> None:
    made = await sandbox.exec("mkfifo pipe", timeout_s=10)
    assert made.exit_code == 0

    async with asyncio.timeout(5):
        ends = await ends_of(
            sandbox.read_bytes("pipe"), sandbox.write_bytes("pipe", b"x"), sandbox.grep("x", path="pipe")
        )
        assert [type(end) for end in ends] == [SandboxRefused] * 3
        assert await sandbox.grep("x") == []
        assert await sandbox.glob("*") == []
    await sandbox.remove("pipe")


def test_the_tests_run_where_processes_can_be_seen() -> None:
    assert str(os.getpid()) in os.listdir("/proc")
