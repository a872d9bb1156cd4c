"""Where the components that flows name lead by a config, as far as that is known without asking a plugin.

What `validation.diagnose` is told by whoever has a config at hand: the commands, the loader of a project's flows, and
the backends of the HTTP API. Nothing is started, and no plugin is made: of component servers only the routes count, of
what is built in, mocks and the project the names, too.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Any

from .config import PluginEntry, StepflowConfig
from .routing import Router
from .validation import Look, Reach

#: What `builtin.BuiltinPlugin` has. Its module is not imported for that: it brings all components with it.
BUILT_IN = frozenset(
    {
        "/create_messages",
        "/eval",
        "/get_blob",
        "/iterate",
        "/load_file",
        "/map",
        "/noop",
        "/openai",
        "/put_blob",
        "/sleep",
    }
)
_OF_THE_PROJECT = ("/workflows/", "/agents/")
#: Flows name as many components as they like.
_MOST_KNOWN = 10_000


def look_of(config: StepflowConfig, *, ready: Collection[str] = (), is_certain: bool = True) -> Look:
    """Where components lead by a config. `ready` are plugins that do not come from it, by their names.

    `is_certain` is false if the config is only one that stands for none.
    """
    router = Router(config.routes, [*config.plugins, *ready], _never)
    entries = {name: entry for name, entry in config.plugins.items() if name not in ready}
    known: dict[str, Reach] = {}

    def look(component: str) -> Reach:
        found = known.get(component)
        if found is None:
            found = _reach(component, router, entries, is_certain=is_certain)
            if len(known) < _MOST_KNOWN:
                known[component] = found
        return found

    return look


def _reach(component: str, router: Router, entries: Mapping[str, PluginEntry], *, is_certain: bool) -> Reach:
    candidates = router.candidates(component)
    problems = [_problem(entries.get(name), inner) for name, inner in candidates]
    if not all(problems):
        built_in = {inner for name, inner in candidates if name in entries and entries[name].type == "builtin"}
        return Reach(built_in=frozenset(built_in & BUILT_IN), is_certain=is_certain)
    return Reach(problem="; ".join(problems) or "no route leads to it", is_certain=is_certain)


def _problem(entry: PluginEntry | None, component: str) -> str:
    """Why a plugin does not have a component; empty if it has, or may have."""
    if entry is None:
        return ""
    match entry.type:
        case "builtin" if component not in BUILT_IN:
            close = get_close_matches(component, sorted(BUILT_IN), 1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            return f"there is no built-in component {component!r}{hint}"
        case "mock" if component not in {f"/{path.removeprefix('/')}" for path in entry.components}:
            return f"mock {entry.name!r} has no component {component!r}"
        case "pyflue" if not component.startswith(_OF_THE_PROJECT):
            return f"plugin {entry.name!r} has /workflows/<name> and /agents/<name> only"
        case _:
            return ""


def _never(name: str) -> Any:
    raise AssertionError(name)
