"""Scopes: where in a run a durable call is made, so that it has the same key each time the run is replayed.

A scope is a path. The run itself has the empty one; each asyncio task of a run gets one of its own, named after its
coroutine when the task is *created* (tasks are created in the same order in each replay, but they need not run in it);
so does each attempt at a step. Within a scope a call is known by its name and by which use of that name it is there, or
by the `key=` its author gave it.

`install` puts the task factory into an event loop; tasks that do not belong to a run are made as ever. Knows neither
journal nor engine: `owner` is whoever wants to know the tasks of the run.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import re
from collections.abc import Callable, Coroutine, Generator
from contextvars import ContextVar
from typing import Any, Protocol

from ..errors import CallMisplaced, PyFlueError

_current: ContextVar[Scope | None] = ContextVar("pyflue_scope", default=None)

_NAME = re.compile(r"[^\x00-\x1f\x7f\u2028\u2029\ud800-\udfff]{1,128}")
#: Characters that mean something in a key.
_RESERVED = re.compile(r"[%/#]|^[@(\[]")


class TaskOwner(Protocol):
    """What a run is told of its tasks."""

    def add_task(self, task: asyncio.Task[Any]) -> None: ...


class Scope:
    """One place in a run. Used by one task (or one thread) at a time."""

    __slots__ = ("_keys", "_positions", "_tasks", "_uses", "owner", "path", "step_attempt", "step_key")

    def __init__(
        self, owner: TaskOwner, path: str = "", *, step_key: str | None = None, step_attempt: int | None = None
    ) -> None:
        self.owner = owner
        #: Empty for the run itself, else it ends with "/".
        self.path = path
        #: The innermost step that this is inside of.
        self.step_key = step_key
        #: Which attempt at it.
        self.step_attempt = step_attempt
        self._uses: dict[str, int] = {}
        self._tasks: dict[str, int] = {}
        self._keys: set[str] | None = None
        self._positions = 0

    @property
    def attempt_path(self) -> str | None:
        """The attempt at a step that this is inside of, such as `charge/attempt-1`."""
        return None if self.step_key is None else f"{self.step_key}/attempt-{self.step_attempt}"

    def take(self, name: str, key: str | None) -> tuple[str, int]:
        """The key of the next durable call of this name, and its position among the calls of this scope.

        Raises:
            ValueError: not a usable name or key; CallMisplaced: the key has been used here.
        """
        self._positions += 1
        if key is None:
            segment = _segment(name)
            uses = self._uses[segment] = self._uses.get(segment, 0) + 1
            if uses > 1:
                segment = f"{segment}#{uses}"
        else:
            _segment(name)
            segment = "@" + _segment(str(key))
            self._keys = self._keys if self._keys is not None else set()
            if segment in self._keys:
                raise CallMisplaced(
                    f"key={key!r} of {name!r} was used before in the same place of this run.",
                    hint="Give each durable call a key of its own, or none.",
                )
            self._keys.add(segment)
        return self.path + segment, self._positions

    def branch(self, name: str) -> Scope:
        """The scope of the next task (or other branch) of this name."""
        uses = self._tasks[name] = self._tasks.get(name, 0) + 1
        path = f"{self.path}({name})/" if uses == 1 else f"{self.path}({name})#{uses}/"
        return self._below(path)

    def item(self, index: int) -> Scope:
        """The scope of one item of a list."""
        return self._below(f"{self.path.removesuffix('/')}[{index}]/")

    def attempt(self, key: str, attempt: int) -> Scope:
        """The scope of one attempt at a step."""
        return Scope(self.owner, f"{key}/attempt-{attempt}/", step_key=key, step_attempt=attempt)

    def inner(self, key: str) -> Scope:
        """The scope of a call that is made of other durable calls."""
        return self._below(f"{key}/")

    def _below(self, path: str) -> Scope:
        return Scope(self.owner, path, step_key=self.step_key, step_attempt=self.step_attempt)


def call_name(text: str) -> str:
    """Any text as the name of a durable call: itself where that can be one."""
    if _NAME.fullmatch(text):
        return text
    return f"node-{hashlib.sha256(text.encode(errors='backslashreplace')).hexdigest()[:32]}"


def segment(name: str) -> str:
    """The name of a durable call as it stands in keys and paths."""
    return _segment(name)


def current() -> Scope | None:
    """The scope of the running task or thread; None outside of runs."""
    return _current.get()


class inside:  # noqa: N801  (used like a function: `with inside(scope):`)
    """Make durable calls of the running task belong to a scope."""

    __slots__ = ("_scope", "_token")

    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    def __enter__(self) -> None:
        self._token = _current.set(self._scope)

    def __exit__(self, *error: object) -> None:
        _current.reset(self._token)


def branch_name(work: object) -> str:
    """What a branch is called: the qualified name of its coroutine or function, without `<locals>`."""
    while isinstance(work, functools.partial):
        work = work.func  # pyright: ignore[reportUnknownVariableType,reportUnknownMemberType]
    name = getattr(work, "__qualname__", None) or type(work).__qualname__  # pyright: ignore[reportUnknownArgumentType]
    return _RESERVED.sub("", str(name).replace("<locals>.", ""))[:128]


class Scoped(Coroutine[Any, Any, Any]):
    """A coroutine that runs in a scope of its own, and cannot end the event loop with `sys.exit`.

    Not an `async def` around it: a task that is cancelled before its first step must close the author's coroutine.
    """

    __slots__ = ("__qualname__", "_coroutine", "_has_begun", "scope")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], scope: Scope) -> None:
        self._coroutine = coroutine
        self.scope = scope
        self._has_begun = False
        self.__qualname__ = getattr(coroutine, "__qualname__", type(coroutine).__qualname__)

    def send(self, value: Any) -> Any:
        if not self._has_begun:
            self._has_begun = True
            _current.set(self.scope)
        try:
            return self._coroutine.send(value)
        except (SystemExit, KeyboardInterrupt) as error:
            raise _exited(error) from error

    def throw(self, *error: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]  (three forms, passed on)
        try:
            return self._coroutine.throw(*error)
        except (SystemExit, KeyboardInterrupt) as raised:
            raise _exited(raised) from raised

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._coroutine.__await__()

    def __getattr__(self, name: str) -> Any:
        # `cr_frame` and its like, for debuggers and the names in asyncio's messages.
        return getattr(self._coroutine, name)


def install(loop: asyncio.AbstractEventLoop) -> None:
    """Let an event loop give the tasks of runs their scopes; once for all engines on it."""
    earlier = loop.get_task_factory()
    if not isinstance(earlier, _TaskFactory):
        loop.set_task_factory(_TaskFactory(earlier))  # pyright: ignore[reportArgumentType]  (it passes options on)


class _TaskFactory:
    def __init__(self, earlier: Callable[..., Any] | None) -> None:
        self._make = earlier or _make_task

    def __call__(
        self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], /, **options: Any
    ) -> asyncio.Task[Any]:
        context = options.get("context")
        scope = _current.get() if context is None else context.get(_current)
        if isinstance(coroutine, Scoped):
            scope = coroutine.scope
        elif scope is not None:
            coroutine = Scoped(coroutine, scope.branch(branch_name(coroutine)))
        task = self._make(loop, coroutine, **options)
        if scope is not None:
            scope.owner.add_task(task)
        return task


def _make_task(
    loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], /, **options: Any
) -> asyncio.Task[Any]:
    return asyncio.Task(coroutine, loop=loop, **options)


@functools.lru_cache(maxsize=4096)
def _segment(name: str) -> str:
    """A name as a part of a key, with what means something there written as `%2F` and the like."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"{str(name)[:200]!r} cannot name a durable call: 1 to 128 printable characters can.")
    return _RESERVED.sub(lambda found: f"%{ord(found[0]):02X}", name)


def _exited(error: BaseException) -> PyFlueError:
    what = "sys.exit()" if isinstance(error, SystemExit) else "KeyboardInterrupt"
    return PyFlueError(f"A task of the workflow ended with {what}.", type="exception")
