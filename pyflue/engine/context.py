"""`FlueContext`: what a workflow's `run(ctx)` is given.

A thin face: the values of the run, and the calls that write to its record. The work behind each call is done by the
run's `Recorder`, which the engine hands in; this module knows neither the journal nor the event loop.
"""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, Protocol

from .. import codec
from ..clock import to_datetime
from ..codec import Raw
from ..journal.records import EventType

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    P = TypeVar("P", default=Any)
else:
    from typing import TypeVar

    P = TypeVar("P")

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

    @classmethod
    def from_raw(cls, raw: Raw) -> RequestInfo:
        """The request as the journal kept it."""
        fields = codec.load(raw)
        return cls(
            method=fields["method"],
            url=fields["url"],
            headers=MappingProxyType(fields["headers"]),
            client=fields.get("client"),
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

    def now(self) -> datetime:
        """The current time, aware, in UTC."""
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


class FlueContext(Generic[P]):
    """The run, as its workflow sees it.

    Write the payload's type in brackets (`ctx: FlueContext[Ticket]`) and `ctx.payload` is a validated `Ticket`.
    """

    __slots__ = (
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
        """The current time, aware, in UTC."""
        return self._recorder.now()

    def __repr__(self) -> str:
        return f"<FlueContext {self.id} attempt={self.attempt}>"
