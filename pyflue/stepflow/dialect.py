"""The door of the dialect: which files are flows. What a flow is made of is imported when there is one.

Called by discovery on every YAML and JSON file, in commands that have nothing to do with flows, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..engine import Workflow
from ..workflows import Dialect, Source, TokenScope

KIND = "stepflow"
#: The reserved name of flows that come with a request.
INLINE = "stepflow.inline"
_PREFIX = "/api/v1"
#: How much of a file is looked at to see whether it is a flow.
_LOOK_BYTES = 1024 * 1024
_CONFIGS = re.compile(r"stepflow[-_]config(\.test)?\.ya?ml")
#: A key at the margin of a YAML file that only flows have there.
_YAML_KEY = re.compile(rb"^(?:steps|output)\s*:|^[\"'](?:steps|output)[\"']\s*:", re.MULTILINE)
_JSON_STEPS = re.compile(r'"steps"\s*:\s*[\[{]')


def stepflow_dialect() -> Dialect:
    """The dialect of flows."""
    return Dialect(
        kind=KIND,
        loader=FlowLoader(),
        routes=_routes,
        scope_of=scope_of,
        operations=_operations,
        reserved={INLINE: _inline},
    )


def scope_of(method: str, path: str) -> TokenScope | None:
    """The scope that a request of Stepflow's API needs. Whoever may start runs may store flows and end runs, too."""
    if method != "POST" or not path.startswith(f"{_PREFIX}/"):
        return None
    return "run"


class FlowLoader:
    """Makes workflows of YAML and JSON files with `steps`."""

    def claims(self, path: Path) -> bool:
        if path.suffix not in {".yaml", ".yml", ".json"} or _CONFIGS.fullmatch(path.name):
            return False
        with path.open("rb") as file:
            data = file.read(_LOOK_BYTES)
        # JSON is YAML, too.
        if path.suffix != ".json" and not data.lstrip().startswith(b"{"):
            return _YAML_KEY.search(data) is not None
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            # Broken, or longer than what was read: it is meant to be a flow if it looks like one.
            return _JSON_STEPS.search(data.decode("utf-8", "replace")) is not None
        return isinstance(value, dict) and "steps" in value and "nodes" not in value

    def load(self, source: Source) -> Workflow:
        from .workflow import load_flow

        return load_flow(source)

    def inputs(self, source: Source) -> Iterable[Path]:
        """The files beside the flow's own that decide what it does: where its config may lie."""
        from .config import CONFIG_NAMES

        return [folder / name for folder in {source.path.parent, source.root} for name in CONFIG_NAMES]


def _inline() -> Workflow:
    from .inline import inline_workflow

    return inline_workflow()


def _operations() -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
    from .openapi import dialect_operations

    return dialect_operations()


def _routes(services: Any) -> Sequence[Any]:
    from .http import project_routes

    return project_routes(services)
