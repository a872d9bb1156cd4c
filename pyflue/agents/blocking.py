"""Harnesses for workflows that are not async: the same methods, which block the run's thread until they are done."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine
from typing import Any

from .files_face import Files
from .harness import Harness, Sessions
from .session import Session

_FACES = (Harness, Session, Sessions, Files)


class Blocking:
    """A harness, a session or the files of one, in blocking form: `harness.session().prompt("…").text`."""

    __slots__ = ("_block", "_face")

    def __init__(self, face: Any, block: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        self._face = face
        self._block = block

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._face, name)
        if isinstance(found, _FACES):
            return Blocking(found, self._block)
        return functools.partial(self._call, found) if inspect.ismethod(found) else found

    def _call(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        value = method(*args, **kwargs)
        if inspect.iscoroutine(value):
            value = self._block(value)
        return Blocking(value, self._block) if isinstance(value, _FACES) else value

    def __repr__(self) -> str:
        return f"<blocking {self._face!r}>"
