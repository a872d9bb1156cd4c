"""What must not be told of an MCP server: the values of its `env`, its `headers`, and what its `url` holds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from ...mcp_http import secrets_in
from ...settings import McpServerSettings

_SECRET_NAME = re.compile(r"key|token|secret|pass|auth|cred|cookie|session", re.IGNORECASE)
#: Shorter values say nothing, or stand everywhere.
_SHORTEST = 8
_SHORTEST_OF_A_SECRET = 4


class Secrets:
    """Takes them out of texts. Folders and files in `env` are no secrets, unless their name says so."""

    def __init__(self, settings: McpServerSettings) -> None:
        # Longest first: one may be a part of another.
        self._values = sorted(set(_values(settings)), key=lambda pair: len(pair[1]), reverse=True)

    def redact(self, text: str) -> str:
        for name, value in self._values:
            text = text.replace(value, f"[{name}]")
        return text


def _values(settings: McpServerSettings) -> Iterator[tuple[str, str]]:
    for name, value in settings.env.items():
        is_named_so = _SECRET_NAME.search(name) is not None
        if len(value) >= (_SHORTEST_OF_A_SECRET if is_named_so else _SHORTEST) and (
            is_named_so or not value.startswith(("/", "./", "../", "~/"))
        ):
            yield f"env {name}", value
    yield from secrets_in(settings.url or "", settings.headers)


def shown_url(url: str) -> str:
    """An address without what may be secret in it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
