"""What the journal holds of an agent's work: conversations, workspaces, and the instances they belong to.

Entries and files are recorded together with the step that made them (`Attached`), so a step that counts as done has
left what it left. They belong to a stream: the run, or the instance of a continuing agent (`agent:<name>:<id>`), whose
interactions are runs that no list of runs shows (their ids are `<stream>:<ulid>`, see `ids.stream_of`).

What an entry says and how sessions and workspaces are called is the agents room's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from ..codec import Raw
from .calls import NewStep


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEntry:
    """An entry to append to a session's conversation; the writer numbers it."""

    session: str
    entry: Raw


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry of a conversation. `position` counts 1, 2, 3 … in its session."""

    stream_id: str
    session: str
    position: int
    #: The run (or interaction) and the durable call that it was recorded with.
    run_id: str
    step_key: str
    entry: Raw
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """What became of one path of a workspace: the file, folder or link that is there now, or that nothing is.

    `data` is the content of a file, `target` that of a link; neither is set for a folder.
    """

    workspace: str
    path: str
    is_gone: bool = False
    data: bytes | None = None
    target: str | None = None
    mode: int = 0o644


@dataclass(frozen=True, slots=True, kw_only=True)
class FileVersion:
    """A recorded change of a workspace. Changes of one stream count up in `position`, in the order of their commits."""

    position: int
    run_id: str
    step_key: str
    #: As the step's; negative if it was copied from an earlier run.
    recorded_index: int
    file: FileRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached:
    """What is recorded together with a step."""

    entries: Sequence[NewEntry] = ()
    files: Sequence[FileRecord] = ()
    #: The run's usage as a whole, from now on.
    usage: Raw | None = None
    #: A further call that is complete with this step, and comes after it; the last of the events is its.
    also: NewStep | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionInfo:
    """A session that has entries."""

    session: str
    entries: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamInfo:
    """The instance of a continuing agent, as recorded."""

    stream_id: str
    last_index: int
    created_at: datetime
    #: The time of its last event.
    updated_at: datetime
    #: Position in the order of creation; the cursor of lists.
    seq: int = 0
