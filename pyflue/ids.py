"""Ids: ULIDs that sort in the order they were made, and the run ids built from them.

A run id is `workflow:<name>:<ulid>`. The stream of a continuing agent's instance is `agent:<name>:<instance>`, and the
run id of one of its interactions `agent:<name>:<instance>:<ulid>`. Within a process ids grow even if the wall clock
steps back. The 128 bits of each ULID are those of a UUID of version 7 (RFC 9562) as well: both begin with the time in
milliseconds, and a dialect's API may want UUIDs.
"""

from __future__ import annotations

import functools
import os
import re
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ulid import ULIDGenerator

_NAME = r"(?P<name>[^:\x00-\x20]{1,128})"
_ULID = r"(?P<ulid>[0-7][0-9A-HJKMNP-TV-Z]{25})"
AGENT_PREFIX = "agent:"
#: The random part of a ULID.
_RANDOM_BYTES = 10
_STREAM_ID = rf"{AGENT_PREFIX}{_NAME}:(?P<instance>[A-Za-z0-9._~@+=-]{{1,128}})"
_RUN_ID = re.compile(rf"workflow:{_NAME}:{_ULID}")
_AGENT_STREAM = re.compile(_STREAM_ID)
_INTERACTION_ID = re.compile(rf"(?P<stream>{_STREAM_ID}):{_ULID}")


class _NeverBack:
    """Milliseconds of wall time that never go down."""

    def __init__(self) -> None:
        self._last_ms = 0

    def __call__(self) -> int:
        self._last_ms = max(self._last_ms, time.time_ns() // 1_000_000)
        return self._last_ms


class _Randomness:
    """Random bytes, taken from the system in larger portions.

    Each time the system is asked, other threads get the interpreter, and under load it takes a while to come back.
    """

    def __init__(self) -> None:
        self._portion = b""
        self._used = 0
        os.register_at_fork(after_in_child=self._forget)  # or parent and child would take the same

    def __call__(self, timestamp_ms: int) -> bytes:
        # One caller at a time: the generator has a lock.
        if self._used + _RANDOM_BYTES > len(self._portion):
            self._portion, self._used = os.urandom(256 * _RANDOM_BYTES), 0
        start, self._used = self._used, self._used + _RANDOM_BYTES
        chance = self._portion[start : self._used]
        # The version and the variant of a UUID, in the places where a UUID has them.
        return bytes((chance[0] & 0x0F | 0x70, chance[1], chance[2] & 0x3F | 0x80)) + chance[3:]

    def _forget(self) -> None:
        self._portion, self._used = b"", 0


@functools.cache
def _generator() -> ULIDGenerator:
    # Imported at first use: python-ulid reads its own package metadata on import, which costs a reader of the
    # journal (`pyflue logs`) more than everything else it imports.
    from ulid import LaxMonotonicPolicy, ULIDGenerator

    return ULIDGenerator(clock=_NeverBack(), randomness=_Randomness(), policy=LaxMonotonicPolicy())


def new_ulid() -> str:
    """A new 26-character ULID, larger than every earlier one of this process."""
    return str(_generator().generate())


def new_uuid() -> str:
    """A new UUID of version 7, larger than every earlier one of this process."""
    text = _generator().generate().hex
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def new_run_id(workflow: str) -> str:
    """A new run id for a workflow."""
    return f"workflow:{workflow}:{new_ulid()}"


def workflow_of(run_id: str) -> str | None:
    """The workflow name inside a run id, or None if the text is not a run id."""
    match = _RUN_ID.fullmatch(run_id)
    return match["name"] if match else None


def agent_stream(name: str, instance_id: str) -> str:
    """The stream of a continuing agent's instance.

    An instance id is 1 to 128 letters, digits and characters out of `._~@+=-`.

    Raises:
        ValueError: the name or the instance id cannot be used.
    """
    stream_id = f"{AGENT_PREFIX}{name}:{instance_id}"
    if _AGENT_STREAM.fullmatch(stream_id) is None:
        raise ValueError(f"{name!a} and {instance_id!a} cannot name an agent and its instance.")
    return stream_id


def parse_agent_stream(stream_id: str) -> tuple[str, str] | None:
    """The agent's name and the instance id of a stream, or None if the text is not such a stream."""
    match = _AGENT_STREAM.fullmatch(stream_id)
    return (match["name"], match["instance"]) if match else None


def new_interaction_id(stream_id: str) -> str:
    """A new run id for an interaction with the instance whose stream this is."""
    return f"{stream_id}:{new_ulid()}"


def split_interaction_id(run_id: str) -> tuple[str, str] | None:
    """The instance's stream and the ULID of an interaction, or None if the text is not the id of one."""
    if not run_id.startswith(AGENT_PREFIX):  # the usual case, and asked for every event
        return None
    match = _INTERACTION_ID.fullmatch(run_id)
    return (match["stream"], match["ulid"]) if match else None


def is_interaction(run_id: str) -> bool:
    """Whether a run is an interaction with a continuing agent's instance."""
    return split_interaction_id(run_id) is not None


def stream_of(run_id: str) -> str:
    """The stream that a run's events go to: its own, or that of the instance for an interaction."""
    interaction = split_interaction_id(run_id)
    return run_id if interaction is None else interaction[0]
