"""`FlueContext`, what a workflow's `run(ctx)` is given, and `BlockingContext`, its form for plain functions.

Thin faces: the values of the run, the calls that write to its record, and the durable calls. What a call does is in
`recorder.py`, `steps.py`, `waits.py`, `children.py` and `branches.py`, which are imported when they are first used:
many runs need none of them.

A durable call gets its key when it is made, not when it is awaited: in `asyncio.gather(ctx.step(…), ctx.step(…))` each
has the same key whichever is done first.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeAlias, overload

from .. import codec
from ..clock import to_datetime
from ..codec import EMPTY_OBJECT, Raw
from ..errors import CallMisplaced
from ..journal.records import EventType

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    from ..agents import CreatedAgent, Harness
    from .calls import Calls
    from .retrying import RetryPolicy
    from .waits import Decision

    P = TypeVar("P", default=Any)
else:
    from typing import TypeVar

    P = TypeVar("P")

T = TypeVar("T")
R = TypeVar("R")

#: A coroutine, or a function that makes one.
Branch: TypeAlias = "Coroutine[Any, Any, Any] | Callable[[], Awaitable[Any]]"

_MOST_SECONDS = 100 * 365 * 86_400.0

_EMITTED_TYPE = re.compile(r"[a-z][a-z0-9_.-]{0,63}")
_ENGINE_TYPES = frozenset(EventType)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestInfo:
    """The HTTP request that started a run, frozen at acceptance, so that it is the same after a restart.

    Headers have lower-case names; those that carry credentials (`authorization`, `cookie` and the like) are left out.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    #: Address of the caller, `host:port`, if known.
    client: str | None = None
    #: The name of the token that the caller showed, if the server asks for tokens.
    token_name: str | None = None

    @classmethod
    def from_raw(cls, raw: Raw) -> RequestInfo:
        """The request as the journal kept it."""
        fields = codec.load(raw)
        return cls(
            method=fields["method"],
            url=fields["url"],
            headers=MappingProxyType(fields["headers"]),
            client=fields.get("client"),
            token_name=fields.get("token_name"),
        )


