"""The journal port: what the engine and the readers may ask of a journal, whatever stores it.

Writes are verbs. Each is one transaction: the state it changes and the event that announces it commit together, and
its future resolves after that commit. Writes of one run take effect in the order of the calls. A write for a run
names its `Fence`; if another engine or attempt has taken the run, or the run is final, nothing changes and the answer
says so. Reads see committed state only.

An *interaction* (one prompt or dispatch to a continuing agent's instance) is a run that no list of runs shows. All
verbs work on it as on any run. Its events go to the stream of the instance (`ids.stream_of`), numbered densely there;
asked for by the interaction's id, `events`, `watch` and `follow` are about that one's events only, with the indexes
that they have in the stream.

A write that cannot be stored poisons its run: later writes of that fence are refused with the same error, other runs
go on. `tests/contracts/test_journal*.py` is the exact contract; every adapter passes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from .. import ids
from ..codec import Raw
from .records import (
    Accepted,
    CancelAnswer,
    Checked,
    Event,
    EventType,
    Fence,
    NewEvent,
    NewRun,
    Outcome,
    Page,
    Run,
    RunFilter,
    RunStatus,
)

if TYPE_CHECKING:
    from .calls import (
        Approval,
        ApprovalFilter,
        Decided,
        History,
        NewSignal,
        NewStep,
        NewWait,
        Opened,
        Park,
        ParkedTimer,
        SignalAnswer,
        Step,
        Wait,
    )
    from .conversations import Attached, Entry, FileVersion, SessionInfo, StreamInfo


class Journal(Protocol):
    """A durable store of streams of events and the state that goes with them.

    Raises (every verb): `JournalFull`, `JournalBusy`, `JournalClosed`, `JournalUnreadable`.
    """

    # Runs: writes

    def accept(self, new: NewRun, *, is_awaited: bool = True) -> asyncio.Future[Accepted]:
        """Record a new run, with the records it takes over (`NewRun.copies`).

        With an idempotency key that is known, the answer names the earlier run instead. So it does if the run needs
        its lane to be free and that has an unfinished run. A run whose id is taken is not recorded either.

        An interaction's payload is also the data of the first event of its own, `interaction_accepted`, whose stream
        is made if it is not there.

        A record that nobody waits for (`is_awaited=False`) may take up to 50 ms, to share its fsync with a later one;
        `ring` says that somebody does now.
        """
        ...

    def ring(self) -> None:
        """Write at once what has been handed in."""
        ...

    def claim(
        self, owner: str, limit: int, *, run_ids: Sequence[str] | None = None, max_crashes: int | None = None
    ) -> Awaitable[Sequence[Run]]:
        """Take up to `limit` queued runs; each is `running` under a new attempt when this resolves.

        Runs that were begun before go first (they were woken, or lost their engine), then the others, oldest first. A
        run is not taken while an earlier one of its lane is unfinished.

        With `run_ids` only those; with `max_crashes` only runs that crashed fewer times than that.
        """
        ...

    def requeue(self, lost: Fence, *, crashed: bool) -> Awaitable[bool]:
        """Queue a run again whose engine has died, or has lost the run's task; False if the fence no longer holds.

        `crashed` counts the loss as a crash of the run. A run whose cancellation was requested ends as cancelled. One
        that is waiting stays so, and belongs to nobody until it is woken.
        """
        ...

    def disown(self, owner: str) -> Awaitable[int]:
        """Let all waiting runs of a dead engine belong to nobody; they stay waiting. Returns how many it were.

        Those whose cancellation was requested end as cancelled.
        """
        ...

    def append(self, fence: Fence, *events: NewEvent) -> None:
        """Append events soon, without waiting for the disk; `unwritten` and `drain` tell how far that is.

        If the fence no longer holds nothing is written and `on_lost` is called.
        """
        ...

    def announce(self, fence: Fence, event: NewEvent) -> None:
        """Append an event that says that something begins.

        As `append`, but the journal may wait a tenth of a second for a record of the same fence, and commit both
        together: of work that is done in less, no reader sees the beginning before the end. In its place in the stream
        in any case, and at once while somebody watches the stream in this process.
        """
        ...

    def finish(self, fence: Fence, outcome: Outcome) -> Awaitable[Outcome | None]:
        """Make the run final and append `run_end`; None if the fence no longer holds.

        In the same transaction its open waits are closed, a child run it waited for is asked to end, and the parent
        that waits for this run is answered with `{"status", "result", "error"}`. The data of an interaction's end also
        holds its `result`; if that is too large, a blob holds the data whole and the event its `status`. The next run
        of its lane may be claimed from then on, which `on_answered` tells.

        Returns what was recorded: a run whose cancellation was requested before ends as cancelled, whatever
        `outcome` says.
        """
        ...

    def finish_queued(self, run_id: str, outcome: Outcome) -> Awaitable[bool]:
        """Make a run final that nobody drives, as `finish`; False if somebody does, or it is final."""
        ...

    def release(self, fence: Fence) -> Awaitable[bool]:
        """Hand a run back: it belongs to nobody, is queued again, or stays waiting; False if the fence is lost."""
        ...

    def cancel(self, run_id: str) -> Awaitable[CancelAnswer | None]:
        """Ask for the end of a run and of all runs below it that are not final.

        One that nobody owns ends at once; one with an owner is marked, its owner ends it. None if there is no such run.
        """
        ...

    # Durable calls: writes

    def record(
        self, fence: Fence, step: NewStep, events: Sequence[NewEvent] = (), *, attached: Attached | None = None
    ) -> Awaitable[int | None]:
        """Record a step and append events; returns the run's `last_index`, None if the fence no longer holds.

        A record of status `retrying`, `started` or `cancelled` is replaced by a later one of its key, any other is
        final. Recording is progress: the run's crashes are forgotten.

        What is `attached` is recorded in the same transaction: entries at the next positions of their sessions, what
        became of files, the run's usage, a further step. They belong to the run's stream. A run keeps all versions of
        its files; the stream of an instance keeps the newest of each path.
        """
        ...

    def note(self, fence: Fence, step: NewStep, *, attached: Attached | None = None) -> None:
        """As `record`, soon and without waiting for the disk; what is recorded later is on disk later, too.

        Its `recorded_index` is its `started_index`.

        If the fence no longer holds nothing is written and `on_lost` is called.
        """
        ...

    def settle(self, fence: Fence) -> Awaitable[bool]:
        """Return once everything that was noted and appended for a fence is on disk; False if it no longer holds."""
        ...

    def open_wait(
        self, fence: Fence, wait: NewWait, events: Sequence[NewEvent] = (), *, park: Park | None = None
    ) -> Awaitable[Opened | None]:
        """Record that a run waits; None if the fence no longer holds. A wait that is not open any more is replaced.

        A wait for a signal takes the oldest one of its name that was kept, and is answered with it at once.
        """
        ...

    def start_child(
        self,
        fence: Fence,
        child: NewRun,
        call: NewStep | NewWait,
        events: Sequence[NewEvent] = (),
        *,
        park: Park | None = None,
    ) -> Awaitable[Opened | int | None]:
        """Accept a run that another one starts, together with that one's record of having started it.

        With a wait the parent waits for the child's end (`Opened`), with a step it goes on (as `record`). None if the
        parent's fence no longer holds; then there is no child either.
        """
        ...

    def park(self, fence: Fence, park: Park) -> Awaitable[bool]:
        """Make a run `waiting`; False if one of its waits has ended meanwhile, or the fence no longer holds."""
        ...

    def expire(self, run_id: str, key: str, *, fence: Fence | None) -> Awaitable[Wait | None]:
        """End an open wait whose time has come; returns it as it is then, however it ended.

        None if there is no such wait, or the fence no longer holds.

        By the run's owner with its fence, by anybody (None) only while nobody owns the run. A child run it waited for
        is asked to end.
        """
        ...

    def close_wait(self, fence: Fence, key: str) -> None:
        """Give up an open wait, soon. A child run it waited for is asked to end."""
        ...

    def signal(self, run_id: str, signal: NewSignal) -> Awaitable[SignalAnswer | None]:
        """Send a signal to a run: its oldest open wait for that name is answered, or the signal is kept.

        None if there is no such run.
        """
        ...

    def decide(self, approval_id: str, decision: Raw) -> Awaitable[Decided | None]:
        """Answer an approval. `decision` is an object with `approved`, `by`, `at`, `reason` and `data`.

        Nothing is recorded if it is decided already, cancelled, or past its time. A decision repeats another one if
        `approved` and `data` are equal. None if there is no such approval.
        """
        ...

    def restart(self, fence: Fence) -> Awaitable[bool]:
        """Forget all durable calls of a run, so that it begins anew; False if the fence no longer holds.

        Signals that were taken are kept again; its child runs are asked to end. The entries and files that it recorded
        are forgotten, too; an instance does not get back earlier versions of those files.
        """
        ...

    # Durable calls: reads

    async def history(self, run_id: str) -> History:
        """All durable calls that a run has recorded, with values whole."""
        ...

    async def steps(
        self, run_id: str, *, after: str | None = None, limit: int = 1000, limit_bytes: int | None = None
    ) -> Sequence[Step]:
        """A run's durable calls, its waits among them, in the order they were recorded; open waits come last.

        From behind the call of the key `after`. Fewer than `limit` once `limit_bytes` of values were read.
        """
        ...

    async def wait(self, run_id: str, key: str) -> Wait | None:
        """One wait."""
        ...

    async def open_waits(self, run_id: str) -> Sequence[Wait]:
        """What a run waits for, oldest first."""
        ...

    async def approval(self, approval_id: str) -> Approval | None:
        """One approval."""
        ...

    async def approvals(
        self, where: ApprovalFilter, *, before: str | None = None, limit: int = 50
    ) -> Sequence[Approval]:
        """Approvals, newest first, from below the id `before`."""
        ...

    async def parked_timers(self, limit: int) -> Sequence[ParkedTimer]:
        """Open waits with a time limit, of waiting runs that nobody owns; those that are due first."""
        ...

    async def answers_since(self, seq: int) -> tuple[int, Sequence[tuple[str, str]]]:
        """The waits that ended after the `seq`-th did, as (run id, key), and the number to ask with next time.

        Numbers grow with each wait that ends, in whichever process; -1 asks for the current number only.
        """
        ...

    # Agents

    async def entries(
        self, stream_id: str, session: str, *, after: int = 0, limit: int = 1000, limit_bytes: int | None = None
    ) -> Sequence[Entry]:
        """Entries of a session above a position, in order; fewer than `limit` once `limit_bytes` of them were read."""
        ...

    async def sessions(self, stream_id: str) -> Sequence[SessionInfo]:
        """The sessions of a stream that have entries, by name."""
        ...

    async def files(self, stream_id: str, workspace: str) -> Sequence[FileVersion]:
        """What became of the files of a workspace, in the order in which it was recorded, with their contents.

        All versions of a run's, the newest of each path of an instance's.
        """
        ...

    async def stream(self, stream_id: str) -> StreamInfo | None:
        """The stream of an agent's instance."""
        ...

    async def streams(self, agent: str, *, before: int | None = None, limit: int = 50) -> Sequence[StreamInfo]:
        """The streams of an agent's instances; those created last first, from below the cursor `before` (a `seq`)."""
        ...

    async def interactions(self, stream_id: str, *, before: int | None = None, limit: int = 50) -> Page:
        """The interactions with an agent's instance, newest first, from below the cursor `before`, without values."""
        ...

    def delete_session(self, stream_id: str, session: str) -> Awaitable[int]:
        """Delete the entries of a session; returns how many it were."""
        ...

    def delete_stream(self, stream_id: str) -> Awaitable[bool | None]:
        """Delete an instance with its interactions, events, conversations and workspaces.

        Returns False, and deletes nothing, while an interaction has not ended; None if there is no such stream.
        """
        ...

    # Runs: more writes

    def delete(self, run_id: str) -> Awaitable[RunStatus | None]:
        """Delete a final run with all that belongs to it. What an interaction left in the instance's stream stays.

        Returns the status found (nothing was deleted unless it is final), None if there is no such run.
        """
        ...

    def delete_finished(self, *, before_us: int, limit: int) -> Awaitable[Sequence[str]]:
        """Delete up to `limit` runs that ended before a time; returns their ids."""
        ...

    def keep_blob(self, stream_id: str, data: bytes) -> Awaitable[str]:
        """Keep bytes under their content's name (`blob_name`), which is returned; `blob` gives them back.

        In the stream of a run they are deleted with it. Any other name is a shelf that many runs share; nothing is
        ever deleted from one.

        Raises:
            JournalFull, JournalBusy.
        """
        ...

    def forget_keys(self) -> Awaitable[None]:
        """Delete the idempotency keys whose time is over."""
        ...

    # Runs: reads

    async def run(self, run_id: str, *, values: bool = True) -> Run | None:
        """One run; without `values`, its payload, result and request are left out."""
        ...

    async def definition(self, run_id: str) -> Raw | None:
        """The definition that came with the request for a run; None if none did, or there is no such run."""
        ...

    async def runs(self, where: RunFilter, *, before: int | None = None, limit: int = 50) -> Page:
        """Runs of workflows, newest first, from below the cursor `before`."""
        ...

    async def unfinished(self, *, owner: str | None = None) -> Sequence[Run]:
        """Running and waiting runs (of one owner), without values."""
        ...

    async def count_unfinished(self, owner: str) -> int:
        """How many running and waiting runs an engine owns."""
        ...

    async def lost(self) -> Sequence[Run]:
        """Running runs whose engine is no longer alive, without values."""
        ...

    async def dead_owners_of_waiting(self) -> Sequence[str]:
        """The engines that are no longer alive and still own waiting runs."""
        ...

    async def cancel_requests(self, owner: str) -> Sequence[str]:
        """The ids of an engine's runs that somebody asked to end."""
        ...

    async def suspects(self, crashes: int) -> Sequence[str]:
        """The ids of queued runs that crashed at least so many times (2 or more) without recording progress."""
        ...

    async def count_queued(self) -> int:
        """How many runs are queued."""
        ...

    async def has_queued(self, *, max_crashes: int | None = None) -> bool:
        """Whether there is a run to claim (that crashed fewer times than `max_crashes`).

        Those behind another run of their lane do not count.
        """
        ...

    async def expired(self) -> Sequence[tuple[str, int]]:
        """The ids of runs that nobody owns and whose deadline has passed, each with that deadline in microseconds."""
        ...

    async def events(
        self,
        stream_id: str,
        *,
        after: int = 0,
        limit: int = 1000,
        types: Sequence[str] = (),
        limit_bytes: int | None = None,
    ) -> Sequence[Event]:
        """Events above an index, in order; fewer than `limit` once `limit_bytes` of data were read."""
        ...

    async def first_event_since(self, stream_id: str, since_us: int) -> int:
        """The index before the first event at or after a time: what to read `after` to see the events since then."""
        ...

    async def blob(self, stream_id: str, digest: str) -> bytes | None:
        """A value that was too large for its event, or was kept by `keep_blob`."""
        ...

    # Waking

    def watch(self, stream_id: str) -> Watch:
        """A bell that rings after commits that touch the stream, from whichever process."""
        ...

    def on_foreign_commit(self, callback: Callable[[], None]) -> None:
        """Call `callback` (from any thread) after other processes have committed something."""
        ...

    def on_lost(self, callback: Callable[[Fence, Exception | None], None]) -> None:
        """Call `callback` (from any thread) when a run's write was refused.

        With None the fence no longer held; with an error the write could not be stored and the fence is poisoned.
        """
        ...

    def on_answered(self, callback: Callable[[Sequence[tuple[str, str]]], None]) -> None:
        """Call `callback` (from any thread) with (run id, key) of waits that ended by a write of this process.

        It is called after the commit. `answers_since` tells of those that other processes ended.

        With an empty key: the run was behind another one of its lane, and may be claimed now. Other processes learn
        that from `on_foreign_commit` and `has_queued`.
        """
        ...

    # Life

    def enlist(self, engine_id: str) -> None:
        """Make an engine known as alive until this journal is closed or its process ends, however it ends.

        Raises:
            JournalUnreadable: the file is corrupted (it is read through before an engine relies on it).
        """
        ...

    def unwritten(self, run_id: str) -> int:
        """How many of a run's writes wait for the disk."""
        ...

    def drain(self, run_id: str) -> None:
        """Block the calling thread until the run's writes so far are on disk (or have failed)."""
        ...

    async def check(self) -> Checked:
        """Read everything and report what is broken."""
        ...

    async def backup(self, target: Path) -> int:
        """Write a consistent copy to a new file; returns its size in bytes."""
        ...

    async def close(self) -> None:
        """Write what is queued, then close. Later calls raise `JournalClosed`."""
        ...


