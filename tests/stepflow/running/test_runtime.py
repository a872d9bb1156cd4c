"""The life of a `StepflowRuntime`: how it starts, what it knows, how it stops."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from pyflue.stepflow import RestartPolicy, StepflowRuntime, StepflowServer
from pyflue.stepflow.config import ConfigInvalid

server = StepflowServer(include_builtins=False)
ECHO = {"name": "echo", "steps": [{"id": "a", "component": "/mine/echo", "input": {"$input": None}}]}
ECHO["output"] = {"$step": "a"}  # pyright: ignore[reportArgumentType]


@server.component
async def echo(value: Any) -> Any:
    return value


def started(**options: Any) -> StepflowRuntime:
    return StepflowRuntime.start(servers={"mine": server}, **options)


def test_a_program_that_is_not_async_uses_it_from_one_loop_after_another() -> None:
    with started() as runtime:
        first = asyncio.run(runtime.run(ECHO, {"n": 1}))
        second = asyncio.run(runtime.run(ECHO, {"n": 2}))
        assert (runtime.is_alive, runtime.crashed, runtime.url, runtime.port) == (True, False, "embedded:", None)

    assert (first.output, second.output) == ({"n": 1}, {"n": 2})
    assert not runtime.is_alive
    runtime.stop()  # once more is fine
    with pytest.raises(RuntimeError, match="has stopped"):
        asyncio.run(runtime.run(ECHO, 1))


async def test_with_a_port_it_listens_and_has_a_client() -> None:
    async with await StepflowRuntime.start_async(port=0, servers={"mine": server}) as runtime:
        assert runtime.url == f"http://127.0.0.1:{runtime.port}"
        assert (await runtime.client.health_check())["status"] == "healthy"
        assert (await runtime.client.run(ECHO, {"n": 3})).output == {"n": 3}


async def test_without_a_port_it_has_no_client() -> None:
    async with started() as runtime:
        with pytest.raises(RuntimeError, match="port=0"):
            _ = runtime.client


async def test_the_log_holds_what_happened_last() -> None:
    async with started(restart_policy=RestartPolicy.ALWAYS, max_restarts=1, log_config=None) as runtime:
        for number in range(3):
            await runtime.run(ECHO, number)
        lines = [entry.message for entry in runtime.get_recent_logs()]
        last = runtime.get_recent_logs(limit=1)

    assert lines[0] == "started"
    assert [line.rpartition(" ")[2] for line in lines[1:]] == ["completed"] * 3
    assert [entry.message for entry in last] == lines[-1:]
    assert runtime.get_recent_logs(limit=0) == []


@pytest.mark.parametrize(("inherits", "value"), [(True, "ours"), (False, "none")])
async def test_variables_of_the_config_come_from_env_and_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inherits: bool, value: str
) -> None:
    monkeypatch.setenv("OUTER", "ours")
    (tmp_path / "say.py").write_text(
        "import os\nfrom pyflue.stepflow import StepflowStdioServer\n\nserver = StepflowStdioServer()\n\n\n"
        "@server.component\ndef say(value: object) -> list[str]:\n"
        "    return [os.environ['OUTER'], os.environ['INNER']]\n\n\nserver.run()\n"
    )
    (tmp_path / "stepflow-config.yml").write_text(
        "plugins:\n  say: {type: stepflow, transport: stdio, command: python, args: [say.py],\n"
        '    env: {OUTER: "${OUTER:-none}", INNER: "${INNER}"}}\nroutes: {"/{*component}": [{plugin: say}]}\n'
    )
    flow = {"steps": [{"id": "a", "component": "/say"}], "output": {"$step": "a"}}
    config = tmp_path / "stepflow-config.yml"
    async with StepflowRuntime.start(config, env={"INNER": "given"}, inherit_env=inherits) as runtime:
        result = await runtime.run(flow, None)

    assert result.output == {"value": [value, "given"]}


def test_a_config_that_cannot_be_used_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "c.yml").write_text('plugins: {}\nroutes: {"/x": [{plugin: nobody}]}\n')

    with pytest.raises(ConfigInvalid, match="nobody"):
        StepflowRuntime.start(tmp_path / "c.yml")


async def test_a_caller_that_is_cancelled_cancels_its_run() -> None:
    began, ended = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    waiting = StepflowServer(include_builtins=False)

    @waiting.component
    async def wait(value: Any) -> Any:
        loop.call_soon_threadsafe(began.set)
        try:
            await asyncio.Event().wait()
        finally:
            loop.call_soon_threadsafe(ended.set)

    flow = {"steps": [{"id": "w", "component": "/mine/wait"}], "output": {"$step": "w"}}
    async with StepflowRuntime.start(servers={"mine": waiting}) as runtime, asyncio.timeout(10):
        task = asyncio.ensure_future(runtime.run(flow, None))
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await ended.wait()
