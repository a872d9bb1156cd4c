"""Defects that a review of the agents' room found, each as its user saw it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import threading
import weakref
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from pyflue import init_agent
from pyflue.agents import create_agent, define_agent_profile, files, tool
from pyflue.agents.bounded import bounded_misfits, check_outside_schema
from pyflue.agents.content import Text, ToolResult
from pyflue.agents.file_tools import builtin_tools
from pyflue.agents.models.port import ModelRequest, StopReason, StreamItem, TextDelta
from pyflue.agents.models.scripted import ScriptedModel, ScriptedReply
from pyflue.agents.sandboxes import SandboxLimits, SandboxPolicy
from pyflue.agents.sandboxes.virtual import VirtualSandbox
from pyflue.agents.shell import CommandRun
from pyflue.codec import load
from pyflue.engine.calls import Calls
from pyflue.errors import AgentInvalid, BudgetExceeded, ModelRefused
from pyflue.journal import RunStatus
from tests.agents.agent_runs import Asked, Stage, calls, last_text


def result_of(run: Any) -> Any:
    assert run.status is RunStatus.COMPLETED, run.error
    return load(run.result)


class Gate:
    """A step that the first attempt at a run does not get past."""

    def __init__(self) -> None:
        self.is_open = False

    async def __call__(self) -> None:
        if not self.is_open:
            await asyncio.Event().wait()


async def test_a_session_that_was_deleted_is_not_remembered_after_a_restart(stage: Stage) -> None:
    model, gate = Asked(lambda _: "ok"), Gate()

    async def run(ctx: Any) -> None:
        harness = await ctx.init(model.agent())
        await (await harness.session()).prompt("one")
        await harness.sessions.delete("default")
        session = await harness.session()
        await ctx.step("gate", gate)
        await session.prompt("two")

    async with stage.interrupted(run) as run_id:
        await stage.until(run_id, "step_start")
    gate.is_open = True
    result_of(await stage.resume(run_id, run))
    assert [[message.text for message in messages] for messages in model.messages] == [["one"], ["two"]]


async def test_an_operation_that_was_aborted_is_not_done_again_after_a_restart(stage: Stage) -> None:
    gate, hangs = Gate(), asyncio.Event()
    heard: list[list[str]] = []

    class Hanging(ScriptedModel):
        async def stream(self, request: ModelRequest) -> AsyncGenerator[StreamItem]:
            heard.append([message.text for message in request.messages])
            if last_text(request) == "hang":
                hangs.set()
                await asyncio.Event().wait()
            async for item in super().stream(request):
                yield item

    async def run(ctx: Any) -> list[str]:
        session = await (await ctx.init(create_agent(lambda: {"model": Hanging(lambda _: "ok")}))).session()

        async def hang() -> str:
            try:
                await session.prompt("hang")
            except Exception as error:
                return type(error).__name__
            return "it answered"

        async with asyncio.TaskGroup() as group:
            hanging = group.create_task(hang())
            if not gate.is_open:
                await hangs.wait()
                assert session.abort()
        await ctx.step("gate", gate)
        return [hanging.result(), (await session.prompt("go on")).text]

    async with stage.interrupted(run) as run_id:
        await stage.until(run_id, "step_start")
    gate.is_open = True
    assert result_of(await stage.resume(run_id, run)) == ["OperationAborted", "ok"]
    assert heard == [["hang"], ["go on"]]


async def test_a_prompt_that_ran_out_of_seconds_does_so_again_after_a_restart(stage: Stage) -> None:
    gate, asked = Gate(), 0

    async def answer(request: ModelRequest) -> str:
        nonlocal asked
        asked += 1
        if not gate.is_open:
            await asyncio.Event().wait()
        return "in time"

    async def run(ctx: Any) -> str:
        session = await (await ctx.init(create_agent(lambda: {"model": ScriptedModel(answer)}))).session()
        try:
            said = (await session.prompt("x", budget={"max_seconds": 0.05})).text
        except BudgetExceeded:
            said = "too slow"
        await ctx.step("gate", gate)
        return said

    async with stage.interrupted(run) as run_id:
        await stage.until(run_id, "step_start")
    gate.is_open = True
    assert (result_of(await stage.resume(run_id, run)), asked) == ("too slow", 1)


async def test_a_summary_is_never_taken_for_an_answer_when_the_limits_were_changed_meanwhile(stage: Stage) -> None:
    config, gate = {"context_window_tokens": 120, "reserve_tokens": 20, "keep_recent_tokens": 10}, Gate()

    def answer(request: ModelRequest) -> str:
        return "the summary" if "summar" in request.system else f"answer to {last_text(request)[:3]}"

    async def run(ctx: Any) -> list[str]:
        compaction = False if gate.is_open else config
        agent = create_agent(lambda: {"model": ScriptedModel(answer), "compaction": compaction})
        session = await (await ctx.init(agent)).session()
        said = [(await session.prompt("one" + "." * 600)).text]
        two = asyncio.ensure_future(session.prompt("two"))
        await ctx.step("gate", gate)
        return [*said, (await two).text]

    async with stage.interrupted(run) as run_id:
        await stage.until(run_id, "compaction_end")
        await stage.until(run_id, "operation", count=2)
    # As if the operation's own record had not been written: it is put together from its turns.
    gate.is_open = True
    assert result_of(await stage.resume(run_id, run)) == ["answer to one", "answer to two"]
    (turn,) = [turn for turn in await stage.told(run_id, "turn") if turn["purpose"] == "compaction"]
    assert "/compaction/turn" in turn["step"]


async def test_a_model_that_refuses_runs_no_tools(stage: Stage) -> None:
    paid: list[int] = []

    @tool
    def pay() -> str:
        """Pay."""
        paid.append(1)
        return "paid"

    model = Asked(lambda _: ScriptedReply(tool_calls=[("pay", {})], stop_reason=StopReason.REFUSAL))

    async def run(ctx: Any) -> list[Any]:
        session = await (await ctx.init(model.agent(tools=[pay]))).session()
        with pytest.raises(ModelRefused):
            await session.prompt("x")
        return [message.text for message in await session.history()]

    assert (result_of(await stage.run(run)), paid, model.count) == ([], [], 1)


async def test_tasks_side_by_side_do_not_ask_beyond_the_budget(stage: Stage) -> None:
    asked: list[str] = []

    async def answer(request: ModelRequest) -> Any:
        asked.append(last_text(request))
        if last_text(request) == "many":
            return calls(*[("task", {"prompt": f"part {number}"}) for number in range(20)])
        await asyncio.sleep(0)
        return "done"

    async def run(ctx: Any) -> int:
        session = await (await ctx.init(create_agent(lambda: {"model": ScriptedModel(answer)}))).session()
        with pytest.raises(BudgetExceeded):
            await session.prompt("many", budget={"max_turns": 5})
        return len(asked)

    assert result_of(await stage.run(run)) <= 5


async def test_a_secret_that_a_command_put_into_a_file_is_not_shown_later(stage: Stage) -> None:
    answers = [
        calls(("bash", {"command": "echo $TOKEN > kept"})),
        "kept",
        calls(("bash", {"command": "cat kept"})),
        "read",
    ]
    model = Asked(answers)

    async def run(ctx: Any) -> str:
        harness = await ctx.init(model.agent(env={"TOKEN": "planted-4711"}))
        session = await harness.session()
        await session.prompt("keep it", secrets=["TOKEN"])
        await session.prompt("read it")
        return (await harness.shell("cat kept")).stdout

    done = await stage.run(run)
    assert result_of(done) == "[secret TOKEN]\n"
    events = await stage.journal.events(done.run_id, limit=1000)
    steps = (await stage.journal.history(done.run_id)).steps
    held = [bytes(event.data) for event in events] + [bytes(step.value or b"") for step in steps]
    assert not any(b"planted-4711" in data for data in held)
    (told,) = [block for block in model.requests[-1].messages[-1].blocks if isinstance(block, ToolResult)]
    assert told.content == (Text("exit code: 0\nstdout:\n[secret TOKEN]"),)


async def test_nothing_of_a_run_with_agents_stays_when_it_is_over(stage: Stage) -> None:
    left: list[weakref.ref[Calls]] = []

    async def run(ctx: Any) -> str:
        harness = await ctx.init(Asked(lambda _: "ok").agent())
        left.append(weakref.ref(harness.calls))
        return (await (await harness.session()).prompt("x")).text

    async with stage.engine(run) as engine:
        for _ in range(5):
            await engine.wait(await stage.submit(engine, run))
        await asyncio.sleep(0)
        gc.collect()
        assert [ref for ref in left[:-1] if ref() is not None] == []


async def test_nobody_complains_of_a_stream_that_failed_after_its_reader_had_left(stage: Stage) -> None:
    complaints: list[str] = []

    class Breaking(ScriptedModel):
        async def stream(self, request: ModelRequest) -> AsyncGenerator[StreamItem]:
            yield TextDelta("a")
            raise ValueError("broken")

    async def run(ctx: Any) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["message"]))
        stream = (await (await ctx.init(create_agent(lambda: {"model": Breaking(())}))).session()).stream("x")
        pieces = aiter(stream)
        await anext(pieces)
        await stage.until(ctx.id, "operation")
        del stream, pieces
        gc.collect()
        await asyncio.sleep(0)

    result_of(await stage.run(run))
    gc.collect()
    assert complaints == []


@pytest.mark.parametrize(
    ("sandbox", "policy", "is_idempotent"),
    [
        (VirtualSandbox(), SandboxPolicy(), True),
        (VirtualSandbox(network=["https://example.com"]), SandboxPolicy(), False),
        (VirtualSandbox(commands={"mail": lambda argv, stdin: ""}), SandboxPolicy(), False),
        (VirtualSandbox(), SandboxPolicy(network=True), False),
    ],
)
def test_a_shell_that_reaches_further_than_its_files_is_not_idempotent(
    sandbox: VirtualSandbox, policy: SandboxPolicy, is_idempotent: bool
) -> None:
    tools = {tool.name: tool.is_idempotent for tool in builtin_tools(sandbox, policy)}
    assert (tools["bash"], tools["edit"]) == (is_idempotent, True)


async def test_the_virtual_sandbox_keeps_no_more_output_than_the_settings_say() -> None:
    result = await VirtualSandbox(limits=SandboxLimits(output_bytes=10)).exec("echo 123456789é123", timeout_s=10)
    assert (result.stdout, result.is_truncated) == ("123456789\n[the rest was left out]\n", True)


def test_a_strangers_schema_is_checked_in_bounded_time() -> None:
    refers = {f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n - 1}"}] * 2} for n in range(1, 31)}
    bomb = {"$defs": {"a0": {}, **refers}, "$ref": "#/$defs/a30"}
    (problem,) = bounded_misfits(1, bomb)
    assert problem["message"] == "the schema cannot be used: TimeoutError: checking it takes longer than 1 s"
    (problem,) = bounded_misfits("a" * 5000 + "!", {"pattern": "^(a+)+$"})
    assert problem["path"] == "$"
    assert bounded_misfits("aaa", {"pattern": "^(a+)+$"}) == []


@pytest.mark.parametrize("schema", [{"items": [{"pattern": "(?=a)"}]}, {"patternProperties": {"(a+)+$": {}}}, 1])
def test_a_strangers_schema_that_cannot_be_checked_in_bounded_time_is_refused(schema: Any) -> None:
    with pytest.raises(ValueError, match=r"pattern|no JSON Schema"):
        check_outside_schema(schema)


async def test_a_prompt_outside_of_runs_that_is_given_up_leaves_its_session_free() -> None:
    async with await init_agent(create_agent(lambda: {"model": ScriptedModel(lambda _: "ok")}), id="one") as harness:
        session = await harness.session()
        for moment in range(5):
            given_up = asyncio.ensure_future(session.prompt("x"))
            for _ in range(moment):
                await asyncio.sleep(0)
            given_up.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await given_up
            assert (await session.prompt("y")).text == "ok"


async def test_a_hook_that_does_not_decide_is_no_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_DECIDES_WITHIN_S", 0.01)

    async def authorize(request: Any) -> None:
        await asyncio.Event().wait()

    released = threading.Event()

    def blocks(request: Any) -> None:
        released.wait(10)

    asked = files.AgentRequest(agent="a", instance_id="b", session=None, action="read", request=None)
    for hook in (authorize, blocks):
        file = dataclasses.replace(files.plain_agent(Path()), authorize=hook)
        with pytest.raises(AgentInvalid, match=r"did not decide within 0\.01 s"):
            await file.allows(asked)
    released.set()


async def test_no_secret_shows_in_what_is_printed_of_a_command() -> None:
    run = CommandRun.of("env", timeout_s=1, cwd=None, env={"TOKEN": "planted-4711"})
    assert "planted-4711" not in repr(run)


async def test_each_subagent_has_its_own_tools_however_many_came_before_it(stage: Stage) -> None:
    @tool
    def for_a() -> str:
        """A."""
        return "a"

    @tool
    def for_b() -> str:
        """B."""
        return "b"

    own = {"a": "for_a", "b": "for_b"}
    wrong: list[tuple[str, list[str]]] = []

    def answer(request: ModelRequest) -> str:
        name = last_text(request)
        has = [spec.name for spec in request.tools if spec.name.startswith("for_")]
        if has != [own[name]]:
            wrong.append((name, has))
        return "ok"

    subagents = [
        define_agent_profile({"name": "a", "instructions": "A.", "tools": [for_a]}),
        define_agent_profile({"name": "b", "instructions": "B.", "tools": [for_b]}),
    ]

    async def run(ctx: Any) -> None:
        agent = create_agent(lambda: {"model": ScriptedModel(answer), "subagents": subagents})
        session = await (await ctx.init(agent)).session()
        for number in range(40):
            name = "ab"[number % 2]
            await session.task(name, agent=name)

    result_of(await stage.run(run))
    assert wrong == []
