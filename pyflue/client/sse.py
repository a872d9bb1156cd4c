"""Server-sent events: bytes as they arrive into frames.

Follows the parsing rules of the HTML standard ("Server-sent events", event stream interpretation): lines end with CR,
LF or CR LF, comments are dropped, a frame without data is no frame, an unfinished frame at the end is discarded. One
thing is kept that a browser forgets: whether the frame itself had an id, because only indexed events have one.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

_LINE_END = re.compile(r"\r\n|\n|\r")


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One server-sent event."""

    event: str = "message"
    data: str
    #: The id written in this very frame; None if it had none.
    id: str | None = None


class Parser:
    """Feed it chunks of any size; it returns the frames each chunk completes."""

    def __init__(self) -> None:
        # utf-8-sig drops one byte order mark at the start of the stream, as the standard asks.
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")(errors="replace")
        self._line: list[str] = []
        self._after_cr = False
        self._event = ""
        self._data: list[str] = []
        self._id: str | None = None

    def feed(self, chunk: bytes) -> list[Frame]:
        """Take the next bytes of the stream."""
        text = self._decoder.decode(chunk)
        if not text:
            return []
        if self._after_cr and text[0] == "\n":
            text = text[1:]
        self._after_cr = text.endswith("\r")
        first, *others = _LINE_END.split(text)
        self._line.append(first)
        frames: list[Frame] = []
        for following in others:
            frame = self._take("".join(self._line))
            if frame is not None:
                frames.append(frame)
            self._line = [following]
        return frames

    def _take(self, line: str) -> Frame | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self._id = value
        return None

    def _dispatch(self) -> Frame | None:
        data, event, frame_id = self._data, self._event, self._id
        self._data, self._event, self._id = [], "", None
        if not data:
            return None
        return Frame(event=event or "message", data="\n".join(data), id=frame_id)
