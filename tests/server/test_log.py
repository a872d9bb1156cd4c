"""What a server's log tells its operator."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest

from pyflue import codec
from tests.reliability.processes import Server, make_project, running
from tests.server.harness import finished, in_process

NEVER_ENDS = """
    import asyncio

    async def run(ctx):
        await asyncio.Event().wait()
"""
FAILS = """
    async def run(ctx):
        raise ValueError("secret text")
"""


def logged(server: Server) -> dict[str, dict[str, Any]]:
    """Its lines by event name, the last of each."""
    lines = [codec.load(line.encode()) for line in server.lines]
    return {line["event"]: line for line in lines}


async def logged_until(server: Server, event: str) -> dict[str, dict[str, Any]]:
    async with asyncio.timeout(5):
        while event not in logged(server):
            await asyncio.sleep(0.01)
    return logged(server)


@pytest.mark.parametrize("command", ["serve", "dev"])
async def test_the_log_tells_of_broken_files_failed_runs_and_the_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("PYFLUE_SERVR_PORT", "1")
    monkeypatch.setenv("PYFLUE_ENGINE_STOP_S", "1")
    root = make_project(tmp_path / "project", fails=FAILS, waits=NEVER_ENDS, broken="import no_such_module")
    async with running(root, command) as server:
        lines = logged(server)
        assert lines["unknown_variable_ignored"]["did_you_mean"] == "PYFLUE_SERVER_PORT"
        assert lines["workflow_file"]["where"].endswith("broken.py:3")
        assert lines["listening"]["workflows"] == 3

        run_id = (await server.client.workflows.invoke("fails", {}))["run_id"]
        async for _ in server.client.runs.stream(run_id):
            pass
        await server.client.workflows.invoke("waits", {})
        assert await server.terminate() == 0
        lines = await logged_until(server, "stopped")
        assert lines["run_failed"]["level"] == "warning"
        assert {key: lines["run_failed"][key] for key in ("run_id", "workflow", "type")} == {
            "run_id": run_id,
            "workflow": "fails",
            "type": "exception",
        }
        assert "src/workflows/fails.py:5" in lines["run_failed"]["where"]
        assert lines["stopping"]["running"] == 1
        assert list(lines)[-1] == "stopped"
        assert "secret text" not in "".join(server.lines)


async def test_a_second_interrupt_ends_a_server_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYFLUE_ENGINE_STOP_S", "60")
    root = make_project(tmp_path / "project", waits=NEVER_ENDS)
    async with running(root) as server:
        await server.client.workflows.invoke("waits", {})
        async with asyncio.timeout(10):
            while server.process.returncode is None:
                server.signal(signal.SIGINT)
                await asyncio.sleep(0.1)
        assert server.process.returncode == 130
        assert "stopped" not in logged(server)


async def test_a_run_that_completes_or_is_cancelled_is_not_told_of(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with in_process(root) as here:
        assert (await here.client.post("/workflows/echo?wait=result")).status_code == 200
        run_id = (await here.client.post("/workflows/gate", json={"file": "none"})).json()["run_id"]
        await here.client.post(f"/runs/{run_id}/cancel")
        assert (await finished(here.client, run_id))["status"] == "cancelled"
    assert "run_failed" not in capsys.readouterr().err
