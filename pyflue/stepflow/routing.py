"""From the path of a component, and the input of its step, to a plugin and the component as the plugin knows it.

Rules as in stepflow-ai/stepflow (`crates/stepflow-plugin/src/routing`): a pattern is made of literal segments, `{name}`
(one segment) and `{*name}` (the rest). The most specific pattern wins, wherever it stands; of its rules the first whose
conditions hold and whose lists admit the component. A pattern without placeholders is a prefix as well, as in 0.13.

Patterns are walked, never turned into regular expressions: a look-up takes time in the length of the path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import msgspec

from .paths import MISSING, Path
from .plugins.port import ComponentFailed, Plugin

#: What a pattern without placeholders calls the rest of the path.
_REST = "component"
#: Flows name as many components as they like.
_MOST_KNOWN = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """A value that has to be at a place in the step's input."""

    path: Path
    value: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteRule:
    """Where the components of a pattern are to be found, and which of them."""

    plugin: str
    conditions: Sequence[Condition] = ()
    #: Components as the plugin knows them; None admits all.
    component_allow: Sequence[str] | None = None
    component_deny: Sequence[str] | None = None
    #: How the plugin knows the component, with `{name}` for what the pattern has found; None: `/{component}`.
    component: str | None = None

    def admits(self, component: str) -> bool:
        """Whether the lists let a component pass."""
        if self.component_deny is not None and _is_listed(component, self.component_deny):
            return False
        return self.component_allow is None or _is_listed(component, self.component_allow)


@dataclass(frozen=True, slots=True)
class Route:
    """Where a component was found."""

    plugin_name: str
    plugin: Plugin
    component: str


@dataclass(frozen=True, slots=True)
class _Segment:
    """A part of a pattern: a literal, or a placeholder for one segment or for the rest."""

    text: str
    is_placeholder: bool = False
    is_rest: bool = False


def read_pattern(pattern: str) -> tuple[_Segment, ...]:
    """The segments of a pattern.

    Raises:
        ValueError: it is none.
    """
    if not pattern.startswith("/"):
        raise ValueError(f"a route starts with '/': write '/{pattern}'")
    if pattern == "/":
        return ()
    segments = [_read_segment(part, pattern) for part in pattern[1:].split("/")]
    if any(segment.is_rest for segment in segments[:-1]):
        raise ValueError("`{*name}` stands for the rest of the path, so it is the last segment")
    names = [segment.text for segment in segments if segment.is_placeholder]
    if len(set(names)) != len(names):
        raise ValueError("each placeholder has a name of its own")
    return tuple(segments)


def _read_segment(part: str, pattern: str) -> _Segment:
    if "{" not in part and "}" not in part:
        if not part:
            raise ValueError("a route has no empty segments, and no '/' at its end")
        return _Segment(part)
    name = part[1:-1].removeprefix("*")
    if not (part.startswith("{") and part.endswith("}") and name.isidentifier()):
        raise ValueError(
            f"the segment {part!r} of {pattern!r} is neither a text nor a placeholder `{{name}}` or `{{*name}}`"
        )
    return _Segment(name, is_placeholder=True, is_rest=part[1] == "*")


class _Node:
    """A place in the tree of patterns."""

    __slots__ = ("any", "end", "literals", "rest")

    def __init__(self) -> None:
        self.literals: dict[str, _Node] = {}
        self.any: _Node | None = None
        #: The entry of the pattern that ends here, and that of the one that takes the rest.
        self.end: _Entry | None = None
        self.rest: _Entry | None = None


@dataclass(frozen=True, slots=True)
class _Entry:
    pattern: str
    #: Names of the placeholders, in the order of the path.
    names: tuple[str, ...]
    rules: tuple[_Rule, ...]
    #: A prefix gives way to a pattern that says what it takes.
    is_prefix: bool = False


@dataclass(frozen=True, slots=True)
class _Rule:
    rule: RouteRule
    #: What the values of the conditions are equal to.
    wanted: tuple[bytes, ...]