class Watch(Protocol):
    """A bell for one reader of a stream. Use as a context manager; it is silent after leaving."""

    def __enter__(self) -> Watch: ...

    def __exit__(self, *args: object) -> None: ...

    async def wait(self) -> None:
        """Return at the next ring; at once if it rang since the last wait."""
        ...

    def ring(self) -> None:
        """Let whoever waits look again, for a reason that is not in the journal. On the event loop."""
        ...


async def follow(
    journal: Journal, stream_id: str, *, after: int = 0, page: int = 64, page_bytes: int = 32 * 1024
) -> AsyncIterator[Event]:
    """Yield a run's events in order, each once, then wait for new ones until `run_end`; nothing if there is no run.

    An interaction's events end with `interaction_end`. The stream of an agent's instance, which need not be there yet,
    has no last event: it ends only when it is deleted.

    One page is in memory at a time, so a reader that stops reading costs no more than that.
    """
    last = EventType.INTERACTION_END if ids.is_interaction(stream_id) else EventType.RUN_END
    source = _Instance(journal, stream_id) if ids.parse_agent_stream(stream_id) else _Run(journal, stream_id)
    read = 0
    with journal.watch(stream_id) as bell:
        while True:
            events = await journal.events(stream_id, after=after, limit=page, limit_bytes=page_bytes)
            for event in events:
                after = read = event.index
                yield event
                if event.type == last and isinstance(source, _Run):
                    return
            if not events:
                if await source.is_over(read):
                    return  # deleted, or the reader knows the end already
                if not source.looks_again:
                    await bell.wait()


class _Run:
    """Whether a run may have more events than those up to a moment ago, which have been read."""

    def __init__(self, journal: Journal, run_id: str) -> None:
        self._journal = journal
        self._run_id = run_id
        self.looks_again = False

    async def is_over(self, read: int) -> bool:
        run = await self._journal.run(self._run_id, values=False)
        if run is None or self.looks_again:
            return True
        # Its last events may have been committed between the two looks.
        self.looks_again = run.is_final
        return False


class _Instance:
    """The same for the stream of an agent's instance."""

    looks_again = False

    def __init__(self, journal: Journal, stream_id: str) -> None:
        self._journal = journal
        self._stream_id = stream_id
        self._seq: int | None = None

    async def is_over(self, read: int) -> bool:
        """`read` is the index of the last event that was read, 0 if there was none yet."""
        info = await self._journal.stream(self._stream_id)
        if info is None:
            return read > 0 or self._seq is not None
        if self._seq is None:
            self._seq = info.seq
        return info.seq != self._seq or info.last_index < read  # deleted, and made anew
