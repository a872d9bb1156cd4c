"""What runtime and client do alike, on one runtime that listens; and where they cannot."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from pyflue.stepflow import (
    FlowResult,
    StepflowClient,
    StepflowClientError,
    StepflowContext,
    StepflowRuntime,
    StepflowServer,
)
from pyflue.stepflow.backend import RunRefused

SIGNED = {
    "name": "signed",
    "description": "Says who asks, and where.",
    "schemas": {
        "properties": {
            "variables": {
                "type": "object",
                "properties": {
                    "region": {"type": "string", "default": "eu"},
                    "api_key": {"type": "string", "is_secret": True},
                },
                "required": ["api_key"],
            }
        }
    },
    "steps": [{"id": "look", "component": "/shop/look", "input": {"$variable": "api_key"}}],
    "output": {"region": {"$variable": "region"}, "signed": {"$step": "look"}, "of": {"$input": "name"}},
}

server = StepflowServer(include_builtins=False)


@server.component
def look(key: str, context: StepflowContext) -> bool:
    """Whether the key is the right one."""
    return key == "k" and context.step_id == "look"


@server.component(name="thread")
def thread_of(input: Any) -> str:  # noqa: A002  (the word of the SDK)
    return threading.current_thread().name


@server.component(name="loop", blocking=False)
def loop_of(input: Any) -> str:  # noqa: A002  (as above)
    return threading.current_thread().name


@server.component(blocking=False)
def broken(input: Any) -> str:  # noqa: A002  (as above)
    raise ValueError("no such parcel")


@pytest.fixture
async def runtime() -> AsyncIterator[StepflowRuntime]:
    async with await StepflowRuntime.start_async(port=0, servers={"shop": server}) as started:
        yield started


@pytest.fixture(params=["runtime", "client"])
def executor(request: pytest.FixtureRequest, runtime: StepflowRuntime) -> StepflowRuntime | StepflowClient:
    return runtime if request.param == "runtime" else runtime.client


async def test_variables_are_given_with_the_run(executor: Any) -> None:
    expected = FlowResult.success({"region": "us", "signed": True, "of": "Ada"})
    variables = {"api_key": "k", "region": "us"}
    assert await executor.run(SIGNED, {"name": "Ada"}, variables=variables) == expected
    run_id = await executor.submit(SIGNED, {"name": "Ada"}, variables=variables)
    assert await executor.get_result(run_id) == expected


async def test_a_list_is_a_batch_with_the_same_variables_and_overrides(executor: Any) -> None:
    overrides = {"look": {"value": {"input": "another key"}}}
    ended = await executor.run(SIGNED, [{"name": "Ada"}, {"name": "Bob"}], overrides, variables={"api_key": "k"})
    assert ended.output == {"value": [{"region": "eu", "signed": False, "of": name} for name in ("Ada", "Bob")]}


async def test_a_variable_that_is_missing_is_told_before_anything_runs(executor: Any) -> None:
    missing = FlowResult.failed(400, "Missing required variable: api_key")

    assert await executor.run(SIGNED, {"name": "Ada"}) == missing
    with pytest.raises((RunRefused, StepflowClientError), match="Missing required variable: api_key"):
        await executor.submit(SIGNED, {"name": "Ada"})


async def test_a_failed_flow_is_a_result_with_a_plain_code_and_its_run_is_in_the_log(runtime: StepflowRuntime) -> None:
    nowhere = {"steps": [{"id": "a", "component": "/nope"}], "output": {"$step": "a"}}
    run_id = await runtime.submit(nowhere, {})
    error = (await runtime.get_result(run_id)).error
    assert error is not None
    assert (repr(error.code), error.message.partition(":")[0]) == ("500", 'step "a" failed')
    assert [entry.message for entry in runtime.get_recent_logs() if entry.run_id == run_id] == [f"run {run_id} failed"]


async def test_a_plain_function_that_never_waits_is_called_where_the_flow_runs(runtime: StepflowRuntime) -> None:
    steps = [{"id": name, "component": f"/shop/{name}", "input": {}} for name in ("thread", "loop")]
    flow = {"steps": steps, "output": {"thread": {"$step": "thread"}, "loop": {"$step": "loop"}}}
    result = await runtime.run(flow, {})
    assert result.output == {"thread": "stepflow component", "loop": "stepflow runtime"}


async def test_what_such_a_function_raises_fails_its_step(runtime: StepflowRuntime) -> None:
    flow = {"steps": [{"id": "one", "component": "/shop/broken", "input": {}}], "output": {"$step": "one"}}
    result = await runtime.run(flow, {})
    assert result.error is not None
    assert "no such parcel" in result.error.message
