"""Processes that die: kill -9 at any moment, restarts, poison runs, stopped engines."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from pyflue.errors import PyFlueError, RunFinished
from pyflue.journal import RunStatus
from tests.promises import promise

from .processes import Server, all_runs, make_project, reading, running, start, until_final, value, whole_record

pytestmark = pytest.mark.timeout(300)

ECHO = """
    async def run(ctx):
        return ctx.payload
"""
#: Ends by itself, but not at once; each attempt leaves a line.
SLOW = """
    import asyncio

    async def run(ctx):
        ctx.log.info("started", attempt=ctx.attempt)
        with LOG.open("a") as log:
            log.write(f"start {ctx.id} {ctx.attempt}\\n")
        for number in range(ctx.payload.get("ticks", 10)):
            await asyncio.sleep(0.02)
            ctx.log.info("tick", number=number)
        with LOG.open("a") as log:
            log.write(f"end {ctx.id} {ctx.attempt}\\n")
        return ctx.payload
"""
BLOCKING = """
    import time

    def run(ctx):
        ctx.log.info("started")
        while not Path(ctx.payload["until"]).exists():
            time.sleep(0.01)
        ctx.log.info("late")
        return "done"
"""
POISON = """
    import os

    async def run(ctx):
        os._exit(9)
"""
CRASH = """
    import ctypes

    def run(ctx):
        ctypes.string_at(0)
