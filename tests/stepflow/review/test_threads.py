"""Blocking components that wait for flows do not keep the threads from the components of these flows."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from pyflue.stepflow import StepflowContext, StepflowRuntime, StepflowServer
from pyflue.stepflow.sdk.threads import MOST_THREADS

from ..running.test_scheduler import step

INNER = {"name": "inner", "steps": [step("leaf", "/py/leaf", input=1)], "output": {"$step": "leaf"}}


async def test_more_blocking_components_than_threads_can_wait_for_flows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stepflow-config.yml").write_text(
        'plugins: {b: {type: builtin}}\nroutes: {"/{*component}": [{plugin: b}]}\n'
    )
    server = StepflowServer()

    def leaf(given: int) -> int:
        return given

    def branch(given: int, context: StepflowContext) -> Any:
        return asyncio.run(context.evaluate_flow(INNER, given))

    server.component(leaf)
    server.component(branch)
    each = {"steps": [step("branch", "/py/branch", input=1)], "output": {"$step": "branch"}}
    items = list(range(MOST_THREADS + 20))
    flow = {
        "name": "outer",
        "steps": [step("m", "/map", input={"workflow": {"$literal": each}, "items": items})],
        "output": {"$step": "m", "path": "successful"},
    }

    async with await StepflowRuntime.start_async(servers={"py": server}) as runtime:
        async with asyncio.timeout(20):
            result = await runtime.run(flow, {})

    assert result.output == {"value": len(items)}
