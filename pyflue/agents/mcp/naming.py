"""What models call the tools of MCP servers: `mcp__<server>__<tool>`, as all providers allow it."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Sequence

_OTHER = re.compile(r"[^A-Za-z0-9_-]", re.ASCII)
_LONGEST = 64
_DIGEST_CHARACTERS = 8


def named(tools: Sequence[tuple[str, str]]) -> Sequence[str]:
    """A name for each (server, tool), in their order. No two (server, tool) are the same; no name depends on the order.

    A name that several would have goes to the one that it says exactly; the others have a digest at the end.
    """
    plain = [_plain(server, tool) for server, tool in tools]
    names = plain
    # Usually once. A server can name a tool as another one's name with a digest; that one then gets another digest.
    for attempt in itertools.count():
        uses = Counter(names)
        if len(uses) == len(names):
            return names
        exact = Counter(name for name, each in zip(names, tools, strict=True) if _says(name, *each))
        names = [
            name
            if uses[name] == 1 or (exact[name] == 1 and _says(name, *each))
            else _told_apart(first, *each, attempt=attempt)
            for name, first, each in zip(names, plain, tools, strict=True)
        ]
    raise AssertionError  # the count has no end


def _plain(server: str, tool: str) -> str:
    return _OTHER.sub("_", f"mcp__{server}__{tool}")[:_LONGEST]


def _says(name: str, server: str, tool: str) -> bool:
    return name == f"mcp__{server}__{tool}"


def _told_apart(name: str, server: str, tool: str, *, attempt: int) -> str:
    digest = hashlib.sha256(f"{attempt}\0{server}\0{tool}".encode(errors="replace")).hexdigest()[:_DIGEST_CHARACTERS]
    return f"{name[: _LONGEST - _DIGEST_CHARACTERS - 1]}_{digest}"
