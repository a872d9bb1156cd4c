"""What the journal holds of an agent's work: conversations, workspaces, and the instances they belong to.

Entries and files are recorded together with the step that made them (`Attached`), so a step that counts as done has
left what it left. They belong to a stream: the run, or the instance of a continuing agent (`agent:<name>:<id>`), whose
interactions are runs that no list of runs shows (their ids are `<stream>:<ulid>`, see `ids.stream_of`).

What an entry says and how sessions and workspaces are called is the agents room's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from ..codec import Raw
from .calls import NewStep


class NewEntry(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An entry to append to a session's conversation; the writer numbers it."""

    session: str
    entry: Raw


class Entry(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One entry of a conversation. `position` counts 1, 2, 3 … in its session."""

    stream_id: str
    session: str
    position: int
    #: The run (or interaction) and the durable call that it was recorded with.
    run_id: str
    step_key: str
    entry: Raw
    at: datetime


class FileRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What became of one path of a workspace: the file, folder or link that is there now, or that nothing is.

    `data` is the content of a file, `target` that of a link; neither is set for a folder.
    """

    workspace: str
    path: str
    is_gone: bool = False
    data: bytes | None = None
    target: str | None = None
    mode: int = 0o644


class FileVersion(msgspec.Struct, frozen=True, kw_only=True):
    """A recorded change of a workspace. Changes of one stream count up in `position`, in the order of their commits."""

    position: int
    run_id: str
    step_key: str
    #: As the step's; negative if it was copied from an earlier run.
    recorded_index: int
    file: FileRecord


class Attached(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What is recorded together with a step."""

    entries: Sequence[NewEntry] = ()
    files: Sequence[FileRecord] = ()
    #: The run's usage as a whole, from now on.
    usage: Raw | None = None
    #: A further call that is complete with this step, and comes after it; the last of the events is its.
    also: NewStep | None = None


class SessionInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A session that has entries."""

    session: str
    entries: int
    created_at: datetime
    updated_at: datetime


class StreamInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The instance of a continuing agent, as recorded."""

    stream_id: str
    last_index: int
    created_at: datetime
    #: The time of its last event.
    updated_at: datetime
    #: Position in the order of creation; the cursor of lists.
    seq: int = 0
