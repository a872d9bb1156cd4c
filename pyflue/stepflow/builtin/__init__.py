"""The components that every flow has: the plugin of type `builtin`, and one of ours of type `pyflue`.

Names, inputs and outputs as in stepflow-ai/stepflow (`crates/stepflow-builtins`), `sleep` and `noop` as in its 0.13.
"""

from __future__ import annotations

from .plugin import BuiltinPlugin
from .project import ProjectPlugin
from .python import PythonPlugin

__all__ = ["BuiltinPlugin", "ProjectPlugin", "PythonPlugin"]
