"""What the arguments of calls become in a request: words of a query, a body, a header."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import codec
from ..codec import Raw

#: Stands for a value that was not given, where None is one.
NOT_GIVEN: Any = object()


def joined(words: str | Sequence[str] | None) -> str | None:
    """One word, or several separated by commas; None for none."""
    if words is None or isinstance(words, str):
        return words
    return ",".join(words) or None


def body_of(what: str, **fields: Any) -> Raw:
    """The fields that were given as a JSON object; `what` names it in errors.

    Raises:
        NotSerializable: a value is no JSON value, nor a pydantic model or a dataclass of them.
    """
    return codec.encode_value({name: value for name, value in fields.items() if value is not NOT_GIVEN}, what)


def key_header(idempotency_key: str | None) -> dict[str, str]:
    """The header `Idempotency-Key`, if there is a key."""
    return {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
