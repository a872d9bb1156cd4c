"""How an exception of a workflow is written into its run's record."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from types import TracebackType

from .. import codec
from ..codec import Raw
from ..errors import PyFlueError

_PACKAGE = str(Path(__file__).parent.parent)
_MOST_MESSAGE = 8 * 1024
_MOST_TRACEBACK = 16 * 1024


def describe(error: BaseException, root: Path | None = None) -> Raw:
    """The error as JSON: `type`, `message`, and for exceptions of the author `exception`, `where` and `traceback`.

    The traceback starts at the author's code and shows no values of variables (they may be secrets). Paths below `root`
    are relative to it.
    """
    if isinstance(error, PyFlueError):
        record = error.to_dict()
    else:
        record = {"type": "exception", "message": _message(error), "exception": _name(type(error))}
    frames = _frames(error.__traceback__)
    if frames is not None:
        record["where"] = _shorten(f"{_last(frames).filename}:{_last(frames).lineno}", root)
        if not isinstance(error, PyFlueError):
            text = "".join(_format(error, frames))
            record["traceback"] = _shorten(text[-_MOST_TRACEBACK:], root)
    return codec.encode_loose(record)


def _message(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception as broken:  # noqa: BLE001  (the author's __str__ may do anything)
        text = f"<its message cannot be read: {type(broken).__name__}>"
    return text if len(text) <= _MOST_MESSAGE else text[:_MOST_MESSAGE] + "…"


def _name(kind: type) -> str:
    return (
        kind.__qualname__ if kind.__module__ in {"builtins", "__main__"} else f"{kind.__module__}.{kind.__qualname__}"
    )


def _frames(trace: TracebackType | None) -> traceback.StackSummary | None:
    """The author's part of a traceback: from the first frame outside of PyFlue and the standard library."""
    if trace is None:
        return None
    frames = traceback.StackSummary.extract(traceback.walk_tb(trace), limit=200, lookup_lines=False)
    own = (_PACKAGE, str(Path(asyncio_folder())))
    for number, frame in enumerate(frames):
        if not frame.filename.startswith(own):
            return traceback.StackSummary.from_list(frames[number:])
    return None


def asyncio_folder() -> str:
    """The folder of the standard library's asyncio, whose frames lie between ours and the author's."""
    module = sys.modules.get("asyncio")
    return str(Path(module.__file__).parent) if module is not None and module.__file__ else "\0"


def _last(frames: traceback.StackSummary) -> traceback.FrameSummary:
    """The deepest frame of the author's own code: library code below it is where it blew up, not why."""
    for frame in reversed(frames):
        if "site-packages" not in frame.filename and not frame.filename.startswith((sys.base_prefix, _PACKAGE, "<")):
            return frame
    return frames[-1]


def _format(error: BaseException, frames: traceback.StackSummary) -> list[str]:
    return [
        "Traceback (most recent call last):\n",
        *frames.format(),
        f"{_name(type(error))}: {_message(error)}\n",
    ]


def _shorten(text: str, root: Path | None) -> str:
    return text if root is None else text.replace(f"{root}/", "")
