"""The contract of the `Plugin` port of flows, run against every adapter."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pyflue.stepflow.builtin import BuiltinPlugin
from pyflue.stepflow.plugins.http import HttpPlugin, HttpSettings
from pyflue.stepflow.plugins.mcp import McpPlugin, McpSettings
from pyflue.stepflow.plugins.mcp_http import McpHttpPlugin, McpHttpSettings
from pyflue.stepflow.plugins.mock import MockPlugin
from pyflue.stepflow.plugins.port import ComponentFailed, ComponentInfo, Plugin
from pyflue.stepflow.plugins.stdio import StdioPlugin, StdioSettings
from pyflue.stepflow.plugins.subprocess import SubprocessPlugin, SubprocessSettings
from tests.promises import promise
from tests.stepflow.plugins.doubles import PYTHON, SERVERS, call_of, children, failure_of, mcp_server, web_server

KINDS = ("stdio", "http", "subprocess", "mcp", "mcp_http", "mock", "builtin")
#: Those whose components can be made to wait.
WORKING = ("stdio", "http", "subprocess", "mcp", "mcp_http")


@dataclass(frozen=True)
class Made:
    plugin: Plugin
    #: A component that answers, what it is given and what it answers to that.
    good: tuple[str, Any, Any]
    bad: tuple[str, Any]


async def made(kind: str, tmp_path: Path, stack: AsyncExitStack) -> Made:
    good: tuple[str, Any, Any] = ("/echo", {"value": "é\n"}, {"value": "é\n"})
    bad: tuple[str, Any] = ("/fail", {"why": "so"})
    script: dict[str, Any] = {"command": PYTHON, "cwd": tmp_path}
    match kind:
        case "stdio":
            plugin: Plugin = StdioPlugin("p", StdioSettings(args=[str(SERVERS / "components.py")], **script))
        case "http":
            plugin = HttpPlugin("p", HttpSettings(url=await stack.enter_async_context(web_server())))
        case "subprocess":
            plugin = SubprocessPlugin("p", SubprocessSettings(args=[str(SERVERS / "web.py")], **script))
        case "mcp":
            plugin = McpPlugin("p", McpSettings(args=[str(SERVERS / "tools.py")], **script))
            good = ("/echo", {"value": "é\n"}, [{"type": "text", "text": "é\n"}])
        case "mcp_http":
            plugin = McpHttpPlugin("p", McpHttpSettings(url=await stack.enter_async_context(mcp_server())))
            good = ("/echo", {"value": "é\n"}, [{"type": "text", "text": "é\n"}])
        case "mock":
            echo = {"behaviors": {'{"value": "é\\n"}': {"outcome": "success", "result": {"value": "é\n"}}}}
            plugin = MockPlugin("p", {"/echo": echo, "fail": {}})
        case _:
            plugin = BuiltinPlugin(tmp_path)
            good, bad = ("/noop", {"value": 1}, {"value": 1}), ("/load_file", {"path": "none.json"})
    return Made(plugin, good, bad)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
async def subject(kind: str, tmp_path: Path) -> AsyncIterator[Made]:
    async with AsyncExitStack() as stack:
        subject = await made(kind, tmp_path, stack)
        yield subject
        await subject.plugin.close()


async def test_components_are_listed_with_paths_that_start_with_a_slash(subject: Made) -> None:
    listed = await subject.plugin.components()

    assert all(isinstance(info, ComponentInfo) and info.path.startswith("/") for info in listed)
    assert {subject.good[0], subject.bad[0]} <= {info.path for info in listed}


async def test_a_component_gives_its_output(subject: Made) -> None:
    component, given, output = subject.good

    assert isinstance(subject.plugin.is_composite(component), bool)
    assert await subject.plugin.execute(call_of(component, given)) == output


async def test_a_component_that_fails_raises_what_a_flow_can_tell(subject: Made) -> None:
    error = await failure_of(subject.plugin, *subject.bad)

    assert error.message
    assert await subject.plugin.execute(call_of(*subject.good[:2])) == subject.good[2]


async def test_a_component_that_there_is_not_is_a_failure(subject: Made) -> None:
    assert (await failure_of(subject.plugin, "/no/such/thing")).message


async def test_many_calls_at_once_each_get_their_own_answer(subject: Made) -> None:
    component, given, output = subject.good

    async with asyncio.timeout(20):
        results = await asyncio.gather(*(subject.plugin.execute(call_of(component, given)) for _ in range(50)))

    assert results == [output] * 50


async def test_it_can_be_closed_without_a_start_and_twice(subject: Made) -> None:
    await subject.plugin.close()
    await subject.plugin.close()


@promise("stepflow.faults")
async def test_nothing_is_left_of_it_when_it_is_closed(subject: Made) -> None:
    before = children()
    await subject.plugin.execute(call_of(*subject.good[:2]))

    await subject.plugin.close()

    assert children() <= before


@pytest.mark.parametrize("kind", WORKING)
async def test_a_call_that_is_given_up_keeps_no_other_from_its_answer(subject: Made, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    waiting = [asyncio.create_task(subject.plugin.execute(call_of("/wait", {"until": str(mark)}))) for _ in range(2)]
    assert await subject.plugin.execute(call_of(*subject.good[:2])) == subject.good[2]

    waiting[0].cancel()
    await asyncio.wait(waiting[:1])
    mark.touch()

    async with asyncio.timeout(10):
        assert "waited" in str(await waiting[1])
    assert await subject.plugin.execute(call_of(*subject.good[:2])) == subject.good[2]


@pytest.mark.parametrize("kind", ["stdio", "subprocess", "mcp", "mcp_http"])
async def test_calls_under_way_fail_when_it_is_closed(subject: Made, tmp_path: Path) -> None:
    await subject.plugin.components()
    call = asyncio.create_task(subject.plugin.execute(call_of("/wait", {"until": str(tmp_path / "never")})))
    await subject.plugin.execute(call_of(*subject.good[:2]))

    await subject.plugin.close()

    with pytest.raises(ComponentFailed):
        await call
    with pytest.raises(ComponentFailed):
        await subject.plugin.execute(call_of(*subject.good[:2]))
