"""Tags of a run, checked where they are given: by the same rules as the server's."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import InvalidQuery

_MOST = 50
_LONGEST = 128


def checked_tags(tags: Sequence[str]) -> tuple[str, ...]:
    """The tags without the blanks around them, each once.

    Raises:
        InvalidQuery: too many, one that is empty, too long, not printable or has a comma; or a text instead of a list.
    """
    if isinstance(tags, str):
        raise InvalidQuery("tags", tags, f"a list of texts, such as [{tags!r}]")
    items = tuple(dict.fromkeys(tag.strip() for tag in tags))
    if len(items) > _MOST:
        raise InvalidQuery("tags", ",".join(items), f"at most {_MOST} items")
    for tag in items:
        if not 0 < len(tag) <= _LONGEST or not tag.isprintable() or "," in tag:
            raise InvalidQuery("tags", tag, f"items of 1 to {_LONGEST} printable characters, without commas")
    return items
