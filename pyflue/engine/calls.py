"""Durable calls of one attempt at a run: their keys, what is recorded of them, and what becomes of them.

`FlueContext` begins a call here, which fixes its key at once; `steps.py`, `waits.py` and `children.py` carry it out.
When a run is taken up again its recorded calls are here, each until the code makes it again. A call of another kind
where one is recorded ends the run (`replay_mismatch`); other changes are told by an event.

Knows the journal and the attempt's scopes; not the engine, beyond the few things in `Host`.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar

import msgspec

from .. import codec
from ..clock import Clock, rfc3339, to_datetime
from ..codec import Raw
from ..errors import CallMisplaced, JournalError, PyFlueError, ReplayDrifted, ReplayMismatch, RunStopped
from ..ids import stream_of
from ..journal import EventType, Fence, Journal, NewEvent
from ..settings import Limits
from . import scopes
from .parking import Parking
from .recorder import JournalRecorder
from .resources import Resources
from .scopes import Scope
from .slots import Slots

if TYPE_CHECKING:
    from ..journal import Attached, History, NewRun, NewStep, Step, Wait
    from .agents import AgentHost
    from .live import Live
    from .workflow import Workflow

T = TypeVar("T")

#: What those who take idempotency keys usually take.
_LONGEST_STEP_ID = 255


class Host(Protocol):
    """What durable calls need of the engine that drives their run."""

    @property
    def stopped_because(self) -> str | None:
        """Why the attempt is being ended; None while it goes on."""
        ...

    def fail(self, error: PyFlueError) -> None:
        """End the run with an error, whatever its code makes of it."""
        ...

    def give_up(self, error: Exception) -> None:
        """End the attempt, because its record could not be written."""
        ...

    async def find(self, workflow: str) -> Workflow:
        """A workflow of the project."""
        ...

    def place_child(self, workflow: Workflow, payload: Raw, tags: tuple[str, ...]) -> NewRun:
        """A run to be accepted as a child of this one.

        Raises:
            ChildrenTooDeep
        """
        ...

    def child_accepted(self, child: NewRun, workflow: Workflow, parsed: Any, *, is_there: bool) -> None:
        """Drive a child that was placed, or forget it if it was not accepted after all."""
        ...

    def cancel_soon(self, run_id: str) -> None:
        """Ask for the end of another run."""
        ...

    def let_go(self) -> None:
        """The attempt is over, and its task has ended: keep nothing that would only go with a collection."""
        ...


class Call(msgspec.Struct, frozen=True):
    """A durable call that the code makes: its identity, and where it stands."""

    key: str
    name: str
    kind: str
    position: int
    scope: Scope


class Calls:
    """The durable calls of one attempt."""

    __slots__ = (
        "__weakref__",
        "_accepted",
        "_index",
        "_is_strict",
        "_noted",
        "_recorded",
        "_settled",
        "_shifts",
        "agents",
        "clock",
        "definition",
        "fence",
        "given",
        "has_history",
        "host",
        "journal",
        "limits",
        "live",
        "parking",
        "recorder",
        "resources",
        "root",
        "scope",
        "stream_id",
    )

    def __init__(
        self,
        *,
        fence: Fence,
        journal: Journal,
        recorder: JournalRecorder,
        clock: Clock,
        limits: Limits,
        slots: Slots,
        host: Host,
        root: Path | None,
        accepted: asyncio.Future[Any] | None,
        is_strict: bool,
        agents: AgentHost | None = None,
        live: Live | None = None,
        resources: Resources | None = None,
    ) -> None:
        """`accepted` is done when the run's own record is on disk; before that, no call does anything."""
        self.fence = fence
        #: Where its events go: the run, or the instance of a continuing agent.
        self.stream_id = stream_of(fence.run_id)
        self.journal = journal
        self.recorder = recorder
        self.clock = clock
        self.limits = limits
        self.host = host
        self.root = root
        #: Who makes the harnesses of agents; None where there is nobody.
        self.agents = agents
        #: Where text of models is shown while it arrives.
        self.live = live
        #: The definition that came with the request, while it is at hand; see `definition_of`.
        self.definition: Raw | None = None
        #: What the runs of this engine share.
        self.resources = resources if resources is not None else Resources()
        #: Whether earlier attempts, or the run it was made of, have recorded anything.
        self.has_history = False
        self.parking = Parking(fence, journal, clock, slots)
        #: The scope of the run itself.
        self.scope = Scope(self.parking)
        self._accepted = accepted
        self._is_strict = is_strict
        self._recorded: dict[str, Step | Wait] = {}
        #: The calls that gave back what they gave, with their kinds: what is recorded below them is not asked for.
        self.given: dict[str, str] = {}
        self._shifts: dict[str, int] = {}
        self._index = 0
        # How many values were noted, and how many of them are on disk for sure. `now` and its like may be asked for in
        # a thread of the run, but then no step of that thread begins meanwhile.
        self._noted = 0
        self._settled = 0

    def remember(self, history: History) -> None:
        """Take what earlier attempts recorded."""
        self._recorded = {record.key: record for record in (*history.waits, *history.steps)}
        self.has_history = True

    @property
    def index(self) -> int:
        """Up to where the run's records are on disk, as far as this attempt knows."""
        return self._index

    @property
    def left(self) -> Sequence[Step | Wait]:
        """What is recorded and was not asked for."""
        return list(self._recorded.values())

    # Making a call

    def begin(self, name: str, kind: str, *, key: str | None = None) -> Call:
        """Fix the key of a call, at the moment and in the place where the code makes it.

        Raises:
            CallMisplaced: not from within the run; RunStopped: the run no longer goes on here.
        """
        scope = self.check_here(name)
        if self.parking.is_parked:
            self.parking.unpark()  # something that is not recorded, such as a timeout of the author's own, has woken it
        step_key, position = scope.take(name, key)
        return Call(step_key, name, kind, position, scope)

    def check_here(self, name: str) -> Scope:
        """The scope that a call is made in.

        Raises:
            CallMisplaced, RunStopped: as `begin`.
        """
        scope = scopes.current()
        if scope is None or scope.owner is not self.parking:
            raise CallMisplaced(
                f"{name!r} was called from outside of run {self.fence.run_id}.",
                hint="Durable calls belong into tasks and steps of their run, not into other threads or callbacks.",
            )
        if (why := self.host.stopped_because) is not None:
            raise RunStopped(self.fence.run_id, why)
        return scope

    def step_id(self) -> str:
        """The id of the step that this is asked in, for the outside world."""
        step_key = self.check_here("ctx.step_id").step_key
        if step_key is None:
            raise CallMisplaced("ctx.step_id was asked for outside of a step.", hint="Ask in the step's function.")
        whole = f"{self.fence.run_id}/{step_key}"
        if len(whole) <= _LONGEST_STEP_ID and whole.isascii() and " " not in whole:
            return whole
        short = hashlib.sha256(step_key.encode()).hexdigest()[:32]
        return f"{self.fence.run_id}/{short}"

    def recorded(self, call: Call, digest: str | None) -> Step | Wait | None:
        """What is recorded of a call, once; `digest` stands for its input.

        Raises:
            ReplayMismatch, ReplayDrifted: the run ends with this.
        """
        if not self._recorded:
            return None
        record = self._recorded.pop(call.key, None)
        if record is None:
            if self._is_strict:
                self._refuse_new(call)
            return None
        found = record.call
        if found != call.kind:
            raise self._failure(ReplayMismatch(self.fence.run_id, call.key, f"a {found}", f"a {call.kind}"))
        if digest is not None and record.input_digest not in (digest, None):
            record = self._with_input(call, digest, record)
        else:
            self._compare_position(call, record)
        if record.is_over:
            self.given[call.key] = call.kind
        if call.kind in _IN_TIME:
            self._index = max(self._index, record.recorded_index)
        return record

    def _refuse_new(self, call: Call) -> None:
        """Fail if another call was recorded where the code now makes one that is not."""
        path = call.scope.path
        for key, record in self._recorded.items():
            if record.position == call.position and key.startswith(path) and "/" not in key[len(path) :]:
                raise self._failure(ReplayDrifted(self.fence.run_id, call.key, f"call in its place ({key!r})"))

    def _compare_position(self, call: Call, record: Step | Wait) -> None:
        shift = record.position - call.position
        if shift != self._shifts.get(call.scope.path, 0):
            # Told where it begins: one call that was put in shifts all that follow it.
            self._shifts[call.scope.path] = shift
            self._drifted(call, "position")

    def _with_input(self, call: Call, digest: str, record: Step | Wait) -> Step | Wait:
        """The record of the same call with this input, if there is one elsewhere; else the one at its key.

        Calls that tasks take from a common queue are made by whichever task comes first: their keys have changed
        places, and each result has to go where its input goes.
        """
        if record.is_over:
            for key, other in self._recorded.items():
                is_the_same = (other.input_digest, other.name, other.call) == (digest, record.name, call.kind)
                if is_the_same and other.is_over:
                    self._recorded[key] = record
                    self._drifted(call, "order")
                    return other
        self._drifted(call, "input")
        return record

    async def ready(self) -> None:
        """Return when the run itself is on disk."""
        accepted = self._accepted
        if accepted is None:
            return
        if not accepted.done():
            # Not the future itself: others wait for it, too, and it must not be cancelled with this task.
            told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            accepted.add_done_callback(lambda _: told.done() or told.set_result(None))
            self.journal.ring()
            await told
        if accepted.cancelled() or accepted.exception() is not None:
            await self.never()  # the engine ends the attempt: nobody has been told of this run
        self._accepted = None

    async def settle(self) -> None:
        """Return when the values that the code was given are on disk: a step shows them to the outside world."""
        noted = self._noted
        if self._settled < noted:
            if not await self.written(self.journal.settle(self.fence)):
                self.host.give_up(RunStopped(self.fence.run_id, "it belongs to another engine"))
                await self.never()
            self._settled = max(self._settled, noted)

    def event(self, type_: EventType, data: Mapping[str, Any]) -> NewEvent:
        """An event to be committed together with a record."""
        self.recorder.count()
        return NewEvent(type=type_, at_us=self.clock.now_us(), data=Raw(codec.encode(data)))

    def tell(self, type_: EventType, data: Mapping[str, Any]) -> None:
        """Append an event of the engine's own, soon."""
        self.recorder.fact(type_, Raw(codec.encode(data)))

    def announce(self, type_: EventType, data: Mapping[str, Any]) -> None:
        """As `tell`, of something that begins: if its record follows within a moment, they are committed together."""
        self.journal.announce(self.fence, self.event(type_, data))

    # Recording

    async def record(self, step: NewStep, *events: NewEvent, attached: Attached | None = None) -> None:
        """Commit a step. Does not return if the run no longer goes on here."""
        index = await self.written(self.journal.record(self.fence, step, events, attached=attached))
        self.advance(index)

    def record_soon(self, step: NewStep, *events: NewEvent) -> asyncio.Future[int | None]:
        """Record a step without waiting for it: for one that would be made again out of what is recorded already.

        Done when it is on disk. Whoever makes many of them waits now and then, or they fill the memory.
        """
        writing = asyncio.ensure_future(self.journal.record(self.fence, step, events))
        writing.add_done_callback(self._note_recorded)
        return writing

    def _note_recorded(self, writing: asyncio.Future[int | None]) -> None:
        error = None if writing.cancelled() else writing.exception()
        if isinstance(error, JournalError):
            self.host.give_up(error)
        elif error is None and not writing.cancelled():
            index = writing.result()
            if index is None:
                self.host.give_up(RunStopped(self.fence.run_id, "it belongs to another engine"))
            else:
                self.advance(index)

    async def written(self, writing: Awaitable[T | None]) -> T:
        """What a write answers. Does not return if it could not be done, or no longer counts."""
        try:
            answer = await writing
        except JournalError as error:
            self.host.give_up(error)
            await self.never()
        if answer is None:
            self.host.give_up(RunStopped(self.fence.run_id, "it belongs to another engine"))
            await self.never()
        return answer

    def advance(self, index: int) -> None:
        """Note up to where records are on disk."""
        self._index = max(self._index, index)

    async def never(self) -> NoReturn:
        """Wait for the end of the attempt, which cancels whoever waits here."""
        await asyncio.get_running_loop().create_future()
        raise AssertionError("unreachable")

    # Values that must be the same when the run is replayed

    def now(self) -> datetime:
        """The current time."""
        return datetime.fromisoformat(self._value("now", lambda: rfc3339(to_datetime(self.clock.now_us()))))

    def random(self) -> float:
        """A random number from 0 to 1."""
        from random import random

        return float(self._value("random", random))

    def uuid(self) -> str:
        """A random UUID."""
        from uuid import uuid4

        return str(self._value("uuid", lambda: str(uuid4())))

    def _value(self, kind: str, make: Callable[[], Any]) -> Any:
        from ..journal import NewStep, Step, StepStatus

        call = self.begin(f"ctx.{kind}", kind)
        record = self.recorded(call, None)
        if isinstance(record, Step) and record.value is not None:
            return codec.load(record.value)
        value = make()
        self.recorder.keep_pace()
        step = NewStep(
            key=call.key,
            kind=kind,
            name=call.name,
            position=call.position,
            status=StepStatus.COMPLETED,
            value=Raw(codec.encode(value)),
            started_us=self.clock.now_us(),
            started_index=self._index,
        )
        # Not waited for: whatever is recorded later is on disk later, and steps wait for it (`settle`).
        self.journal.note(self.fence, step)
        self._noted += 1
        return value

    # Threads

    def block(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Do a durable call from a thread of the run, and block it until that is done."""
        return self.parking.block(coroutine)

    def _drifted(self, call: Call, what: str) -> None:
        if self._is_strict:
            raise self._failure(ReplayDrifted(self.fence.run_id, call.key, what))
        self.tell(EventType.REPLAY_DRIFT, {"step": call.key, "name": call.name, "what": what})

    def _failure(self, error: PyFlueError) -> PyFlueError:
        # Told to the engine as well: the author's code may catch it, and must not go on all the same.
        self.host.fail(error)
        return error


#: Kinds whose calls wait until they are on disk.
_IN_TIME = frozenset({"step", "sleep", "signal", "approval", "child", "start"})
