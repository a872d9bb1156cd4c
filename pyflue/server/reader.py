"""One reader of a run's events: page after page, then what is new, until the run's last event.

The stream of an agent's instance is read in the same way, and has no last event; of an interaction with one, only its
own events are read. Used by the SSE and WebSocket routes. A reader that does not take what it is given costs one page,
whatever the run writes meanwhile: nothing is queued for it, the next page is read when it comes back for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec.structs import replace

from .. import codec, ids
from ..codec import Raw
from ..engine.live import Live, LiveReader, TextDelta
from ..errors import InstanceNotFound, InvalidQuery, RunNotFound
from ..journal import Event, EventType, Journal, Run

if TYPE_CHECKING:
    from ..journal import StreamInfo

_PAGE_EVENTS = 64
#: With the connection's write buffer, a reader stays below 64 kB.
_PAGE_BYTES = 8 * 1024

#: Events that may hold what an exception says.
_WITH_ERRORS = frozenset(
    {
        EventType.STEP_RETRY,
        EventType.STEP_END,
        EventType.RUN_END,
        EventType.INTERACTION_END,
        EventType.OPERATION,
        EventType.TASK_END,
        EventType.TOOL_END,
        EventType.ERROR,
    }
)
#: Events after which a run, or an interaction, has none.
_LAST = frozenset({EventType.RUN_END, EventType.INTERACTION_END})

T = TypeVar("T")


async def find_run(journal: Journal, run_id: str, *, values: bool = True) -> Run:
    """The run with an id.

    Raises:
        RunNotFound
    """
    run = await journal.run(run_id, values=values)
    if run is None:
        raise RunNotFound(run_id)
    return run


async def find_instance(journal: Journal, stream_id: str) -> StreamInfo:
    """The instance of an agent whose stream this is.

    Raises:
        InstanceNotFound: nobody has talked to it.
    """
    info = await journal.stream(stream_id)
    if info is None:
        raise _no_instance(stream_id)
    return info


def _no_instance(stream_id: str) -> InstanceNotFound:
    return InstanceNotFound(*(ids.parse_agent_stream(stream_id) or ("", stream_id)))


class EventReader:
    """Reads the events of a run, an interaction or an instance above an index.

    Use as a context manager, around one reader's life.
    """

    __slots__ = (
        "_after",
        "_bell",
        "_has_begun",
        "_interaction",
        "_is_instance",
        "_is_over",
        "_journal",
        "_live",
        "_quiet_s",
        "_run_id",
        "_seq",
        "_watching",
    )

    def __init__(
        self, journal: Journal, run_id: str, *, after: int = 0, quiet_s: float, live: Live | None = None
    ) -> None:
        """`run_id` may be the stream of an instance.

        With `live` it also reads text of models while that arrives, as deltas between the events.
        """
        self._journal = journal
        self._run_id = run_id
        self._after = after
        self._quiet_s = quiet_s
        self._bell = journal.watch(run_id)
        self._is_instance = ids.parse_agent_stream(run_id) is not None
        interaction = ids.split_interaction_id(run_id)
        #: How the ids of an interaction's operations begin.
        self._interaction = None if interaction is None else f"{interaction[1]}/"
        stream_id = ids.stream_of(run_id)
        self._live = None if live is None else LiveReader(live, stream_id)
        self._watching = None if live is None else live.watch(stream_id, self._bell.ring)
        self._has_begun = False
        self._is_over = False
        self._seq = 0

    def __enter__(self) -> EventReader:
        self._bell.__enter__()
        if self._watching is not None:
            self._watching.__enter__()
        return self

    def __exit__(self, *args: object) -> None:
        if self._watching is not None:
            self._watching.__exit__(None, None, None)
        self._bell.__exit__(*args)

    async def read(self) -> Sequence[Event] | Sequence[TextDelta] | None:
        """The next events, some at a time: none of them after `quiet_s` of silence, None after the last one.

        Raises:
            RunNotFound, InstanceNotFound: there is no such run or instance (any more).
            InvalidQuery: the index to read above is one the run has not reached, so nobody can have seen it.
        """
        if not self._has_begun:
            await self._begin()
        if self._is_over:
            return None
        while True:
            events = await self._journal.events(
                self._run_id, after=self._after, limit=_PAGE_EVENTS, limit_bytes=_PAGE_BYTES
            )
            if events:
                self._after = events[-1].index
                self._is_over = not self._is_instance and events[-1].type in _LAST
                self._note_turns(events)
                return events
            if deltas := self._deltas():
                return deltas
            try:
                async with asyncio.timeout(self._quiet_s):
                    await self._bell.wait()
            except TimeoutError:
                await self._check()
                return ()

    def _deltas(self) -> Sequence[TextDelta]:
        if self._live is None:
            return ()
        deltas = self._live.read()
        if self._interaction is None:
            return deltas
        # Other sessions of the instance may be at work, too.
        return [delta for delta in deltas if str(delta.about.get("operation_id")).startswith(self._interaction)]

    def _note_turns(self, events: Sequence[Event]) -> None:
        if self._live is not None:
            for event in events:
                if event.type == EventType.TURN_REQUEST:
                    self._live.announce(codec.load(event.data).get("turn_id", ""))

    async def _begin(self) -> None:
        if self._is_instance:
            info = await find_instance(self._journal, self._run_id)
            self._seq, last_index = info.seq, info.last_index
        else:
            run = await find_run(self._journal, self._run_id, values=False)
            # Indexes of an interaction are those of its instance's stream; nobody reads one from the middle.
            last_index = self._after if self._interaction is not None else run.last_index
            self._is_over = self._interaction is None and run.is_final and self._after == last_index
        if self._after > last_index:
            expected = f"an index up to {last_index}, the last of {self._run_id}"
            raise InvalidQuery("after", str(self._after), expected)
        self._has_begun = True

    async def _check(self) -> None:
        """It may have been deleted."""
        if not self._is_instance:
            await find_run(self._journal, self._run_id, values=False)
        elif (await find_instance(self._journal, self._run_id)).seq != self._seq:
            raise _no_instance(self._run_id)  # this one has only its name


def for_caller(event: Event, *, dev: bool) -> Event:
    """The event as the caller of a workflow may see it.

    What an exception of the author's says is for those who may read runs; others learn of it in `dev` only.
    """
    if dev or event.type not in _WITH_ERRORS or b'"exception":' not in bytes(event.data):
        return event
    data = codec.load(event.data)
    if "exception" not in (data.get("error") or {}):
        return event
    told = {**data, "error": {"type": data["error"]["type"]}}
    told.pop("result", None)  # what a tool of the author's raised, which its model is told
    return replace(event, data=Raw(codec.encode(told)))


async def first_of(work: Coroutine[Any, Any, T], *others: Coroutine[Any, Any, Any]) -> T | None:
    """Run `work` until it or one of `others` ends; then all of them are over.

    Returns what `work` returned, or None if another was first. What any of them raised is raised.
    """
    tasks = [asyncio.ensure_future(item) for item in (work, *others)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        # Bounded: each of them only reads, sends or waits, and none of that outlives its cancellation.
        await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error
    return None if tasks[0].cancelled() else tasks[0].result()
