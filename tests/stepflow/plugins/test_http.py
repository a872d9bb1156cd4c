"""Component servers over HTTP, of somebody else and of our own; and every way in which they can go wrong."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from pyflue.stepflow.jsonrpc import RpcLimits
from pyflue.stepflow.plugins.http import HttpPlugin, HttpSettings
from pyflue.stepflow.plugins.port import BlobType, ComponentInfo, ComponentSkipped
from pyflue.stepflow.plugins.subprocess import SubprocessPlugin, SubprocessSettings
from tests.stepflow.plugins.doubles import PYTHON, SERVERS, Services, call_of, children, failure_of, web_server

LIMITS = RpcLimits(message_bytes=1024 * 1024)


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with web_server() as url:
        yield url


@pytest.fixture
async def plugin(url: str) -> AsyncIterator[HttpPlugin]:
    plugin = HttpPlugin("web", HttpSettings(url=url, limits=LIMITS))
    yield plugin
    await plugin.close()


def subprocess(tmp_path: Path, *args: str, **settings: Any) -> SubprocessPlugin:
    return SubprocessPlugin(
        "web",
        SubprocessSettings(
            **{"command": PYTHON, "args": [str(SERVERS / "web.py"), *args], "cwd": tmp_path, **settings}
        ),
    )


async def test_components_are_described_as_the_server_describes_them(plugin: HttpPlugin) -> None:
    assert await plugin.components() == [
        ComponentInfo(
            path="/echo",
            description="Gives back what it gets.",
            input_schema={"type": "object"},
            output_schema={"type": "object"},
        ),
        ComponentInfo(path="/fail"),
    ]


async def test_a_component_keeps_and_gets_blobs_of_its_run(plugin: HttpPlugin) -> None:
    services = Services()

    output = await plugin.execute(call_of("/blob", {"a": 1}, services=services))

    blob_id = next(iter(services.blobs))
    assert output == {"blob_id": blob_id, "data": {"a": 1}, "blob_type": "data"}
    assert services.blobs == {blob_id: ({"a": 1}, BlobType.DATA)}


async def test_what_a_stream_asks_for_belongs_to_its_call(plugin: HttpPlugin) -> None:
    services = [Services() for _ in range(5)]

    await asyncio.gather(
        *(plugin.execute(call_of("/blob", index, services=each)) for index, each in enumerate(services))
    )

    assert [[data for data, _ in each.blobs.values()] for each in services] == [[index] for index in range(5)]


async def test_what_cannot_be_answered_is_an_error_in_the_stream(plugin: HttpPlugin) -> None:
    output = await plugin.execute(call_of("/ask", {"method": "blobs/get", "params": {"blob_id": "short"}}))

    assert output == {"error": {"code": -32012, "message": "It is no id."}}


async def test_a_component_may_say_that_there_is_nothing_to_do(plugin: HttpPlugin) -> None:
    with pytest.raises(ComponentSkipped, match="not today"):
        await plugin.execute(call_of("/skip", "not today"))


@pytest.mark.parametrize(
    ("component", "given", "message", "is_retryable"),
    [
        ("/fail", "oh", "Component execution failed: oh", True),
        ("/status", 500, "Plugin 'web' cannot be used: it answered with HTTP status 500.", True),
        ("/status", 404, "Plugin 'web' cannot be used: it answered with HTTP status 404.", False),
        ("/status_error", None, "no good", False),
        (
            "/redirect",
            "http://127.0.0.1:1/",
            "Plugin 'web' cannot be used: it redirects (HTTP status 307), which is not followed.",
            True,
        ),
        (
            "/text",
            None,
            "Plugin 'web' cannot be used: it did not answer with JSON or a stream of events (HTTP 200).",
            True,
        ),
        ("/not_json", None, "Plugin 'web' cannot be used: it answered with what is no JSON-RPC message.", True),
        ("/other_id", None, "Plugin 'web' cannot be used: it answered request 2 with an answer to 'other'.", True),
        ("/flood", None, "Plugin 'web' cannot be used: its answer is larger than 1,048,576 bytes.", True),
        ("/stream_ends", None, "Plugin 'web' did not answer: its stream of events ended without an answer.", True),
        ("/stream_flood", None, "Plugin 'web' cannot be used: it sent an event of more than 1,048,576 bytes.", True),
        ("/stream_garbage", None, "Plugin 'web' cannot be used: it answered with what is no JSON-RPC message.", True),
    ],
)
async def test_a_server_that_goes_wrong_is_a_failure_and_the_next_call_goes_on(
    plugin: HttpPlugin, component: str, given: Any, message: str, is_retryable: bool
) -> None:
    async with asyncio.timeout(20):
        error = await failure_of(plugin, component, given)

        assert (error.message, error.is_retryable) == (message, is_retryable)
        assert await plugin.execute(call_of("/echo", "on")) == "on"


@pytest.mark.parametrize("component", ["/break_off", "/no_answer"])
async def test_a_server_that_breaks_off_is_a_failure(plugin: HttpPlugin, component: str) -> None:
    error = await failure_of(plugin, component)

    assert error.message.startswith("Plugin 'web' did not answer: ")
    assert error.attachments[1].startswith("component server error(-32603): ")
    assert await plugin.execute(call_of("/echo", "on")) == "on"


async def test_a_server_that_is_not_there_is_a_failure_and_is_found_when_it_comes(unused_tcp_port: int) -> None:
    plugin = HttpPlugin(
        "web", HttpSettings(url=f"http://127.0.0.1:{unused_tcp_port}/?key=planted", secrets=["planted"])
    )

    error = await failure_of(plugin, "/echo")
    await plugin.close()

    assert error.message.startswith("Plugin 'web' did not answer: it cannot be reached")
    assert error.is_retryable
    assert "planted" not in error.message


async def test_a_component_that_hangs_fails_in_time(url: str) -> None:
    plugin = HttpPlugin("web", HttpSettings(url=url, execute_timeout_s=0.3))

    error = await failure_of(plugin, "/hang", "")

    assert error.message == "Plugin 'web' did not answer: it did not answer `components/execute` within 0.3 s."
    assert await plugin.execute(call_of("/echo", 1)) == 1
    await plugin.close()


# Servers that are started here


async def test_what_a_crash_interrupts_is_sent_once_more_as_the_second_attempt(tmp_path: Path) -> None:
    plugin = subprocess(tmp_path)

    assert await plugin.execute(call_of("/crash_once")) == 2
    error = await failure_of(plugin, "/crash", str(tmp_path / "attempts"))
    await plugin.close()

    assert (tmp_path / "attempts").read_text().split() == ["1", "2"]
    assert error.message.startswith("Plugin 'web' did not answer: its process ended with exit code 3.")


async def test_a_killed_server_is_started_again(tmp_path: Path) -> None:
    plugin = subprocess(tmp_path)
    pid = await plugin.execute(call_of("/pid"))

    os.kill(pid, signal.SIGKILL)

    assert await plugin.execute(call_of("/pid")) != pid
    await plugin.close()
    assert not children()


@pytest.mark.parametrize(
    ("mode", "problem"),
    [
        ("dies", 'its process ended with exit code 7 before it printed {"port": N}. It said last:\nno such module'),
        ("mute", 'it did not print {"port": N} within 0.5 s.'),
    ],
)
async def test_a_server_that_does_not_say_where_it_listens_cannot_be_used(
    tmp_path: Path, mode: str, problem: str
) -> None:
    plugin = subprocess(tmp_path, mode, start_timeout_s=0.5, grace_s=0.1)

    error = await failure_of(plugin, "/echo")
    await plugin.close()

    assert error.message == f"Plugin 'web' cannot be started: {problem}"
    assert not children()
