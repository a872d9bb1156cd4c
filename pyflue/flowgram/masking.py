"""Secrets in what reports show: values under names of secrets, and the same values wherever else they turn up."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast
from weakref import WeakKeyDictionary

from .. import codec
from ..codec import Raw
from .document import Document, as_object

MASK = "***"
_SEPARATORS = re.compile(r"[^a-z0-9]")
_NAMES = frozenset(
    {
        "accesstoken",
        "apikey",
        "apitoken",
        "authorization",
        "authtoken",
        "bearertoken",
        "clientsecret",
        "cookie",
        "credentials",
        "passwd",
        "password",
        "privatekey",
        "proxyauthorization",
        "refreshtoken",
        "secret",
        "secretkey",
        "setcookie",
        "token",
        "xapikey",
        "xauthtoken",
    }
)
#: Each of the names holds one of these.
_STEMS = (b"token", b"key", b"secret", b"passw", b"cookie", b"credentials", b"authorization")
_SEPARATOR_BYTES = bytes(set(range(256)) - set(b"abcdefghijklmnopqrstuvwxyz0123456789"))
#: What stands before the secret in the value of a header.
_SCHEME = re.compile(r"(?:bearer|basic|token|apikey)\s+(?=\S)", re.IGNORECASE)
#: A parameter in the text of a URL.
_PARAMETER = re.compile(r"[?&]([^=&#?]{1,64})=([^&#\s]+)")
#: The secrets of graphs that are run again and again.
_known: WeakKeyDictionary[Document, tuple[str, ...]] = WeakKeyDictionary()
_PLAIN = frozenset({int, float, bool})
#: Shorter ones would be found in innocent text.
_SHORTEST = 6


@functools.lru_cache(maxsize=4096)
def is_secret(name: str) -> bool:
    """Whether a value of this name is a secret."""
    return _SEPARATORS.sub("", name.lower()) in _NAMES


class Secrets:
    """The secrets of one run, as they become known."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        self._values: dict[str, None] = {}
        self._pattern: re.Pattern[str] | None = None
        for value in values:
            self.add(value)

    def add(self, value: Any) -> None:
        """Keep a text from being shown."""
        if not isinstance(value, str):
            return
        scheme = _SCHEME.match(value)
        for text in (value,) if scheme is None else (value, value[scheme.end() :]):
            if len(text) >= _SHORTEST and text not in self._values:
                self._values[text] = None
                self._pattern = None

    def learn(self, value: Any) -> None:
        """Add what stands under names of secrets in a value."""
        for secret in _found(value):
            self.add(secret)

    def text(self, text: str) -> str:
        """A text without secrets."""
        if not self._values:
            return text
        if self._pattern is None:
            longest_first = sorted(self._values, key=len, reverse=True)
            self._pattern = re.compile("|".join(map(re.escape, longest_first)))
        return self._pattern.sub(MASK, text)

    def mask(self, value: Any) -> Any:
        """A copy of a value without secrets."""
        if isinstance(value, str):
            return self.text(value)
        if value is None or type(value) in _PLAIN:
            return value
        if isinstance(value, Mapping):
            return {
                self.text(str(name)): self._below(str(name), item)
                for name, item in cast("Mapping[Any, Any]", value).items()
            }
        if isinstance(value, (list, tuple)):
            return [self.mask(item) for item in cast("Sequence[Any]", value)]
        return value

    def masked_json(self, value: Any) -> Raw:
        """As `mask`, written as JSON; what JSON cannot hold is written as its `repr`."""
        try:
            raw = codec.encode(value)
        except (TypeError, ValueError, OverflowError):
            return codec.encode_loose(self.mask(value))
        if not self._values:
            squeezed = raw.lower().translate(None, _SEPARATOR_BYTES)
            if not any(stem in squeezed for stem in _STEMS):
                return Raw(raw)  # nearly always: nothing in it has the name of a secret
        return Raw(codec.encode(self.mask(value)))

    def _below(self, name: str, value: Any) -> Any:
        if not is_secret(name):
            return self.mask(value)
        if isinstance(value, (str, int, float)) and not isinstance(value, bool):
            return MASK
        if _is_written(value):
            return {**self.mask(value), "content": MASK}
        return self.mask(value)


def secrets_of(document: Document, inputs: Mapping[str, Any]) -> Secrets:
    """The secrets that a graph and its inputs hold."""
    secrets = Secrets(_secrets_in(document))
    secrets.learn(inputs)
    return secrets


def _secrets_in(document: Document) -> tuple[str, ...]:
    known = _known.get(document)
    if known is None:
        places = [document.global_schema, *(node.data for node in document.nodes.values())]
        known = tuple(found for place in places for found in _found(place))
        _known[document] = known
    return known


def _found(value: Any) -> Iterator[str]:
    waiting: list[Any] = [value]
    while waiting:
        current = waiting.pop()
        if isinstance(current, Mapping):
            for name, item in cast("Mapping[Any, Any]", current).items():
                if not is_secret(str(name)):
                    waiting.append(item)
                elif isinstance(item, str):
                    yield item
                elif (written := _written(item)) is not None:
                    yield written
                else:
                    waiting.append(item)
        elif isinstance(current, (list, tuple)):
            waiting.extend(cast("Sequence[Any]", current))
        elif isinstance(current, str) and "?" in current:
            yield from (value for name, value in _PARAMETER.findall(current) if is_secret(name))


def _written(value: Any) -> str | None:
    """The text of a value that was written down, or of the default of a declared one."""
    fields = as_object(value)
    text = fields.get("content") if _is_written(value) else fields.get("default")
    return text if isinstance(text, str) else None


def _is_written(value: Any) -> bool:
    """Whether it is a value of the editor that was written down."""
    if not isinstance(value, Mapping):
        return False
    fields = cast("Mapping[str, Any]", value)
    return fields.get("type") in ("constant", "template") and "content" in fields
