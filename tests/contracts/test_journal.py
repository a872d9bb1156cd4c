"""The contract of the `Journal` port, run against every adapter."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyflue import codec
from pyflue.errors import JournalClosed, JournalError
from pyflue.journal import (
    Event,
    Fence,
    Journal,
    Outcome,
    RunFilter,
    RunStatus,
    follow,
    open_journal,
)
from tests.contracts.test_journal_calls import new_step
from tests.promises import promise
from tests.support import fence_of, new_event, new_run, raw, summary

DONE = Outcome(status=RunStatus.COMPLETED, result=raw({"ok": True}))
BROKEN = Outcome(status=RunStatus.FAILED, error=raw({"type": "exception", "message": "Disk on fire"}))


@pytest.fixture(params=["memory", "sqlite", "process"])
def kind(request: pytest.FixtureRequest) -> str:
    """Where the journal is; the last one is a file that a process of its own writes."""
    return request.param


@pytest.fixture
def url(kind: str, tmp_path: Path) -> str:
    return "memory:" if kind == "memory" else f"sqlite:///{tmp_path / '.pyflue' / 'journal.db'}"


@pytest.fixture
async def journal(url: str, kind: str) -> AsyncIterator[Journal]:
    journal = open_journal(url, writer_process=kind == "process")
    journal.enlist("engine-1")
    yield journal
    await journal.close()


async def test_an_accepted_run_with_an_owner_is_running_and_has_its_first_event(journal: Journal) -> None:
    new = new_run(payload={"name": "Ada"}, tags=("blue", "red"), workflow_version="v1")

    accepted = await journal.accept(new)
    run = await journal.run(new.run_id)

    assert accepted.run_id == new.run_id
    assert run is not None
    assert (run.status, run.owner, run.attempt, run.last_index) == (RunStatus.RUNNING, "engine-1", 1, 1)
    assert codec.load(run.payload) == {"name": "Ada"}
    assert run.tags == ("blue", "red")
    assert summary(await journal.events(new.run_id)) == [(1, "run_start")]


async def test_an_accepted_run_without_an_owner_is_queued_and_has_no_event(journal: Journal) -> None:
    new = new_run(owner=None)

    await journal.accept(new)
    run = await journal.run(new.run_id)

    assert run is not None
    assert (run.status, run.owner, run.attempt, run.started_at) == (RunStatus.QUEUED, None, 0, None)
    assert list(await journal.events(new.run_id)) == []
    assert await journal.count_queued() == 1


@promise("guide.record", "R4")
async def test_events_are_numbered_without_gaps_and_the_end_is_last(journal: Journal) -> None:
    new = new_run()
    await journal.accept(new)
    for _ in range(3):
        journal.append(fence_of(new), new_event())

    assert await journal.finish(fence_of(new), DONE) == DONE

    events = await journal.events(new.run_id)
    assert summary(events) == [(1, "run_start"), (2, "log"), (3, "log"), (4, "log"), (5, "run_end")]
    assert codec.load(events[-1].data) == {"status": "completed"}
    run = await journal.run(new.run_id)
    assert run is not None
    assert (run.status, run.last_index) == (RunStatus.COMPLETED, 5)
    assert codec.load(run.result) == {"ok": True}
    assert run.finished_at is not None


@promise("R4")
async def test_events_that_are_appended_together_stand_together_in_their_order(journal: Journal) -> None:
    new, other = new_run(), new_run()
    for each in (new, other):
        await journal.accept(each)

    journal.append(fence_of(new), *(new_event(data={"number": number}) for number in range(5)))
    journal.append(fence_of(other), new_event())
    journal.append(fence_of(new), *(new_event(data={"number": number}) for number in (5, 6)))
    assert journal.unwritten(new.run_id) <= 7
    await asyncio.to_thread(journal.drain, new.run_id)
    journal.append(fence_of(new), new_event(data={"number": 7}), new_event(data={"number": 8}))
    await journal.finish(fence_of(new), DONE)

    events = list(await journal.events(new.run_id))
    assert summary(events) == [(1, "run_start"), *((index, "log") for index in range(2, 11)), (11, "run_end")]
    assert [codec.load(event.data)["number"] for event in events[1:-1]] == list(range(9))
    assert journal.unwritten(new.run_id) == 0
    await journal.finish(fence_of(other), DONE)
    assert summary(await journal.events(other.run_id)) == [(1, "run_start"), (2, "log"), (3, "run_end")]


async def test_no_events_at_all_are_nothing_to_write(journal: Journal) -> None:
    new = new_run()
    lost: list[Fence] = []
    journal.on_lost(lambda fence, error: lost.append(fence))
    await journal.accept(new)

    journal.append(fence_of(new))
    journal.append(fence_of(new, attempt=7))
    await journal.finish(fence_of(new), DONE)

    assert summary(await journal.events(new.run_id)) == [(1, "run_start"), (2, "run_end")]
    assert (journal.unwritten(new.run_id), lost) == (0, [])


async def test_what_nobody_waits_for_is_written_as_soon_as_somebody_does(
    monkeypatch: pytest.MonkeyPatch, journal: Journal
) -> None:
    monkeypatch.setattr("pyflue.journal.writer._POLL_S", 60.0)
    async with asyncio.timeout(10):
        await journal.accept(new_run())  # from here on the writer looks only when it is told to
        new = new_run()
        accepted = journal.accept(new, is_awaited=False)
        journal.ring()
        assert (await accepted).run_id == new.run_id


@promise("R4")
async def test_what_is_announced_comes_before_what_comes_of_it(journal: Journal) -> None:
    new, other = new_run(), new_run()
    for each in (new, other):
        await journal.accept(each)

    journal.append(fence_of(new), new_event())
    journal.announce(fence_of(new), new_event("step_start"))
    journal.announce(fence_of(new), new_event("progress"))
    journal.announce(fence_of(other), new_event("step_start"))
    await journal.record(fence_of(new), new_step(), [new_event("step_end")])
    journal.announce(fence_of(new), new_event("step_start"))
    journal.append(fence_of(new), new_event())
    journal.announce(fence_of(new), new_event("step_start"))
    await journal.finish(fence_of(new), DONE)

    types = ["log", "step_start", "progress", "step_end", "step_start", "log", "step_start", "run_end"]
    assert summary(await journal.events(new.run_id)) == list(enumerate(["run_start", *types], 1))
    await journal.finish(fence_of(other), DONE)
    assert [event.type for event in await journal.events(other.run_id)] == ["run_start", "step_start", "run_end"]
    assert journal.unwritten(new.run_id) == journal.unwritten(other.run_id) == 0


@promise("R8")
async def test_what_is_announced_is_seen_soon_even_if_nothing_comes_of_it(journal: Journal) -> None:
    new = new_run()
    await journal.accept(new)

    journal.announce(fence_of(new), new_event("step_start"))
    async with asyncio.timeout(5):
        with journal.watch(new.run_id) as bell:
            while len(await journal.events(new.run_id)) < 2:
                await bell.wait()

    assert summary(await journal.events(new.run_id)) == [(1, "run_start"), (2, "step_start")]
    assert journal.unwritten(new.run_id) == 0


async def test_what_is_announced_is_committed_with_what_comes_of_it(
    monkeypatch: pytest.MonkeyPatch, journal: Journal
) -> None:
    monkeypatch.setattr("pyflue.journal.writer._ANNOUNCED_S", 60.0)
    new = new_run()
    await journal.accept(new)

    journal.announce(fence_of(new), new_event("step_start"))
    await journal.accept(new_run())
    assert summary(await journal.events(new.run_id)) == [(1, "run_start")]
    await journal.record(fence_of(new), new_step(), [new_event("step_end")])

    assert summary(await journal.events(new.run_id)) == [(1, "run_start"), (2, "step_start"), (3, "step_end")]


async def test_what_is_announced_to_somebody_who_watches_is_written_at_once(
    monkeypatch: pytest.MonkeyPatch, journal: Journal
) -> None:
    monkeypatch.setattr("pyflue.journal.writer._ANNOUNCED_S", 60.0)
    new = new_run()
    await journal.accept(new)

    async with asyncio.timeout(5):
        with journal.watch(new.run_id) as bell:
            journal.announce(fence_of(new), new_event("step_start"))
            while len(await journal.events(new.run_id)) < 2:
                await bell.wait()


@promise("R4", "R9")
async def test_what_is_announced_comes_before_every_other_record_of_its_run(journal: Journal) -> None:
    cancelled, handed_on, settled, drained = runs = [new_run() for _ in range(4)]
    for each in runs:
        await journal.accept(each)
        journal.announce(fence_of(each), new_event("step_start"))

    await asyncio.to_thread(journal.drain, drained.run_id)
    assert journal.unwritten(drained.run_id) == 0
    assert await journal.settle(fence_of(settled))
    assert await journal.cancel(cancelled.run_id) is not None
    assert await journal.release(fence_of(handed_on))

    for each in runs:
        types = [event.type for event in await journal.events(each.run_id)]
        assert types[:2] == ["run_start", "step_start"], each


@promise("R9")
async def test_what_a_superseded_attempt_announces_is_not_written(journal: Journal) -> None:
    new = new_run()
    lost: list[tuple[Fence, Exception | None]] = []
    journal.on_lost(lambda fence, error: lost.append((fence, error)))
    await journal.accept(new)
    await journal.requeue(fence_of(new), crashed=False)
    await journal.claim("engine-1", 1)

    journal.announce(fence_of(new), new_event("step_start"))
    await asyncio.to_thread(journal.drain, new.run_id)
    await journal.finish(fence_of(new, attempt=2), DONE)

    assert [event.type for event in await journal.events(new.run_id)] == ["run_start", "run_resumed", "run_end"]
    assert lost == [(fence_of(new), None)]


@pytest.mark.parametrize("kind", ["sqlite", "process"], indirect=True)
async def test_what_is_announced_is_written_before_the_journal_is_closed(kind: str, url: str) -> None:
    journal = open_journal(url, writer_process=kind == "process")
    new = new_run()
    await journal.accept(new)
    journal.announce(fence_of(new), new_event("step_start"))
    await journal.close()

    with pytest.raises(JournalClosed):
        journal.announce(fence_of(new), new_event("step_start"))
    again = open_journal(url)
    assert summary(await again.events(new.run_id)) == [(1, "run_start"), (2, "step_start")]
    await again.close()


@promise("R9")
async def test_of_several_events_of_a_superseded_attempt_none_is_written(journal: Journal) -> None:
    new = new_run()
    lost: list[tuple[Fence, Exception | None]] = []
    journal.on_lost(lambda fence, error: lost.append((fence, error)))
    await journal.accept(new)
    await journal.requeue(fence_of(new), crashed=False)
    await journal.claim("engine-1", 1)

    journal.append(fence_of(new), new_event(), new_event(), new_event())
    journal.append(fence_of(new, attempt=2), new_event("progress"), new_event("progress"))
    await journal.finish(fence_of(new, attempt=2), DONE)

    types = ["run_start", "run_resumed", "progress", "progress", "run_end"]
    assert summary(await journal.events(new.run_id)) == list(enumerate(types, 1))
    assert lost == [(fence_of(new), None)]
    assert journal.unwritten(new.run_id) == 0


@promise("R4")
async def test_events_that_are_appended_together_before_a_record_that_fails_leave_no_gap(journal: Journal) -> None:
    new, other = new_run(), new_run()
    lost: list[tuple[Fence, str]] = []
    journal.on_lost(lambda fence, error: lost.append((fence, type(error).__name__)))
    for each in (new, other):
        await journal.accept(each)
    await journal.record(fence_of(new), new_step())

    journal.append(fence_of(new), new_event(), new_event())
    twice, fine = await asyncio.gather(
        journal.record(fence_of(new), new_step(), [new_event()]),
        journal.record(fence_of(other), new_step(), [new_event()]),
        return_exceptions=True,
    )
    journal.append(fence_of(new), new_event(), new_event())

    assert (type(twice), fine) == (JournalError, 2)
    with pytest.raises(JournalError, match="has recorded step 'charge' already"):
        await journal.finish(fence_of(new), DONE)
    assert summary(await journal.events(new.run_id)) == [(1, "run_start")]
    assert lost == [(fence_of(new), "JournalError")] * 2
    assert await journal.finish(fence_of(other), DONE) == DONE


@promise("R4")
async def test_a_final_run_takes_neither_events_nor_another_end(journal: Journal) -> None:
    new = new_run()
    lost: list[tuple[Fence, Exception | None]] = []
    journal.on_lost(lambda fence, error: lost.append((fence, error)))
    await journal.accept(new)
    await journal.finish(fence_of(new), DONE)

    journal.append(fence_of(new), new_event())

    assert await journal.finish(fence_of(new), BROKEN) is None
    assert summary(await journal.events(new.run_id)) == [(1, "run_start"), (2, "run_end")]
    assert lost == [(fence_of(new), None)]


@promise("R9", "F15")
async def test_a_superseded_attempt_writes_nothing(journal: Journal) -> None:
    new = new_run()
    await journal.accept(new)
    assert await journal.requeue(fence_of(new), crashed=True)
    (claimed,) = await journal.claim("engine-2", 10)

    journal.append(fence_of(new), new_event())
    assert await journal.finish(fence_of(new), DONE) is None
    assert await journal.release(fence_of(new)) is False
    assert await journal.requeue(fence_of(new), crashed=True) is False

    assert (claimed.run_id, claimed.owner, claimed.attempt, claimed.crashes) == (new.run_id, "engine-2", 2, 1)
    assert summary(await journal.events(new.run_id)) == [(1, "run_start"), (2, "run_resumed")]
    assert await journal.finish(Fence(run_id=new.run_id, owner="engine-2", attempt=2), DONE) == DONE


async def test_a_queued_run_is_claimed_once_and_oldest_first(journal: Journal) -> None:
    runs = [new_run(owner=None) for _ in range(5)]
    for new in runs:
        await journal.accept(new)

    first, second = await asyncio.gather(journal.claim("engine-1", 3), journal.claim("engine-2", 10))

    assert [run.run_id for run in first] == [new.run_id for new in runs[:3]]
    assert [run.run_id for run in second] == [new.run_id for new in runs[3:]]
    assert list(await journal.claim("engine-1", 10)) == []


async def test_runs_that_crashed_often_are_left_to_those_who_ask_for_them(journal: Journal) -> None:
    new, other = new_run(), new_run(owner=None)
    await journal.accept(new)
    await journal.accept(other)
    for attempt in (1, 2):
        await journal.requeue(fence_of(new, attempt=attempt), crashed=True)
        if attempt == 1:
            await journal.claim("engine-1", 1, run_ids=[new.run_id])

    assert list(await journal.suspects(2)) == [new.run_id]
    assert await journal.has_queued(max_crashes=2)
    assert not await journal.has_queued(max_crashes=0)
    assert [run.run_id for run in await journal.claim("engine-1", 10, max_crashes=2)] == [other.run_id]
    assert [run.run_id for run in await journal.claim("engine-1", 10, run_ids=[new.run_id])] == [new.run_id]


async def test_only_a_run_that_nobody_drives_is_finished_without_a_fence(journal: Journal) -> None:
    driven, queued = new_run(), new_run(owner=None)
    await journal.accept(driven)
    await journal.accept(queued)

    assert await journal.finish_queued(driven.run_id, BROKEN) is False
    assert await journal.finish_queued(queued.run_id, BROKEN) is True

    run = await journal.run(queued.run_id)
    assert run is not None
    assert (run.status, codec.load(run.error)) == (RunStatus.FAILED, codec.load(BROKEN.error))  # type: ignore[arg-type]


async def test_a_released_run_is_queued_again_and_has_not_crashed(journal: Journal) -> None:
    new = new_run()
    await journal.accept(new)

    assert await journal.release(fence_of(new))
    (claimed,) = await journal.claim("engine-2", 1)

    assert (claimed.attempt, claimed.crashes) == (2, 0)


async def test_cancelling_a_queued_run_ends_it_at_once(journal: Journal) -> None:
    new = new_run(owner=None)
    await journal.accept(new)

    answer = await journal.cancel(new.run_id)

    assert answer is not None
    assert (answer.run.status, answer.was_final) == (RunStatus.CANCELLED, False)
    assert summary(await journal.events(new.run_id)) == [(1, "run_end")]
    assert list(await journal.claim("engine-1", 10)) == []


@promise("R7", "F19")
async def test_a_requested_cancellation_wins_over_a_later_end(journal: Journal) -> None:
    new = new_run()
    await journal.accept(new)

    answer = await journal.cancel(new.run_id)
    assert answer is not None
    assert (answer.run.status, answer.was_final) == (RunStatus.RUNNING, False)
    assert list(await journal.cancel_requests("engine-1")) == [new.run_id]
    recorded = await journal.finish(fence_of(new), DONE)

    assert recorded == Outcome(status=RunStatus.CANCELLED)
    run = await journal.run(new.run_id)
    assert run is not None
    assert (run.status, run.result) == (RunStatus.CANCELLED, None)
    again = await journal.cancel(new.run_id)
    assert again is not None
    assert (again.run.status, again.was_final) == (RunStatus.CANCELLED, True)


async def test_a_lost_run_whose_cancellation_was_requested_ends_as_cancelled(journal: Journal) -> None:
    new = new_run()
    await journal.accept(new)
    await journal.cancel(new.run_id)

    assert await journal.requeue(fence_of(new), crashed=True)

    run = await journal.run(new.run_id)
    assert run is not None
    assert run.status is RunStatus.CANCELLED
    assert summary(await journal.events(new.run_id)) == [(1, "run_start"), (2, "run_end")]


async def test_runs_of_an_engine_that_is_not_alive_are_lost(journal: Journal) -> None:
    mine, theirs = new_run(owner="engine-1"), new_run(owner="engine-gone")
    await journal.accept(mine)
    await journal.accept(theirs)

    assert [run.run_id for run in await journal.lost()] == [theirs.run_id]
    assert [run.run_id for run in await journal.unfinished(owner="engine-1")] == [mine.run_id]


@promise("F18")
async def test_one_idempotency_key_is_one_run(journal: Journal) -> None:
    runs = [new_run(idempotency_key="k-1", request_digest="same") for _ in range(50)]

    answers = await asyncio.gather(*(journal.accept(new) for new in runs))
    other = await journal.accept(new_run(idempotency_key="k-1", request_digest="other"))

    assert {answer.run_id for answer in answers} == {runs[0].run_id}
    assert [answer.is_repeat for answer in answers] == [False] + [True] * 49
    assert (other.run_id, other.is_conflict) == (runs[0].run_id, True)
    assert len((await journal.runs(RunFilter())).runs) == 1


async def test_lists_are_filtered_and_paged_newest_first(journal: Journal) -> None:
    done = [new_run(workflow="a", tags=("x",)) for _ in range(3)]
    broken = [new_run(workflow="b", tags=("x", "y")) for _ in range(2)]
    for new in done + broken:
        await journal.accept(new)
    for new in done:
        await journal.finish(fence_of(new), DONE)
    for new in broken:
        await journal.finish(fence_of(new), BROKEN)

    async def ids(**where: object) -> list[str]:
        return [run.run_id for run in (await journal.runs(RunFilter(**where))).runs]  # type: ignore[arg-type]

    newest_done = [new.run_id for new in reversed(done)]
    newest_broken = [new.run_id for new in reversed(broken)]
    assert await ids() == newest_broken + newest_done
    assert await ids(workflows=["a"]) == newest_done
    assert await ids(statuses=[RunStatus.FAILED]) == newest_broken
    assert await ids(statuses=[RunStatus.FAILED, RunStatus.COMPLETED], workflows=["b"]) == newest_broken
    assert await ids(statuses=[RunStatus.RUNNING]) == []
    assert await ids(tags=["x", "y"]) == newest_broken
    assert await ids(error_text="on FIRE") == newest_broken
    assert await ids(created_after_us=2**60) == []

    page = await journal.runs(RunFilter(), limit=2)
    assert [run.run_id for run in page.runs] == newest_broken
    page = await journal.runs(RunFilter(), limit=10, before=page.next_before)
    assert [run.run_id for run in page.runs] == newest_done
    assert page.next_before is None


@pytest.mark.parametrize("size", [10, 2048, 2049, 300_000])
async def test_values_of_any_size_come_back_whole(journal: Journal, size: int) -> None:
    value = "ü" * (size // 2)
    new = new_run(payload=value)
    await journal.accept(new)
    await journal.finish(fence_of(new), Outcome(status=RunStatus.COMPLETED, result=raw([value])))

    run = await journal.run(new.run_id)

    assert run is not None
    assert codec.load(run.payload) == value
    assert codec.load(run.result) == [value]


async def test_a_run_with_a_large_payload_is_found_by_its_tags(journal: Journal) -> None:
    others = [new_run(payload="x" * 5000), new_run()]
    tagged = new_run(payload="y" * 5000, definition=raw("z" * 5000), tags=("blue",))
    for new in (*others, tagged, *(new_run(payload="x" * 5000) for _ in range(3))):
        await journal.accept(new)

    assert [run.run_id for run in (await journal.runs(RunFilter(tags=["blue"]))).runs] == [tagged.run_id]


@pytest.mark.parametrize("size", [10, 10_000])
async def test_a_definition_is_kept_with_its_run_and_deleted_with_it(url: str, journal: Journal, size: int) -> None:
    definition = {"nodes": ["x" * size]}
    new, plain = new_run(definition=raw(definition)), new_run()
    for each in (new, plain):
        await journal.accept(each)
    await journal.finish(fence_of(new), DONE)

    found = await journal.definition(new.run_id)
    assert found is not None
    assert codec.load(found) == definition
    assert await journal.definition(plain.run_id) is None
    run = await journal.run(new.run_id)
    assert run is not None
    assert "xxx" not in codec.encode(run.to_dict()).decode()
    await journal.delete(new.run_id)
    assert await journal.definition(new.run_id) is None


async def test_bytes_are_kept_under_the_name_of_their_content(journal: Journal) -> None:
    name = await journal.keep_blob("shelf:books", b"[1,2]")

    assert name == await journal.keep_blob("shelf:books", b"[1,2]")
    assert name == f"sha256:{hashlib.sha256(b'[1,2]').hexdigest()}"
    assert await journal.blob("shelf:books", name) == b"[1,2]"
    assert await journal.blob("shelf:records", name) is None


async def test_large_event_data_becomes_a_blob(journal: Journal) -> None:
    new = new_run()
    await journal.accept(new)
    journal.append(fence_of(new), new_event(data={"text": "x" * 300_000}))
    await journal.finish(fence_of(new), DONE)

    _, large, _ = await journal.events(new.run_id)

    reference = codec.load(large.data)
    assert reference == {"blob": reference["blob"], "size_bytes": 300_011}
    blob = await journal.blob(new.run_id, reference["blob"])
    assert blob is not None
    assert codec.load(blob) == {"text": "x" * 300_000}
    assert await journal.blob(new.run_id, "sha256:0") is None


async def test_events_are_read_by_type_by_time_and_in_parts(journal: Journal) -> None:
    new = new_run()
    await journal.accept(new)
    for number in range(10):
        type_ = "even" if number % 2 == 0 else "odd"
        journal.append(fence_of(new), new_event(type_, {"n": number}, at_us=2**51 + number))
    await journal.finish(fence_of(new), DONE)

    def numbers(events: list[Event]) -> list[int]:
        return [codec.load(event.data)["n"] for event in events]

    assert numbers(list(await journal.events(new.run_id, types=["odd"]))) == [1, 3, 5, 7, 9]
    assert numbers(list(await journal.events(new.run_id, after=3, limit=2))) == [2, 3]
    assert len(await journal.events(new.run_id, limit_bytes=1)) == 1
    assert await journal.first_event_since(new.run_id, 2**51 + 4) == 5
    assert await journal.first_event_since(new.run_id, 2**52) == 12


@promise("R5", "R8")
async def test_a_follower_gets_each_event_once_and_ends_with_the_run(journal: Journal) -> None:
    new = new_run()
    await journal.accept(new)
    seen: list[int] = []

    async def read() -> None:
        seen.extend([event.index async for event in follow(journal, new.run_id, page=3)])

    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        tasks.create_task(read())
        for _ in range(20):
            journal.append(fence_of(new), new_event())
            await asyncio.sleep(0)
        await journal.finish(fence_of(new), DONE)

    assert seen == list(range(1, 23))
    assert [event.index async for event in follow(journal, new.run_id, after=20)] == [21, 22]
    assert [event async for event in follow(journal, new.run_id, after=22)] == []
    assert [event async for event in follow(journal, "workflow:x:none")] == []


async def test_a_deleted_run_leaves_nothing(journal: Journal) -> None:
    kept, gone = new_run(tags=("t",)), new_run(tags=("t",), payload="x" * 5000)
    for new in (kept, gone):
        await journal.accept(new)
    assert await journal.delete(gone.run_id) is RunStatus.RUNNING
    await journal.finish(fence_of(gone), DONE)

    assert await journal.delete(gone.run_id) is RunStatus.COMPLETED

    assert await journal.run(gone.run_id) is None
    assert list(await journal.events(gone.run_id)) == []
    assert await journal.delete(gone.run_id) is None
    assert [run.run_id for run in (await journal.runs(RunFilter(tags=["t"]))).runs] == [kept.run_id]


async def test_a_deleted_run_frees_its_idempotency_key(journal: Journal) -> None:
    first = new_run(idempotency_key="k", request_digest="d")
    await journal.accept(first)
    await journal.finish(fence_of(first), DONE)
    await journal.delete(first.run_id)

    second = new_run(idempotency_key="k", request_digest="d")

    assert (await journal.accept(second)).run_id == second.run_id


async def test_old_finished_runs_are_deleted_and_others_kept(journal: Journal) -> None:
    old, running = new_run(), new_run()
    for new in (old, running):
        await journal.accept(new)
    await journal.finish(fence_of(old), DONE)

    assert await journal.delete_finished(before_us=0, limit=10) == []
    assert await journal.delete_finished(before_us=2**60, limit=10) == [old.run_id]
    assert [run.run_id for run in (await journal.runs(RunFilter())).runs] == [running.run_id]


async def test_a_check_of_a_sound_journal_finds_nothing(journal: Journal) -> None:
    await journal.accept(new_run())

    checked = await journal.check()

    assert (checked.problems, checked.runs) == ((), 1)


async def test_a_backup_opens_as_a_journal(journal: Journal, tmp_path: Path) -> None:
    new = new_run(payload=[1, 2, 3])
    await journal.accept(new)
    target = tmp_path / "backup" / "copy.db"

    size_bytes = await journal.backup(target)

    assert size_bytes == target.stat().st_size
    copy = open_journal(f"sqlite:///{target}", read_only=True)
    run = await copy.run(new.run_id)
    assert run is not None
    assert codec.load(run.payload) == [1, 2, 3]
    await copy.close()


async def test_a_closed_journal_says_so(url: str) -> None:
    journal = open_journal(url)
    await journal.close()

    with pytest.raises(JournalClosed):
        await journal.accept(new_run())
    with pytest.raises(JournalClosed):
        await journal.run("workflow:x:1")
    await journal.close()


_VERBS: list[Callable[[Journal, Fence], object]] = [
    lambda journal, fence: journal.append(fence, new_event()),
    lambda journal, fence: journal.announce(fence, new_event("step_start")),
    lambda journal, fence: journal.requeue(fence, crashed=True),
    lambda journal, fence: journal.release(fence),
    lambda journal, fence: journal.claim("engine-1", 10),
    lambda journal, fence: journal.cancel(fence.run_id),
    lambda journal, fence: journal.finish(fence, DONE),
    lambda journal, fence: journal.finish(fence, BROKEN),
]


@promise("R4", "R7")
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(verbs=st.lists(st.tuples(st.sampled_from(range(len(_VERBS))), st.integers(1, 3)), max_size=12))
async def test_whatever_the_order_of_verbs_the_record_stays_whole(url: str, verbs: list[tuple[int, int]]) -> None:
    journal = open_journal(url)
    new = new_run()
    await journal.accept(new)
    for number, attempt in verbs:
        answer = _VERBS[number](journal, fence_of(new, attempt=attempt))
        if isinstance(answer, asyncio.Future):
            await answer
    await journal.claim("engine-1", 10)
    await journal.cancel(new.run_id)

    run = await journal.run(new.run_id)
    events = await journal.events(new.run_id)
    await journal.close()

    assert run is not None
    assert [event.index for event in events] == list(range(1, run.last_index + 1))
    ends = [event.index for event in events if event.type == "run_end"]
    assert ends == ([run.last_index] if run.is_final else [])
