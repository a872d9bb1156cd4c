"""Records on their way to the writer's process.

They come by the thousand a second, and whatever they cost is missing where the runs are driven. So those of steps and
events, nearly all there are, go as JSON: msgspec writes a dozen structs in a microsecond, and what they hold is JSON
already. All others go as a pickle within it.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any, cast

import msgspec

from ..codec import Raw
from .calls import NewStep, StepStatus
from .conversations import Attached, FileRecord, NewEntry
from .records import Fence, NewEvent
from .writer import Verb

# msgspec cannot read `Raw | None`. So what is None is left out (it is not the JSON `null`), and records with such
# fields are read as their twins below, in which this stands for them.
_NONE = Raw(b"")


class Order(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A record as it goes to the child."""

    number: int
    verb: Verb | None
    fence: Fence | None
    events: list[NewEvent]
    patient: bool


class _Event(msgspec.Struct, gc=False):
    type: str
    at_us: int
    data: Raw
    more: Raw = _NONE
    step: str | None = None

    def real(self) -> NewEvent:
        return NewEvent(type=self.type, at_us=self.at_us, data=self.data, more=_value(self.more), step=self.step)


class _Step(msgspec.Struct, gc=False):
    key: str
    kind: str
    name: str
    position: int
    status: StepStatus
    started_us: int
    input_digest: str | None = None
    value: Raw = _NONE
    error: Raw = _NONE
    attempts: int = 1
    started_index: int = 0

    def real(self) -> NewStep:
        return NewStep(
            key=self.key,
            kind=self.kind,
            name=self.name,
            position=self.position,
            status=self.status,
            started_us=self.started_us,
            input_digest=self.input_digest,
            value=_value(self.value),
            error=_value(self.error),
            attempts=self.attempts,
            started_index=self.started_index,
        )


class _Attached(msgspec.Struct, gc=False):
    entries: list[NewEntry] = []
    files: list[FileRecord] = []
    usage: Raw = _NONE
    also: _Step | None = None

    def real(self) -> Attached:
        also = None if self.also is None else self.also.real()
        return Attached(entries=self.entries, files=self.files, usage=_value(self.usage), also=also)


class _Verb(msgspec.Struct, array_like=True, gc=False):
    name: str
    args: Raw
    takes_events: bool

    def real(self) -> Verb:
        values = _ARGS[self.name].decode(self.args)
        return Verb(self.name, tuple(_real(value) for value in values), self.takes_events)


class _Order(msgspec.Struct, array_like=True, gc=False):
    number: int
    verb: _Verb | None
    fence: Fence | None
    events: list[_Event]
    patient: bool

    def real(self) -> Order:
        verb = None if self.verb is None else self.verb.real()
        return Order(self.number, verb, self.fence, [event.real() for event in self.events], self.patient)


#: Verbs that go as JSON, and what they are given.
_ARGS: dict[str, msgspec.json.Decoder[Any]] = {
    "calls.record": msgspec.json.Decoder(tuple[Fence, _Step, list[_Event], _Attached | None]),
    "calls.note": msgspec.json.Decoder(tuple[Fence, _Step, _Attached | None]),
}
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(list[_Order | bytes])


def encode(orders: Sequence[Order]) -> bytes:
    """Records in a row, in their order."""
    try:
        return _encoder.encode([_form(order) for order in orders])
    except (UnicodeError, TypeError, ValueError):
        # One of them holds what no journal can. Which it is, and for whom, is found out where it is to be written.
        return _encoder.encode([pickle.dumps(order, pickle.HIGHEST_PROTOCOL) for order in orders])


def decode(data: bytes) -> Sequence[Order]:
    """What `encode` was given."""
    return [
        pickle.loads(order) if isinstance(order, bytes) else order.real()  # noqa: S301  (the other end is ours)
        for order in _decoder.decode(data)
    ]


def _form(order: Order) -> Order | bytes:
    verb = order.verb
    return order if verb is None or verb.name in _ARGS else pickle.dumps(order, pickle.HIGHEST_PROTOCOL)


def _real(value: Any) -> Any:
    if isinstance(value, (_Step, _Attached)):
        return value.real()
    return [event.real() for event in cast("list[_Event]", value)] if isinstance(value, list) else value


def _value(raw: Raw) -> Raw | None:
    return None if raw is _NONE else raw
