"""Secrets in what reports show: values under names of secrets, and the same values wherever else they turn up."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast
from weakref import WeakKeyDictionary

from .document import Document

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
#: The secrets of graphs that are run again and again.
_known: WeakKeyDictionary[Document, tuple[str, ...]] = WeakKeyDictionary()
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
        if isinstance(value, str) and len(value) >= _SHORTEST and value not in self._values:
            self._values[value] = None
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
        if isinstance(value, Mapping):
            return {
                self.text(str(name)): self._below(str(name), item)
                for name, item in cast("Mapping[Any, Any]", value).items()
            }
        if isinstance(value, (list, tuple)):
            return [self.mask(item) for item in cast("Sequence[Any]", value)]
        return value

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
        known = tuple(found for node in document.nodes.values() for found in _found(node.data))
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
                elif _is_written(item):
                    content = cast("Mapping[str, Any]", item)["content"]
                    if isinstance(content, str):
                        yield content
                else:
                    waiting.append(item)
        elif isinstance(current, (list, tuple)):
            waiting.extend(cast("Sequence[Any]", current))


def _is_written(value: Any) -> bool:
    """Whether it is a value of the editor that was written down."""
    if not isinstance(value, Mapping):
        return False
    fields = cast("Mapping[str, Any]", value)
    return fields.get("type") in ("constant", "template") and "content" in fields
