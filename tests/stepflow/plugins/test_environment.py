"""The plugins of a config together, and mocks."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from pyflue.stepflow.builtin import BuiltinPlugin
from pyflue.stepflow.config import ConfigInvalid, default_config, read_config, read_config_value
from pyflue.stepflow.environments import Environments
from pyflue.stepflow.outcome import Failed
from pyflue.stepflow.plugins.environment import Environment, Found
from pyflue.stepflow.plugins.mock import MockPlugin
from pyflue.stepflow.plugins.port import ComponentFailed, ComponentInfo, ComponentSkipped
from tests.stepflow.plugins.doubles import PYTHON, SERVERS, call_of, children, failure_of, web_server

FACTORIES: Mapping[str, Callable[[Any], Any]] = {"builtin": lambda entry: BuiltinPlugin(entry.folder)}


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack
    assert not children()


def environment(stack: AsyncExitStack, value: Any, folder: Path, **options: Any) -> Environment:
    made = Environment(read_config_value(value, folder), factories=FACTORIES, **options)
    stack.push_async_callback(made.close)
    return made


async def ask(made: Environment, component: str, given: Any = None) -> Any:
    route = made.router.resolve(component, given)
    return await route.plugin.execute(call_of(route.component, given))


async def test_every_kind_of_plugin_is_made_from_the_config(stack: AsyncExitStack, tmp_path: Path) -> None:
    url = await stack.enter_async_context(web_server())
    value = {
        "plugins": {
            "stdio": {
                "type": "stepflow",
                "transport": "stdio",
                "command": PYTHON,
                "args": ["${SERVERS}/components.py"],
                "env": {"KEY": "${KEY}"},
            },
            "http": {"type": "stepflow", "transport": "http", "url": "${URL}"},
            "subprocess": {"type": "stepflow", "command": PYTHON, "args": ["${SERVERS}/web.py"], "startTimeoutSecs": 9},
            "mcp": {"type": "mcp", "command": PYTHON, "args": ["${SERVERS}/tools.py"], "env": {"KEY": "${KEY}"}},
            "mock": {"type": "mock", "components": {"/m": {"behaviors": {"x": {"outcome": "success", "result": 1}}}}},
            "builtin": {"type": "builtin"},
        },
        "routes": {
            **{f"/{name}": [{"plugin": name}] for name in ("stdio", "http", "subprocess", "mcp", "mock")},
            "/{*component}": [{"plugin": "builtin"}],
        },
    }
    os.environ["STEPFLOW_INHERITED"] = "inherited"
    environ = {"SERVERS": str(SERVERS), "URL": url, "KEY": "planted"}
    made = environment(stack, value, tmp_path, environ=environ)

    try:
        found = await made.components()
        outputs = [
            await ask(made, "/stdio/env"),
            await ask(made, "/http/echo", 1),
            await ask(made, "/subprocess/cwd"),
            await ask(made, "/mcp/variable", {"name": "KEY"}),
            await ask(made, "/mcp/variable", {"name": "STEPFLOW_INHERITED"}),
            await ask(made, "/mock/m", "x"),
            await ask(made, "/noop", 2),
        ]
    finally:
        del os.environ["STEPFLOW_INHERITED"]

    outputs[0].pop("LC_CTYPE", None)
    texts = [[{"type": "text", "text": text}] for text in ("planted", "inherited")]
    assert outputs == [{"KEY": "planted"}, 1, str(tmp_path), *texts, 1, 2]
    paths = [info.path for info in found.components]
    assert paths == sorted(paths)
    assert {"/stdio/echo", "/http/echo", "/subprocess/fail", "/mcp/echo", "/mock/m", "/noop"} <= set(paths)
    assert found.failures == {}


async def test_a_plugin_that_cannot_be_used_hides_no_other(stack: AsyncExitStack, tmp_path: Path) -> None:
    value = {
        "plugins": {
            "missing": {"type": "stepflow", "transport": "stdio", "command": "no-such-program"},
            "unset": {"type": "stepflow", "transport": "stdio", "command": "x", "env": {"A": "${NOT_SET}"}},
            "address": {"type": "stepflow", "transport": "http", "url": "${ADDRESS}"},
            "odd": {"type": "mock", "components": {"/m": {"behaviors": {"x": {"outcome": "maybe"}}}}},
            "mock": {"type": "mock", "components": {"/m": {}}},
        },
        "routes": {f"/{name}": [{"plugin": name}] for name in ("missing", "unset", "address", "odd", "mock")},
    }
    made = environment(stack, value, tmp_path, environ={"ADDRESS": "file:///etc/passwd"})

    found = await made.components()

    assert found.components == (ComponentInfo(path="/mock/m"),)
    assert sorted(found.failures) == ["address", "missing", "odd", "unset"]
    assert "there is no program 'no-such-program'" in found.failures["missing"]
    assert "needs the environment variable NOT_SET" in found.failures["unset"]
    assert "starts with http:// or https://" in found.failures["address"]
    assert "mock 'odd', components./m.behaviors.x" in found.failures["odd"]
    for name, problem in found.failures.items():
        with pytest.raises(ComponentFailed) as failed:
            await ask(made, f"/{name}/m")
        assert failed.value.message == problem


async def test_what_no_route_leads_to_is_listed_if_that_is_wanted(stack: AsyncExitStack, tmp_path: Path) -> None:
    value = {
        "plugins": {"mock": {"type": "mock", "components": {"/m": {}, "/n": {}}}},
        "routes": {"/{component}": [{"plugin": "mock", "componentAllow": ["m"]}]},
    }
    made = environment(stack, value, tmp_path)

    assert await made.components() == Found(components=(ComponentInfo(path="/m"),))
    assert await made.components(include_unreachable=True) == Found(
        components=(ComponentInfo(path="/m"), ComponentInfo(path="/n"))
    )


async def test_plugins_may_be_given_ready_made(stack: AsyncExitStack, tmp_path: Path) -> None:
    ready = MockPlugin("ready", {"/m": {"behaviors": {"x": {"outcome": "success", "result": 1}}}})
    value = {"plugins": {"ready": {"type": "something else"}}, "routes": {"/": [{"plugin": "ready"}]}}
    made = environment(stack, value, tmp_path, plugins={"ready": ready})

    assert await ask(made, "/m", "x") == 1
    assert made.plugin("ready") is ready


def test_a_type_that_there_is_not_is_an_error_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "c.yml").write_text("plugins:\n  a: {type: buildin}\n")

    with pytest.raises(ConfigInvalid) as refused:
        Environment(read_config(tmp_path / "c.yml"), factories=FACTORIES)

    assert str(refused.value) == (
        f"{tmp_path / 'c.yml'}:2:13: plugin 'a' is of type 'buildin', which there is not; did you mean 'builtin'?"
    )


async def test_without_a_config_there_are_the_builtin_components(stack: AsyncExitStack, tmp_path: Path) -> None:
    made = Environment(default_config(tmp_path), factories=FACTORIES)
    stack.push_async_callback(made.close)

    assert "/put_blob" in {info.path for info in (await made.components()).components}


_SCRIPT = """\
from pyflue.stepflow import StepflowStdioServer

