"""One session's conversation: what the model is sent, kept in step with what the journal holds of it.

Entries are recorded together with the turn that made them, so the journal always ends with a whole turn. When a run is
replayed its conversation grows again as its recorded turns are asked for, entry by entry: at each point the code sees
what it saw the first time. Entries of other runs (of earlier interactions with a continuing agent) are there from the
beginning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .. import codec
from ..codec import Raw
from ..journal import Entry, Journal, NewEntry
from .content import Block, Document, Image, Message, Text, Thinking, ToolResult, ToolUse, block_to_dict

_ENTRIES_AT_ONCE_BYTES = 1024**2
_IMAGE_TOKENS = 1600
#: What the model is told of a tool use whose result was never recorded.
_NO_RESULT = "This call was interrupted; whether it was done, and what came of it, is not known."

#: Kinds of durable calls that do nothing again of what is below them, once they are recorded.
SKIPPED = frozenset({"step", "tool", "prompt", "skill", "task"})


class Conversation:
    """The messages of one session."""

    def __init__(self, stream_id: str, session: str, run_id: str, *, goes_on: bool = True) -> None:
        """`goes_on`: whether what other runs said in it (earlier interactions) comes before what this one says."""
        self._goes_on = goes_on
        self._stream_id = stream_id
        #: The session's name in the journal.
        self.session = session
        self._run_id = run_id
        self._messages: list[Message] = []
        self._tokens = 0
        #: Entries of this run that were recorded and not asked for yet, by the key of their durable call.
        self._recorded: dict[str, list[dict[str, Any]]] = {}
        self._position = 0

    async def load(self, journal: Journal) -> None:
        """Read what is recorded."""
        after = 0
        while entries := await journal.entries(
            self._stream_id, self.session, after=after, limit_bytes=_ENTRIES_AT_ONCE_BYTES
        ):
            for entry in entries:
                self._remember(entry)
            after = entries[-1].position

    def _remember(self, entry: Entry) -> None:
        value = codec.load(entry.entry)
        if entry.run_id == self._run_id:
            self._recorded.setdefault(entry.step_key, []).append(value)
        elif self._goes_on:
            self._apply(value)

    @property
    def messages(self) -> Sequence[Message]:
        """What the model is sent: alternating, beginning with the user's."""
        return self._messages

    @property
    def tokens(self) -> int:
        """About how many tokens that is."""
        return self._tokens

    @property
    def dangling(self) -> Sequence[ToolUse]:
        """Tool uses of the last message, if it is the assistant's: the next message has to hold their results."""
        last = self._messages[-1] if self._messages else None
        return last.tool_uses if last is not None and last.role == "assistant" else ()

    def unanswered(self) -> tuple[Block, ...]:
        """What has to be said of tool uses that an operation before left without a result."""
        return tuple(
            ToolResult(tool_use_id=use.id, content=(Text(_NO_RESULT),), is_error=True) for use in self.dangling
        )

    def replay(self, step_key: str) -> None:
        """A recorded call was asked for: what it said has been said."""
        for entry in self._recorded.pop(step_key, ()):
            self._apply(entry)

    def replay_below(self, key: str) -> None:
        """A recorded operation was asked for: all that its calls said has been said."""
        below = f"{key}/"
        for step_key in [known for known in self._recorded if known == key or known.startswith(below)]:
            self.replay(step_key)

    def catch_up(self, given: Mapping[str, str]) -> None:
        """What was said inside of steps, tools and operations that only gave back what they gave has been said, too.

        `given` holds the keys of the durable calls that did, and their kinds.
        """
        for step_key in list(self._recorded):
            if any(given.get(above) in SKIPPED for above in keys_above(step_key)):
                self.replay(step_key)

    def add(self, *messages: Message) -> None:
        """Messages that are recorded now."""
        for message in messages:
            self._add(message)

    def entries(self, *messages: Message, **about: Any) -> list[NewEntry]:
        """Messages as they are to be recorded."""
        return [
            NewEntry(
                session=self.session,
                entry=Raw(codec.encode({"type": "message", **message.to_dict(), **about})),
            )
            for message in messages
        ]

    def compaction(self, summary: str, kept: int, **about: Any) -> NewEntry:
        """The entry that says: from here on a summary stands for all but the last `kept` messages."""
        entry = {"type": "compaction", "summary": summary, "kept": kept, **about}
        return NewEntry(session=self.session, entry=Raw(codec.encode(entry)))

    def compact(self, summary: str, kept: int) -> None:
        """Let a summary stand for all but the last `kept` messages, from now on."""
        left = self._messages[len(self._messages) - kept :] if kept else []
        self._messages, self._tokens = [], 0
        self._add(Message("user", (Text(f"[Context Summary]\n{summary}"),)))
        for message in left:
            self._add(message)

    def _apply(self, entry: Mapping[str, Any]) -> None:
        if entry["type"] == "compaction":
            self.compact(entry["summary"], entry["kept"])
        else:
            self._add(Message.from_dict(entry))

    def _add(self, message: Message) -> None:
        self._tokens += estimate(message.blocks)
        if self._messages and self._messages[-1].role == message.role:
            # Providers want the sides to alternate: an operation that failed left its side open.
            message = Message(message.role, (*self._messages.pop().blocks, *message.blocks))
        self._messages.append(message)


def keys_above(key: str) -> Sequence[str]:
    """The keys of the durable calls that one may be inside of."""
    parts = key.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def estimate(blocks: Sequence[Block]) -> int:
    """About how many tokens a message of these blocks is: a quarter of its characters."""
    return sum(map(_estimate_block, blocks)) + 1


def _estimate_block(block: Block) -> int:
    match block:
        case Text() | Thinking():
            return len(block.text) // 4
        case Image():
            return _IMAGE_TOKENS
        case Document():
            return len(block.data) // 4
        case ToolResult():
            return sum(map(_estimate_block, block.content))
        case _:
            return len(codec.encode(block_to_dict(block))) // 4
