"""`self.state`: which state a workflow object has, when several runs use the same object.

`@workflow` puts a `StateAttribute` into the class. Inside of a run it is that run's state, in whichever task or thread
of it; outside it is the state of the run that was started last, as an ordinary attribute would be. A class that has a
`state` of its own making (a property, a slot) keeps it.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, cast


class Frame:
    """A run under way, and the one it is inside of."""

    __slots__ = ("instance", "parent", "state")

    def __init__(self, instance: object, state: Any, parent: Frame | None) -> None:
        self.instance = instance
        self.state = state
        self.parent = parent


#: The innermost run of this task or thread.
current: ContextVar[Frame | None] = ContextVar("pyflue_agentflow_frame", default=None)

_NOT_SET = object()


class StateAttribute:
    """The attribute `state` of workflow objects."""

    def __init__(self, default: Any = _NOT_SET) -> None:
        #: What the class body gave it, seen until a run begins.
        self._default = default

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            if self._default is _NOT_SET:
                raise AttributeError("state")
            return self._default
        frame = current.get()
        while frame is not None:
            if frame.instance is instance:
                return frame.state
            frame = frame.parent
        attributes = cast("dict[str, Any]", instance.__dict__)
        state = attributes.get("state", self._default)
        if state is _NOT_SET:
            raise AttributeError(f"'{type(instance).__name__}' object has no attribute 'state': no run has begun.")
        return state

    def __set__(self, instance: Any, value: Any) -> None:
        frame = current.get()
        while frame is not None:
            if frame.instance is instance:
                frame.state = value
                break
            frame = frame.parent
        # Also where threads that the author starts find it, and whoever looks at the object after the run.
        vars(instance)["state"] = value

    def __delete__(self, instance: Any) -> None:
        try:
            del vars(instance)["state"]
        except KeyError:
            raise AttributeError("state") from None


def keep_state_per_run(cls: type) -> None:
    """Let the objects of a class have one state per run."""
    found: Any = next((vars(base)["state"] for base in cls.__mro__ if "state" in vars(base)), _NOT_SET)
    if isinstance(found, StateAttribute) or hasattr(found, "__set__"):
        return
    if all("__dict__" not in vars(base) for base in cls.__mro__):
        return  # its objects have slots only, and nowhere to keep a state: as without us
    cls.state = StateAttribute(found)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