server = StepflowStdioServer()
server.component(lambda given: given, name="{name}")
server.run()
"""


async def test_a_script_that_was_changed_is_started_anew_for_those_who_come_next(tmp_path: Path) -> None:
    def write(name: str, changed_at_ns: int) -> None:
        path = tmp_path / "components.py"
        path.write_text(_SCRIPT.format(name=name))
        os.utime(path, ns=(changed_at_ns, changed_at_ns))

    async def listed(environment: Environment) -> list[str]:
        return [component.path for component in (await environment.components()).components if component.path != "/udf"]

    plugin = {"type": "stepflow", "transport": "stdio", "command": sys.executable, "args": ["components.py", "data.db"]}
    value = {"plugins": {"mine": plugin}, "routes": {"/": [{"plugin": "mine"}]}}
    (tmp_path / "stepflow-config.yml").write_text(json.dumps(value))
    environments = Environments()
    try:
        write("one", 1)
        async with environments.use(tmp_path, None) as first:
            assert await listed(first) == ["/one"]
            write("two", 2)
            async with environments.use(tmp_path, None) as second:
                assert await listed(second) == ["/two"]
            assert await listed(first) == ["/one"]  # who uses the older one keeps it
        (tmp_path / "data.db").touch()  # what a program works on is no script
        async with environments.use(tmp_path, None) as third:
            assert third is second
    finally:
        await environments.close()


async def test_closing_ends_all_at_once_and_nothing_is_used_afterwards(stack: AsyncExitStack, tmp_path: Path) -> None:
    server = {
        "type": "stepflow",
        "transport": "stdio",
        "command": PYTHON,
        "args": [str(SERVERS / "components.py"), "ignores-everything"],
    }
    names = [f"p{number}" for number in range(5)]
    value = {
        "plugins": {**dict.fromkeys(names, server), "late": server},
        "routes": {f"/{name}": [{"plugin": name}] for name in (*names, "late")},
    }
    made = environment(stack, value, tmp_path)
    await asyncio.gather(*(ask(made, f"/{name}/echo") for name in names))

    async with asyncio.timeout(4):
        await made.close()

    assert not children()
    for name in ("p0", "late"):
        with pytest.raises(ComponentFailed, match="is closed"):
            await ask(made, f"/{name}/echo")


# Mocks

MOCKS = """
plugins:
  mock:
    type: mock
    components:
      /one:
        input_schema: {type: object}
        output_schema: {type: string}
        behaviors:
          { a: 1, b: [x] }: {outcome: success, result: {c: d}}
          { a: null }: {outcome: failed, error: {code: 8, message: error, data: {x: 1}}}
          text: {error: it broke}
          1: {outcome: success, result: one}
          true: {outcome: skipped, reason: not now}
          [1, 2]: {outcome: success, result: null}
