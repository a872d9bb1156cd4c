"""Which plugin a component is found in, and by which paths a plugin's component is reached."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyflue.stepflow.config import ConfigInvalid, read_config_value
from pyflue.stepflow.plugins.mock import MockPlugin
from pyflue.stepflow.plugins.port import ComponentFailed
from pyflue.stepflow.routing import Router

PLUGINS = {name: MockPlugin(name, {}) for name in ("a", "b", "c")}
HERE = Path(__file__).parent


def router(routes: dict[str, Any]) -> Router:
    plugins = {name: {"type": "mock"} for name in PLUGINS}
    return Router(
        read_config_value({"plugins": plugins, "routes": routes}, HERE).routes, list(PLUGINS), PLUGINS.__getitem__
    )


def found(routes: dict[str, Any], component: str, given_input: Any = None) -> tuple[str, str]:
    route = router(routes).resolve(component, given_input)
    assert route.plugin is PLUGINS[route.plugin_name]
    return route.plugin_name, route.component


def to(plugin: str, **more: Any) -> list[dict[str, Any]]:
    return [{"plugin": plugin, **more}]


@pytest.mark.parametrize(
    ("routes", "component", "expected"),
    [
        ({"/python/{*component}": to("a")}, "/python/x", ("a", "/x")),
        ({"/python/{*component}": to("a")}, "/python/x/y/z", ("a", "/x/y/z")),
        ({"/python/{component}": to("a")}, "/python/x", ("a", "/x")),
        # The most specific wins, wherever it stands.
        ({"/{*component}": to("b"), "/python/{*component}": to("a")}, "/python/x", ("a", "/x")),
        ({"/python/{*component}": to("a"), "/{*component}": to("b")}, "/other/x", ("b", "/other/x")),
        ({"/p/{*component}": to("a"), "/p/{component}": to("b")}, "/p/x", ("b", "/x")),
        ({"/p/{*component}": to("a"), "/p/{component}": to("b")}, "/p/x/y", ("a", "/x/y")),
        ({"/{name}/x/{*component}": to("a"), "/p/{*component}": to("b")}, "/p/x/y", ("b", "/x/y")),
        ({"/{name}/x/{component}": to("a"), "/p/y/{component}": to("b")}, "/p/x/z", ("a", "/z")),
        # Names of the component for the plugin.
        ({"/m/{*component}": to("a", component="/models/{component}")}, "/m/x/y", ("a", "/models/x/y")),
        ({"/m/{kind}/{name}": to("a", component="{name}-{kind}")}, "/m/x/y", ("a", "/y-x")),
        ({"/m/{*rest}": to("a", component="/{*rest}")}, "/m/x", ("a", "/x")),
        ({"/alias": to("a", component="/real")}, "/alias", ("a", "/real")),
        ({"/m/{*component}": to("a", component="/{component}{other}")}, "/m/{other}", ("a", "/{other}{other}")),
        # Prefixes of later releases.
        ({"/python": to("a")}, "/python/x/y", ("a", "/x/y")),
        ({"/": to("a")}, "/x/y", ("a", "/x/y")),
        ({"/": to("a"), "/python": to("b")}, "/python/x", ("b", "/x")),
        ({"/python": to("a"), "/python/{*component}": to("b")}, "/python/x", ("b", "/x")),
        ({"/python/{*component}": to("b"), "/python": to("a")}, "/python/x", ("b", "/x")),
    ],
)
def test_a_component_is_found_by_the_most_specific_route(
    routes: dict[str, Any], component: str, expected: tuple[str, str]
) -> None:
    assert found(routes, component) == expected


CONDITIONAL = {
    "/p/{*component}": [
        {"plugin": "a", "conditions": [{"path": "$.model", "value": {"n": 1, "of": [True]}}]},
        {"plugin": "b", "conditions": [{"path": "model", "value": 1}]},
        {"plugin": "c", "componentDeny": ["/x", "y"], "componentAllow": ["x", "y", "/z"]},
    ]
}


@pytest.mark.parametrize(
    ("component", "given_input", "plugin"),
    [
        ("/p/x", {"model": {"of": [True], "n": 1}}, "a"),
        ("/p/x", {"model": 1}, "b"),
        ("/p/z", {"model": 1.0}, "c"),
        ("/p/z", {"model": True}, "c"),
    ],
)
def test_the_first_rule_counts_whose_conditions_hold(component: str, given_input: Any, plugin: str) -> None:
    assert found(CONDITIONAL, component, given_input)[0] == plugin


@pytest.mark.parametrize(
    ("routes", "component", "given_input", "problem"),
    [
        ({}, "/x", None, "no route fits '/x'. The config has no routes."),
        ({"/p/{*component}": to("a")}, "/q/x", None, "no route fits '/q/x'. Routes: /p/{*component}."),
        ({"/p/{*component}": to("a")}, "/p/", None, "no route fits"),
        ({"/p/{*component}": to("a")}, "/p", None, "no route fits"),
        ({"/p/{component}": to("a")}, "/p/x/y", None, "no route fits"),
        ({"/p": to("a")}, "/p", None, "no route fits"),
        ({"/": to("a")}, "/", None, "no route fits"),
        ({"/{*component}": to("a")}, "x", None, "no route fits"),
        ({"/{*component}": to("a")}, "", None, "no route fits"),
        ({"/p/{*rest}": to("a")}, "/p/x", None, "does not say which component it is: give it `component`"),
        (CONDITIONAL, "/p/x", {"model": 2}, "no rule of route '/p/{*component}' admits '/p/x' with this input"),
        (CONDITIONAL, "/p/q", {"model": 2}, "no rule of route"),
        (CONDITIONAL, "/p/x", {"other": 2}, "a condition of its route looks at $.model, which the input does not have"),
        ({"/p/{*component}": to("a", componentAllow=[])}, "/p/x", None, "no rule of route"),
        ({"/p/{*component}": []}, "/p/x", None, "no rule of route"),
    ],
)
def test_what_leads_nowhere_is_a_failure_that_says_why(
    routes: dict[str, Any], component: str, given_input: Any, problem: str
) -> None:
    with pytest.raises(ComponentFailed) as failed:
        router(routes).resolve(component, given_input)

    assert problem in failed.value.message
    assert not failed.value.is_retryable
    assert failed.value.attachments == (f"No matching rule found for component: {component}",)


def test_a_rule_to_a_plugin_that_there_is_not_is_an_error_at_the_start() -> None:
    with pytest.raises(ConfigInvalid, match="leads to plugin 'bb', which there is not; did you mean 'b'"):
        router({"/{*component}": to("bb")})
    routes = read_config_value({"plugins": {"x": {"type": "mock"}}, "routes": {"/": to("x")}}, HERE).routes
    with pytest.raises(ValueError, match="leads to plugin 'x'"):
        Router(routes, list(PLUGINS), PLUGINS.__getitem__)


@pytest.mark.parametrize(
    ("routes", "component", "paths"),
    [
        ({"/p/{*component}": to("a")}, "/x/y", ["/p/x/y"]),
        ({"/p/{component}": to("a")}, "/x", ["/p/x"]),
        ({"/p/{component}": to("a")}, "/x/y", []),
        ({"/p": to("a"), "/q": to("a")}, "/x", ["/p/x", "/q/x"]),
        ({"/": to("a")}, "/x", ["/x"]),
        ({"/p/{*component}": to("b")}, "/x", []),
        ({"/{*component}": to("a"), "/x/{component}": to("b")}, "/x/y", []),
        ({"/{*component}": to("a", componentDeny=["/x"])}, "/x", []),
        ({"/m/{*component}": to("a", component="/models/{component}")}, "/models/x", ["/m/x"]),
        ({"/m/{*component}": to("a", component="/models/{component}")}, "/x", []),
        ({"/m/{*name}": to("a", component="/{*name}/v1")}, "/x/v1", ["/m/x"]),
        ({"/alias": to("a", component="/real")}, "/real", ["/alias"]),
        ({"/alias": to("a", component="/real")}, "/other", []),
        ({"/{kind}/{component}": to("a")}, "/x", []),
        ({"/{kind}/{component}": to("a", component="/{kind}/{component}")}, "/x/y", []),
        ({"/p": [*to("b", conditions=[{"path": "a", "value": 1}]), *to("a")]}, "/x", ["/p/x"]),
    ],
)
def test_a_plugins_component_is_listed_by_the_paths_that_lead_to_it(
    routes: dict[str, Any], component: str, paths: list[str]
) -> None:
    assert router(routes).paths_to("a", component) == paths


segments = st.sampled_from(["x", "y", "{p}", "{q}"])
patterns = st.lists(segments, min_size=1, max_size=4, unique=True).map(lambda parts: "/" + "/".join(parts))


@given(st.sets(patterns, max_size=6), st.lists(st.sampled_from(["x", "y", "z"]), min_size=1, max_size=5))
def test_a_route_is_found_exactly_when_one_fits(chosen: set[str], parts: list[str]) -> None:
    routes = {pattern: to("a", component=f"/{number}") for number, pattern in enumerate(sorted(chosen))}
    shapes = ["/".join("{" if part[:1] == "{" else part for part in pattern.split("/")) for pattern in chosen]
    if len(set(shapes)) < len(shapes):
        with pytest.raises(ConfigInvalid, match="are the same"):
            router(routes)
        return
    made = router(routes)

    def fits(pattern: str) -> bool:
        wanted = pattern[1:].split("/")
        exact = len(wanted) == len(parts)
        is_prefix = "{" not in pattern and len(wanted) < len(parts)
        return (exact or is_prefix) and all(a[0] == "{" or a == b for a, b in zip(wanted, parts, strict=False))

    try:
        number = int(made.resolve("/" + "/".join(parts), None).component[1:])
    except ComponentFailed:
        assert not any(map(fits, chosen))
    else:
        assert fits(sorted(chosen)[number])


def test_a_long_path_of_somebody_who_means_harm_takes_no_time() -> None:
    routes = {f"/{'/'.join(f'{{p{n}}}' for n in range(depth))}/end": to("a", component="/x") for depth in range(1, 40)}
    made = router(routes)
    started = time.perf_counter()

    for component in ("/" + "a/" * 200_000, "/" + "a" * 1_000_000, "/" * 500_000, "/" + "{" * 100_000):
        with pytest.raises(ComponentFailed):
            made.resolve(component, None)

    assert time.perf_counter() - started < 1
