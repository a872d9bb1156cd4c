"""The older way to refer to values: `$from`, with `onSkip`.

Called by `expressions.py` for documents of releases up to 0.8.0 (stepflow-ai/stepflow `a41cb3ed`,
`crates/stepflow-core/src/workflow/expr.rs`). Every `$from` becomes one of the newer references. What else an older
document means is in `document.py` (`skipIf`, `onError: {action: skip}`) and in the scheduler.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from .exceptions import Place
from .outcome import Success
from .paths import Path, spell

if TYPE_CHECKING:
    from .expressions import Compiler, Expression

_ROOTS = ("workflow", "step", "variable")


def is_reference(value: Mapping[str, Any]) -> bool:
    """Whether an object with `$from` is an older reference; if not, somebody means the object itself."""
    root = value["$from"]
    return isinstance(root, dict) and any(key in root for key in _ROOTS)


def compile_from(compiler: Compiler, value: Mapping[str, Any], path: Place) -> Expression:
    """The newer reference that a `$from` stands for."""
    from .expressions import Constant, InputReference, StepReference, VariableReference

    root = cast("Mapping[str, Any]", value["$from"])
    where = compiler.path_of(value.get("path"), (*path, "path"))
    when_skipped = _when_skipped(compiler, value.get("onSkip"), (*path, "onSkip"))
    if "step" in root:
        if not isinstance(root["step"], str):
            return compiler.refuse((*path, "$from", "step"), "`step` must be a text: the id of a step.")
        return StepReference(root["step"], where, value, when_skipped=when_skipped)
    if "workflow" in root:
        if root["workflow"] != "input":
            return compiler.refuse((*path, "$from", "workflow"), "`workflow` can only be `input`.")
        return InputReference(where, value)
    name = root["variable"]
    if not isinstance(name, str) or not name:
        return compiler.refuse((*path, "$from", "variable"), "`variable` must be a text: the name of a variable.")
    parts = (name, *where.parts)
    whole = Path(parts, spell(parts), spell(parts), where.nested and (name, *where.nested))
    default = Constant(root["default"], {"$literal": root["default"]}) if "default" in root else None
    return VariableReference(whole, default, value)


def _when_skipped(compiler: Compiler, value: Any, path: Place) -> Success | None:
    if value is None:
        return None
    fields: Mapping[str, Any] = cast("Mapping[str, Any]", value) if isinstance(value, dict) else {}
    action = fields.get("action")
    if action == "useDefault":
        return Success(fields.get("defaultValue"))
    if action != "skip":
        compiler.refuse(path, "`onSkip` needs an `action`: `skip` or `useDefault`.")
    return None
