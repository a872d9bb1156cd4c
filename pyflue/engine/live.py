"""What models are writing right now: text that is shown while it arrives and stored only as a whole.

A turn of a model begins here when it is asked, and ends when its whole text is in the journal (the stored `turn`).
Between, whoever follows the stream in this process reads the text from whatever offset it has. Nothing is queued for a
reader: one that is slow gets larger pieces. Knows neither models nor HTTP; used on one event loop.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .. import codec

#: The event of a turn's request is on disk after a few milliseconds; text does not wait longer for it.
_ANNOUNCED_AFTER_S = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class TextDelta:
    """The next piece of a turn's text. It has no index: it is never stored.

    `offset` counts characters of this attempt at the turn; text of an earlier attempt is void.
    """

    stream_id: str
    turn_id: str
    attempt: int
    offset: int
    text: str
    about: Mapping[str, Any]

    type = "text_delta"

    def to_dict(self) -> dict[str, Any]:
        data = {
            **self.about,
            "turn_id": self.turn_id,
            "attempt": self.attempt,
            "offset": self.offset,
            "text": self.text,
        }
        return {"stream_id": self.stream_id, "type": self.type, "data": data}

    def to_json(self) -> bytes:
        """The delta as one line of JSON."""
        return codec.encode(self.to_dict())


class LiveTurn:
    """One attempt at a turn that is under way."""

    __slots__ = ("_began", "_live", "_parts", "about", "attempt", "length", "stream_id", "turn_id")

    def __init__(self, live: Live, stream_id: str, turn_id: str, attempt: int, about: Mapping[str, Any]) -> None:
        self._live = live
        self._parts: list[str] = []
        self.stream_id = stream_id
        self.turn_id = turn_id
        self.attempt = attempt
        #: What else its deltas say: `operation_id`, `session`.
        self.about = about
        #: Characters so far.
        self.length = 0
        self._began = time.monotonic()

    def __enter__(self) -> LiveTurn:
        self._live.show(self)
        return self

    def __exit__(self, *error: object) -> None:
        self._live.hide(self)

    @property
    def is_announced(self) -> bool:
        """Whether the event that it was asked for has surely been committed by now."""
        return time.monotonic() - self._began > _ANNOUNCED_AFTER_S

    def add(self, text: str) -> None:
        """More text has arrived."""
        self._parts.append(text)
        self.length += len(text)
        self._live.ring(self.stream_id)

    def delta(self, offset: int) -> TextDelta:
        """The text from an offset on."""
        if len(self._parts) > 1:
            self._parts = ["".join(self._parts)]
        text = self._parts[0][offset:] if self._parts else ""
        return TextDelta(
            stream_id=self.stream_id,
            turn_id=self.turn_id,
            attempt=self.attempt,
            offset=offset,
            text=text,
            about=self.about,
        )


class Live:
    """The turns that are under way, and those who follow them."""

    def __init__(self) -> None:
        self._turns: dict[str, dict[str, LiveTurn]] = {}
        self._bells: dict[str, list[Callable[[], None]]] = {}

    def turn(self, stream_id: str, turn_id: str, attempt: int, about: Mapping[str, Any]) -> LiveTurn:
        """A turn of a stream; as a context manager it is shown for as long as it is under way."""
        return LiveTurn(self, stream_id, turn_id, attempt, about)

    def show(self, turn: LiveTurn) -> None:
        """A turn is under way."""
        self._turns.setdefault(turn.stream_id, {})[turn.turn_id] = turn

    def hide(self, turn: LiveTurn) -> None:
        """A turn is over."""
        turns = self._turns.get(turn.stream_id, {})
        turns.pop(turn.turn_id, None)
        if not turns:
            self._turns.pop(turn.stream_id, None)

    def turns(self, stream_id: str) -> Sequence[LiveTurn]:
        """The turns of a stream that are under way."""
        turns = self._turns.get(stream_id)
        return () if turns is None else list(turns.values())

    def ring(self, stream_id: str) -> None:
        """Tell those who follow a stream that there is more."""
        for bell in self._bells.get(stream_id, ()):
            bell()

    @contextlib.contextmanager
    def watch(self, stream_id: str, bell: Callable[[], None]) -> Generator[None]:
        """Have `bell` called whenever text of a stream arrives."""
        bells = self._bells.setdefault(stream_id, [])
        bells.append(bell)
        try:
            yield
        finally:
            bells.remove(bell)
            if not bells:
                self._bells.pop(stream_id, None)


class LiveReader:
    """What one reader has been given of the turns of a stream. Keeps an offset for each turn, and no text."""

    def __init__(self, live: Live, stream_id: str) -> None:
        self._live = live
        self._stream_id = stream_id
        self._seen: dict[str, tuple[int, int]] = {}
        self._announced: set[str] = set()

    def announce(self, turn_id: str) -> None:
        """The reader has been given the event that the turn was asked for."""
        self._announced.add(turn_id)

    def read(self) -> Sequence[TextDelta]:
        """What has arrived since this was last asked. Ask for stored events first: they come before it."""
        turns = self._live.turns(self._stream_id)
        if not turns:
            self._seen.clear()
            self._announced.clear()
            return ()
        deltas: list[TextDelta] = []
        for turn in turns:
            attempt, offset = self._seen.get(turn.turn_id, (turn.attempt, 0))
            if attempt != turn.attempt:
                offset = 0
            if turn.length > offset and (turn.turn_id in self._announced or turn.is_announced):
                deltas.append(turn.delta(offset))
                self._seen[turn.turn_id] = (turn.attempt, turn.length)
        return deltas
