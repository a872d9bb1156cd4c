"""Component servers behind pipes: what they are told, what they may ask, and every way in which they can go wrong."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from pyflue.stepflow.jsonrpc import RpcLimits
from pyflue.stepflow.plugins.port import BlobType, ComponentFailed, ComponentInfo, ComponentSkipped
from pyflue.stepflow.plugins.stdio import StdioPlugin, StdioSettings
from tests.promises import promise
from tests.stepflow.plugins.doubles import (
    PYTHON,
    SERVERS,
    Services,
    call_of,
    children,
    failure_of,
    is_running,
    until_gone,
    until_there,
)

CRASHED = "component server error(-32603): process crashed during the request"


def stdio(tmp_path: Path, *args: str, **settings: Any) -> StdioPlugin:
    return StdioPlugin(
        "python",
        StdioSettings(
            **{"command": PYTHON, "args": [str(SERVERS / "components.py"), *args], "cwd": tmp_path, **settings}
        ),
    )


@pytest.fixture
async def plugin(tmp_path: Path) -> AsyncIterator[StdioPlugin]:
    plugin = stdio(tmp_path, limits=RpcLimits(message_bytes=2 * 1024 * 1024, stray_lines=1000), grace_s=0.2)
    yield plugin
    await plugin.close()
    assert not children()


# What a component is told


async def test_components_are_described_as_the_server_describes_them(plugin: StdioPlugin) -> None:
    assert await plugin.components() == [
        ComponentInfo(
            path="/echo",
            description="Gives back what it gets.",
            input_schema={"type": "object"},
            output_schema={"type": "object"},
        ),
        ComponentInfo(path="/fail"),
    ]


async def test_a_component_is_told_the_attempt_and_for_whom_it_works(plugin: StdioPlugin) -> None:
    output = await plugin.execute(call_of("/call", [1], attempt=4))

    assert output == {
        "component": "/call",
        "input": [1],
        "attempt": 4,
        "about": ["flow_id", "run_id", "span_id", "step_id"],
    }


@promise("stepflow.environment")
async def test_a_server_sees_only_the_environment_that_is_listed_and_works_in_its_folder(tmp_path: Path) -> None:
    os.environ["STEPFLOW_TEST_SECRET"] = "planted"
    plugin = stdio(tmp_path, env={"LISTED": "yes"})
    try:
        seen = await plugin.execute(call_of("/env"))
        cwd = await plugin.execute(call_of("/cwd"))
    finally:
        del os.environ["STEPFLOW_TEST_SECRET"]
        await plugin.close()

    # Python itself may add a locale.
    assert {name: value for name, value in seen.items() if name != "LC_CTYPE"} == {"LISTED": "yes"}
    assert cwd == str(tmp_path)


async def test_a_command_may_be_a_path_from_the_working_directory(tmp_path: Path) -> None:
    script = tmp_path / "bin" / "server"
    script.parent.mkdir()
    script.write_text(f"#!{PYTHON}\n" + (SERVERS / "components.py").read_text())
    script.chmod(0o700)
    plugin = stdio(tmp_path, command="bin/server", args=[])

    assert await plugin.execute(call_of("/echo", 1)) == 1
    await plugin.close()


async def test_large_messages_go_both_ways_at_the_same_time(plugin: StdioPlugin) -> None:
    text = "é" * 300_000

    async with asyncio.timeout(20):
        outputs = await asyncio.gather(*(plugin.execute(call_of("/echo", text)) for _ in range(8)))

    assert outputs == [text] * 8


# What a component may ask


async def test_a_component_keeps_and_gets_blobs_of_its_run(plugin: StdioPlugin) -> None:
    services = Services()

    output = await plugin.execute(call_of("/blob", {"a": 1}, services=services))

    blob_id = next(iter(services.blobs))
    assert output == {"blob_id": blob_id, "data": {"a": 1}, "blob_type": "data"}
    assert services.blobs == {blob_id: ({"a": 1}, BlobType.DATA)}


ITEMS = {"total": 2, "completed": 0, "running": 2, "failed": 0, "cancelled": 0}
DONE = {"total": 2, "completed": 2, "running": 0, "failed": 0, "cancelled": 0}
RUN = {"runId": "sub", "flowId": "f", "flowName": "add", "createdAt": "2026-01-01T00:00:00Z"}
RESULTS = [
    {"itemIndex": 0, "status": "completed", "result": {"outcome": "success", "result": 2}},
    {"itemIndex": 1, "status": "completed", "result": {"outcome": "success", "result": 3}},
]


@pytest.mark.parametrize(
    ("method", "params", "answer"),
    [
        ("runs/submit", {"flowId": "f", "inputs": [1, 2]}, {**RUN, "status": "running", "items": ITEMS}),
        (
            "runs/submit",
            {"flow_id": "f", "inputs": [1, 2], "wait": True, "maxConcurrency": 2, "overrides": {"steps": {}}},
            {**RUN, "status": "completed", "items": DONE, "completedAt": RUN["createdAt"], "results": RESULTS},
        ),
        ("flows/evaluate", {"flow_id": "f", "input": 1}, {"result": {"outcome": "success", "result": 2}}),
        ("flows/submit_batch", {"flow_id": "f", "inputs": [1, 2, 3]}, {"batch_id": "sub", "total_runs": 3}),
        ("flows/get_metadata", {"flow_id": "f"}, {"flow_metadata": {"owner": "me"}}),
        (
            "flows/get_metadata",
            {"flow_id": "f", "step_id": "s"},
            {"flow_metadata": {"owner": "me"}, "step_metadata": {"of": "s"}},
        ),
    ],
)
async def test_a_component_asks_for_runs_and_metadata(
    plugin: StdioPlugin, method: str, params: dict[str, Any], answer: dict[str, Any]
) -> None:
    assert await plugin.execute(call_of("/ask", {"method": method, "params": params})) == answer


async def test_a_component_gets_the_runs_that_it_has_submitted(plugin: StdioPlugin) -> None:
    services = Services()

    async def ask(method: str, **params: Any) -> Any:
        return await plugin.execute(call_of("/ask", {"method": method, "params": params}, services=services))

    await ask("runs/submit", flowId="f", inputs=[1, 2])
    finished = {**RUN, "status": "completed", "items": DONE, "completedAt": RUN["createdAt"]}

    assert await ask("runs/get", runId="sub", wait=True) == finished
    assert await ask("runs/get", runId="sub", includeResults=True, resultOrder="byCompletion") == {
        **finished,
        "results": RESULTS[::-1],
    }
    batch = await ask("flows/get_batch", batch_id="sub", wait=True, include_results=True)
    assert batch["outputs"] == [
        {"batch_input_index": 0, "status": "completed", "result": {"outcome": "success", "result": 2}},
        {"batch_input_index": 1, "status": "completed", "result": {"outcome": "success", "result": 3}},
    ]
    assert (batch["details"]["total_runs"], batch["details"]["completed_runs"]) == (2, 2)


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("blobs/steal", {}, -32601),
        ("blobs/put", {"blob_type": "data"}, -32602),
        ("blobs/put", {"data": 1, "blob_type": "picture"}, -32602),
        ("blobs/put", {"data": {}, "blob_type": "flow"}, -32012),
        ("blobs/get", {"blob_id": "short"}, -32012),
        ("blobs/get", {"blob_id": "0" * 64}, -32011),
        ("blobs/get", [1], -32602),
        ("runs/get", {"runId": "other"}, -32011),
        ("runs/get", {"runId": "sub", "resultOrder": "random"}, -32602),
        ("runs/submit", {"flowId": "f", "inputs": 3}, -32602),
        ("runs/submit", {"flowId": "f", "inputs": [], "maxConcurrency": 0}, -32602),
        ("runs/submit", {"flowId": "f", "inputs": [], "wait": "yes"}, -32602),
        ("flows/get_metadata", {"step_id": "unknown"}, -32011),
    ],
)
async def test_what_cannot_be_answered_is_an_error_with_the_code_of_the_protocol(
    plugin: StdioPlugin, method: str, params: Any, code: int
) -> None:
    output = await plugin.execute(call_of("/ask", {"method": method, "params": params}))

    assert output["error"]["code"] == code
    assert output["error"]["message"]


async def test_a_request_that_could_belong_to_several_calls_says_what_to_give(
    plugin: StdioPlugin, tmp_path: Path
) -> None:
    waiting = asyncio.create_task(plugin.execute(call_of("/wait", {"until": str(tmp_path / "m")}, step_id="other")))
    alone = {"method": "blobs/put", "params": {"data": 1}, "about": False}
    await plugin.execute(call_of("/echo"))

    refused = await plugin.execute(call_of("/ask", alone))
    (tmp_path / "m").touch()
    await waiting

    assert refused["error"]["code"] == -32602
    assert "span_id" in refused["error"]["message"]
    assert "blob_id" in await plugin.execute(call_of("/ask", alone))


async def test_calls_of_several_items_at_one_step_are_told_apart(plugin: StdioPlugin) -> None:
    services = [Services() for _ in range(10)]

    await asyncio.gather(
        *(plugin.execute(call_of("/blob", index, services=each)) for index, each in enumerate(services))
    )

    assert [[data for data, _ in each.blobs.values()] for each in services] == [[index] for index in range(10)]


# Failures of components


async def test_an_error_of_a_component_is_told_with_its_code(plugin: StdioPlugin) -> None:
    error = await failure_of(plugin, "/fail", "oh no")

    assert error.message == "Component execution failed: oh no"
    assert error.attachments == (
        "error executing component",
        "component server error(-32003): Component execution failed: oh no",
    )
    assert error.is_retryable
    assert error.failure is None


async def test_a_component_that_there_is_not_is_not_tried_again(plugin: StdioPlugin) -> None:
    error = await failure_of(plugin, "/nope")

    assert (error.message, error.is_retryable) == ("Component /nope not found", False)


async def test_a_component_may_say_that_there_is_nothing_to_do(plugin: StdioPlugin) -> None:
    with pytest.raises(ComponentSkipped, match="not today") as skipped:
        await plugin.execute(call_of("/skip", "not today"))

    assert skipped.value.reason == "not today"


@promise("stepflow.environment")
async def test_values_from_the_environment_are_told_nowhere(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    plugin = stdio(tmp_path, env={"API_KEY": "planted-value"}, secrets=["planted-value"])

    error = await failure_of(plugin, "/secret")
    await plugin.close()

    assert error.message == "the key is [REDACTED]"
    assert "planted-value" not in f"{error.attachments} {plugin!r} {capfd.readouterr()}"


# Servers that go wrong


@promise("stepflow.faults")
@pytest.mark.parametrize(
    ("component", "problem"),
    [
        ("/no_output", "has no `output`"),
        ("/bad_error", "no code and message"),
        ("/null_id", "cannot read that"),
        ("/garbage", "cannot be read"),
        ("/batch", "several messages in one"),
        ("/neither", "neither a request nor an answer"),
        ("/true_id", "neither a text nor a whole number"),
        ("/deep", "cannot be read"),
        ("/flood_lines", "floods its standard output"),
        ("/flood_line", "a line of more than 2,097,152 bytes"),
        ("/flood_requests", "does not read what it is sent"),
        ("/close_stdout", "closed its standard input or output"),
        ("/exit", "ended with exit code"),
    ],
)
async def test_a_server_that_breaks_the_protocol_is_a_failure_and_the_next_call_goes_on(
    plugin: StdioPlugin, component: str, problem: str
) -> None:
    async with asyncio.timeout(30):
        error = await failure_of(plugin, component, 5)

        assert problem in error.message
        assert await plugin.execute(call_of("/echo", "on")) == "on"


@promise("stepflow.faults")
@pytest.mark.parametrize(("component", "output"), [("/twice", 1), ("/unknown_id", "answered"), ("/noisy", "answered")])
async def test_answers_to_nobody_and_stray_lines_harm_nobody(plugin: StdioPlugin, component: str, output: Any) -> None:
    pid = await plugin.execute(call_of("/pid"))

    assert await plugin.execute(call_of(component)) == output
    assert await plugin.execute(call_of("/pid")) == pid


async def test_a_message_above_the_limit_fails_alone(plugin: StdioPlugin) -> None:
    pid = await plugin.execute(call_of("/pid"))

    error = await failure_of(plugin, "/echo", "x" * 3 * 1024 * 1024)

    assert "2,097,152 are the limit" in error.message
    assert await plugin.execute(call_of("/pid")) == pid


async def test_more_calls_than_may_wait_are_refused(tmp_path: Path) -> None:
    plugin = stdio(tmp_path, limits=RpcLimits(pending=1))
    waiting = asyncio.create_task(plugin.execute(call_of("/wait", {"until": str(tmp_path / "mark")})))
    await asyncio.sleep(0)
    await until_started(plugin)

    error = await failure_of(plugin, "/echo")
    (tmp_path / "mark").touch()

    assert "1 requests wait for their answers already" in error.message
    assert await waiting == "waited"
    await plugin.close()


async def until_started(plugin: StdioPlugin) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                await plugin.components()
            except ComponentFailed:
                return


async def test_a_component_that_hangs_fails_in_time_and_its_process_goes(tmp_path: Path) -> None:
    plugin = stdio(tmp_path, execute_timeout_s=0.3)
    pid = await plugin.execute(call_of("/pid"))

    error = await failure_of(plugin, "/hang")

    assert error.message == "Plugin 'python' cannot be used: component /hang did not answer within 0.3 s."
    await until_gone(pid)
    assert await plugin.execute(call_of("/echo", 1)) == 1
    await plugin.close()


@promise("stepflow.faults")
async def test_a_component_that_hangs_takes_no_other_call_with_it(tmp_path: Path) -> None:
    plugin = stdio(tmp_path, execute_timeout_s=1.5)
    pid = await plugin.execute(call_of("/pid"))
    hanging = asyncio.create_task(failure_of(plugin, "/hang", str(tmp_path / "hangs")))
    await until_there(tmp_path / "hangs")
    await asyncio.sleep(0.5)
    other = asyncio.create_task(plugin.execute(call_of("/wait", {"until": str(tmp_path / "mark")})))

    await hanging
    (tmp_path / "mark").touch()

    assert await other == "waited"
    assert await plugin.execute(call_of("/pid")) == pid
    await plugin.close()


# Crashes


@promise("stepflow.crash")
async def test_what_a_crash_interrupts_is_sent_once_more_as_the_second_attempt(plugin: StdioPlugin) -> None:
    assert await plugin.execute(call_of("/crash_once")) == 2


@promise("stepflow.crash")
async def test_what_crashes_its_server_twice_fails_with_its_last_words(plugin: StdioPlugin, tmp_path: Path) -> None:
    error = await failure_of(plugin, "/crash", str(tmp_path / "attempts"))

    assert (tmp_path / "attempts").read_text().split() == ["1", "2"]
    assert error.message == "Plugin 'python' did not answer: its process ended with exit code 3."
    assert error.attachments == ("error executing component", CRASHED)
    assert error.is_retryable


async def test_a_crash_is_logged_with_what_the_server_said_last(
    plugin: StdioPlugin, capfd: pytest.CaptureFixture[str]
) -> None:
    error = await failure_of(plugin, "/exit", 9)

    entry = json.loads(capfd.readouterr().err.splitlines()[0])
    assert {name: entry[name] for name in ("event", "plugin", "story", "stderr")} == {
        "event": "component_server_ended",
        "plugin": "python",
        "story": "its process ended with exit code 9",
        "stderr": ["last words", "and more"],
    }
    assert error.message.endswith("It said last:\nlast words\nand more")


async def test_a_killed_server_is_started_again_and_other_calls_go_on(plugin: StdioPlugin, tmp_path: Path) -> None:
    pid = await plugin.execute(call_of("/pid"))
    calls = [asyncio.create_task(plugin.execute(call_of("/wait", {"until": str(tmp_path / "mark")}))) for _ in range(5)]
    await plugin.execute(call_of("/echo"))

    os.kill(pid, signal.SIGKILL)
    await until_gone(pid)
    (tmp_path / "mark").touch()

    async with asyncio.timeout(10):
        assert await asyncio.gather(*calls) == ["waited"] * 5
    assert await plugin.execute(call_of("/pid")) != pid


async def test_an_answer_just_before_the_end_counts(plugin: StdioPlugin) -> None:
    assert await plugin.execute(call_of("/answer_and_exit")) == "the last answer"
    assert await plugin.execute(call_of("/echo", 1)) == 1


# Starts that fail


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"command": "no-such-program"}, "there is no program 'no-such-program'"),
        ({"command": "./no/such"}, "there is no program './no/such'"),
        ({"cwd": Path("/no/such/folder")}, "cannot be started"),
        ({"args": ["a\0b"]}, "its arguments or its env cannot be passed on"),
        ({"mode": "dies"}, "ended with exit code 7 before it answered `initialize`. It said last:\nno such module"),
        ({"mode": "silent", "start_timeout_s": 0.3}, "did not answer `initialize` within 0.3 s"),
        ({"mode": "deaf", "start_timeout_s": 0.3}, "cannot be started"),
        ({"mode": "refuses"}, "answered `initialize` with error -32004: not today"),
        ({"mode": "newer"}, "it speaks version 2 of the protocol, and this is version 1"),
        ({"command": "cat", "args": ["/dev/zero"]}, "a line of more than"),
        ({"command": "true", "args": []}, "ended with exit code 0"),
    ],
)
async def test_a_server_that_cannot_be_started_says_why(tmp_path: Path, settings: dict[str, Any], problem: str) -> None:
    mode = settings.pop("mode", "")
    plugin = stdio(tmp_path, mode, grace_s=0.2, **settings)

    error = await failure_of(plugin, "/echo")
    with pytest.raises(ComponentFailed):
        await plugin.components()
    await plugin.close()

    assert problem in error.message
    assert not children()


async def test_a_list_that_makes_no_sense_is_a_failure(tmp_path: Path) -> None:
    plugin = stdio(tmp_path, "lists-nonsense")

    with pytest.raises(ComponentFailed, match="lists a component without a path"):
        await plugin.components()
    await plugin.close()


async def test_a_server_that_dies_at_its_start_is_started_with_longer_and_longer_pauses(tmp_path: Path) -> None:
    plugin = stdio(tmp_path, f"count:{tmp_path / 'starts'}")

    for _ in range(4):
        await failure_of(plugin, "/echo")
    await plugin.close()

    starts = [float(line) for line in (tmp_path / "starts").read_text().split()]
    assert len(starts) == 4
    assert starts[2] - starts[1] > 0.1
    assert starts[3] - starts[2] > 0.2


async def test_calls_that_come_together_start_one_server(plugin: StdioPlugin) -> None:
    pids = await asyncio.gather(*(plugin.execute(call_of("/pid")) for _ in range(10)))

    assert len(set(pids)) == 1


async def test_a_start_goes_on_for_others_if_the_first_who_asked_gives_up(plugin: StdioPlugin) -> None:
    first, second = (asyncio.create_task(plugin.execute(call_of("/echo", n))) for n in (1, 2))
    await asyncio.sleep(0)
    first.cancel()

    assert await second == 2


# The end


@promise("stepflow.faults")
async def test_closing_takes_what_a_server_has_started_with_it(tmp_path: Path) -> None:
    before = children()
    plugin = stdio(tmp_path, grace_s=0.2)
    child = await plugin.execute(call_of("/children", "987654"))
    assert is_running(child)

    async with asyncio.timeout(5):
        await plugin.close()

    assert not is_running(child)
    assert children() <= before


@promise("stepflow.faults")
async def test_a_crash_takes_what_the_server_has_started_with_it(plugin: StdioPlugin) -> None:
    child = await plugin.execute(call_of("/children", "987655"))

    await failure_of(plugin, "/exit", 1)

    await until_gone(child)


async def test_a_server_that_ignores_everything_is_killed(tmp_path: Path) -> None:
    plugin = stdio(tmp_path, "ignores-everything", grace_s=0.1)
    pid = await plugin.execute(call_of("/pid"))

    async with asyncio.timeout(5):
        await plugin.close()

    assert not is_running(pid)


async def test_closing_while_it_starts_leaves_nothing(tmp_path: Path) -> None:
    plugin = stdio(tmp_path, "silent", grace_s=0.1)
    call = asyncio.create_task(failure_of(plugin, "/echo"))
    async with asyncio.timeout(5):
        while not children():
            await asyncio.sleep(0.002)

    await plugin.close()

    assert (await call).message == "Plugin 'python' cannot be used: it is closed."
    assert not children()


@pytest.mark.parametrize("mode", ["", "ignores-everything"])
async def test_if_pyflue_is_killed_the_server_goes_as_well(tmp_path: Path, mode: str) -> None:
    program = f"""
        import asyncio
        from pathlib import Path
        from tests.stepflow.plugins.doubles import call_of
        from tests.stepflow.plugins.test_stdio import stdio

        async def main():
            plugin = stdio(Path({str(tmp_path)!r}), {mode!r})
            print(await plugin.execute(call_of("/pid")), flush=True)
            await asyncio.sleep(60)

        asyncio.run(main())
    """
    ours = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE)
    assert ours.stdout is not None
    with ours, ours.stdout as output:
        pid = int(output.readline())
        ours.kill()

    await until_gone(pid)


async def test_all_that_a_server_says_is_logged_if_that_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STEPFLOW_COMPONENT_STDERR", "verbose")
    plugin = stdio(tmp_path)
    await plugin.execute(call_of("/noisy"))
    await plugin.close()

    lines = [json.loads(line)["line"] for line in capfd.readouterr().err.splitlines()]
    assert lines == ["a line that somebody printed", "{'not': 'json'}", "[1, 2]", '{"level": "info"}']
