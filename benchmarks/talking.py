"""Single requests to a server of ours, for what is not timed: is it up, what waits, what is still open."""

from __future__ import annotations

import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from pyflue import codec

_TIMEOUT_S = 30.0
_PAGE = 200


def get(origin: str, path: str) -> Any:
    """What a path answers.

    Raises:
        OSError: nobody answers there, or with an error.
    """
    with urllib.request.urlopen(f"{origin}{path}", timeout=_TIMEOUT_S) as answer:
        return codec.load(answer.read())


def post(origin: str, path: str, body: Mapping[str, Any]) -> Any:
    """As `get`, with JSON posted to it."""
    request = urllib.request.Request(
        f"{origin}{path}", data=bytes(codec.encode(body)), headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
        return codec.load(answer.read())


def has_runs(origin: str, *statuses: str, tag: str = "") -> bool:
    """Whether there are runs in one of these statuses."""
    query = {"status": ",".join(statuses), "limit": 1} | ({"tag": tag} if tag else {})
    return bool(get(origin, f"/runs?{urlencode(query)}")["runs"])


def open_approvals(origin: str, count: int) -> list[dict[str, Any]]:
    """The newest open approvals, so many at most."""
    found: list[dict[str, Any]] = []
    before: str | None = None
    while len(found) < count:
        query = {"limit": min(_PAGE, count - len(found))} | ({"before": before} if before else {})
        page = get(origin, f"/approvals?{urlencode(query)}")
        found += page["approvals"]
        before = page["next"]
        if before is None:
            break
    return found
