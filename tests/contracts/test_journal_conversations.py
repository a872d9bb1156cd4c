"""The contract of the `Journal` port about agents, run against every adapter: instances, lanes, entries, files."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from pyflue import codec, ids
from pyflue.clock import to_datetime
from pyflue.errors import JournalError
from pyflue.journal import (
    Accepted,
    ApprovalFilter,
    Attached,
    Copies,
    Entry,
    Event,
    Fence,
    FileRecord,
    FileVersion,
    History,
    Journal,
    NewEntry,
    NewRun,
    Outcome,
    RunFilter,
    RunStatus,
    SessionInfo,
    SignalAnswer,
    StepStatus,
    StreamInfo,
    WaitKind,
    follow,
    open_journal,
)
from tests.contracts.test_journal_calls import (
    StillClock,
    clock_for,
    decision,
    new_park,
    new_signal,
    new_step,
    new_wait,
    refused,
    the_run,
)
from tests.promises import promise
from tests.support import fence_of, new_event, new_run, raw, summary

DONE = Outcome(status=RunStatus.COMPLETED, result=raw({"text": "Hello Ada"}))
BROKEN = Outcome(status=RunStatus.FAILED, error=raw({"type": "exception", "message": "Disk on fire"}))
STREAM = "agent:helper:ada"


@pytest.fixture(params=["memory", "sqlite", "process"])
def kind(request: pytest.FixtureRequest) -> str:
    """Where the journal is; the last one is a file that a process of its own writes."""
    return request.param


@pytest.fixture
def url(kind: str, tmp_path: Path) -> str:
    return "memory:" if kind == "memory" else f"sqlite:///{tmp_path / '.pyflue' / 'journal.db'}"


@pytest.fixture
def clock(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StillClock:
    return clock_for(kind, tmp_path, monkeypatch)


@pytest.fixture
async def journal(url: str, kind: str, clock: StillClock) -> AsyncIterator[Journal]:
    journal = open_journal(url, clock=clock, writer_process=kind == "process")
    journal.enlist("engine-1")
    yield journal
    await journal.close()


def new_interaction(stream_id: str = STREAM, payload: Any = None, **fields: Any) -> NewRun:
    """An interaction to accept, in no lane unless said otherwise."""
    agent, _ = ids.parse_agent_stream(stream_id) or ("", "")
    new = new_run(payload=payload, workflow=agent, kind="agent", **{"owner": None, **fields})
    return replace(new, run_id=ids.new_interaction_id(stream_id))


async def begun(journal: Journal, new: NewRun) -> Fence:
    """The right to write for a queued run, which is claimed."""
    (run,) = await journal.claim("engine-1", 1, run_ids=[new.run_id])
    return Fence(run_id=run.run_id, owner="engine-1", attempt=run.attempt)


async def started(journal: Journal, new: NewRun | None = None) -> tuple[NewRun, Fence]:
    new = new or new_interaction()
    await journal.accept(new)
    return new, await begun(journal, new)


def ulid_of(new: NewRun) -> str:
    return new.run_id.rpartition(":")[2]


def said(text: str, session: str = "main") -> NewEntry:
    return NewEntry(session=session, entry=raw({"text": text}))


def file(path: str, data: bytes | None = b"", **fields: Any) -> FileRecord:
    return FileRecord(path=path, data=data, **{"workspace": "main", **fields})


async def texts(journal: Journal, stream_id: str, session: str = "main") -> list[tuple[int, str]]:
    return [(entry.position, codec.load(entry.entry)["text"]) for entry in await journal.entries(stream_id, session)]


async def contents(journal: Journal, stream_id: str, workspace: str = "main") -> list[tuple[int, str, bytes | None]]:
    return [(it.position, it.file.path, it.file.data) for it in await journal.files(stream_id, workspace)]


def content_name(data: bytes) -> str:
    return f"file:sha256:{hashlib.sha256(data).hexdigest()}"


# Ids


def test_the_id_of_an_interaction_names_the_stream_of_its_instance() -> None:
    stream_id = ids.agent_stream("helper", "ada@example.org")
    run_id = ids.new_interaction_id(stream_id)

    assert stream_id == "agent:helper:ada@example.org"
    assert ids.parse_agent_stream(stream_id) == ("helper", "ada@example.org")
    assert (ids.is_interaction(run_id), ids.stream_of(run_id)) == (True, stream_id)
    assert ids.split_interaction_id(run_id) == (stream_id, run_id.removeprefix(f"{stream_id}:"))
    assert ids.parse_agent_stream(run_id) is None
    assert ids.workflow_of(run_id) is None


@pytest.mark.parametrize("text", [ids.new_run_id("agent"), STREAM, f"{STREAM}:1", "agent", "", f"x{STREAM}:{'0' * 26}"])
def test_any_other_id_is_its_own_stream(text: str) -> None:
    assert (ids.is_interaction(text), ids.stream_of(text)) == (False, text)


@pytest.mark.parametrize("instance_id", ["", "a" * 129, "a:b", "a/b", "ä", "a b", "a\n", "%41"])
def test_an_instance_id_that_would_need_quoting_is_refused(instance_id: str) -> None:
    with pytest.raises(ValueError, match="cannot name an agent and its instance"):
        ids.agent_stream("helper", instance_id)
    assert ids.parse_agent_stream(f"agent:helper:{instance_id}") is None


@pytest.mark.parametrize("instance_id", ["a", "a" * 128, "A-Za-z0-9._~@+=-", "0"])
def test_an_instance_id_may_be_whatever_a_path_takes_as_it_is(instance_id: str) -> None:
    assert ids.parse_agent_stream(ids.agent_stream("helper", instance_id)) == ("helper", instance_id)


# Interactions


async def test_an_accepted_interaction_is_on_its_stream_and_in_no_list_of_runs(
    journal: Journal, clock: StillClock
) -> None:
    workflow_run = new_run()
    await journal.accept(workflow_run)
    new = new_interaction(payload={"message": "Hi"})

    assert await journal.accept(new) == Accepted(run_id=new.run_id)

    now = to_datetime(clock.now_us())
    accepted = Event(
        stream_id=STREAM,
        index=1,
        type="interaction_accepted",
        at=now,
        data=raw({"message": "Hi"}),
        interaction=ulid_of(new),
    )
    assert list(await journal.events(STREAM)) == list(await journal.events(new.run_id)) == [accepted]
    assert accepted.to_dict()["interaction_id"] == ulid_of(new)
    assert await journal.stream(STREAM) == StreamInfo(
        stream_id=STREAM, last_index=1, created_at=now, updated_at=now, seq=1
    )
    run = await the_run(journal, new.run_id)
    assert (run.status, run.workflow, run.last_index) == (RunStatus.QUEUED, "helper", 1)
    assert [run.run_id for run in (await journal.runs(RunFilter())).runs] == [workflow_run.run_id]
    assert list((await journal.runs(RunFilter(workflows=["helper"]))).runs) == []
    assert [run.run_id for run in (await journal.interactions(STREAM)).runs] == [new.run_id]
    assert (await journal.count_queued(), await journal.has_queued()) == (1, True)


async def test_what_runs_say_of_their_life_interactions_say_on_their_stream(journal: Journal) -> None:
    new = new_interaction()
    await journal.accept(new)
    (first,) = await journal.claim("engine-1", 5)
    fence = Fence(run_id=new.run_id, owner="engine-1", attempt=first.attempt)
    await journal.open_wait(fence, new_wait(), park=new_park())
    assert await journal.signal(new.run_id, new_signal()) is SignalAnswer.DELIVERED
    await journal.record(fence, new_step(), [new_event("turn", {"text": "Hm"})])
    assert [run.run_id for run in await journal.unfinished()] == [new.run_id]
    await journal.requeue(fence, crashed=True)
    fence = await begun(journal, new)

    assert await journal.finish(fence, DONE) == DONE

    events = await journal.events(STREAM)
    assert summary(list(events)) == [
        (1, "interaction_accepted"),
        (2, "interaction_start"),
        (3, "interaction_waiting"),
        (4, "signal"),
        (5, "step_end"),
        (6, "turn"),
        (7, "interaction_resumed"),
        (8, "interaction_end"),
    ]
    assert {event.interaction for event in events} == {ulid_of(new)}
    assert codec.load(events[-1].data) == {"status": "completed", "result": {"text": "Hello Ada"}}
    assert list(await journal.events(new.run_id)) == list(events)
    run = await the_run(journal, new.run_id)
    assert (run.status, run.result, run.last_index) == (RunStatus.COMPLETED, DONE.result, 8)


async def test_a_failed_or_cancelled_interaction_says_so_on_its_stream(journal: Journal) -> None:
    _, fence = await started(journal)
    queued = new_interaction()
    await journal.accept(queued)

    await journal.finish(fence, BROKEN)
    await journal.cancel(queued.run_id)

    ends = [codec.load(event.data) for event in await journal.events(STREAM, types=["interaction_end"])]
    assert ends == [
        {"status": "failed", "error": {"type": "exception", "message": "Disk on fire"}},
        {"status": "cancelled"},
    ]


async def test_interactions_share_the_numbers_of_their_stream_and_keep_their_own(
    journal: Journal, clock: StillClock
) -> None:
    one, fence = await started(journal)
    clock.offset_us += 10
    other, other_fence = await started(journal)
    elsewhere, _ = await started(journal, new_interaction("agent:helper:bob"))
    journal.append(fence, new_event("log"))
    await journal.settle(fence)
    journal.append(other_fence, new_event("progress"))
    await journal.settle(other_fence)
    clock.offset_us += 10

    assert await journal.record(fence, new_step(), [new_event("log")]) == 4
    assert await journal.record(other_fence, new_step()) == 3

    assert [(e.index, e.type, e.interaction == ulid_of(one)) for e in await journal.events(STREAM)] == [
        (1, "interaction_accepted", True),
        (2, "interaction_start", True),
        (3, "interaction_accepted", False),
        (4, "interaction_start", False),
        (5, "log", True),
        (6, "progress", False),
        (7, "log", True),
    ]
    assert [event.index for event in await journal.events(one.run_id)] == [1, 2, 5, 7]
    assert [event.index for event in await journal.events(one.run_id, after=2, limit=1)] == [5]
    assert [event.index for event in await journal.events(one.run_id, types=["log"])] == [5, 7]
    assert [event.index for event in await journal.events(other.run_id, after=3)] == [4, 6]
    assert await journal.first_event_since(other.run_id, clock.now_us() - 10) == 2
    assert len(await journal.events("agent:helper:bob")) == (await the_run(journal, elsewhere.run_id)).last_index == 2
    info = await journal.stream(STREAM)
    assert info is not None
    assert (info.last_index, info.updated_at) == (7, to_datetime(clock.now_us()))


async def test_large_payloads_and_results_are_blobs_of_the_stream(journal: Journal) -> None:
    text = "x" * 1_000_000
    new, fence = await started(journal, new_interaction(payload={"message": text}))
    await journal.finish(fence, Outcome(status=RunStatus.COMPLETED, result=raw(text)))
    await journal.delete(new.run_id)

    accepted, _, end = [codec.load(event.data) for event in await journal.events(STREAM)]

    assert (set(accepted), set(end)) == ({"blob", "size_bytes"}, {"status", "blob", "size_bytes"})
    assert end["status"] == "completed"
    kept = await journal.blob(STREAM, accepted["blob"]), await journal.blob(STREAM, end["blob"])
    assert [codec.load(data) for data in kept if data is not None] == [
        {"message": text},
        {"status": "completed", "result": text},
    ]


async def test_both_the_stream_and_the_interaction_ring(journal: Journal) -> None:
    _, fence = await started(journal)
    with journal.watch(STREAM) as of_stream, journal.watch(fence.run_id) as of_interaction:
        async with asyncio.timeout(5):
            await journal.record(fence, new_step(), attached=Attached(entries=[said("Hi")]))
            await of_stream.wait()
            journal.append(fence, new_event())
            await of_stream.wait()
            await of_interaction.wait()


async def collect(events: AsyncIterator[Event], into: list[int], enough: asyncio.Event, count: int) -> None:
    async for event in events:
        into.append(event.index)
        if len(into) == count:
            enough.set()


async def test_a_follower_of_a_stream_may_come_first_and_leaves_when_it_is_deleted(journal: Journal) -> None:
    seen: list[int] = []
    enough = asyncio.Event()
    follower = asyncio.ensure_future(collect(follow(journal, STREAM), seen, enough, 6))
    async with asyncio.timeout(5):
        for _ in range(2):
            _, fence = await started(journal)
            await journal.finish(fence, DONE)
        await enough.wait()
        await journal.forget_keys()
        assert not follower.done()

        assert await journal.delete_stream(STREAM) is True
        await follower

    assert seen == [1, 2, 3, 4, 5, 6]


async def test_a_follower_of_an_interaction_leaves_at_its_end(journal: Journal) -> None:
    new, fence = await started(journal)
    await started(journal)
    journal.append(fence, new_event())
    await journal.finish(fence, DONE)

    async with asyncio.timeout(5):
        assert [event.index async for event in follow(journal, new.run_id)] == [1, 2, 5, 6]
        assert [event.index async for event in follow(journal, new.run_id, after=6)] == []
        await journal.delete(new.run_id)
        assert [event.index async for event in follow(journal, new.run_id, after=2)] == [5, 6]


async def test_approvals_of_interactions_are_listed_and_decided_as_any(journal: Journal) -> None:
    new, fence = await started(journal)
    wait = new_wait(WaitKind.APPROVAL, "refund")
    await journal.open_wait(fence, wait, park=new_park())

    (approval,) = await journal.approvals(ApprovalFilter(workflows=["helper"], run_id=new.run_id))
    decided = await journal.decide(wait.wait_id, decision())

    assert (approval.wait.run_id, approval.workflow) == (new.run_id, "helper")
    assert decided is not None
    assert decided.is_recorded
    assert summary(list(await journal.events(STREAM, after=3))) == [(4, "approval_decided"), (5, "step_end")]


@pytest.mark.parametrize("how", ["one by one", "by age"])
async def test_a_deleted_interaction_leaves_what_it_said(journal: Journal, clock: StillClock, how: str) -> None:
    new, fence = await started(journal)
    await journal.record(fence, new_step(), attached=Attached(entries=[said("Hi")], files=[file("a.txt", b"A")]))
    await journal.finish(fence, DONE)

    if how == "by age":
        assert await journal.delete_finished(before_us=clock.now_us() + 1, limit=10) == [new.run_id]
    else:
        assert await journal.delete(new.run_id) is RunStatus.COMPLETED

    assert await journal.run(new.run_id) is None
    assert await journal.history(new.run_id) == History(steps=[], waits=[])
    assert [event.index for event in await journal.events(STREAM)] == [1, 2, 3]
    assert await texts(journal, STREAM) == [(1, "Hi")]
    assert await contents(journal, STREAM) == [(1, "a.txt", b"A")]


async def test_a_stream_is_deleted_with_everything_once_nothing_of_it_goes_on(journal: Journal) -> None:
    new, fence = await started(journal, new_interaction(idempotency_key="once", payload="x" * 1_000_000))
    _, other_fence = await started(journal, new_interaction("agent:helper:bob"))
    attached = Attached(entries=[said("Hi")], files=[file("a.txt", b"A")])
    for one in (fence, other_fence):
        await journal.record(one, new_step(), attached=attached)
    (accepted,) = await journal.events(STREAM, limit=1)

    assert await journal.delete_stream("agent:helper:eve") is None
    assert await journal.delete_stream(STREAM) is False
    assert await texts(journal, STREAM) == [(1, "Hi")]
    await journal.finish(fence, DONE)
    assert await journal.delete_stream(STREAM) is True

    assert (await journal.stream(STREAM), await journal.run(new.run_id)) == (None, None)
    assert list(await journal.events(STREAM)) == list(await journal.sessions(STREAM)) == []
    assert await contents(journal, STREAM) == []
    assert await journal.blob(STREAM, content_name(b"A")) is None
    assert await journal.blob(STREAM, codec.load(accepted.data)["blob"]) is None
    assert await texts(journal, "agent:helper:bob") == [(1, "Hi")]
    assert await contents(journal, "agent:helper:bob") == [(1, "a.txt", b"A")]
    again = new_interaction(idempotency_key="once")
    assert await journal.accept(again) == Accepted(run_id=again.run_id)
    assert [event.index for event in await journal.events(STREAM)] == [1]


async def test_streams_and_interactions_are_listed_newest_first_in_parts(journal: Journal) -> None:
    streams = [f"agent:helper:{number}" for number in range(5)]
    interactions = [new_interaction(streams[0]) for _ in range(5)]
    for new in (new_interaction("agent:other:0"), *map(new_interaction, streams[1:])):
        await journal.accept(new)
    for new in interactions:
        await journal.accept(new)

    first = await journal.streams("helper", limit=3)
    rest = await journal.streams("helper", before=first[-1].seq)
    page = await journal.interactions(streams[0], limit=3)
    last = await journal.interactions(streams[0], before=page.next_before)

    assert [info.stream_id for info in first] == [streams[0], streams[4], streams[3]]
    assert [info.stream_id for info in rest] == [streams[2], streams[1]]
    assert [run.run_id for run in page.runs] == [new.run_id for new in interactions[:1:-1]]
    assert [run.run_id for run in last.runs] == [new.run_id for new in interactions[1::-1]]
    assert last.next_before is None


async def test_interactions_that_keep_crashing_are_suspects(journal: Journal) -> None:
    new, fence = await started(journal)
    for _ in range(2):
        await journal.requeue(fence, crashed=True)
        fence = await begun(journal, new)
    await journal.requeue(fence, crashed=True)

    assert list(await journal.suspects(3)) == [new.run_id]
    assert await journal.has_queued(max_crashes=3) is False


# Lanes


async def test_runs_of_a_lane_go_one_after_the_other(journal: Journal) -> None:
    runs = [new_interaction(lane="ada/main") for _ in range(3)]
    other = new_interaction(lane="ada/other")
    for new in (*runs, other):
        await journal.accept(new)

    assert [run.run_id for run in await journal.claim("engine-1", 10)] == [runs[0].run_id, other.run_id]
    assert list(await journal.claim("engine-1", 10, run_ids=[runs[2].run_id, runs[1].run_id])) == []
    assert (await journal.has_queued(), await journal.count_queued()) == (False, 2)

    await journal.finish(Fence(run_id=runs[0].run_id, owner="engine-1", attempt=1), DONE)

    assert await journal.has_queued() is True
    claimed = await journal.claim("engine-1", 10, run_ids=[runs[2].run_id, runs[1].run_id])
    assert [run.run_id for run in claimed] == [runs[1].run_id]


async def test_a_run_with_a_lane_is_queued_even_if_it_names_an_owner(journal: Journal) -> None:
    new = new_run(owner="engine-1", lane="main")
    await journal.accept(new)
    run = await the_run(journal, new.run_id)
    assert (run.status, run.owner, run.attempt, run.last_index) == (RunStatus.QUEUED, None, 0, 0)


async def test_an_interaction_with_an_owner_and_no_lane_starts_at_once(journal: Journal) -> None:
    new = new_interaction(owner="engine-1")
    await journal.accept(new)
    assert summary(list(await journal.events(STREAM))) == [(1, "interaction_accepted"), (2, "interaction_start")]
    assert await journal.record(fence_of(new), new_step()) == 2


async def test_the_end_of_a_lanes_run_tells_that_the_next_may_begin(journal: Journal) -> None:
    heard: list[tuple[str, str]] = []
    journal.on_answered(heard.extend)
    runs = [new_interaction(lane="main") for _ in range(4)]
    for new in runs:
        await journal.accept(new)
    fence = await begun(journal, runs[0])

    await journal.cancel(runs[1].run_id)  # nobody was waiting for this one's turn to end
    await journal.finish(fence, DONE)
    await journal.forget_keys()  # the callbacks come after the answers, but before later ones
    assert heard == [(runs[2].run_id, "")]
    await journal.cancel(runs[2].run_id)
    await journal.forget_keys()

    assert heard == [(runs[2].run_id, ""), (runs[3].run_id, "")]
    assert [run.run_id for run in await journal.claim("engine-1", 10)] == [runs[3].run_id]


@pytest.mark.parametrize("state", ["waiting", "crashed", "released"])
async def test_a_lane_waits_for_a_run_that_has_not_ended(journal: Journal, state: str) -> None:
    head, behind = new_interaction(lane="main"), new_interaction(lane="main")
    for new in (head, behind):
        await journal.accept(new)
    fence = await begun(journal, head)
    match state:
        case "waiting":
            await journal.open_wait(fence, new_wait(), park=new_park())
            await journal.disown("engine-1")
        case "crashed":
            await journal.requeue(fence, crashed=True)
        case _:
            await journal.release(fence)

    assert [run.run_id for run in await journal.claim("engine-1", 10)] == [head.run_id] * (state != "waiting")
    assert await journal.has_queued() is False


async def test_a_run_that_needs_a_free_lane_is_told_that_it_is_busy(journal: Journal) -> None:
    first, behind = new_interaction(lane="main", idempotency_key="first"), new_interaction(lane="main")
    await journal.accept(first)
    await journal.accept(behind)
    urgent = new_interaction(lane="main", needs_free_lane=True, idempotency_key="urgent")

    assert await journal.accept(urgent) == Accepted(run_id=first.run_id, is_busy=True)
    assert await journal.run(urgent.run_id) is None
    assert len(await journal.events(STREAM)) == 2
    again = replace(first, needs_free_lane=True)
    assert await journal.accept(again) == Accepted(run_id=first.run_id, is_repeat=True)

    for new in (first, behind):
        await journal.cancel(new.run_id)
    assert await journal.accept(urgent) == Accepted(run_id=urgent.run_id)


async def test_two_processes_keep_one_lane_in_order(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / '.pyflue' / 'journal.db'}"
    journals = [open_journal(url), open_journal(url)]
    runs = [new_interaction(lane="main") for _ in range(20)]
    order: list[str] = []
    try:
        for number, new in enumerate(runs):
            await journals[number % 2].accept(new)
        while len(order) < len(runs):
            both = await asyncio.gather(*[journal.claim(f"engine-{n}", 5) for n, journal in enumerate(journals)])
            (run,) = [run for claimed in both for run in claimed]
            order.append(run.run_id)
            busy = new_interaction(lane="main", needs_free_lane=True)
            assert (await journals[len(order) % 2].accept(busy)).is_busy
            # The other process ends it, as a supervisor may.
            fence = Fence(run_id=run.run_id, owner=str(run.owner), attempt=1)
            assert await journals[run.owner == "engine-0"].finish(fence, DONE) == DONE
        events = await journals[0].events(STREAM)
    finally:
        for journal in journals:
            await journal.close()
    assert order == [new.run_id for new in runs]
    assert [event.index for event in events] == list(range(1, 61))


async def test_another_process_is_woken_when_a_lane_moves_on(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / '.pyflue' / 'journal.db'}"
    here, there = open_journal(url), open_journal(url)
    try:
        for _ in range(2):
            await here.accept(new_interaction(lane="main"))
        (run,) = await here.claim("engine-1", 5)
        assert await there.has_queued() is False
        woken = asyncio.Event()
        loop = asyncio.get_running_loop()
        there.on_foreign_commit(lambda: loop.call_soon_threadsafe(woken.set))
        async with asyncio.timeout(5):
            await here.finish(Fence(run_id=run.run_id, owner="engine-1", attempt=1), DONE)
            while not await there.has_queued():
                await woken.wait()
                woken.clear()
    finally:
        await here.close()
        await there.close()


# What is attached to steps


async def test_what_is_attached_to_a_step_is_read_back_whole(journal: Journal, clock: StillClock) -> None:
    new, fence = await started(journal)
    files = [
        file("a.txt", b"\x00\xff", mode=0o755),
        file("empty"),
        file("folder", None),
        file("link", None, target="../a.txt"),
        file("gone", None, is_gone=True),
    ]
    attached = Attached(entries=[said("Hi"), said("Ho")], files=files, usage=raw({"turns": 1}))

    index = await journal.record(fence, new_step("ask"), [new_event("turn")], attached=attached)

    now = to_datetime(clock.now_us())
    fields = {"run_id": new.run_id, "step_key": "ask"}
    assert index == 3
    assert list(await journal.entries(STREAM, "main")) == [
        Entry(stream_id=STREAM, session="main", position=position, entry=raw({"text": text}), at=now, **fields)
        for position, text in ((1, "Hi"), (2, "Ho"))
    ]
    assert list(await journal.files(STREAM, "main")) == [
        FileVersion(position=position, recorded_index=3, file=record, **fields)
        for position, record in enumerate(files, 1)
    ]
    run = await the_run(journal, new.run_id)
    assert (run.usage, run.last_index) == (raw({"turns": 1}), 3)


async def test_what_is_attached_to_a_note_is_on_disk_before_what_is_recorded_later(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / '.pyflue' / 'journal.db'}"
    journal, reader = open_journal(url), open_journal(url)
    try:
        new = new_run()
        await journal.accept(new)
        note = new_step("note", started_index=1)
        journal.note(fence_of(new), note, attached=Attached(entries=[said("1")], files=[file("a", b"1")]))
        journal.append(fence_of(new), new_event())
        await journal.record(fence_of(new), new_step(), attached=Attached(entries=[said("2")], files=[file("a", b"2")]))
        found = await texts(reader, new.run_id)
        versions = [(it.step_key, it.recorded_index) for it in await reader.files(new.run_id, "main")]
    finally:
        await journal.close()
        await reader.close()
    assert found == [(1, "1"), (2, "2")]
    assert versions == [("note", 1), ("charge", 2)]


async def test_a_superseded_attempt_leaves_nothing(journal: Journal) -> None:
    new, late = await started(journal)
    await journal.requeue(late, crashed=True)
    fence = await begun(journal, new)
    attached = Attached(entries=[said("late")], files=[file("a", b"late")], usage=raw("late"))

    assert await journal.record(late, new_step(), attached=attached) is None
    lost = await refused(journal, lambda: journal.note(late, new_step(), attached=attached))

    assert lost == [(late, None)]
    assert list(await journal.sessions(STREAM)) == list(await journal.files(STREAM, "main")) == []
    assert await journal.blob(STREAM, content_name(b"late")) is None
    await journal.record(fence, new_step(), attached=Attached(entries=[said("good")]))
    assert await texts(journal, STREAM) == [(1, "good")]
    assert (await the_run(journal, new.run_id)).usage is None


async def test_a_record_that_is_refused_leaves_nothing_and_harms_no_other(journal: Journal) -> None:
    _, bad = await started(journal)
    _, good = await started(journal)
    await journal.record(bad, new_step("once"))

    def record(fence: Fence, key: str) -> Any:
        attached = Attached(entries=[said(key)], files=[file(key, key.encode())], usage=raw(key))
        return journal.record(fence, new_step(key), [new_event("turn")], attached=attached)

    answers = await asyncio.gather(
        record(good, "one"), record(bad, "once"), record(bad, "later"), record(good, "two"), return_exceptions=True
    )

    assert [type(answer) for answer in answers] == [int, JournalError, JournalError, int]
    assert await texts(journal, STREAM) == [(1, "one"), (2, "two")]
    assert await contents(journal, STREAM) == [(1, "one", b"one"), (2, "two", b"two")]
    assert await journal.blob(STREAM, content_name(b"once")) is None
    events = await journal.events(STREAM)
    assert [event.index for event in events] == list(range(1, 7))
    assert [(await the_run(journal, fence.run_id)).usage for fence in (bad, good)] == [None, raw("two")]


async def test_sessions_count_apart_and_are_read_in_parts_and_deleted(journal: Journal, clock: StillClock) -> None:
    _, fence = await started(journal)
    begun_at = to_datetime(clock.now_us())
    many = [said(str(number), session) for number in range(5) for session in ("main", "aside")]
    await journal.record(fence, new_step("one"), attached=Attached(entries=many))
    clock.offset_us += 1
    await journal.record(fence, new_step("two"), attached=Attached(entries=[said("5")]))

    assert list(await journal.sessions(STREAM)) == [
        SessionInfo(session="aside", entries=5, created_at=begun_at, updated_at=begun_at),
        SessionInfo(session="main", entries=6, created_at=begun_at, updated_at=to_datetime(clock.now_us())),
    ]
    assert await texts(journal, STREAM) == [(number + 1, str(number)) for number in range(6)]
    assert [entry.position for entry in await journal.entries(STREAM, "main", after=2, limit=2)] == [3, 4]
    size = len(memoryview(raw({"text": "0"})))
    assert [e.position for e in await journal.entries(STREAM, "main", limit_bytes=size + 1)] == [1, 2]

    assert await journal.delete_session(STREAM, "main") == 6
    assert await journal.delete_session(STREAM, "main") == 0

    assert [info.session for info in await journal.sessions(STREAM)] == ["aside"]
    await journal.record(fence, new_step("three"), attached=Attached(entries=[said("anew")]))
    assert await texts(journal, STREAM) == [(1, "anew")]


async def test_a_run_keeps_every_version_of_its_files(journal: Journal) -> None:
    new = new_run()
    await journal.accept(new)
    for number, data in enumerate((b"A", b"B", b"A")):
        await journal.record(fence_of(new), new_step(str(number)), attached=Attached(files=[file("a", data)]))

    assert await contents(journal, new.run_id) == [(1, "a", b"A"), (2, "a", b"B"), (3, "a", b"A")]
    await journal.finish(fence_of(new), DONE)
    await journal.delete(new.run_id)
    assert await contents(journal, new.run_id) == []
    assert await journal.blob(new.run_id, content_name(b"A")) is None


async def test_an_instance_keeps_the_newest_version_of_each_file_and_no_other_content(journal: Journal) -> None:
    _, fence = await started(journal)
    elsewhere = file("a", b"A", workspace="aside")

    async def record(key: str, *files: FileRecord) -> None:
        await journal.record(fence, new_step(key), attached=Attached(files=files))

    await asyncio.gather(
        record("one", file("a", b"A"), file("b", b"B"), elsewhere),
        record("two", file("a", b"C"), file("a", b"D"), file("c", b"B")),
        record("three", file("b", None, is_gone=True)),
    )

    assert await contents(journal, STREAM) == [(5, "a", b"D"), (6, "c", b"B"), (7, "b", None)]
    assert await contents(journal, STREAM, "aside") == [(3, "a", b"A")]
    kept = [data for data in (b"A", b"B", b"C", b"D") if await journal.blob(STREAM, content_name(data)) == data]
    assert kept == [b"A", b"B", b"D"]
    await record("four", replace(elsewhere, data=b"E"), file("c", b"E"))
    kept = [data for data in (b"A", b"B", b"D", b"E") if await journal.blob(STREAM, content_name(data)) == data]
    assert kept == [b"D", b"E"]


# Runs that begin with what others have left


async def worked(journal: Journal) -> NewRun:
    """A failed run that has left entries and files with four steps, the third of which failed."""
    new = new_run()
    await journal.accept(new)
    for number, status in enumerate((StepStatus.COMPLETED, StepStatus.COMPLETED, StepStatus.FAILED), 1):
        text = str(number)
        attached = Attached(
            entries=[said(text), said(f"{text}!"), said(text, "aside")], files=[file("a", text.encode()), file(text)]
        )
        step = new_step(text, status=status)
        await journal.record(fence_of(new), step, [new_event("step_end")], attached=attached)
    await journal.record(fence_of(new), new_step("4"), [new_event()], attached=Attached(entries=[said("4")]))
    await journal.finish(fence_of(new), BROKEN)
    return new


@pytest.mark.parametrize(("until_index", "copied"), [(None, ["1", "2", "4"]), (3, ["1", "2"]), (2, ["1"]), (1, [])])
async def test_a_new_run_has_what_the_copied_steps_have_left(
    journal: Journal, until_index: int | None, copied: Sequence[str]
) -> None:
    source = await worked(journal)
    new = new_run(copies=Copies(run_id=source.run_id, until_index=until_index))

    await journal.accept(new)
    await journal.delete(source.run_id)

    said_before = [text for key in copied for text in ([key, f"{key}!"] if key != "4" else [key])]
    assert await texts(journal, new.run_id) == list(enumerate(said_before, 1))
    assert await texts(journal, new.run_id, "aside") == list(enumerate([key for key in copied if key != "4"], 1))
    versions = [
        (version.run_id, version.position, version.step_key, version.recorded_index, version.file)
        for version in await journal.files(new.run_id, "main")
    ]
    left = [(key, it) for key in copied if key != "4" for it in (file("a", key.encode()), file(key))]
    # The source's last index was 6, and its steps were recorded under 2, 3 …
    assert versions == [(new.run_id, position, key, int(key) + 1 - 7, it) for position, (key, it) in enumerate(left, 1)]
    await journal.record(fence_of(new), new_step("5"), attached=Attached(entries=[said("5")]))
    assert (await texts(journal, new.run_id))[-1] == (len(said_before) + 1, "5")


async def test_an_interaction_that_is_tried_again_finds_what_was_left_in_its_stream(journal: Journal) -> None:
    source, fence = await started(journal)
    await journal.record(fence, new_step(), attached=Attached(entries=[said("Hi")], files=[file("a", b"A")]))
    await journal.finish(fence, BROKEN)
    again = new_interaction(copies=Copies(run_id=source.run_id), retried_from=source.run_id)

    await journal.accept(again)

    assert [step.key for step in (await journal.history(again.run_id)).steps] == ["charge"]
    assert await texts(journal, STREAM) == [(1, "Hi")]
    assert await contents(journal, STREAM) == [(1, "a", b"A")]


async def test_a_restarted_run_has_forgotten_what_it_left(journal: Journal) -> None:
    _, earlier = await started(journal)
    _, fence = await started(journal)
    new = new_run()
    await journal.accept(new)
    kept = Attached(entries=[said("kept")], files=[file("kept", b"K"), file("same", b"S")])
    await journal.record(earlier, new_step(), attached=kept)
    forgotten = Attached(entries=[said("forgotten")], files=[file("forgotten", b"F"), file("copy", b"S")])
    for one in (fence, fence_of(new)):
        await journal.record(one, new_step(), attached=forgotten)

        assert await journal.restart(one) is True

    assert await texts(journal, new.run_id) == await contents(journal, new.run_id) == []
    assert await texts(journal, STREAM) == [(1, "kept")]
    assert await contents(journal, STREAM) == [(1, "kept", b"K"), (2, "same", b"S")]
    assert await journal.blob(STREAM, content_name(b"F")) is None
    assert await journal.blob(new.run_id, content_name(b"F")) is None
    await journal.record(fence, new_step(), attached=Attached(entries=[said("anew")]))
    assert await texts(journal, STREAM) == [(1, "kept"), (2, "anew")]


# Files of earlier releases


def stored(folder: Path, schema: str) -> Journal:
    """A journal that an earlier release has written."""
    path = folder / ".pyflue" / "journal.db"
    path.parent.mkdir()
    shutil.copy(Path(__file__).parents[1] / "journal" / "fixtures" / f"{schema}.db", path)
    return open_journal(f"sqlite:///{path}")


@promise("F13")
async def test_what_agents_left_in_a_journal_of_schema_3_is_read_and_gone_on_with(tmp_path: Path) -> None:
    journal = stored(tmp_path, "schema-3")
    try:
        (info,) = await journal.streams("helper")
        events = await journal.events(STREAM)
        (behind, ended) = (await journal.interactions(STREAM)).runs
        found = await texts(journal, STREAM), await contents(journal, STREAM)
        claimed = await journal.claim("engine-2", 1, run_ids=[behind.run_id])
    finally:
        await journal.close()
    assert (info.stream_id, info.last_index) == (STREAM, 5)
    assert [(event.index, event.type, event.interaction) for event in events] == [
        (1, "interaction_accepted", ended.run_id.rpartition(":")[2]),
        (2, "interaction_accepted", behind.run_id.rpartition(":")[2]),
        (3, "interaction_start", ended.run_id.rpartition(":")[2]),
        (4, "turn", ended.run_id.rpartition(":")[2]),
        (5, "interaction_end", ended.run_id.rpartition(":")[2]),
    ]
    assert (ended.status, ended.usage) == (RunStatus.COMPLETED, raw({"turns": 1}))
    assert found == ([(1, "Hi"), (2, "Hello Ada")], [(1, "a.txt", b"A"), (2, "src", None)])
    assert [run.run_id for run in claimed] == [behind.run_id]


@promise("F13")
async def test_the_journal_of_the_release_before_agents_takes_interactions(tmp_path: Path) -> None:
    journal = stored(tmp_path, "schema-2")
    try:
        runs = (await journal.runs(RunFilter())).runs
        queued = {run.run_id for run in runs if run.status is RunStatus.QUEUED}
        new = new_interaction(lane="main")
        await journal.accept(new)
        await journal.accept(new_interaction(lane="main"))
        claimed = {run.run_id for run in await journal.claim("engine-1", 100)}
        fence = Fence(run_id=new.run_id, owner="engine-1", attempt=1)
        await journal.record(fence, new_step(), attached=Attached(entries=[said("Hi")], files=[file("a", b"A")]))
        found = await texts(journal, STREAM), await contents(journal, STREAM)
        listed = (await journal.runs(RunFilter())).runs
    finally:
        await journal.close()
    assert claimed == {*queued, new.run_id}
    assert [run.run_id for run in listed] == [run.run_id for run in runs]
    assert found == ([(1, "Hi")], [(1, "a", b"A")])


# Whatever happens


def apart(url: str) -> str:
    """Another journal of the same sort: what one example leaves is not another's."""
    return url.replace("journal.db", f"{ids.new_ulid()}.db")


