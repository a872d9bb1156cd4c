"""Variables of a Python file that say what becomes of its runs: `recovery` and `strict`.

Called by the loaders of every kind of Python file.
"""

from __future__ import annotations

from types import ModuleType

from ..engine import Recovery
from ..errors import WorkflowInvalid
from .dialect import Source
from .modules import shown


def recovery_of(source: Source, module: ModuleType) -> Recovery:
    """
    Raises:
        WorkflowInvalid: `recovery` is none of the known words.
    """
    value = vars(module).get("recovery", Recovery.RESUME)
    if callable(value):  # a function of that name, which means something else
        return Recovery.RESUME
    try:
        return Recovery(value)
    except ValueError as error:
        known = ", ".join(repr(word.value) for word in Recovery)
        raise WorkflowInvalid(shown(source), f"its `recovery` is {value!r}; known are {known}.") from error


def strictness_of(source: Source, module: ModuleType) -> bool:
    """
    Raises:
        WorkflowInvalid: `strict` is neither true nor false.
    """
    value = vars(module).get("strict", False)
    if isinstance(value, bool):
        return value
    raise WorkflowInvalid(shown(source), f"its `strict` is {value!r}; it is True or False.")