class Written:
    """What the recording calls return: they have done their work; `await` also waits while the disk is behind."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, None]:
        yield from ()


class Recorder(Protocol):
    """Writes the events of one run."""

    def event(self, type: str, data: Raw, *, more: Raw | None = None) -> Written:  # noqa: A002  (the field's name)
        """Append an event. May be called from any thread; blocks it while too many events wait for the disk.

        `more` is kept as a blob beside the event, whose data names it.

        Raises:
            RunStopped: the run no longer goes on here.
            TooManyEvents: the run has written as many as it may.
        """
        ...

    @property
    def log_bytes(self) -> int:
        """Longest message of a log event."""
        ...

    @property
    def event_bytes(self) -> int:
        """Largest data that an event holds itself."""
        ...


class RunLog:
    """`ctx.log`: structured lines that become `log` events of the run.

    Works with and without `await`, in async and sync workflows. Fields may be anything: what JSON cannot hold is
    recorded as its `repr`. A message longer than `limits.log_bytes` is cut off.
    """

    __slots__ = ("_recorder",)

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def info(self, message: str, /, **fields: Any) -> Written:
        """Record what happens."""
        return self._write("info", message, fields)

    def warn(self, message: str, /, **fields: Any) -> Written:
        """Record something odd that the run can live with."""
        return self._write("warn", message, fields)

    def error(self, message: str, /, **fields: Any) -> Written:
        """Record something that went wrong; the run goes on all the same."""
        return self._write("error", message, fields)

    def _write(self, level: str, message: str, fields: dict[str, Any]) -> Written:
        text = _cut(message, self._recorder.log_bytes)
        # The level and the message are ours: a field of the same name cannot replace them.
        data = codec.encode_loose({**fields, "level": level, "message": text})
        if len(memoryview(data)) > self._recorder.event_bytes:
            # As a whole it would become a blob, and nobody could find the line by its level or message any more.
            return self._recorder.event(EventType.LOG, codec.encode_loose({"level": level, "message": text}), more=data)
        return self._recorder.event(EventType.LOG, data)


def _cut(message: str, limit_bytes: int) -> str:
    text = str(message)
    if len(text) > limit_bytes // 4 and len(encoded := text.encode(errors="backslashreplace")) > limit_bytes:
        text = encoded[:limit_bytes].decode(errors="ignore") + "…"
    return text


class ContextBase(Generic[P]):
    """What both forms of the context have: the run's values, and what is written without waiting."""

    __slots__ = (
        "_calls",
        "_deadline_us",
        "_env",
        "_raw_request",
        "_recorder",
        "_req",
        "attempt",
        "id",
        "log",
        "payload",
        "tags",
        "workflow",
    )

    def __init__(
        self,
        *,
        run_id: str,
        workflow: str,
        payload: P,
        recorder: Recorder,
        calls: Calls,
        attempt: int = 1,
        tags: tuple[str, ...] = (),
        deadline_us: int | None = None,
        request: Raw | None = None,
    ) -> None:
        #: The run id, `workflow:<name>:<ulid>`.
        self.id = run_id
        #: The workflow's name.
        self.workflow = workflow
        #: The input of this run, parsed and validated.
        self.payload = payload
        #: 1 at first, one more each time the run is started again after a crash or a stop.
        self.attempt = attempt
        #: The tags given when the run was started.
        self.tags = tags
        self._deadline_us = deadline_us
        #: Structured events of the run: `ctx.log.info("message", field=value)`.
        self.log = RunLog(recorder)
        self._recorder = recorder
        self._calls = calls
        self._raw_request = request
        self._req: RequestInfo | None = None
        self._env: dict[str, str] | None = None

    @property
    def deadline_at(self) -> datetime | None:
        """When the run will be ended if it has not ended by itself, aware, in UTC; None if never."""
        return None if self._deadline_us is None else to_datetime(self._deadline_us)

    @property
    def env(self) -> Mapping[str, str]:
        """The environment of this process, copied when first asked for."""
        if self._env is None:
            self._env = dict(os.environ)
        return self._env

    @property
    def req(self) -> RequestInfo | None:
        """The HTTP request that started the run; None if something else did."""
        if self._req is None and self._raw_request is not None:
            self._req = RequestInfo.from_raw(self._raw_request)
        return self._req

    @property
    def step_id(self) -> str:
        """An id of the step this is asked in: the same in each of its attempts, and in no other step or run.

        Give it to the outside world as an idempotency key. 255 characters at most, printable ASCII.

        Raises:
            CallMisplaced: not inside of a step of this run.
        """
        return self._calls.step_id()

    def progress(self, fraction: float, message: str = "") -> Written:
        """Say how far the run is: `fraction` from 0 to 1. Works with and without `await`.

        Raises:
            ValueError: `fraction` is not a number from 0 to 1.
        """
        if not isinstance(fraction, (int, float)) or not 0 <= fraction <= 1:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(f"ctx.progress({fraction!r}): the fraction goes from 0 to 1.")
        data = {"fraction": round(float(fraction), 6), "message": _cut(message, self._recorder.log_bytes)}
        return self._recorder.event(EventType.PROGRESS, codec.encode_loose(data))

    def emit(self, type: str, data: Any = None) -> Written:  # noqa: A002  (the field is called `type`)
        """Record an event of your own type with any JSON value. Works with and without `await`.

        Raises:
            ValueError: `type` is not a lower-case word (`a-z 0-9 _ . -`, 64 characters), or is one the engine uses.
            NotSerializable: `data` holds something JSON cannot.
        """
        if not _EMITTED_TYPE.fullmatch(type):
            raise ValueError(f"ctx.emit({type!r}): an event type is a lower-case word of a-z, 0-9, '_', '.' and '-'.")
        if type in _ENGINE_TYPES:
            raise ValueError(f"ctx.emit({type!r}): events of this type are written by the engine.")
        return self._recorder.event(type, codec.encode_value(data, f"The data of event {type!r}"))

    def now(self) -> datetime:
        """The current time, aware, in UTC; recorded, so it is the same when the run is replayed."""
        return self._calls.now()

    def random(self) -> float:
        """A random number from 0 to 1, not for secrets; recorded, so it is the same when the run is replayed."""
        return self._calls.random()

    def uuid(self) -> str:
        """A random UUID (version 4) as text; recorded, so it is the same when the run is replayed."""
        return self._calls.uuid()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} attempt={self.attempt}>"


