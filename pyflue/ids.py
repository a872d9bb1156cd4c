"""Ids: ULIDs that sort in the order they were made, and the run ids built from them.

A run id is `workflow:<name>:<ulid>`. Within a process ids grow even if the wall clock steps back.
"""

from __future__ import annotations

import functools
import re
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ulid import ULIDGenerator

_RUN_ID = re.compile(r"workflow:(?P<name>[^:\x00-\x20]{1,128}):(?P<ulid>[0-7][0-9A-HJKMNP-TV-Z]{25})")


class _NeverBack:
    """Milliseconds of wall time that never go down."""

    def __init__(self) -> None:
        self._last_ms = 0

    def __call__(self) -> int:
        self._last_ms = max(self._last_ms, time.time_ns() // 1_000_000)
        return self._last_ms


@functools.cache
def _generator() -> ULIDGenerator:
    # Imported at first use: python-ulid reads its own package metadata on import, which costs a reader of the
    # journal (`pyflue logs`) more than everything else it imports.
    from ulid import LaxMonotonicPolicy, ULIDGenerator

    return ULIDGenerator(clock=_NeverBack(), policy=LaxMonotonicPolicy())


def new_ulid() -> str:
    """A new 26-character ULID, larger than every earlier one of this process."""
    return str(_generator().generate())


def new_run_id(workflow: str) -> str:
    """A new run id for a workflow."""
    return f"workflow:{workflow}:{new_ulid()}"


def workflow_of(run_id: str) -> str | None:
    """The workflow name inside a run id, or None if the text is not a run id."""
    match = _RUN_ID.fullmatch(run_id)
    return match["name"] if match else None
