"""What only a file can suffer: permissions, corruption, other processes, a full disk."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import apsw
import pytest

from pyflue.errors import (
    JournalBusy,
    JournalError,
    JournalFull,
    JournalTooNew,
    JournalUnreadable,
    JournalUnsupported,
)
from pyflue.journal import (
    Attached,
    Fence,
    FileRecord,
    Journal,
    Outcome,
    RunFilter,
    RunStatus,
    open_journal,
    sqlite_file,
)
from pyflue.journal.queries import load_migrations
from pyflue.settings import JournalSettings
from tests.contracts.test_journal_calls import new_signal, new_step, new_wait
from tests.promises import promise
from tests.support import fence_of, journal_at, new_event, new_run, raw, summary

DONE = Outcome(status=RunStatus.COMPLETED, result=raw(1))


def file_in(folder: Path) -> Path:
    return folder / ".pyflue" / "journal.db"


@asynccontextmanager
async def opened(folder: Path, **settings: float) -> AsyncIterator[Journal]:
    journal = journal_at(folder, **settings)
    try:
        yield journal
    finally:
        await journal.close()


async def write_some(folder: Path, count: int = 20) -> list[str]:
    async with opened(folder) as journal:
        runs = [new_run(payload="x" * 500) for _ in range(count)]
        await asyncio.gather(*(journal.accept(new) for new in runs))
        return [new.run_id for new in runs]


async def test_the_file_and_its_companions_are_readable_by_the_owner_only(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        async with opened(tmp_path) as journal:
            await journal.accept(new_run())
            modes = {path.name: oct(path.stat().st_mode & 0o777) for path in (tmp_path / ".pyflue").glob("journal.db*")}
    finally:
        os.umask(before)
    assert modes == {"journal.db": "0o600", "journal.db-wal": "0o600", "journal.db-shm": "0o600"}


async def test_a_run_is_there_after_the_journal_was_opened_again(tmp_path: Path) -> None:
    (run_id,) = await write_some(tmp_path, 1)
    async with opened(tmp_path) as journal:
        run = await journal.run(run_id)
        assert run is not None
        assert run.status is RunStatus.RUNNING
        assert [lost.run_id for lost in await journal.lost()] == [run_id]


@promise("F09")
@pytest.mark.parametrize("target", ["file", "folder"])
async def test_a_read_only_journal_is_refused(tmp_path: Path, target: str) -> None:
    await write_some(tmp_path)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.name.startswith(("test_", "popen-", "pytest-")):
            folder.chmod(0o755)
    (tmp_path / ".pyflue").chmod(0o777 if target == "file" else 0o555)
    file_in(tmp_path).chmod(0o444 if target == "file" else 0o666)
    # In a child, because root (as whom CI may run) can write anywhere and has to become somebody else first.
    program = f"""
        import os
        import pyflue.journal.sqlite
        from pyflue.errors import JournalReadOnly
        from pyflue.journal import open_journal
        if os.geteuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        try:
            open_journal("sqlite:///{file_in(tmp_path)}")
        except JournalReadOnly as error:
            print(error)
    """
    answer = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False, timeout=30
    )
    assert "cannot be written: permission denied. Check the permissions" in answer.stdout, answer.stderr


@promise("F11")
async def test_a_corrupted_file_is_named_and_left_as_it_is(tmp_path: Path) -> None:
    await write_some(tmp_path, 400)
    path = file_in(tmp_path)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 8192] = b"\xff" * 8192
    path.write_bytes(data)
    journal = journal_at(tmp_path)

    with pytest.raises(JournalUnreadable, match=re.escape(str(path)) + r".* corrupted .* Run `pyflue db check`"):
        journal.enlist("engine-1")

    assert (await journal.check()).problems
    await journal.close()
    assert path.read_bytes() == bytes(data)


@promise("F11")
async def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = file_in(tmp_path)
    path.parent.mkdir()
    path.write_text("Dear diary, " * 100)
    with pytest.raises(JournalUnreadable, match="file is not a database"):
        journal_at(tmp_path)
    assert path.read_text().startswith("Dear diary")


async def test_the_database_of_another_program_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = file_in(tmp_path)
    path.parent.mkdir()
    stranger = apsw.Connection(str(path))
    stranger.execute("CREATE TABLE bookmarks (url TEXT)")
    stranger.close()
    before = path.read_bytes()
    with pytest.raises(JournalUnreadable, match="database of another program"):
        journal_at(tmp_path)
    assert path.read_bytes() == before


@promise("F12")
@pytest.mark.parametrize("damage", ["truncate", "delete"])
async def test_a_damaged_log_costs_at_most_its_tail(tmp_path: Path, damage: str) -> None:
    early = await write_some(tmp_path, 5)
    # A copy of the files of an open journal is what a crash leaves behind.
    crashed = tmp_path / "crashed"
    async with opened(tmp_path) as journal:
        late = new_run()
        await journal.accept(late)
        shutil.copytree(tmp_path / ".pyflue", crashed / ".pyflue")
    wal = crashed / ".pyflue" / "journal.db-wal"
    assert wal.stat().st_size > 0
    (crashed / ".pyflue" / "journal.db-shm").unlink()
    if damage == "truncate":
        os.truncate(wal, wal.stat().st_size - 100)
    else:
        wal.unlink()

    async with opened(crashed) as journal:
        found = [run.run_id for run in (await journal.runs(RunFilter())).runs]
        assert (await journal.check()).problems == ()

    assert set(early) <= set(found)


@promise("F14")
async def test_a_newer_schema_is_not_touched(tmp_path: Path) -> None:
    await write_some(tmp_path)
    path = file_in(tmp_path)
    newer = apsw.Connection(str(path))
    newer.pragma("user_version", 99)
    newer.close()
    before = path.read_bytes()
    with pytest.raises(JournalTooNew, match=r"schema version 99; this PyFlue knows versions up to \d"):
        journal_at(tmp_path)
    assert path.read_bytes() == before


@promise("F13")
async def test_a_new_file_has_the_schema_of_all_migrations(tmp_path: Path) -> None:
    await write_some(tmp_path, 0)
    scripts = load_migrations("sqlite")
    by_hand = apsw.Connection(":memory:")
    for script in scripts:
        by_hand.execute(script)
    made = apsw.Connection(str(file_in(tmp_path)))
    schema = "SELECT type, name, sql FROM sqlite_schema ORDER BY type, name"
    assert list(made.execute(schema)) == list(by_hand.execute(schema))
    assert made.pragma("user_version") == len(scripts)
    made.close()


@promise("F13")
async def test_an_older_schema_is_migrated_after_a_copy_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await write_some(tmp_path)
    newer = [*load_migrations("sqlite"), "CREATE TABLE of_the_next_release (x TEXT) STRICT"]
    monkeypatch.setattr("pyflue.journal.sqlite_file.load_migrations", lambda dialect: newer)

    async with opened(tmp_path) as journal:
        assert {run.run_id for run in (await journal.runs(RunFilter())).runs} == set(ids)
        assert (await journal.check()).schema_version == len(newer)

    copied = apsw.Connection(str(file_in(tmp_path)) + f".schema-{len(newer) - 1}.backup")
    assert copied.pragma("user_version") == len(newer) - 1
    assert copied.execute("SELECT count(*) FROM runs").get == len(ids)
    copied.close()


@promise("F13")
async def test_a_journal_in_use_is_not_migrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(tmp_path) as journal:
        journal.enlist("engine-1")
        newer = [*load_migrations("sqlite"), "CREATE TABLE of_the_next_release (x TEXT) STRICT"]
        monkeypatch.setattr("pyflue.journal.sqlite_file.load_migrations", lambda dialect: newer)
        with pytest.raises(JournalBusy):
            journal_at(tmp_path)


@promise("F13")
@pytest.mark.parametrize(
    "stored", sorted((Path(__file__).parent / "fixtures").glob("schema-*.db")), ids=lambda p: p.stem
)
async def test_journals_of_every_released_schema_open(tmp_path: Path, stored: Path) -> None:
    file_in(tmp_path).parent.mkdir()
    shutil.copy(stored, file_in(tmp_path))
    async with opened(tmp_path) as journal:
        runs = (await journal.runs(RunFilter())).runs
        nobody_waits = {RunStatus.WAITING} if stored.stem == "schema-1" else set()
        assert {run.status for run in runs} == set(RunStatus) - nobody_waits
        for head in runs:
            run = await journal.run(head.run_id)
            assert run is not None
            assert run.payload is not None
            events = await journal.events(run.run_id)
            assert [event.index for event in events] == list(range(1, run.last_index + 1))
            assert bool(await journal.open_waits(run.run_id)) == (run.status is RunStatus.WAITING)
            history = await journal.history(run.run_id)
            steps = await journal.steps(run.run_id)
            assert [step for step in steps if step in history.steps] == history.steps
            assert {step.key for step in steps} == {call.key for call in (*history.steps, *history.waits)}
            if not run.is_final and run.owner is not None:
                fence = Fence(run_id=run.run_id, owner=run.owner, attempt=run.attempt)
                assert await journal.record(fence, new_step("now")) == run.last_index
                assert await journal.finish(fence, DONE) == DONE


@promise("F13")
@pytest.mark.parametrize("schema", ["schema-1", "schema-2", "schema-3"])
async def test_journals_of_releases_before_definitions_take_them(tmp_path: Path, schema: str) -> None:
    file_in(tmp_path).parent.mkdir()
    shutil.copy(Path(__file__).parent / "fixtures" / f"{schema}.db", file_in(tmp_path))
    new = new_run(definition=raw({"nodes": []}))
    async with opened(tmp_path) as journal:
        before = (await journal.runs(RunFilter())).runs
        await journal.accept(new)
        assert {await journal.definition(run.run_id) for run in before} == {None}
    async with opened(tmp_path) as journal:
        assert await journal.definition(new.run_id) == raw({"nodes": []})


@promise("F13")
@pytest.mark.parametrize("schema", ["schema-1", "schema-2", "schema-3", "schema-4"])
async def test_events_are_the_same_after_a_migration(tmp_path: Path, schema: str) -> None:
    file_in(tmp_path).parent.mkdir()
    shutil.copy(Path(__file__).parent / "fixtures" / f"{schema}.db", file_in(tmp_path))
    wanted = "SELECT stream_id, idx, type, at, data, {} FROM events ORDER BY stream_id, idx"
    before = apsw.Connection(str(file_in(tmp_path)))
    added = {"schema-1": "NULL, NULL", "schema-2": "step, NULL"}.get(schema, "step, interaction")
    old = list(before.execute(wanted.format(added)))
    before.close()

    async with opened(tmp_path) as journal:
        assert (await journal.check()).problems == ()

    after = apsw.Connection(str(file_in(tmp_path)))
    assert list(after.execute(wanted.format("step, interaction"))) == old
    after.close()


async def test_a_new_journal_that_another_process_is_just_making_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file_in(tmp_path).parent.mkdir()
    other = apsw.Connection(str(file_in(tmp_path)))
    other.execute("BEGIN IMMEDIATE")
    looks: list[int] = []
    has_waited = asyncio.Event()
    loop = asyncio.get_running_loop()
    check_schema = sqlite_file.check_schema

    def counting(*args: Any) -> int:
        looks.append(check_schema(*args))
        if len(looks) == 2:
            loop.call_soon_threadsafe(has_waited.set)
        return looks[-1]

    monkeypatch.setattr(sqlite_file, "check_schema", counting)
    opening = asyncio.ensure_future(asyncio.to_thread(journal_at, tmp_path))
    async with asyncio.timeout(5):
        await has_waited.wait()
    other.execute("ROLLBACK")
    other.close()

    journal = await opening
    await journal.accept(new_run())
    await journal.close()


@promise("F13")
async def test_a_reader_of_an_older_schema_is_told_to_migrate_it(tmp_path: Path) -> None:
    file_in(tmp_path).parent.mkdir()
    shutil.copy(Path(__file__).parent / "fixtures" / "schema-1.db", file_in(tmp_path))
    before = file_in(tmp_path).read_bytes()
    reader = open_journal(f"sqlite:///{file_in(tmp_path)}", read_only=True)

    with pytest.raises(JournalError, match=r"written by an older PyFlue.* Start `pyflue dev`"):
        await reader.runs(RunFilter())

    assert (await reader.check()).problems == ()
    await reader.close()
    assert file_in(tmp_path).read_bytes() == before


@promise("F10")
async def test_a_caller_waits_for_a_locked_journal_and_is_then_told(tmp_path: Path) -> None:
    async with opened(tmp_path, busy_timeout_s=0.2) as journal:
        held = new_run()
        await journal.accept(held)
        other = apsw.Connection(str(file_in(tmp_path)))
        other.execute("BEGIN IMMEDIATE")

        patient = asyncio.ensure_future(journal.finish(fence_of(held), DONE))
        with pytest.raises(JournalBusy, match=r"for more than 0\.2 s"):
            await journal.accept(new_run())
        # Reading goes on, and what has no caller to tell waits for as long as it takes.
        assert len((await journal.runs(RunFilter())).runs) == 1
        assert not patient.done()

        other.execute("ROLLBACK")
        other.close()
        async with asyncio.timeout(5):
            assert await patient == DONE


@promise("F08")
async def test_a_full_disk_refuses_what_does_not_fit_and_is_recovered_from(small_disk: Path) -> None:
    lost: list[tuple[Fence, Exception | None]] = []
    async with opened(small_disk) as journal:
        journal.on_lost(lambda fence, error: lost.append((fence, error)))
        run = new_run()
        await journal.accept(run)
        ballast = small_disk / "ballast"
        with pytest.raises(OSError, match="No space left"), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)

        with pytest.raises(JournalFull, match="nothing was recorded"):
            await journal.accept(new_run(payload="y" * 10_000))
        journal.append(fence_of(run), new_event(data={"text": "z" * 400_000}))
        with pytest.raises(JournalFull):
            await journal.finish(fence_of(run), DONE)
        assert [(fence, type(error)) for fence, error in lost] == [(fence_of(run), JournalFull)]
        assert summary(await journal.events(run.run_id)) == [(1, "run_start")]

        ballast.unlink()

        # The attempt whose event was lost stays refused, so that no event is missing in the middle.
        with pytest.raises(JournalFull):
            await journal.finish(fence_of(run), DONE)
        other = new_run()
        await journal.accept(other)
        assert await journal.finish(fence_of(other), DONE) == DONE
        assert await journal.requeue(fence_of(run), crashed=False)
        (again,) = await journal.claim("engine-1", 1)
        assert await journal.finish(fence_of(run, attempt=again.attempt), DONE) == DONE


@promise("F08")
async def test_a_nearly_full_disk_refuses_files_and_lets_their_run_end(small_disk: Path) -> None:
    async with opened(small_disk) as journal:
        run = new_run()
        await journal.accept(run)
        large = FileRecord(workspace="main", path="large", data=os.urandom(700_000))
        with pytest.raises(JournalFull):
            await journal.record(fence_of(run), new_step(), attached=Attached(files=[large]))

        assert await journal.requeue(fence_of(run), crashed=False)
        (again,) = await journal.claim("engine-1", 1)
        assert list(await journal.files(run.run_id, "main")) == []
        assert await journal.finish(fence_of(run, attempt=again.attempt), DONE) == DONE


async def test_one_bad_record_does_not_harm_the_others_of_its_batch(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        twice = new_run()
        runs = [new_run() for _ in range(10)]
        answers = await asyncio.gather(
            journal.accept(twice),
            journal.accept(twice),
            *(journal.accept(new) for new in runs),
            return_exceptions=True,
        )
        assert [type(answer).__name__ for answer in answers] == ["Accepted", "JournalError", *["Accepted"] * 10]
        assert len((await journal.runs(RunFilter())).runs) == 11


async def test_a_wait_is_reported_as_ended_only_if_that_was_committed(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        good, bad = new_run(), new_run()
        heard: list[tuple[str, str]] = []
        journal.on_answered(heard.extend)
        for new in (good, bad):
            await journal.accept(new)
            await journal.open_wait(fence_of(new), new_wait())
            await journal.record(fence_of(new), new_step())

        answers = await asyncio.gather(
            journal.signal(good.run_id, new_signal()),
            journal.record(fence_of(bad), new_step()),
            journal.signal(bad.run_id, new_signal()),
            return_exceptions=True,
        )

        assert [type(answer).__name__ for answer in answers] == ["SignalAnswer", "JournalError", "SignalAnswer"]
        await journal.forget_keys()  # the callbacks come after the answers, but before later ones
        assert heard == [(good.run_id, "paid"), (bad.run_id, "paid")]


def test_opening_a_journal_imports_nothing_of_durable_calls() -> None:
    program = """
        import asyncio, sys
        from pyflue.codec import NULL
        from pyflue.journal import Fence, NewRun, Outcome, RunStatus, open_journal
        async def main():
            journal = open_journal("memory:")
            new = NewRun(run_id="workflow:x:1", workflow="x", kind="python", payload=NULL, owner="e")
            await journal.accept(new)
            await journal.answers_since(-1)
            await journal.finish(Fence(run_id=new.run_id, owner="e", attempt=1), Outcome(status=RunStatus.COMPLETED))
            await journal.close()
        asyncio.run(main())
        print([name for name in sys.modules if "journal" in name and ("call" in name or "conversation" in name)])
    """
    answer = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True, timeout=30
    )
    assert answer.stdout == "[]\n"


@promise("R8")
async def test_commits_of_another_process_wake_readers_and_engines(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal, asyncio.timeout(10):
        new = new_run()
        await journal.accept(new)
        woken = asyncio.Event()
        loop = asyncio.get_running_loop()
        journal.on_foreign_commit(lambda: loop.call_soon_threadsafe(woken.set))
        program = f"""
            import asyncio
            from pyflue.journal import open_journal
            async def main():
                journal = open_journal("sqlite:///{file_in(tmp_path)}")
                await journal.cancel("{new.run_id}")
                await journal.close()
            asyncio.run(main())
        """
        with journal.watch(new.run_id) as bell:
            child = await asyncio.create_subprocess_exec(sys.executable, "-c", textwrap.dedent(program))
            await bell.wait()
            await woken.wait()
            assert await child.wait() == 0
        assert list(await journal.cancel_requests("engine-1")) == [new.run_id]


@promise("F15")
async def test_processes_that_write_at_once_take_turns(tmp_path: Path) -> None:
    program = f"""
        import asyncio, sys
        from pyflue.journal import open_journal
        from tests.support import new_run
        async def main():
            journal = open_journal("sqlite:///{file_in(tmp_path)}")
            for _ in range(20):
                await asyncio.gather(*(journal.accept(new_run(owner=None)) for _ in range(10)))
            await journal.close()
        asyncio.run(main())
    """
    children = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", textwrap.dedent(program), cwd=Path.cwd())
        for _ in range(3)
    ]
    async with asyncio.timeout(30):
        assert [await child.wait() for child in children] == [0, 0, 0]
    async with opened(tmp_path) as journal:
        assert await journal.count_queued() == 600
        owned: list[list[str]] = [
            [run.run_id for run in runs]
            for runs in await asyncio.gather(*(journal.claim(f"engine-{n}", 300) for n in range(3)))
        ]
    assert [len(ids) for ids in owned] == [300, 300, 0]
    assert not set(owned[0]) & set(owned[1])


async def test_an_engine_is_alive_as_long_as_its_process(tmp_path: Path) -> None:
    program = f"""
        import asyncio, sys
        from pyflue.journal import open_journal
        from tests.support import new_run
        async def main():
            journal = open_journal("sqlite:///{file_in(tmp_path)}")
            journal.enlist("engine-of-child")
            await journal.accept(new_run(owner="engine-of-child"))
            print("ready", flush=True)
            sys.stdin.read()
        asyncio.run(main())
    """
    async with opened(tmp_path) as journal, asyncio.timeout(20):
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", textwrap.dedent(program),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=Path.cwd(),
        )  # fmt: skip
        assert child.stdout is not None
        assert await child.stdout.readline() == b"ready\n"
        assert list(await journal.lost()) == []

        child.kill()
        await child.wait()

        assert [run.owner for run in await journal.lost()] == ["engine-of-child"]


async def test_a_fork_does_not_keep_its_parents_engine_alive(tmp_path: Path) -> None:
    program = f"""
        import asyncio, os, sys, time
        from pyflue.journal import open_journal
        from tests.support import new_run
        async def main():
            journal = open_journal("sqlite:///{file_in(tmp_path)}")
            journal.enlist("engine-of-parent")
            await journal.accept(new_run(owner="engine-of-parent"))
            if os.fork() == 0:
                print("forked", os.getpid(), flush=True)
                os.close(1)  # or the parent would seem to live on to whoever reads its output
                time.sleep(60)
                os._exit(0)
            os._exit(0)
        asyncio.run(main())
    """
    async with opened(tmp_path) as journal, asyncio.timeout(20):
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-W",
            "ignore",
            "-c",
            textwrap.dedent(program),
            stdout=asyncio.subprocess.PIPE,
            cwd=Path.cwd(),
        )
        assert child.stdout is not None
        word, pid = (await child.stdout.readline()).split()
        try:
            assert word == b"forked"
            await child.wait()
            assert [run.owner for run in await journal.lost()] == ["engine-of-parent"]
        finally:
            os.kill(int(pid), 9)


async def test_a_reader_of_a_file_neither_creates_nor_changes_anything(tmp_path: Path) -> None:
    with pytest.raises(JournalUnreadable, match="there is no such file"):
        open_journal(f"sqlite:///{tmp_path / 'none.db'}", read_only=True)
    assert list(tmp_path.iterdir()) == []


def test_a_network_file_system_and_an_unknown_address_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(JournalUnsupported, match="known are sqlite:///path and memory:"):
        open_journal("redis://localhost")
    monkeypatch.setattr("pyflue.journal.sqlite_file.file_system_of", lambda folder: "nfs4")
    with pytest.raises(JournalUnsupported, match="nfs4 is a network file system"):
        journal_at(tmp_path)


@promise("R1")
async def test_the_log_is_copied_into_the_file_while_the_writer_goes_on(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        run = new_run()
        await journal.accept(run)
        before = file_in(tmp_path).stat().st_size
        # More than what a checkpoint is asked for at, and far from what the writer would pause for.
        for number in range(28):
            await journal.keep_blob(run.run_id, bytes([number]) * 1024**2)

        async with asyncio.timeout(30):
            while file_in(tmp_path).stat().st_size < before + 24 * 1024**2:
                await journal.keep_blob(run.run_id, b"another look")

    assert file_in(tmp_path).stat().st_size > before + 28 * 1024**2


@promise("R1")
async def test_the_log_begins_anew_before_it_is_too_long(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        run = new_run()
        await journal.accept(run)
        for number in range(200):
            await journal.keep_blob(run.run_id, bytes([number]) * 1024**2)

        log = file_in(tmp_path).with_name("journal.db-wal")
        assert log.stat().st_size < 66 * 1024**2


@pytest.mark.parametrize("writer_process", [False, True])
async def test_the_log_is_synced_before_an_accept_is_answered(tmp_path: Path, writer_process: bool) -> None:
    journal = journal_at(tmp_path, busy_timeout_s=5)
    await journal.close()
    connection = open_journal(
        f"sqlite:///{file_in(tmp_path)}", settings=JournalSettings(), writer_process=writer_process
    )
    # The setting is invisible from outside, and all rests on it. The connection belongs to the writer's thread.
    write = connection._write  # type: ignore[attr-defined]
    assert await write("db.pragma", "synchronous") == 2
    await connection.close()