class FlueContext(ContextBase[P]):
    """The run, as its workflow sees it.

    Write the payload's type in brackets (`ctx: FlueContext[Ticket]`) and `ctx.payload` is a validated `Ticket`.

    What goes through `step`, `sleep`, `wait_for`, `approve`, `call` and `start` is recorded: if the run is taken up
    again after a crash or a restart, its code runs again from the beginning, and these calls give back what they gave
    before, without doing anything.
    """

    __slots__ = ()

    @overload
    def step(
        self,
        name: str,
        fn: Callable[..., Awaitable[T]],
        *args: Any,
        key: str | None = None,
        retry: RetryPolicy | int | None = None,
        timeout_s: float | None = None,
        **kwargs: Any,
    ) -> Coroutine[Any, Any, T]: ...
    @overload
    def step(
        self,
        name: str,
        fn: Callable[..., T],
        *args: Any,
        key: str | None = None,
        retry: RetryPolicy | int | None = None,
        timeout_s: float | None = None,
        **kwargs: Any,
    ) -> Coroutine[Any, Any, T]: ...
    def step(
        self,
        name: str,
        fn: Callable[..., Any],
        *args: Any,
        key: str | None = None,
        retry: RetryPolicy | int | None = None,
        timeout_s: float | None = None,
        **kwargs: Any,
    ) -> Coroutine[Any, Any, Any]:
        """Do something once: `fn(*args, **kwargs)`, awaited if it is async, in a thread of its own if not.

        The result is recorded, and has to be JSON, a pydantic model or a dataclass (those are made again from the
        function's return annotation). `name` says which step it is: the n-th step of a name is found again by that,
        also if other steps are put in, removed or moved; `key` takes the place of counting. `retry` is a `RetryPolicy`
        or a number of attempts; `timeout_s` limits each attempt.

        Raises:
            What `fn` raised in its last attempt, also when the run is replayed (`StepFailed` if that exception cannot
            be made again); StepTimedOut; NotSerializable, TooLarge, ResultInvalid: the result cannot be recorded.
        """
        from . import retrying, steps

        steps.check_function(name, fn)
        check_seconds("timeout_s", timeout_s)
        work = steps.Work(fn, args, kwargs, retrying.policy_of(retry), timeout_s)
        return steps.run_step(self._calls, self._calls.begin(name, "step", key=key), work)

    def sleep(
        self, seconds: float | timedelta | None = None, *, until: datetime | None = None, name: str = "sleep"
    ) -> Coroutine[Any, Any, None]:
        """Wait for some seconds (or a `timedelta`), or until a time (aware).

        The run is `waiting`, and a restart does not begin anew.
        """
        from . import waits

        if isinstance(seconds, timedelta):
            seconds = seconds.total_seconds()
        if (seconds is None) == (until is None):
            raise ValueError("ctx.sleep takes seconds, or until=, and not both.")
        if until is not None and until.tzinfo is None:
            raise ValueError("ctx.sleep(until=…): give the time a zone, for example datetime.now(UTC) + ….")
        check_seconds("seconds", seconds)
        return waits.sleep(self._calls, self._calls.begin(name, "sleep"), seconds, until)

    def wait_for(
        self, signal: str, *, timeout_s: float | None = None, schema: Any = None, key: str | None = None
    ) -> Coroutine[Any, Any, Any]:
        """Wait for a signal and return its data; one that was sent before and not yet taken comes at once.

        `schema` is the data's type, or a JSON Schema: what does not fit is refused when it is sent.

        Raises:
            WaitTimedOut: none came within `timeout_s`.
        """
        from . import values, waits

        check_seconds("timeout_s", timeout_s)
        shape, json_schema = values.shape_of_schema(schema)
        call = self._calls.begin(signal, "signal", key=key)
        return waits.wait_for(self._calls, call, timeout_s, shape, json_schema)

    def approve(
        self,
        name: str,
        request: Any = None,
        *,
        timeout_s: float | None = None,
        schema: Any = None,
        key: str | None = None,
    ) -> Coroutine[Any, Any, Decision]:
        """Ask a person, and wait for the decision. `request` is shown to them.

        `schema` (a type or a JSON Schema) says what `Decision.data` has to be: who decides may put something else in
        the place of the request, if it fits. The decision counts for exactly this request.

        Raises:
            WaitTimedOut: nobody decided within `timeout_s`.
        """
        from . import values, waits

        check_seconds("timeout_s", timeout_s)
        shape, json_schema = values.shape_of_schema(schema)
        raw = waits.checked_request(name, request, self._calls.limits)
        call = self._calls.begin(name, "approval", key=key)
        return waits.approve(self._calls, call, raw, timeout_s, shape, json_schema)

    def call(
        self,
        workflow: str,
        payload: Any = EMPTY_OBJECT,
        *,
        timeout_s: float | None = None,
        tags: Sequence[str] = (),
        key: str | None = None,
    ) -> Coroutine[Any, Any, Any]:
        """Run another workflow as a child of this run, and return its result. Cancelling this run cancels it, too.

        Raises:
            RunFailed, RunCancelled: how it ended; WaitTimedOut: it took longer than `timeout_s`, and is cancelled;
            WorkflowNotFound, WorkflowInvalid, PayloadInvalid, ChildrenTooDeep: it was not started.
        """
        from . import children

        check_seconds("timeout_s", timeout_s)
        call = self._calls.begin(workflow, "child", key=key)
        return children.call_child(self._calls, call, payload, timeout_s=timeout_s, tags=tuple(tags))

    def start(
        self, workflow: str, payload: Any = EMPTY_OBJECT, *, tags: Sequence[str] = (), key: str | None = None
    ) -> Coroutine[Any, Any, str]:
        """Start another workflow as a child of this run, and return its run id without waiting for it.

        It goes on when this run ends, but is cancelled with it.

        Raises:
            WorkflowNotFound, WorkflowInvalid, PayloadInvalid, ChildrenTooDeep: it was not started.
        """
        from . import children

        call = self._calls.begin(workflow, "start", key=key)
        return children.start_child(self._calls, call, payload, tags=tuple(tags))

    def parallel(self, *branches: Branch, limit: int | None = None) -> Coroutine[Any, Any, list[Any]]:
        """Do several things at once, `limit` at most, and return their results in order.

        A branch is a coroutine, or a function without arguments that makes one. If one fails the others are cancelled,
        and its exception is raised.
        """
        from . import branches as branching

        branching.check_limit(limit)
        self._calls.check_here("ctx.parallel")
        return branching.parallel(branching.scopes_of(branches), branches, limit)

    def map(
        self, fn: Callable[[T], Awaitable[R]], items: Iterable[T], *, limit: int | None = None
    ) -> Coroutine[Any, Any, list[R]]:
        """Call an async function with each item, `limit` at once at most, and return the results in order.

        Durable calls in it belong to the item's place in the list. What it does outside of them is done again when the
        run is replayed.
        """
        from . import branches as branching

        branching.check_limit(limit)
        self._calls.check_here("ctx.map")
        return branching.map_items(branching.scope_of_map(fn), fn, branching.items_of(items), limit)

    def init(self, agent: CreatedAgent, *, name: str = "agent", **options: Any) -> Coroutine[Any, Any, Harness]:
        """Initialise an agent for this run; returns its harness.

        What is done with the harness is recorded like other durable calls, down to each model and tool call. Its
        sessions, files and secrets belong to this run and this call alone. `name` tells harnesses of one run apart in
        its record; `options` (`tools`, `skills`, `subagents`) add to what the agent defines.

        Raises:
            AgentInvalid: the agent is not defined in a way that can be used.
        """
        host = self._calls.agents
        if host is None:
            raise CallMisplaced("ctx.init was called where no agents can be initialised.")
        call = self._calls.begin(name, "init")
        return host.init(self, self._calls, call.key, agent, options)

    async def in_thread(self, function: Callable[[BlockingContext[P]], R]) -> R:
        """Call a function in a thread of its own, with the blocking form of this context."""
        blocking: BlockingContext[P] = BlockingContext(
            run_id=self.id,
            workflow=self.workflow,
            payload=self.payload,
            recorder=self._recorder,
            calls=self._calls,
            attempt=self.attempt,
            tags=self.tags,
            deadline_us=self._deadline_us,
            request=self._raw_request,
        )
        blocking.face = self
        call = functools.partial(function, blocking)
        functools.update_wrapper(call, function, assigned=("__qualname__",), updated=())
        return await self._calls.parking.in_thread(call)