class Router:
    """The routes of a config.

    `plugin` gives the plugin of a name; it is asked when a route leads there.
    """

    def __init__(
        self,
        routes: Mapping[str, Sequence[RouteRule]],
        plugin_names: Sequence[str],
        plugin: Callable[[str], Plugin],
    ) -> None:
        """Read the routes.

        Raises:
            ValueError: a pattern is none, or stands there twice, or a rule names a plugin that there is not.
        """
        self._plugin = plugin
        self._patterns = tuple(routes)
        self._root = _Node()
        #: Where components were found whose routes do not look at the input.
        self._known: dict[str, Route] = {}
        self._rules: list[tuple[str, tuple[_Segment, ...], RouteRule]] = []
        for pattern, rules in routes.items():
            segments = read_pattern(pattern)
            for rule in rules:
                if rule.plugin not in plugin_names:
                    raise ValueError(unknown_plugin(pattern, rule.plugin, plugin_names))
                self._rules.append((pattern, segments, rule))
            self._insert(pattern, segments, tuple(rules))

    def resolve(self, component: str, input: Any) -> Route:  # noqa: A002  (the field's name)
        """The plugin, and the component as it knows it.

        Raises:
            ComponentFailed: no route leads anywhere, or a condition asks for what the input does not have.
        """
        known = self._known.get(component)
        if known is not None:
            return known
        found = self._find(component)
        if found is None:
            raise self._unroutable(component, f"no route fits {component!r}")
        entry, values = found
        depends = False
        for each in entry.rules:
            rule = each.rule
            if rule.conditions:
                depends = True
                if not self._holds(each, component, input):
                    continue
            inner = _inner(rule, entry, values)
            if inner is None:
                raise self._unroutable(
                    component, f"route {entry.pattern!r} does not say which component it is: give it `component`"
                )
            if rule.admits(inner):
                route = Route(rule.plugin, self._plugin(rule.plugin), inner)
                if not depends and len(self._known) < _MOST_KNOWN:
                    self._known[component] = route
                return route
        raise self._unroutable(component, f"no rule of route {entry.pattern!r} admits {component!r} with this input")

    def candidates(self, component: str) -> list[tuple[str, str]]:
        """The plugins that a component may be found in, depending on the input, and how each of them knows it."""
        found = self._find(component)
        if found is None:
            return []
        inner = [(each.rule, _inner(each.rule, *found)) for each in found[0].rules]
        return [(rule.plugin, name) for rule, name in inner if name is not None and rule.admits(name)]

    def paths_to(self, plugin_name: str, component: str) -> list[str]:
        """The paths by which flows reach a component of a plugin, with some input at least."""
        paths: list[str] = []
        for pattern, segments, rule in self._rules:
            if rule.plugin != plugin_name or not rule.admits(component):
                continue
            path = _outer(segments, rule, component)
            if path is None or path in paths:
                continue
            found = self._find(path)
            if found is not None and found[0].pattern == pattern and _inner(rule, *found) == component:
                paths.append(path)
        return paths

    def _insert(self, pattern: str, segments: tuple[_Segment, ...], rules: tuple[RouteRule, ...]) -> None:
        entry = _Entry(pattern, tuple(segment.text for segment in segments if segment.is_placeholder), _compiled(rules))
        node = self._root
        for segment in segments:
            if segment.is_rest:
                if node.rest is not None and not node.rest.is_prefix:
                    raise ValueError(f"routes {node.rest.pattern!r} and {pattern!r} are the same")
                node.rest = entry
                return
            if segment.is_placeholder:
                node.any = node.any or _Node()
                node = node.any
            else:
                node = node.literals.setdefault(segment.text, _Node())
        if node.end is not None:
            raise ValueError(f"routes {node.end.pattern!r} and {pattern!r} are the same")
        if segments:
            node.end = entry
        if _REST not in entry.names and not entry.names and node.rest is None:
            node.rest = _Entry(pattern, (_REST,), entry.rules, is_prefix=True)

    def _find(self, component: str) -> tuple[_Entry, tuple[str, ...]] | None:
        if not component.startswith("/"):
            return None
        return _walk(self._root, component, 1, ())

    def _holds(self, rule: _Rule, component: str, given: Any) -> bool:
        for condition, wanted in zip(rule.rule.conditions, rule.wanted, strict=True):
            value = condition.path.resolve(given)
            if value is MISSING:
                problem = f"a condition of its route looks at {condition.path.shown}, which the input does not have"
                raise self._unroutable(component, problem)
            if _exact(value) != wanted:
                return False
        return True

    def _unroutable(self, component: str, problem: str) -> ComponentFailed:
        hint = ""
        if problem.startswith("no route"):
            hint = f" Routes: {', '.join(self._patterns[:10])}." if self._patterns else " The config has no routes."
        return ComponentFailed(
            f"{problem}.{hint}", attachments=(f"No matching rule found for component: {component}",), is_retryable=False
        )


