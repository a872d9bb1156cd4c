"""How an exception of a workflow is written into its run's record."""

from __future__ import annotations

import asyncio
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from .. import codec
from ..codec import Raw
from ..errors import PyFlueError

#: Frames of these lie between the engine and the author's code; nobody needs to read them.
_OURS = (str(Path(__file__).parent.parent), str(Path(asyncio.__file__).parent))
#: The private package that a loaded version of a workflow's modules lives in.
_NAMESPACE = re.compile(r"\b_pyflue_(?:\d+\.|workflow_\d+_)")
_MOST_MESSAGE = 8 * 1024
_MOST_TRACEBACK = 16 * 1024
_MOST_FRAMES = 200


def describe(error: BaseException, root: Path | None = None) -> Raw:
    """The error as JSON: `type`, `message`, `where`, and for exceptions of the author `exception` and `traceback`.

    The traceback starts at the author's code, includes causes and the members of exception groups, and shows no values
    of variables (they may be secrets). Paths below `root` are relative to it. A group with one member counts as that
    member, so that an error raised in a task of a `TaskGroup` keeps its type and status.
    """
    try:
        return _describe(error, root)
    except Exception as broken:  # noqa: BLE001  (the author's exception class, or its details, may do anything)
        message = f"The error cannot be described: {type(broken).__name__}."
        return Raw(codec.encode({"type": "exception", "message": message, "exception": _name(type(error))}))


def _describe(error: BaseException, root: Path | None) -> Raw:
    only = _only_member(error)
    if isinstance(only, PyFlueError):
        record = only.to_dict()
    else:
        record = {"type": "exception", "message": _message(error), "exception": _shorten(_name(type(only)), root)}
    frames = _author_frames(traceback.TracebackException.from_exception(only, limit=_MOST_FRAMES).stack)
    if frames:
        place = _deepest_own(frames)
        record["where"] = _shorten(f"{place.filename}:{place.lineno}", root)
        if not isinstance(only, PyFlueError):
            record["traceback"] = _shorten(_traceback(error), root)
    return codec.encode_loose(record)


def _members(error: BaseException) -> Sequence[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return cast("Sequence[BaseException]", error.exceptions)  # pyright: ignore[reportUnknownMemberType]
    return ()


def _only_member(error: BaseException) -> BaseException:
    while len(members := _members(error)) == 1:
        error = members[0]
    return error


def _message(error: BaseException) -> str:
    """What the exception says; a group's members are named after its own words."""
    try:
        text = str(error)
    except Exception as broken:  # noqa: BLE001  (the author's __str__ may do anything)
        text = f"<its message cannot be read: {type(broken).__name__}>"
    members = [f"{_name(type(member))}: {_message(member)}" for member in _members(error)[:10]]
    if members:
        text = f"{text}: {'; '.join(members)}"
    return text if len(text) <= _MOST_MESSAGE else text[:_MOST_MESSAGE] + "…"


def _name(kind: type) -> str:
    name = kind.__qualname__
    return name if kind.__module__ in {"builtins", "__main__"} else _NAMESPACE.sub("", f"{kind.__module__}.{name}")


def _traceback(error: BaseException) -> str:
    whole = traceback.TracebackException.from_exception(error, limit=_MOST_FRAMES, compact=True)
    _cut(whole)
    return "".join(whole.format())[-_MOST_TRACEBACK:]


def _cut(part: traceback.TracebackException) -> None:
    """Leave the author's frames only, in an exception and all that hang on it."""
    part.stack = traceback.StackSummary.from_list(_author_frames(part.stack))
    for other in (part.__cause__, part.__context__, *(part.exceptions or ())):
        if other is not None:
            _cut(other)


def _author_frames(stack: traceback.StackSummary) -> list[traceback.FrameSummary]:
    """The frames that are neither PyFlue's nor asyncio's."""
    return [frame for frame in stack if not frame.filename.startswith(_OURS)]


def _deepest_own(frames: list[traceback.FrameSummary]) -> traceback.FrameSummary:
    """The deepest frame of the author's own code: library code below it is where it blew up, not why."""
    for frame in reversed(frames):
        is_library = "site-packages" in frame.filename or frame.filename.startswith((sys.base_prefix, *_OURS, "<"))
        if not is_library:
            return frame
    return frames[-1]


def _shorten(text: str, root: Path | None) -> str:
    text = _NAMESPACE.sub("", text)
    return text if root is None else text.replace(f"{root}/", "")
