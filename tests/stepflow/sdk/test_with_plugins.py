"""Component servers and the runtime's plugins, which know nothing of one another but the protocol."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from pyflue.stepflow.plugins.http import HttpPlugin, HttpSettings
from pyflue.stepflow.plugins.port import BlobType, ComponentFailed, ComponentSkipped, Plugin
from pyflue.stepflow.plugins.stdio import StdioPlugin, StdioSettings
from pyflue.stepflow.plugins.subprocess import SubprocessPlugin, SubprocessSettings
from tests.stepflow.plugins.doubles import Services, call_of, failure_of
from tests.stepflow.sdk.driver import SERVERS

_ENV = {"PATH": os.environ["PATH"]}


def _stdio(tmp_path: Path, *args: str) -> StdioPlugin:
    return StdioPlugin("python", StdioSettings(command=sys.executable, args=args, cwd=tmp_path, env=_ENV))


@pytest.fixture
async def components(tmp_path: Path) -> AsyncIterator[Plugin]:
    plugin = _stdio(tmp_path, str(SERVERS / "components.py"))
    try:
        yield plugin
    finally:
        await plugin.close()


async def test_components_are_listed_and_called(components: Plugin) -> None:
    listed = {info.path: info.description for info in await components.components()}
    assert listed["/math/twice"] == "Doubles."
    async with asyncio.timeout(20):
        assert await components.execute(call_of("/add", {"a": 1, "b": 2})) == {"sum": 3}
        with pytest.raises(ComponentSkipped) as skipped:
            await components.execute(call_of("/skip"))
        assert skipped.value.reason == "nothing to do"
        failed = await failure_of(components, "/fail", "it broke")
        assert failed.message == "Component execution failed: it broke"
        assert not (await failure_of(components, "/add", {"a": "x"})).is_retryable


async def test_components_use_what_the_run_offers(components: Plugin) -> None:
    services = Services()
    async with asyncio.timeout(20):

        async def use(*call: Any) -> Any:
            return await components.execute(call_of("/use", list(call), services=services))

        blob_id = await use("put_blob", {"steps": []}, "flow")
        assert services.blobs[blob_id] == ({"steps": []}, BlobType.FLOW)
        assert await use("get_blob", blob_id) == {"steps": []}
        assert (await use("get_blob", "0" * 64))["raised"] == "BlobNotFoundError"
        assert await use("evaluate_flow", {"steps": []}, 1) == 2
        assert (await use("evaluate_run_by_id", blob_id, [1])) == [2]
        assert await use("evaluate_batch_by_id", blob_id, [1]) == [2]
        assert await use("get_metadata", "s") == {"flow_metadata": {"owner": "me"}, "step_metadata": {"of": "s"}}
        where = await components.execute(call_of("/where", None, run_id="r", step_id="s", attempt=4))
        assert where == {"session_id": None, "step_id": "s", "run_id": "r", "flow_id": "flow-1", "attempt": 4}


async def test_a_process_that_a_function_ended_is_started_again_and_gets_the_next_attempt(tmp_path: Path) -> None:
    plugin = _stdio(tmp_path, "-m", "pyflue.stepflow.sdk")
    services = Services()
    code = "import sys\nif context.attempt == 1:\n    sys.exit(1)\nreturn context.attempt"
    try:
        async with asyncio.timeout(20):
            blob_id = await services.put_blob({"code": code, "input_schema": {"type": "object"}}, BlobType.DATA)
            call = call_of("/udf", {"blob_id": blob_id, "input": {}}, services=services)
            assert await plugin.execute(call) == 2
    finally:
        await plugin.close()


async def test_a_server_over_http_that_chooses_its_port_is_found_and_used(tmp_path: Path) -> None:
    args = (str(SERVERS / "http_components.py"), "localhost", "0")
    plugin = SubprocessPlugin("web", SubprocessSettings(command=sys.executable, args=args, cwd=tmp_path, env=_ENV))
    services = Services()
    try:
        async with asyncio.timeout(20):
            assert await plugin.execute(call_of("/add", {"a": 1, "b": 2})) == 3
            used = await plugin.execute(call_of("/use", {"kept": 1}, services=services))
            assert (used["data"], used["session_id"], used["step_id"]) == ({"kept": 1}, "instance-1", "step-1")
            assert list(services.blobs) == [used["blob"]]
            failed = await failure_of(plugin, "/fail")
            assert failed.message == "Component execution failed: it broke"
    finally:
        await plugin.close()


async def test_an_http_plugin_is_told_why_it_is_refused(tmp_path: Path) -> None:
    plugin = HttpPlugin("web", HttpSettings(url="http://127.0.0.1:9/"))
    with pytest.raises(ComponentFailed):
        await plugin.components()
    await plugin.close()