def unknown_plugin(pattern: str, name: str, known: Sequence[str]) -> str:
    """What is wrong with a rule that names no plugin."""
    close = get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(map(repr, known)) or 'none'}."
    return f"route {pattern!r} leads to plugin {name!r}, which there is not; {hint}"


def _walk(node: _Node, path: str, at: int, values: tuple[str, ...]) -> tuple[_Entry, tuple[str, ...]] | None:
    """The most specific entry below a node for the path from a position on. Each node is visited at most once."""
    if at <= len(path):
        end = path.find("/", at)
        if end < 0:
            end = len(path)
        segment = path[at:end]
        is_last = end == len(path)
        if segment:
            for child, found in _children(node, segment):
                more = (*values, segment) if found else values
                if is_last:
                    if child.end is not None and _is_usable_at_end(child.end):
                        return child.end, more
                elif (deeper := _walk(child, path, end + 1, more)) is not None:
                    return deeper
    if node.rest is not None and at < len(path):
        return node.rest, (*values, path[at:])
    return None


def _children(node: _Node, segment: str) -> Iterator[tuple[_Node, bool]]:
    literal = node.literals.get(segment)
    if literal is not None:
        yield literal, False
    if node.any is not None:
        yield node.any, True


def _is_usable_at_end(entry: _Entry) -> bool:
    """A prefix alone names no component, unless a rule says which one it is."""
    return bool(entry.names) or any(each.rule.component is not None for each in entry.rules)


def _inner(rule: RouteRule, entry: _Entry, values: tuple[str, ...]) -> str | None:
    """A component as its plugin knows it."""
    found = dict(zip(entry.names, values, strict=True))
    if rule.component is None:
        rest = found.get(_REST)
        return None if rest is None else f"/{rest}"
    inner = _filled(rule.component, found)
    return inner if inner.startswith("/") else f"/{inner}"


def _filled(template: str, found: Mapping[str, str]) -> str:
    """A template with its placeholders replaced, and nothing that has come in by them."""
    first, *parts = template.split("{")
    filled = [first]
    for part in parts:
        name, mark, after = part.partition("}")
        value = found.get(name.removeprefix("*")) if mark else None
        filled.append(f"{{{part}" if value is None else f"{value}{after}")
    return "".join(filled)


def _outer(segments: tuple[_Segment, ...], rule: RouteRule, component: str) -> str | None:
    """The path that leads to a component by a rule; None if it cannot be told."""
    names = [segment.text for segment in segments if segment.is_placeholder]
    value = component.removeprefix("/")
    if rule.component is not None:
        template = rule.component if rule.component.startswith("/") else f"/{rule.component}"
        template = template.replace("{*", "{")
        if "{" not in template:
            if component != template or names:
                return None
            return "/" + "/".join(segment.text for segment in segments)
        if len(names) != 1 and segments and names:
            return None
        name = names[0] if names else _REST
        before, mark, after = template.partition(f"{{{name}}}")
        if not mark or "{" in after or not (component.startswith(before) and component.endswith(after)):
            return None
        value = component[len(before) : len(component) - len(after)]
    elif names not in ([_REST], []):
        return None
    if not value:
        return None
    if not names:
        return "/" + "/".join([*(segment.text for segment in segments), value])
    return "/" + "/".join(value if segment.is_placeholder else segment.text for segment in segments)


def _is_listed(component: str, names: Sequence[str]) -> bool:
    return component in names or component.removeprefix("/") in names


def _compiled(rules: tuple[RouteRule, ...]) -> tuple[_Rule, ...]:
    return tuple(_Rule(rule, tuple(_exact(condition.value) for condition in rule.conditions)) for rule in rules)


def _exact(value: Any) -> bytes:
    """Equal for values that are equal as JSON: whatever the order of keys; 1, 1.0 and true are three."""
    return msgspec.json.encode(value, order="deterministic")