_ACTIONS = ("record", "note", "append", "signal", "end")


@promise("R4")
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    actions=st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from(_ACTIONS), st.sampled_from(["main", "aside"])), max_size=30
    )
)
async def test_positions_and_indexes_of_a_stream_are_dense_whatever_is_recorded_at_once(
    url: str, actions: list[tuple[int, str, str]]
) -> None:
    journal = open_journal(apart(url))
    journal.enlist("engine-1")
    fences = [(await started(journal))[1] for _ in range(4)]
    waiting: list[Any] = []
    expected: dict[str, int] = {}
    ended: set[int] = set()
    for number, (which, action, session) in enumerate(actions):
        fence = fences[which]
        attached = Attached(entries=[said(str(number), session)] * 2, files=[file(session, str(number).encode())])
        match action:
            case "record":
                events = [new_event("turn")]
                waiting.append(journal.record(fence, new_step(str(number)), events, attached=attached))
            case "note":
                journal.note(fence, new_step(str(number)), attached=attached)
            case "append":
                journal.append(fence, new_event())
            case "signal":
                waiting.append(journal.signal(fence.run_id, new_signal()))
            case _:
                waiting.append(journal.finish(fence, DONE))
        if action in ("record", "note") and which not in ended:
            expected[session] = expected.get(session, 0) + 2
        if action == "end":
            ended.add(which)
    await asyncio.gather(*waiting)
    await journal.forget_keys()

    events = await journal.events(STREAM)
    info = await journal.stream(STREAM)
    runs = [await the_run(journal, fence.run_id) for fence in fences]
    counts = [len(await journal.events(fence.run_id)) for fence in fences]
    positions = {
        it.session: [e.position for e in await journal.entries(STREAM, it.session)]
        for it in await journal.sessions(STREAM)
    }
    paths = [version.file.path for version in await journal.files(STREAM, "main")]
    await journal.close()

    assert info is not None
    assert [event.index for event in events] == list(range(1, info.last_index + 1))
    assert counts == [run.last_index for run in runs]
    assert positions == {session: list(range(1, count + 1)) for session, count in expected.items()}
    assert sorted(paths) == sorted(expected)