def calls_of(ctx: ContextBase[Any]) -> Calls:
    """The durable calls behind a context: for dialects, whose units of work are not those of a Python workflow."""
    return ctx._calls  # pyright: ignore[reportPrivateUsage]  (the one door)


async def definition_of(ctx: FlueContext[Any]) -> Any:
    """The definition that came with the request for a run (`Submission.definition`); None if none did.

    For the workflows of dialects whose API takes definitions. It is the same however often the run is taken up again.

    Raises:
        JournalError: it could not be read.
    """
    calls = ctx._calls  # pyright: ignore[reportPrivateUsage]  (of this module; authors have no use for it)
    if calls.definition is None:
        calls.definition = await calls.journal.definition(ctx.id)
    return None if calls.definition is None else codec.load(calls.definition)


class BlockingContext(ContextBase[P]):
    """The run, as a workflow sees it that is not async: `def run(ctx: BlockingContext)`.

    It has a thread of its own, in which these calls block until they are done. Otherwise they do what those of
    `FlueContext` do.
    """

    __slots__ = ("face",)

    #: The async form of the same context.
    face: FlueContext[P]

    @overload
    def step(
        self,
        name: str,
        fn: Callable[..., Awaitable[T]],
        *args: Any,
        key: str | None = None,
        retry: RetryPolicy | int | None = None,
        timeout_s: float | None = None,
        **kwargs: Any,
    ) -> T: ...
    @overload
    def step(
        self,
        name: str,
        fn: Callable[..., T],
        *args: Any,
        key: str | None = None,
        retry: RetryPolicy | int | None = None,
        timeout_s: float | None = None,
        **kwargs: Any,
    ) -> T: ...
    def step(
        self,
        name: str,
        fn: Callable[..., Any],
        *args: Any,
        key: str | None = None,
        retry: RetryPolicy | int | None = None,
        timeout_s: float | None = None,
        **kwargs: Any,
    ) -> Any:
        """As `FlueContext.step`; a function that is not async gets a thread of its own."""
        return self._calls.block(self.face.step(name, fn, *args, key=key, retry=retry, timeout_s=timeout_s, **kwargs))

    def sleep(
        self, seconds: float | timedelta | None = None, *, until: datetime | None = None, name: str = "sleep"
    ) -> None:
        """As `FlueContext.sleep`."""
        self._calls.block(self.face.sleep(seconds, until=until, name=name))

    def wait_for(
        self, signal: str, *, timeout_s: float | None = None, schema: Any = None, key: str | None = None
    ) -> Any:
        """As `FlueContext.wait_for`."""
        return self._calls.block(self.face.wait_for(signal, timeout_s=timeout_s, schema=schema, key=key))

    def approve(
        self,
        name: str,
        request: Any = None,
        *,
        timeout_s: float | None = None,
        schema: Any = None,
        key: str | None = None,
    ) -> Decision:
        """As `FlueContext.approve`."""
        return self._calls.block(self.face.approve(name, request, timeout_s=timeout_s, schema=schema, key=key))

    def call(
        self,
        workflow: str,
        payload: Any = EMPTY_OBJECT,
        *,
        timeout_s: float | None = None,
        tags: Sequence[str] = (),
        key: str | None = None,
    ) -> Any:
        """As `FlueContext.call`."""
        return self._calls.block(self.face.call(workflow, payload, timeout_s=timeout_s, tags=tags, key=key))

    def start(
        self, workflow: str, payload: Any = EMPTY_OBJECT, *, tags: Sequence[str] = (), key: str | None = None
    ) -> str:
        """As `FlueContext.start`."""
        return self._calls.block(self.face.start(workflow, payload, tags=tags, key=key))

    def init(self, agent: CreatedAgent, *, name: str = "agent", **options: Any) -> Any:
        """As `FlueContext.init`; the harness has the same methods, which block."""
        harness = self._calls.block(self.face.init(agent, name=name, **options))
        host = self._calls.agents
        return harness if host is None else host.blocking(harness, self._calls.block)

    def parallel(self, *branches: Callable[[], Any], limit: int | None = None) -> list[Any]:
        """Call functions at once, each in a thread of its own, and return their results in order."""
        in_thread = self._calls.parking.in_thread
        from . import branches as branching

        branching.check_limit(limit)
        self._calls.check_here("ctx.parallel")
        scopes = branching.scopes_of(branches)
        return self._calls.block(
            branching.parallel(scopes, [functools.partial(in_thread, branch) for branch in branches], limit)
        )

    def map(self, fn: Callable[[T], R], items: Iterable[T], *, limit: int | None = None) -> list[R]:
        """Call a function with each item, each in a thread of its own, and return the results in order."""
        from . import branches as branching

        branching.check_limit(limit)
        self._calls.check_here("ctx.map")
        in_thread = self._calls.parking.in_thread

        async def work(item: T) -> R:
            return await in_thread(functools.partial(fn, item))

        return self._calls.block(
            branching.map_items(branching.scope_of_map(fn), work, branching.items_of(items), limit)
        )


def check_seconds(name: str, value: float | None) -> None:
    """Refuse what cannot be a number of seconds.

    Raises:
        ValueError
    """
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _MOST_SECONDS:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"{name}={value!r}: expected seconds, from 0 to 100 years.")