routes: {/mock/{component}: [{plugin: mock}]}
"""


@pytest.fixture
async def mocks(stack: AsyncExitStack, tmp_path: Path) -> Environment:
    (tmp_path / "c.yml").write_text(MOCKS.replace("/mock/{component}", '"/mock/{component}"'))
    made = Environment(read_config(tmp_path / "c.yml"))
    stack.push_async_callback(made.close)
    return made


async def test_a_mock_answers_to_exactly_the_inputs_that_are_listed(mocks: Environment) -> None:
    assert await ask(mocks, "/mock/one", {"b": ["x"], "a": 1}) == {"c": "d"}
    assert await ask(mocks, "/mock/one", 1) == "one"
    assert await ask(mocks, "/mock/one", [1, 2]) is None
    with pytest.raises(ComponentSkipped, match="not now"):
        await ask(mocks, "/mock/one", True)
    assert (await mocks.components()).components == (
        ComponentInfo(path="/mock/one", input_schema={"type": "object"}, output_schema={"type": "string"}),
    )


@pytest.mark.parametrize("given", [{"a": 1}, {"a": 1.0, "b": ["x"]}, {"a": 1, "b": ["x"], "c": 2}, 1.0, "1", None])
async def test_a_mock_without_an_answer_says_to_what(mocks: Environment, given: Any) -> None:
    error = await failure_of(mocks.plugin("mock"), "/one", given)

    assert error.message.startswith("No behavior defined for /one on ")
    assert error.attachments == ("error executing user-defined function", error.message)


async def test_a_mock_fails_as_it_is_told(mocks: Environment) -> None:
    of_the_flow = await failure_of(mocks.plugin("mock"), "/one", {"a": None})
    of_the_system = await failure_of(mocks.plugin("mock"), "/one", "text")
    unknown = await failure_of(mocks.plugin("mock"), "/two")

    assert of_the_flow.failure == Failed(8, "error", {"x": 1})
    assert (of_the_system.failure, of_the_system.message) == (None, "it broke")
    assert unknown.message == "Mock 'mock' has no component '/two'."


@pytest.mark.parametrize(
    ("components", "problem"),
    [
        ({"/m": 3}, "components./m: this is a mapping."),
        ({"/m": {"behaviors": [1]}}, "components./m.behaviors: `behaviors` is a mapping"),
        ({"/m": {"behaviors": {"x": 3}}}, "components./m.behaviors.x: this is a mapping."),
        ({"/m": {"behaviors": {"x": {}}}}, "It is no outcome"),
    ],
)
async def test_a_mock_that_makes_no_sense_says_where(
    stack: AsyncExitStack, tmp_path: Path, components: Any, problem: str
) -> None:
    value = {"plugins": {"m": {"type": "mock", "components": components}}, "routes": {}}
    made = environment(stack, value, tmp_path)

    assert problem in (await made.components()).failures["m"]