"""


@promise("F01", "R1", "R6")
async def test_every_run_that_was_answered_202_survives_a_kill_at_that_moment(tmp_path: Path) -> None:
    root = make_project(tmp_path, echo=ECHO, slow=SLOW)
    accepted: dict[str, object] = {}
    for number in range(50):
        async with running(root) as server:
            payload = {"number": number, "ticks": 2}
            answer = await server.client.workflows.invoke("slow" if number % 2 else "echo", payload)
            server.process.kill()
            accepted[answer["run_id"]] = payload
    async with running(root), reading(root) as journal:
        runs = await until_final(journal, list(accepted))
        for run in runs:
            assert run.status is RunStatus.COMPLETED
            assert value(run.payload) == value(run.result) == accepted[run.run_id]
            await whole_record(journal, run)
        assert len(await all_runs(journal)) == 50


@promise("F01", "F06", "R4", "R6")
@pytest.mark.parametrize("writer_process", ["false", "true"])
async def test_200_runs_in_flight_survive_20_kills_at_random_moments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer_process: str
) -> None:
    monkeypatch.setenv("PYFLUE_JOURNAL_WRITER_PROCESS", writer_process)
    seed = int(os.environ.get("PYFLUE_TEST_SEED", "0")) or random.randrange(10**9)
    print(f"PYFLUE_TEST_SEED={seed}")
    chance = random.Random(seed)
    root = make_project(tmp_path, slow=SLOW)
    accepted: list[str] = []

    async def submit_until_killed(server: object, count: int) -> None:
        with contextlib.suppress(PyFlueError, OSError):
            for _ in range(count):
                ticks = chance.randrange(1, 60)
                answer = await server.client.workflows.invoke("slow", {"ticks": ticks})  # type: ignore[attr-defined]
                accepted.append(answer["run_id"])

    for cycle in range(20):
        async with running(root) as server:
            filling = asyncio.create_task(submit_until_killed(server, 200 if cycle == 0 else 10))
            if cycle == 0:
                await filling
            # A kill is not waited for, it comes at some moment: this is what the test is about.
            await asyncio.sleep(chance.uniform(0, 0.8))
            server.process.kill()
            await server.process.wait()
            await filling
    async with running(root), reading(root) as journal:
        runs = await until_final(journal, accepted, timeout_s=120)
        assert Counter(run.status for run in runs) == {RunStatus.COMPLETED: len(accepted)}
        known = {run.run_id for run in await all_runs(journal)}
        assert set(accepted) <= known
        for run in runs:
            events = await whole_record(journal, run)
            starts = [event for event in events if event.type in {"run_start", "run_resumed"}]
            assert len(starts) == run.attempt


@promise("F05")
async def test_sigterm_hands_running_runs_back_in_time(tmp_path: Path) -> None:
    root = make_project(tmp_path, slow=SLOW, blocking=BLOCKING)
    until = tmp_path / "go"
    async with running(root) as server, reading(root) as journal:
        ids = [(await server.client.workflows.invoke("slow", {"ticks": 400}))["run_id"] for _ in range(20)]
        ids.append((await server.client.workflows.invoke("blocking", {"until": str(until)}))["run_id"])
        for run_id in ids:
            async for event in server.client.runs.stream(run_id):
                if event["type"] == "log":
                    break
        asked_at = time.monotonic()
        assert await server.terminate() == 0
        assert time.monotonic() - asked_at < 10
        assert {run.status for run in await all_runs(journal)} == {RunStatus.QUEUED}
    until.touch()
    async with running(root) as server, reading(root) as journal:
        (blocking,) = await until_final(journal, ids[-1:])
        assert (blocking.status, blocking.attempt, blocking.crashes) == (RunStatus.COMPLETED, 2, 0)
        for run_id in ids[:-1]:
            await server.client.runs.cancel(run_id)


@promise("F06")
async def test_a_restart_storm_fails_and_duplicates_nothing(tmp_path: Path) -> None:
    root = make_project(tmp_path, slow=SLOW)
    async with running(root) as server:
        ids = [(await server.client.workflows.invoke("slow", {"ticks": 60}))["run_id"] for _ in range(20)]
    for _ in range(12):
        async with running(root):
            await asyncio.sleep(0.2)
    async with running(root), reading(root) as journal:
        runs = await until_final(journal, ids)
        assert {run.status for run in runs} == {RunStatus.COMPLETED}
        ends = Counter(line.split()[1] for line in (tmp_path / "log.txt").read_text().splitlines() if line[0] == "e")
    assert ends == dict.fromkeys(ids, 1)


@promise("F07")
@pytest.mark.parametrize(("source", "how"), [(POISON, "exit code 9"), (CRASH, "signal 11")], ids=["exit", "segfault"])
async def test_a_run_that_ends_its_process_fails_and_its_neighbours_do_not(
    tmp_path: Path, source: str, how: str
) -> None:
    root = make_project(tmp_path, poison=source, slow=SLOW)
    async with running(root) as server:
        neighbours = [(await server.client.workflows.invoke("slow", {"ticks": 30}))["run_id"] for _ in range(3)]
        poison = (await server.client.workflows.invoke("poison", {}))["run_id"]
        await server.process.wait()
    crashes = 1
    while True:
        async with running(root) as server, reading(root) as journal:
            ended = asyncio.create_task(server.process.wait())
            final = asyncio.create_task(until_final(journal, [poison]))
            await asyncio.wait([ended, final], return_when=asyncio.FIRST_COMPLETED)
            if final.done():
                (run,) = final.result()
                others = await until_final(journal, neighbours)
                assert (await server.client.health())["ok"]
                ended.cancel()
                break
            final.cancel()
            crashes += 1
    assert crashes == 2
    error = value(run.error)
    assert (run.status, error["type"]) == (RunStatus.FAILED, "crash_loop")
    # Twice among others, then in ever smaller company: with three neighbours that is at most three times more.
    assert 3 <= run.attempt <= 5
    assert f"alone in a process of its own ({how})" in error["message"]
    assert {other.status for other in others} == {RunStatus.COMPLETED}


async def test_a_cancellation_asked_for_while_no_server_runs_is_honoured_at_start(tmp_path: Path) -> None:
    root = make_project(tmp_path, slow=SLOW)
    async with running(root) as server:
        run_id = (await server.client.workflows.invoke("slow", {"ticks": 500}))["run_id"]
        async for event in server.client.runs.stream(run_id):
            if event["type"] == "log":
                break
    asking = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pyflue.cli", "--project", str(root), "runs", "cancel", run_id,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    await asking.communicate()
    async with running(root), reading(root) as journal:
        (run,) = await until_final(journal, [run_id])
    assert (run.status, run.attempt) == (RunStatus.CANCELLED, 1)


async def test_cancelling_is_final_in_time_and_stops_a_sync_run_at_once(tmp_path: Path) -> None:
    root = make_project(tmp_path, slow=SLOW, blocking=BLOCKING)
    until = tmp_path / "go"
    async with running(root) as server, reading(root) as journal:
        for name, payload in (("slow", {"ticks": 500}), ("blocking", {"until": str(until)})):
            run_id = (await server.client.workflows.invoke(name, payload))["run_id"]
            async for event in server.client.runs.stream(run_id):
                if event["type"] == "log":
                    break
            asked_at = time.monotonic()
            assert (await server.client.runs.cancel(run_id))["status"] == "cancelled"
            assert time.monotonic() - asked_at < 2
            with pytest.raises(RunFinished) as refused:
                await server.client.runs.cancel(run_id)
            assert refused.value.details == {"status": "cancelled"}
        until.touch()
        # The thread of the sync run goes on for a moment; what it writes is refused.
        assert (await server.client.workflows.invoke("slow", {"ticks": 5}, wait=True))["status"] == "completed"
        run = await journal.run(run_id)
        assert run is not None
        events = await whole_record(journal, run)
    assert [event.type for event in events] == ["run_start", "log", "run_end"]


@promise("F15")
@pytest.mark.parametrize("first_dies", [True, False])
async def test_of_two_servers_on_one_project_either_may_die(tmp_path: Path, first_dies: bool) -> None:
    root = make_project(tmp_path, slow=SLOW)
    async with running(root) as first, running(root) as second, reading(root) as journal:
        ids: list[str] = []
        for number in range(20):
            server = first if number % 2 else second
            ids.append((await server.client.workflows.invoke("slow", {"ticks": 40}))["run_id"])
        owners = {run.owner for run in await all_runs(journal)}
        assert len(owners) == 2
        await (first if first_dies else second).kill()
        runs = await until_final(journal, ids)
        assert Counter((run.status, run.attempt) for run in runs) == {
            (RunStatus.COMPLETED, 1): 10,
            (RunStatus.COMPLETED, 2): 10,
        }
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert Counter(line.split()[1] for line in lines if line.startswith("end")) == dict.fromkeys(ids, 1)


@promise("F15")
async def test_a_run_of_the_command_line_beside_a_server_is_driven_once(tmp_path: Path) -> None:
    root = make_project(tmp_path, slow=SLOW)
    async with running(root, "dev") as server, reading(root) as journal:
        here = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "pyflue.cli", "--project", str(root), "run", "slow", "--payload", '{"ticks": 40}',
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        there = (await server.client.workflows.invoke("slow", {"ticks": 20}))["run_id"]
        assert here.stderr is not None
        run_id = (await here.stderr.readline()).decode().split()[1]
        # The command dies in the middle: the server takes its run over.
        async for event in server.client.runs.stream(run_id):
            if event["type"] == "log":
                break
        here.kill()
        await here.communicate()
        ours, theirs = await until_final(journal, [run_id, there])
    assert (ours.status, ours.attempt) == (RunStatus.COMPLETED, 2)
    assert (theirs.status, theirs.attempt) == (RunStatus.COMPLETED, 1)


async def _stop_between_writes(server: Server, root: Path) -> None:
    """Stop a server while it does not hold the journal's turn: with that in its hand nobody else could write."""
    while True:
        server.signal(signal.SIGSTOP)
        while Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
            await asyncio.sleep(0.001)
        with (root / ".pyflue" / "turn.pen.lock").open("rb") as pen:
            try:
                fcntl.flock(pen, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                server.signal(signal.SIGCONT)
                await asyncio.sleep(0.01)
            else:
                return


@promise("R9")
async def test_late_writes_of_a_stopped_engine_are_refused_after_its_run_was_taken_over(tmp_path: Path) -> None:
    """An engine hangs (SIGSTOP), an operator declares it dead by deleting its lock, it wakes up again."""
    root = make_project(tmp_path, slow=SLOW)
    async with running(root) as first, running(root) as second, reading(root) as journal:
        run_id = (await first.client.workflows.invoke("slow", {"ticks": 100}))["run_id"]
        async for event in first.client.runs.stream(run_id):
            if event["type"] == "log":
                break
        before = await journal.run(run_id)
        assert before is not None
        await _stop_between_writes(first, root)
        (root / ".pyflue" / "engines" / f"{before.owner}.lock").unlink()
        async for event in second.client.runs.stream(run_id):
            if event["type"] == "run_resumed":
                break
        first.signal(signal.SIGCONT)
        (run,) = await until_final(journal, [run_id])
        events = await whole_record(journal, run)
        assert (run.status, run.attempt) == (RunStatus.COMPLETED, 2)
    resumed = next(event.index for event in events if event.type == "run_resumed")
    ticks = [value(event.data)["number"] for event in events[resumed:] if value(event.data).get("message") == "tick"]
    assert ticks == list(range(100))


@promise("R5", "F23")
async def test_a_reader_cut_300_times_sees_each_event_once_across_a_restart(tmp_path: Path) -> None:
    seed = int(os.environ.get("PYFLUE_TEST_SEED", "0")) or random.randrange(10**9)
    print(f"PYFLUE_TEST_SEED={seed}")
    chance = random.Random(seed)
    talker = """
        import asyncio

        async def run(ctx):
            for number in range(1998 - (1 if ctx.attempt > 1 else 0)):
                ctx.log.info("tick", number=number)
                if number % 20 == 0:
                    await asyncio.sleep(0.005)
    """
    root = make_project(tmp_path, talker=talker)
    server = await start(root)
    run_id = (await server.client.workflows.invoke("talker", {}))["run_id"]
    seen: list[int] = []
    cuts = 0
    while not seen or cuts < 300:
        if cuts == 150:
            await server.kill()
            server = await start(root)
        if await _read_some(server.url, run_id, seen, chance):
            seen_all = list(seen)
            break
        cuts += 1
    else:
        seen.extend([event["index"] async for event in server.client.runs.stream(run_id, after=seen[-1])])
        seen_all = seen
    await server.kill()
    assert cuts == 300
    assert seen_all == list(range(1, len(seen_all) + 1))
    assert len(seen_all) >= 2000


async def _read_some(url: str, run_id: str, seen: list[int], chance: random.Random) -> bool:
    """Read a random number of bytes of the stream, keep the whole frames; True if the run's end was among them."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    last = f"Last-Event-ID: {seen[-1]}\r\n" if seen else ""
    writer.write(f"GET /runs/{run_id}/stream HTTP/1.1\r\nHost: localhost\r\n{last}\r\n".encode())
    data = b""
    most = chance.randrange(300, 2500)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1):
            while len(data) < most and (part := await reader.read(most - len(data))):
                data += part
    writer.close()
    ended = False
    body = data.partition(b"\r\n\r\n")[2]
    # Chunk sizes lie between the frames; a frame counts when its blank line has come.
    frames = body.split(b"\n\n")[:-1]
    for frame in frames:
        lines = [line.strip() for line in frame.splitlines()]
        seen.extend(int(line[4:]) for line in lines if line.startswith(b"id: "))
        ended = ended or b"event: run_end" in lines
    return ended


@promise("F05")
async def test_a_workflow_that_refuses_to_end_does_not_keep_the_server_alive(tmp_path: Path) -> None:
    stubborn = """
        import asyncio

        async def run(ctx):
            ctx.log.info("started")
            while True:
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    pass
    """
    root = make_project(tmp_path, stubborn=stubborn)
    async with running(root) as server, reading(root) as journal:
        run_id = (await server.client.workflows.invoke("stubborn", {}))["run_id"]
        async for event in server.client.runs.stream(run_id):
            if event["type"] == "log":
                break
        asked_at = time.monotonic()
        assert await server.terminate() == 0
        assert time.monotonic() - asked_at < 10
        run = await journal.run(run_id)
        assert run is not None
        assert run.status is RunStatus.QUEUED