class Lanes:
    """Calls verbs about runs in two lanes, as engines and people might in any order."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.runs: list[NewRun] = []
        self.fences: dict[str, Fence] = {}

    def _oldest(self, of: Callable[[NewRun], bool]) -> NewRun | None:
        return next((new for new in self.runs if of(new)), None)

    async def accept(self) -> None:
        await self._accept(new_interaction(lane="ada"))

    async def accept_elsewhere(self) -> None:
        await self._accept(new_run(owner=None, lane="bob"))

    async def _accept(self, new: NewRun) -> None:
        await self.journal.accept(new)
        self.runs.append(new)

    async def claim(self) -> None:
        for run in await self.journal.claim("engine-1", 10):
            self.fences[run.run_id] = Fence(run_id=run.run_id, owner="engine-1", attempt=run.attempt)

    async def finish(self) -> None:
        for fence in list(self.fences.values())[:1]:
            await self.journal.finish(self.fences.pop(fence.run_id), DONE)

    async def crash(self) -> None:
        for fence in list(self.fences.values())[-1:]:
            await self.journal.requeue(self.fences.pop(fence.run_id), crashed=True)

    async def cancel_newest(self) -> None:
        if self.runs:
            await self.journal.cancel(self.runs[-1].run_id)

    async def cancel_oldest(self) -> None:
        for new in self.runs:
            run = await self.journal.run(new.run_id)
            if run is not None and run.status is RunStatus.QUEUED:
                await self.journal.cancel(new.run_id)
                return

    async def delete(self) -> None:
        for new in self.runs:
            await self.journal.delete(new.run_id)


_LANE_VERBS = [name for name in vars(Lanes) if not name.startswith("_")]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(verbs=st.lists(st.sampled_from(_LANE_VERBS), max_size=30))
async def test_whatever_the_order_of_verbs_a_lane_goes_on_with_its_oldest_run(url: str, verbs: list[str]) -> None:
    journal = open_journal(apart(url))
    journal.enlist("engine-1")
    lanes = Lanes(journal)
    for verb in verbs:
        await getattr(lanes, verb)()
        heads: dict[str | None, RunStatus] = {}
        for new in lanes.runs:
            run = await journal.run(new.run_id)
            if run is not None and not run.is_final:
                assert heads.setdefault(new.lane, run.status) is run.status or run.status is RunStatus.QUEUED, verb
        assert await journal.has_queued() == (RunStatus.QUEUED in heads.values()), verb
    while lanes.fences or await journal.has_queued():
        await lanes.claim()
        await lanes.finish()
    left = await journal.count_queued()
    await journal.close()
    assert left == 0
